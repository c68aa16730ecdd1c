//! Templates to objects: rounds, conditions, substitution, and what every object of devstack's has.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::condition;
use super::error::ProfileError;
use super::resolved::ResolvedComponent;
use super::scope::{Scope, SubstituteError};
use super::world::{Bindings, Env, Trace};

/// Kinds without a namespace that components may bring; CRDs add their own.
const CLUSTER_SCOPED: &[&str] = &[
    "APIService",
    "CSIDriver",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "FlowSchema",
    "GatewayClass",
    "IngressClass",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeSnapshotClass",
];

/// The label that says which environment an object belongs to.
const ENVIRONMENT_LABEL: &str = "dev.devstack.environment";
/// The label that says which component an object belongs to.
const COMPONENT_LABEL: &str = "dev.devstack.component";

/// A component's objects.
pub struct Rendered {
    /// The objects to apply, wave after wave.
    pub waves: Vec<Vec<Value>>,
    /// Kind and name of those that hold what must not be shown.
    secret: BTreeSet<(String, String)>,
}

impl Rendered {
    /// Whether an object holds what must not be shown, or did so before what is secret in it was changed.
    pub fn is_secret(&self, kind: &str, name: &str) -> bool {
        self.secret.iter().any(|(of, called)| of == kind && called == name)
    }
}

fn kind_and_name(object: &Value) -> Option<(String, String)> {
    Some((object["kind"].as_str()?.to_owned(), object.pointer("/metadata/name")?.as_str()?.to_owned()))
}

impl ResolvedComponent {
    /// The objects to apply, wave after wave, ready for the API server. Empty waves are left out; namespaces are a wave
    /// of their own before all others.
    ///
    /// # Errors
    /// [`ProfileError::Render`] where the scope lacks a value that an object needs.
    pub fn render(&self, scope: &Scope) -> Result<Vec<Vec<Value>>, ProfileError> {
        Ok(self.rendered(scope)?.waves)
    }

    /// As [`ResolvedComponent::render`], with what is known of the objects.
    ///
    /// # Errors
    /// As [`ResolvedComponent::render`].
    pub fn rendered(&self, scope: &Scope) -> Result<Rendered, ProfileError> {
        let none = Bindings::new();
        let env = Env::new(&self.world, Some(&self.name), &none, scope);
        let mut waves = Vec::new();
        let mut secret = BTreeSet::new();
        for wave in &self.waves {
            let mut objects = Vec::new();
            for template in wave {
                let failed = |error| ProfileError::Render { place: template.place.clone(), error };
                let trace = Trace::default();
                let env = Env { trace: Some(&trace), ..env };
                let begin = objects.len();
                for bindings in condition::rounds(&template.loops, env, false).map_err(failed)? {
                    let env = Env { bindings: &bindings, ..env };
                    let applies = condition::holds(template.when.as_ref(), env).map_err(failed)?;
                    if applies.ok_or_else(|| failed(late_condition(template.when.as_ref())))? {
                        objects.push(env.strict(&template.object).map_err(failed)?);
                    }
                }
                if trace.secret.get() {
                    secret.extend(objects[begin..].iter().filter_map(kind_and_name));
                }
            }
            waves.push(objects);
        }
        waves.retain(|objects| !objects.is_empty());
        let environment = self.environment(env)?;
        Ok(Rendered { waves: self.finish(waves, &environment), secret })
    }

    fn environment(&self, env: Env<'_>) -> Result<String, ProfileError> {
        env.strict(&Value::String("${environment.name}".to_owned()))
            .map(super::resolved::plain)
            .map_err(|error| ProfileError::Render { place: self.name.clone(), error })
    }

    /// Adds the namespace object, namespaces and labels.
    fn finish(&self, mut waves: Vec<Vec<Value>>, environment: &str) -> Vec<Vec<Value>> {
        if waves.is_empty() {
            return waves;
        }
        let cluster_scoped = scopes(&waves);
        let mut namespaces = Vec::new();
        for wave in &mut waves {
            let (first, rest) = std::mem::take(wave).into_iter().partition(|object| object["kind"] == "Namespace");
            namespaces.extend::<Vec<_>>(first);
            *wave = rest;
        }
        if !namespaces.iter().any(|object| object["metadata"]["name"] == self.namespace) {
            namespaces.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}));
        }
        waves.insert(0, namespaces);
        waves.retain(|objects| !objects.is_empty());
        let labels = [
            ("app.kubernetes.io/managed-by", "devstack"),
            ("app.kubernetes.io/part-of", &*self.world.profile),
            (ENVIRONMENT_LABEL, environment),
            (COMPONENT_LABEL, &*self.name),
        ];
        for object in waves.iter_mut().flatten() {
            let namespaced = !object["kind"].as_str().is_some_and(|kind| cluster_scoped.contains(kind));
            if namespaced {
                put(object, &["metadata"], "namespace", &self.namespace, true);
            }
            for (name, value) in labels {
                put(object, &["metadata", "labels"], name, value, false);
            }
            // Pods carry the two that lead back from a pod to its component; selectors stay the author's.
            if object.pointer("/spec/template/spec/containers").is_some() {
                for (name, value) in &labels[2..] {
                    put(object, &["spec", "template", "metadata", "labels"], name, value, false);
                }
            }
            if let Some(Value::Array(claims)) = object.pointer_mut("/spec/volumeClaimTemplates") {
                for claim in claims {
                    for (name, value) in &labels[2..] {
                        put(claim, &["metadata", "labels"], name, value, false);
                    }
                }
            }
        }
        waves
    }
}

fn late_condition(when: Option<&Value>) -> SubstituteError {
    let reference = when.map(super::template::references).and_then(|all| all.into_iter().next()).unwrap_or_default();
    SubstituteError::Late { reference, path: Vec::new() }
}

/// The kinds without a namespace, those of the component's own CRDs included.
fn scopes(waves: &[Vec<Value>]) -> BTreeSet<String> {
    let mut kinds: BTreeSet<String> = CLUSTER_SCOPED.iter().map(|kind| (*kind).to_owned()).collect();
    for object in waves.iter().flatten() {
        if object["kind"] == "CustomResourceDefinition" && object["spec"]["scope"] == "Cluster" {
            kinds.extend(object["spec"]["names"]["kind"].as_str().map(str::to_owned));
        }
    }
    kinds
}

/// Puts a text below a path of mappings, which are made where they are not there.
fn put(object: &mut Value, path: &[&str], key: &str, value: &str, keep: bool) {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else { return };
    match path.split_first() {
        Some((head, rest)) => put(fields.entry(*head).or_insert(Value::Null), rest, key, value, keep),
        None if keep && fields.contains_key(key) => {}
        None => {
            fields.insert(key.to_owned(), value.into());
        }
    }
}
