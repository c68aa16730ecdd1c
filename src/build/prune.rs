//! Removes what builds and downloads left in the cache.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::builder::Builder;
use super::error::BuildError;
use super::recipe::Gives;
use super::recipes::{LOCAL_REGISTRY, Recipes};
use crate::context::Context;
use crate::oci::{OciError, Platform, Store};
use crate::ports::Runner;

/// A directory of this age belongs to no build that still runs.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// How much is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What nothing leads to: results of recipes as they were earlier, leftovers of killed runs, unnamed blobs.
    Stale,
    /// All images, builds and tools.
    Everything,
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Images of the store.
    pub images: u64,
    /// Results of recipes, tools among them.
    pub builds: u64,
    /// Bytes of disk.
    pub bytes: u64,
}

/// The cache with nobody else at work in it: who opens its store meanwhile waits.
pub struct Pruner(Builder);

impl Pruner {
    /// Takes the cache.
    ///
    /// # Errors
    /// [`BuildError::InUse`] while another devstack works with it; else as [`Builder::new`].
    pub fn new(ctx: &Context, runner: Arc<dyn Runner>, platform: Platform) -> Result<Self, BuildError> {
        Self::with_recipes(ctx, runner, platform, Recipes::builtin()?)
    }

    /// As [`Pruner::new`] with other recipes.
    pub(super) fn with_recipes(
        ctx: &Context,
        runner: Arc<dyn Runner>,
        platform: Platform,
        recipes: Recipes,
    ) -> Result<Self, BuildError> {
        let cache = &ctx.dirs.cache;
        let store = Store::open_alone(cache).map_err(store_error)?;
        let store = store.ok_or_else(|| BuildError::InUse { cache: cache.clone() })?;
        Ok(Self(Builder::of(ctx, runner, platform, recipes, store)))
    }

    /// Removes what the scope says from the cache. Images in the engine are the engine's.
    ///
    /// # Errors
    /// Where something cannot be read or removed; what was removed until then is gone.
    pub fn prune(&self, scope: Scope) -> Result<Pruned, BuildError> {
        let Self(builder) = self;
        let mut pruned = Pruned::default();
        let mut places = BTreeSet::new();
        let mut references = BTreeSet::new();
        for recipe in builder.recipes.all() {
            match recipe.id.gives {
                Gives::Parts => {
                    places.insert(builder.place(recipe)?);
                    // Where it is a tool, a bundle may have brought it as an image, and nothing else here has it.
                    references.insert(builder.tool_reference(recipe)?)
                }
                Gives::Image => references.insert(builder.recipes.reference(&recipe.id.name, &builder.platform)?),
            };
        }
        for (reference, platform) in builder.store.references().map_err(store_error)? {
            let ours = reference.starts_with(&format!("{LOCAL_REGISTRY}/")) && platform == builder.platform;
            let stale = ours && !references.contains(&reference);
            if stale || scope == Scope::Everything {
                builder.store.untag(&reference, &platform).map_err(store_error)?;
                pruned.images += 1;
            }
        }
        let builds = builder.ctx.dirs.cache.join("builds");
        for path in children(&builds)? {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let wanted = if hidden { !abandoned(&path) } else { places.contains(&path) };
            if wanted && scope == Scope::Stale {
                continue;
            }
            pruned.bytes += size(&path);
            pruned.builds += u64::from(!hidden);
            fs::remove_dir_all(&path).map_err(BuildError::io("remove", &path))?;
        }
        let freed = match scope {
            Scope::Stale => builder.store.prune(),
            Scope::Everything => builder.store.prune_older_than(Duration::ZERO),
        };
        pruned.bytes += freed.map_err(store_error)?.bytes;
        Ok(pruned)
    }
}

fn store_error(source: OciError) -> BuildError {
    BuildError::Oci { recipe: "the store".to_owned(), source }
}

fn abandoned(path: &Path) -> bool {
    let modified = fs::metadata(path).and_then(|meta| meta.modified());
    modified.ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > ABANDONED)
}

fn children(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(BuildError::io("list", dir))?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(BuildError::io("list", dir)(error)),
    }
}

/// Bytes of the files below a directory; what cannot be read counts nothing.
fn size(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    if !meta.is_dir() {
        return meta.len();
    }
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| size(&entry.path())).sum())
}
