//! Parameters of a component, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::yaml::YamlError;

use super::component::{Draft, Surroundings};
use super::condition;
use super::content::content_spec;
use super::error::ProfileError;
use super::load::{base, problem, set, setting, stand_in};
use super::parameter::{self, unknown};
use super::resolved::{ContentSpec, Ready, ReadyKind, plain};
use super::schema::Loop;
use super::scope::{Scope, SubstituteError};
use super::secret::is_secret;
use super::source::{Origin, is_name};
use super::world::{Argument, Bindings, Env, Trace, World};

impl Draft {
    /// Works out parameters and what follows from them. Everything it refers to has been filled before.
    pub(super) fn fill(
        &mut self,
        around: &Surroundings<'_>,
        world: &mut World,
        problems: &mut Vec<YamlError>,
    ) -> Result<(), ProfileError> {
        let before = problems.len();
        let (arguments, secret) = self.arguments(around, world, problems)?;
        self.wrong = problems.len() > before;
        for (name, argument) in &arguments {
            let Some(parameter) = self.file.parameters.get(name) else { continue };
            match argument {
                Argument::Literal(value) if self.wrong && *value == stand_in(parameter) => {}
                Argument::Literal(value) => world.secrets.add(parameter, value),
                Argument::Template(template) => world.secrets.add_late(parameter, template),
            }
        }
        if let Some(frame) = world.components.get_mut(&self.instance) {
            frame.parameters = arguments;
            frame.secret = secret;
            frame.wrong = self.wrong;
        }
        if self.wrong {
            return Ok(());
        }
        self.fill_credentials(world, problems);
        self.fill_content(world, problems);
        self.fill_ready(world, problems);
        for (key, text) in [("memory", self.file.memory.clone()), ("disk", self.file.disk.clone())] {
            let Some(text) = text else { continue };
            let at = self.origin.below(&[key]);
            let Some(text) = self.text(&text, &at, &Bindings::new(), world, problems) else { continue };
            match quantity(&text) {
                Some(bytes) if key == "memory" => self.memory = bytes,
                Some(bytes) => self.disk = bytes,
                None => problems.push(at.problem(format!("expected an amount such as 512Mi or 1Gi, found `{text}`"))),
            }
        }
        Ok(())
    }

    /// The values of its parameters, and the names of those that hold what must not be shown.
    fn arguments(
        &mut self,
        around: &Surroundings<'_>,
        world: &World,
        problems: &mut Vec<YamlError>,
    ) -> Result<(BTreeMap<String, Argument>, BTreeSet<String>), ProfileError> {
        let known = &self.file.parameters;
        for (name, written) in around.used.with.iter().filter(|(name, _)| !known.contains_key(*name)) {
            let message = unknown("parameter", name, known.keys().map(String::as_str));
            problems.push(written.origin.key_problem(message));
        }
        for (name, text) in around.settings {
            if known.contains_key(*name) {
                continue;
            }
            let full = format!("{}.{name}", self.instance);
            match name.strip_prefix("image").map(|rest| rest.strip_prefix('.').unwrap_or(rest)) {
                Some(variable) if variable.is_empty() || self.file.images.contains_key(variable) => {
                    let names: Vec<_> = self.file.images.keys().map(String::as_str).collect();
                    let variable = match (variable, names.as_slice()) {
                        ("", [only]) => only,
                        ("", names) if names.contains(&"server") => "server",
                        ("", names) => return Err(setting(&full, format!("say which image: {}", names.join(", ")))),
                        (variable, _) => variable,
                    };
                    self.image_overrides.insert(variable.to_owned(), (*text).to_owned());
                }
                _ => return Err(setting(&full, unknown("parameter", name, known.keys().map(String::as_str)))),
            }
        }
        let (none, late) = (Bindings::new(), Scope::new());
        let mut arguments = BTreeMap::new();
        let mut secret: BTreeSet<String> =
            known.iter().filter(|(_, parameter)| is_secret(parameter)).map(|(name, _)| name.clone()).collect();
        for (name, parameter) in known {
            let trace = Trace::default();
            let env = Env { trace: Some(&trace), ..Env::new(world, None, &none, &late) };
            let (value, at, place) = match (around.settings.get(&**name), around.used.with.get(name)) {
                (Some(text), _) => {
                    let full = format!("{}.{name}", self.instance);
                    let value = set(&full, parameter, text, around.request.cwd)?;
                    arguments.insert(name.clone(), Argument::Literal(value));
                    continue;
                }
                (None, Some(written)) => (&written.value, written.origin.clone(), &written.place),
                (None, None) => match &parameter.default {
                    Some(default) => (default, self.origin.below(&["parameters", name, "default"]), &self.place),
                    None if parameter.optional => {
                        arguments.insert(name.clone(), Argument::Literal(Value::Null));
                        continue;
                    }
                    None => {
                        problems.push(around.used.origin.problem(format!(
                            "`{}` needs a value for `{name}` below `with`{}",
                            self.instance,
                            parameter.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default()
                        )));
                        arguments.insert(name.clone(), Argument::Literal(stand_in(parameter)));
                        continue;
                    }
                },
            };
            let (checked, template) = match env.known(value) {
                Ok(Some(value)) => (value, false),
                Ok(None) => (env.lenient(value).unwrap_or_else(|_| value.clone()), true),
                Err(error) => {
                    problems.push(problem(&at, &error));
                    arguments.insert(name.clone(), Argument::Literal(stand_in(parameter)));
                    continue;
                }
            };
            if trace.secret.get() {
                secret.insert(name.clone());
            }
            let mut mistakes = Vec::new();
            let made = parameter::check(parameter, &checked, base(place), template, &mut Vec::new(), &mut mistakes);
            problems.extend(mistakes.into_iter().map(|(path, message)| at.below(&path).problem(message)));
            // What stays a template keeps its checked form: paths are absolute in it, defaults of fields filled in.
            arguments.insert(name.clone(), if template { Argument::Template(made) } else { Argument::Literal(made) });
        }
        Ok((arguments, secret))
    }

