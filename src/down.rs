//! `devstack down`: takes back what the journal holds, then looks for what is left.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{guard, orphans};
use crate::context::Context;
use crate::error::{Advise as _, ExitCode, Failure};
use crate::event::Event;
use crate::journal::{Journal, JournalError};
use crate::ports::engine::{EngineError, KIND_CLUSTER_LABEL, OWNER_LABEL};
use crate::step::World;
use crate::undo::{self, Undone, strangers};
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

/// Takes one environment down and verifies it; `ask` is asked where somebody else loses something by it.
///
/// # Errors
/// Where the engine cannot be asked, the lock is held, consent is missing, or an undo failed. What was taken back stays
/// so; a second call goes on.
pub async fn down(ctx: &Context, environment: &str, keep_cluster: bool, ask: Ask<'_>) -> Result<Downed, Failure> {
    let world = World::real(ctx, environment);
    let lock = lock(ctx, &world, "down")?;
    let downed = match agree(&world, ask).await {
        Ok(()) => take_back(ctx, &world, keep_cluster).await,
        Err(refusal) => Err(refusal),
    };
    if downed.is_err() {
        forget_untouched(ctx, &world);
    }
    lock.release();
    downed
}

/// Asks before workloads of others go with the namespaces they were put into.
async fn agree(world: &World, ask: Ask<'_>) -> Result<(), Failure> {
    // A journal that cannot be read is told of by whoever needs it.
    let Ok(journal) = Journal::open(&world.dir, world.ctx.fs.clone()) else { return Ok(()) };
    let at_stake = strangers::at_stake(world, &journal).await;
    if at_stake.is_empty() { Ok(()) } else { ask(at_stake) }
}

/// How often what is still there is taken back once more, and after which time.
const LOOKS: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(1);

/// Takes back, and looks for what is left, until nothing is: an engine goes on with what it was asked for by a child
/// that is gone by now, so that a container can appear after it was looked for.
async fn until_gone(world: &World, journal: &Journal, keep_cluster: bool) -> Result<(Undone, Vec<String>), Failure> {
    let mut all = Undone::default();
    let mut looks = 0;
    loop {
        let report = undo::undo_all(world, journal, keep_cluster).await;
        all.done.extend(report.done);
        all.failed = report.failed;
        let leftovers =
            if keep_cluster || !all.failed.is_empty() { Vec::new() } else { undo::leftovers(world).await? };
        looks += 1;
        if looks == LOOKS || (all.failed.is_empty() && leftovers.is_empty()) {
            return Ok((all, leftovers));
        }
        world.ctx.clock.sleep(BETWEEN).await;
    }
}

fn unusable(world: &World, error: &std::io::Error) -> Failure {
    Failure::new(ExitCode::Failed, format!("cannot use {}", world.dir.display())).cause(error.to_string())
}

/// Takes back what is there of the environment and removes its directory. The caller holds the environment's lock.
///
/// # Errors
/// As [`down`].
pub async fn take_back(ctx: &Context, world: &World, keep_cluster: bool) -> Result<Downed, Failure> {
    let began = Instant::now();
    let environment = &world.environment;
    orphans::end(&*world.engine, &*ctx.clock, environment).await?;
    let journal = open(ctx, world)?;
    guard::meet(world).await?;
    let step = crate::step_ids::DOWN.to_owned();
    ctx.events.emit(Event::StepStarted { step: step.clone() });
    let (report, leftovers) = tokio::select! {
        () = ctx.cancel.cancelled() => return Err(Failure::interrupted(true)),
        result = until_gone(world, &journal, keep_cluster) => result?,
    };
    let seconds = began.elapsed().as_secs_f64();
    if let Some((what, error)) = report.failed.first() {
        let cause = crate::error::chain(error);
        ctx.events.emit(Event::StepFailed { step, error: format!("{what}: {cause}"), seconds });
        let mut failure = Failure::new(error.exit(), format!("{what} could not be removed")).cause(cause);
        for (what, error) in &report.failed[1..] {
            failure = failure.cause(format!("{what}: {}", crate::error::chain(error)));
        }
        let hint = error.hint().unwrap_or_else(|| "devstack down".to_owned());
        return Err(failure.hint(hint).kept(format!("{} things were taken back", report.done.len())));
    }
    if leftovers.is_empty() && !keep_cluster {
        ctx.fs.remove_dir(&world.dir).map_err(|error| unusable(world, &error))?;
        remove_empty(ctx);
    }
    let detail = format!("{} undone", report.done.len());
    ctx.events.emit(Event::StepDone { step, detail, changed: !report.done.is_empty(), seconds });
    Ok(Downed { environment: environment.clone(), undone: report.done, leftovers, seconds })
}

