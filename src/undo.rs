//! Takes changes back, from the journal alone and, where there is none, from labels and reserved names.

pub(crate) mod forget;
pub(crate) mod objects;
pub(crate) mod recover;
pub(crate) mod strangers;

use std::time::Duration;

use futures::future::try_join_all;

use crate::access::{hosts, kubeconfig, leftover, limits};
use crate::cluster::Provider;
use crate::cluster::minikube::{self, MinikubeSpec};
use crate::journal::{Journal, Record, Undo};
use crate::ports::engine::{Container, EngineError, KIND_CLUSTER_LABEL, OWNER_LABEL};
use crate::step::{StepError, World, minikube_error, minikube_kubeconfig, minikube_profile};
use crate::step_ids::RESERVED;

/// What becomes of the environment's cluster, or of what it has in one that others use too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fate {
    /// It is taken back.
    #[default]
    Remove,
    /// A cluster of the environment's own stays.
    Keep,
    /// It is gone, or nobody can say: what is recorded in it is forgotten.
    Forget,
}

/// What `down` did.
#[derive(Debug, Default)]
pub struct Undone {
    /// What was taken back, in order.
    pub done: Vec<String>,
    /// What could not be taken back, and why; everything else was tried all the same.
    pub failed: Vec<(String, StepError)>,
}

/// Takes back everything that the journal holds, newest first, and then whatever carries the environment's label or
/// reserved name. Each undo is recorded, so that an interrupted `down` goes on where it stopped.
pub async fn undo_all(world: &World, journal: &Journal, fate: Fate) -> Undone {
    leftover::sweep(&world.ctx, &world.dir);
    let mut report = Undone::default();
    let mut begun = match fate {
        Fate::Forget => objects::Begun::default(),
        Fate::Remove | Fate::Keep => objects::begin(world, journal).await,
    };
    let mut pending = journal.pending();
    for undo in reserved(world) {
        if !pending.iter().any(|(_, known)| *known == undo) {
            pending.push((RESERVED.to_owned(), undo));
        }
    }
    for (step, undo) in pending {
        let stays = match fate {
            Fate::Remove => false,
            Fate::Keep => undo.is_cluster(),
            // Of a cluster in an engine that is gone, what has its name in this one goes all the same.
            Fate::Forget => matches!(undo, Undo::KubeObjects { .. }),
        };
        if stays {
            continue;
        }
        match one(world, journal, &undo, &mut begun).await {
            Ok(existed) => {
                if existed {
                    report.done.push(undo.to_string());
                }
                if step != RESERVED
                    && let Err(error) = journal.append(Record::Undone { step, undo: undo.clone() })
                {
                    // It is gone, and taking it back once more does no harm: a full disk must not keep `down` from
                    // its work.
                    world.ctx.events.warn(crate::error::chain(&error));
                }
            }
            Err(error) => report.failed.push((undo.to_string(), error)),
        }
    }
    report
}

/// What an environment may have made, known by its name alone. Nothing in a cluster that others use too: there, only
/// what is recorded is known to be the environment's.
fn reserved(world: &World) -> Vec<Undo> {
    let name = world.reserved_name();
    let mut all = vec![Undo::HostsBlock { file: world.ctx.hosts_file(), environment: world.environment.clone() }];
    let context = Undo::KubeContext { file: world.ctx.user_kubeconfig(), name: name.clone() };
    match world.provider {
        Provider::Kind => all.extend([context, Undo::KindCluster { name: name.clone() }, Undo::EngineNetwork { name }]),
        Provider::Minikube => all.extend([context, Undo::MinikubeCluster { name }]),
        Provider::Existing => {}
    }
    all
}

/// Takes one thing back; `false` where it was not there any more.
///
/// # Errors
/// What the engine, the file system or a child process said. Trying again is safe.
async fn one(world: &World, journal: &Journal, undo: &Undo, begun: &mut objects::Begun) -> Result<bool, StepError> {
    match undo {
        Undo::EngineNetwork { name } => remove_network(world, name).await,
        Undo::KindCluster { name } => {
            let (nodes, others) = containers(world, name).await?;
            let all = nodes.iter().chain(&others);
            try_join_all(all.map(|container| world.engine.remove_container(&container.id))).await?;
            Ok(!nodes.is_empty())
        }
        Undo::MinikubeCluster { name } => remove_minikube(world, name).await,
        Undo::KubeContext { file, name } => {
            kubeconfig::remove(&*world.ctx.fs, file, name).map_err(|error| StepError::of(&error))
        }
        Undo::HostsBlock { file, environment } => {
            hosts::remove(&world.ctx, &*world.runner, file, environment).await.map_err(|error| StepError::of(&error))
        }
        Undo::File { path } => {
            let existed = world.ctx.fs.read(path).map_err(StepError::reading(path))?.is_some();
            world.ctx.fs.remove(path).map_err(StepError::writing(path))?;
            Ok(existed)
        }
        Undo::KubeObjects { objects, .. } => objects::remove(world, journal, objects, begun).await,
        Undo::KernelLimit { limit, before, raised } => {
            limits::restore(&world.ctx, &*world.runner, *limit, *before, *raised)
                .await
                .map_err(|error| StepError::of(&error))
        }
    }
}

