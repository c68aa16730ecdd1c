//! Images: the node image in the engine, workload images in the store and from there in every node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::cluster::blobs;
use crate::error::ExitCode;
use crate::event::{Action, Event};
use crate::executor::Run;
use crate::facts::{self, NodeFacts};
use crate::image::{Choice, Source, in_engine};
use crate::oci::{ArchiveFormat, StoredImage, archive};
use crate::ports::engine::{Container, EngineError};
use crate::step::{Applied, Observed, StepError, World};

/// Brings the node image into the engine.
#[derive(Debug, Clone)]
pub struct NodeImageStep {
    /// The chosen image.
    pub choice: Choice,
}

impl NodeImageStep {
    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("node image {}", self.choice.reference);
        let there = in_engine(&*world.engine, &self.choice).await?.is_some();
        Ok(Observed::new(if there { Action::Leave } else { Action::Create }, what).because(self.choice.why.clone()))
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let (reference, changed) = match in_engine(&*run.world.engine, &self.choice).await? {
            Some(name) => (name, false),
            None => (obtain_node(run, &self.choice, id).await?, true),
        };
        Ok(Applied { detail: reference.clone(), outputs: json!({"reference": reference}), changed })
    }
}

/// Brings workload images into the store, each once, all at a time.
#[derive(Debug, Clone)]
pub struct ObtainStep {
    /// The chosen images.
    pub choices: Vec<Choice>,
}

impl ObtainStep {
    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let images = run.world.images()?;
        let missing: Vec<&Choice> = self
            .choices
            .iter()
            .filter(|choice| !matches!(choice.source, Source::Nodes))
            .filter(|choice| !matches!(images.stored(choice), Ok(Some(_))))
            .collect();
        try_join_all(missing.iter().map(|choice| obtain(run, choice, id))).await?;
        Ok(Applied {
            detail: format!("{0}/{0}", self.choices.len()),
            outputs: Value::Null,
            changed: !missing.is_empty(),
        })
    }
}

/// How often images are sent to a node that breaks off, and after which time.
const ATTEMPTS: u32 = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// Brings workload images from the store into every node: one stream a node, all nodes at a time, each layer once.
#[derive(Debug, Clone)]
pub struct LoadStep {
    /// The chosen images.
    pub choices: Vec<Choice>,
    /// The directory that nodes may link layers from, where the engine can mount it.
    pub blobs: Option<PathBuf>,
}

