//! Names in the hosts file where only sudo may write it: an offer that no `up` depends on.

use crate::access::hosts::Access;
use crate::access::privilege;
use crate::error::{ExitCode, Failure};
use crate::event::{Action, Change};
use crate::journal::Journal;
use crate::plan::id;
use crate::up::{Ask, Gathered};

/// Whether sudo may write the hosts file.
#[derive(Clone, Copy)]
pub enum Sudo<'a> {
    /// The command line says that it may.
    Allowed,
    /// A person is asked.
    Ask(Ask<'a>),
    /// There is nobody to ask.
    Nobody,
}

/// Whether an `up` would make the change or offer it. An environment that was ready without its names is not asked for
/// them again.
pub(super) fn is_offered(gathered: &Gathered, journal: &Journal, change: &Change) -> bool {
    let had = || change.action != Action::Create || journal.outputs().contains_key(id::HOSTS);
    match gathered.hosts {
        _ if !is_of_names(change) => true,
        Access::Direct => true,
        Access::Unavailable => false,
        Access::Sudo { .. } => had() || !journal.is_ready(),
    }
}

/// Takes the change of the hosts file out of those to come where it will not be made, and says with what it is made
/// where it will. Nobody is asked.
pub(super) fn settle(gathered: &Gathered, journal: &Journal, sudo: Sudo<'_>, changes: &mut Vec<Change>) {
    let Some(at) = changes.iter().position(is_of_names) else { return };
    let offered = is_offered(gathered, journal, &changes[at]);
    let stays = match (gathered.hosts, sudo) {
        (Access::Direct | Access::Unavailable, _) | (_, Sudo::Ask(_)) => offered,
        (Access::Sudo { passwordless }, Sudo::Allowed) => passwordless || gathered.world.ctx.options.interactive,
        (Access::Sudo { .. }, Sudo::Nobody) => false,
    };
    if gathered.hosts != Access::Direct {
        changes[at].what.push_str(", with sudo");
    }
    match stays {
        true => {}
        false if offered || matches!(sudo, Sudo::Allowed) => leave_out(gathered, changes, at),
        false => drop(changes.remove(at)),
    }
}

/// Gets the right to change the hosts file, where that takes sudo: asks, and has sudo ask for its password now, so that
/// the step has no question. Without it the change is left out.
///
/// # Errors
/// An interruption, or a terminal that cannot be read.
pub(super) async fn ask(gathered: &Gathered, sudo: Sudo<'_>, changes: &mut Vec<Change>) -> Result<(), Failure> {
    let (Some(at), Access::Sudo { passwordless }) = (changes.iter().position(is_of_names), gathered.hosts) else {
        return Ok(());
    };
    let answer = match sudo {
        Sudo::Ask(ask) => ask(vec![changes[at].what.clone()]),
        Sudo::Allowed | Sudo::Nobody => Ok(()),
    };
    let granted = match answer {
        Ok(()) => passwordless || privilege::authenticate(&*gathered.world.runner).await,
        Err(refusal) if refusal.exit == ExitCode::Consent => false,
        Err(interruption) => return Err(interruption),
    };
    if gathered.world.ctx.cancel.is_cancelled() {
        return Err(Failure::interrupted(false));
    }
    if !granted {
        leave_out(gathered, changes, at);
    }
    Ok(())
}

/// Whether something would be done in the hosts file.
fn is_of_names(change: &Change) -> bool {
    change.step == id::HOSTS && change.action != Action::Leave
}

fn leave_out(gathered: &Gathered, changes: &mut Vec<Change>, at: usize) {
    let what = changes.remove(at).what;
    let environment = &gathered.world.environment;
    let how = format!("on a terminal, or where sudo needs no password: devstack up --env {environment} --sudo");
    gathered.world.ctx.events.note(format!("left out: {what}; to have it, {how}"));
}

#[cfg(test)]
mod tests;
