//! Objects into a cluster: applied side by side, again and again while the server is not ready for them, and what an
//! apply would change.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::executor::Run;
use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::{FIELD_MANAGER, KubeError, ObjectKey};
use crate::step::claim::Claim;
use crate::step::fixed::explained;
use crate::step::{StepError, jobs};

/// Requests to the API server at a time.
pub(super) const PARALLEL: usize = 8;

/// How often a server that is not ready for an object is asked again.
const RETRY: Duration = Duration::from_millis(150);

/// How a step applies objects.
pub(super) struct Put<'a> {
    pub(super) run: &'a Run<'a>,
    /// The step.
    pub(super) id: &'a str,
    pub(super) kube: &'a dyn Kube,
    /// Until when a server that is not ready is asked again.
    pub(super) deadline: Instant,
    /// The claim on the objects, in a cluster that others use too.
    pub(super) claim: Option<&'a Claim>,
}

impl Put<'_> {
    /// Applies objects that need not wait for each other; gives how many changed.
    pub(super) async fn wave(&self, wave: &[Value]) -> Result<usize, StepError> {
        let absent = match self.claim {
            Some(claim) => claim.announce(self.run, self.id, self.kube, wave).await?,
            None => Vec::new(),
        };
        let results: Vec<(bool, Value)> =
            futures::stream::iter(wave).map(|object| self.one(object)).buffer_unordered(PARALLEL).try_collect().await?;
        let made = results.iter().filter_map(|(_, stored)| ObjectKey::of(stored).zip(Some(stored)));
        let made = made.filter(|(key, _)| absent.contains(key));
        let uid = |stored: &Value| stored.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        Claim::made(self.run, self.id, made.map(|(key, stored)| (key, uid(stored))).collect())?;
        Ok(results.iter().filter(|(changed, _)| *changed).count())
    }

    /// Deletes what has the key of an object, unless somebody else has put it there.
    async fn delete_own(&self, object: &Value) -> Result<(), StepError> {
        let Some(key) = ObjectKey::of(object) else { return Ok(()) };
        let Some(there) = self.kube.get(&key).await? else { return Ok(()) };
        let label = |object: &Value| object["metadata"]["labels"][OWNER_LABEL].clone();
        if label(&there) != label(object) || self.claim.is_some_and(|claim| !claim.holds(&there)) {
            return Err(StepError::message(format!("{key} is somebody else's, and cannot be changed")));
        }
        Ok(self.kube.delete(&key, there.pointer("/metadata/uid").and_then(Value::as_str)).await?)
    }

    /// Applies one object; gives whether it changed, and the object as stored.
    async fn one(&self, object: &Value) -> Result<(bool, Value), StepError> {
        let mut told = String::new();
        let mut before = None;
        loop {
            let done = match jobs::is_over(self.kube, object, self.run.ctx.clock.now()).await {
                Ok(false) => compared(self.kube, object, &mut before).await.map(Some),
                over => over.map(|_| None),
            };
            match done {
                Ok(Some(done)) => return Ok(done),
                // Neither a Job that gave up nor what one runs can be changed; it is done over.
                Ok(None) if Instant::now() < self.deadline => self.delete_own(object).await?,
                Ok(None) => return Err(StepError::message("a Job that failed does not go, and cannot be done over")),
                Err(KubeError::Refused { code: 422, ref reason, .. })
                    if jobs::is_changed(object, reason) && Instant::now() < self.deadline =>
                {
                    self.delete_own(object).await?;
                }
                Err(error) if error.is_transient() && Instant::now() < self.deadline => {
                    let reason = error.to_string();
                    if reason != told {
                        self.run.waiting(self.id, reason.clone());
                        told = reason;
                    }
                }
                Err(error) => return Err(explained(self.kube, object, error).await),
            }
            self.run.ctx.clock.sleep(RETRY).await;
        }
    }
}

/// Whether pods come of an object.
pub(super) fn has_pods(object: &Value) -> bool {
    matches!(
        object["kind"].as_str(),
        Some("Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob" | "Pod" | "ReplicaSet")
    )
}

/// Holds the pods of an object to the nodes of one of these terms, beside what its author asks of nodes.
pub(super) fn hold(object: &mut Value, terms: &[Value]) {
    let at = match object["kind"].as_str() {
        Some("Pod") => "/spec",
        Some("CronJob") => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    };
    if !has_pods(object) {
        return;
    }
    let Some(spec) = object.pointer_mut(at).filter(|spec| spec.is_object()) else { return };
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let both = |own: &Value| {
        let own = own.clone();
        terms.iter().map(move |term| {
            let mut both = own.clone();
            let expressions = [&own, term].map(|one| one["matchExpressions"].as_array().cloned().unwrap_or_default());
            both["matchExpressions"] = expressions.concat().into();
            both
        })
    };
    let own = required["nodeSelectorTerms"].as_array().cloned().unwrap_or_default();
    let held: Vec<Value> = if own.is_empty() { terms.to_vec() } else { own.iter().flat_map(both).collect() };
    required["nodeSelectorTerms"] = held.into();
}

