//! `when`: `true`, `"${x}"`, `"!${x}"`, `"${x} == y"`, `"${x} != y"`; and the rounds of `for`.

use serde_json::Value;

use super::schema::Loop;
use super::scope::{Found, SubstituteError};
use super::template::{self, Piece};
use super::world::{Bindings, Env};

/// Whether a condition holds; `None` where that is known only later. A key that is absent counts as false.
pub(super) fn holds(when: Option<&Value>, env: Env<'_>) -> Result<Option<bool>, SubstituteError> {
    let text = match when {
        None | Some(Value::Null) => return Ok(Some(true)),
        Some(Value::Bool(value)) => return Ok(Some(*value)),
        Some(Value::String(text)) => text.trim(),
        Some(_) => return Err(not_a_condition()),
    };
    for (operator, equal) in [("==", true), ("!=", false)] {
        if let Some((left, right)) = text.split_once(operator) {
            let (left, right) = (side(left, env)?, side(right, env)?);
            return Ok(left.zip(right).map(|(left, right)| (left == right) == equal));
        }
    }
    let (text, negated) = match text.strip_prefix('!') {
        Some(rest) => (rest.trim(), true),
        None => (text, false),
    };
    let pieces = template::parse(text).map_err(|message| SubstituteError::Syntax { message, path: Vec::new() })?;
    let [Piece::Reference(reference)] = pieces.as_slice() else { return Err(not_a_condition()) };
    Ok(match env.find(reference)? {
        Found::Late => None,
        Found::Missing => Some(negated),
        Found::Value(value) => Some(is_true(&value) != negated),
    })
}

fn not_a_condition() -> SubstituteError {
    SubstituteError::Syntax {
        message: "a condition is true, false, ${x}, !${x}, ${x} == y or ${x} != y".to_owned(),
        path: Vec::new(),
    }
}

/// One side of a comparison as text.
fn side(text: &str, env: Env<'_>) -> Result<Option<String>, SubstituteError> {
    let text = text.trim();
    let value = env.known(&Value::String(text.to_owned()))?;
    Ok(value.map(|value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    }))
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && text != "false",
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// The bindings of every round of nested loops; one round without loops. A list that is late is gone through once with
/// its name bound to nothing, when `lenient`, so that references can still be checked.
pub(super) fn rounds(loops: &[Loop], env: Env<'_>, lenient: bool) -> Result<Vec<Bindings>, SubstituteError> {
    let mut all = vec![env.bindings.clone()];
    for (index, one) in loops.iter().enumerate() {
        let (Some((name, list)), 1) = (one.first_key_value(), one.len()) else {
            return Err(SubstituteError::Syntax {
                message: "a loop is one name and its list, such as {bucket: \"${buckets}\"}".to_owned(),
                path: vec![index.to_string()],
            });
        };
        let path = || vec![index.to_string(), name.clone()];
        let mut next = Vec::new();
        for bindings in all {
            let inner = Env { bindings: &bindings, ..env };
            for item in items(list, inner, lenient).map_err(|error| error.with_path(&path()))? {
                let mut bindings = bindings.clone();
                bindings.insert(name.clone(), item);
                next.push(bindings);
            }
        }
        all = next;
    }
    Ok(all)
}

fn items(list: &Value, env: Env<'_>, lenient: bool) -> Result<Vec<Option<Value>>, SubstituteError> {
    let not_a_list = || SubstituteError::Syntax { message: "`for` goes through a list".to_owned(), path: Vec::new() };
    let value = match list {
        Value::String(text) => {
            let pieces = template::parse(text).unwrap_or_default();
            let [Piece::Reference(reference)] = pieces.as_slice() else { return Err(not_a_list()) };
            match env.find(reference)? {
                Found::Value(value) => value,
                Found::Missing => return Ok(Vec::new()),
                Found::Late if lenient => return Ok(vec![None]),
                Found::Late => {
                    return Err(SubstituteError::Late { reference: reference.text.clone(), path: Vec::new() });
                }
            }
        }
        Value::Array(_) => match env.known(list)? {
            Some(value) => value,
            None => return Ok(vec![None]),
        },
        _ => return Err(not_a_list()),
    };
    match value {
        Value::Array(items) => Ok(items.into_iter().map(Some).collect()),
        Value::Null => Ok(Vec::new()),
        _ => Err(not_a_list()),
    }
}
