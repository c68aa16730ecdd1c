//! What references mean: the profile's and its components' own values, the names of late ones, and who may see which.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::scope::{Found, Scope, SubstituteError, child, names, walk};
use super::secret::Secrets;
use super::template::Reference;

/// How deep values may refer to others before it counts as a circle.
const MAX_HOPS: usize = 16;

/// Everything that is known of a loaded profile.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) profile: String,
    /// The profile's parameters; literal.
    pub(super) parameters: BTreeMap<String, Value>,
    /// `None` where nobody looked (validation): all facts are late then.
    pub(super) facts: Option<Value>,
    pub(super) cluster: Option<Value>,
    pub(super) components: BTreeMap<String, Frame>,
    /// Components that are switched off.
    pub(super) off: BTreeSet<String>,
    pub(super) routes: BTreeSet<String>,
    /// Buckets that devstack fills: `{key, path, size}`.
    pub(super) content: BTreeMap<String, Value>,
    pub(super) secrets: Secrets,
    /// Services whose LoadBalancer address is waited for, as `namespace/name`, and the component that waits; `None`
    /// where that is not known.
    pub(super) addresses: Option<BTreeMap<String, String>>,
}

/// What a component's own files see.
#[derive(Debug, Default)]
pub(super) struct Frame {
    pub(super) namespace: String,
    pub(super) parameters: BTreeMap<String, Argument>,
    /// The parameters whose values hold what must not be shown.
    pub(super) secret: BTreeSet<String>,
    /// Variable → role.
    pub(super) images: BTreeMap<String, String>,
    /// Credential → its keys, `None` for a single pair.
    pub(super) credentials: BTreeMap<String, Option<BTreeSet<String>>>,
    pub(super) outputs: BTreeMap<String, Value>,
    /// Whether its parameters are wrong; what follows from them then counts as late, so that one mistake is told once.
    pub(super) wrong: bool,
}

/// A component's parameter.
#[derive(Debug)]
pub(super) enum Argument {
    /// A value; `${` in it means nothing.
    Literal(Value),
    /// A value with references that the profile could make; some of them are late.
    Template(Value),
}

/// Names bound by loops; `None` for a value that is late.
pub(super) type Bindings = BTreeMap<String, Option<Value>>;

/// What substitution came past.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Something that must not be shown.
    pub(super) secret: Cell<bool>,
    /// Addresses of Services, as `namespace/name`.
    pub(super) addresses: RefCell<BTreeSet<String>>,
}

/// A place from which references are read.
#[derive(Clone, Copy)]
pub(super) struct Env<'a> {
    pub(super) world: &'a World,
    /// The component whose files these are; `None` in the profile.
    pub(super) component: Option<&'a str>,
    pub(super) bindings: &'a Bindings,
    /// Late values as far as they exist.
    pub(super) late: &'a Scope,
    pub(super) hops: usize,
    pub(super) trace: Option<&'a Trace>,
}

impl<'a> Env<'a> {
    pub(super) fn new(world: &'a World, component: Option<&'a str>, bindings: &'a Bindings, late: &'a Scope) -> Self {
        Self { world, component, bindings, late, hops: 0, trace: None }
    }

    /// Notes that what must not be shown was come past.
    fn secret(self, is_secret: bool) {
        if let Some(trace) = self.trace.filter(|_| is_secret) {
            trace.secret.set(true);
        }
    }

    /// Substitutes everything; what is late is an error.
    pub(super) fn strict(self, value: &Value) -> Result<Value, SubstituteError> {
        walk(value, false, &mut Vec::new(), &|reference| self.find(reference))
    }

    /// Substitutes what is known; the result is a template of what is late.
    pub(super) fn lenient(self, value: &Value) -> Result<Value, SubstituteError> {
        walk(value, true, &mut Vec::new(), &|reference| self.find(reference))
    }

