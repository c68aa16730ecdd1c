//! What the engine holds of environments that have no state directory any more.

use std::collections::BTreeMap;

use super::inputs::Asked;
use super::model::Finding;
use super::preflight::Outcome;
use crate::ports::Engine;
use crate::ports::engine::{EngineError, KIND_CLUSTER_LABEL, OWNER_LABEL};

/// Things of one environment that has no state any more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Orphan {
    /// The environment.
    pub environment: String,
    /// Its containers, networks and volumes, in words.
    pub things: Vec<String>,
    /// Whether data may be in it: it has a container or a volume, which may be those of somebody whose state is elsewhere.
    pub data: bool,
}

/// Looks for things whose environment is none of `environments`.
///
/// # Errors
/// What the engine said.
pub async fn orphans(engine: &dyn Engine, environments: &[String]) -> Result<Vec<Orphan>, EngineError> {
    let (containers, networks, volumes) = tokio::try_join!(
        engine.containers(None),
        engine.networks(Some(OWNER_LABEL)),
        engine.volumes(Some(OWNER_LABEL)),
    )?;
    let owner = |labels: &BTreeMap<String, String>| {
        let cluster = labels.get(KIND_CLUSTER_LABEL).and_then(|name| name.strip_prefix("devstack-"));
        labels.get(OWNER_LABEL).map(String::as_str).or(cluster).map(str::to_owned)
    };
    let of_containers =
        containers.iter().map(|thing| (owner(&thing.labels), format!("container {}", thing.name), true));
    let of_networks = networks.iter().map(|thing| (owner(&thing.labels), format!("network {}", thing.name), false));
    let of_volumes = volumes.iter().map(|thing| (owner(&thing.labels), format!("volume {}", thing.name), true));
    let mut found: BTreeMap<String, Orphan> = BTreeMap::new();
    for (owner, thing, data) in of_containers.chain(of_networks).chain(of_volumes) {
        let Some(environment) = owner.filter(|owner| !environments.contains(owner)) else { continue };
        let orphan = found.entry(environment.clone()).or_insert(Orphan { environment, ..Orphan::default() });
        orphan.things.push(thing);
        orphan.data |= data;
    }
    for orphan in found.values_mut() {
        orphan.things.sort();
    }
    Ok(found.into_values().collect())
}

/// What the check `env.leftovers` says of them.
pub fn leftovers(orphans: &Asked<Vec<Orphan>>) -> Outcome {
    let orphans = match orphans {
        Asked::Known(orphans) => orphans,
        Asked::No => return Outcome::Skip("no engine answers".to_owned()),
        Asked::Failed(reason) => return Outcome::Crash(reason.clone()),
    };
    let finding = |orphan: &Orphan| {
        let name = &orphan.environment;
        let finding =
            Finding::warning("env.leftovers", format!("something of {name} is left, which has no state any more"))
                .remedy(format!("devstack down --env {name}"))
                .evidence(orphan.things.join(", "));
        if orphan.data { finding } else { finding.fixable() }
    };
    match orphans.as_slice() {
        [] => Outcome::Pass("nothing".to_owned()),
        orphans => Outcome::Found(orphans.iter().map(finding).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeEngine;

    #[tokio::test]
    async fn what_has_no_owner_is_named_and_cured_only_where_no_data_can_be() {
        let engine = FakeEngine::default();
        for cluster in ["devstack-live", "devstack-busy", "mine"] {
            engine.add_kind_node(cluster, 0, "kind", &[]);
        }
        for name in ["live", "busy", "dead"] {
            let labels = BTreeMap::from([(OWNER_LABEL.to_owned(), name.to_owned())]);
            engine.create_network(&format!("devstack-{name}"), &labels).await.unwrap();
        }
        let found = orphans(&engine, &["live".to_owned()]).await.unwrap();
        let names: Vec<(&str, bool)> = found.iter().map(|one| (one.environment.as_str(), one.data)).collect();
        assert_eq!(names, [("busy", true), ("dead", false)], "kind's own clusters are nobody's business");
        let Outcome::Found(findings) = leftovers(&Asked::Known(found)) else { panic!("nothing was found") };
        assert_eq!(findings[0].evidence, "container devstack-busy-control-plane, network devstack-busy");
        assert_eq!(findings[1].evidence, "network devstack-dead");
        assert_eq!(findings.iter().map(|finding| finding.fixable).collect::<Vec<_>>(), [false, true]);
        assert_eq!(leftovers(&Asked::Known(Vec::new())), Outcome::Pass("nothing".to_owned()));
        engine.set_down(true);
        assert!(orphans(&engine, &[]).await.is_err());
    }
}
