//! The environment's context in the user's kubeconfig.

use std::path::PathBuf;

use serde_json::Value;

use crate::access::kubeconfig;
use crate::event::Action;
use crate::executor::Run;
use crate::journal::Undo;
use crate::step::{Applied, Observed, StepError, World};

/// Adds the environment's context to the user's kubeconfig; the current context stays what it is.
#[derive(Debug, Clone)]
pub struct KubeContextStep {
    /// The user's kubeconfig file.
    pub file: PathBuf,
    /// The context's reserved name.
    pub name: String,
}

impl KubeContextStep {
    fn desired(&self, world: &World) -> Result<Option<String>, StepError> {
        let own = world.kubeconfig();
        let text = world.ctx.fs.read(&own).map_err(StepError::reading(&own))?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    pub(super) fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("kubeconfig context {}", self.name);
        let Some(own) = self.desired(world)? else {
            return Ok(Observed::new(Action::Create, what));
        };
        let state = kubeconfig::state(&*world.ctx.fs, &self.file, &self.name, &own);
        Ok(match state.map_err(|error| StepError::of(&error))? {
            kubeconfig::State::Present => Observed::new(Action::Leave, what),
            kubeconfig::State::Absent => Observed::new(Action::Create, what),
            kubeconfig::State::Differs => Observed::new(Action::Repair, what)
                .because("it points to another server or user than the environment's"),
        })
    }

    pub(super) fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let observed = self.observe(run.world)?;
        let detail = self.name.clone();
        if observed.action == Action::Leave {
            kubeconfig::release_abandoned(&*run.ctx.fs, &self.file).map_err(|error| StepError::of(&error))?;
            return Ok(Applied { detail, ..Applied::default() });
        }
        let own = self.desired(run.world)?.unwrap_or_default();
        run.intend(id, vec![Undo::KubeContext { file: self.file.clone(), name: self.name.clone() }])?;
        kubeconfig::add(&*run.ctx.fs, &self.file, &self.name, &own).map_err(|error| StepError::of(&error))?;
        Ok(Applied { detail, outputs: Value::Null, changed: true })
    }
}
