//! Whether something in the cluster is ready.

use serde_json::{Value, json};

use crate::ports::Kube;
use crate::ports::kube::{KubeError, ObjectKey};
use crate::profile::{Ready, ReadyKind};

/// How something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Ready; of a Service its address, else null.
    Ready(Value),
    /// Not ready, and why.
    Waiting(String),
}

/// Whether a pod or a node says of itself that it is ready.
pub fn is_ready(object: &Value) -> bool {
    holds(object, "Ready")
}

/// Whether a pod can be asked: it is ready, and not on its way out.
pub fn serves(pod: &Value) -> bool {
    is_ready(pod) && pod.pointer("/metadata/deletionTimestamp").is_none()
}

/// Whether an object's condition of this type is true.
fn holds(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == "True")
}

/// Looks once.
///
/// # Errors
/// What the API server said.
pub async fn look(kube: &dyn Kube, ready: &Ready) -> Result<State, KubeError> {
    let (api_version, kind) = match ready.kind {
        ReadyKind::Deployment => ("apps/v1", "Deployment"),
        ReadyKind::DaemonSet => ("apps/v1", "DaemonSet"),
        ReadyKind::StatefulSet => ("apps/v1", "StatefulSet"),
        ReadyKind::Job => ("batch/v1", "Job"),
        ReadyKind::Crd => ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ReadyKind::ServiceAddress => ("v1", "Service"),
    };
    let key = ObjectKey {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: (ready.kind != ReadyKind::Crd).then(|| ready.namespace.clone()),
        name: ready.name.clone(),
    };
    Ok(match kube.get(&key).await? {
        Some(object) => match state(ready.kind, &key, &object) {
            State::Waiting(_) if ready.kind == ReadyKind::Job && succeeded(kube, &key, &object).await? => {
                State::Ready(Value::Null)
            }
            state => state,
        },
        None => State::Waiting(format!("{key} is not there yet")),
    })
}

/// Whether a pod of a Job for one pod has done its work: the Job's controller says so only seconds later.
async fn succeeded(kube: &dyn Kube, key: &ObjectKey, job: &Value) -> Result<bool, KubeError> {
    if job.pointer("/spec/completions").and_then(Value::as_i64).unwrap_or(1) != 1 {
        return Ok(false);
    }
    // The label is set by the API server; pods of an earlier Job of the same name have another one.
    let Some(uid) = job.pointer("/metadata/uid").and_then(Value::as_str) else { return Ok(false) };
    let selector = format!("batch.kubernetes.io/controller-uid={uid}");
    let pods = kube.list("v1", "Pod", key.namespace.as_deref(), &selector).await?;
    Ok(pods.iter().any(|pod| pod.pointer("/status/phase").and_then(Value::as_str) == Some("Succeeded")))
}

