//! What devstack left in the user's files for environments that are gone.

use super::inputs::Inputs;
use super::model::Finding;
use super::preflight::Outcome;
use super::rules::{asked, either, pass};
use crate::environments::reserved_name;

/// Environments with a kubeconfig context of devstack's own whose cluster is gone; only certain where the engine was
/// asked, and only of kind's clusters.
pub fn stale_contexts(inputs: &Inputs) -> Vec<String> {
    match (inputs.contexts.known(), inputs.clusters.known()) {
        (Some(contexts), Some(clusters)) => {
            let own = contexts.servers.keys().filter_map(|name| name.strip_prefix("devstack-"));
            own.filter(|name| !clusters.contains(&reserved_name(name)) && !inputs.elsewhere.contains(*name))
                .map(str::to_owned)
                .collect()
        }
        _ => Vec::new(),
    }
}

/// Environments that have a block in the hosts file and no state any more, each with whether it is certain that nobody
/// uses it: a cluster of its name in the engine may be somebody's whose state is elsewhere.
pub fn stale_blocks(inputs: &Inputs) -> Vec<(String, bool)> {
    let gone = |name: &str| inputs.clusters.known().is_some_and(|all| !all.contains(&reserved_name(name)));
    let blocks = inputs.hosts_blocks.known().into_iter().flatten();
    blocks.filter(|name| !inputs.environments.contains(name)).map(|name| (name.clone(), gone(name))).collect()
}

pub(super) fn contexts(inputs: &Inputs) -> Outcome {
    either(asked(&inputs.contexts).and_then(|contexts| {
        let clusters = asked(&inputs.clusters)?;
        let stale = stale_contexts(inputs);
        let mut findings = Vec::new();
        for (context, server) in &contexts.servers {
            let own = context.strip_prefix("devstack-").is_some_and(|name| stale.iter().any(|stale| stale == name));
            let of_kind = context.strip_prefix("kind-").is_some_and(|cluster| !clusters.contains(cluster));
            if !own && !of_kind {
                continue;
            }
            let current = if *context == contexts.current { ", and it is the current one" } else { "" };
            let cause = format!("kubeconfig context {context} leads to a cluster that is gone{current}");
            let finding = Finding::warning("cluster.context-stale", cause)
                .remedy(format!("kubectl config delete-context {context}"))
                .evidence(format!("{server} in {}", contexts.file));
            // A context of another tool is that tool's to remove.
            findings.push(if own { finding.fixable() } else { finding });
        }
        Ok(match (findings.is_empty(), contexts.current.as_str()) {
            (false, _) => Outcome::Found(findings),
            (true, "") => pass("no current context"),
            (true, current) => pass(format!("current: {current}")),
        })
    }))
}

pub(super) fn hosts_blocks(inputs: &Inputs) -> Outcome {
    either(asked(&inputs.hosts_blocks).map(|blocks| {
        let findings: Vec<Finding> = stale_blocks(inputs)
            .iter()
            .map(|(name, certain)| {
                let cause = format!("the hosts file has lines of {name}, which is gone");
                let finding = Finding::warning("hosts.block-stale", cause)
                    .remedy(format!("devstack down --env {name}"))
                    .evidence(format!("# devstack {name} begin"));
                if *certain { finding.fixable() } else { finding }
            })
            .collect();
        if findings.is_empty() {
            pass(format!("{} of devstack's blocks", blocks.len()))
        } else {
            Outcome::Found(findings)
        }
    }))
}