    fn fill_credentials(&mut self, world: &mut World, problems: &mut Vec<YamlError>) {
        for (index, credential) in self.file.credentials.clone().iter().enumerate() {
            let at = self.origin.below(&["credentials", &index.to_string()]);
            if !is_name(&credential.name) {
                problems.push(at.below(&["name"]).problem(format!("`{}` is no name", credential.name)));
                continue;
            }
            let id = format!("{}.{}", self.instance, credential.name);
            let keys = match &credential.key {
                None if credential.loops.is_empty() => {
                    self.credentials.push(id);
                    None
                }
                None => {
                    problems.push(at.problem("with `for`, `key` says how the pairs differ"));
                    continue;
                }
                Some(key) => {
                    let mut keys = BTreeSet::new();
                    for bindings in self.rounds(&credential.loops, &at, world, problems) {
                        let at = at.below(&["key"]);
                        let Some(key) = self.text(key, &at, &bindings, world, problems) else { continue };
                        if is_name(&key) {
                            keys.insert(key);
                        } else {
                            problems
                                .push(at.problem(format!("`{key}` is no name: lower-case letters, digits and dashes")));
                        }
                    }
                    self.credentials.extend(keys.iter().map(|key| format!("{id}.{key}")));
                    Some(keys)
                }
            };
            if let Some(frame) = world.components.get_mut(&self.instance) {
                frame.credentials.insert(credential.name.clone(), keys);
            }
        }
    }

