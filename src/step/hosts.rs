//! The environment's block in the hosts file.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::access::hosts::{self, Entry};
use crate::event::Action;
use crate::executor::Run;
use crate::journal::Undo;
use crate::ports::kube::ObjectKey;
use crate::step::{Applied, Observed, StepError, World};

/// What the step gives where the names are not in the file: sudo did not let it, or their address is a public one.
pub const LEFT_OUT: &str = "left_out";

/// Points names at the ingress.
#[derive(Debug, Clone)]
pub struct HostsStep {
    /// The hosts file.
    pub file: PathBuf,
    /// The names.
    pub names: Vec<String>,
    /// The service whose LoadBalancer address they get, and the step that gives it; loopback where there is none.
    pub address: Option<(String, String)>,
    /// The address that an earlier `up` found, where no Service tells it.
    pub before: Option<IpAddr>,
}

impl HostsStep {
    fn block(&self, address: IpAddr) -> Result<Vec<Entry>, StepError> {
        let entries = self.names.iter().map(|name| Entry::new(address, name));
        entries.collect::<Result<_, _>>().map_err(|error| StepError::message(error.to_string()))
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("{}: + {}", self.file.display(), self.names.join(" "));
        let text = hosts::read(&world.ctx, &self.file).map_err(|error| StepError::of(&error))?;
        let has_block = hosts::has_block(&text, &world.environment);
        let address = match self.before {
            Some(address) if !hosts::is_local(address) => Some(address),
            _ if !has_block => return Ok(Observed::new(Action::Create, what)),
            _ => self.known_address(world).await?,
        };
        let state = match address {
            Some(public) if !hosts::is_local(public) => {
                let action = if has_block { Action::Remove } else { Action::Leave };
                return Ok(Observed::new(action, what).because(format!("{public} is a public address")));
            }
            Some(address) => hosts::state(&text, &world.environment, &self.block(address)?),
            None => return Ok(Observed::new(Action::Later, what).because("its address is known after the cluster")),
        };
        Ok(if state == hosts::State::Present {
            Observed::new(Action::Leave, what)
        } else {
            Observed::new(Action::Repair, what).because("its lines were edited, or the address is another one")
        })
    }

    /// The address that the names get, where the cluster can tell it already.
    async fn known_address(&self, world: &World) -> Result<Option<IpAddr>, StepError> {
        let Some((service, _)) = &self.address else { return Ok(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))) };
        if self.before.is_some() {
            return Ok(self.before);
        }
        let (Ok(kube), Some((namespace, name))) = (world.kube(), service.split_once('/')) else { return Ok(None) };
        let key = ObjectKey {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        };
        let found = kube.get(&key).await?;
        let address = found.as_ref().and_then(|service| service.pointer("/status/loadBalancer/ingress/0/ip")?.as_str());
        Ok(address.and_then(|address| address.parse().ok()))
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let address = match &self.address {
            Some((service, step)) => {
                let outputs = run.output(step);
                if outputs.get("unreachable").is_some() {
                    return Ok(Applied { detail: "no address to point names at".to_owned(), ..Applied::default() });
                }
                let address = outputs.get(service).and_then(Value::as_str).and_then(|text| text.parse().ok());
                address.ok_or_else(|| StepError::message(format!("{service} has no address")))?
            }
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let detail = self.names.join(" ");
        let environment = &run.world.environment;
        if !hosts::is_local(address) {
            // Lines of an earlier address lead elsewhere by now.
            let changed = hosts::remove(run.ctx, &*run.world.runner, &self.file, environment).await;
            return Ok(Applied {
                detail: format!("left out: {address} is a public address"),
                outputs: json!({LEFT_OUT: true}),
                changed: changed.map_err(|error| StepError::of(&error))?,
            });
        }
        let block = self.block(address)?;
        let text = hosts::read(run.ctx, &self.file).map_err(|error| StepError::of(&error))?;
        if hosts::state(&text, environment, &block) == hosts::State::Present {
            return Ok(Applied { detail, ..Applied::default() });
        }
        run.intend(id, vec![Undo::HostsBlock { file: self.file.clone(), environment: environment.clone() }])?;
        match hosts::set(run.ctx, &*run.world.runner, &self.file, environment, &block).await {
            Ok(_) => Ok(Applied { detail, outputs: Value::Null, changed: true }),
            // sudo can have forgotten its password in the meantime, and every *.localhost URL works without the names.
            Err(error) if error.is_refusal() => {
                let how = format!("devstack up --env {environment} --sudo");
                run.ctx.events.warn(format!("{}; to have {detail}: {how}", crate::error::chain(&error)));
                Ok(Applied { detail: "left out".to_owned(), outputs: json!({LEFT_OUT: true}), changed: false })
            }
            Err(error) => Err(StepError::of(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::journal::Journal;
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};

    #[tokio::test]
    async fn a_public_address_gets_no_name_and_an_up_goes_on() {
        const FILE: &str = "/etc/hosts";
        let fs = FakeFs::default();
        fs.put(FILE, "127.0.0.1 localhost\n", 0o644);
        let ctx = fake::context(&fs, &FakeClock::default());
        let world = World::new(&ctx, "demo", Arc::new(FakeEngine::default()), Arc::new(FakeRunner::default()));
        let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
        let apply = async |address: &str| {
            let step = HostsStep {
                file: FILE.into(),
                names: vec!["demo.test".to_owned()],
                address: Some(("a/b".to_owned(), "reach".to_owned())),
                before: address.parse().ok(),
            };
            let outputs = BTreeMap::from([("reach".to_owned(), json!({"a/b": address}))]);
            let expected = step.observe(&world).await.unwrap().action;
            let applied = step.apply(&Run::after(&ctx, &world, &journal, outputs), "hosts").await.unwrap();
            (
                expected,
                applied.changed,
                applied.outputs[LEFT_OUT].as_bool(),
                fs.text(FILE).unwrap().contains("demo.test"),
            )
        };
        assert_eq!(apply("34.1.2.3").await, (Action::Leave, false, Some(true), false));
        assert_eq!(apply("10.1.2.3").await, (Action::Create, true, None, true));
        assert_eq!(apply("100.64.0.7").await, (Action::Remove, true, Some(true), false), "its line leads elsewhere");
    }
}
