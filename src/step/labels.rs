//! Labels of nodes that the profile asks for, on clusters of devstack's own.
//!
//! kind gives them to nodes that it makes, before a pod looks for one. What is asked for later, and all of it on
//! minikube's nodes, is applied here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::event::Action;
use crate::executor::Run;
use crate::ports::kube::ObjectKey;
use crate::step::component::{PATIENCE, applied};
use crate::step::objects::{Put, drifts};
use crate::step::{Applied, Observed, StepError, World};

/// How often a node that has not joined yet is looked for.
const POLL: Duration = Duration::from_millis(150);

/// Labels nodes.
#[derive(Debug, Clone)]
pub struct LabelsStep {
    /// The step that makes the nodes.
    pub cluster: String,
    /// Labels by the node's name.
    pub labels: BTreeMap<String, BTreeMap<String, String>>,
}

impl LabelsStep {
    fn objects(&self) -> Vec<Value> {
        let labelled = self.labels.iter().map(|(name, labels)| json!({"name": name, "labels": labels}));
        labelled.map(|metadata| json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata})).collect()
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let names: Vec<&str> = self.labels.keys().map(String::as_str).collect();
        let what = format!("labels of {}", names.join(", "));
        let Ok(kube) = world.kube() else { return Ok(Observed::new(Action::Create, what)) };
        Ok(match drifts(&*kube, &self.objects()).await?.first() {
            Some(drift) => Observed::new(Action::Repair, what).because(drift.to_string()),
            None => Observed::new(Action::Leave, what),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        if run.settled {
            return Ok(Applied { detail: "as they were".to_owned(), ..Applied::default() });
        }
        let kube = run.world.kube()?;
        let deadline = Instant::now() + run.ctx.options.timeout.unwrap_or(PATIENCE);
        let objects = self.objects();
        // What is applied before a node joins would be another node of that name.
        for key in objects.iter().filter_map(ObjectKey::of) {
            let mut told = String::new();
            loop {
                let reason = match kube.get(&key).await {
                    Ok(Some(_)) => break,
                    Ok(None) => format!("{key} has not joined yet"),
                    Err(error) if error.is_transient() => error.to_string(),
                    Err(error) => return Err(error.into()),
                };
                if run.has_failed(&self.cluster) || Instant::now() > deadline {
                    return Err(StepError::message(format!("{key} cannot be labelled: {reason}")));
                }
                if reason != told {
                    run.waiting(id, reason.clone());
                    told = reason;
                }
                run.ctx.clock.sleep(POLL).await;
            }
        }
        let put = Put { run, id, kube: &*kube, deadline, claim: None };
        let changed = put.wave(&objects).await?;
        Ok(applied(objects.len(), changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor;
    use crate::graph::{Graph, Node};
    use crate::journal::Journal;
    use crate::ports::Kube as _;
    use crate::ports::fake::FakeKube;
    use crate::step::Step;
    use crate::step::component::with_a_cluster::world;
    use crate::step_ids;

    #[tokio::test]
    async fn a_label_that_is_asked_for_later_is_seen_and_given() {
        let kube = FakeKube::default();
        let (ctx, world) = world(&kube).await;
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "devstack-demo-worker", "labels": {"disk": "slow", "own": "kept"}},
        });
        kube.put(node.clone());
        let labels = BTreeMap::from([("disk".to_owned(), "fast".to_owned())]);
        let labels = BTreeMap::from([("devstack-demo-worker".to_owned(), labels)]);
        let step = LabelsStep { cluster: step_ids::CLUSTER.to_owned(), labels };
        let observed = step.observe(&world).await.unwrap();
        let why = r#"Node devstack-demo-worker differs: metadata.labels.disk is "slow", not "fast""#;
        assert_eq!((observed.action, observed.why.as_deref()), (Action::Repair, Some(why)));
        let graph = Graph::new(vec![Node {
            id: step_ids::NODE_LABELS.to_owned(),
            needs: [].into(),
            step: Step::Labels(step.clone()),
        }]);
        let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
        executor::run(&ctx, &world, &journal, &graph.unwrap(), false).await.unwrap();
        let labelled = kube.get(&ObjectKey::of(&node).unwrap()).await.unwrap().unwrap();
        assert_eq!(labelled["metadata"]["labels"], json!({"disk": "fast", "own": "kept"}));
        assert_eq!(step.observe(&world).await.unwrap().action, Action::Leave);
    }
}
