//! The marked tree, built from parser events within bounds of depth and size.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Number, Value};

/// A person's file is never nested deeper; the bound keeps recursion over the tree safe.
const MAX_DEPTH: usize = 64;
/// Bytes in memory, roughly, aliases expanded.
const MAX_SIZE: usize = 32 << 20;
/// What a node costs besides its text.
const NODE_SIZE: usize = 64;

/// A place in a text, 1-based; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A YAML node and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Marked {
    /// Where the node begins.
    pub place: Place,
    /// What it is.
    pub kind: MarkedKind,
}

/// What a node is, in the JSON data model.
#[derive(Debug, Clone, PartialEq)]
pub enum MarkedKind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number JSON can hold.
    Number(Number),
    /// Anything else that is scalar.
    String(String),
    /// A list.
    Sequence(Vec<Marked>),
    /// A mapping in the order written; keys are unique.
    Mapping(Vec<Entry>),
}

/// One key of a mapping with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key was written.
    pub place: Place,
    /// The value.
    pub value: Marked,
}

impl Marked {
    /// The tree as JSON.
    pub fn to_value(&self) -> Value {
        match &self.kind {
            MarkedKind::Null => Value::Null,
            MarkedKind::Bool(value) => Value::Bool(*value),
            MarkedKind::Number(value) => Value::Number(value.clone()),
            MarkedKind::String(value) => Value::String(value.clone()),
            MarkedKind::Sequence(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            MarkedKind::Mapping(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.clone(), entry.value.to_value())).collect())
            }
        }
    }

    /// A mapping's entry by key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            MarkedKind::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The value below a key of a mapping or an index of a list.
    pub fn get(&self, segment: &str) -> Option<&Self> {
        match &self.kind {
            MarkedKind::Sequence(items) => items.get(segment.parse::<usize>().ok()?),
            _ => self.entry(segment).map(|entry| &entry.value),
        }
    }

    /// The place of the value at a path of keys and indices, or of its nearest ancestor that exists.
    pub fn place_of(&self, path: &[&str]) -> Place {
        let mut node = self;
        for segment in path {
            match node.get(segment) {
                Some(child) => node = child,
                None => break,
            }
        }
        node.place
    }
}

/// A problem and where it is.
pub(super) type Problem = (Place, Cow<'static, str>);

/// All documents of a text that are not empty.
pub(super) fn documents(text: &str) -> Result<Vec<Marked>, Problem> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| syntax(text, &error))?;
        builder.receive(event, span)?;
    }
    Ok(builder.documents)
}

/// The scanner's words; a tab is pointed at itself, since the scanner names the beginning of what it breaks.
fn syntax(text: &str, error: &ScanError) -> Problem {
    let place = Place { line: error.marker().line().max(1), column: error.marker().col() + 1 };
    if error.info().contains("tab") {
        let tab = text.lines().enumerate().skip(place.line - 1).find_map(|(index, line)| {
            let indent = line.len() - line.trim_start().len();
            line[..indent].find('\t').map(|column| Place { line: index + 1, column: column + 1 })
        });
        return (tab.unwrap_or(place), "tabs cannot indent YAML; use spaces".into());
    }
    (place, format!("not valid YAML: {}", error.info()).into())
}

#[derive(Default)]
struct Builder {
    documents: Vec<Marked>,
    open: Vec<Open>,
    anchors: BTreeMap<usize, (Marked, Extent)>,
    size: usize,
}

/// How much a complete node takes.
#[derive(Clone, Copy)]
struct Extent {
    size: usize,
    /// Levels of collections, aliases expanded.
    height: usize,
}

/// A collection that is not complete yet.
struct Open {
    place: Place,
    anchor: usize,
    size_before: usize,
    /// The highest child so far.
    height: usize,
    content: Content,
}

enum Content {
    Sequence(Vec<Marked>),
    /// The entries so far and the key whose value comes next.
    Mapping(Vec<Entry>, Option<(String, Place)>),
}

