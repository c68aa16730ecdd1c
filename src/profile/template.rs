//! `${a.b[c].d}` inside texts of parsed YAML.

use std::collections::BTreeSet;

use serde_json::Value;

/// A text cut at its references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text as it stays, escapes resolved.
    Text(String),
    /// A reference.
    Reference(Reference),
}

/// A path to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// As written, without `${` and `}`.
    pub(super) text: String,
    /// Its parts, never empty.
    pub(super) segments: Vec<Segment>,
}

/// One part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// `.name`
    Name(String),
    /// `[other.path]`: the name is the value of another reference.
    Index(Reference),
}

/// A `$` in a text of which a part is known already, where a bare one would join with what follows.
pub(super) const DOLLAR: &str = "${$}";

/// Cuts a text. `$${` stands for a literal `${`, and [`DOLLAR`] for a `$`; a `$` before anything else is a dollar sign.
pub(super) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            plain.push_str(before);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(&rest[..at]);
        if let Some(after) = rest[at..].strip_prefix(DOLLAR) {
            plain.push('$');
            rest = after;
            continue;
        }
        let body = &rest[at + 2..];
        let end = body.find('}').ok_or_else(|| format!("`{}` is not closed by a }}", shorten(&rest[at..])))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Reference(reference(&body[..end])?));
        rest = &body[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn reference(text: &str) -> Result<Reference, String> {
    let (found, rest) = path(text, text)?;
    if rest.is_empty() { Ok(found) } else { Err(malformed(text)) }
}

fn malformed(text: &str) -> String {
    format!(
        "`${{{text}}}` is no reference; write names joined by dots, such as ${{minio.endpoint}} ($${{ for a literal ${{)"
    )
}

fn path<'a>(text: &'a str, whole: &str) -> Result<(Reference, &'a str), String> {
    let mut segments = Vec::new();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        if end == 0 {
            return Err(malformed(whole));
        }
        segments.push(Segment::Name(rest[..end].to_owned()));
        rest = &rest[end..];
        while let Some(inside) = rest.strip_prefix('[') {
            let (inner, after) = path(inside, whole)?;
            segments.push(Segment::Index(inner));
            rest = after.strip_prefix(']').ok_or_else(|| malformed(whole))?;
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None => break,
        }
    }
    let used = &text[..text.len() - rest.len()];
    Ok((Reference { text: used.to_owned(), segments }, rest))
}

/// Every reference in a value, as written between `${` and `}`; malformed texts have none.
pub fn references(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(value, &mut found);
    found
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            for piece in parse(text).unwrap_or_default() {
                if let Piece::Reference(reference) = piece {
                    found.insert(reference.text);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| collect(field, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_references() {
        let shape = |text: &str| -> Vec<String> {
            parse(text)
                .unwrap()
                .into_iter()
                .map(|piece| match piece {
                    Piece::Text(text) => format!("'{text}'"),
                    Piece::Reference(reference) => {
                        format!("{}/{}", reference.text, reference.segments.len())
                    }
                })
                .collect()
        };
        assert_eq!(shape(""), ["''"]);
        assert_eq!(shape("${a}"), ["a/1"]);
        assert_eq!(shape("x-${a.b}:${c}"), ["'x-'", "a.b/2", "':'", "c/1"]);
        assert_eq!(shape("${a.b[c.d].e}"), ["a.b[c.d].e/4"]);
        assert_eq!(shape("$${a} $ $(b) $x $$"), ["'${a} $ $(b) $x $$'"]);
        assert_eq!(shape("$$${a}"), ["'$${a}'"]);
    }

    #[test]
    fn malformed_references_are_refused() {
        for (text, start) in [
            ("a ${b", "`${b` is not closed by a }"),
            ("${}", "`${}` is no reference"),
            ("${a b}", "`${a b}` is no reference"),
            ("${a..b}", "`${a..b}` is no reference"),
            ("${a[b}", "`${a[b}` is no reference"),
            ("${ a }", "`${ a }` is no reference"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.starts_with(start), "{text}: {message}");
        }
    }

    #[test]
    fn references_are_found_anywhere() {
        let value = serde_json::json!({"a": ["${x.y}", {"b": "p ${z} $${n}"}], "c": 1});
        assert_eq!(references(&value).into_iter().collect::<Vec<_>>(), ["x.y", "z"]);
    }
}