/// A journal that cannot be read is no reason to leave things behind: labels and reserved names tell the rest. One of
/// a newer devstack is.
fn open(ctx: &Context, world: &World) -> Result<Journal, Failure> {
    match Journal::open(&world.dir, ctx.fs.clone()) {
        Err(error @ JournalError::Damaged { .. }) => {
            ctx.events.warn(format!("{error}; going by labels and reserved names"));
            let path = world.dir.join("journal.jsonl");
            ctx.fs.remove(&path).map_err(|source| JournalError::Io { action: "remove", path, source })?;
            Ok(Journal::open(&world.dir, ctx.fs.clone())?)
        }
        other => Ok(other?),
    }
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
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ports::Engine as _;
    use crate::ports::engine::{ContainerSpec, EngineImage, EngineInfo};
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};

    #[tokio::test]
    async fn a_container_that_a_killed_devstack_looked_at_the_cpu_in_is_taken_back() {
        let engine = FakeEngine::new(EngineInfo::default());
        engine.put_image("node:1", EngineImage::default());
        let spec = ContainerSpec {
            name: "devstack-demo-facts-7".to_owned(),
            image: "node:1".to_owned(),
            labels: [(OWNER_LABEL.to_owned(), "demo".to_owned())].into(),
            ..ContainerSpec::default()
        };
        engine.create_container(&spec).await.unwrap();
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let world = World::new(&ctx, "demo", Arc::new(engine), Arc::new(FakeRunner::default()));
        let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
        assert_eq!(undo::leftovers(&world).await.unwrap(), ["container devstack-demo-facts-7"]);
        assert!(undo::undo_all(&world, &journal, false).await.failed.is_empty());
        assert_eq!(undo::leftovers(&world).await.unwrap(), [""; 0]);
    }

    #[test]
    fn one_environment_that_stays_keeps_no_other_from_going() {
        let downed = |name: &str| Ok(Downed { environment: name.to_owned(), ..Downed::default() });
        let locked = || Err(Failure::new(ExitCode::Consent, "devstack 42 is at work on it").hint("wait"));
        let mut several = Several::default();
        several.add("a", locked()).unwrap();
        several.add("b", downed("b")).unwrap();
        several.add("c", Err(Failure::new(ExitCode::Failed, "no answer").cause("a timeout"))).unwrap();
        let failure = several.failure().unwrap();
        assert_eq!((failure.exit, failure.message.as_str()), (ExitCode::Consent, "a, c could not be taken down"));
        assert_eq!(failure.causes, ["a: devstack 42 is at work on it", "c: no answer", "c: a timeout"]);
        assert_eq!(failure.kept.as_deref(), Some("b taken down"));

        let mut alone = Several::default();
        alone.add("a", locked()).unwrap();
        assert_eq!(alone.failure().unwrap().message, "devstack 42 is at work on it");
        assert!(several.add("d", Err(Failure::interrupted(true))).is_err(), "nothing is begun after an interruption");
        let mut clean = Several::default();
        clean.add("a", downed("a")).unwrap();
        assert!(clean.failure().is_none());
    }
}
