//! Runs recipes: what is needed first, side by side where nothing forbids it, each result kept for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::Semaphore;

use super::error::BuildError;
use super::recipe::{Id, Kind, Recipe};
use super::recipes::Recipes;
use super::{debian, go, image, node};
use crate::context::Context;
use crate::event::Event;
use crate::oci::{Descriptor, OciError, Platform, Store, StoredImage};
use crate::ports::Runner;

/// Recipes with compilers that run at the same time. Go uses every core by itself; a second one fills the pauses of
/// linking and downloading.
const COMPILERS: usize = 2;

/// What a recipe gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A directory of binaries.
    Binaries(PathBuf),
    /// A layer in the store.
    Layer(Descriptor),
    /// An image in the store.
    Image(Box<StoredImage>),
}

/// One recipe's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    /// What it gave.
    pub output: Output,
    /// Wall time; 0 where it was there.
    pub seconds: f64,
}

/// Builds recipes for one platform.
#[derive(Clone)]
pub struct Builder {
    pub(super) ctx: Context,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) store: Store,
    pub(super) recipes: Arc<Recipes>,
    pub(super) platform: Platform,
}

impl Builder {
    /// A builder with the built-in recipes and the cache's store.
    ///
    /// # Errors
    /// Where the store cannot be opened or a recipe is not valid.
    pub fn new(ctx: &Context, runner: Arc<dyn Runner>, platform: Platform) -> Result<Self, BuildError> {
        Self::with_recipes(ctx, runner, platform, Recipes::builtin()?)
    }

    /// A builder with other recipes.
    ///
    /// # Errors
    /// Where the store cannot be opened.
    pub fn with_recipes(
        ctx: &Context,
        runner: Arc<dyn Runner>,
        platform: Platform,
        recipes: Recipes,
    ) -> Result<Self, BuildError> {
        let store = Store::open(&ctx.dirs.cache)
            .map_err(|source| BuildError::Oci { recipe: "the store".to_owned(), source })?;
        Ok(Self::of(ctx, runner, platform, recipes, store))
    }

    /// A builder of its parts.
    pub(super) fn of(
        ctx: &Context,
        runner: Arc<dyn Runner>,
        platform: Platform,
        recipes: Recipes,
        store: Store,
    ) -> Self {
        Self { ctx: ctx.clone(), runner, store, recipes: Arc::new(recipes), platform }
    }

    /// The recipes.
    pub fn recipes(&self) -> &Recipes {
        &self.recipes
    }

