//! `devstack up`: reads the world, makes a plan, carries it out, proves the result.

mod choose;
mod consent;
mod credentials;
mod drift;
mod gather;
mod kubernetes;
#[cfg(test)]
mod machines;
mod measure;
mod minikube;
mod names;
mod placement;
mod prove;
mod provider;
mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::access::leftover;
use crate::access::verify::Endpoint;
use crate::cluster::{Provider, guard, orphans};
use crate::context::Context;
use crate::error::Failure;
use crate::event::{Action, Change, Event, Setting};
use crate::executor::{self, RunFailure};
use crate::journal::{self, EnvironmentLock, Holder, Journal, JournalError, Opened, Record, VERSION};
use crate::plan::{Plan, id};
use crate::step::World;

pub(crate) use choose::request as images_wanted;
pub use consent::{Ask, Asks, long_build, substitutes};
pub use drift::{drift, told};
pub use gather::{Gathered, gather};
pub use kubernetes::wanted as kubernetes;
pub use names::Sudo;

/// The desired state, as the command line says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// The environment's name; the profile's where absent.
    pub environment: Option<String>,
    /// A built-in name, a file or a directory; the recorded one, `./devstack.yaml` or `s3www` where absent.
    pub profile: Option<String>,
    /// `--set`, in order.
    pub sets: Vec<(String, String)>,
    /// `--nodes`.
    pub nodes: Option<u8>,
    /// `--provider`.
    pub provider: Option<Provider>,
    /// `--context`.
    pub context: Option<String>,
    /// `--driver`, of minikube.
    pub driver: Option<String>,
    /// Whether no registry may be asked.
    pub offline: bool,
    /// Whether nothing may be changed.
    pub dry_run: bool,
}

/// What came of an `up`.
#[derive(Debug)]
pub struct Upped {
    /// The environment.
    pub environment: String,
    /// Every promise and what it was seen to do.
    pub endpoints: Vec<Endpoint>,
    /// Wall time.
    pub seconds: f64,
}

/// Brings an environment up and proves it; with `dry_run`, says what would be done.
///
/// # Errors
/// A [`Failure`] with its cause and the next command.
pub async fn up(ctx: &Context, desired: &Desired, asks: Asks<'_>) -> Result<Option<Upped>, Failure> {
    let began = Instant::now();
    let gathered = unless_interrupted(ctx, gather(ctx, desired)).await?;
    let world = &gathered.world;
    if desired.dry_run {
        let journal = Journal::open(&world.dir, ctx.fs.clone())?;
        let plan = gathered.plan(&journal, gathered.known_credentials(ctx)?)?;
        show(ctx, &gathered, &journal, &plan, asks.sudo).await?;
        return Ok(None);
    }
    let lock = lock(ctx, world, "up")?;
    let result = match journal::make_room(&*ctx.fs, &world.dir) {
        Ok(()) => carry_out(ctx, &gathered, asks).await,
        Err(error) => Err(error.into()),
    };
    if result.is_err() {
        forget_untouched(ctx, world);
    }
    lock.release();
    let endpoints = result?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Some(Upped { environment: world.environment.clone(), endpoints, seconds }))
}

/// How long what only looks may go on after an interruption: a container that it looks into for a moment goes with it.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Gives up what changes nothing when the person interrupts.
async fn unless_interrupted<T>(ctx: &Context, look: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut look = pin!(look);
    tokio::select! {
        found = &mut look => found,
        () = ctx.cancel.cancelled() => {
            let _ = tokio::time::timeout(LAST_LOOK, look).await;
            Err(Failure::interrupted(false))
        }
    }
}

/// Refuses to begin what the person has interrupted already.
fn refuse_interrupted(ctx: &Context) -> Result<(), Failure> {
    if ctx.cancel.is_cancelled() { Err(Failure::interrupted(false)) } else { Ok(()) }
}

/// Removes the directory of an environment where nothing is recorded as changed: it would be the only trace.
pub(crate) fn forget_untouched(ctx: &Context, world: &World) {
    if matches!(Journal::open(&world.dir, ctx.fs.clone()), Ok(journal) if journal.is_empty())
        && ctx.fs.remove_dir(&world.dir).is_ok()
    {
        crate::down::remove_empty(ctx);
    }
}

