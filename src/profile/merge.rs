//! A profile file with the ones it extends, every part with the place it was written.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::step_ids;
use crate::yaml::YamlError;

use super::error::ProfileError;
use super::parameter::{check_definition, unknown};
use super::schema::{Parameter, ProfileFile, Route, Verify};
use super::source::{Library, Origin, Place, ProfileSource, SourceFile, builtin_names, is_name};

/// How many profiles may extend one another.
const MAX_CHAIN: usize = 8;

/// Something, where it was written, and the directory of that file.
#[derive(Debug, Clone)]
pub(super) struct Written<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
    pub(super) place: Place,
}

/// A profile, extensions applied.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) name: String,
    name_origin: Option<Origin>,
    pub(super) summary: String,
    pub(super) parameters: BTreeMap<String, Written<Parameter>>,
    pub(super) nodes: Option<Written<Value>>,
    pub(super) kubernetes: Option<Written<String>>,
    pub(super) node_labels: BTreeMap<u8, Written<BTreeMap<String, String>>>,
    pub(super) components: Vec<MergedUse>,
    pub(super) routes: Vec<Written<Route>>,
    pub(super) verify: Vec<Written<Verify>>,
    /// The directories to look for components in, that of the outermost file first.
    pub(super) places: Vec<Place>,
}

/// One use of a component.
#[derive(Debug)]
pub(super) struct MergedUse {
    pub(super) component: String,
    pub(super) instance: String,
    pub(super) when: Option<Written<Value>>,
    pub(super) with: BTreeMap<String, Written<Value>>,
    pub(super) origin: Origin,
}

/// Reads a profile and what it extends.
pub(super) fn read(
    library: &Library<'_>,
    source: &ProfileSource,
    problems: &mut Vec<YamlError>,
) -> Result<Merged, ProfileError> {
    let (file, place) = library.profile(source)?;
    let parsed: ProfileFile = file.to_type()?;
    let mut chain = vec![(parsed, file, place)];
    while let Some((parsed, file, place)) = chain.last() {
        let Some(base) = parsed.extends.clone() else { break };
        let origin = file.origin(&["extends"]);
        if chain.len() >= MAX_CHAIN {
            return Err(origin.problem(format!("more than {MAX_CHAIN} profiles extend one another")).into());
        }
        let names = || unknown("profile", &base, builtin_names().iter().map(String::as_str));
        let (file, place) = library.extended(&base, place)?.ok_or_else(|| origin.problem(names()))?;
        let parsed: ProfileFile = file.to_type()?;
        chain.push((parsed, file, place));
    }
    let mut merged: Option<Merged> = None;
    for (parsed, file, place) in chain.into_iter().rev() {
        match &mut merged {
            None => merged = Some(first(parsed, &file, place)),
            Some(merged) => merged.extend(parsed, &file, place),
        }
    }
    // The chain holds at least the file itself.
    let merged = merged.ok_or_else(|| ProfileError::unknown("", builtin_names()))?;
    merged.check_names(problems);
    Ok(merged)
}

fn first(parsed: ProfileFile, file: &SourceFile, place: Place) -> Merged {
    let mut merged = Merged {
        name: String::new(),
        name_origin: None,
        summary: String::new(),
        parameters: BTreeMap::new(),
        nodes: None,
        kubernetes: None,
        node_labels: BTreeMap::new(),
        components: Vec::new(),
        routes: Vec::new(),
        verify: Vec::new(),
        places: Vec::new(),
    };
    merged.extend(parsed, file, place);
    merged
}

