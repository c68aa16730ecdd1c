//! Edits of YAML text that leave the rest of the text alone.

use serde_json::{Value, json};

use crate::yaml::{self, Marked, MarkedKind};

/// A kubeconfig as text and content, always equal.
#[derive(Debug, Clone)]
pub struct Text {
    text: String,
    value: Value,
}

impl Text {
    /// A text and its content.
    pub fn new(text: String, value: Value) -> Self {
        Self { text, value }
    }

    /// An empty kubeconfig that carries a mark of who made it.
    pub fn made(mark: &str) -> Self {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "extensions": [{"name": mark, "extension": {}}],
        });
        Self { text: emit(&value), value }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The content.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// With one more item at the end of a list.
    pub fn with(self, list: &str, item: &Value) -> Self {
        let mut value = self.value.clone();
        match value[list].as_array_mut() {
            Some(items) => items.push(item.clone()),
            None => value[list] = json!([item]),
        }
        let edited = insert(&self.text, list, item);
        Self::checked(edited, value)
    }

    /// Without the items of a list that have this name.
    pub fn without(self, list: &str, name: &str) -> Self {
        let mut value = self.value.clone();
        let Some(items) = value[list].as_array_mut() else { return Self { value: self.value, ..self } };
        let before = items.len();
        items.retain(|item| item["name"] != name);
        if items.len() == before {
            return self;
        }
        let edited = delete(&self.text, list, name);
        Self::checked(edited, value)
    }

    /// With no current context.
    pub fn without_current_context(self) -> Self {
        let mut value = self.value.clone();
        value["current-context"] = "".into();
        let edited = parse(&self.text).and_then(|tree| {
            let line = tree.entry("current-context")?.place.line;
            Some(replace_lines(&self.text, line, line + 1, "current-context: \"\"\n"))
        });
        Self::checked(edited, value)
    }

    /// The edited text where it is what it has to be, else the content written anew.
    fn checked(edited: Option<String>, value: Value) -> Self {
        let right = |text: &String| parse(text).is_some_and(|tree| tree.to_value() == value);
        let text = edited.filter(right).unwrap_or_else(|| emit(&value));
        Self { text, value }
    }
}

fn parse(text: &str) -> Option<Marked> {
    yaml::parse_value("", text).ok()
}

/// Adds an item to a list in block style, or makes the list.
fn insert(text: &str, list: &str, item: &Value) -> Option<String> {
    let tree = match parse(text) {
        Some(tree) => tree,
        None if text.trim().is_empty() => return Some(format!("{list}:\n{}", block_item(item, 0))),
        None => return None,
    };
    let mut text = text.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let Some(entry) = tree.entry(list) else {
        return Some(format!("{text}{list}:\n{}", block_item(item, 0)));
    };
    match &entry.value.kind {
        MarkedKind::Sequence(items) if !items.is_empty() => {
            let last = items.last()?.place.line;
            let indent = dash(&text, last)?;
            let end = end_of(&text, last, indent);
            Some(replace_lines(&text, end, end, &block_item(item, indent)))
        }
        // `clusters: []`, `clusters: null` and `clusters:` take one line.
        _ => {
            let line = entry.place.line;
            Some(replace_lines(&text, line, line + 1, &format!("{list}:\n{}", block_item(item, 0))))
        }
    }
}

/// Takes the items of that name out of a list in block style.
fn delete(text: &str, list: &str, name: &str) -> Option<String> {
    let tree = parse(text)?;
    let entry = tree.entry(list)?;
    let MarkedKind::Sequence(items) = &entry.value.kind else { return None };
    let named = |item: &Marked| item.get("name").is_some_and(|found| found.kind == MarkedKind::String(name.to_owned()));
    let kept = items.iter().filter(|item| !named(item)).count();
    let mut edited = text.to_owned();
    for item in items.iter().rev().filter(|item| named(item)) {
        let line = item.place.line;
        let end = end_of(&edited, line, dash(&edited, line)?);
        edited = replace_lines(&edited, line, end, "");
    }
    if kept == 0 {
        let line = entry.place.line;
        edited = replace_lines(&edited, line, line + 1, &format!("{list}: []\n"));
    }
    Some(edited)
}

/// The indentation of the dash that begins the item on this line.
fn dash(text: &str, line: usize) -> Option<usize> {
    let line = text.lines().nth(line - 1)?;
    let indent = line.len() - line.trim_start_matches(' ').len();
    line[indent..].starts_with("- ").then_some(indent)
}

/// The line after the last one of the item that begins on `line` with a dash at `indent`.
fn end_of(text: &str, line: usize, indent: usize) -> usize {
    let deeper = |line: &&str| {
        let spaces = line.len() - line.trim_start_matches(' ').len();
        spaces > indent && !line.trim().is_empty()
    };
    line + 1 + text.lines().skip(line).take_while(deeper).count()
}

/// The text with the lines from `start` up to but not including `end` (1-based) replaced.
fn replace_lines(text: &str, start: usize, end: usize, with: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (start, end) = ((start - 1).min(lines.len()), (end - 1).min(lines.len()));
    [lines[..start].concat().as_str(), with, lines[end..].concat().as_str()].concat()
}

fn block_item(item: &Value, indent: usize) -> String {
    let mut text = String::new();
    emit_item(item, indent, &mut text);
    text
}

/// A value as YAML in block style, members sorted as kubectl sorts them.
pub fn emit(value: &Value) -> String {
    let mut text = String::new();
    emit_node(value, 0, &mut text);
    text
}

fn emit_node(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                text.extend(std::iter::repeat_n(' ', indent));
                emit_member(key, member, indent, text);
            }
        }
        Value::Array(items) if !items.is_empty() => items.iter().for_each(|item| emit_item(item, indent, text)),
        scalar => {
            text.extend(std::iter::repeat_n(' ', indent));
            text.push_str(&emit_scalar(scalar));
            text.push('\n');
        }
    }
}

fn emit_member(key: &str, member: &Value, indent: usize, text: &mut String) {
    text.push_str(&emit_scalar(&Value::String(key.to_owned())));
    match member {
        Value::Object(members) if !members.is_empty() => {
            text.push_str(":\n");
            emit_node(member, indent + 2, text);
        }
        // kubectl does not indent lists below their key.
        Value::Array(items) if !items.is_empty() => {
            text.push_str(":\n");
            emit_node(member, indent, text);
        }
        scalar => {
            text.push_str(": ");
            text.push_str(&emit_scalar(scalar));
            text.push('\n');
        }
    }
}

fn emit_item(item: &Value, indent: usize, text: &mut String) {
    let mut body = String::new();
    emit_node(item, indent + 2, &mut body);
    text.extend(std::iter::repeat_n(' ', indent));
    text.push_str("- ");
    text.push_str(body.get(indent + 2..).unwrap_or_default());
}

/// A scalar: plain where no reader can take it for anything but this string, else as JSON, which is YAML as well.
fn emit_scalar(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+=@:".contains(&byte);
    let words = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let plain = text.bytes().all(is_plain)
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/')
        && !text.ends_with(':')
        && !words.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.clone() } else { value.to_string() }
}
