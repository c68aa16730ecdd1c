//! Recipes: data that says how something is built from ordinary package registries.
//!
//! A directory `profiles/recipes/NAME` holds a `recipe.yaml` (kinds `go` and `debian`: they give files or a layer), an
//! `image.yaml` (kinds `layers` and `node`: they give an image), or both. What belongs to an image beside its YAML is
//! in `files/`; everything else belongs to the recipe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::BuildError;

/// What a recipe gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gives {
    /// Binaries or a layer: `recipe.yaml`.
    Parts,
    /// An image: `image.yaml`.
    Image,
}

/// A recipe's identity: `minio` has binaries and an image of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// What it gives.
    pub gives: Gives,
    /// The directory's name.
    pub name: String,
}

impl Id {
    /// The binaries or layer of a directory.
    pub fn parts(name: &str) -> Self {
        Self { gives: Gives::Parts, name: name.to_owned() }
    }

    /// The image of a directory.
    pub fn image(name: &str) -> Self {
        Self { gives: Gives::Image, name: name.to_owned() }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.gives {
            Gives::Parts => write!(f, "{}", self.name),
            Gives::Image => write!(f, "{} (image)", self.name),
        }
    }
}

/// A recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Its identity.
    pub id: Id,
    /// The version of what it builds.
    pub version: String,
    /// The SPDX licence of what it builds.
    pub license: String,
    /// How it is built.
    pub kind: Kind,
    /// What a cold build on two cores takes and gives.
    pub expect: Expect,
    /// Files beside the YAML: path → content.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// How something is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Kind {
    /// Binaries from a Go module.
    Go(GoRecipe),
    /// A layer from Debian packages.
    Debian(DebianRecipe),
    /// An image from layers and files.
    Layers(LayersRecipe),
    /// A Kubernetes node as kind runs it.
    Node(NodeRecipe),
}

/// What a cold build on two cores takes and gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Seconds.
    pub seconds: u64,
    /// Bytes of the result.
    pub bytes: u64,
}

/// Binaries from a Go module whose `go.mod` and `go.sum` are beside the recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoRecipe {
    /// The oldest Go that builds it.
    pub toolchain: String,
    /// Whether a C compiler is needed.
    #[serde(default)]
    pub cgo: bool,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Words of `-ldflags`.
    #[serde(default)]
    pub ldflags: Vec<String>,
    /// Binary → package.
    pub binaries: BTreeMap<String, String>,
}

/// A layer from Debian packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianRecipe {
    /// A release such as `bookworm`: a whole root file system by debootstrap. Otherwise packages are only unpacked.
    #[serde(default)]
    pub bootstrap: Option<String>,
    /// Packages.
    pub packages: Vec<String>,
    /// Patterns of what is kept; everything when empty.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Patterns of what is left out, with everything below.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Symbolic links: path → target.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
}

/// An image from layers and files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayersRecipe {
    /// The names it has inside a node, where kubeadm, containerd or a manifest demands them.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Debian recipes whose layers come first. Images that name the same one share its layer.
    #[serde(default)]
    pub base: Vec<String>,
    /// Files.
    #[serde(default)]
    pub files: Vec<FileItem>,
    /// Symbolic links: path → target.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Directories: path → mode.
    #[serde(default)]
    pub dirs: BTreeMap<String, String>,
    /// How containers run.
    #[serde(default)]
    pub config: ConfigItem,
}

/// One file of an image; exactly one of `binary`, `asset` and `text` says where it is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileItem {
    /// Where it goes.
    pub to: String,
    /// `RECIPE/BINARY` of a Go recipe.
    #[serde(default)]
    pub binary: Option<String>,
    /// A file below `files/` beside the YAML.
    #[serde(default)]
    pub asset: Option<String>,
    /// The content itself.
    #[serde(default)]
    pub text: Option<String>,
    /// Octal permissions; 0755 for binaries and 0644 otherwise.
    #[serde(default)]
    pub mode: Option<String>,
}