    /// The store that images are built into.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Builds one image.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub async fn image(&self, name: &str, step: &str) -> Result<StoredImage, BuildError> {
        let id = Id::image(name);
        match self.build(std::slice::from_ref(&id), step).await?.remove(&id).map(|built| built.output) {
            Some(Output::Image(image)) => Ok(*image),
            _ => Err(BuildError::Result { recipe: id.to_string(), reason: "it gave no image".to_owned() }),
        }
    }

    /// The recipes that have to run for some targets, needed ones first: what is there already, and what only that
    /// needs, is not among them.
    ///
    /// # Errors
    /// For unknown recipes, circles, or an unreadable store.
    pub fn missing(&self, targets: &[Id]) -> Result<Vec<Id>, BuildError> {
        // A circle is found before anything else is looked at.
        let order: Vec<Id> = self.recipes.closure(targets)?.iter().map(|recipe| recipe.id.clone()).collect();
        let mut wanted: BTreeSet<Id> = targets.iter().cloned().collect();
        let mut missing = Vec::new();
        for id in order.iter().rev() {
            if !wanted.contains(id) {
                continue;
            }
            let recipe = self.recipes.get(id)?;
            if self.present(recipe)?.is_none() {
                wanted.extend(recipe.needs());
                missing.push(id.clone());
            }
        }
        missing.reverse();
        Ok(missing)
    }

    /// About how long a cold build of what is missing takes on two cores, in seconds.
    ///
    /// # Errors
    /// As [`Builder::missing`].
    pub fn expected_seconds(&self, targets: &[Id]) -> Result<u64, BuildError> {
        let missing = self.missing(targets)?;
        missing.iter().map(|id| Ok(self.recipes.get(id)?.expect.seconds)).sum()
    }

    /// Builds some recipes and all that they need; emits [`Event::StepProgress`] for `step`.
    ///
    /// Nothing is lost when it is interrupted: what was finished is found again by the next run.
    ///
    /// # Errors
    /// [`BuildError::Needs`] before anything is started where this machine lacks something; otherwise the first
    /// failure, after which the other builds are stopped.
    pub async fn build(&self, targets: &[Id], step: &str) -> Result<BTreeMap<Id, Built>, BuildError> {
        let mut waiting = self.missing(targets)?;
        // The longest first: one that is begun last ends alone, and the end of a Go build keeps one core busy.
        let seconds = |id: &Id| self.recipes.get(id).map_or(0, |recipe| recipe.expect.seconds);
        waiting.sort_by_key(|id| std::cmp::Reverse(seconds(id)));
        self.check_needs(&waiting).await?;
        let mut done: BTreeMap<Id, Built> = BTreeMap::new();
        let wanted =
            waiting.iter().map(|id| Ok(self.recipes.get(id)?.needs())).collect::<Result<Vec<_>, BuildError>>()?;
        for id in targets.iter().chain(wanted.iter().flatten()).filter(|id| !waiting.contains(id)) {
            if let Some(output) = self.present(self.recipes.get(id)?)? {
                done.insert(id.clone(), Built { output, seconds: 0.0 });
            }
        }
        let total = waiting.len() as u64;
        let mut finished = 0;
        let compilers = Semaphore::new(COMPILERS);
        let mut running = FuturesUnordered::new();
        loop {
            let mut later = Vec::new();
            for id in waiting {
                let recipe = self.recipes.get(&id)?;
                let needs = recipe.needs();
                if needs.iter().all(|need| done.contains_key(need)) {
                    let inputs: BTreeMap<Id, Output> = needs
                        .into_iter()
                        .filter_map(|need| done.get(&need).map(|built| (need, built.output.clone())))
                        .collect();
                    running.push(self.run(recipe, inputs, &compilers));
                } else {
                    later.push(id);
                }
            }
            waiting = later;
            let next = tokio::select! {
                next = running.next() => next,
                () = self.ctx.cancel.cancelled() => return Err(BuildError::Cancelled),
            };
            let Some(result) = next else { break };
            let (id, built) = result?;
            finished += 1;
            self.ctx.events.emit(Event::StepProgress {
                step: step.to_owned(),
                done: finished,
                total: Some(total),
                unit: "recipes",
                detail: format!("{id} {:.1} s", built.seconds),
            });
            done.insert(id, built);
        }
        Ok(done)
    }

    async fn run(
        &self,
        recipe: &Recipe,
        inputs: BTreeMap<Id, Output>,
        compilers: &Semaphore,
    ) -> Result<(Id, Built), BuildError> {
        let output = match &recipe.kind {
            Kind::Go(_) | Kind::Debian(_) => {
                let _permit = compilers.acquire().await.map_err(|_| BuildError::Cancelled)?;
                let started = Instant::now();
                let output = match &recipe.kind {
                    Kind::Go(go) => go::build(self, recipe, go).await?,
                    Kind::Debian(debian) => debian::build(self, recipe, debian).await?,
                    Kind::Layers(_) | Kind::Node(_) => return Err(recipe.invalid("it is no compiler's".to_owned())),
                };
                return Ok((recipe.id.clone(), Built { output, seconds: started.elapsed().as_secs_f64() }));
            }
            Kind::Layers(layers) => (Instant::now(), image::build(self, recipe, layers, &inputs).await?),
            Kind::Node(node) => (Instant::now(), node::build(self, recipe, node, &inputs).await?),
        };
        let (started, output) = output;
        Ok((recipe.id.clone(), Built { output, seconds: started.elapsed().as_secs_f64() }))
    }

    /// A recipe's result, if it is there and whole.
    pub(super) fn present(&self, recipe: &Recipe) -> Result<Option<Output>, BuildError> {
        match &recipe.kind {
            Kind::Go(go) => {
                let dir = self.place(recipe)?.join("bin");
                let whole = go.binaries.keys().all(|binary| has_content(&dir.join(binary)));
                Ok(whole.then_some(Output::Binaries(dir)))
            }
            Kind::Debian(_) => Ok(debian::present(&self.place(recipe)?, &self.store).map(Output::Layer)),
            Kind::Layers(_) | Kind::Node(_) => {
                let reference = self.recipes.reference(&recipe.id.name, &self.platform)?;
                let image = self.store.image(&reference, &self.platform).map_err(oci(recipe))?;
                Ok(image.map(|image| Output::Image(Box::new(image))))
            }
        }
    }

    /// The directory of a recipe's result.
    pub(super) fn place(&self, recipe: &Recipe) -> Result<PathBuf, BuildError> {
        let input = self.recipes.input(&recipe.id, &self.platform)?;
        Ok(self.ctx.dirs.cache.join("builds").join(format!("{}-{}", recipe.id.name, input.short())))
    }

    /// Gives the directory `result` of a recipe's scratch its place. It is on the disk before it has that name, so that
    /// a power cut leaves all of it there or nothing. Another process may have been faster: its result is as good. What
    /// is there and not whole makes room.
    pub(super) async fn keep(&self, recipe: &Recipe, scratch: &Scratch) -> Result<PathBuf, BuildError> {
        let place = self.place(recipe)?;
        let result = scratch.path.join("result");
        let synced = result.clone();
        tokio::task::spawn_blocking(move || sync(&synced)).await.map_err(|_| BuildError::Cancelled)??;
        let mut renamed = fs::rename(&result, &place);
        if renamed.is_err() && self.present(recipe)?.is_none() {
            // Where this fails, the next line says why.
            let _ = fs::rename(&place, scratch.path.join("broken"));
            renamed = fs::rename(&result, &place);
        }
        match renamed {
            Err(_) if self.present(recipe)?.is_some() => {}
            other => other.map_err(BuildError::io("rename", &place))?,
        }
        Ok(place)
    }

    /// A directory for work, removed when dropped.
    pub(super) fn scratch(&self, recipe: &Recipe) -> Result<Scratch, BuildError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!(".{}-{}-{count}", recipe.id.name, std::process::id());
        let path = self.ctx.dirs.cache.join("builds").join(name);
        // A directory of this name is left over from a killed process with the same number.
        remove(&path);
        fs::create_dir_all(&path).map_err(BuildError::io("create", &path))?;
        Ok(Scratch { path })
    }
}

