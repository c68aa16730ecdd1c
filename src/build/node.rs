//! The node recipe: what `kindest/node` is, from Debian packages, kind's own files and binaries built here.
//!
//! Three layers: the root file system; kind's files, binaries and units; containerd's content with the images of the
//! control plane. The last one is written by containerd itself, which runs on this machine with a directory of its
//! own while `ctr` imports the images. Nothing is unpacked or mounted for that, so no engine is needed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::builder::{Builder, Output, Scratch, oci};
use super::error::BuildError;
use super::go::{module_dir, tool};
use super::recipe::{Id, Kind, NodeRecipe, Recipe};
use super::{debian, image};
use crate::oci::archive::{self, ArchiveFormat};
use crate::oci::{Descriptor, ImageSpec, Layer, Source, StoredImage, assemble};
use crate::ports::runner::Cmd;

/// Where containerd keeps images and its database in a node. kind makes `/var` of a node a volume, and an engine
/// copies what the image has there into each new volume: half a gigabyte a node, before it starts. Elsewhere it is
/// simply there.
const CONTAINERD_ROOT: &str = "kind/containerd";

/// Where containerd keeps unpacked images and the files of containers in a node: they are overlays, which cannot be
/// on the node's own overlay, but can be on the volume.
const SNAPSHOTS: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs";

/// containerd's configuration in a node.
const CONTAINERD_CONFIG: &str = "etc/containerd/config.toml";

/// Where the node looks for the specification that every container starts from.
const BASE_SPEC: &str = "etc/containerd/cri-base.json";

/// The hook of kind's that hides the host's product identity from pods.
const HOOK: &str = "/kind/bin/mount-product-files.sh";

/// How long containerd may take to answer on its socket.
const START: Duration = Duration::from_secs(60);

/// How long the import may take.
const IMPORT: Duration = Duration::from_secs(600);

pub(super) async fn build(
    builder: &Builder,
    recipe: &Recipe,
    node: &NodeRecipe,
    inputs: &BTreeMap<Id, Output>,
) -> Result<Output, BuildError> {
    let scratch = builder.scratch(recipe)?;
    let root = image::layer_of(recipe, inputs, &node.root)?;
    let system = system(builder, recipe, node, inputs).await?;
    let content = content(builder, recipe, node, inputs, &scratch).await?;
    let mut config = image::config(recipe, &node.config);
    config.labels.insert("dev.devstack.packages".to_owned(), package_list(builder, recipe, node)?);
    let reference = builder.recipes.reference(&recipe.id.name, &builder.platform)?;
    let spec = ImageSpec { reference, platform: builder.platform.clone(), config, layers: vec![root, system, content] };
    let image = assemble(&builder.store, &spec).map_err(oci(recipe))?;
    Ok(Output::Image(Box::new(image)))
}

/// The versions of the Debian packages in the node, as `name=version` and sorted.
fn package_list(builder: &Builder, recipe: &Recipe, node: &NodeRecipe) -> Result<String, BuildError> {
    let root = builder.recipes.get(&Id::parts(&node.root))?;
    let Kind::Debian(_) = &root.kind else {
        return Err(recipe.invalid(format!("{} is no Debian recipe", node.root)));
    };
    let packages = debian::packages(&builder.place(root)?);
    Ok(packages.iter().map(|(package, version)| format!("{package}={version}")).collect::<Vec<_>>().join(" "))
}

/// The layer of kind's files, the binaries, and the units.
async fn system(
    builder: &Builder,
    recipe: &Recipe,
    node: &NodeRecipe,
    inputs: &BTreeMap<Id, Output>,
) -> Result<Descriptor, BuildError> {
    let mut layer = Layer::new();
    let kind = builder.recipes.get(&Id::parts(&node.kind))?;
    let base = module_dir(builder, kind, &node.kind_module).await?.join("images").join("base").join("files");
    layer.add_tree(&base, "").map_err(oci(recipe))?;
    kind_permissions(&mut layer).map_err(oci(recipe))?;
    let config = fs::read_to_string(base.join(CONTAINERD_CONFIG)).map_err(BuildError::io("read", &base))?;
    let config = Source::Bytes(containerd_config(&config).into_bytes());
    layer.file(CONTAINERD_CONFIG, config, 0o644).map_err(oci(recipe))?;
    let add = oci(recipe);
    layer.file("kind/version", Source::Bytes(recipe.version.as_bytes().to_vec()), 0o644).map_err(&add)?;
    layer.file(BASE_SPEC, Source::Bytes(base_spec(builder, recipe, node, inputs).await?), 0o644).map_err(&add)?;
    layer.dir("etc/kubernetes/manifests", 0o755).map_err(&add)?;
    image::files(&mut layer, recipe, &node.files, inputs)?;
    for unit in &node.enable {
        let link = format!("etc/systemd/system/multi-user.target.wants/{unit}");
        layer.symlink(&link, &format!("/etc/systemd/system/{unit}")).map_err(&add)?;
    }
    for unit in &node.mask {
        layer.symlink(&format!("etc/systemd/system/{unit}"), "/dev/null").map_err(&add)?;
    }
    for (path, target) in &node.links {
        layer.symlink(path, target).map_err(&add)?;
    }
    let (store, recipe) = (builder.store.clone(), recipe.clone());
    tokio::task::spawn_blocking(move || layer.store(&store).map_err(oci(&recipe)))
        .await
        .map_err(|_| BuildError::Cancelled)?
}

