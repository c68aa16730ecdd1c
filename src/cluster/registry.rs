//! The environment's own registry inside a cluster: how images get to nodes that only the API server leads to.
//!
//! devstack pushes through the API server, nodes pull from `localhost` at a node port: container runtimes speak to the
//! loopback address without TLS, and kube-proxy leads from there to the registry's pod. Anybody who reaches a node may
//! push too; so images are named by their digest, and what is pulled is what was pushed by devstack.

use serde_json::{Value, json};

use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::{KubeError, ObjectKey};
use crate::profile::{Ready, ReadyKind};

/// The role of its image.
pub const ROLE: &str = "registry";

/// The name of its Deployment, its Service and its container.
const NAME: &str = "registry";

/// The port that it listens on.
pub const PORT: u16 = 5000;

/// What it is told: everything in one directory that goes with its pod.
const CONFIG: &str =
    "version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: /data}}\nhttp: {addr: ':5000'}\n";

/// Where it is.
pub fn namespace(environment: &str) -> String {
    format!("{}-registry", crate::step::reserved_name(environment))
}

/// Its objects, in waves.
pub fn objects(environment: &str, image: &str) -> Vec<Vec<Value>> {
    let namespace = namespace(environment);
    let labels = json!({
        "app.kubernetes.io/name": NAME,
        "app.kubernetes.io/managed-by": "devstack",
        OWNER_LABEL: environment,
        "dev.devstack.component": NAME,
    });
    let selector = json!({"app.kubernetes.io/name": NAME});
    let metadata = || json!({"name": NAME, "namespace": namespace, "labels": labels});
    let container = json!({
        "name": NAME,
        "image": image,
        "args": ["serve", "/config/config.yml"],
        "env": [{"name": "OTEL_TRACES_EXPORTER", "value": "none"}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/v2/", "port": "http"}, "periodSeconds": 1, "failureThreshold": 30},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": true}, {"name": "data", "mountPath": "/data"},
        ],
    });
    let pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}],
    });
    vec![
        vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}})],
        vec![
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(), "data": {"config.yml": CONFIG}}),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata(),
                "spec": {
                    "type": "NodePort", "selector": selector,
                    "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
                },
            }),
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(),
                "spec": {
                    "replicas": 1, "selector": {"matchLabels": selector}, "strategy": {"type": "Recreate"},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            }),
        ],
    ]
}

/// What it must be before anything is pushed.
pub fn ready(environment: &str) -> Ready {
    Ready { kind: ReadyKind::Deployment, name: NAME.to_owned(), namespace: namespace(environment) }
}

/// The registry as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its pod.
    pub pod: String,
    /// The port of every node that leads to it.
    pub node_port: u16,
}

/// Looks for it; `None` where it does not run.
///
/// # Errors
/// What the server said.
pub async fn find(kube: &dyn Kube, environment: &str) -> Result<Option<Running>, KubeError> {
    let namespace = namespace(environment);
    let key = ObjectKey {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        namespace: Some(namespace.clone()),
        name: NAME.to_owned(),
    };
    let Some(service) = kube.get(&key).await? else { return Ok(None) };
    let node_port = service.pointer("/spec/ports/0/nodePort").and_then(Value::as_u64);
    let selector = format!("app.kubernetes.io/name={NAME}");
    let pods = kube.list("v1", "Pod", Some(&namespace), &selector).await?;
    let pod = pods.iter().find(|pod| crate::kube::ready::serves(pod));
    let pod = pod.and_then(|pod| pod.pointer("/metadata/name")?.as_str());
    let running = pod.zip(node_port.and_then(|port| u16::try_from(port).ok()));
    Ok(running.map(|(pod, node_port)| Running { pod: pod.to_owned(), node_port }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeKube;

    #[tokio::test]
    async fn it_is_found_once_its_pod_is_ready() {
        let kube = FakeKube::default();
        for object in objects("demo", "registry.example/registry:1").into_iter().flatten() {
            kube.apply(&object).await.unwrap();
        }
        assert_eq!(find(&kube, "demo").await.unwrap(), None);
        let mut service = objects("demo", "").into_iter().flatten().find(|one| one["kind"] == "Service").unwrap();
        service["spec"]["ports"][0]["nodePort"] = json!(31234);
        kube.put(service);
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "registry-x", "namespace": "devstack-demo-registry", "labels": {"app.kubernetes.io/name": "registry"}},
        });
        kube.put(pod.clone());
        assert_eq!(find(&kube, "demo").await.unwrap(), None);
        pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        kube.put(pod);
        let running = Running { pod: "registry-x".to_owned(), node_port: 31234 };
        assert_eq!(find(&kube, "demo").await.unwrap(), Some(running));
        assert_eq!(find(&kube, "other").await.unwrap(), None);
    }
}
