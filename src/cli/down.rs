//! `devstack down`.

use std::fmt::Write as _;

use super::Session;
use super::session::Runtime;
use crate::access::hosts;
use crate::down::{self, Downed, Several};
use crate::error::{ExitCode, Failure};
use crate::ports::runner::ProcessRunner;
use crate::ui::confirm::Question;
use crate::undo::Fate;

/// Arguments of `devstack down`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every environment, also one whose state was lost
    #[arg(long, conflicts_with = "env")]
    pub all: bool,
    /// Leave the cluster, and take back only what was changed on this host (one that devstack did not make is always left,
    /// and what was put there is taken back)
    #[arg(long)]
    pub keep_cluster: bool,
    /// Where the cluster is gone for good, or the engine that it was in: forget what was recorded in it, after asking,
    /// and take back the rest
    #[arg(long, conflicts_with_all = ["all", "keep_cluster"])]
    pub forget_cluster: bool,
}

impl Args {
    fn fate(&self) -> Fate {
        match (self.keep_cluster, self.forget_cluster) {
            (true, _) => Fate::Keep,
            (_, true) => Fate::Forget,
            (false, false) => Fate::Remove,
        }
    }
}

/// What is asked of a person who has something to lose.
fn question(fate: Fate, what: Vec<String>) -> Question {
    let (ask, explain) = match fate {
        Fate::Forget => (
            "Forget all of this",
            "It was recorded in a cluster that does not answer, or is another one by now, or is in another engine. \
             Nobody looks for it there any more: where that cluster still exists, this stays in it and is yours to \
             remove. Everything else of the environment is taken back.",
        ),
        Fate::Remove | Fate::Keep => (
            "Delete the namespaces with all of this",
            "Somebody put these into namespaces that devstack made, in a cluster that is not devstack's own. They go \
             with the namespaces and cannot be brought back. Nothing is changed before you say yes.",
        ),
    };
    Question { what, ask: ask.to_owned(), explain: explain.to_owned(), privilege: false }
}

/// Takes environments down and verifies that nothing is left.
///
/// # Errors
/// Whatever could not be taken back.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    session.block_on(Runtime::Parallel, async {
        let ctx = &session.ctx;
        let mut names = match (&session.global.env, args.all) {
            (Some(name), _) => vec![name.clone()],
            (None, true) => session.environments()?,
            (None, false) => match session.environments()?.as_slice() {
                [] => Vec::new(),
                _ => vec![session.environment()?],
            },
        };
        if names.is_empty() || args.all {
            names.extend(down::stray(ctx).await?);
            names.sort();
            names.dedup();
        }
        let fate = args.fate();
        let ask = |what: Vec<String>| session.ui.confirm(&question(fate, what));
        hosts::unlock(ctx, &ProcessRunner::new(ctx.cancel.clone(), "down"), &names).await;
        let mut several = Several::default();
        for name in &names {
            several.add(name, down::down(ctx, name, fate, &ask).await)?;
        }
        if let Some(failure) = several.failure() {
            return Err(failure);
        }
        let downed = several.downed;
        session.ui.result(down::result(&downed), &text(&downed, ctx))?;
        if session.environments()?.is_empty() {
            session.ui.discard_logs();
        }
        let clean = downed.iter().all(|one| one.leftovers.is_empty());
        Ok(if clean { ExitCode::Done } else { ExitCode::Leftovers })
    })
}

fn text(downed: &[Downed], ctx: &crate::context::Context) -> String {
    if downed.is_empty() {
        return "nothing to take down\n".to_owned();
    }
    let mut text = String::new();
    for one in downed {
        let what = if one.undone.is_empty() { "nothing was there".to_owned() } else { one.undone.join(", ") };
        let _ = writeln!(
            text,
            "{}: {} undone: {what} · {:.1} s · leftovers {}",
            one.environment,
            one.undone.len(),
            one.seconds,
            one.leftovers.len()
        );
        for left in &one.leftovers {
            let _ = writeln!(text, "  left   {left}");
        }
    }
    let _ = writeln!(text, "kept   image cache {} (devstack image prune)", ctx.dirs.cache.display());
    text
}
