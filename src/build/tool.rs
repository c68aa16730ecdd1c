//! Programs that devstack itself runs, as images: so a bundle carries them like everything else.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use super::builder::{Builder, Output, Scratch, oci};
use super::error::{BuildError, Unmet};
use super::needs::this_machine;
use super::recipe::{Id, Kind, Recipe};
use super::recipes::LOCAL_REGISTRY;
use crate::oci::{ImageSpec, Layer, RunConfig, Source, StoredImage, assemble};

/// No program is larger; a bundle's may come from anywhere.
const MAX_PROGRAM: u64 = 1 << 30;

impl Builder {
    /// Builds a Go recipe with a binary of the same name, and gives the binary's path. One that a bundle brought is
    /// taken from it.
    ///
    /// # Errors
    /// [`BuildError::Needs`] where this machine cannot run it; else as [`Builder::build`].
    pub async fn tool(&self, name: &str, step: &str) -> Result<PathBuf, BuildError> {
        let here = this_machine();
        if self.platform != here {
            let unmet = vec![Unmet::Program { name: name.to_owned(), made: self.platform.clone(), here }];
            return Err(BuildError::Needs { recipe: name.to_owned(), unmet });
        }
        let id = Id::parts(name);
        let recipe = self.recipes.get(&id)?;
        if let Some(scratch) = self.unpack_tool(recipe)? {
            return Ok(self.keep(recipe, &scratch).await?.join("bin").join(name));
        }
        match self.build(std::slice::from_ref(&id), step).await?.remove(&id).map(|built| built.output) {
            Some(Output::Binaries(dir)) => Ok(dir.join(name)),
            _ => Err(BuildError::Result { recipe: id.to_string(), reason: "it gave no binary".to_owned() }),
        }
    }

    /// Whether a tool needs no build, and runs here.
    ///
    /// # Errors
    /// For unknown recipes or an unreadable store.
    pub fn has_tool(&self, name: &str) -> Result<bool, BuildError> {
        if self.platform != this_machine() {
            return Ok(false);
        }
        let recipe = self.recipes.get(&Id::parts(name))?;
        let image = self.store.image(&self.tool_reference(recipe)?, &self.platform).map_err(oci(recipe))?;
        Ok(image.is_some() || self.present(recipe)?.is_some())
    }

    /// A tool as an image. The one that a bundle brought may be for other machines, too.
    ///
    /// # Errors
    /// As [`Builder::tool`].
    pub async fn tool_image(&self, name: &str, step: &str) -> Result<StoredImage, BuildError> {
        let recipe = self.recipes.get(&Id::parts(name))?;
        let reference = self.tool_reference(recipe)?;
        if let Some(image) = self.store.image(&reference, &self.platform).map_err(oci(recipe))? {
            return Ok(image);
        }
        let path = self.tool(name, step).await?;
        let mut layer = Layer::new();
        layer.file(name, Source::File(path), 0o755).map_err(oci(recipe))?;
        let layers = vec![layer.store(&self.store).map_err(oci(recipe))?];
        let config = RunConfig { entrypoint: vec![format!("/{name}")], ..RunConfig::default() };
        let spec = ImageSpec { reference, platform: self.platform.clone(), config, layers };
        assemble(&self.store, &spec).map_err(oci(recipe))
    }

    pub(super) fn tool_reference(&self, recipe: &Recipe) -> Result<String, BuildError> {
        let input = self.recipes.input(&recipe.id, &self.platform)?;
        Ok(format!("{LOCAL_REGISTRY}/tools/{}:{}-{}", recipe.id.name, recipe.version, input.short()))
    }

    /// Takes a tool out of its image where there is one and the tool itself is not there.
    fn unpack_tool(&self, recipe: &Recipe) -> Result<Option<Scratch>, BuildError> {
        let Kind::Go(go) = &recipe.kind else { return Ok(None) };
        let name = recipe.id.name.as_str();
        if self.present(recipe)?.is_some() || go.binaries.len() != 1 || !go.binaries.contains_key(name) {
            return Ok(None);
        }
        let Some(image) = self.store.image(&self.tool_reference(recipe)?, &self.platform).map_err(oci(recipe))? else {
            return Ok(None);
        };
        let Some(layer) = image.layers.first() else { return Ok(None) };
        let strange = |what: &str| BuildError::Result {
            recipe: recipe.id.to_string(),
            reason: format!("the image of the tool {what}"),
        };
        let blob = self.store.blob_path(&layer.digest);
        let file = fs::File::open(&blob).map_err(BuildError::io("read", &blob))?;
        let mut archive = tar::Archive::new(file);
        let mut entries = archive.entries().map_err(BuildError::io("read", &blob))?;
        let entry = entries.next().ok_or_else(|| strange("is empty"))?.map_err(BuildError::io("read", &blob))?;
        if !entry.header().entry_type().is_file() || *entry.path_bytes() != *name.as_bytes() {
            return Err(strange("holds something else"));
        }
        if entry.size() == 0 {
            // It was made of a program that a power cut had emptied.
            return Ok(None);
        }
        if entry.size() > MAX_PROGRAM {
            return Err(strange("is too large"));
        }
        let scratch = self.scratch(recipe)?;
        let path = scratch.dir("result/bin")?.join(name);
        let mut output = fs::File::create(&path).map_err(BuildError::io("create", &path))?;
        std::io::copy(&mut entry.take(MAX_PROGRAM), &mut output).map_err(BuildError::io("write", &path))?;
        executable(&path)?;
        Ok(Some(scratch))
    }
}

#[cfg(unix)]
fn executable(path: &std::path::Path) -> Result<(), BuildError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(BuildError::io("change", path))
}

#[cfg(not(unix))]
fn executable(_: &std::path::Path) -> Result<(), BuildError> {
    Ok(())
}