impl LoadStep {
    fn wanted(&self) -> BTreeSet<&str> {
        self.choices.iter().map(|choice| choice.reference.as_str()).collect()
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("{} images in every node", self.wanted().len());
        let nodes = world.nodes().await?;
        // Those whose source are the nodes were seen there a moment ago, when they were chosen.
        let unseen = self.choices.iter().filter(|choice| choice.source != Source::Nodes);
        let unseen: BTreeSet<&str> = unseen.map(|choice| choice.reference.as_str()).collect();
        let running = nodes.iter().filter(|node| node.state == "running" && !unseen.is_empty());
        let missing = try_join_all(running.map(|node| missing_on(world, &node.id, &unseen))).await?;
        let names: Vec<String> = missing.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect();
        Ok(match (nodes.is_empty(), names.is_empty()) {
            (true, _) => Observed::new(Action::Create, what),
            (false, true) => Observed::new(Action::Leave, what),
            (false, false) => Observed::new(Action::Repair, what).because(format!("missing: {}", names.join(", "))),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let world = run.world;
        let wanted = self.wanted();
        let loaded = format!("{0}/{0}", wanted.len());
        if run.settled {
            return Ok(Applied { detail: loaded, ..Applied::default() });
        }
        let nodes = world.nodes().await?;
        let lists = try_join_all(nodes.iter().map(|node| missing_on(world, &node.id, &wanted))).await?;
        let changed = lists.iter().any(|missing| !missing.is_empty());
        if changed {
            self.check_nodes(world, &nodes).await?;
        }
        try_join_all(nodes.iter().zip(&lists).map(|(node, missing)| async move {
            if missing.is_empty() { Ok(()) } else { self.send(run, id, &node.name, &node.id, missing).await }
        }))
        .await?;
        Ok(Applied { detail: loaded, outputs: Value::Null, changed })
    }

    /// The images were chosen by the engine's CPU before there were nodes; what the nodes themselves see decides.
    async fn check_nodes(&self, world: &World, nodes: &[Container]) -> Result<(), StepError> {
        let read = nodes.iter().map(|node| async {
            let cpu = facts::read_node_cpu(&*world.engine, &node.id).await?;
            Ok::<_, StepError>(NodeFacts { name: node.name.clone(), cpu, ..NodeFacts::default() })
        });
        runs_on(&self.choices, &try_join_all(read).await?)
    }

    async fn send(
        &self,
        run: &Run<'_>,
        id: &str,
        name: &str,
        node: &str,
        missing: &BTreeSet<String>,
    ) -> Result<(), StepError> {
        let places = run.world.images()?;
        let mut images = Vec::new();
        for choice in self.choices.iter().filter(|choice| missing.contains(&choice.reference)) {
            let stored = match places.stored(choice) {
                Ok(Some(stored)) => stored,
                // It was on the nodes when the plan was made and has been taken away since.
                _ => obtain(run, choice, id).await?,
            };
            images.push(stored);
        }
        let layers = images.iter().flat_map(|image| &image.layers);
        let layers: BTreeMap<_, _> = layers.map(|layer| (layer.digest.clone(), layer.size)).collect();
        let offered =
            self.blobs.as_ref().map(|directory| blobs::offer(places.store(), &layers, directory)).unwrap_or_default();
        // Unpacking waits for a container's first use: it would compete with the starting control plane.
        let import = ["ctr", "-n", "k8s.io", "images", "import", "--no-unpack", "--digests", "-"];
        let wanted = missing.iter().map(String::as_str).collect();
        let mut attempts = 0;
        loop {
            let linked = blobs::link(&*run.world.engine, node, &offered).await;
            let streamed: u64 =
                layers.iter().filter(|(digest, _)| !linked.contains(digest)).map(|(_, size)| size).sum();
            run.waiting(id, format!("{} images, {} MB, to {name}", images.len(), streamed / 1_000_000));
            let archive = archive::export_without(places.store(), &images, ArchiveFormat::Oci, &linked);
            let done = run.world.engine.exec(node, &import, Some(archive)).await?;
            let said = if done.status != 0 {
                String::from_utf8_lossy(&done.stderr).trim().to_owned()
            } else if blobs::kept(&*run.world.engine, node, &linked).await != linked {
                "layers that it had are gone".to_owned()
            } else {
                match missing_on(run.world, node, &wanted).await?.first() {
                    None => return Ok(()),
                    Some(first) => format!("it took the images, but {first} is not there"),
                }
            };
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(StepError::message(format!("node {name} did not take the images: {said}")));
            }
            // kind restarts a node's containerd after it has written its configuration.
            run.waiting(id, format!("{name} broke off, images are sent again"));
            run.ctx.clock.sleep(AGAIN).await;
        }
    }
}

/// Refuses images that the weakest node cannot run. Of a node that does not tell its level, or has none, the choice by
/// the engine stands.
fn runs_on(choices: &[Choice], nodes: &[NodeFacts]) -> Result<(), StepError> {
    let levels = nodes.iter().filter_map(|node| Some((node.cpu.level?, &node.name)));
    let Some((level, name)) = levels.min() else { return Ok(()) };
    match choices.iter().find(|choice| !choice.runs_on(Some(level))) {
        None => Ok(()),
        Some(choice) => Err(StepError::Other {
            message: format!(
                "{} needs a CPU of level {}, and node {name} has only {level} [cpu.x86-64-level]",
                choice.reference, choice.cpu
            ),
            hint: Some(format!("devstack image resolve {} --cpu {level} shows what runs there", choice.role)),
            exit: ExitCode::Failed,
        }),
    }
}

/// Brings one image into the store, telling how far it is.
pub(super) async fn obtain(run: &Run<'_>, choice: &Choice, id: &str) -> Result<StoredImage, StepError> {
    let progress = |done: u64, total: u64| {
        run.ctx.events.emit(Event::StepProgress {
            step: id.to_owned(),
            done,
            total: Some(total),
            unit: "bytes",
            detail: choice.reference.clone(),
        });
    };
    run.world.images()?.obtain(choice, id, &progress).await.map_err(|error| StepError::of(&error))
}

/// Brings the node image into the engine, where the provider takes it from, and gives its name there.
async fn obtain_node(run: &Run<'_>, choice: &Choice, id: &str) -> Result<String, StepError> {
    let world = run.world;
    match &choice.source {
        Source::Mirror { pull } | Source::Registry { pull } => {
            let reference = pull.to_string();
            let progress = |done: u64, total: u64| {
                let detail = choice.reference.clone();
                let step = id.to_owned();
                run.ctx.events.emit(Event::StepProgress { step, done, total: Some(total), unit: "bytes", detail });
            };
            let platform = choice.platform.to_string();
            let login = match world.images() {
                Ok(images) => images.login(pull.registry()).await,
                Err(_) => None,
            };
            if let Err(error) = world.engine.pull_image(&reference, &platform, login.as_ref(), &progress).await {
                // A registry that devstack was told to speak to without TLS, or one on this machine's loopback with an
                // engine in a virtual machine: what devstack can fetch need not be within the engine's reach.
                run.waiting(id, format!("the engine cannot pull it ({error}), it is fetched for it"));
                return load_node(run, choice, id).await;
            }
            // What is pulled by its digest has no name, by which people know it. One that is taken stays whose it is.
            if world.engine.image(&choice.reference).await?.is_some() {
                return Ok(pull.to_string());
            }
            world.engine.tag_image(&reference, &choice.reference).await?;
            Ok(choice.reference.clone())
        }
        Source::Store | Source::Build { .. } => load_node(run, choice, id).await,
        Source::Nodes | Source::Engine => {
            Err(StepError::message(format!("{} was in the engine and is gone", choice.reference)))
        }
    }
}

/// Loads the node image out of devstack's store into the engine.
async fn load_node(run: &Run<'_>, choice: &Choice, id: &str) -> Result<String, StepError> {
    let stored = obtain(run, choice, id).await?;
    run.waiting(id, format!("loading {} into the engine", choice.reference));
    let archive = archive::export(run.world.images()?.store(), &[stored], ArchiveFormat::Docker);
    run.world.engine.load_image(archive).await?;
    Ok(choice.reference.clone())
}

/// Which of the wanted references a node's container runtime does not know.
async fn missing_on(world: &World, node: &str, wanted: &BTreeSet<&str>) -> Result<BTreeSet<String>, EngineError> {
    let list = world.engine.exec(node, &["ctr", "-n", "k8s.io", "images", "ls", "-q"], None).await?;
    let text = list.text();
    let there: BTreeSet<&str> = text.lines().collect();
    Ok(wanted.iter().filter(|reference| !there.contains(**reference)).map(|&reference| reference.to_owned()).collect())
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
