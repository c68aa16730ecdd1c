//! Parameters: types, checks, and `--set`.

use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Map, Value};

use crate::assets;
use crate::yaml::{self, did_you_mean};

use super::schema::{Parameter, ParameterType};

/// Cuts a `--set NAME=VALUE` or `--set COMPONENT.NAME=VALUE` at its first `=`.
///
/// # Errors
/// What is wrong, as a fragment.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not NAME=VALUE")),
    }
}

/// Where relative paths begin: the working directory for `--set`, the profile's own directory in files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Base<'a> {
    /// A directory on the host.
    Dir(&'a Path),
    /// Inside the binary, where only `builtin:` paths exist.
    Binary,
}

/// A mistake in a value: where below it (keys and indices), and what.
pub(super) type Mistake = (Vec<String>, String);

/// Whether a parameter's own definition makes sense.
pub(super) fn check_definition(parameter: &Parameter, path: &mut Vec<String>, mistakes: &mut Vec<Mistake>) {
    let kind = parameter.kind;
    let mut only_for = |given: bool, key: &str, fits: bool, what: &str| {
        if given && !fits {
            let mut at = path.clone();
            at.push(key.to_owned());
            mistakes.push((at, format!("`{key}` is only for {what}")));
        }
    };
    let is = |kinds: &[ParameterType]| kind.is_some_and(|kind| kinds.contains(&kind));
    only_for(parameter.min.is_some(), "min", is(&[ParameterType::Integer]), "integers");
    only_for(parameter.max.is_some(), "max", is(&[ParameterType::Integer]), "integers");
    only_for(parameter.items.is_some(), "items", is(&[ParameterType::List]), "lists");
    let with_fields = [ParameterType::Object, ParameterType::Secret];
    only_for(parameter.fields.is_some(), "fields", is(&with_fields), "objects and secrets");
    let texts = [ParameterType::String, ParameterType::Hostname, ParameterType::Secret];
    only_for(parameter.pattern.is_some(), "pattern", is(&texts), "texts");
    if let Some(Err(error)) = parameter.pattern.as_deref().map(whole) {
        let reason = error.to_string().lines().last().unwrap_or_default().to_owned();
        mistakes
            .push(([path.as_slice(), &["pattern".to_owned()]].concat(), format!("not a regular expression: {reason}")));
    }
    if kind.is_none() {
        mistakes.push((path.clone(), "the key `type` is missing".to_owned()));
    }
    for (key, inner) in parameter
        .items
        .iter()
        .map(|items| ("items", &**items))
        .chain(parameter.fields.iter().flatten().map(|(key, field)| (key.as_str(), field)))
    {
        let depth = path.len();
        if key != "items" || parameter.items.is_none() {
            path.push("fields".to_owned());
        }
        path.push(key.to_owned());
        check_definition(inner, path, mistakes);
        path.truncate(depth);
    }
}

fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!("^(?:{pattern})$"))
}

/// Reads a `--set` value as the parameter's type.
pub(super) fn from_text(parameter: &Parameter, text: &str) -> Result<Value, String> {
    match parameter.kind.unwrap_or(ParameterType::String) {
        ParameterType::Integer => {
            text.trim().parse::<i64>().map(Value::from).map_err(|_| format!("expected a whole number, found `{text}`"))
        }
        ParameterType::Boolean => match text.trim() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("expected true or false, found `{text}`")),
        },
        ParameterType::List | ParameterType::Object => {
            yaml::parse_value("value", text).map(|marked| marked.to_value()).map_err(|error| error.message)
        }
        ParameterType::String | ParameterType::Path | ParameterType::Hostname | ParameterType::Secret => {
            Ok(Value::String(text.to_owned()))
        }
    }
}

/// A `--set` value as it means the same in any working directory: its relative paths made absolute, all else as given.
pub(super) fn anchored(parameter: &Parameter, text: &str, cwd: &Path) -> String {
    let Ok(given) = from_text(parameter, text) else { return text.to_owned() };
    let mut value = given.clone();
    anchor(parameter, &mut value, cwd);
    match value {
        Value::String(path) => path,
        same if same == given => text.to_owned(),
        other => other.to_string(),
    }
}

