//! A component's objects, applied in waves, and the wait until they work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::{self, Depth, Selector};
use crate::event::Action;
use crate::executor::Run;
use crate::facts::Held;
use crate::journal::Record;
use crate::kube::ready;
use crate::kube::ready::serves;
use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::ObjectKey;
use crate::profile::{Ready, ReadyKind, Rendered, ResolvedComponent, Scope};
use crate::step::claim::Claim;
use crate::step::late::Late;
use crate::step::objects::{Put, drifts, has_pods, hold};
use crate::step::volumes;
use crate::step::{Applied, Observed, StepError, World};
use crate::step_ids;

/// How often a component that is not ready is looked at.
const POLL: Duration = Duration::from_millis(250);

/// How long a component may take where `--timeout` says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Applies a component's objects.
#[derive(Debug, Clone)]
pub struct ComponentStep {
    /// The component.
    pub component: ResolvedComponent,
    /// Every value that is known before the cluster.
    pub scope: Scope,
    /// The step whose end means that pods find their images.
    pub images: String,
    /// What that step gave when it last ran: the names of images that it put somewhere else than their own name says.
    pub placed: Value,
    /// What an earlier `up` made of it, in the order in which it was made.
    pub before: Vec<ObjectKey>,
    /// The claim on its objects, in a cluster that others use too.
    pub claim: Option<Claim>,
    /// The Services whose addresses its objects hold, as `namespace/name`, and the steps that give them.
    pub addresses: BTreeMap<String, String>,
    /// The nodes that its pods are held to, where its images do not run on every node.
    pub held: Option<Held>,
}

impl ComponentStep {
    fn render(&self, late: &Late) -> Result<Rendered, StepError> {
        let mut scope = self.scope.clone();
        late.fill(&mut scope);
        let mut rendered = self.component.rendered(&scope).map_err(|error| StepError::of(&error))?;
        if let Some(held) = &self.held {
            rendered.waves.iter_mut().flatten().for_each(|object| hold(object, &held.terms));
        }
        if let Some(claim) = &self.claim {
            rendered.waves.iter_mut().flatten().for_each(|object| claim.mark(object));
        }
        Ok(rendered)
    }

    /// The keys of its objects.
    pub(super) fn keys(&self, late: Late) -> Result<Vec<ObjectKey>, StepError> {
        Ok(self.render(&late.or_any(self))?.waves.iter().flatten().filter_map(ObjectKey::of).collect())
    }

