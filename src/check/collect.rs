//! Takes a snapshot of a cluster.

use futures::future;
use serde_json::Value;

use super::snapshot::{Snapshot, list, number, text};
use crate::kube::ready::is_ready;
use crate::ports::Kube;
use crate::ports::kube::KubeError;

/// Log lines read of a container.
const LOG_LINES: i64 = 200;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What a wait needs: pods, their events, workloads, claims.
    Wait,
    /// All that `doctor` looks at.
    Full,
}

/// Reads the objects of some namespaces (all where the list is empty), and the logs of containers that crashed or are
/// not ready. `taken` is the wall clock's time.
///
/// # Errors
/// Where a list cannot be read. A log that cannot be read is left out.
pub async fn collect(
    kube: &dyn Kube,
    namespaces: &[&str],
    depth: Depth,
    taken: jiff::Timestamp,
) -> Result<Snapshot, KubeError> {
    let full = depth == Depth::Full;
    let all = |api_version: &'static str, kind: &'static str, wanted: bool| async move {
        if !wanted {
            return Ok(Vec::new());
        }
        if namespaces.is_empty() {
            return kube.list(api_version, kind, None, "").await;
        }
        let lists = namespaces.iter().map(|namespace| kube.list(api_version, kind, Some(*namespace), ""));
        Ok(future::try_join_all(lists).await?.into_iter().flatten().collect::<Vec<Value>>())
    };
    let cluster = |api_version: &'static str, kind: &'static str| async move {
        if full { kube.list(api_version, kind, None, "").await.map(Some) } else { Ok(None) }
    };
    let (pods, events, claims, nodes, services, endpoint_slices, ingresses, ingress_classes) = futures::try_join!(
        all("v1", "Pod", true),
        all("v1", "Event", true),
        all("v1", "PersistentVolumeClaim", true),
        cluster("v1", "Node"),
        all("v1", "Service", full),
        all("discovery.k8s.io/v1", "EndpointSlice", full),
        all("networking.k8s.io/v1", "Ingress", full),
        cluster("networking.k8s.io/v1", "IngressClass"),
    )?;
    let (deployments, stateful_sets, daemon_sets, jobs) = futures::try_join!(
        all("apps/v1", "Deployment", true),
        all("apps/v1", "StatefulSet", true),
        all("apps/v1", "DaemonSet", true),
        all("batch/v1", "Job", true),
    )?;
    // Read after the Deployments, whose controller has seen a spec only when the set for it is there. Without them
    // every pod counts.
    let replica_sets = all("apps/v1", "ReplicaSet", !deployments.is_empty()).await.unwrap_or_default();
    let wanted: Vec<Wanted> = pods.iter().flat_map(wanted_logs).collect();
    let logs = future::join_all(wanted.into_iter().map(|wanted| async move {
        let Wanted { namespace, pod, container, previous } = wanted;
        let log = kube.logs(&namespace, &pod, &container, LOG_LINES, previous).await;
        // Between two starts only one of the two logs may be there.
        let log = match log {
            Ok(log) if !log.trim().is_empty() => Some(log),
            _ => kube.logs(&namespace, &pod, &container, LOG_LINES, !previous).await.ok(),
        };
        log.map(|log| ((namespace, pod, container), log))
    }))
    .await;
    Ok(Snapshot {
        taken: Some(taken),
        pods,
        events,
        nodes: nodes.unwrap_or_default(),
        workloads: [deployments, stateful_sets, daemon_sets, jobs].into_iter().flatten().collect(),
        replica_sets,
        claims,
        services,
        endpoint_slices,
        ingresses,
        ingress_classes,
        logs: logs.into_iter().flatten().collect(),
    })
}

struct Wanted {
    namespace: String,
    pod: String,
    container: String,
    previous: bool,
}

fn wanted_logs(pod: &Value) -> Vec<Wanted> {
    if is_ready(pod) || text(pod, "/status/phase") == "Succeeded" {
        return Vec::new();
    }
    ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .flat_map(|pointer| list(pod, pointer))
        .filter(|status| {
            let ready = status.pointer("/ready").and_then(Value::as_bool).unwrap_or_default();
            let ran = ["/state/running", "/state/terminated", "/lastState/terminated"];
            !ready && ran.into_iter().any(|pointer| status.pointer(pointer).is_some())
        })
        .map(|status| Wanted {
            namespace: text(pod, "/metadata/namespace").to_owned(),
            pod: text(pod, "/metadata/name").to_owned(),
            container: text(status, "/name").to_owned(),
            previous: number(status, "/restartCount") > 0 && status.pointer("/state/terminated").is_none(),
        })
        .collect()
}