/// Makes the environment's directory and takes its lock for a verb.
///
/// # Errors
/// The directory cannot be made, or another devstack holds the lock.
pub fn lock(ctx: &Context, world: &World, verb: &str) -> Result<EnvironmentLock, Failure> {
    let dir = &world.dir;
    let fail = |source| JournalError::Io { action: "make", path: dir.clone(), source };
    ctx.fs.create_dir(dir).map_err(fail)?;
    let holder = Holder { pid: std::process::id(), verb: verb.to_owned(), since: ctx.clock.now().to_string() };
    Ok(EnvironmentLock::take(dir, &world.environment, &holder)?)
}

/// Brings the environment to what was gathered and proves it. The caller holds the environment's lock.
///
/// # Errors
/// As [`up`].
pub async fn carry_out(ctx: &Context, gathered: &Gathered, asks: Asks<'_>) -> Result<Vec<Endpoint>, Failure> {
    let world = &gathered.world;
    let stopped = orphans::end(&*world.engine, &*ctx.clock, &world.environment).await?;
    if stopped > 0 {
        ctx.events.note(format!("stopped {stopped} processes that a killed devstack left behind"));
    }
    leftover::sweep(ctx, &world.dir);
    let journal = Journal::open(&world.dir, ctx.fs.clone())?;
    refuse_interrupted(ctx)?;
    let credentials = gathered.credentials(ctx)?;
    let mut plan = gathered.plan(&journal, credentials)?;
    let mut changes = unless_interrupted(ctx, show(ctx, gathered, &journal, &plan, asks.sudo)).await?;
    let reasons = consent::reasons(gathered, &changes);
    if !reasons.is_empty()
        && let Err(refusal) = (asks.consent)(reasons)
    {
        return Err(refusal);
    }
    names::ask(gathered, asks.sudo, &mut changes).await?;
    if !changes.iter().any(|change| change.step == id::HOSTS) {
        plan.graph = plan.graph.without(id::HOSTS);
    }
    refuse_interrupted(ctx)?;
    let opened = opened(ctx, gathered);
    if journal.opened().is_none_or(|known| !is_as_opened(known, &opened)) || !journal.is_ready() {
        journal.append(Record::Opened(opened))?;
    }
    gathered.record_choices()?;
    let outputs = match executor::run(ctx, world, &journal, &plan.graph, is_settled(&changes)).await {
        Ok(outputs) => outputs,
        Err(RunFailure::Interrupted) => return Err(Failure::interrupted(true)),
        Err(RunFailure::Step { step, source }) => return Err(prove::explain(world, &step, *source).await),
    };
    let endpoints = prove::prove(ctx, gathered, &plan, &outputs).await?;
    if !journal.is_ready() {
        journal.append(Record::Ready { at: ctx.clock.now().to_string() })?;
    }
    Ok(endpoints)
}

/// Whether an environment was opened with the same before; when, and what an engine at the same address calls itself,
/// makes no difference.
fn is_as_opened(known: Opened, opened: &Opened) -> bool {
    let endpoint = |opened: &Opened| opened.engine.as_ref().map(|engine| engine.endpoint.clone());
    endpoint(&known) == endpoint(opened)
        && Opened { at: opened.at.clone(), engine: opened.engine.clone(), ..known } == *opened
}

fn opened(ctx: &Context, gathered: &Gathered) -> Opened {
    let kind = gathered.world.provider == Provider::Kind;
    let engine = gathered.facts.engine.as_ref().filter(|_| kind).map(|engine| engine.info.identity.clone());
    Opened {
        version: VERSION,
        devstack: env!("CARGO_PKG_VERSION").to_owned(),
        environment: gathered.world.environment.clone(),
        profile: gathered.source.clone(),
        sets: gathered.profile.settings.clone(),
        provider: gathered.world.provider.to_string(),
        nodes: gathered.nodes_asked,
        context: gathered.shared.as_ref().map(|shared| shared.existing.context.clone()),
        instance: gathered.shared.as_ref().map(|shared| shared.instance.clone()),
        engine: engine.filter(|engine| !engine.endpoint.is_empty()),
        ports: match gathered.world.provider {
            Provider::Existing | Provider::Minikube => BTreeMap::new(),
            Provider::Kind => {
                BTreeMap::from([("http".to_owned(), gathered.ports.0), ("https".to_owned(), gathered.ports.1)])
            }
        },
        at: ctx.clock.now().to_string(),
    }
}

