//! Cures: what `devstack doctor --fix` changes. A closed set of things that are certain and small; each is recorded in
//! the journal of its environment before it begins, with what takes it back or finishes it, and is believed only when
//! its check no longer finds anything.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::access::privilege::Access;
use crate::access::{hosts, kubeconfig, limits};
use crate::check::{self, Asked, Inputs, Orphan};
use crate::context::Context;
use crate::down;
use crate::environments::reserved_name;
use crate::error::{Advise as _, ExitCode, Failure};
use crate::journal::{Journal, Record, Undo};
use crate::ports::{Engine, Runner};
use crate::step::{StepError, World};
use crate::step_ids;
use crate::ui::Style;
use crate::undo::Fate;
use crate::up::lock;

/// What cures are called in a journal.
const STEP: &str = step_ids::DOCTOR;

/// One thing that can be cured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cure {
    /// A context of a cluster that is gone is taken out of the user's kubeconfig.
    Context {
        /// The kubeconfig.
        file: PathBuf,
        /// The environment.
        environment: String,
    },
    /// Lines of an environment that is gone are taken out of the hosts file.
    Hosts {
        /// The hosts file.
        file: PathBuf,
        /// The environment.
        environment: String,
    },
    /// Networks of an environment that has no state, container or volume any more are removed.
    Leftovers {
        /// The environment.
        environment: String,
        /// What they are, in words.
        things: Vec<String>,
    },
    /// The kernel's inotify limits are raised; `down` gives them back.
    Inotify {
        /// The environment in whose journal they are; `None` where it is not clear which one that is.
        environment: Option<String>,
    },
}

/// How a cure can be carried out now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// By this account.
    Free,
    /// Through sudo.
    Privileged,
    /// Not at all.
    Blocked {
        /// Why.
        reason: String,
        /// Whether it is for want of a privilege.
        privilege: bool,
    },
}

/// What came of a cure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was carried out, and its check no longer finds anything.
    Cured,
    /// It was not carried out.
    Left {
        /// Why.
        reason: String,
        /// Whether it is for want of consent or of a privilege.
        consent: bool,
    },
    /// It was tried, and did not help.
    Failed(String),
}

/// Everything in what was looked at that can be cured, of the check `only` where one is wanted. `environment` is the
/// one in whose journal a change of the machine is recorded.
pub fn cures(
    ctx: &Context,
    inputs: &Inputs,
    orphans: &Asked<Vec<Orphan>>,
    environment: Option<&str>,
    only: Option<&str>,
) -> BTreeSet<Cure> {
    let contexts = check::stale_contexts(inputs)
        .into_iter()
        .map(|environment| Cure::Context { file: ctx.user_kubeconfig(), environment });
    let blocks = check::stale_blocks(inputs)
        .into_iter()
        .filter(|(_, certain)| *certain)
        .map(|(environment, _)| Cure::Hosts { file: ctx.hosts_file(), environment });
    let leftovers = orphans
        .known()
        .into_iter()
        .flatten()
        .filter(|orphan| !orphan.data)
        .map(|orphan| Cure::Leftovers { environment: orphan.environment.clone(), things: orphan.things.clone() });
    let inotify = inputs
        .host
        .inotify
        .is_some_and(check::inotify_is_low)
        .then(|| Cure::Inotify { environment: environment.map(str::to_owned) });
    let all = contexts.chain(blocks).chain(leftovers).chain(inotify);
    all.filter(|cure| only.is_none_or(|only| only == cure.id())).collect()
}

