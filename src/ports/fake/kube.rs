//! An API server in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::ports::Kube;
use crate::ports::kube::{Duplex, FIELD_MANAGER, KubeError, ObjectKey};

type React = Arc<dyn Fn(&mut Value) + Send + Sync>;

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectKey, Value>,
    reads: BTreeMap<ObjectKey, u32>,
    reactions: Vec<(String, u32, React)>,
    logs: BTreeMap<(String, String, String), String>,
    kinds: Vec<String>,
    made: u64,
    down: bool,
    applies: usize,
    refused: BTreeMap<String, u16>,
    refusals: Vec<(String, String)>,
}

/// An API server in memory. Clones share it. Kinds of other groups than Kubernetes' own are known once a
/// `CustomResourceDefinition` for them was applied.
#[derive(Clone, Default)]
pub struct FakeKube(Arc<Mutex<State>>);

impl FakeKube {
    /// Stops the server, or starts it again; its objects stay.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// Refuses to list a kind, with this status.
    pub fn refuse_list(&self, kind: &str, code: u16) {
        self.lock().refused.insert(kind.to_owned(), code);
    }

    /// Changes every object of a kind once it has been read `after` times since it was applied: the controller that
    /// sets its status.
    pub fn react(&self, kind: &str, after: u32, change: impl Fn(&mut Value) + Send + Sync + 'static) {
        self.lock().reactions.push((kind.to_owned(), after, Arc::new(change)));
    }

    /// Refuses to change objects of a kind, in these words.
    pub fn refuse(&self, kind: &str, reason: &str) {
        self.lock().refusals.push((kind.to_owned(), reason.to_owned()));
    }

    /// Puts an object there as somebody else would.
    pub fn put(&self, object: Value) {
        if let Some(key) = ObjectKey::of(&object) {
            let mut state = self.lock();
            let object = state.stamped(object, None);
            state.objects.insert(key, object);
        }
    }

    /// Sets a container's log.
    pub fn put_log(&self, namespace: &str, pod: &str, container: &str, log: &str) {
        self.lock().logs.insert((namespace.to_owned(), pod.to_owned(), container.to_owned()), log.to_owned());
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.lock().objects.keys().cloned().collect()
    }

    /// How often something was applied.
    pub fn applies(&self) -> usize {
        self.lock().applies
    }

    /// Drops everything, as a deleted cluster does.
    pub fn wipe(&self) {
        let mut state = self.lock();
        let reactions = std::mem::take(&mut state.reactions);
        *state = State { reactions, ..State::default() };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answering(&self) -> Result<MutexGuard<'_, State>, KubeError> {
        let state = self.lock();
        if state.down {
            let reason = "connection refused".to_owned();
            return Err(KubeError::Unreachable { server: self.server(), reason });
        }
        Ok(state)
    }
}

impl State {
    /// The object with what a server adds: a UID that stays, a generation that grows.
    fn stamped(&mut self, mut object: Value, before: Option<&Value>) -> Value {
        let uid = before.and_then(|before| before.pointer("/metadata/uid")).cloned().unwrap_or_else(|| {
            self.made += 1;
            json!(format!("00000000-0000-0000-0000-{:012}", self.made))
        });
        let generation = before.and_then(|before| before.pointer("/metadata/generation")?.as_u64()).unwrap_or(0);
        object["metadata"]["uid"] = uid;
        object["metadata"]["generation"] = json!(generation + 1);
        object
    }

    /// The object with the entry of the manager who applied it, as a server keeps it: renewed with each change.
    fn managed(&mut self, mut object: Value) -> Value {
        self.made += 1;
        let time = format!("2001-01-01T{:02}:{:02}:{:02}Z", self.made / 3600 % 24, self.made / 60 % 60, self.made % 60);
        object["metadata"]["managedFields"] = json!([{"manager": FIELD_MANAGER, "operation": "Apply", "time": time}]);
        object
    }

