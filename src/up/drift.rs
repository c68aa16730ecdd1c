//! What became different since the last `up`: a dry run of the recorded desired state, as `status` and `doctor` show it.

use crate::context::Context;
use crate::error::Failure;
use crate::event::{Action, Change, EventSink};
use crate::journal::Journal;
use crate::up::{Desired, gather, names, observe};

/// What the next `up` of an environment would bring back; nothing of one that was never ready, whose next `up` makes the
/// rest. Asks no registry and changes nothing.
///
/// # Errors
/// What keeps `up --dry-run` from telling.
pub async fn drift(ctx: &Context, environment: &str) -> Result<Vec<Change>, Failure> {
    if !Journal::open(&ctx.dirs.environment(environment), ctx.fs.clone())?.is_ready() {
        return Ok(Vec::new());
    }
    let ctx = Context { events: EventSink::null(), ..ctx.clone() };
    let desired =
        Desired { environment: Some(environment.to_owned()), offline: true, dry_run: true, ..Desired::default() };
    let gathered = gather(&ctx, &desired).await?;
    let journal = Journal::open(&gathered.world.dir, ctx.fs.clone())?;
    let plan = gathered.plan(&journal, gathered.known_credentials(&ctx)?)?;
    let mut changes = observe(&gathered.world, &plan).await?;
    changes.retain(|change| names::is_offered(&gathered, &journal, change));
    Ok(changes
        .into_iter()
        .filter(|change| matches!(change.action, Action::Create | Action::Repair | Action::Remove))
        .collect())
}

/// A change that is to come, in one line: what is wrong with what.
pub fn told(change: &Change) -> String {
    match (&change.why, change.action) {
        (Some(why), _) => format!("{}: {why}", change.what),
        (None, Action::Create) => format!("{}: it is gone", change.what),
        (None, _) => format!("{}: it is not as it was made", change.what),
    }
}