/// kind's configuration of containerd with the directories of this node image. Keys of the document itself come
/// before its tables, so the root goes first.
fn containerd_config(kinds: &str) -> String {
    format!(
        "root = \"/{CONTAINERD_ROOT}\"\n{kinds}\n[plugins.\"io.containerd.snapshotter.v1.overlayfs\"]\n  root_path = \"{SNAPSHOTS}\"\n"
    )
}

/// Gives kind's files the owner and modes of kind's Dockerfile; in Go's module cache they are read-only.
fn kind_permissions(layer: &mut Layer) -> Result<(), crate::oci::OciError> {
    use crate::oci::Entry;
    let found: Vec<(String, Entry)> = layer.entries().map(|(path, entry)| (path.to_owned(), entry.clone())).collect();
    for (path, entry) in found {
        match entry {
            Entry::Dir { .. } => layer.dir(&path, 0o755)?,
            Entry::File { source, .. } => {
                let program = path.starts_with("usr/local/bin/") || path.starts_with("kind/bin/");
                layer.file(&path, source, if program { 0o755 } else { 0o644 })?;
            }
            Entry::Symlink { .. } => {}
        }
    }
    Ok(())
}

/// The specification that every container starts from: containerd's default with kind's hook and without limits.
async fn base_spec(
    builder: &Builder,
    recipe: &Recipe,
    node: &NodeRecipe,
    inputs: &BTreeMap<Id, Output>,
) -> Result<Vec<u8>, BuildError> {
    let cmd = Cmd::new(program(recipe, node, inputs, "ctr")?).args(["oci", "spec"]);
    let output = builder.runner.run(&cmd).await.map_err(tool(recipe))?;
    hooked_spec(&output.stdout).map_err(|reason| BuildError::Result { recipe: recipe.id.to_string(), reason })
}

fn hooked_spec(spec: &[u8]) -> Result<Vec<u8>, String> {
    let mut spec: Value = serde_json::from_slice(spec).map_err(|error| format!("ctr oci spec: {error}"))?;
    let process = spec.pointer_mut("/process").and_then(Value::as_object_mut);
    process.ok_or("ctr oci spec gives no process")?.remove("rlimits");
    let hooks = spec.as_object_mut().ok_or("ctr oci spec gives no object")?.entry("hooks").or_insert_with(|| json!({}));
    let hooks = hooks.as_object_mut().ok_or("ctr oci spec gives no hooks")?.entry("createContainer");
    let hooks = hooks.or_insert_with(|| json!([])).as_array_mut().ok_or("ctr oci spec gives no list of hooks")?;
    hooks.push(json!({ "path": HOOK }));
    serde_json::to_vec_pretty(&spec).map_err(|error| error.to_string())
}

fn program(
    recipe: &Recipe,
    node: &NodeRecipe,
    inputs: &BTreeMap<Id, Output>,
    name: &str,
) -> Result<PathBuf, BuildError> {
    match inputs.get(&Id::parts(&node.containerd)) {
        Some(Output::Binaries(dir)) => Ok(dir.join(name)),
        _ => Err(recipe.invalid(format!("{} gives no binaries", node.containerd))),
    }
}

/// The pod images under the names that a node knows them by.
fn pod_images(
    builder: &Builder,
    recipe: &Recipe,
    node: &NodeRecipe,
    inputs: &BTreeMap<Id, Output>,
) -> Result<Vec<StoredImage>, BuildError> {
    let mut images = Vec::new();
    for name in &node.images {
        let id = Id::image(name);
        let Some(Output::Image(image)) = inputs.get(&id) else {
            return Err(recipe.invalid(format!("{name} gives no image")));
        };
        let aliases = match &builder.recipes.get(&id)?.kind {
            Kind::Layers(layers) => layers.aliases.as_slice(),
            _ => &[],
        };
        if aliases.is_empty() {
            images.push(image.as_ref().clone());
        }
        images.extend(aliases.iter().map(|alias| StoredImage { reference: alias.clone(), ..image.as_ref().clone() }));
    }
    Ok(images)
}

