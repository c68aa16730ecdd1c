//! What a component's objects hold of what other steps gave.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::executor::Run;
use crate::kube::ready::{self, State};
use crate::profile::{Ready, ReadyKind, Scope};
use crate::step::{ComponentStep, StepError, World};
use crate::step_ids;

/// Values that are known once other steps have ended.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// What the engine network gave.
    network: Value,
    /// What the step gave that brings images.
    images: Value,
    /// Addresses of Services, by `namespace/name`.
    addresses: BTreeMap<String, Value>,
}

impl Late {
    /// What the steps of this run gave.
    pub(super) fn given(run: &Run<'_>, step: &ComponentStep) -> Self {
        let address = |(service, ready): (&String, &String)| {
            Some((service.clone(), run.output(ready).get(service).filter(|address| address.is_string())?.clone()))
        };
        Self {
            network: run.output(step_ids::NETWORK),
            images: run.output(&step.images),
            addresses: step.addresses.iter().filter_map(address).collect(),
        }
    }

    /// What can be seen of them before any step has run; `pool` is what the network can give away.
    ///
    /// # Errors
    /// What the API server says.
    pub(super) async fn seen(world: &World, pool: Option<&str>, step: &ComponentStep) -> Result<Self, StepError> {
        let mut addresses = BTreeMap::new();
        if let Ok(kube) = world.kube() {
            for service in step.addresses.keys() {
                let Some((namespace, name)) = service.split_once('/') else { continue };
                let (namespace, name) = (namespace.to_owned(), name.to_owned());
                let wanted = Ready { kind: ReadyKind::ServiceAddress, name, namespace };
                if let State::Ready(address) = ready::look(&*kube, &wanted).await? {
                    addresses.insert(service.clone(), address);
                }
            }
        }
        Ok(Self { network: json!({"pool": pool}), images: step.placed.clone(), addresses })
    }

    /// A Service whose address is not known yet.
    pub(super) fn missing<'a>(&self, step: &'a ComponentStep) -> Option<&'a str> {
        step.addresses.keys().find(|service| !self.addresses.contains_key(*service)).map(String::as_str)
    }

    /// With something in the place of addresses that are not known: enough to know which objects there are.
    pub(super) fn or_any(mut self, step: &ComponentStep) -> Self {
        for service in step.addresses.keys() {
            self.addresses.entry(service.clone()).or_insert_with(|| json!("0.0.0.0"));
        }
        self
    }

    /// Adds them to what was known before.
    pub(super) fn fill(&self, scope: &mut Scope) {
        scope.set("network", self.network.clone());
        for (role, name) in self.images["images"].as_object().into_iter().flatten() {
            scope.set(&format!("images.{role}.ref"), name.clone());
        }
        for (service, address) in &self.addresses {
            scope.set(&format!("services.{}.address", service.replace('/', ".")), address.clone());
        }
    }
}