impl Merged {
    fn extend(&mut self, parsed: ProfileFile, file: &SourceFile, place: Place) {
        fn written<T>(value: T, file: &SourceFile, path: &[&str], place: &Place) -> Written<T> {
            Written { value, origin: file.origin(path), place: place.clone() }
        }
        self.name = parsed.name;
        if !parsed.summary.is_empty() {
            self.summary = parsed.summary;
        }
        for (name, parameter) in parsed.parameters {
            let new = written(parameter, file, &["parameters", &name], &place);
            let merged = match self.parameters.remove(&name) {
                None => new,
                Some(old) => Written { value: override_parameter(old.value, new.value), ..new },
            };
            self.parameters.insert(name, merged);
        }
        if let Some(nodes) = parsed.cluster.nodes {
            self.nodes = Some(written(nodes, file, &["cluster", "nodes"], &place));
        }
        if let Some(kubernetes) = parsed.cluster.kubernetes {
            self.kubernetes = Some(written(kubernetes, file, &["cluster", "kubernetes"], &place));
        }
        for (node, labels) in parsed.cluster.node_labels {
            let mut new = written(labels, file, &["cluster", "nodeLabels", &node.to_string()], &place);
            if let Some(mut old) = self.node_labels.remove(&node) {
                old.value.append(&mut new.value);
                new.value = old.value;
            }
            self.node_labels.insert(node, new);
        }
        let inherited = self.components.len();
        for (index, used) in parsed.components.into_iter().enumerate() {
            let index = index.to_string();
            let origin = file.origin(&["components", &index]);
            let instance = used.instance.unwrap_or_else(|| used.component.clone());
            let when = used.when.map(|when| written(when, file, &["components", &index, "when"], &place));
            let with = used.with.into_iter().map(|(key, value)| {
                let value = written(value, file, &["components", &index, "with", &key], &place);
                (key, value)
            });
            match self.components[..inherited].iter_mut().find(|known| known.instance == instance) {
                Some(known) if known.component == used.component => {
                    known.when = when.or(known.when.take());
                    known.with.extend(with);
                    known.origin = origin;
                }
                _ => self.components.push(MergedUse {
                    component: used.component,
                    instance,
                    when,
                    with: with.collect(),
                    origin,
                }),
            }
        }
        let inherited = self.routes.len();
        for (index, route) in parsed.routes.into_iter().enumerate() {
            let route = written(route, file, &["routes", &index.to_string()], &place);
            match self.routes[..inherited].iter_mut().find(|known| known.value.name == route.value.name) {
                Some(known) => *known = route,
                None => self.routes.push(route),
            }
        }
        for (index, verify) in parsed.verify.into_iter().enumerate() {
            self.verify.push(written(verify, file, &["verify", &index.to_string()], &place));
        }
        self.places.insert(0, place);
        self.places.dedup();
        self.name_origin = Some(file.origin(&["name"]));
    }

    fn check_names(&self, problems: &mut Vec<YamlError>) {
        if let Some(origin) = self.name_origin.as_ref().filter(|_| !is_name(&self.name)) {
            problems.push(origin.problem(format!("`{}` is no name: lower-case letters, digits and dashes", self.name)));
        }
        for (name, parameter) in &self.parameters {
            let mut mistakes = Vec::new();
            check_definition(&parameter.value, &mut Vec::new(), &mut mistakes);
            problems.extend(mistakes.into_iter().map(|(path, message)| parameter.origin.below(&path).problem(message)));
            if !is_parameter_name(name) {
                problems.push(parameter.origin.key_problem(format!("`{name}` is no name: letters, digits, - and _")));
            } else if RESERVED.contains(&&**name) || self.components.iter().any(|used| used.instance == *name) {
                problems.push(
                    parameter.origin.key_problem(format!(
                        "a parameter cannot be called `{name}`: ${{{name}…}} means something else"
                    )),
                );
            }
        }
        for (index, used) in self.components.iter().enumerate() {
            if !is_name(&used.instance) {
                let at = used.origin.below(&["as"]);
                problems
                    .push(at.problem(format!("`{}` is no name: lower-case letters, digits and dashes", used.instance)));
            } else if RESERVED.contains(&&*used.instance) {
                problems.push(used.origin.problem(format!("a component cannot be called `{}`", used.instance)));
            } else if step_ids::ALL.contains(&&*used.instance) {
                // What a component is called by default stands in `use`.
                let key = if used.instance == used.component { "use" } else { "as" };
                let message = format!(
                    "a component cannot be called `{}`, which is a step of devstack's own; give it another name with `as`",
                    used.instance
                );
                problems.push(used.origin.below(&[key]).problem(message));
            } else if self.components[..index].iter().any(|other| other.instance == used.instance) {
                let message =
                    format!("the component `{}` is used twice; give one of them a name with `as`", used.instance);
                problems.push(used.origin.problem(message));
            }
        }
        for (index, route) in self.routes.iter().enumerate() {
            let name = &route.value.name;
            if !is_name(name) {
                let at = route.origin.below(&["name"]);
                problems.push(at.problem(format!("`{name}` is no name: lower-case letters, digits and dashes")));
            } else if self.routes[..index].iter().any(|other| other.value.name == *name) {
                problems.push(route.origin.problem(format!("the route `{name}` is there twice")));
            }
        }
    }
}

/// Heads of references that are devstack's own.
const RESERVED: &[&str] = &[
    "cluster",
    "component",
    "content",
    "credentials",
    "environment",
    "facts",
    "images",
    "network",
    "routes",
    "services",
];

fn is_parameter_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The parameter of an extended profile with what the extending one says about it.
fn override_parameter(old: Parameter, new: Parameter) -> Parameter {
    Parameter {
        kind: new.kind.or(old.kind),
        default: new.default.or(old.default),
        optional: new.optional || old.optional,
        help: new.help.or(old.help),
        min: new.min.or(old.min),
        max: new.max.or(old.max),
        values: new.values.or(old.values),
        pattern: new.pattern.or(old.pattern),
        items: new.items.or(old.items),
        fields: new.fields.or(old.fields),
    }
}
