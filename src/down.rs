//! `devstack down`: takes back what the journal holds, then looks for what is left.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{guard, orphans};
use crate::context::Context;
use crate::error::{Advise as _, ExitCode, Failure, chain};
use crate::event::Event;
use crate::journal::Journal;
use crate::ports::engine::{EngineError, KIND_CLUSTER_LABEL, OWNER_LABEL};
use crate::ports::kube::KubeError;
use crate::step::{StepError, World};
use crate::undo::{self, Fate, Undone, forget, recover, strangers};
use crate::up::{Ask, forget_untouched, lock};

/// What came of a `down`.
#[derive(Debug, Default)]
pub struct Downed {
    /// The environment.
    pub environment: String,
    /// What was taken back.
    pub undone: Vec<String>,
    /// What is still there.
    pub leftovers: Vec<String>,
    /// Wall time.
    pub seconds: f64,
}

/// Takes one environment down and verifies it; `ask` is asked where somebody else loses something by it, or what is in
/// a cluster is forgotten.
///
/// # Errors
/// Where the engine or the cluster cannot be asked, the lock is held, consent is missing, or an undo failed. What was
/// taken back stays so; a second call goes on.
pub async fn down(ctx: &Context, environment: &str, fate: Fate, ask: Ask<'_>) -> Result<Downed, Failure> {
    let world = World::real(ctx, environment);
    let lock = lock(ctx, &world, "down")?;
    let downed = agree_and_take_back(ctx, &world, fate, ask).await;
    if downed.is_err() {
        forget_untouched(ctx, &world);
    }
    lock.release();
    downed
}

async fn agree_and_take_back(ctx: &Context, world: &World, fate: Fate, ask: Ask<'_>) -> Result<Downed, Failure> {
    agree(world, fate, ask).await?;
    take_back(ctx, world, fate).await
}

/// Asks before workloads of others go with the namespaces they were put into, or a cluster is forgotten.
async fn agree(world: &World, fate: Fate, ask: Ask<'_>) -> Result<(), Failure> {
    let (journal, damage) = Journal::salvage(&world.dir, world.ctx.fs.clone())?;
    let lost = if fate == Fate::Forget {
        forget::forgotten(world, &journal).await?
    } else {
        if damage.is_some() && world.provider.is_shared() {
            recover::recover(world, &journal).await.map_err(|error| match error {
                StepError::Kube(error) => unseen(world, error),
                other => other.into(),
            })?;
        }
        strangers::at_stake(world, &journal).await.map_err(|error| unseen(world, error))?
    };
    if lost.is_empty() { Ok(()) } else { ask(lost) }
}

/// The failure where nobody can tell what would be lost in a cluster that others use too.
fn unseen(world: &World, error: KubeError) -> Failure {
    if matches!(error, KubeError::OtherCluster { .. }) {
        return error.into();
    }
    let environment = &world.environment;
    let message =
        format!("what environment {environment} has in its cluster, and others beside it, cannot be looked at");
    Failure::new(ExitCode::Failed, message)
        .cause(chain(&error))
        .hint(format!("once the cluster answers this account: devstack down --env {environment}"))
        .hint(format!("where it is gone for good: devstack down --env {environment} --forget-cluster"))
        .kept("nothing changed")
}

/// How often what is still there is taken back once more, and after which time.
const LOOKS: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(1);

/// Takes back, and looks for what is left, until nothing is: an engine goes on with what it was asked for by a child
/// that is gone by now, so that a container can appear after it was looked for.
async fn until_gone(world: &World, journal: &Journal, fate: Fate) -> Result<(Undone, Vec<String>), Failure> {
    let mut all = Undone::default();
    let mut looks = 0;
    loop {
        let report = undo::undo_all(world, journal, fate).await;
        all.done.extend(report.done);
        all.failed = report.failed;
        let is_kept = fate == Fate::Keep;
        let leftovers = if is_kept || !all.failed.is_empty() { Vec::new() } else { undo::leftovers(world).await? };
        looks += 1;
        let is_done = all.failed.is_empty() && leftovers.is_empty();
        if looks == LOOKS || is_done || !all.failed.iter().all(|(_, error)| is_passing(error)) {
            return Ok((all, leftovers));
        }
        world.ctx.clock.sleep(BETWEEN).await;
    }
}

/// Whether what failed may go well a moment later: the engine or the server is still at work on it.
fn is_passing(error: &StepError) -> bool {
    match error {
        StepError::Engine(error) => matches!(error, EngineError::Conflict { .. } | EngineError::Other { .. }),
        StepError::Kube(KubeError::Unreachable { .. }) => false,
        StepError::Kube(error) => error.is_transient(),
        _ => false,
    }
}

fn unusable(world: &World, error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::Failed, format!("cannot use {}", world.dir.display())).cause(error.to_string())
}

