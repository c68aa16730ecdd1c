//! `devstack down`.

use std::fmt::Write as _;

use super::Session;
use super::session::Runtime;
use crate::access::hosts;
use crate::down::{self, Downed, Several};
use crate::error::{ExitCode, Failure};
use crate::ports::runner::ProcessRunner;
use crate::ui::confirm::Question;

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
        let ask = |what: Vec<String>| {
            session.ui.confirm(&Question {
                what,
                ask: "Delete the namespaces with all of this".to_owned(),
                explain: "Somebody put these into namespaces that devstack made, in a cluster that is not devstack's \
                          own. They go with the namespaces and cannot be brought back. Nothing is changed before you \
                          say yes."
                    .to_owned(),
                privilege: false,
            })
        };
        hosts::unlock(ctx, &ProcessRunner::new(ctx.cancel.clone(), "down"), &names).await;
        let mut several = Several::default();
        for name in &names {
            several.add(name, down::down(ctx, name, args.keep_cluster, &ask).await)?;
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