fn state(kind: ReadyKind, key: &ObjectKey, object: &Value) -> State {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    // Until the controller has seen the newest spec, its status speaks of an older one.
    let seen = number("/status/observedGeneration") >= number("/metadata/generation");
    let (ready, wanted) = match kind {
        ReadyKind::Deployment | ReadyKind::StatefulSet => {
            let wanted = number("/spec/replicas").unwrap_or(1);
            let updated = number("/status/updatedReplicas").unwrap_or(0);
            let available = if kind == ReadyKind::Deployment { "availableReplicas" } else { "readyReplicas" };
            let available = number(&format!("/status/{available}")).unwrap_or(0);
            let old = number("/status/replicas").unwrap_or(0) - updated;
            (if old > 0 { 0 } else { available.min(updated) }, wanted)
        }
        ReadyKind::DaemonSet => {
            let wanted = number("/status/desiredNumberScheduled").unwrap_or(0);
            let updated = number("/status/updatedNumberScheduled").unwrap_or(0);
            // Before any node is scheduled there is nothing to be ready.
            (number("/status/numberAvailable").unwrap_or(0).min(updated), wanted.max(1))
        }
        ReadyKind::Job => {
            return if holds(object, "Complete") {
                State::Ready(Value::Null)
            } else {
                State::Waiting(format!("{key} has not finished"))
            };
        }
        ReadyKind::Crd => {
            return if holds(object, "Established") {
                State::Ready(Value::Null)
            } else {
                State::Waiting(format!("{key} is not established"))
            };
        }
        ReadyKind::ServiceAddress => {
            let first = object.pointer("/status/loadBalancer/ingress/0");
            return match first.and_then(|first| first.get("ip").or_else(|| first.get("hostname"))) {
                Some(address) => State::Ready(json!(address)),
                None => State::Waiting(format!("{key} has no address yet")),
            };
        }
    };
    if seen && ready >= wanted {
        State::Ready(Value::Null)
    } else {
        State::Waiting(format!("{key}: {ready} of {wanted} ready"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands(kind: ReadyKind, object: &Value) -> bool {
        let key = ObjectKey { api_version: String::new(), kind: String::new(), namespace: None, name: String::new() };
        matches!(state(kind, &key, object), State::Ready(_))
    }

    #[test]
    fn a_pod_or_node_is_ready_when_its_condition_is_true() {
        let pod = |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
        assert!(is_ready(&pod("Ready", "True")));
        assert!(!is_ready(&pod("Ready", "False")) && !is_ready(&pod("Ready", "Unknown")));
        assert!(!is_ready(&pod("Initialized", "True")) && !is_ready(&json!({})));
        let mut pod = pod("Ready", "True");
        assert!(serves(&pod));
        pod["metadata"] = json!({"deletionTimestamp": "2026-11-21T12:00:00Z"});
        assert!(is_ready(&pod) && !serves(&pod));
    }

    #[test]
    fn a_roll_out_is_ready_when_the_newest_replicas_are() {
        let deployment = |generation: i64, replicas: i64, updated: i64, available: i64| {
            json!({"metadata": {"generation": generation}, "spec": {"replicas": 2}, "status": {
                "observedGeneration": 2, "replicas": replicas, "updatedReplicas": updated, "availableReplicas": available}})
        };
        assert!(stands(ReadyKind::Deployment, &deployment(2, 2, 2, 2)));
        assert!(!stands(ReadyKind::Deployment, &deployment(3, 2, 2, 2)), "the controller has not seen generation 3");
        assert!(!stands(ReadyKind::Deployment, &deployment(2, 3, 2, 3)), "an old replica is still there");
        assert!(!stands(ReadyKind::Deployment, &deployment(2, 2, 2, 1)));
        assert!(!stands(ReadyKind::Deployment, &json!({"metadata": {"generation": 1}, "spec": {}})));
    }

    #[tokio::test]
    async fn a_job_has_finished_when_its_own_pod_has() {
        let kube = crate::ports::fake::FakeKube::default();
        let ready = Ready { kind: ReadyKind::Job, namespace: "a".to_owned(), name: "b".to_owned() };
        let job = |completions: i64| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "a", "name": "b"},
                "spec": {"completions": completions}, "status": {}})
        };
        kube.put(job(1));
        let key = ObjectKey::of(&job(1)).unwrap();
        let uid = kube.get(&key).await.unwrap().unwrap()["metadata"]["uid"].clone();
        let pod = |uid: &Value, phase: &str| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "b-x",
                "labels": {"batch.kubernetes.io/controller-uid": uid}}, "status": {"phase": phase}})
        };
        let mut states = Vec::new();
        for pod in [pod(&json!("of another"), "Succeeded"), pod(&uid, "Running"), pod(&uid, "Succeeded")] {
            kube.put(pod);
            states.push(look(&kube, &ready).await.unwrap() == State::Ready(Value::Null));
        }
        assert_eq!(states, [false, false, true]);
        kube.put(job(2));
        let uid = kube.get(&key).await.unwrap().unwrap()["metadata"]["uid"].clone();
        kube.put(pod(&uid, "Succeeded"));
        assert_ne!(look(&kube, &ready).await.unwrap(), State::Ready(Value::Null), "one of two");
    }

    #[test]
    fn a_daemon_set_without_nodes_is_not_ready() {
        let set = |wanted: i64| {
            json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1,
            "desiredNumberScheduled": wanted, "updatedNumberScheduled": wanted, "numberAvailable": wanted}})
        };
        assert!(!stands(ReadyKind::DaemonSet, &set(0)));
        assert!(stands(ReadyKind::DaemonSet, &set(2)));
    }

    #[test]
    fn a_service_is_ready_with_an_address() {
        let service = |ingress: Value| json!({"status": {"loadBalancer": {"ingress": ingress}}});
        assert!(stands(ReadyKind::ServiceAddress, &service(json!([{"ip": "172.18.255.201"}]))));
        assert!(!stands(ReadyKind::ServiceAddress, &service(json!([]))));
    }
}
