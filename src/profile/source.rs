//! Where profiles, components and their files are found, and how a problem names its place in them.

use std::path::{Component as PathPart, Path, PathBuf};
use std::sync::Arc;

use include_dir::Dir;

use crate::assets;
use crate::ports::HostFs;
use crate::yaml::{self, Marked, YamlError};

use super::error::ProfileError;

/// The largest profile, component or manifest read, in bytes.
const MAX_FILE: usize = 4 << 20;

/// Which profile is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProfileSource {
    /// One that travels with devstack, by name.
    Builtin(String),
    /// A file.
    File(PathBuf),
    /// A directory with a `devstack.yaml` or `profile.yaml`.
    Dir(PathBuf),
}

impl ProfileSource {
    /// What a command-line argument or a recorded source means: a path where it looks like one, or where a directory
    /// of that name exists and no built-in is called so; otherwise a built-in's name.
    pub fn of(argument: &str) -> Self {
        let path = PathBuf::from(argument);
        let looks_like_path = argument.contains(['/', '\\']) || argument.starts_with('.');
        let is_yaml = matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml"));
        if path.is_dir() && (looks_like_path || builtin(argument).is_none()) {
            Self::Dir(path)
        } else if looks_like_path || is_yaml {
            Self::File(path)
        } else {
            Self::Builtin(argument.to_owned())
        }
    }

    /// The source as a text that [`ProfileSource::of`] understands from any working directory.
    pub fn recorded(&self) -> String {
        match self {
            Self::Builtin(name) => name.clone(),
            Self::File(path) | Self::Dir(path) => {
                std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
            }
        }
    }
}

/// A built-in profile's text.
fn builtin(name: &str) -> Option<&'static [u8]> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    plain.then(|| assets::PROFILES.get_file(format!("{name}.yaml")))?.map(include_dir::File::contents)
}

/// The names of all built-in profiles, sorted.
pub(super) fn builtin_names() -> Vec<String> {
    let stem = |file: &include_dir::File<'_>| {
        let path = file.path();
        (path.extension()? == "yaml").then(|| path.file_stem()?.to_str().map(str::to_owned))?
    };
    let mut names: Vec<_> = assets::PROFILES.files().filter_map(stem).collect();
    names.sort();
    names
}

/// Reads the files that profiles are made of.
#[derive(Clone, Copy)]
pub(super) struct Library<'a> {
    /// The host's files.
    pub(super) fs: &'a dyn HostFs,
}

/// A directory of files: in the binary or on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Below `profiles/` in the binary.
    Builtin(PathBuf),
    /// On the host.
    Host(PathBuf),
}

impl Place {
    /// What a file in it is called in messages.
    fn name_of(&self, file: &str) -> String {
        match self {
            Self::Builtin(dir) => Path::new("profiles").join(dir).join(file).display().to_string(),
            Self::Host(dir) => dir.join(file).display().to_string(),
        }
    }

    fn join(&self, path: &str) -> Self {
        match self {
            Self::Builtin(dir) => Self::Builtin(dir.join(path)),
            Self::Host(dir) => Self::Host(dir.join(path)),
        }
    }
}