impl Cure {
    /// The check whose finding it cures.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Context { .. } => "cluster.context-stale",
            Self::Hosts { .. } => "hosts.block-stale",
            Self::Leftovers { .. } => "env.leftovers",
            Self::Inotify { .. } => "host.inotify",
        }
    }

    fn environment(&self) -> Option<&str> {
        match self {
            Self::Context { environment, .. }
            | Self::Hosts { environment, .. }
            | Self::Leftovers { environment, .. } => Some(environment),
            Self::Inotify { environment } => environment.as_deref(),
        }
    }

    /// What is done, as it is shown before and after.
    pub fn what(&self) -> String {
        match self {
            Self::Context { file, environment } => {
                format!("context {} out of {}", reserved_name(environment), file.display())
            }
            Self::Hosts { file, environment } => format!("lines of {environment} out of {}", file.display()),
            Self::Leftovers { environment, things } => {
                format!("{} of {environment} removed", things.join(", "))
            }
            Self::Inotify { .. } => {
                let wanted = limits::Limit::ALL.map(|limit| format!("{limit} {}", limit.wanted()));
                format!("kernel limits raised to at least {}", wanted.join(", "))
            }
        }
    }

    /// What takes it back, where it is not itself the taking back of something.
    pub fn undone_by(&self) -> Option<String> {
        match self {
            Self::Inotify { environment: Some(name) } => Some(format!("devstack down --env {name}")),
            Self::Inotify { environment: None }
            | Self::Context { .. }
            | Self::Hosts { .. }
            | Self::Leftovers { .. } => None,
        }
    }

    /// How it can be carried out by this account.
    pub async fn way(&self, ctx: &Context, runner: &dyn Runner) -> Way {
        let (access, without) = match self {
            Self::Context { .. } | Self::Leftovers { .. } => return Way::Free,
            Self::Inotify { environment: None } => {
                let reason = "it is recorded in the journal of an environment, whose `down` takes it back: --env NAME";
                return Way::Blocked { reason: reason.to_owned(), privilege: false };
            }
            Self::Hosts { file, environment } => {
                let without = format!("as an account that may use sudo: devstack down --env {environment}");
                (hosts::access(ctx, runner, file).await, without)
            }
            Self::Inotify { .. } => {
                let limit = limits::Limit::InotifyInstances;
                let commands = limits::Limit::ALL.map(|limit| format!("{limit}={}", limit.wanted()));
                (limits::access(ctx, runner, limit).await, format!("as root: sysctl {}", commands.join(" ")))
            }
        };
        match access {
            Access::Direct => Way::Free,
            Access::Sudo { passwordless: true } => Way::Privileged,
            Access::Sudo { passwordless: false } => {
                let reason = "sudo asks for a password: sudo -v, then the same command again".to_owned();
                Way::Blocked { reason, privilege: true }
            }
            Access::Unavailable => Way::Blocked { reason: format!("it needs root; {without}"), privilege: true },
        }
    }

    /// Carries it out: under its environment's lock, recorded before it begins.
    ///
    /// # Errors
    /// The lock is held, the journal cannot be written (then nothing was changed), or what was to be changed refused.
    pub async fn carry_out(
        &self,
        ctx: &Context,
        engine: &Arc<dyn Engine>,
        runner: &Arc<dyn Runner>,
    ) -> Result<(), Failure> {
        let Some(environment) = self.environment() else { return Err(Failure::usage("no environment was named")) };
        let world = World::new(ctx, environment, engine.clone(), runner.clone());
        let lock = lock(ctx, &world, STEP)?;
        let done = match self.refuse_alive(&world).await {
            Ok(()) => self.under_lock(ctx, &world).await,
            Err(refusal) => Err(refusal),
        };
        // Where nothing is to be taken back, the directory would be the only trace.
        let own = |name: &String| ["journal.jsonl", "lock"].contains(&name.as_str());
        let journal = Journal::open(&world.dir, ctx.fs.clone());
        let nothing = journal.is_ok_and(|journal| journal.opened().is_none() && journal.pending().is_empty())
            && ctx.fs.list(&world.dir).is_ok_and(|names| names.iter().all(own));
        if nothing && ctx.fs.remove_dir(&world.dir).is_ok() {
            down::remove_empty(ctx);
        }
        lock.release();
        done
    }

    /// Refuses to clear away what an `up` has taken into use since the check looked: a question can be open for long.
    async fn refuse_alive(&self, world: &World) -> Result<(), Failure> {
        let alive = match self {
            Self::Inotify { .. } => false,
            Self::Context { .. } | Self::Hosts { .. } | Self::Leftovers { .. } => {
                world.journal().is_some_and(|journal| journal.opened().is_some())
                    || (matches!(self, Self::Leftovers { .. }) && !world.nodes().await?.is_empty())
            }
        };
        if alive {
            let message = format!("environment {} is in use again, nothing was removed", world.environment);
            return Err(Failure::new(ExitCode::Failed, message).hint("devstack doctor looks again"));
        }
        Ok(())
    }

    async fn under_lock(&self, ctx: &Context, world: &World) -> Result<(), Failure> {
        let failed = |error: StepError| {
            let failure = Failure::new(error.exit(), crate::error::chain(&error));
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        };
        match self {
            Self::Context { file, environment } => {
                let undo = Undo::KubeContext { file: file.clone(), name: reserved_name(environment) };
                finish(ctx, world, undo, async {
                    kubeconfig::remove(&*ctx.fs, file, &reserved_name(environment))
                        .map_err(|error| StepError::of(&error))
                })
                .await
                .map_err(failed)
            }
            Self::Hosts { file, environment } => {
                let undo = Undo::HostsBlock { file: file.clone(), environment: environment.clone() };
                finish(ctx, world, undo, async {
                    let removed = hosts::remove(ctx, &*world.runner, file, environment).await;
                    removed.map_err(|error| StepError::of(&error))
                })
                .await
                .map_err(failed)
            }
            Self::Leftovers { .. } => match down::take_back(ctx, world, Fate::Remove).await?.leftovers.as_slice() {
                [] => Ok(()),
                left => Err(Failure::new(ExitCode::Leftovers, format!("still there: {}", left.join(", ")))),
            },
            Self::Inotify { .. } => raise(ctx, world).await.map_err(failed),
        }
    }
}

