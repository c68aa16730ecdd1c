//! What of a profile must not be shown: the texts in parameters of type `secret`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::redact::Redactor;
use crate::yaml::YamlError;

use super::resolved::Resolved;
use super::schema::{Parameter, ParameterType};
use super::scope::Scope;
use super::world::{Bindings, Env};

/// What is secret in a profile and its components.
#[derive(Default)]
pub(super) struct Secrets {
    /// The profile's own parameters that hold any of it.
    pub(super) parameters: BTreeSet<String>,
    texts: BTreeSet<String>,
    /// Values of components of which a part is known only later, with their parameters.
    late: Vec<(Parameter, Value)>,
}

impl Secrets {
    /// Adds what is secret in a parameter's value.
    pub(super) fn add(&mut self, parameter: &Parameter, value: &Value) {
        collect(parameter, value, &mut self.texts);
    }

    /// Adds what will be secret in a value that is not known yet.
    pub(super) fn add_late(&mut self, parameter: &Parameter, template: &Value) {
        if is_secret(parameter) {
            self.late.push((parameter.clone(), template.clone()));
        }
    }

    /// Takes secrets out of what is said of mistakes, and of the lines that they are in.
    pub(super) fn hide(&self, problems: &mut [YamlError]) {
        let redactor = Redactor::default();
        self.texts.iter().for_each(|text| redactor.register(text));
        for problem in problems {
            problem.message = redactor.apply(&problem.message);
            problem.snippet = problem.snippet.as_deref().map(|line| redactor.apply(line));
        }
    }
}

/// Shows names only.
impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(&self.parameters).finish()
    }
}

impl Resolved {
    /// Every text that must not be shown, as far as the scope lets it be known.
    pub fn secrets(&self, scope: &Scope) -> BTreeSet<String> {
        let none = Bindings::new();
        let env = Env::new(&self.world, None, &none, scope);
        let mut texts = self.world.secrets.texts.clone();
        for (parameter, template) in &self.world.secrets.late {
            if let Ok(value) = env.strict(template) {
                collect(parameter, &value, &mut texts);
            }
        }
        texts
    }
}

/// Whether anything in a parameter's values must not be shown.
pub(super) fn is_secret(parameter: &Parameter) -> bool {
    let mut inner = parameter.fields.iter().flat_map(BTreeMap::values).chain(parameter.items.as_deref());
    parameter.kind == Some(ParameterType::Secret) || inner.any(is_secret)
}

fn collect(parameter: &Parameter, value: &Value, found: &mut BTreeSet<String>) {
    if parameter.kind == Some(ParameterType::Secret) {
        texts(value, found);
        return;
    }
    match value {
        Value::Array(items) => {
            if let Some(inner) = &parameter.items {
                items.iter().for_each(|item| collect(inner, item, found));
            }
        }
        Value::Object(values) => {
            for (key, field) in parameter.fields.iter().flatten() {
                if let Some(value) = values.get(key) {
                    collect(field, value, found);
                }
            }
        }
        _ => {}
    }
}

/// Every text of a secret. The user name of a credential is none: it is a part of many names.
fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            found.insert(text.clone());
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(fields) => {
            fields.iter().filter(|(key, _)| *key != "username").for_each(|(_, value)| texts(value, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{ProfileError, ProfileSource, Request, load};
    use super::*;

    const PROFILE: &str = "apiVersion: devstack/v1
kind: Profile
name: demo
parameters:
  motto: {type: secret, default: the-motto}
  keys: {type: list, items: {type: secret}, default: [first-key, second-key]}
components:
  - use: app
    with:
      text: \"say ${motto}\"
      login: {username: somebody, password: the-password}
      late: \"${environment.name}-late\"
";

    const COMPONENT: &str = "apiVersion: devstack/v1
kind: Component
name: app
parameters:
  text: {type: string}
  plain: {type: string, default: plain}
  mode: {type: secret, default: production, enum: [production, staging]}
  login: {type: secret, fields: {username: {type: string}, password: {type: secret}}}
  late: {type: secret}
credentials: [{name: root}]
manifests: [{file: objects.yaml}]
";

    const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: spoken}
data: {text: \"${text}\"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: plain}
data: {text: \"${plain}\", user: \"${credentials.root.username}\"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: generated}
data: {text: \"${credentials.root.password}\"}
";

    fn loaded(profile: &str, sets: &[(&str, &str)]) -> Result<Resolved, ProfileError> {
        let dir = tempfile::tempdir().unwrap();
        let component = dir.path().join("components/app");
        std::fs::create_dir_all(&component).unwrap();
        std::fs::write(component.join("component.yaml"), COMPONENT).unwrap();
        std::fs::write(component.join("objects.yaml"), OBJECTS).unwrap();
        std::fs::write(dir.path().join("devstack.yaml"), profile).unwrap();
        let sets: Vec<_> = sets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let source = ProfileSource::Dir(dir.path().to_path_buf());
        load(&Request::new(&source, &sets, &json!({})))
    }

    fn scope() -> Scope {
        let mut scope = Scope::new();
        scope.set("environment.name", "demo");
        scope.set("credentials.app.root", json!({"username": "root", "password": "generated"}));
        scope
    }

    #[test]
    fn texts_of_secrets_are_known_wherever_they_stand() {
        let profile = loaded(PROFILE, &[("motto", "another")]).unwrap();
        let of = |scope: &Scope| profile.secrets(scope).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(of(&Scope::new()), "another first-key production second-key the-password");
        assert_eq!(of(&scope()), "another demo-late first-key production second-key the-password");
        assert!(!profile.public.contains("keys") && !profile.parameters.contains_key("keys"), "{:?}", profile.public);
    }

    #[test]
    fn an_object_that_holds_a_secret_is_known_by_what_it_is_made_of() {
        let rendered = loaded(PROFILE, &[]).unwrap().components[0].rendered(&scope()).unwrap();
        let is_secret = |name: &str| rendered.is_secret("ConfigMap", name);
        assert_eq!(["spoken", "plain", "generated"].map(is_secret), [true, false, true]);
    }

    #[test]
    fn mistakes_in_secrets_do_not_tell_them() {
        let told = |error: ProfileError| match error {
            ProfileError::Invalid { problems } => format!("{problems:?}"),
            other => format!("{other:?}"),
        };
        let set = told(loaded(PROFILE, &[("app.mode", "hunter2hunter2")]).err().unwrap());
        assert!(set.contains("expected one of the values of its `enum`") && !set.contains("hunter2"), "{set}");
        assert!(!set.contains("production"), "{set}");
        let wrong = PROFILE.replace("default: the-motto", "default: hunter2hunter2, pattern: \"[0-9]+\"");
        let file = told(loaded(&wrong, &[]).err().unwrap());
        assert!(file.contains("does not match") && !file.contains("hunter2"), "{file}");
    }
}