    fn merged(&self, key: &ObjectKey, object: &Value) -> Value {
        let mut stored = self.objects.get(key).cloned().unwrap_or_else(|| json!({}));
        merge(&mut stored, object);
        stored
    }

    /// The object after an apply, unless its kind is one that is not changed.
    fn changed(&self, key: &ObjectKey, object: &Value) -> Result<Value, KubeError> {
        let merged = self.merged(key, object);
        let refusal = self.refusals.iter().find(|(kind, _)| *kind == key.kind);
        match (self.objects.get(key), refusal) {
            (Some(there), Some((_, reason))) if *there != merged => {
                Err(KubeError::Refused { what: format!("apply {key}"), code: 422, reason: reason.clone() })
            }
            _ => Ok(merged),
        }
    }

    fn check_kind(&self, object: &Value, what: &ObjectKey) -> Result<(), KubeError> {
        let group = what.api_version.split_once('/').map(|(group, _)| group);
        let own = group.is_none_or(|group| !group.contains('.') || group.ends_with(".k8s.io"));
        let known = own || self.kinds.contains(&what.kind);
        if known {
            return Ok(());
        }
        let kind = format!("{}/{}", what.api_version, object["kind"].as_str().unwrap_or_default());
        Err(KubeError::UnknownKind { what: what.to_string(), kind })
    }

    fn read(&mut self, key: &ObjectKey) -> Option<Value> {
        let count = {
            let reads = self.reads.entry(key.clone()).or_default();
            *reads += 1;
            *reads
        };
        let object = self.objects.get_mut(key)?;
        for (kind, after, change) in &self.reactions {
            if *kind == key.kind && count > *after {
                change(object);
            }
        }
        Some(object.clone())
    }
}

/// Server-side apply in small: members are merged, lists and scalars replaced.
fn merge(stored: &mut Value, applied: &Value) {
    match (stored, applied) {
        (Value::Object(stored), Value::Object(applied)) => {
            for (key, member) in applied {
                merge(stored.entry(key.clone()).or_insert(Value::Null), member);
            }
        }
        (stored, applied) => *stored = applied.clone(),
    }
}

fn key_of(object: &Value) -> Result<ObjectKey, KubeError> {
    ObjectKey::of(object).ok_or_else(|| KubeError::Refused {
        what: "an object".to_owned(),
        code: 422,
        reason: "it has no apiVersion, kind or name".to_owned(),
    })
}

fn selected(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let labels = &object["metadata"]["labels"];
        match term.split_once('=') {
            Some((name, value)) => labels[name] == value.trim_start_matches('='),
            None => !labels[term].is_null(),
        }
    })
}

#[async_trait]
impl Kube for FakeKube {
    fn server(&self) -> String {
        "https://fake:6443".to_owned()
    }

    async fn version(&self) -> Result<String, KubeError> {
        drop(self.answering()?);
        Ok("v1.34.4".to_owned())
    }

    async fn apply(&self, object: &Value) -> Result<Value, KubeError> {
        let mut state = self.answering()?;
        let key = key_of(object)?;
        state.check_kind(object, &key)?;
        state.applies += 1;
        if key.kind == "CustomResourceDefinition"
            && let Some(kind) = object.pointer("/spec/names/kind").and_then(Value::as_str)
        {
            state.kinds.push(kind.to_owned());
        }
        let before = state.objects.get(&key).cloned();
        let merged = state.changed(&key, object)?;
        if before.as_ref() != Some(&merged) {
            let stored = state.stamped(merged.clone(), before.as_ref());
            let stored = state.managed(stored);
            state.objects.insert(key.clone(), stored);
            state.reads.remove(&key);
        }
        Ok(state.objects.get(&key).cloned().unwrap_or(merged))
    }

