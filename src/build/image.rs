//! Layers recipes: an image from layers of other recipes and a layer of files.

use std::collections::BTreeMap;

use super::builder::{Builder, Output, oci};
use super::error::BuildError;
use super::recipe::{ConfigItem, FileItem, Id, LayersRecipe, Origin, Recipe, octal};
use crate::oci::{ImageSpec, Layer, RunConfig, Source, assemble};

/// The search path in images that name none: a container without `PATH` cannot find its own command.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the recipe of an image is named in it.
const RECIPE_LABEL: &str = "dev.devstack.recipe";

pub(super) async fn build(
    builder: &Builder,
    recipe: &Recipe,
    layers: &LayersRecipe,
    inputs: &BTreeMap<Id, Output>,
) -> Result<Output, BuildError> {
    let mut stack = Vec::new();
    for base in &layers.base {
        stack.push(layer_of(recipe, inputs, base)?);
    }
    let reference = builder.recipes.reference(&recipe.id.name, &builder.platform)?;
    let mut top = Layer::new();
    essentials(&mut top).map_err(oci(recipe))?;
    for (path, mode) in &layers.dirs {
        let mode = octal(mode).map_err(|reason| recipe.invalid(reason))?;
        top.dir(path, mode).map_err(oci(recipe))?;
    }
    files(&mut top, recipe, &layers.files, inputs)?;
    for (path, target) in &layers.links {
        top.symlink(path, target).map_err(oci(recipe))?;
    }
    let config = config(recipe, &layers.config);
    let (store, platform, recipe) = (builder.store.clone(), builder.platform.clone(), recipe.clone());
    let image = tokio::task::spawn_blocking(move || {
        stack.push(top.store(&store)?);
        assemble(&store, &ImageSpec { reference, platform, config, layers: stack })
    });
    let image = image.await.map_err(|_| BuildError::Cancelled)?.map_err(oci(&recipe))?;
    Ok(Output::Image(Box::new(image)))
}

/// What programs expect anywhere: users that are known by name and a directory for temporary files.
fn essentials(layer: &mut Layer) -> Result<(), crate::oci::OciError> {
    let text = |text: &str| Source::Bytes(text.as_bytes().to_vec());
    layer.file("etc/passwd", text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"), 0o644)?;
    layer.file("etc/group", text("root:x:0:\nnogroup:x:65534:\n"), 0o644)?;
    layer.dir("root", 0o700)?;
    layer.dir("tmp", 0o1777)
}

/// The layer of a Debian recipe.
pub(super) fn layer_of(
    recipe: &Recipe,
    inputs: &BTreeMap<Id, Output>,
    name: &str,
) -> Result<crate::oci::Descriptor, BuildError> {
    match inputs.get(&Id::parts(name)) {
        Some(Output::Layer(layer)) => Ok(layer.clone()),
        _ => Err(recipe.invalid(format!("{name} gives no layer"))),
    }
}

/// Puts the files of a recipe into a layer.
pub(super) fn files(
    layer: &mut Layer,
    recipe: &Recipe,
    items: &[FileItem],
    inputs: &BTreeMap<Id, Output>,
) -> Result<(), BuildError> {
    for item in items {
        let source = match item.from().map_err(|reason| recipe.invalid(reason))? {
            Origin::Binary { recipe: from, binary } => match inputs.get(&Id::parts(from)) {
                Some(Output::Binaries(dir)) => Source::File(dir.join(binary)),
                _ => return Err(recipe.invalid(format!("{from} gives no binaries"))),
            },
            Origin::Asset(asset) => Source::Bytes(recipe.files.get(asset).cloned().unwrap_or_default()),
            Origin::Text(text) => Source::Bytes(text.as_bytes().to_vec()),
        };
        let mode = item.permissions().map_err(|reason| recipe.invalid(reason))?;
        layer.file(&item.to, source, mode).map_err(oci(recipe))?;
    }
    Ok(())
}

/// How containers of an image run.
pub(super) fn config(recipe: &Recipe, item: &ConfigItem) -> RunConfig {
    let mut env = item.env.clone();
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.insert(0, PATH.to_owned());
    }
    let labels = [
        (RECIPE_LABEL, recipe.id.name.as_str()),
        ("org.opencontainers.image.version", &recipe.version),
        ("org.opencontainers.image.licenses", &recipe.license),
    ];
    RunConfig {
        user: item.user.clone(),
        env,
        entrypoint: item.entrypoint.clone(),
        cmd: item.cmd.clone(),
        working_dir: item.working_dir.clone(),
        exposed_ports: item.ports.iter().map(|port| (port.clone(), Default::default())).collect(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        stop_signal: item.stop_signal.clone(),
    }
}