/// Finds out what each step would do, and shows it.
async fn show(
    ctx: &Context,
    gathered: &Gathered,
    journal: &Journal,
    plan: &Plan,
    sudo: Sudo<'_>,
) -> Result<Vec<Change>, Failure> {
    let mut changes = observe(&gathered.world, plan).await?;
    names::settle(gathered, journal, sudo, &mut changes);
    let settings = journal.opened().map(|before| settings(&before, gathered)).unwrap_or_default();
    ctx.events.emit(Event::Plan { summary: gathered.summary(), settings, changes: changes.clone() });
    Ok(changes)
}

/// What is asked for now and was not when the environment was opened.
fn settings(before: &Opened, gathered: &Gathered) -> Vec<Setting> {
    let of = |profile: &str, nodes: Option<u8>, sets: &[(String, String)]| {
        let mut all = BTreeMap::from([("profile".to_owned(), profile.to_owned())]);
        all.extend(nodes.map(|nodes| ("--nodes".to_owned(), nodes.to_string())));
        // The last of several counts.
        all.extend(sets.iter().cloned());
        all
    };
    let before = of(&before.profile, before.nodes, &before.sets);
    let after = of(&gathered.source, gathered.nodes_asked, &gathered.profile.settings);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let shown = |name: &String, values: &BTreeMap<String, String>| {
        // Of a setting that the profile has no more nobody knows whether it was secret.
        let own = ["profile", "--nodes"].contains(&name.as_str());
        let hidden = !own && !gathered.profile.public.contains(name);
        values.get(name).map(|value| if hidden { "***".to_owned() } else { value.clone() })
    };
    let setting =
        |name: &String| Setting { name: name.clone(), before: shown(name, &before), after: shown(name, &after) };
    differs.map(setting).collect()
}

/// Finds out what each step would do.
async fn observe(world: &World, plan: &Plan) -> Result<Vec<Change>, Failure> {
    guard::meet(world).await?;
    let observed = plan.graph.nodes().iter().map(|node| async {
        let observed = node.step.observe(world).await?;
        Ok::<_, crate::step::StepError>(observed.map(|observed| Change {
            step: node.id.clone(),
            action: observed.action,
            what: observed.what,
            why: observed.why,
            loses: observed.loses,
        }))
    });
    Ok(futures::future::try_join_all(observed).await?.into_iter().flatten().collect())
}

/// The last line of `up` in JSON.
pub fn result(upped: &Upped) -> Value {
    json!({"environment": upped.environment, "endpoints": upped.endpoints, "seconds": upped.seconds})
}

/// Whether nothing would be done.
pub fn is_settled(changes: &[Change]) -> bool {
    changes.iter().all(|change| change.action == Action::Leave)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::engine::EngineIdentity;

    #[test]
    fn an_environment_is_opened_again_where_something_else_is_asked_for() {
        let engine = |endpoint: &str, id: &str| Some(EngineIdentity { endpoint: endpoint.into(), id: id.into() });
        let known = Opened { at: "then".to_owned(), engine: engine("unix:///a", "1"), ..Opened::default() };
        let now = |engine| Opened { at: "now".to_owned(), engine, ..Opened::default() };
        assert!(is_as_opened(known.clone(), &now(engine("unix:///a", "1"))));
        assert!(is_as_opened(known.clone(), &now(engine("unix:///a", "2"))), "Podman's id is another one each time");
        assert!(!is_as_opened(known.clone(), &now(engine("unix:///b", "1"))));
        assert!(!is_as_opened(Opened { engine: None, ..known.clone() }, &now(engine("unix:///a", "1"))));
        assert!(!is_as_opened(known, &Opened { nodes: Some(2), ..now(engine("unix:///a", "1")) }));
    }
}
