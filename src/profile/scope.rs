//! Values that exist only after a step ran, and substitution against them.

use serde_json::{Map, Value};

use super::template::{self, Piece, Reference, Segment};

/// Late values by path, filled as steps end. Its top level is:
///
/// | path | value |
/// |---|---|
/// | `environment.name` | the environment's name |
/// | `network.pool` | addresses MetalLB may give away, such as `172.18.255.200-172.18.255.250` |
/// | `images.ROLE` | `{ref, version, manifests}` of the role's chosen release |
/// | `credentials.COMPONENT.NAME[.KEY]` | `{username, password}`, as in [`super::ResolvedComponent::credentials`] |
/// | `routes.NAME` | `{url, host, hosts}` |
/// | `content.BUCKET.sha256` | of the object that the route proves |
/// | `services.NAMESPACE.NAME.address` | the LoadBalancer address of a Service that a component waits for |
#[derive(Clone, Default)]
pub struct Scope(Map<String, Value>);

impl Scope {
    /// A scope without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value at a dotted path, making the objects above it.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let mut segments = path.split('.').peekable();
        let mut fields = &mut self.0;
        while let Some(segment) = segments.next() {
            if segments.peek().is_none() {
                fields.insert(segment.to_owned(), value.into());
                return;
            }
            let slot = fields.entry(segment).or_insert_with(|| Value::Object(Map::new()));
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            let Value::Object(inner) = slot else { return };
            fields = inner;
        }
    }

    /// The value at a dotted path.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let mut segments = path.split('.');
        let mut value = self.0.get(segments.next()?)?;
        for segment in segments {
            value = child(value, segment)?;
        }
        Some(value)
    }
}

/// Shows names only: values may be secrets.
impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A field of an object or an item of a list.
pub(super) fn child<'a>(value: &'a Value, segment: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(segment),
        Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Why a value cannot be substituted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubstituteError {
    /// A `${` that is no reference.
    #[error("{message}")]
    Syntax {
        /// What is wrong.
        message: String,
        /// Where in the value: keys and indices.
        path: Vec<String>,
    },
    /// A reference to nothing.
    #[error("unknown reference ${{{reference}}}{}", suggest(.reference, .known))]
    Unknown {
        /// As written.
        reference: String,
        /// References that exist in its place.
        known: Vec<String>,
        /// Where in the value.
        path: Vec<String>,
    },
    /// A reference to what is known only after a step that has not run.
    #[error("${{{reference}}} is not known yet")]
    Late {
        /// As written.
        reference: String,
        /// Where in the value.
        path: Vec<String>,
    },
    /// The address of a Service that nothing waits for, so that it would never be known.
    #[error("${{{reference}}} is never known: no component has the Service {service} as `service-address` in `ready`")]
    NoAddress {
        /// As written.
        reference: String,
        /// The Service, as `namespace/name`.
        service: String,
        /// Where in the value.
        path: Vec<String>,
    },
    /// A list or mapping inside a longer text.
    #[error("${{{reference}}} is {what} and cannot be part of a text")]
    NotScalar {
        /// As written.
        reference: String,
        /// `a list`, `a mapping` or `nothing`.
        what: &'static str,
        /// Where in the value.
        path: Vec<String>,
    },
    /// A value that refers to itself.
    #[error("${{{reference}}} refers to itself")]
    Cycle {
        /// As written.
        reference: String,
        /// Where in the value.
        path: Vec<String>,
    },
}

impl SubstituteError {
    /// Where in the substituted value: keys and indices.
    pub fn path(&self) -> &[String] {
        match self {
            Self::Syntax { path, .. }
            | Self::Unknown { path, .. }
            | Self::Late { path, .. }
            | Self::NoAddress { path, .. }
            | Self::NotScalar { path, .. }
            | Self::Cycle { path, .. } => path,
        }
    }

    pub(super) fn with_path(mut self, new: &[String]) -> Self {
        match &mut self {
            Self::Syntax { path, .. }
            | Self::Unknown { path, .. }
            | Self::Late { path, .. }
            | Self::NoAddress { path, .. }
            | Self::NotScalar { path, .. }
            | Self::Cycle { path, .. } => new.clone_into(path),
        }
        self
    }
}

