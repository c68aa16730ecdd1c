//! Leads a deserialisation error back to its place and puts it in words for the person who wrote the file.

use serde_path_to_error::{Path, Segment};

use super::tree::{Marked, MarkedKind, Place};

/// The known name that was probably meant, if one is near enough.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= limit && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Where in the tree a deserialisation failed, and why.
pub(super) fn locate(root: &Marked, path: &Path, message: &str) -> (Place, String) {
    let mut node = root;
    let mut key_place = None;
    for segment in path {
        let child = match segment {
            Segment::Map { key } => {
                key_place = node.entry(key).map(|entry| entry.place);
                node.get(key)
            }
            Segment::Seq { index } => {
                key_place = None;
                node.get(&index.to_string())
            }
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        match child {
            Some(child) => node = child,
            None => break,
        }
    }
    let names = quoted(message);
    if let (true, Some(name)) = (message.starts_with("unknown field"), names.first()) {
        let place = node.entry(name).map(|entry| entry.place).or(key_place).unwrap_or(node.place);
        return (place, unknown("key", name, &names[1..]));
    }
    if let (true, Some(name)) = (message.starts_with("unknown variant"), names.first()) {
        // The variant of an externally tagged enum is a key, otherwise a value.
        let place = node.entry(name).map_or(node.place, |entry| entry.place);
        return (place, unknown("value", name, &names[1..]));
    }
    if let (true, Some(name)) = (message.starts_with("missing field"), names.first()) {
        return (node.place, format!("the key `{name}` is missing"));
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        let found = if node.kind == MarkedKind::Null { "nothing" } else { type_in_words(found) };
        return (node.place, format!("expected {}, found {found}", type_in_words(expected)));
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid value: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return (node.place, format!("expected {}, found {found}", type_in_words(expected)));
    }
    (node.place, message.to_owned())
}

/// The names in backticks of serde's message.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match did_you_mean(name, known.iter().copied()) {
        Some(meant) => format!("unknown {what} `{name}`, did you mean `{meant}`?"),
        None if known.is_empty() => format!("unknown {what} `{name}`"),
        None => format!("unknown {what} `{name}` (known: {})", known.join(", ")),
    }
}

/// Words for serde's and Rust's names of types.
fn type_in_words(name: &str) -> &str {
    match name {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" | "u128" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" | "i128" => "a whole number",
        "f32" | "f64" => "a number",
        "sequence" | "a sequence" => "a list",
        "map" | "a map" => "a mapping",
        "unit value" | "null" => "nothing",
        "a string" | "string or map" => "text",
        _ if name.starts_with("struct ") => "a mapping",
        _ if name.starts_with("enum ") => "one of the known values",
        _ => name,
    }
}
