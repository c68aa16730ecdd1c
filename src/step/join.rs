//! Binds the environment to a cluster that is there.

use serde_json::json;

use crate::cluster::existing::Existing;
use crate::event::Action;
use crate::executor::Run;
use crate::step::cluster::bound;
use crate::step::{Applied, Observed, StepError, World};

/// Writes the environment's own kubeconfig, a copy of one context of the user's, and binds the environment to the
/// cluster behind it.
#[derive(Debug, Clone)]
pub struct JoinStep {
    /// The cluster as it was found.
    pub existing: Existing,
}

impl JoinStep {
    pub(super) fn observe(&self, world: &World) -> Observed {
        let Existing { context, identity, nodes, version, adopted, .. } = &self.existing;
        let count = if nodes.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", nodes.len()) };
        let what = format!("cluster {} (context {context}, {count}, {version})", identity.server);
        if world.identity().is_some() {
            return Observed::new(Action::Leave, what);
        }
        let adopt = Observed::new(Action::Adopt, what);
        if adopted.is_empty() { adopt } else { adopt.because(format!("used as they are: {}", adopted.join(", "))) }
    }

    pub(super) async fn apply(&self, run: &Run<'_>) -> Result<Applied, StepError> {
        let world = run.world;
        let path = world.kubeconfig();
        world.connect(&self.existing.kubeconfig).await?;
        let known = world.ctx.fs.read(&path).map_err(StepError::reading(&path))?;
        let written = known.as_deref() != Some(self.existing.kubeconfig.as_bytes());
        if written {
            let text = self.existing.kubeconfig.as_bytes();
            world.ctx.fs.write(&path, text, 0o600).map_err(StepError::writing(&path))?;
        }
        let mut applied = bound(run, written).await?;
        applied.outputs["adopted"] = json!(self.existing.adopted);
        Ok(applied)
    }
}