/// Takes back what is there of the environment and removes its directory. The caller holds the environment's lock.
///
/// # Errors
/// As [`down`].
pub async fn take_back(ctx: &Context, world: &World, fate: Fate) -> Result<Downed, Failure> {
    let began = Instant::now();
    let environment = &world.environment;
    orphans::end(&*world.engine, &*ctx.clock, environment).await?;
    let journal = open(ctx, world)?;
    if fate != Fate::Forget {
        guard::meet(world).await?;
    }
    let step = crate::step_ids::DOWN.to_owned();
    ctx.events.emit(Event::StepStarted { step: step.clone() });
    let (report, leftovers) = tokio::select! {
        () = ctx.cancel.cancelled() => return Err(Failure::interrupted(true)),
        result = until_gone(world, &journal, fate) => result?,
    };
    let seconds = began.elapsed().as_secs_f64();
    if let Some((what, error)) = report.failed.first() {
        let cause = chain(error);
        ctx.events.emit(Event::StepFailed { step, error: format!("{what}: {cause}"), seconds });
        let mut failure = Failure::new(error.exit(), format!("{what} could not be removed")).cause(cause);
        for (what, error) in &report.failed[1..] {
            failure = failure.cause(format!("{what}: {}", chain(error)));
        }
        let hint = error.hint().unwrap_or_else(|| "devstack down".to_owned());
        return Err(failure.hint(hint).kept(format!("{} things were taken back", report.done.len())));
    }
    if leftovers.is_empty() && fate != Fate::Keep {
        ctx.fs.remove_dir(&world.dir).map_err(|error| unusable(world, &error))?;
        remove_empty(ctx);
    }
    let detail = format!("{} undone", report.done.len());
    ctx.events.emit(Event::StepDone { step, detail, changed: !report.done.is_empty(), seconds });
    Ok(Downed { environment: environment.clone(), undone: report.done, leftovers, seconds })
}

/// A journal with lines that cannot be read is no reason to leave things behind: its other lines, labels and reserved
/// names tell the rest. It stays what it is until all of that is gone. One of a newer devstack is a reason.
fn open(ctx: &Context, world: &World) -> Result<Journal, Failure> {
    let (journal, damage) = Journal::salvage(&world.dir, ctx.fs.clone())?;
    if let Some(damage) = damage {
        ctx.events.warn(format!("{damage}; going by the other lines, labels and reserved names"));
    }
    Ok(journal)
}

/// The directories above the environments, where nothing is left in them.
pub(crate) fn remove_empty(ctx: &Context) {
    let environments = ctx.dirs.state.join("environments");
    for dir in [environments, ctx.dirs.state.clone()] {
        if !matches!(ctx.fs.list(&dir).as_deref(), Ok([])) || ctx.fs.remove_dir(&dir).is_err() {
            return;
        }
    }
}

/// Environments that only the engine knows: their state directory is gone, their containers or networks are not. Where no
/// engine answers there are none, which is said.
///
/// # Errors
/// What the engine said.
pub async fn stray(ctx: &Context) -> Result<Vec<String>, Failure> {
    let engine = World::real(ctx, "").engine;
    let asked = tokio::try_join!(
        engine.containers(Some(KIND_CLUSTER_LABEL)),
        engine.containers(Some(OWNER_LABEL)),
        engine.networks(Some(OWNER_LABEL)),
    );
    let (nodes, containers, networks) = match asked {
        Err(error @ EngineError::NotRunning { .. }) => {
            ctx.events.warn(format!("what has no state any more was not looked for: {error}"));
            return Ok(Vec::new());
        }
        other => other?,
    };
    let clusters = nodes.iter().filter_map(|node| node.labels.get(KIND_CLUSTER_LABEL));
    let labels = containers.iter().map(|container| &container.labels).chain(networks.iter().map(|one| &one.labels));
    let mut names: Vec<String> =
        clusters.filter_map(|name| name.strip_prefix("devstack-")).map(str::to_owned).collect();
    names.extend(labels.filter_map(|labels| labels.get(OWNER_LABEL)).cloned());
    names.sort();
    names.dedup();
    Ok(names)
}

/// What came of several environments: what was taken down, and of those that could not be, one failure for all.
#[derive(Debug, Default)]
pub struct Several {
    /// Those that were taken down.
    pub downed: Vec<Downed>,
    failed: Vec<(String, Failure)>,
}

impl Several {
    /// Adds what came of one.
    ///
    /// # Errors
    /// An interruption, after which there is no next one.
    pub fn add(&mut self, environment: &str, result: Result<Downed, Failure>) -> Result<(), Failure> {
        match result {
            Ok(downed) => self.downed.push(downed),
            Err(failure) if failure.exit == ExitCode::Interrupted => return Err(failure),
            Err(failure) => self.failed.push((environment.to_owned(), failure)),
        }
        Ok(())
    }

    /// The failure, where there is one; of one environment alone it is that environment's own.
    pub fn failure(&mut self) -> Option<Failure> {
        if self.downed.is_empty() && self.failed.len() == 1 {
            return self.failed.pop().map(|(_, failure)| failure);
        }
        let (first, _) = self.failed.first()?;
        let exit = self.failed.iter().map(|(_, failure)| failure.exit).find(|exit| *exit != ExitCode::Failed);
        let names: Vec<&str> = self.failed.iter().map(|(name, _)| name.as_str()).collect();
        let what = format!("{} could not be taken down", names.join(", "));
        let hint = format!("devstack down --env {first}");
        let mut failure = Failure::new(exit.unwrap_or(ExitCode::Failed), what).hint(hint);
        for (name, one) in &self.failed {
            failure = failure.cause(format!("{name}: {}", one.message));
            for cause in &one.causes {
                failure = failure.cause(format!("{name}: {cause}"));
            }
        }
        let gone: Vec<&str> = self.downed.iter().map(|one| one.environment.as_str()).collect();
        if !gone.is_empty() {
            failure = failure.kept(format!("{} taken down", gone.join(", ")));
        }
        Some(failure)
    }
}

/// The last line of `down` in JSON.
pub fn result(downed: &[Downed]) -> Value {
    let undone: usize = downed.iter().map(|one| one.undone.len()).sum();
    let leftovers: Vec<&String> = downed.iter().flat_map(|one| &one.leftovers).collect();
    let environments: Vec<&str> = downed.iter().map(|one| one.environment.as_str()).collect();
    json!({"environments": environments, "undone": undone, "leftovers": leftovers})
}

#[cfg(test)]
mod tests;
