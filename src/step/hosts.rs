//! The environment's block in the hosts file.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde_json::Value;

use crate::access::hosts::{self, Entry};
use crate::event::Action;
use crate::executor::Run;
use crate::journal::Undo;
use crate::step::{Applied, Observed, StepError, World};

/// Points names at the ingress.
#[derive(Debug, Clone)]
pub struct HostsStep {
    /// The hosts file.
    pub file: PathBuf,
    /// The names.
    pub names: Vec<String>,
    /// The service whose LoadBalancer address they get, and the step that gives it; loopback where there is none.
    pub address: Option<(String, String)>,
}

impl HostsStep {
    fn block(&self, address: IpAddr) -> Result<Vec<Entry>, StepError> {
        let entries = self.names.iter().map(|name| Entry::new(address, name));
        entries.collect::<Result<_, _>>().map_err(|error| StepError::message(error.to_string()))
    }

    pub(super) fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("{}: + {}", self.file.display(), self.names.join(" "));
        let text = world.ctx.fs.read(&self.file).map_err(StepError::reading(&self.file))?.unwrap_or_default();
        let there = hosts::has_block(&String::from_utf8_lossy(&text), &world.environment);
        Ok(Observed::new(if there { Action::Leave } else { Action::Create }, what))
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let address = match &self.address {
            Some((service, step)) => {
                let outputs = run.output(step);
                let address = outputs.get(service).and_then(Value::as_str).and_then(|text| text.parse().ok());
                address.ok_or_else(|| StepError::message(format!("{service} has no address")))?
            }
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let block = self.block(address)?;
        let detail = self.names.join(" ");
        let environment = &run.world.environment;
        let text = hosts::read(run.ctx, &self.file).map_err(|error| StepError::of(&error))?;
        if hosts::state(&text, environment, &block) == hosts::State::Present {
            return Ok(Applied { detail, ..Applied::default() });
        }
        run.intend(id, vec![Undo::HostsBlock { file: self.file.clone(), environment: environment.clone() }])?;
        hosts::set(run.ctx, &*run.world.runner, &self.file, environment, &block)
            .await
            .map_err(|error| StepError::of(&error))?;
        Ok(Applied { detail, outputs: Value::Null, changed: true })
    }
}