/// Takes something stale away. The record before it says what `down` has to finish where this is cut short.
async fn finish(
    ctx: &Context,
    world: &World,
    undo: Undo,
    removal: impl Future<Output = Result<bool, StepError>>,
) -> Result<(), StepError> {
    let journal = Journal::open(&world.dir, ctx.fs.clone())?;
    journal.append(Record::Intent { step: STEP.to_owned(), undo: vec![undo.clone()] })?;
    removal.await?;
    journal.append(Record::Undone { step: STEP.to_owned(), undo })?;
    Ok(())
}

/// Raises the limits that are too low.
async fn raise(ctx: &Context, world: &World) -> Result<(), StepError> {
    let journal = Journal::open(&world.dir, ctx.fs.clone())?;
    let mut raises = Vec::new();
    for limit in limits::Limit::ALL {
        let before = limits::read(ctx, limit).map_err(|error| StepError::of(&error))?;
        if let Some(before) = before.filter(|before| *before < limit.wanted()) {
            raises.push((limit, Undo::KernelLimit { limit, before, raised: limit.wanted() }));
        }
    }
    let undo = raises.iter().map(|(_, undo)| undo.clone()).collect();
    journal.append(Record::Intent { step: STEP.to_owned(), undo })?;
    for (limit, undo) in raises {
        if let Err(error) = limits::set(ctx, &*world.runner, limit, limit.wanted()).await {
            journal.append(Record::Undone { step: STEP.to_owned(), undo })?;
            return Err(StepError::of(&error));
        }
    }
    journal.append(Record::Done { step: STEP.to_owned(), outputs: Value::Null })?;
    Ok(())
}

/// How a person is asked: gets what will be done, one line each, and whether it is about a privilege; refuses with exit
/// code 5.
pub type Ask<'a> = &'a (dyn Fn(Vec<String>, bool) -> Result<(), Failure> + Sync);