    async fn apply_dry_run(&self, object: &Value) -> Result<Value, KubeError> {
        let state = self.answering()?;
        let key = key_of(object)?;
        state.check_kind(object, &key)?;
        state.changed(&key, object)
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, KubeError> {
        Ok(self.answering()?.read(key))
    }

    async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, KubeError> {
        let mut state = self.answering()?;
        if let Some(code) = state.refused.get(kind) {
            let reason = "refused by this fake".to_owned();
            return Err(KubeError::Refused { what: format!("list {kind}"), code: *code, reason });
        }
        let of_kind = |key: &&ObjectKey| {
            key.api_version == api_version
                && key.kind == kind
                && namespace.is_none_or(|wanted| key.namespace.as_deref() == Some(wanted))
        };
        let keys: Vec<_> = state.objects.keys().filter(of_kind).cloned().collect();
        let found = keys.iter().filter_map(|key| state.read(key));
        Ok(found.filter(|object| selected(object, selector)).collect())
    }

    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), KubeError> {
        let mut state = self.answering()?;
        let there = state.objects.get(key).and_then(|object| object["metadata"]["uid"].as_str());
        if uid.is_some() && there != uid {
            return Ok(());
        }
        state.objects.remove(key);
        if key.kind == "Namespace" {
            state.objects.retain(|other, _| other.namespace.as_ref() != Some(&key.name));
        }
        Ok(())
    }

    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: i64,
        _previous: bool,
    ) -> Result<String, KubeError> {
        let state = self.answering()?;
        let key = (namespace.to_owned(), pod.to_owned(), container.to_owned());
        let log = state.logs.get(&key).cloned().unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        let skip = all.len().saturating_sub(usize::try_from(lines).unwrap_or(0));
        Ok(all[skip..].join("\n"))
    }

    async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<Box<dyn Duplex>, KubeError> {
        drop(self.answering()?);
        let what = format!("port {port} of {namespace}/{pod}");
        Err(KubeError::Other { what, reason: "nothing listens in a fake".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "a", "labels": {"app": "web"}},
            "spec": {"image": image},
        })
    }

    #[tokio::test]
    async fn objects_live_as_on_a_server() {
        let kube = FakeKube::default();
        kube.react("Deployment", 1, |object| object["status"]["readyReplicas"] = json!(1));
        let first = kube.apply(&deployment("a")).await.unwrap();
        assert_eq!(kube.apply(&deployment("a")).await.unwrap(), first);
        let key = ObjectKey::of(&first).unwrap();
        assert!(kube.get(&key).await.unwrap().unwrap()["status"].is_null());
        assert_eq!(kube.get(&key).await.unwrap().unwrap()["status"]["readyReplicas"], 1);
        let second = kube.apply(&deployment("b")).await.unwrap();
        assert_eq!(
            (&second["metadata"]["uid"], &second["metadata"]["generation"]),
            (&first["metadata"]["uid"], &json!(2))
        );
        assert_eq!(kube.list("apps/v1", "Deployment", None, "app=web").await.unwrap().len(), 1);
        assert!(kube.list("apps/v1", "Deployment", Some("b"), "").await.unwrap().is_empty());
        kube.set_down(true);
        assert!(kube.get(&key).await.unwrap_err().is_transient());
        kube.set_down(false);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}});
        kube.delete(&ObjectKey::of(&namespace).unwrap(), Some("another")).await.unwrap();
        assert_eq!(kube.keys().len(), 1);
        kube.delete(&ObjectKey::of(&namespace).unwrap(), None).await.unwrap();
        assert!(kube.keys().is_empty());
    }

    #[tokio::test]
    async fn a_kind_needs_its_definition() {
        let kube = FakeKube::default();
        let pool = json!({"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "p"}});
        assert!(matches!(kube.apply(&pool).await, Err(KubeError::UnknownKind { .. })));
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "ipaddresspools.metallb.io"}, "spec": {"names": {"kind": "IPAddressPool"}},
        });
        kube.apply(&definition).await.unwrap();
        kube.apply(&pool).await.unwrap();
    }
}