/// Applies an object; tells whether that changed it, and gives it as stored. `before` keeps what was read of it across
/// attempts, so that one whose answer was lost counts.
async fn compared(kube: &dyn Kube, object: &Value, before: &mut Option<Value>) -> Result<(bool, Value), KubeError> {
    if before.is_none() {
        *before = match ObjectKey::of(object) {
            Some(key) => Some(own_entry(&kube.get(&key).await?.unwrap_or_default())),
            None => Some(Value::Null),
        };
    }
    let stored = kube.apply(object).await?;
    Ok((before.as_ref() != Some(&own_entry(&stored)), stored))
}

/// What a server keeps of devstack's applies to an object, null where there were none: it renews the entry only when
/// what it manages changed. Comparing entries asks no clock, neither the host's nor the server's.
fn own_entry(object: &Value) -> Value {
    let fields = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let own = fields.into_iter().flatten().find(|entry| entry["manager"] == FIELD_MANAGER);
    json!({"entry": own, "generation": object.pointer("/metadata/generation")})
}

/// What an apply would change of an object; `None` where it is as it should be.
async fn drift(kube: &dyn Kube, object: &Value) -> Result<Option<Drift>, StepError> {
    let Some(key) = ObjectKey::of(object) else { return Ok(None) };
    let (there, wanted) = tokio::join!(kube.get(&key), kube.apply_dry_run(object));
    let Some(mut there) = there? else { return Ok(Some(Drift { key, how: How::Gone })) };
    let mut wanted = match wanted {
        Ok(wanted) => wanted,
        Err(KubeError::Refused { code: 422, reason, .. }) if jobs::is_changed(object, &reason) => {
            return Ok(Some(Drift { key, how: How::Refused }));
        }
        Err(error) => return Err(explained(kube, object, error).await),
    };
    if jobs::gave_up(&there) {
        return Ok(Some(Drift { key, how: How::Failed }));
    }
    for side in [&mut there, &mut wanted] {
        if let Some(metadata) = side.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
            metadata.remove("generation");
        }
        if let Some(fields) = side.as_object_mut() {
            fields.remove("status");
        }
    }
    let mut fields = Vec::new();
    differences(&there, &wanted, "", &mut fields);
    let is_secret = key.kind == "Secret";
    let mut drift = (!fields.is_empty()).then_some(Drift { key, how: How::Differs(fields) });
    if is_secret {
        drift.iter_mut().for_each(Drift::hide_values);
    }
    Ok(drift)
}

/// The drift of several objects, as [`drift`] finds it, in no order.
pub(super) async fn drifts(kube: &dyn Kube, objects: &[Value]) -> Result<Vec<Drift>, StepError> {
    let found: Vec<_> = futures::stream::iter(objects)
        .map(|object| drift(kube, object))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// An object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drift {
    key: ObjectKey,
    how: How,
}