fn suggest(reference: &str, known: &[String]) -> String {
    match crate::yaml::did_you_mean(reference, known.iter().map(String::as_str)) {
        Some(meant) => format!(", did you mean ${{{meant}}}?"),
        // A list helps where it is of names in the same place.
        None => match reference.split_once('.') {
            Some((head, _)) if !known.is_empty() && known.iter().all(|name| name.split('.').next() == Some(head)) => {
                format!(" (known: {})", known.join(", "))
            }
            _ => String::new(),
        },
    }
}

/// What a reference leads to.
pub(super) enum Found {
    /// A value.
    Value(Value),
    /// Something that exists only later.
    Late,
    /// A key that is not there, below a value that is.
    Missing,
}

/// Substitutes with a way to look references up. Late references stay as written when `lenient`, and literal `${` then
/// stay escaped, so that the result is still a template.
pub(super) fn walk(
    value: &Value,
    lenient: bool,
    path: &mut Vec<String>,
    look_up: &dyn Fn(&Reference) -> Result<Found, SubstituteError>,
) -> Result<Value, SubstituteError> {
    match value {
        Value::String(text) if text.contains("${") => text_of(text, lenient, path, look_up),
        Value::Array(items) => {
            let mut made = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                made.push(walk(item, lenient, path, look_up)?);
                path.pop();
            }
            Ok(Value::Array(made))
        }
        Value::Object(fields) => {
            let mut made = Map::with_capacity(fields.len());
            for (key, field) in fields {
                path.push(key.clone());
                made.insert(key.clone(), walk(field, lenient, path, look_up)?);
                path.pop();
            }
            Ok(Value::Object(made))
        }
        other => Ok(other.clone()),
    }
}

fn text_of(
    text: &str,
    lenient: bool,
    path: &[String],
    look_up: &dyn Fn(&Reference) -> Result<Found, SubstituteError>,
) -> Result<Value, SubstituteError> {
    let at = || path.to_vec();
    let pieces = template::parse(text).map_err(|message| SubstituteError::Syntax { message, path: at() })?;
    let whole = pieces.len() == 1;
    let mut made = String::with_capacity(text.len());
    for piece in pieces {
        let reference = match piece {
            Piece::Text(plain) => {
                made.push_str(&if lenient { escape(&plain) } else { plain });
                continue;
            }
            Piece::Reference(reference) => reference,
        };
        let value = match look_up(&reference).map_err(|error| error.with_path(path))? {
            Found::Value(value) => value,
            Found::Late if lenient => {
                made.push_str(&format!("${{{}}}", reference.text));
                continue;
            }
            Found::Late => return Err(SubstituteError::Late { reference: reference.text, path: at() }),
            Found::Missing => {
                return Err(SubstituteError::Unknown { reference: reference.text, known: Vec::new(), path: at() });
            }
        };
        if whole {
            return Ok(if lenient { escape_all(value) } else { value });
        }
        match value {
            Value::String(plain) => made.push_str(&if lenient { escape(&plain) } else { plain }),
            Value::Bool(value) => made.push_str(&value.to_string()),
            Value::Number(number) => made.push_str(&number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                let what = match value {
                    Value::Array(_) => "a list",
                    Value::Object(_) => "a mapping",
                    _ => "nothing",
                };
                return Err(SubstituteError::NotScalar { reference: reference.text, what, path: at() });
            }
        }
    }
    Ok(Value::String(made))
}

fn escape(text: &str) -> String {
    let text = text.replace("${", "$${");
    // What follows may begin with a `{`, or be a reference, that this would join.
    match text.strip_suffix('$') {
        Some(rest) => format!("{rest}{}", template::DOLLAR),
        None => text,
    }
}

fn escape_all(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(escape(&text)),
        Value::Array(items) => items.into_iter().map(escape_all).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, field)| (key, escape_all(field))).collect(),
        other => other,
    }
}