impl Builder {
    fn receive(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let place = Place { line: span.start.line().max(1), column: span.start.col() + 1 };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let size = NODE_SIZE + text.len();
                self.grow(size, place)?;
                let kind = scalar(&text, style, tag.as_deref()).map_err(|message| (place, message))?;
                self.close(Marked { place, kind }, anchor, Extent { size, height: 0 })
            }
            Event::SequenceStart(anchor, tag) => {
                self.enter(place, anchor, tag.as_deref(), Content::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.enter(place, anchor, tag.as_deref(), Content::Mapping(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(anchor) => {
                let Some((_, extent)) = self.anchors.get(&anchor) else {
                    return Err((place, "this alias refers to a node that contains it".into()));
                };
                let extent = *extent;
                self.fits(extent.height, place)?;
                self.grow(extent.size, place)?;
                let kind = self.anchors.get(&anchor).map_or(MarkedKind::Null, |(node, _)| node.kind.clone());
                self.close(Marked { place, kind }, 0, extent)
            }
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn grow(&mut self, by: usize, place: Place) -> Result<(), Problem> {
        self.size = self.size.saturating_add(by);
        if self.size > MAX_SIZE {
            return Err((place, "the file holds too much data (its aliases expanded)".into()));
        }
        Ok(())
    }

    /// Whether something of this height may be put where the builder is.
    fn fits(&self, height: usize, place: Place) -> Result<(), Problem> {
        if self.open.len() + height > MAX_DEPTH {
            return Err((place, format!("nested deeper than {MAX_DEPTH} levels").into()));
        }
        Ok(())
    }

    fn enter(&mut self, place: Place, anchor: usize, tag: Option<&Tag>, content: Content) -> Result<(), Problem> {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && matches!(&*tag.suffix, "seq" | "map"))) {
            return Err((place, format!("the tag {}{} is not supported", tag.handle, tag.suffix).into()));
        }
        self.fits(1, place)?;
        let size_before = self.size;
        self.grow(NODE_SIZE, place)?;
        self.open.push(Open { place, anchor, size_before, height: 0, content });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Problem> {
        let Some(Open { place, anchor, size_before, height, content }) = self.open.pop() else { return Ok(()) };
        let kind = match content {
            Content::Sequence(items) => MarkedKind::Sequence(items),
            Content::Mapping(entries, _) => MarkedKind::Mapping(entries),
        };
        let extent = Extent { size: self.size - size_before, height: height + 1 };
        self.close(Marked { place, kind }, anchor, extent)
    }

    /// Puts a complete node where it belongs.
    fn close(&mut self, node: Marked, anchor: usize, extent: Extent) -> Result<(), Problem> {
        if anchor != 0 {
            self.grow(extent.size, node.place)?;
            self.anchors.insert(anchor, (node.clone(), extent));
        }
        let parent = self.open.last_mut().map(|open| {
            open.height = open.height.max(extent.height);
            &mut open.content
        });
        match parent {
            None => {
                if node.kind != MarkedKind::Null {
                    self.documents.push(node);
                }
            }
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping(entries, pending)) => match pending.take() {
                Some((key, place)) => entries.push(Entry { key, place, value: node }),
                None => *pending = Some(key(&node, entries)?),
            },
        }
        Ok(())
    }
}

fn key(node: &Marked, entries: &[Entry]) -> Result<(String, Place), Problem> {
    let key = match &node.kind {
        MarkedKind::String(text) => text.clone(),
        MarkedKind::Number(number) => number.to_string(),
        MarkedKind::Bool(value) => value.to_string(),
        MarkedKind::Null => return Err((node.place, "a key is missing before the colon".into())),
        MarkedKind::Sequence(_) | MarkedKind::Mapping(_) => {
            return Err((node.place, "a key must be text; quote values that begin with { or [".into()));
        }
    };
    if key == "<<" {
        return Err((node.place, "merge keys (<<) are not part of YAML 1.2; repeat the keys or use an alias".into()));
    }
    match entries.iter().find(|entry| entry.key == key) {
        Some(first) => {
            Err((node.place, format!("the key `{key}` is given twice (first in line {})", first.place.line).into()))
        }
        None => Ok((key, node.place)),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<MarkedKind, Cow<'static, str>> {
    let resolved = match tag {
        None if style == ScalarStyle::Plain => return plain(text),
        None => return Ok(MarkedKind::String(text.to_owned())),
        // `!` alone means "do not guess".
        Some(tag) if tag.handle == "!" && tag.suffix.is_empty() => return Ok(MarkedKind::String(text.to_owned())),
        Some(tag) if !tag.is_yaml_core_schema() => {
            return Err(format!("the tag {}{} is not supported", tag.handle, tag.suffix).into());
        }
        Some(tag) if tag.suffix == "str" => return Ok(MarkedKind::String(text.to_owned())),
        Some(tag) => (plain(text)?, &*tag.suffix),
    };
    match resolved {
        (kind @ MarkedKind::Null, "null")
        | (kind @ MarkedKind::Bool(_), "bool")
        | (kind @ MarkedKind::Number(_), "float") => Ok(kind),
        (MarkedKind::Number(number), "int") if !number.is_f64() => Ok(MarkedKind::Number(number)),
        (_, wanted) => Err(format!("`{text}` is no {wanted}").into()),
    }
}

/// A plain scalar by the core schema of YAML 1.2.
fn plain(text: &str) -> Result<MarkedKind, Cow<'static, str>> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(MarkedKind::Null),
        "true" | "True" | "TRUE" => return Ok(MarkedKind::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(MarkedKind::Bool(false)),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Ok(MarkedKind::String(text.to_owned()));
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return Err(format!("`{text}` cannot be used as a number here; quote it if it is text").into());
    }
    for (prefix, radix) in [("0o", 8), ("0x", 16)] {
        if let Some(rest) = text.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
            if rest.chars().all(|c| c.is_digit(radix)) {
                let number = u64::from_str_radix(rest, radix).map_err(|_| too_big(text))?;
                return Ok(MarkedKind::Number(number.into()));
            }
            return Ok(MarkedKind::String(text.to_owned()));
        }
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        if digits.len() > 1 && digits.starts_with('0') {
            return Err(format!(
                "`{text}` is octal in YAML 1.1 and decimal in YAML 1.2; write 0o{} or quote it",
                digits.trim_start_matches('0')
            )
            .into());
        }
        let number = text.strip_prefix('+').unwrap_or(text);
        let number = number.parse::<u64>().map(Number::from).or_else(|_| number.parse::<i64>().map(Number::from));
        return number.map(MarkedKind::Number).map_err(|_| too_big(text));
    }
    if is_float(digits) {
        let number = text.parse::<f64>().ok().and_then(Number::from_f64);
        return number.map(MarkedKind::Number).ok_or_else(|| too_big(text));
    }
    Ok(MarkedKind::String(text.to_owned()))
}

fn too_big(text: &str) -> Cow<'static, str> {
    format!("the number {text} is too big; quote it if it is text").into()
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?` of the core schema, sign taken off.
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (digits, None),
    };
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    is_digits(whole)
        && is_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && is_digits(exponent))
}