async fn remove_minikube(world: &World, name: &str) -> Result<bool, StepError> {
    let program = minikube::on_path(world.ctx.vars.get("PATH")).unwrap_or_else(|| "minikube".into());
    let kubernetes = "auto".to_owned();
    let spec = MinikubeSpec { program, name: name.to_owned(), nodes: 1, driver: None, kubernetes };
    let existed = minikube_profile(&*world.runner, &spec).await?.is_some();
    if existed {
        let file = minikube_kubeconfig(world);
        world.runner.run(&spec.delete(&file)).await.map_err(minikube_error)?;
        if minikube_profile(&*world.runner, &spec).await?.is_some() {
            return Err(StepError::message(format!("minikube ended well, but its profile {name} is still there")));
        }
    }
    Ok(existed)
}

/// Nodes leave a network a moment after they are removed.
async fn remove_network(world: &World, name: &str) -> Result<bool, StepError> {
    let existed = world.engine.networks(None).await?.iter().any(|network| network.name == name);
    for attempt in 0.. {
        match world.engine.remove_network(name).await {
            Ok(()) => break,
            Err(EngineError::Other { reason, .. } | EngineError::Conflict { reason, .. })
                if attempt < 20 && reason.contains("active endpoints") =>
            {
                world.ctx.clock.sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(existed)
}

/// Whatever is still there of an environment, as a person would name it: containers, networks and volumes by label and
/// reserved name, its kubeconfig context, its hosts lines, files that a killed devstack was writing. Objects in a cluster
/// that is not its own count as taken back only when they are gone.
///
/// # Errors
/// What the engine or the file system said; then nothing can be promised.
pub async fn leftovers(world: &World) -> Result<Vec<String>, StepError> {
    let name = world.reserved_name();
    let mut left = if world.provider == Provider::Kind { in_engine(world).await? } else { Vec::new() };
    let file = world.ctx.user_kubeconfig();
    if kubeconfig::contains(&*world.ctx.fs, &file, &name).map_err(|error| StepError::of(&error))? {
        left.push(format!("kubeconfig context {name} in {}", file.display()));
    }
    let file = world.ctx.hosts_file();
    let hosts_text = world.ctx.fs.read(&file).map_err(StepError::reading(&file))?.unwrap_or_default();
    if hosts::has_block(&hosts_text, &world.environment) {
        left.push(format!("hosts lines of {} in {}", world.environment, file.display()));
    }
    left.extend(leftover::find(&world.ctx, &world.dir).iter().map(|path| format!("file {}", path.display())));
    Ok(left)
}

/// The nodes of a kind cluster, and the other containers of the environment.
async fn containers(world: &World, cluster: &str) -> Result<(Vec<Container>, Vec<Container>), EngineError> {
    let nodes = format!("{KIND_CLUSTER_LABEL}={cluster}");
    let others = format!("{OWNER_LABEL}={}", world.environment);
    tokio::try_join!(world.engine.containers(Some(&nodes)), world.engine.containers(Some(&others)))
}

/// What the engine has of an environment.
async fn in_engine(world: &World) -> Result<Vec<String>, StepError> {
    let name = world.reserved_name();
    let owner = format!("{OWNER_LABEL}={}", world.environment);
    let ((nodes, others), networks, volumes) =
        tokio::try_join!(containers(world, &name), world.engine.networks(None), world.engine.volumes(Some(&owner)),)?;
    let mut left: Vec<String> =
        nodes.iter().chain(&others).map(|container| format!("container {}", container.name)).collect();
    left.sort();
    left.dedup();
    let ours = |network: &&crate::ports::engine::Network| {
        network.name == name || network.labels.get(OWNER_LABEL) == Some(&world.environment)
    };
    left.extend(networks.iter().filter(ours).map(|network| format!("network {}", network.name)));
    left.extend(volumes.iter().map(|volume| format!("volume {}", volume.name)));
    Ok(left)
}