impl Library<'_> {
    fn read(&self, place: &Place, file: &str) -> Result<Option<Vec<u8>>, ProfileError> {
        match place {
            Place::Builtin(dir) => Ok(assets_file(&assets::PROFILES, &dir.join(file)).map(<[u8]>::to_vec)),
            Place::Host(dir) => {
                let path = dir.join(file);
                let unreadable = |reason: String| ProfileError::Unreadable { path: path.clone(), reason };
                let bytes = self.fs.read(&path).map_err(|error| unreadable(error.to_string()))?;
                if bytes.as_ref().is_some_and(|bytes| bytes.len() > MAX_FILE) {
                    return Err(unreadable(format!("it is larger than {} MiB", MAX_FILE >> 20)));
                }
                Ok(bytes)
            }
        }
    }

    /// A profile's file and the directory it is in.
    pub(super) fn profile(&self, source: &ProfileSource) -> Result<(SourceFile, Place), ProfileError> {
        match source {
            ProfileSource::Builtin(name) => {
                let bytes = builtin(name).ok_or_else(|| ProfileError::unknown(name, builtin_names()))?;
                let place = Place::Builtin(PathBuf::new());
                Ok((SourceFile::parse(place.name_of(&format!("{name}.yaml")), bytes)?, place))
            }
            ProfileSource::File(path) => {
                let place = Place::Host(path.parent().unwrap_or(Path::new("")).to_path_buf());
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                let bytes = self.read(&place, &file)?.ok_or_else(|| ProfileError::Missing { path: path.clone() })?;
                Ok((SourceFile::parse(place.name_of(&file), &bytes)?, place))
            }
            ProfileSource::Dir(path) => {
                let place = Place::Host(path.clone());
                for file in ["devstack.yaml", "profile.yaml"] {
                    if let Some(bytes) = self.read(&place, file)? {
                        return Ok((SourceFile::parse(place.name_of(file), &bytes)?, place));
                    }
                }
                Err(ProfileError::Missing { path: path.join("devstack.yaml") })
            }
        }
    }

    /// A profile by the name another one extends: beside it, else built in.
    pub(super) fn extended(&self, name: &str, beside: &Place) -> Result<Option<(SourceFile, Place)>, ProfileError> {
        if !is_name(name) {
            return Ok(None);
        }
        let file = format!("{name}.yaml");
        for place in [beside.clone(), Place::Builtin(PathBuf::new())] {
            if let Some(bytes) = self.read(&place, &file)? {
                return Ok(Some((SourceFile::parse(place.name_of(&file), &bytes)?, place)));
            }
        }
        Ok(None)
    }

    /// A component by name: in `components/` of one of these directories, else built in.
    pub(super) fn component(&self, name: &str, beside: &[Place]) -> Result<Option<(SourceFile, Place)>, ProfileError> {
        if !is_name(name) {
            return Ok(None);
        }
        for place in beside.iter().chain([&Place::Builtin(PathBuf::new())]) {
            let place = place.join("components").join(name);
            if let Some(bytes) = self.read(&place, "component.yaml")? {
                return Ok(Some((SourceFile::parse(place.name_of("component.yaml"), &bytes)?, place)));
            }
        }
        Ok(None)
    }

    /// The names of built-in components.
    pub(super) fn component_names() -> Vec<String> {
        let dirs = assets::PROFILES.get_dir("components").into_iter().flat_map(Dir::dirs);
        dirs.filter_map(|dir| Some(dir.path().file_name()?.to_str()?.to_owned())).collect()
    }

    /// A manifest of a component as documents of one file.
    pub(super) fn manifest(&self, place: &Place, file: &str) -> Result<Option<Documents>, ProfileError> {
        let inside = Path::new(file).components().all(|part| matches!(part, PathPart::Normal(_)));
        if !inside || file.is_empty() {
            return Ok(None);
        }
        let Some(bytes) = self.read(place, file)? else { return Ok(None) };
        let name = place.name_of(file);
        let text = yaml::text(&name, &bytes)?.to_owned();
        let documents = yaml::parse_documents(&name, &text)?;
        Ok(Some((Arc::new(SourceText { name, text }), documents)))
    }
}

fn assets_file(dir: &'static Dir<'static>, path: &Path) -> Option<&'static [u8]> {
    dir.get_file(path).map(include_dir::File::contents)
}

/// Whether a text may name a profile, component, credential, route or bucket.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The documents of a file.
pub(super) type Documents = (Arc<SourceText>, Vec<Marked>);

/// A text and what it is called.
#[derive(Debug)]
pub(super) struct SourceText {
    pub(super) name: String,
    pub(super) text: String,
}

/// A file with one document, parsed.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    pub(super) source: Arc<SourceText>,
    pub(super) root: Arc<Marked>,
}

impl SourceFile {
    fn parse(name: String, bytes: &[u8]) -> Result<Self, YamlError> {
        let text = yaml::text(&name, bytes)?.to_owned();
        let root = Arc::new(yaml::parse_value(&name, &text)?);
        Ok(Self { source: Arc::new(SourceText { name, text }), root })
    }

    /// The document as a type.
    pub(super) fn to_type<T: serde::de::DeserializeOwned>(&self) -> Result<T, YamlError> {
        self.root.to_type(&self.source.name, &self.source.text)
    }

    /// A place in the file by keys and indices.
    pub(super) fn origin<S: AsRef<str>>(&self, path: &[S]) -> Origin {
        Origin { file: self.clone(), path: path.iter().map(|segment| segment.as_ref().to_owned()).collect() }
    }
}

/// Where something was written.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    file: SourceFile,
    path: Vec<String>,
}

impl Origin {
    /// A place below this one.
    pub(super) fn below<S: AsRef<str>>(&self, path: &[S]) -> Self {
        let mut below = self.clone();
        below.path.extend(path.iter().map(|segment| segment.as_ref().to_owned()));
        below
    }

    /// A problem here.
    pub(super) fn problem(&self, message: impl Into<String>) -> YamlError {
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        YamlError::at(&self.file.source.name, &self.file.source.text, self.file.root.place_of(&path), message)
    }

    /// A problem with the key that leads here rather than with its value.
    pub(super) fn key_problem(&self, message: impl Into<String>) -> YamlError {
        let Some((key, parents)) = self.path.split_last() else { return self.problem(message) };
        let mut node = &*self.file.root;
        for parent in parents {
            match node.get(parent) {
                Some(child) => node = child,
                None => return self.problem(message),
            }
        }
        match node.entry(key) {
            Some(entry) => YamlError::at(&self.file.source.name, &self.file.source.text, entry.place, message),
            None => self.problem(message),
        }
    }
}