    /// The value, or `None` where any of it is late.
    pub(super) fn known(self, value: &Value) -> Result<Option<Value>, SubstituteError> {
        match self.strict(value) {
            Ok(value) => Ok(Some(value)),
            // A mistake elsewhere in the value counts more than what is late.
            Err(SubstituteError::Late { .. }) => self.lenient(value).map(|_| None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn find(self, reference: &Reference) -> Result<Found, SubstituteError> {
        let Some(path) = names(reference, &|inner| self.find(inner))? else { return Ok(Found::Late) };
        let Some((head, rest)) = path.split_first() else { return Ok(Found::Missing) };
        if self.hops > MAX_HOPS {
            return Err(SubstituteError::Cycle { reference: reference.text.clone(), path: Vec::new() });
        }
        if let Some(bound) = self.bindings.get(head) {
            return Ok(bound.as_ref().map_or(Found::Late, |value| dig(value, rest)));
        }
        let found = match self.component {
            Some(name) => self.find_own(name, head, rest)?,
            None => {
                self.secret(self.world.secrets.parameters.contains(head));
                self.world.parameters.get(head).map(|value| dig(value, rest))
            }
        };
        let found = match found {
            Some(found) => Some(found),
            None => self.find_shared(head, rest)?,
        };
        found.ok_or_else(|| SubstituteError::Unknown {
            reference: reference.text.clone(),
            known: self.known_like(&path),
            path: Vec::new(),
        })
    }

    /// What only the component itself sees.
    fn find_own(self, name: &str, head: &str, rest: &[String]) -> Result<Option<Found>, SubstituteError> {
        let Some(frame) = self.world.components.get(name) else { return Ok(None) };
        if let Some(argument) = frame.parameters.get(head) {
            self.secret(frame.secret.contains(head));
            return Ok(Some(match argument {
                Argument::Literal(value) => dig(value, rest),
                Argument::Template(template) => self.inside(None, template, rest)?,
            }));
        }
        self.secret(head == "credentials" && rest.last().is_none_or(|field| field != "username"));
        Ok(match (head, rest) {
            ("component", [field]) if field == "name" => Some(Found::Value(name.into())),
            ("component", [field]) if field == "namespace" => Some(Found::Value(frame.namespace.clone().into())),
            ("images", [variable, field]) if matches!(&**field, "ref" | "version" | "manifests") => {
                frame.images.get(variable).map(|role| self.late(&["images", role, field]))
            }
            ("credentials", [credential, path @ ..]) => match (frame.credentials.get(credential), path) {
                (Some(None), [] | [_]) if fields_of_a_pair(path) => {
                    let path: Vec<_> = path.iter().map(String::as_str).collect();
                    Some(self.late(&[&["credentials", name, credential], path.as_slice()].concat()))
                }
                (Some(Some(_)), []) => Some(self.late(&["credentials", name, credential])),
                (Some(Some(keys)), [key, path @ ..]) if keys.contains(key) && fields_of_a_pair(path) => {
                    let path: Vec<_> = path.iter().map(String::as_str).collect();
                    Some(self.late(&[&["credentials", name, credential, key], path.as_slice()].concat()))
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// What everybody sees.
    fn find_shared(self, head: &str, rest: &[String]) -> Result<Option<Found>, SubstituteError> {
        if let Some(frame) = self.world.components.get(head) {
            if frame.wrong {
                return Ok(Some(Found::Late));
            }
            let Some((output, rest)) = rest.split_first() else { return Ok(None) };
            return match frame.outputs.get(output) {
                Some(template) => self.inside(Some(head), template, rest).map(Some),
                None => Ok(None),
            };
        }
        Ok(match (head, rest) {
            ("facts", _) => match &self.world.facts {
                None => Some(Found::Late),
                Some(facts) => match dig(facts, rest) {
                    Found::Missing => None,
                    found => Some(found),
                },
            },
            ("cluster", _) => self.world.cluster.as_ref().and_then(|cluster| match dig(cluster, rest) {
                Found::Missing => None,
                found => Some(found),
            }),
            ("environment", [field]) if field == "name" => Some(self.late(&["environment", field])),
            ("network", [field]) if field == "pool" => Some(self.late(&["network", field])),
            ("routes", [route, field])
                if self.world.routes.contains(route) && matches!(&**field, "url" | "host" | "hosts") =>
            {
                Some(self.late(&["routes", route, field]))
            }
            ("services", [namespace, name, field]) if field == "address" => {
                let service = format!("{namespace}/{name}");
                if self.world.addresses.as_ref().is_some_and(|known| !known.contains_key(&service)) {
                    let reference = format!("services.{namespace}.{name}.address");
                    return Err(SubstituteError::NoAddress { reference, service, path: Vec::new() });
                }
                if let Some(trace) = self.trace {
                    trace.addresses.borrow_mut().insert(service);
                }
                Some(self.late(&["services", namespace, name, field]))
            }
            ("content", [bucket, field]) => match self.world.content.get(bucket) {
                None => self.world.components.values().any(|frame| frame.wrong).then_some(Found::Late),
                Some(known) => child(known, field)
                    .map(|value| Found::Value(value.clone()))
                    .or_else(|| (field == "sha256").then(|| self.late(&["content", bucket, field]))),
            },
            _ => None,
        })
    }

    /// Follows a path into a value that is a template of another file.
    fn inside(self, component: Option<&str>, template: &Value, rest: &[String]) -> Result<Found, SubstituteError> {
        let none = Bindings::new();
        let inner = Env { component, bindings: &none, hops: self.hops + 1, ..self };
        // Only the part that is asked for must be known.
        let mut part = template;
        let mut rest = rest;
        while let Some((head, tail)) = rest.split_first() {
            match part {
                Value::Object(_) | Value::Array(_) => match child(part, head) {
                    Some(value) => (part, rest) = (value, tail),
                    None => return Ok(Found::Missing),
                },
                // The rest of the path goes into whatever the text refers to.
                Value::String(text) => return inner.beyond(text, rest),
                _ => return Ok(Found::Missing),
            }
        }
        match inner.strict(part) {
            Ok(value) => Ok(Found::Value(value)),
            Err(SubstituteError::Late { .. }) => match self.trace.map(|_| inner.lenient(part)) {
                // Whoever traces wants to come past everything.
                Some(Err(error @ SubstituteError::NoAddress { .. })) => Err(error),
                _ => Ok(Found::Late),
            },
            Err(error) => Err(error),
        }
    }

    fn beyond(self, text: &str, rest: &[String]) -> Result<Found, SubstituteError> {
        use super::template::{Piece, Segment, parse};
        match parse(text).unwrap_or_default().as_slice() {
            [Piece::Reference(reference)] => {
                let mut longer = reference.clone();
                longer.text = format!("{}.{}", longer.text, rest.join("."));
                longer.segments.extend(rest.iter().cloned().map(Segment::Name));
                self.find(&longer)
            }
            _ => Ok(Found::Missing),
        }
    }

    fn late(self, path: &[&str]) -> Found {
        self.late.get(&path.join(".")).map_or(Found::Late, |value| Found::Value(value.clone()))
    }

    /// References of the same shape that exist, for "did you mean".
    fn known_like(self, path: &[String]) -> Vec<String> {
        let mut known = Vec::new();
        let world = self.world;
        known.extend(self.bindings.keys().cloned());
        match self.component.and_then(|name| world.components.get(name)) {
            Some(frame) => {
                known.extend(frame.parameters.keys().cloned());
                known.extend(["component.name", "component.namespace"].map(str::to_owned));
                for variable in frame.images.keys() {
                    known.extend(["ref", "version", "manifests"].map(|field| format!("images.{variable}.{field}")));
                }
                for (name, keys) in &frame.credentials {
                    let bases = match keys {
                        None => vec![format!("credentials.{name}")],
                        Some(keys) => keys.iter().map(|key| format!("credentials.{name}.{key}")).collect(),
                    };
                    for base in bases {
                        known.extend([format!("{base}.username"), format!("{base}.password"), base]);
                    }
                }
            }
            None => known.extend(world.parameters.keys().cloned()),
        }
        for (name, frame) in &world.components {
            known.extend(frame.outputs.keys().map(|output| format!("{name}.{output}")));
        }
        for route in &world.routes {
            known.extend(["url", "host", "hosts"].map(|field| format!("routes.{route}.{field}")));
        }
        for bucket in world.content.keys() {
            known.extend(["key", "path", "size", "sha256"].map(|field| format!("content.{bucket}.{field}")));
        }
        known.extend(["environment.name", "network.pool", "cluster.nodes", "cluster.kubernetes"].map(str::to_owned));
        if let Some(Value::Object(facts)) = &world.facts {
            known.extend(facts.keys().map(|fact| format!("facts.{fact}")));
        }
        // A list is shown only where it is short: the names below the same head.
        let head = format!("{}.", path.first().map(String::as_str).unwrap_or_default());
        let below: Vec<_> = known.iter().filter(|name| name.starts_with(&head)).cloned().collect();
        if path.len() > 1 && !below.is_empty() { below } else { known }
    }
}

fn fields_of_a_pair(path: &[String]) -> bool {
    match path {
        [] => true,
        [field] => matches!(&**field, "username" | "password"),
        _ => false,
    }
}

fn dig(value: &Value, path: &[String]) -> Found {
    let mut value = value;
    for segment in path {
        match child(value, segment) {
            Some(inner) => value = inner,
            None => return Found::Missing,
        }
    }
    Found::Value(value.clone())
}

/// The cluster as references see it.
pub(super) fn cluster_value(nodes: u8, kubernetes: &str) -> Value {
    json!({"nodes": nodes, "kubernetes": kubernetes})
}