/// Makes the relative paths in a value absolute.
fn anchor(parameter: &Parameter, value: &mut Value, cwd: &Path) {
    match (parameter.kind, value) {
        (Some(ParameterType::Path), Value::String(text)) => {
            if let Ok(path) = resolve_path(text, Base::Dir(cwd)) {
                *text = path;
            }
        }
        (_, Value::Array(items)) => {
            if let Some(inner) = &parameter.items {
                items.iter_mut().for_each(|item| anchor(inner, item, cwd));
            }
        }
        (_, Value::Object(fields)) => {
            for (key, inner) in parameter.fields.iter().flatten() {
                if let Some(field) = fields.get_mut(key) {
                    anchor(inner, field, cwd);
                }
            }
        }
        _ => {}
    }
}

/// Checks a value against its parameter and gives it in its final form: paths absolute, defaults of fields filled in.
///
/// With `template`, texts that hold `${` are references to what is known later and are left alone.
pub(super) fn check(
    parameter: &Parameter,
    value: &Value,
    base: Base<'_>,
    template: bool,
    path: &mut Vec<String>,
    mistakes: &mut Vec<Mistake>,
) -> Value {
    if template && value.as_str().is_some_and(|text| text.contains("${")) {
        return value.clone();
    }
    let before = mistakes.len();
    let mut wrong = |message: String| mistakes.push((path.clone(), message));
    let kind = parameter.kind.unwrap_or(ParameterType::String);
    let mut made = value.clone();
    match (kind, value) {
        (ParameterType::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {
            let number = number.as_i64().unwrap_or(i64::MAX);
            match (parameter.min, parameter.max) {
                (Some(min), Some(max)) if number < min || number > max => {
                    wrong(format!("expected a whole number from {min} to {max}, found {number}"));
                }
                (Some(min), _) if number < min => wrong(format!("expected at least {min}, found {number}")),
                (_, Some(max)) if number > max => wrong(format!("expected at most {max}, found {number}")),
                _ => {}
            }
        }
        (ParameterType::Boolean, Value::Bool(_)) | (ParameterType::String, Value::String(_)) => {}
        (ParameterType::Secret, Value::String(_)) if parameter.fields.is_none() => {}
        (ParameterType::Path, Value::String(text)) => match resolve_path(text, base) {
            Ok(text) => made = Value::String(text),
            Err(message) => wrong(message),
        },
        (ParameterType::Hostname, Value::String(text)) => {
            if !is_hostname(text) {
                wrong(format!("`{text}` is no host name: lower-case letters, digits, dashes and dots"));
            }
        }
        (ParameterType::List, Value::Array(items)) => {
            if let Some(inner) = &parameter.items {
                made = below(items.iter().enumerate().map(|(i, item)| (i.to_string(), item)), path, |item, path| {
                    check(inner, item, base, template, path, mistakes)
                })
                .map(|(_, item)| item)
                .collect();
            }
        }
        (ParameterType::Object | ParameterType::Secret, Value::Object(fields)) => {
            if let Some(known) = &parameter.fields {
                made = check_fields(known, fields, base, template, path, mistakes);
            }
        }
        (kind, found) => {
            let found = if kind == ParameterType::Secret { kind_of(found) } else { shown(found) };
            let expected = if parameter.fields.is_some() { "a mapping" } else { words(kind) };
            wrong(format!("expected {expected}, found {found}"));
        }
    }
    if mistakes.len() > before {
        return made;
    }
    if let (Some(pattern), Some(text)) = (&parameter.pattern, value.as_str())
        && whole(pattern).is_ok_and(|pattern| !pattern.is_match(text))
    {
        let text = if kind == ParameterType::Secret { "the value" } else { text };
        mistakes.push((path.clone(), format!("`{text}` does not match {pattern}")));
    }
    if let Some(values) = parameter.values.as_ref().filter(|values| !values.contains(value)) {
        let message = if kind == ParameterType::Secret {
            "expected one of the values of its `enum`, found another one".to_owned()
        } else {
            let known: Vec<_> = values.iter().map(shown).collect();
            format!("expected one of {}, found {}", known.join(", "), shown(value))
        };
        mistakes.push((path.clone(), message));
    }
    made
}

/// Applies a function to each child with the path extended.
fn below<'v>(
    children: impl Iterator<Item = (String, &'v Value)>,
    path: &mut Vec<String>,
    mut each: impl FnMut(&'v Value, &mut Vec<String>) -> Value,
) -> impl Iterator<Item = (String, Value)> {
    let mut made = Vec::new();
    for (key, child) in children {
        path.push(key.clone());
        made.push((key, each(child, path)));
        path.pop();
    }
    made.into_iter()
}

fn check_fields(
    known: &std::collections::BTreeMap<String, Parameter>,
    fields: &Map<String, Value>,
    base: Base<'_>,
    template: bool,
    path: &mut Vec<String>,
    mistakes: &mut Vec<Mistake>,
) -> Value {
    for key in fields.keys().filter(|key| !known.contains_key(*key)) {
        path.push(key.clone());
        mistakes.push((path.clone(), unknown("key", key, known.keys().map(String::as_str))));
        path.pop();
    }
    let mut made = Map::new();
    for (key, parameter) in known {
        path.push(key.clone());
        match fields.get(key).filter(|value| !value.is_null()).or(parameter.default.as_ref()) {
            Some(value) => {
                made.insert(key.clone(), check(parameter, value, base, template, path, mistakes));
            }
            None if parameter.optional => {}
            None => mistakes.push((path[..path.len() - 1].to_vec(), format!("the key `{key}` is missing"))),
        }
        path.pop();
    }
    Value::Object(made)
}

/// `unknown WHAT `name`` with what was probably meant.
pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    match did_you_mean(name, known.iter().copied()) {
        Some(meant) => format!("unknown {what} `{name}`, did you mean `{meant}`?"),
        None if known.is_empty() => format!("unknown {what} `{name}` (there are none)"),
        None => format!("unknown {what} `{name}` (known: {})", known.join(", ")),
    }
}

fn words(kind: ParameterType) -> &'static str {
    match kind {
        ParameterType::String => "text",
        ParameterType::Integer => "a whole number",
        ParameterType::Boolean => "true or false",
        ParameterType::Path => "a path",
        ParameterType::Hostname => "a host name",
        ParameterType::Secret => "a secret",
        ParameterType::List => "a list",
        ParameterType::Object => "a mapping",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) | Value::Null => kind_of(value),
        Value::String(text) => format!("`{text}`"),
        scalar => format!("`{scalar}`"),
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
    .to_owned()
}