/// The layer of containerd's content.
async fn content(
    builder: &Builder,
    recipe: &Recipe,
    node: &NodeRecipe,
    inputs: &BTreeMap<Id, Output>,
    scratch: &Scratch,
) -> Result<Descriptor, BuildError> {
    let archive = scratch.path().join("images.tar");
    {
        let (store, images, path) =
            (builder.store.clone(), pod_images(builder, recipe, node, inputs)?, archive.clone());
        let recipe = recipe.clone();
        tokio::task::spawn_blocking(move || {
            let file = fs::File::create(&path).map_err(BuildError::io("create", &path))?;
            archive::write(&store, &images, ArchiveFormat::Oci, &[], std::io::BufWriter::new(file))
                .map_err(oci(&recipe))
        })
        .await
        .map_err(|_| BuildError::Cancelled)??;
    }
    let root = scratch.dir("root")?;
    let state = scratch.dir("state")?;
    let socket = scratch.path().join("sock");
    let config = scratch.path().join("config.toml");
    // Only what an import needs: the runtime's own services would look for things that this machine need not have.
    fs::write(
        &config,
        "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
         \"io.containerd.cri.v1.runtime\", \"io.containerd.nri.v1.nri\"]\n",
    )
    .map_err(BuildError::io("write", &config))?;
    let daemon = Cmd::new(program(recipe, node, inputs, "containerd")?)
        .arg("--config")
        .arg(&config)
        .arg("--root")
        .arg(&root)
        .arg("--state")
        .arg(&state)
        .arg("--address")
        .arg(&socket);
    let ctr = program(recipe, node, inputs, "ctr")?;
    let ctr = |words: &[&str]| Cmd::new(&ctr).arg("--address").arg(&socket).args(["-n", "k8s.io"]).args(words);
    let import = async {
        wait_for(&socket).await;
        let label = "--label=io.cri-containerd.image=managed";
        let cmd = ctr(&["images", "import", label, "--digests", "--no-unpack"]).arg(&archive).timeout(IMPORT);
        builder.runner.run(&cmd).await
    };
    tokio::select! {
        ended = builder.runner.run(&daemon) => {
            return Err(match ended {
                Err(source) => tool(recipe)(source),
                Ok(_) => BuildError::Result {
                    recipe: recipe.id.to_string(),
                    reason: "containerd ended by itself".to_owned(),
                },
            });
        }
        imported = import => imported.map_err(tool(recipe))?,
    };
    // Leaving the block above stopped containerd. Its database is written by transactions, and the import's was
    // acknowledged: nothing is lost by that.
    let (store, recipe) = (builder.store.clone(), recipe.clone());
    tokio::task::spawn_blocking(move || content_layer(&root, &recipe, &store))
        .await
        .map_err(|_| BuildError::Cancelled)?
}

fn content_layer(root: &Path, recipe: &Recipe, store: &crate::oci::Store) -> Result<Descriptor, BuildError> {
    let mut layer = Layer::new();
    layer.add_tree(root, CONTAINERD_ROOT).map_err(oci(recipe))?;
    layer.store(store).map_err(oci(recipe))
}

/// Waits until a socket is there; the command that uses it says what is wrong otherwise.
async fn wait_for(socket: &Path) {
    let deadline = tokio::time::Instant::now() + START;
    while !socket.exists() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_is_told_where_its_data_is() {
        insta::assert_snapshot!(containerd_config("version = 2\n[proxy_plugins]"), @r#"
        root = "/kind/containerd"
        version = 2
        [proxy_plugins]
        [plugins."io.containerd.snapshotter.v1.overlayfs"]
          root_path = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs"
        "#);
    }

    #[test]
    fn the_base_specification_has_the_hook_and_no_limits() {
        let spec = br#"{"ociVersion":"1.3.0","process":{"rlimits":[{"type":"RLIMIT_NOFILE"}],"cwd":"/"}}"#;
        let spec: Value = serde_json::from_slice(&hooked_spec(spec).unwrap()).unwrap();
        assert_eq!(spec["process"], json!({"cwd": "/"}));
        assert_eq!(spec["hooks"]["createContainer"], json!([{"path": HOOK}]));
        assert!(hooked_spec(b"[]").is_err());
    }
}