/// Carries out what is consented to, and says what came of each.
///
/// # Errors
/// No consent to what needs no privilege, and then nothing was changed; an interruption.
pub async fn treat(
    ctx: &Context,
    engine: &Arc<dyn Engine>,
    runner: &Arc<dyn Runner>,
    cures: BTreeSet<Cure>,
    ask: Ask<'_>,
) -> Result<Vec<(Cure, Ended)>, Failure> {
    let mut ways = Vec::new();
    for cure in cures {
        let way = cure.way(ctx, &**runner).await;
        ways.push((cure, way));
    }
    let shown = |wanted: Way| {
        let those = ways.iter().filter(|(_, way)| *way == wanted);
        those.map(|(cure, _)| cure.what()).collect::<Vec<_>>()
    };
    let (free, privileged) = (shown(Way::Free), shown(Way::Privileged));
    if !free.is_empty() {
        ask(free, false)?;
    }
    let refused = match privileged.is_empty() {
        true => None,
        false => match ask(privileged, true) {
            Err(refusal) if refusal.exit != ExitCode::Consent => return Err(refusal),
            answer => answer.err(),
        },
    };
    let mut ended = Vec::new();
    for (cure, way) in ways {
        let end = match (way, &refused) {
            (Way::Blocked { reason, privilege }, _) => Ended::Left { reason, consent: privilege },
            (Way::Privileged, Some(refusal)) => Ended::Left { reason: refusal.hints.join("; "), consent: true },
            (Way::Free | Way::Privileged, _) if ctx.cancel.is_cancelled() => return Err(Failure::interrupted(true)),
            (Way::Free | Way::Privileged, _) => match cure.carry_out(ctx, engine, runner).await {
                Ok(()) => Ended::Cured,
                Err(failure) => {
                    let why = std::iter::once(&failure.message).chain(&failure.causes).chain(&failure.hints);
                    Ended::Failed(why.cloned().collect::<Vec<_>>().join("; "))
                }
            },
        };
        ended.push((cure, end));
    }
    Ok(ended)
}

/// Believes no cure whose check finds the same again.
pub fn verify(ended: &mut [(Cure, Ended)], found_again: &BTreeSet<Cure>) {
    let same = |one: &Cure, other: &Cure| one.id() == other.id() && one.environment() == other.environment();
    for (cure, end) in ended {
        if *end == Ended::Cured && found_again.iter().any(|again| same(again, cure)) {
            *end = Ended::Failed("it was done, and the check finds the same again".to_owned());
        }
    }
}

/// A cure and its end, as `-o json` has them.
pub fn to_value(cure: &Cure, ended: &Ended) -> Value {
    let (outcome, reason) = match ended {
        Ended::Cured => ("cured", None),
        Ended::Left { reason, .. } => ("left", Some(reason)),
        Ended::Failed(reason) => ("failed", Some(reason)),
    };
    json!({
        "id": cure.id(),
        "environment": cure.environment(),
        "what": cure.what(),
        "outcome": outcome,
        "reason": reason,
        "undone_by": cure.undone_by().filter(|_| *ended == Ended::Cured),
    })
}

/// A cure and its end, as a person reads them.
pub fn render(cure: &Cure, ended: &Ended, style: Style) -> String {
    let id = style.faint(&format!("[{}]", cure.id()));
    let what = cure.what();
    match ended {
        Ended::Cured => {
            let undo = cure.undone_by().map_or(String::new(), |command| format!("         back   {command}\n"));
            format!("{} {what}  {id}\n{undo}", style.good("cured "))
        }
        Ended::Left { reason, .. } => format!("{} {what}  {id}\n         why    {reason}\n", style.warn("left  ")),
        Ended::Failed(reason) => format!("{} {what}  {id}\n         why    {reason}\n", style.bad("failed")),
    }
}

/// How `--fix` ends, where the checks that were run again say `report`.
pub fn exit(report: ExitCode, ended: &[(Cure, Ended)]) -> ExitCode {
    let failed = ended.iter().any(|(_, ended)| matches!(ended, Ended::Failed(_)));
    let refused = ended.iter().any(|(_, ended)| matches!(ended, Ended::Left { consent: true, .. }));
    match report {
        ExitCode::Done if failed => ExitCode::Failed,
        ExitCode::Done if refused => ExitCode::Consent,
        other => other,
    }
}

#[cfg(test)]
mod tests;
