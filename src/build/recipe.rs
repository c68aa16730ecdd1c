//! Recipes: data that says how something is built from ordinary package registries.
//!
//! A directory `profiles/recipes/NAME` holds a `recipe.yaml` (kinds `go` and `debian`: they give files or a layer), an
//! `image.yaml` (kinds `layers` and `node`: they give an image), or both. What belongs to an image beside its YAML is
//! in `files/`; everything else belongs to the recipe.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use include_dir::Dir;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::error::BuildError;
use crate::oci::{Digest, Platform};

/// Raised when the way of building changes so that earlier results are no longer the same.
const FORMAT: u32 = 1;

/// As [`FORMAT`], for nodes alone: their layers are laid out by code.
const NODE_FORMAT: u32 = 2;

/// The registry part of the references of built images; no registry answers to it.
pub const LOCAL_REGISTRY: &str = "devstack.local";

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

/// A YAML file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    name: String,
    version: String,
    license: String,
    #[serde(default)]
    go: Option<GoRecipe>,
    #[serde(default)]
    debian: Option<DebianRecipe>,
    #[serde(default)]
    layers: Option<LayersRecipe>,
    #[serde(default)]
    node: Option<NodeRecipe>,
    #[serde(default)]
    expect: Expect,
}

/// All recipes.
#[derive(Debug, Clone, Default)]
pub struct Recipes(BTreeMap<Id, Recipe>);

impl Recipes {
    /// The recipes that travel in the binary.
    ///
    /// # Errors
    /// Where one is not valid. Whether what it needs is there is seen when it is used.
    pub fn builtin() -> Result<Self, BuildError> {
        match crate::assets::PROFILES.get_dir("recipes") {
            Some(dir) => Self::read(dir),
            None => Ok(Self::default()),
        }
    }

    /// The recipes of a directory of directories.
    fn read(dir: &Dir<'_>) -> Result<Self, BuildError> {
        let mut recipes = Self::default();
        for entry in dir.dirs() {
            let name = entry.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let mut files = BTreeMap::new();
            collect(entry, entry, &mut files);
            recipes.insert(name, files)?;
        }
        Ok(recipes)
    }

    /// Adds the recipe and image of one directory.
    pub(super) fn insert(&mut self, name: &str, mut files: BTreeMap<String, Vec<u8>>) -> Result<(), BuildError> {
        let image = files.remove("image.yaml");
        let parts = files.remove("recipe.yaml");
        let (beside_image, beside_parts): (BTreeMap<_, _>, BTreeMap<_, _>) =
            files.into_iter().partition(|(path, _)| path.starts_with("files/"));
        if let Some(yaml) = parts {
            self.add(Id::parts(name), "recipe.yaml", &yaml, beside_parts)?;
        }
        if let Some(yaml) = image {
            let files = beside_image
                .into_iter()
                .map(|(path, content)| (path.trim_start_matches("files/").to_owned(), content))
                .collect();
            self.add(Id::image(name), "image.yaml", &yaml, files)?;
        }
        Ok(())
    }

    fn add(&mut self, id: Id, file: &str, yaml: &[u8], files: BTreeMap<String, Vec<u8>>) -> Result<(), BuildError> {
        let source = format!("recipes/{}/{file}", id.name);
        let text = crate::yaml::text(&source, yaml)?;
        let document: Document = crate::yaml::parse(&source, text)?;
        let invalid = |reason: &str| BuildError::Invalid { recipe: id.to_string(), reason: reason.to_owned() };
        if document.api_version != "devstack/v1" || document.kind != "Recipe" {
            return Err(invalid("apiVersion is not devstack/v1 or kind is not Recipe"));
        }
        if document.name != id.name {
            return Err(invalid("its name is not that of its directory"));
        }
        let kind = match (document.go, document.debian, document.layers, document.node) {
            (Some(go), None, None, None) => Kind::Go(go),
            (None, Some(debian), None, None) => Kind::Debian(debian),
            (None, None, Some(layers), None) => Kind::Layers(layers),
            (None, None, None, Some(node)) => Kind::Node(node),
            _ => return Err(invalid("give one of go, debian, layers and node")),
        };
        let fits = match id.gives {
            Gives::Parts => matches!(kind, Kind::Go(_) | Kind::Debian(_)),
            Gives::Image => matches!(kind, Kind::Layers(_) | Kind::Node(_)),
        };
        if !fits {
            return Err(invalid("recipe.yaml is for go and debian, image.yaml for layers and node"));
        }
        let (version, license, expect) = (document.version, document.license, document.expect);
        let recipe = Recipe { id: id.clone(), version, license, kind, expect, files };
        recipe.check()?;
        self.0.insert(id, recipe);
        Ok(())
    }

