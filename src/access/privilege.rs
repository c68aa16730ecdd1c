//! What only root may write: how this account gets there, and the one command that sudo runs.

use crate::context::Context;
use crate::ports::Runner;
use crate::ports::runner::{Cmd, RunError};

/// How something can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// This account may write it.
    Direct,
    /// Through sudo.
    Sudo {
        /// Whether sudo asks for no password now.
        passwordless: bool,
    },
    /// Not at all.
    Unavailable,
}

/// What sudo can do for this account, now.
pub(super) async fn sudo(ctx: &Context, runner: &dyn Runner) -> Access {
    match runner.run(&Cmd::new("sudo").args(["-n", "true"])).await {
        Ok(_) => Access::Sudo { passwordless: true },
        Err(RunError::Failed { stderr, .. }) if ctx.options.interactive && stderr.contains("password") => {
            Access::Sudo { passwordless: false }
        }
        Err(_) => Access::Unavailable,
    }
}

/// This program as root, with the words of a verb that checks again what it is told.
///
/// # Errors
/// The path of this program is not known.
pub(super) fn helper(words: &[&str]) -> std::io::Result<Cmd> {
    Ok(Cmd::new("sudo").args(["-n", "--"]).arg(std::env::current_exe()?).args(words.iter().copied()))
}