/// RFC 1123 labels joined by dots.
fn is_hostname(text: &str) -> bool {
    text.len() <= 200 && text.split('.').all(super::source::is_name)
}

fn resolve_path(text: &str, base: Base<'_>) -> Result<String, String> {
    if let Some(name) = text.strip_prefix("builtin:") {
        return match assets::PROFILES.get_file(Path::new("content").join(name)) {
            Some(_) => Ok(text.to_owned()),
            None => Err(format!("devstack has no built-in file `{name}`")),
        };
    }
    if text.is_empty() {
        return Err("expected a path, found nothing".to_owned());
    }
    let path = match base {
        Base::Dir(dir) => dir.join(text),
        Base::Binary if Path::new(text).is_absolute() => PathBuf::from(text),
        Base::Binary => return Err(format!("a built-in profile cannot refer to the relative path `{text}`")),
    };
    let path = std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() || metadata.is_dir() => {
            path.into_os_string().into_string().map_err(|path| format!("{} is not UTF-8", path.to_string_lossy()))
        }
        Ok(_) => Err(format!("{} is neither a file nor a directory", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!("{} does not exist", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_in_lists_and_mappings_are_made_absolute_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        let buckets: Parameter = serde_json::from_value(json!({
            "type": "list",
            "items": {"type": "object", "fields": {"name": {"type": "string"}, "content": {"type": "path"}}},
        }))
        .unwrap();
        let anchored = |text: &str| anchored(&buckets, text, dir.path());
        let path = dir.path().join("a");
        assert_eq!(
            serde_json::from_str::<Value>(&anchored("[{name: a, content: a}]")).unwrap(),
            json!([{"name": "a", "content": path}])
        );
        assert_eq!(
            anchored("[{name: a, content: \"builtin:site.gif\"}]"),
            "[{name: a, content: \"builtin:site.gif\"}]"
        );
    }
}