/// Where a file's content is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A binary of a Go recipe.
    Binary {
        /// The recipe.
        recipe: &'a str,
        /// The binary.
        binary: &'a str,
    },
    /// A file beside the YAML.
    Asset(&'a str),
    /// The YAML itself.
    Text(&'a str),
}

impl FileItem {
    /// Where the content is from.
    ///
    /// # Errors
    /// Where not exactly one origin is given.
    pub fn from(&self) -> Result<Origin<'_>, String> {
        match (&self.binary, &self.asset, &self.text) {
            (Some(binary), None, None) => match binary.split_once('/') {
                Some((recipe, binary)) => Ok(Origin::Binary { recipe, binary }),
                None => Err(format!("binary {binary:?} is not written RECIPE/BINARY")),
            },
            (None, Some(asset), None) => Ok(Origin::Asset(asset)),
            (None, None, Some(text)) => Ok(Origin::Text(text)),
            _ => Err(format!("{}: give one of binary, asset and text", self.to)),
        }
    }

    /// The permissions.
    ///
    /// # Errors
    /// Where they are not octal.
    pub fn permissions(&self) -> Result<u32, String> {
        match &self.mode {
            Some(mode) => octal(mode),
            None if self.binary.is_some() => Ok(0o755),
            None => Ok(0o644),
        }
    }
}

/// Reads octal permissions.
pub(super) fn octal(mode: &str) -> Result<u32, String> {
    u32::from_str_radix(mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("mode {mode:?} is not octal"))
}

/// How containers run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConfigItem {
    /// Entrypoint.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Arguments.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// `NAME=value`; a `PATH` is added where there is none.
    #[serde(default)]
    pub env: Vec<String>,
    /// `user[:group]`.
    #[serde(default)]
    pub user: String,
    /// Working directory.
    #[serde(default)]
    pub working_dir: String,
    /// Exposed ports, such as `9000/tcp`.
    #[serde(default)]
    pub ports: Vec<String>,
    /// The signal that stops a container.
    #[serde(default)]
    pub stop_signal: String,
}

/// A Kubernetes node as kind runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeRecipe {
    /// The Debian recipe of its root file system.
    pub root: String,
    /// The Go recipe whose module carries kind's `images/base/files`.
    pub kind: String,
    /// That module's path.
    pub kind_module: String,
    /// The Go recipe with `containerd` and `ctr`, which run on the host to import the pod images.
    pub containerd: String,
    /// Files.
    pub files: Vec<FileItem>,
    /// Symbolic links: path → target.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Units of kind's that start with the node.
    pub enable: Vec<String>,
    /// Units that never start.
    pub mask: Vec<String>,
    /// Images that are in the node from the start.
    pub images: Vec<String>,
    /// How the container runs.
    pub config: ConfigItem,
}

impl Recipe {
    /// The recipes that must be built before.
    pub fn needs(&self) -> Vec<Id> {
        let mut needs = BTreeSet::new();
        let mut files = |files: &[FileItem]| {
            for file in files {
                if let Ok(Origin::Binary { recipe, .. }) = file.from() {
                    needs.insert(Id::parts(recipe));
                }
            }
        };
        match &self.kind {
            Kind::Go(_) | Kind::Debian(_) => {}
            Kind::Layers(layers) => {
                files(&layers.files);
                needs.extend(layers.base.iter().map(|name| Id::parts(name)));
            }
            Kind::Node(node) => {
                files(&node.files);
                needs.extend([&node.root, &node.kind, &node.containerd].map(|name| Id::parts(name)));
                needs.extend(node.images.iter().map(|name| Id::image(name)));
            }
        }
        needs.into_iter().collect()
    }

    /// An error about this recipe.
    pub(super) fn invalid(&self, reason: String) -> BuildError {
        BuildError::Invalid { recipe: self.id.to_string(), reason }
    }

    /// Refuses what contradicts itself.
    pub(super) fn check(&self) -> Result<(), BuildError> {
        let files = match &self.kind {
            Kind::Go(go) => {
                let plain = |name: &String| {
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                };
                if go.binaries.is_empty() || !go.binaries.keys().all(plain) {
                    return Err(self.invalid("binaries need plain names".to_owned()));
                }
                &[][..]
            }
            Kind::Debian(_) => &[],
            Kind::Layers(layers) => &layers.files,
            Kind::Node(node) => &node.files,
        };
        for file in files {
            file.permissions().map_err(|reason| self.invalid(reason))?;
            if let Origin::Asset(asset) = file.from().map_err(|reason| self.invalid(reason))?
                && !self.files.contains_key(asset)
            {
                return Err(self.invalid(format!("there is no files/{asset}")));
            }
        }
        Ok(())
    }
}
