//! A cluster that minikube makes, and images for its nodes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use futures::StreamExt as _;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::access::kubeconfig;
use crate::cluster::minikube::{self, Known, MinikubeSpec, Told};
use crate::event::Action;
use crate::executor::Run;
use crate::image::Choice;
use crate::journal::Undo;
use crate::oci::{ArchiveFormat, archive};
use crate::ports::Runner;
use crate::ports::runner::{Cmd, RunError, Stream};
use crate::step::cluster::bound;
use crate::step::images::obtain;
use crate::step::{Applied, Observed, StepError, World};

/// Makes the cluster, or starts it where it has stopped, and connects to it.
#[derive(Debug, Clone)]
pub struct MinikubeStep {
    /// What minikube is asked for.
    pub spec: MinikubeSpec,
}

impl MinikubeStep {
    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let nodes = if self.spec.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", self.spec.nodes) };
        let what = format!("minikube profile {}, {nodes}", self.spec.name);
        Ok(match look(&*world.runner, &self.spec).await? {
            None => Observed::new(Action::Create, what),
            Some(Known { running: true, nodes, .. }) if nodes == usize::from(self.spec.nodes) => {
                Observed::new(Action::Leave, what)
            }
            Some(Known { running: true, nodes, .. }) => {
                Observed::new(Action::Repair, what).because(format!("it has {nodes} nodes"))
            }
            Some(_) => Observed::new(Action::Repair, what).because("it does not run"),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let world = run.world;
        let wanted = usize::from(self.spec.nodes);
        let ready =
            |known: &Option<Known>| matches!(known, Some(Known { running: true, nodes, .. }) if *nodes == wanted);
        let before = look(&*world.runner, &self.spec).await?;
        let started = !ready(&before);
        if started {
            if before.is_none() {
                run.intend(id, vec![Undo::MinikubeCluster { name: self.spec.name.clone() }])?;
            }
            self.start(run, id).await?;
            // Never believe: what it says of itself is asked for again.
            let after = look(&*world.runner, &self.spec).await?;
            if !ready(&after) {
                return Err(StepError::message(format!(
                    "minikube ended well, but its profile {} is not as it was asked for: {after:?}",
                    self.spec.name
                )));
            }
        }
        let text = kubeconfig::extract(&*world.ctx.fs, &[own_file(world)], Some(&self.spec.name), &self.spec.name);
        let text = text.map_err(|error| StepError::of(&error))?.text;
        world.connect(&text).await?;
        let path = world.kubeconfig();
        let known = world.ctx.fs.read(&path).map_err(StepError::reading(&path))?;
        let written = known.as_deref() != Some(text.as_bytes());
        if written {
            world.ctx.fs.write(&path, text.as_bytes(), 0o600).map_err(StepError::writing(&path))?;
        }
        let applied = bound(run, written).await?;
        Ok(Applied { changed: applied.changed || started, ..applied })
    }

    async fn start(&self, run: &Run<'_>, id: &str) -> Result<(), StepError> {
        let cmd = self.spec.start(&own_file(run.world));
        let tell = |stream, line: &str| match minikube::told(line) {
            Some(Told::Step { current, total, message, .. }) if stream == Stream::Stdout => {
                run.waiting(id, format!("minikube {current}/{total}: {message}"));
            }
            Some(Told::Warning(message)) => run.ctx.events.warn(format!("minikube: {message}")),
            _ => {}
        };
        run.world.runner.stream(&cmd, &tell).await.map(drop).map_err(explained)
    }
}

/// minikube's own kubeconfig of the environment. The user's is never given to it.
pub(crate) fn own_file(world: &World) -> PathBuf {
    world.dir.join("kubeconfig.minikube")
}

/// What minikube says of the profile.
pub(crate) async fn look(runner: &dyn Runner, spec: &MinikubeSpec) -> Result<Option<Known>, StepError> {
    Ok(minikube::known(&ask(runner, &spec.profiles()).await?, &spec.name))
}

async fn ask(runner: &dyn Runner, cmd: &Cmd) -> Result<String, StepError> {
    Ok(runner.run(cmd).await.map_err(explained)?.text())
}

/// The reason that minikube's events give.
pub(crate) fn explained(error: RunError) -> StepError {
    match error {
        RunError::Failed { code, stdout, stderr, .. } => minikube::reason(code, &stdout, &stderr).into_error(),
        other => other.into(),
    }
}

/// Brings workload images from the store to minikube's nodes.
#[derive(Debug, Clone)]
pub struct MinikubeLoadStep {
    /// The cluster.
    pub spec: MinikubeSpec,
    /// The images.
    pub choices: Vec<Choice>,
}

impl MinikubeLoadStep {
    async fn missing(&self, world: &World) -> Result<Vec<&Choice>, StepError> {
        let text = ask(&*world.runner, &self.spec.images()).await?;
        let there: BTreeSet<&str> = text.lines().map(str::trim).collect();
        let mut seen = BTreeSet::new();
        let missing = self.choices.iter().filter(|choice| !there.contains(choice.reference.as_str()));
        Ok(missing.filter(|choice| seen.insert(&choice.reference)).collect())
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("{} images in every node", self.choices.len());
        if !matches!(look(&*world.runner, &self.spec).await?, Some(Known { running: true, .. })) {
            return Ok(Observed::new(Action::Create, what));
        }
        let missing: Vec<&str> = self.missing(world).await?.iter().map(|choice| choice.role.as_str()).collect();
        Ok(match missing.as_slice() {
            [] => Observed::new(Action::Leave, what),
            missing => Observed::new(Action::Repair, what).because(format!("missing: {}", missing.join(", "))),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let missing = self.missing(run.world).await?;
        let detail = format!("{0}/{0}", self.choices.len());
        if missing.is_empty() {
            return Ok(Applied { detail, ..Applied::default() });
        }
        let file = run.world.dir.join("images.tar");
        let written = self.write(run, id, &missing, &file).await;
        let loaded = match written {
            Ok(()) => ask(&*run.world.runner, &self.spec.load(&file)).await.map(drop),
            Err(error) => Err(error),
        };
        run.ctx.fs.remove(&file).map_err(StepError::writing(&file))?;
        loaded?;
        // It ends with status 0 where a node did not take an image.
        if let Some(left) = self.missing(run.world).await?.first() {
            return Err(StepError::message(format!("minikube took the images, but {} is not there", left.reference)));
        }
        Ok(Applied { detail, outputs: Value::Null, changed: true })
    }

    async fn write(&self, run: &Run<'_>, id: &str, choices: &[&Choice], path: &PathBuf) -> Result<(), StepError> {
        let mut images = Vec::new();
        for choice in choices {
            images.push(obtain(run, choice, id).await?);
        }
        run.waiting(
            id,
            format!("{} images, {} MB", images.len(), images.iter().map(|image| image.size).sum::<u64>() / 1_000_000),
        );
        let mut file = tokio::fs::File::create(path).await.map_err(StepError::writing(path))?;
        let mut stream = archive::export(run.world.images()?.store(), &images, ArchiveFormat::Docker);
        while let Some(some) = stream.next().await {
            let some = some.map_err(StepError::writing(path))?;
            file.write_all(&some).await.map_err(StepError::writing(path))?;
        }
        file.flush().await.map_err(StepError::writing(path))
    }
}