/// The dotted names of a reference, inner references resolved; `None` where one of those is late.
pub(super) fn names(
    reference: &Reference,
    look_up: &dyn Fn(&Reference) -> Result<Found, SubstituteError>,
) -> Result<Option<Vec<String>>, SubstituteError> {
    let mut names = Vec::with_capacity(reference.segments.len());
    for segment in &reference.segments {
        names.push(match segment {
            Segment::Name(name) => name.clone(),
            Segment::Index(inner) => match look_up(inner)? {
                Found::Value(Value::String(name)) => name,
                Found::Value(Value::Number(number)) => number.to_string(),
                Found::Late => return Ok(None),
                Found::Value(_) | Found::Missing => {
                    return Err(SubstituteError::Unknown {
                        reference: inner.text.clone(),
                        known: Vec::new(),
                        path: Vec::new(),
                    });
                }
            },
        });
    }
    Ok(Some(names))
}

/// Substitutes every reference of a value from a scope alone; what the scope does not hold is [`SubstituteError::Late`].
pub fn substitute(value: &Value, scope: &Scope) -> Result<Value, SubstituteError> {
    fn find(scope: &Scope, reference: &Reference) -> Result<Found, SubstituteError> {
        let names = names(reference, &|inner| find(scope, inner))?;
        Ok(match names.and_then(|names| scope.get(&names.join(".")).cloned()) {
            Some(value) => Found::Value(value),
            None => Found::Late,
        })
    }
    walk(value, false, &mut Vec::new(), &|reference| find(scope, reference))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> Scope {
        let mut scope = Scope::new();
        scope.set("a.port", 80);
        scope.set("a.on", true);
        scope.set("a.list", json!([1, "two"]));
        scope.set("a.name", "port");
        scope.set("evil", "${a.port}");
        scope
    }

    #[test]
    fn a_lone_reference_keeps_its_type() {
        let cases = [
            (json!("${a.port}"), json!(80)),
            (json!("p${a.port}${a.on}"), json!("p80true")),
            (json!(["${a.list}", {"k": "${a.list.1}"}]), json!([[1, "two"], {"k": "two"}])),
            (json!("${a[a.name]}"), json!(80)),
            (json!("$${a.port}"), json!("${a.port}")),
            (json!("${evil} ${evil}"), json!("${a.port} ${a.port}")),
            (json!({"${a.port}": 1}), json!({"${a.port}": 1})),
        ];
        for (template, want) in cases {
            assert_eq!(substitute(&template, &scope()), Ok(want), "{template}");
        }
    }

    #[test]
    fn what_cannot_be_substituted_says_why_and_where() {
        let cases = [
            (json!({"x": ["${b.c}"]}), "${b.c} is not known yet", vec!["x", "0"]),
            (json!("x${a.list}"), "${a.list} is a list and cannot be part of a text", vec![]),
            (json!("${a"), "`${a` is not closed by a }", vec![]),
        ];
        for (template, message, path) in cases {
            let error = substitute(&template, &scope()).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert_eq!(error.path(), path);
        }
    }

    #[test]
    fn lenient_results_are_still_templates() {
        let late = |_: &Reference| Ok(Found::Late);
        let half = walk(&json!("$${x} ${y}"), true, &mut Vec::new(), &late).unwrap();
        assert_eq!(half, json!("$${x} ${y}"));
        let known = |_: &Reference| Ok(Found::Value(json!("${x}")));
        assert_eq!(walk(&json!("${y}"), true, &mut Vec::new(), &known).unwrap(), json!("$${x}"));
        // A value stays a value, whatever it would make together with its neighbours.
        let some = |reference: &Reference| match reference.text.as_str() {
            "cost" => Ok(Found::Value(json!("US$"))),
            _ => Ok(Found::Late),
        };
        let half = walk(&json!(["${cost}${a.port}", "${cost}{a.port}"]), true, &mut Vec::new(), &some).unwrap();
        assert_eq!(substitute(&half, &scope()), Ok(json!(["US$80", "US${a.port}"])));
    }

    #[test]
    fn debug_shows_no_values() {
        let mut scope = Scope::new();
        scope.set("credentials.minio.root.password", "hunter2hunter2");
        assert_eq!(format!("{scope:?}"), r#"{"credentials"}"#);
    }
}
