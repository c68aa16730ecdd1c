//! From a snapshot to findings, root causes first. Pure: no clock, no cluster.

use std::collections::BTreeMap;

use serde_json::Value;

use super::model::{Finding, Severity};
use super::past::old_of;
use super::pod::{explain_pod, trouble};
use super::reason::Stage;
use super::signature::Signatures;
use super::snapshot::{Selector, Snapshot, list, text};
use super::workload::explain_rest;

static NO_SIGNATURES: std::sync::LazyLock<Signatures> = std::sync::LazyLock::new(Signatures::default);

/// Everything that is not ready, and why, root causes first. What waits for another finding's object is left out, and
/// pods of one owner that share a cause are one finding.
pub fn explain(snapshot: &Snapshot) -> Vec<Finding> {
    let signatures = signatures();
    let mut findings = explain_rest(snapshot, signatures);
    let claims_explained = findings.iter().any(|finding| stage_of(finding) == Some(Stage::Storage));
    let nodes_explained = findings.iter().any(|finding| finding.id.starts_with("node."));
    let mut groups: BTreeMap<(String, String), (Finding, usize)> = BTreeMap::new();
    for pod in &snapshot.pods {
        let Some(finding) = explain_pod(snapshot, signatures, pod) else { continue };
        let follows = (finding.id == "pod.waits-for-claim" && claims_explained)
            || (finding.id == "pod.waits-for-node" && nodes_explained);
        if !follows {
            let group = groups.entry((owner_of(pod), finding.id.clone())).or_insert_with(|| (finding, 0));
            group.1 += 1;
        }
    }
    findings.extend(groups.into_values().map(|(finding, pods)| match pods {
        1 => finding,
        pods => {
            let evidence = format!("{} ({pods} pods)", finding.evidence);
            finding.evidence(evidence.trim_start())
        }
    }));
    findings.sort_by_key(|finding| (finding.severity, !finding.hopeless, rank(finding)));
    findings
}

/// Pods of an older revision that do not become ready, each with its StatefulSet: it replaces none that never was
/// (kubernetes#67250), and waits for it for ever.
pub fn obstacles(snapshot: &Snapshot) -> Vec<(&Value, &Value)> {
    let stuck = |pod: &Value| trouble(snapshot, signatures(), pod).is_some_and(|finding| finding.is_problem());
    let old = snapshot.pods.iter().filter_map(|pod| Some((old_of(snapshot, pod)?, pod)));
    old.filter(|(_, pod)| stuck(pod)).collect()
}

/// Broken signature files are ruled out by a test; without them causes are vaguer and still true.
fn signatures() -> &'static Signatures {
    Signatures::builtin().unwrap_or(&NO_SIGNATURES)
}

/// The most telling reason why the selected objects are not ready, in one line; `None` where nothing hinders them.
pub fn one_line(snapshot: &Snapshot, selector: &Selector) -> Option<String> {
    let chosen = |objects: &[Value]| objects.iter().filter(|object| selector.matches(object)).cloned().collect();
    let narrowed = Snapshot {
        pods: chosen(&snapshot.pods),
        workloads: chosen(&snapshot.workloads),
        claims: match selector {
            // A claim has no owner among the workloads, so a workload's wait sees those of its namespace.
            Selector::Owner(owner) => {
                let namespace = owner.namespace.clone().unwrap_or_default();
                let near = |claim: &&Value| text(claim, "/metadata/namespace") == namespace;
                snapshot.claims.iter().filter(near).cloned().collect()
            }
            _ => chosen(&snapshot.claims),
        },
        services: Vec::new(),
        endpoint_slices: Vec::new(),
        ingresses: Vec::new(),
        ..snapshot.clone()
    };
    let findings = explain(&narrowed);
    let finding = findings.first()?;
    let said = match (&finding.waiting, finding.severity) {
        // A known cause says more than the state that it led to.
        (Some(reason), Severity::Error) if !finding.id.starts_with("pod.") => format!("{reason}: {}", finding.cause),
        (Some(reason), _) => reason.to_string(),
        (None, _) => finding.cause.clone(),
    };
    Some(said)
}

fn stage_of(finding: &Finding) -> Option<Stage> {
    finding.waiting.as_ref().map(|reason| reason.stage)
}

/// Causes before what they lead to: nodes, storage, images, configuration, crashes, readiness, then the rest.
fn rank(finding: &Finding) -> u8 {
    if finding.id.starts_with("node.") && stage_of(finding) != Some(Stage::Crashing) {
        return 0;
    }
    match stage_of(finding) {
        Some(Stage::Storage) => 1,
        Some(Stage::Image) => 2,
        Some(Stage::Configuration) => 3,
        Some(Stage::Scheduling) => 4,
        Some(Stage::Crashing) => 5,
        Some(Stage::Absent) => 6,
        Some(Stage::Initialising | Stage::Creating) => 7,
        Some(Stage::Readiness) => 8,
        Some(Stage::Cluster) | None => 9,
    }
}

/// What keeps a pod alive: `KIND namespace/name`, or the pod itself.
fn owner_of(pod: &Value) -> String {
    let namespace = text(pod, "/metadata/namespace");
    match list(pod, "/metadata/ownerReferences").first() {
        Some(owner) => format!("{} {namespace}/{}", text(owner, "/kind"), text(owner, "/name")),
        None => format!("Pod {namespace}/{}", text(pod, "/metadata/name")),
    }
}

#[cfg(test)]
mod tests;