/// A directory for work, removed when dropped.
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes (and gives) a directory inside.
    pub(super) fn dir(&self, name: &str) -> Result<PathBuf, BuildError> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(BuildError::io("create", &path))?;
        Ok(path)
    }

    /// Writes files below a directory inside.
    pub(super) fn write(&self, name: &str, files: &BTreeMap<String, Vec<u8>>) -> Result<PathBuf, BuildError> {
        let dir = self.dir(name)?;
        for (path, content) in files {
            let path = dir.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(BuildError::io("create", parent))?;
            }
            fs::write(&path, content).map_err(BuildError::io("write", &path))?;
        }
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Whether something is in a file. What had no time to reach the disk before a power cut is there and empty.
pub(super) fn has_content(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
}

/// Has a directory written to the disk with everything in it.
fn sync(path: &Path) -> Result<(), BuildError> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(BuildError::io("list", path))? {
            sync(&entry.map_err(BuildError::io("list", path))?.path())?;
        }
    }
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(BuildError::io("sync", path))
}

/// Removes a directory that nobody needs; what cannot be removed is left to `devstack image prune`.
fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

/// Wraps an error of the store.
pub(super) fn oci(recipe: &Recipe) -> impl Fn(OciError) -> BuildError {
    let recipe = recipe.id.to_string();
    move |source| BuildError::Oci { recipe: recipe.clone(), source }
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