    /// A recipe.
    ///
    /// # Errors
    /// [`BuildError::Unknown`], with the nearest name.
    pub fn get(&self, id: &Id) -> Result<&Recipe, BuildError> {
        self.0.get(id).ok_or_else(|| {
            let known = self.0.keys().filter(|known| known.gives == id.gives).map(|known| known.name.as_str());
            BuildError::Unknown {
                recipe: id.to_string(),
                near: crate::yaml::did_you_mean(&id.name, known).map(ToOwned::to_owned),
            }
        })
    }

    /// All recipes, sorted.
    pub fn all(&self) -> impl Iterator<Item = &Recipe> {
        self.0.values()
    }

    /// A recipe and everything it needs, each once, needed ones first.
    ///
    /// # Errors
    /// For unknown recipes and for circles.
    pub fn closure(&self, targets: &[Id]) -> Result<Vec<&Recipe>, BuildError> {
        let mut order = Vec::new();
        let mut done = BTreeSet::new();
        for target in targets {
            self.visit(target, &mut done, &mut Vec::new(), &mut order)?;
        }
        Ok(order)
    }

    fn visit<'a>(
        &'a self,
        id: &Id,
        done: &mut BTreeSet<Id>,
        path: &mut Vec<Id>,
        order: &mut Vec<&'a Recipe>,
    ) -> Result<(), BuildError> {
        if done.contains(id) {
            return Ok(());
        }
        let recipe = self.get(id)?;
        if path.contains(id) {
            return Err(recipe.invalid("it needs itself".to_owned()));
        }
        path.push(id.clone());
        for need in recipe.needs() {
            self.visit(&need, done, path, order)?;
        }
        path.pop();
        done.insert(id.clone());
        order.push(recipe);
        Ok(())
    }

    /// What identifies a recipe's result: the recipe, the files beside it, everything it needs, and the platform.
    /// The Go in use and the versions of Debian packages are not in it — they are recorded with the result — so that
    /// a machine without Go finds what a bundle brought.
    ///
    /// # Errors
    /// For unknown recipes.
    pub fn input(&self, id: &Id, platform: &Platform) -> Result<Digest, BuildError> {
        let recipe = self.get(id)?;
        let mut hash = sha2::Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(&FORMAT.to_le_bytes());
        add(platform.to_string().as_bytes());
        add(id.to_string().as_bytes());
        add(recipe.version.as_bytes());
        let kind = serde_json::to_vec(&recipe.kind).map_err(|source| recipe.invalid(source.to_string()))?;
        add(&kind);
        if matches!(recipe.kind, Kind::Node(_)) {
            add(&NODE_FORMAT.to_le_bytes());
        }
        for (path, content) in recipe.files.iter().filter(|(path, _)| !path.ends_with("_test.go")) {
            add(path.as_bytes());
            add(content);
        }
        for need in recipe.needs() {
            add(self.input(&need, platform)?.hex().as_bytes());
        }
        Ok(Digest::from_hash(&hash.finalize()))
    }

    /// The reference of the image that a recipe gives: devstack's own name, never that of an upstream.
    ///
    /// # Errors
    /// For unknown recipes.
    pub fn reference(&self, name: &str, platform: &Platform) -> Result<String, BuildError> {
        let id = Id::image(name);
        let recipe = self.get(&id)?;
        let input = self.input(&id, platform)?;
        Ok(format!("{LOCAL_REGISTRY}/{name}:{}-{}", recipe.version, input.short()))
    }
}

fn collect(root: &Dir<'_>, dir: &Dir<'_>, files: &mut BTreeMap<String, Vec<u8>>) {
    for file in dir.files() {
        let path = file.path().strip_prefix(root.path()).unwrap_or(file.path());
        files.insert(path.to_string_lossy().into_owned(), file.contents().to_vec());
    }
    for inner in dir.dirs() {
        collect(root, inner, files);
    }
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

    fn check(&self) -> Result<(), BuildError> {
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

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