impl Drift {
    /// The object.
    pub(super) fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Keeps values out of what is told of it, those that were there before among them.
    pub(super) fn hide_values(&mut self) {
        if let How::Differs(fields) = &mut self.how {
            fields.iter_mut().for_each(|field| field.values = None);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum How {
    Gone,
    Differs(Vec<Field>),
    /// The change is one that the server refuses.
    Refused,
    /// A Job that gave up.
    Failed,
}

/// A field that an apply would change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    path: String,
    /// What it is and what it should be, where both can be shown.
    values: Option<(String, String)>,
}

/// The longest value that is shown, in characters.
const SHOWN: usize = 60;

/// Compares two values field by field.
fn differences(there: &Value, wanted: &Value, path: &str, found: &mut Vec<Field>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (there, wanted) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&side(one), &side(other), &below(key), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (at, (one, other)) in one.iter().zip(other).enumerate() {
                differences(one, other, &format!("{path}[{at}]"), found);
            }
        }
        (one, other) if one == other => {}
        (one, other) => {
            let shown = |value: &Value| match value {
                Value::Null => Some("absent".to_owned()),
                Value::Object(_) | Value::Array(_) => None,
                plain => Some(plain.to_string()).filter(|text| text.chars().count() <= SHOWN),
            };
            found.push(Field { path: path.to_owned(), values: shown(one).zip(shown(other)) });
        }
    }
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, how } = self;
        match how {
            How::Gone => write!(f, "{key} is gone"),
            How::Refused => write!(f, "{key} differs and is made anew"),
            How::Failed => write!(f, "{key} failed and is made anew"),
            How::Differs(fields) => {
                write!(f, "{key} differs")?;
                if let Some(Field { path, values }) = fields.first() {
                    write!(f, ": {path}")?;
                    if let Some((there, wanted)) = values {
                        write!(f, " is {there}, not {wanted}")?;
                    }
                }
                if fields.len() > 1 {
                    write!(f, " (and {} more fields)", fields.len() - 1)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeKube;

    #[tokio::test]
    async fn a_difference_is_told_by_its_first_field() {
        let kube = FakeKube::default();
        let object = |kind: &str, data: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "b"}, "data": data});
        let told = async |there: Option<Value>, wanted: &Value| {
            if let Some(there) = there {
                kube.put(there);
            }
            let found = drifts(&kube, std::slice::from_ref(wanted)).await.unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let wanted = object("ConfigMap", json!({"x": "1", "y": "2"}));
        assert_eq!(told(None, &wanted).await, "ConfigMap b/a is gone");
        assert_eq!(told(Some(wanted.clone()), &wanted).await, "");
        let one = object("ConfigMap", json!({"x": "1", "y": "3"}));
        assert_eq!(told(Some(one), &wanted).await, r#"ConfigMap b/a differs: data.y is "3", not "2""#);
        let two = object("ConfigMap", json!({"x": ["1"], "y": "3"}));
        assert_eq!(told(Some(two), &wanted).await, "ConfigMap b/a differs: data.x (and 1 more fields)");
        let secret = object("Secret", json!({"key": "c2VjcmV0"}));
        let told = told(Some(object("Secret", json!({"key": "b3RoZXI="}))), &secret).await;
        assert_eq!(told, "Secret b/a differs: data.key");
        let job = |status: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "b"}, "status": status});
        kube.put(job(json!({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]})));
        let found = drifts(&kube, &[job(json!({}))]).await.unwrap();
        assert_eq!(found[0].to_string(), "Job b/a failed and is made anew");
    }

    #[tokio::test]
    async fn only_an_apply_that_changed_something_counts() {
        let kube = FakeKube::default();
        let object = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}, "data": {"a": value}});
        assert!(compared(&kube, &object("1"), &mut None).await.unwrap().0, "it was not there");
        assert!(!compared(&kube, &object("1"), &mut None).await.unwrap().0);
        assert!(compared(&kube, &object("2"), &mut None).await.unwrap().0);
        // The answer to the first attempt was lost.
        let mut before = None;
        kube.set_down(true);
        assert!(compared(&kube, &object("3"), &mut before).await.is_err());
        kube.set_down(false);
        assert!(compared(&kube, &object("3"), &mut before).await.unwrap().0);
        // Somebody else's entry is none of ours.
        let of =
            |manager: &str| own_entry(&json!({"metadata": {"managedFields": [{"manager": manager, "time": "x"}]}}));
        assert_eq!(of("kubectl"), own_entry(&Value::Null));
        assert_ne!(of(FIELD_MANAGER), own_entry(&Value::Null));
    }

    #[test]
    fn pods_are_held_beside_what_their_author_asks_of_nodes() {
        const REQUIRED: &str =
            "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
        let is = |key: &str| json!({"key": key, "operator": "Exists"});
        let terms = ["v3", "v4"].map(|key| json!({"matchExpressions": [is(key)]}));
        let held = |mut object: Value, spec: &str| {
            hold(&mut object, &terms);
            object.pointer(&format!("{spec}{REQUIRED}")).cloned()
        };
        let deployment = |spec: Value| json!({"kind": "Deployment", "spec": {"template": {"spec": spec}}});
        assert_eq!(held(deployment(json!({"containers": []})), "/spec/template/spec"), Some(json!(terms)));
        let own = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [is("disk")]}]}}, "podAffinity": {}}});
        let both = ["v3", "v4"].map(|key| json!({"matchExpressions": [is("disk"), is(key)]}));
        assert_eq!(held(deployment(own), "/spec/template/spec"), Some(json!(both)));
        assert_eq!(held(json!({"kind": "Pod", "spec": {}}), "/spec"), Some(json!(terms)));
        let job = json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": {}}}}}});
        assert_eq!(held(job, "/spec/jobTemplate/spec/template/spec"), Some(json!(terms)));
        let mut service = json!({"kind": "Service", "spec": {"ports": []}});
        hold(&mut service, &terms);
        assert_eq!(service, json!({"kind": "Service", "spec": {"ports": []}}));
    }
}
