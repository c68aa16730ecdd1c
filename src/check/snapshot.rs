//! What `explain` sees: objects as the API has them, and the logs of what does not run well.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ports::kube::ObjectKey;

/// Objects of some namespaces at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// When it was taken; without it no waiting counts as long.
    pub taken: Option<jiff::Timestamp>,
    /// `v1` Pods.
    pub pods: Vec<Value>,
    /// `v1` Events.
    pub events: Vec<Value>,
    /// `v1` Nodes.
    pub nodes: Vec<Value>,
    /// `apps/v1` Deployments, StatefulSets and DaemonSets, and `batch/v1` Jobs; each has its `kind`.
    pub workloads: Vec<Value>,
    /// `apps/v1` ReplicaSets, which tell the newest pods of a Deployment from those before.
    pub replica_sets: Vec<Value>,
    /// `v1` PersistentVolumeClaims.
    pub claims: Vec<Value>,
    /// `v1` Services.
    pub services: Vec<Value>,
    /// `discovery.k8s.io/v1` EndpointSlices.
    pub endpoint_slices: Vec<Value>,
    /// `networking.k8s.io/v1` Ingresses.
    pub ingresses: Vec<Value>,
    /// `networking.k8s.io/v1` IngressClasses; `None` where they were not asked for.
    pub ingress_classes: Option<Vec<Value>>,
    /// The last lines of containers that crashed or are not ready, by (namespace, pod, container).
    pub logs: BTreeMap<(String, String, String), String>,
}

/// Which pods a wait is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// All of them.
    All,
    /// Those of a namespace.
    Namespace(String),
    /// Those that a workload owns, directly or through a ReplicaSet; or the very object.
    Owner(ObjectKey),
    /// Those of a namespace that carry all these labels.
    Labels(String, BTreeMap<String, String>),
}

impl Selector {
    /// Whether an object of a snapshot is meant.
    pub fn matches(&self, object: &Value) -> bool {
        let namespace = text(object, "/metadata/namespace");
        match self {
            Self::All => true,
            Self::Namespace(name) => namespace == name,
            Self::Owner(owner) => {
                namespace == owner.namespace.as_deref().unwrap_or_default()
                    && (owned_by(object, owner)
                        || (text(object, "/kind") == owner.kind && text(object, "/metadata/name") == owner.name))
            }
            Self::Labels(name, labels) => {
                namespace == name
                    && labels.iter().all(|(key, value)| {
                        object.pointer("/metadata/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str)
                            == Some(value)
                    })
            }
        }
    }
}

/// Whether a pod belongs to a workload. A Deployment's pods belong to its ReplicaSets, named `NAME-HASH`.
pub(super) fn owned_by(pod: &Value, owner: &ObjectKey) -> bool {
    list(pod, "/metadata/ownerReferences").iter().any(|reference| {
        let (kind, name) = (text(reference, "/kind"), text(reference, "/name"));
        match owner.kind.as_str() {
            "Deployment" => {
                kind == "ReplicaSet" && name.rsplit_once('-').is_some_and(|(deployment, _)| deployment == owner.name)
            }
            other => kind == other && name == owner.name,
        }
    })
}

/// The text at a JSON pointer, or the empty string.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer, or 0.
pub(super) fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether an object's condition of this type has this status.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|condition| text(condition, "/type") == kind)
}

/// The key of an object that a list gave, where the API leaves `kind` and `apiVersion` out of items.
pub(super) fn key(object: &Value, api_version: &str, kind: &str) -> ObjectKey {
    let namespace = text(object, "/metadata/namespace");
    ObjectKey {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        name: text(object, "/metadata/name").to_owned(),
    }
}

impl Snapshot {
    /// Seconds since the time at `pointer` of an object; 0 where either time is unknown.
    pub(super) fn age(&self, object: &Value, pointer: &str) -> i64 {
        let since: Option<jiff::Timestamp> = text(object, pointer).parse().ok();
        match (self.taken, since) {
            (Some(taken), Some(since)) => taken.as_second() - since.as_second(),
            _ => 0,
        }
    }

    /// The events about an object, oldest first.
    pub(super) fn events_of(&self, kind: &str, object: &Value) -> Vec<&Value> {
        let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
        let mut events: Vec<&Value> = self
            .events
            .iter()
            .filter(|event| {
                text(event, "/involvedObject/kind") == kind
                    && text(event, "/involvedObject/name") == name
                    && (namespace.is_empty() || text(event, "/involvedObject/namespace") == namespace)
            })
            .collect();
        events.sort_by_key(|event| event_time(event));
        events
    }

    /// The log of a pod's container, if it was read.
    pub(super) fn log(&self, pod: &Value, container: &str) -> Option<&str> {
        let part = |pointer| text(pod, pointer).to_owned();
        self.logs.get(&(part("/metadata/namespace"), part("/metadata/name"), container.to_owned())).map(String::as_str)
    }
}

/// When an event last happened; the API has three places for it.
fn event_time(event: &Value) -> String {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .map(|pointer| text(event, pointer))
        .find(|time| !time.is_empty())
        .unwrap_or_default()
        .to_owned()
}