    fn fill_content(&mut self, world: &mut World, problems: &mut Vec<YamlError>) {
        for (index, content) in self.file.content.clone().iter().enumerate() {
            let at = self.origin.below(&["content", &index.to_string()]);
            for bindings in self.rounds(&content.loops, &at, world, problems) {
                if !self.applies(content.when.as_ref(), &at, &bindings, world, problems) {
                    continue;
                }
                let bucket = self.text(&content.bucket, &at.below(&["bucket"]), &bindings, world, problems);
                let source = self.text(&content.source, &at.below(&["source"]), &bindings, world, problems);
                let (Some(bucket), Some(source)) = (bucket, source) else { continue };
                if !is_name(&bucket) || bucket.len() < 3 {
                    let message = format!("`{bucket}` is no bucket: 3 to 63 lower-case letters, digits and dashes");
                    problems.push(at.below(&["bucket"]).problem(message));
                    continue;
                }
                let id = format!("{}.{}", self.instance, content.credentials);
                if !self.credentials.contains(&id) {
                    let known = self.file.credentials.iter().map(|credential| &*credential.name);
                    let message = unknown("credential", &content.credentials, known);
                    problems.push(at.below(&["credentials"]).problem(message));
                }
                let spec = content_spec(&source, bucket.clone());
                let spec = ContentSpec {
                    namespace: self.namespace.clone(),
                    pods: content.pods.clone(),
                    port: content.port,
                    credentials: id,
                    ..spec
                };
                let mut known = json!({"key": spec.key, "path": spec.path});
                if let Some(size) = spec.size {
                    known["size"] = json!(size);
                }
                if world.content.insert(bucket.clone(), known).is_some() {
                    problems.push(at.below(&["bucket"]).problem(format!("the bucket `{bucket}` is filled twice")));
                }
                self.content.push(spec);
            }
        }
    }

    fn fill_ready(&mut self, world: &World, problems: &mut Vec<YamlError>) {
        for (index, ready) in self.file.ready.clone().iter().enumerate() {
            let at = self.origin.below(&["ready", &index.to_string()]);
            let kinds = [
                (ReadyKind::Deployment, &ready.deployment),
                (ReadyKind::DaemonSet, &ready.daemonset),
                (ReadyKind::StatefulSet, &ready.statefulset),
                (ReadyKind::Job, &ready.job),
                (ReadyKind::Crd, &ready.crd),
                (ReadyKind::ServiceAddress, &ready.service_address),
            ];
            let given: Vec<_> = kinds.iter().filter_map(|(kind, name)| Some((*kind, name.as_ref()?))).collect();
            let [(kind, name)] = given.as_slice() else {
                problems.push(
                    at.problem("expected exactly one of deployment, daemonset, statefulset, job, crd, service-address"),
                );
                continue;
            };
            for bindings in self.rounds(&ready.loops, &at, world, problems) {
                if !self.applies(ready.when.as_ref(), &at, &bindings, world, problems) {
                    continue;
                }
                let Some(name) = self.text(name, &at, &bindings, world, problems) else { continue };
                let namespace = ready.namespace.clone().unwrap_or_else(|| self.namespace.clone());
                self.ready.push(Ready { kind: *kind, name, namespace });
            }
        }
    }

    /// The rounds of loops whose lists are known.
    fn rounds(&self, loops: &[Loop], at: &Origin, world: &World, problems: &mut Vec<YamlError>) -> Vec<Bindings> {
        let (none, late) = (Bindings::new(), Scope::new());
        let env = Env::new(world, Some(&self.instance), &none, &late);
        condition::rounds(loops, env, false).unwrap_or_else(|error| {
            problems.push(problem(&at.below(&["for"]), &error));
            Vec::new()
        })
    }

    /// Whether a condition holds; one that is late counts as holding.
    fn applies(
        &self,
        when: Option<&Value>,
        at: &Origin,
        bindings: &Bindings,
        world: &World,
        problems: &mut Vec<YamlError>,
    ) -> bool {
        let late = Scope::new();
        match condition::holds(when, Env::new(world, Some(&self.instance), bindings, &late)) {
            Ok(holds) => holds.unwrap_or(true),
            Err(error) => {
                problems.push(at.below(&["when"]).problem(error.to_string()));
                false
            }
        }
    }

    /// A text that must be known before the cluster exists.
    fn text(
        &self,
        text: &str,
        at: &Origin,
        bindings: &Bindings,
        world: &World,
        problems: &mut Vec<YamlError>,
    ) -> Option<String> {
        let late = Scope::new();
        let env = Env::new(world, Some(&self.instance), bindings, &late);
        match env.strict(&Value::String(text.to_owned())) {
            Ok(value) => Some(plain(value)),
            Err(SubstituteError::Late { reference, .. }) => {
                problems.push(at.problem(format!("${{{reference}}} is known only later and cannot be used here")));
                None
            }
            Err(error) => {
                problems.push(at.problem(error.to_string()));
                None
            }
        }
    }
}

/// Bytes of a Kubernetes quantity without fractions.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
