//! All recipes: read from directories, found by name, ordered by what they need, identified by what goes in.

use std::collections::{BTreeMap, BTreeSet};

use include_dir::Dir;
use serde::Deserialize;
use sha2::Digest as _;

use super::error::BuildError;
use super::recipe::{DebianRecipe, Expect, Gives, GoRecipe, Id, Kind, LayersRecipe, NodeRecipe, Recipe};
use crate::oci::{Digest, Platform};

/// Raised when the way of building changes so that earlier results are no longer the same.
const FORMAT: u32 = 1;

/// As [`FORMAT`], for nodes alone: their layers are laid out by code.
const NODE_FORMAT: u32 = 2;

/// The registry part of the references of built images; no registry answers to it.
pub const LOCAL_REGISTRY: &str = "devstack.local";

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

#[cfg(test)]
#[path = "recipes_tests.rs"]
mod tests;
