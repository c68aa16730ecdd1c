//! The environment's own registry inside a cluster that devstack did not make.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::registry;
use crate::event::Action;
use crate::executor::Run;
use crate::step::claim::Claim;
use crate::step::objects::{Put, drifts};
use crate::step::{Applied, Observed, ReadyStep, StepError, World};

/// How long its objects may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Runs a registry in a namespace of its own.
#[derive(Debug, Clone)]
pub struct RegistryStep {
    /// The environment.
    pub environment: String,
    /// Its image, which the nodes have or can pull.
    pub image: String,
    /// The claim on its objects.
    pub claim: Claim,
}

impl RegistryStep {
    fn objects(&self) -> Vec<Vec<Value>> {
        let mut waves = registry::objects(&self.environment, &self.image);
        waves.iter_mut().flatten().for_each(|object| self.claim.mark(object));
        waves
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("the environment's own registry, in namespace {}", registry::namespace(&self.environment));
        let Ok(kube) = world.kube() else { return Ok(Observed::new(Action::Create, what)) };
        let objects: Vec<Value> = self.objects().into_iter().flatten().collect();
        self.claim.refuse_foreign(&*kube, &objects).await?;
        let drift = drifts(&*kube, &objects).await?;
        Ok(match drift.first() {
            None => Observed::new(Action::Leave, what),
            Some(_) if drift.len() == objects.len() => {
                Observed::new(Action::Create, what).because("nodes pull from it what no other registry has")
            }
            Some(drift) => Observed::new(Action::Repair, what).because(drift.to_string()),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let kube = run.world.kube()?;
        let deadline = Instant::now() + run.ctx.options.timeout.unwrap_or(PATIENCE);
        let put = Put { run, id, kube: &*kube, deadline, claim: Some(&self.claim) };
        let mut changed = 0;
        for wave in self.objects() {
            changed += put.wave(&wave).await?;
        }
        let ready = ReadyStep {
            cluster: crate::plan::id::JOIN.to_owned(),
            component: id.to_owned(),
            namespaces: vec![registry::namespace(&self.environment)],
            ready: vec![registry::ready(&self.environment)],
        };
        ready.apply(run, id).await?;
        let found = registry::find(&*kube, &self.environment).await?;
        let running = found.ok_or_else(|| StepError::message("the registry was ready and is gone"))?;
        let detail = format!("localhost:{} of every node", running.node_port);
        Ok(Applied { detail, outputs: json!({"nodePort": running.node_port}), changed: changed > 0 })
    }
}
