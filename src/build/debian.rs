//! Debian recipes: a layer from packages, either a few files of them or a whole root file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::builder::{Builder, Output, Scratch, oci};
use super::error::BuildError;
use super::glob::covers;
use super::go::tool;
use super::recipe::{DebianRecipe, Recipe};
use crate::oci::{Descriptor, Layer, Store};
use crate::ports::runner::Cmd;

/// The record beside a layer.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    layer: Descriptor,
    /// Package → the version that was current when it was built.
    packages: BTreeMap<String, String>,
}

/// The layer that was built earlier, if it is still in the store.
pub(super) fn present(place: &Path, store: &Store) -> Option<Descriptor> {
    Some(record(place)?.layer).filter(|layer| store.has_whole(layer))
}

/// The versions of the packages in a layer that was built earlier.
pub(super) fn packages(place: &Path) -> BTreeMap<String, String> {
    record(place).map(|record| record.packages).unwrap_or_default()
}

fn record(place: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(place.join("layer.json")).ok()?).ok()
}

pub(super) async fn build(builder: &Builder, recipe: &Recipe, debian: &DebianRecipe) -> Result<Output, BuildError> {
    let scratch = builder.scratch(recipe)?;
    let tree = scratch.dir("tree")?;
    let packages = match &debian.bootstrap {
        Some(suite) => bootstrap(builder, recipe, debian, suite, &tree).await?,
        None => unpack(builder, recipe, debian, &scratch, &tree).await?,
    };
    let descriptor = {
        let (store, debian, recipe) = (builder.store.clone(), debian.clone(), recipe.clone());
        tokio::task::spawn_blocking(move || -> Result<Descriptor, BuildError> {
            let mut layer = Layer::new();
            layer.add_tree(&tree, "").map_err(oci(&recipe))?;
            // Root alone makes a whole system, with the owners that its packages want. What is only unpacked belongs on
            // disk to whoever does it.
            if debian.bootstrap.is_none() {
                layer.give_to_root();
            }
            select(&mut layer, &debian);
            for (path, target) in &debian.links {
                layer.symlink(path, target).map_err(oci(&recipe))?;
            }
            if layer.is_empty() {
                return Err(recipe.invalid("nothing of its packages is kept".to_owned()));
            }
            layer.store(&store).map_err(oci(&recipe))
        })
        .await
        .map_err(|_| BuildError::Cancelled)??
    };
    let result = scratch.dir("result")?;
    let record = Record { layer: descriptor.clone(), packages };
    let bytes = serde_json::to_vec_pretty(&record).map_err(|error| recipe.invalid(error.to_string()))?;
    let path = result.join("layer.json");
    fs::write(&path, bytes).map_err(BuildError::io("write", &path))?;
    builder.keep(recipe, &scratch).await?;
    Ok(Output::Layer(descriptor))
}

/// Leaves in a layer what a recipe wants of it.
fn select(layer: &mut Layer, debian: &DebianRecipe) {
    let kept: Vec<String> = layer
        .entries()
        .map(|(path, _)| path)
        .filter(|path| debian.keep.is_empty() || debian.keep.iter().any(|pattern| covers(pattern, path)))
        .filter(|path| !debian.drop.iter().any(|pattern| covers(pattern, path)))
        .map(ToOwned::to_owned)
        .collect();
    let mut wanted: std::collections::BTreeSet<&str> = kept.iter().map(String::as_str).collect();
    for path in &kept {
        wanted.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    layer.retain(|path| wanted.contains(path));
}

/// A whole root file system, made by debootstrap.
async fn bootstrap(
    builder: &Builder,
    recipe: &Recipe,
    debian: &DebianRecipe,
    suite: &str,
    tree: &Path,
) -> Result<BTreeMap<String, String>, BuildError> {
    let cmd = Cmd::new("debootstrap")
        .arg("--variant=minbase")
        .arg(format!("--include={}", debian.packages.join(",")))
        .arg(suite)
        .arg(tree);
    builder.runner.run(&cmd).await.map_err(tool(recipe))?;
    let admin = tree.join("var").join("lib").join("dpkg");
    let cmd = Cmd::new("dpkg-query").arg("--admindir").arg(admin).args(["-W", "-f", "${Package} ${Version}\n"]);
    let output = builder.runner.run(&cmd).await.map_err(tool(recipe))?;
    Ok(versions(&output.text()))
}

/// A few packages, unpacked without running any of their scripts.
async fn unpack(
    builder: &Builder,
    recipe: &Recipe,
    debian: &DebianRecipe,
    scratch: &Scratch,
    tree: &Path,
) -> Result<BTreeMap<String, String>, BuildError> {
    let downloads = scratch.dir("downloads")?;
    let cmd = Cmd::new("apt-get").args(["download", "-q"]).args(&debian.packages).cwd(&downloads);
    builder.runner.run(&cmd).await.map_err(tool(recipe))?;
    let mut packages = BTreeMap::new();
    for entry in fs::read_dir(&downloads).map_err(BuildError::io("list", &downloads))? {
        let archive = entry.map_err(BuildError::io("list", &downloads))?.path();
        let cmd = Cmd::new("dpkg-deb").arg("-x").arg(&archive).arg(tree);
        builder.runner.run(&cmd).await.map_err(tool(recipe))?;
        let cmd = Cmd::new("dpkg-deb").args(["-W", "--showformat", "${Package} ${Version}\n"]).arg(&archive);
        packages.extend(versions(&builder.runner.run(&cmd).await.map_err(tool(recipe))?.text()));
    }
    Ok(packages)
}

fn versions(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(package, version)| (package.to_owned(), version.to_owned()))
        .collect()
}

#[cfg(test)]
#[path = "debian_tests.rs"]
mod tests;
