//! The environment's engine network.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::json;

use crate::event::Action;
use crate::executor::Run;
use crate::journal::Undo;
use crate::ports::engine::{EngineError, Network, OWNER_LABEL};
use crate::step::{Applied, Observed, StepError, World};

/// Makes the environment's own labelled network, which kind then uses instead of its shared one.
#[derive(Debug, Clone)]
pub struct NetworkStep {
    /// The reserved name.
    pub name: String,
}

impl NetworkStep {
    async fn find(&self, world: &World) -> Result<Option<Network>, EngineError> {
        let label = format!("{OWNER_LABEL}={}", world.environment);
        Ok(world.engine.networks(Some(&label)).await?.into_iter().find(|network| network.name == self.name))
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let action = if self.find(world).await?.is_some() { Action::Leave } else { Action::Create };
        Ok(Observed::new(action, format!("network {}", self.name)))
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let (network, changed) = match self.find(run.world).await? {
            Some(network) => (network, false),
            None => {
                run.intend(id, vec![Undo::EngineNetwork { name: self.name.clone() }])?;
                let labels = BTreeMap::from([(OWNER_LABEL.to_owned(), run.world.environment.clone())]);
                (run.world.engine.create_network(&self.name, &labels).await?, true)
            }
        };
        let subnet = network.subnets.first().cloned().unwrap_or_default();
        let pool = pool_of(&subnet);
        Ok(Applied {
            detail: subnet.clone(),
            outputs: json!({"name": network.name, "subnet": subnet, "pool": pool}),
            changed,
        })
    }
}

/// The range of [`address_pool`] as MetalLB writes it.
pub(super) fn pool_of(subnet: &str) -> Option<String> {
    address_pool(subnet).map(|(first, last)| format!("{first}-{last}"))
}

/// The addresses at the end of a subnet that a load balancer may hand out: up to fifty, never the broadcast address
/// and never in the first half, where the engine puts its containers. `None` where the subnet is smaller than a /27 or
/// not IPv4.
pub fn address_pool(subnet: &str) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let (base, prefix) = subnet.split_once('/')?;
    let base: Ipv4Addr = base.parse().ok()?;
    let prefix: u32 = prefix.parse().ok()?;
    if !(8..=27).contains(&prefix) {
        return None;
    }
    let size = 1_u32 << (32 - prefix);
    let network = base.to_bits() & !(size - 1);
    let last = network + size - 6;
    let count = 50.min(size / 4);
    Some((Ipv4Addr::from_bits(last - count + 1), Ipv4Addr::from_bits(last)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_at_the_end_of_the_subnet() {
        let pool = |subnet| address_pool(subnet).map(|(first, last)| format!("{first}-{last}"));
        assert_eq!(pool("172.18.0.0/16").unwrap(), "172.18.255.201-172.18.255.250");
        assert_eq!(pool("192.168.32.0/20").unwrap(), "192.168.47.201-192.168.47.250");
        assert_eq!(pool("10.1.2.0/27").unwrap(), "10.1.2.19-10.1.2.26");
        assert_eq!(pool("10.1.2.0/28"), None);
        assert_eq!(pool("fc00:f853:ccd:e793::/64"), None);
    }
}
