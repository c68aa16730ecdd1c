//! Builds from ordinary package registries what no image registry gives.

mod builder;
mod debian;
mod error;
mod glob;
mod go;
mod image;
mod needs;
mod node;
mod prune;
mod recipe;
mod recipes;
mod tool;

pub use builder::{Builder, Built, Output};
pub use error::{BuildError, Unmet};
pub use needs::host_platform;
pub use prune::{Pruned, Pruner, Scope};
pub use recipe::{Gives, Id, Kind, Recipe};
pub use recipes::{LOCAL_REGISTRY, Recipes};

use std::path::PathBuf;
use std::sync::Arc;

use crate::context::Context;
use crate::oci::{Platform, StoredImage};
use crate::ports::Runner;

/// Builds the image of a recipe into the store, and whatever it needs; what is there already costs milliseconds.
///
/// # Errors
/// [`BuildError::Needs`] before anything is started where this machine lacks something; otherwise whatever fails.
pub async fn build_image(
    ctx: &Context,
    runner: Arc<dyn Runner>,
    name: &str,
    platform: &Platform,
    step: &str,
) -> Result<StoredImage, BuildError> {
    Builder::new(ctx, runner, platform.clone())?.image(name, step).await
}

/// A program that devstack itself runs, built from its module: `kind`.
///
/// # Errors
/// As [`build_image`].
pub async fn tool(ctx: &Context, runner: Arc<dyn Runner>, name: &str, step: &str) -> Result<PathBuf, BuildError> {
    Builder::new(ctx, runner, host_platform())?.tool(name, step).await
}
