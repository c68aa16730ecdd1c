//! The objects of a component's manifest files.

use std::sync::Arc;

use serde_json::Value;

use crate::yaml::{Marked, MarkedKind, YamlError};

use super::source::SourceText;

/// One object of a manifest.
pub(super) struct Document {
    /// Which entry of `manifests` it is of.
    pub(super) index: usize,
    pub(super) source: Arc<SourceText>,
    pub(super) marked: Marked,
    pub(super) object: Value,
}

impl Document {
    /// A problem at a path of the object.
    pub(super) fn problem(&self, path: &[&str], message: String) -> YamlError {
        YamlError::at(&self.source.name, &self.source.text, self.marked.place_of(path), message)
    }
}

/// Takes the objects of a document, those of a `List` one by one.
pub(super) fn objects(
    index: usize,
    source: &Arc<SourceText>,
    marked: Marked,
    found: &mut Vec<Document>,
    problems: &mut Vec<YamlError>,
) {
    let object = marked.to_value();
    if object["kind"] == "List" && object["apiVersion"] == "v1" {
        if let Some(MarkedKind::Sequence(items)) = marked.get("items").map(|items| &items.kind) {
            items.iter().for_each(|item| objects(index, source, item.clone(), found, problems));
        }
        return;
    }
    let document = Document { index, source: Arc::clone(source), marked, object };
    for path in [&["apiVersion"][..], &["kind"], &["metadata", "name"]] {
        let value = path.iter().fold(&document.object, |value, key| &value[*key]);
        if !value.is_string() {
            problems.push(document.problem(path, format!("an object needs the text `{}`", path.join("."))));
            return;
        }
    }
    found.push(document);
}