    /// Records the keys of what it is about to make, with those of what it made before, so that what is asked for no
    /// more can be found.
    fn remember(&self, run: &Run<'_>, waves: &[Vec<Value>]) -> Result<(), StepError> {
        let mut keys = self.before.clone();
        keys.extend(waves.iter().flatten().filter_map(ObjectKey::of).filter(|key| !self.before.contains(key)));
        if keys != self.before {
            run.journal.append(Record::Done { step: step_ids::applied(&self.component.name), outputs: json!(keys) })?;
        }
        Ok(())
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("component {}", self.component.name);
        let create = |what: String| {
            let observed = Observed::new(Action::Create, what);
            match &self.held {
                Some(held) => observed.because(format!("its images run on {} alone", held.nodes.join(", "))),
                None => observed,
            }
        };
        let Ok(kube) = world.kube() else { return Ok(create(what)) };
        let late = Late::seen(world, world.pool().await?.as_deref(), self).await?;
        if let Some(service) = late.missing(self) {
            let why = format!("it holds the address of Service {service}, which has none yet");
            return Ok(Observed::new(Action::Later, what).because(why));
        }
        let mut rendered = self.render(&late)?;
        let objects: Vec<Value> = std::mem::take(&mut rendered.waves).into_iter().flatten().collect();
        let total = objects.len();
        if let Some(claim) = &self.claim {
            claim.refuse_foreign(&*kube, &objects).await?;
        }
        let mut drift = drifts(&*kube, &objects).await?;
        for drift in drift.iter_mut().filter(|drift| rendered.is_secret(&drift.key().kind, &drift.key().name)) {
            drift.hide_values();
        }
        Ok(match drift.as_slice() {
            [] => Observed::new(Action::Leave, what),
            all if all.len() == total => create(format!("{what}, {total} objects")),
            [only] => Observed::new(Action::Repair, what).because(only.to_string()),
            [first, more @ ..] => {
                Observed::new(Action::Repair, what).because(format!("{first}, and {} more", more.len()))
            }
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let kube = run.world.kube()?;
        let deadline = Instant::now() + run.ctx.options.timeout.unwrap_or(PATIENCE);
        let mut count = 0;
        let mut changed = 0;
        let put = Put { run, id, kube: &*kube, deadline, claim: self.claim.as_ref() };
        let waves = self.render(&Late::given(run, self))?.waves;
        self.remember(run, &waves)?;
        if run.settled {
            return Ok(applied(waves.iter().map(Vec::len).sum(), 0));
        }
        for wave in &waves {
            if wave.iter().any(has_pods) && !run.ended(&self.images).await {
                return Err(StepError::message("its images did not reach the nodes"));
            }
            volumes::provide(run.world, &*kube, wave).await?;
            count += wave.len();
            changed += put.wave(wave).await?;
        }
        Ok(applied(count, changed))
    }
}

/// What applying objects came to.
pub(super) fn applied(count: usize, changed: usize) -> Applied {
    Applied {
        detail: if changed == 0 { format!("{count} objects") } else { format!("{changed} of {count} objects") },
        outputs: json!({"objects": count}),
        changed: changed > 0,
    }
}

/// Whether a pod is done, or ready with containers that were all started after `time`. Times are written alike, to the
/// second in UTC.
fn is_back(pod: &Value, time: &str) -> bool {
    if matches!(pod.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed")) {
        return true;
    }
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let started =
        |container: &Value| container.pointer("/state/running/startedAt").and_then(Value::as_str) >= Some(time);
    serves(pod) && containers.is_some_and(|containers| containers.iter().all(started))
}

/// Waits until a component is ready, telling why it is not; stops early where waiting cannot help.
#[derive(Debug, Clone)]
pub struct ReadyStep {
    /// The step that creates the cluster, or starts it again.
    pub cluster: String,
    /// The component.
    pub component: String,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// What must hold.
    pub ready: Vec<Ready>,
}

impl ReadyStep {
    /// A pod that is not ready, or of which that is not known, since its node was started again, be it by this run, by
    /// somebody else or by the engine. Until the node's kubelet has looked a pod seems to be as it was, and until the controllers run again so do its owners.
    async fn stale(&self, run: &Run<'_>, kube: &dyn Kube) -> Result<Option<String>, StepError> {
        let cluster = run.output(&self.cluster);
        let Some(restarted) = cluster["restarted"].as_object().filter(|nodes| !nodes.is_empty()) else {
            return Ok(None);
        };
        // Of a pod that has no node yet its owner tells.
        let since = |pod: &Value| restarted.get(pod.pointer("/spec/nodeName")?.as_str()?)?.as_str().map(str::to_owned);
        for namespace in &self.namespaces {
            match kube.list("v1", "Pod", Some(namespace), "").await {
                Ok(pods) => {
                    if let Some(pod) = pods.iter().find(|pod| since(pod).is_some_and(|time| !is_back(pod, &time))) {
                        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                        return Ok(Some(format!("pod {namespace}/{name} is not back since its node was started")));
                    }
                }
                Err(error) if error.is_transient() => return Ok(Some(error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Deletes the environment's pods that keep a StatefulSet of this component from its newest revision, and leaves
    /// them out of the snapshot.
    async fn make_way(&self, run: &Run<'_>, kube: &dyn Kube, snapshot: &mut check::Snapshot) -> Result<(), StepError> {
        let mut gone = Vec::new();
        for (set, pod) in check::obstacles(snapshot) {
            let is = |ready: &Ready| {
                let named = |field: &str, name: &String| set["metadata"][field] == *name;
                ready.kind == ReadyKind::StatefulSet
                    && named("namespace", &ready.namespace)
                    && named("name", &ready.name)
            };
            let own = pod["metadata"]["labels"][OWNER_LABEL] == run.world.environment && self.ready.iter().any(is);
            let Some(key) = ObjectKey::of(pod).filter(|_| own) else { continue };
            let deleted = kube.delete(&key, pod.pointer("/metadata/uid").and_then(Value::as_str)).await;
            // Where the server did not answer, the next look finds the pod again.
            if let Err(error) = deleted
                && !error.is_transient()
            {
                return Err(error.into());
            }
            gone.push(key);
        }
        snapshot.pods.retain(|pod| !ObjectKey::of(pod).is_some_and(|key| gone.contains(&key)));
        Ok(())
    }

    fn one_line(&self, snapshot: &check::Snapshot) -> Option<String> {
        self.namespaces.iter().find_map(|name| check::one_line(snapshot, &Selector::Namespace(name.clone())))
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let kube = run.world.kube()?;
        let deadline = Instant::now() + run.ctx.options.timeout.unwrap_or(PATIENCE);
        let mut told = String::new();
        let mut outputs = serde_json::Map::new();
        loop {
            let mut missing = self.stale(run, &*kube).await?;
            for ready in &self.ready {
                if missing.is_some() {
                    break;
                }
                match ready::look(&*kube, ready).await {
                    Ok(ready::State::Ready(value)) => {
                        if ready.kind == ReadyKind::ServiceAddress {
                            outputs.insert(format!("{}/{}", ready.namespace, ready.name), value);
                        }
                    }
                    Ok(ready::State::Waiting(reason)) => missing = Some(reason),
                    Err(error) if error.is_transient() => missing = Some(error.to_string()),
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(reason) = missing else {
                let mut changed = false;
                if id == step_ids::READY {
                    // The next `up` knows by it that a node was started again since everything was ready.
                    let started = run.output(&self.cluster)["started"].clone();
                    changed = run.journal.outputs().get(id).is_none_or(|known| known["started"] != started);
                    outputs.insert("started".to_owned(), started);
                }
                return Ok(Applied { detail: "ready".to_owned(), outputs: Value::Object(outputs), changed });
            };
            let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
            let mut findings = Vec::new();
            let mut reason = reason;
            // A server that does not answer is the reason itself.
            if let Ok(mut snapshot) = check::collect(&*kube, &namespaces, Depth::Wait, run.ctx.clock.now()).await {
                self.make_way(run, &*kube, &mut snapshot).await?;
                findings = check::explain(&snapshot);
                reason = self.one_line(&snapshot).unwrap_or(reason);
            }
            if findings.iter().any(|finding| finding.hopeless) || Instant::now() > deadline {
                return Err(StepError::Wait { what: self.component.clone(), reason, findings });
            }
            if reason != told {
                run.waiting(&self.component, reason.clone());
                told = reason;
            }
            run.ctx.clock.sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::executor;
    use crate::graph::{Graph, Node};
    use crate::journal::Journal;
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeKube, FakeRunner};
    use crate::step::Step;

    /// A pod of a StatefulSet's first revision, whose container crashed for the sixth time.
    fn crashed(set: &str, environment: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{set}-0"), "namespace": "a",
                "ownerReferences": [{"kind": "StatefulSet", "name": set}],
                "labels": {OWNER_LABEL: environment, "controller-revision-hash": "1"}},
            "status": {"phase": "Running", "containerStatuses": [{"name": "app", "ready": false, "restartCount": 5,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}]}})
    }

    #[tokio::test]
    async fn own_pods_of_an_older_revision_make_way_for_the_newest() {
        let kube = FakeKube::default();
        kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}));
        for set in ["db", "foreign"] {
            kube.put(
                json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": set, "namespace": "a"},
                "spec": {}, "status": {"observedGeneration": 1, "updateRevision": "2"}}),
            );
            kube.put(crashed(set, if set == "foreign" { "else" } else { "demo" }));
        }
        let ready = json!({"observedGeneration": 1, "updateRevision": "2",
            "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1});
        kube.react("StatefulSet", 6, move |set| set["status"] = ready.clone());
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let opened = kube.clone();
        let world = World::new(&ctx, "demo", Arc::new(FakeEngine::default()), Arc::new(FakeRunner::default()))
            .with_kube(Arc::new(move |_| Arc::new(opened.clone())));
        world.connect("").await.unwrap();
        let of = |name: &str| Ready { kind: ReadyKind::StatefulSet, namespace: "a".to_owned(), name: name.to_owned() };
        let step = ReadyStep {
            cluster: "cluster".to_owned(),
            component: "db".to_owned(),
            namespaces: vec!["a".to_owned()],
            ready: vec![of("db"), of("foreign")],
        };
        let node = Node { id: "db".to_owned(), needs: BTreeSet::new(), step: Step::Ready(step) };
        let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
        let graph = Graph::new(vec![node]).unwrap();
        let run = || executor::run(&ctx, &world, &journal, &graph, false);
        assert!(run().await.is_err(), "somebody else's pod is judged");
        let left: Vec<ObjectKey> = kube.keys().into_iter().filter(|key| key.kind == "Pod").collect();
        assert_eq!(left.iter().map(|key| &*key.name).collect::<Vec<_>>(), ["foreign-0"]);
        kube.put(crashed("db", "demo"));
        kube.delete(&left[0], None).await.unwrap();
        run().await.unwrap();
    }

    #[test]
    fn a_pod_is_back_when_it_is_ready_with_containers_of_after_the_restart() {
        let time = "2026-11-21T15:55:41Z";
        let pod = |ready: &str, state: Value| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [{"state": state}]}});
        let since = |started: &str| json!({"running": {"startedAt": started}});
        assert!(is_back(&pod("True", since(time)), time));
        assert!(!is_back(&pod("True", since("2026-11-21T15:55:40Z")), time), "nobody has looked at it");
        assert!(!is_back(&pod("False", since(time)), time));
        assert!(!is_back(&pod("False", json!({"waiting": {"reason": "CrashLoopBackOff"}})), time));
        assert!(!is_back(&pod("True", json!({"waiting": {"reason": "CrashLoopBackOff"}})), time));
        assert!(is_back(&json!({"status": {"phase": "Succeeded"}}), time));
    }
}

#[cfg(test)]
#[path = "component_tests.rs"]
pub(super) mod with_a_cluster;
