//! YAML for files that people write: every error says file, line and column.
//!
//! Text becomes a tree of [`Marked`] nodes (YAML 1.2 core schema: `true` and `false` are the only booleans), the tree
//! becomes JSON, JSON becomes a type, and a failure there is led back to the place it was written. What cannot be
//! meant well is refused: duplicate keys, octal-looking numbers, merge keys, cyclic or exploding aliases.

mod explain;
mod tree;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Advise, ExitCode, printable};

pub use explain::did_you_mean;
pub use tree::{Entry, Marked, MarkedKind, Place};

/// What is wrong with a YAML text, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}:{line}:{column}: {message}")]
pub struct YamlError {
    /// The file's path or another name of the text.
    pub source_name: String,
    /// 1-based.
    pub line: usize,
    /// 1-based, in characters.
    pub column: usize,
    /// What is wrong, as a fragment.
    pub message: String,
    /// The line that is meant, as written; `None` where there is none to show.
    pub snippet: Option<String>,
}

impl YamlError {
    /// An error at a place of a text; the snippet is cut from it.
    pub fn at(source: &str, text: &str, place: Place, message: impl Into<String>) -> Self {
        Self {
            source_name: source.to_owned(),
            line: place.line,
            column: place.column,
            message: message.into(),
            snippet: text.lines().nth(place.line.saturating_sub(1)).map(printable),
        }
    }

    /// The line that is meant, with a caret below the column; `None` where there is nothing to show.
    pub fn hint(&self) -> Option<String> {
        let line = self.snippet.as_deref().filter(|line| !line.trim().is_empty())?;
        let gutter = self.line.to_string();
        let caret = " ".repeat(self.column.saturating_sub(1));
        Some(format!("{gutter} | {line}\n{} | {caret}^", " ".repeat(gutter.len())))
    }
}

impl Advise for YamlError {
    fn hint(&self) -> Option<String> {
        Self::hint(self)
    }

    fn exit(&self) -> ExitCode {
        ExitCode::Usage
    }
}

/// Reads bytes as YAML text; binary content is an error that says so.
pub fn text<'a>(source: &str, bytes: &'a [u8]) -> Result<&'a str, YamlError> {
    let binary = |offset: usize, message: &str| {
        let before = bytes.get(..offset).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        YamlError { source_name: source.to_owned(), line, column, message: message.to_owned(), snippet: None }
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|error| binary(error.valid_up_to(), "this is not text in UTF-8, and so not YAML"))?;
    match text.bytes().position(|byte| byte < 0x20 && !matches!(byte, b'\n' | b'\r' | b'\t')) {
        Some(offset) => Err(binary(offset, "this is binary data, not YAML")),
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

/// Parses a text with exactly one document into a type.
///
/// `source` names the text in errors. The type should deny unknown fields and use neither `untagged` nor `flatten`,
/// else places become coarser.
pub fn parse<T: DeserializeOwned>(source: &str, text: &str) -> Result<T, YamlError> {
    parse_value(source, text)?.to_type(source, text)
}

/// Parses a text with exactly one document into a marked tree.
pub fn parse_value(source: &str, text: &str) -> Result<Marked, YamlError> {
    let mut documents = parse_documents(source, text)?;
    match documents.len() {
        0 => Err(YamlError::at(source, text, Place { line: 1, column: 1 }, "the file is empty")),
        1 => Ok(documents.remove(0)),
        _ => {
            let place = documents[1].place;
            Err(YamlError::at(source, text, place, "a second document begins here; one file holds one document"))
        }
    }
}

/// Parses a text with any number of documents; empty documents are left out.
pub fn parse_documents(source: &str, text: &str) -> Result<Vec<Marked>, YamlError> {
    let text = self::text(source, text.as_bytes())?;
    tree::documents(text).map_err(|(place, message)| YamlError::at(source, text, place, message))
}

impl Marked {
    /// The tree as a type; `source` and `text` are those it was parsed from.
    pub fn to_type<T: DeserializeOwned>(&self, source: &str, text: &str) -> Result<T, YamlError> {
        serde_path_to_error::deserialize::<Value, T>(self.to_value()).map_err(|error| {
            let (place, message) = explain::locate(self, error.path(), &error.inner().to_string());
            YamlError::at(source, text, place, message)
        })
    }
}

#[cfg(test)]
mod tests;
