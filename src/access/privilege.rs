//! What only root may write: how this account gets there, and the one command that sudo runs.

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
pub(super) async fn sudo(runner: &dyn Runner) -> Access {
    // Its words are those of the account's language otherwise.
    match runner.run(&Cmd::new("sudo").args(["-n", "true"]).env("LC_ALL", "C")).await {
        Ok(_) => Access::Sudo { passwordless: true },
        Err(RunError::Failed { stderr, .. }) if stderr.contains("password") => Access::Sudo { passwordless: false },
        Err(_) => Access::Unavailable,
    }
}

/// Has sudo ask for its password on the terminal, and says whether it needs none from then on.
pub async fn authenticate(runner: &dyn Runner) -> bool {
    let asked = runner.run(&Cmd::new("sudo").arg("-v").on_terminal()).await;
    // It may have been told to ask each time.
    asked.is_ok() && sudo(runner).await == (Access::Sudo { passwordless: true })
}

/// This program as root, with the words of a verb that checks again what it is told.
///
/// # Errors
/// The path of this program is not known.
pub(super) fn helper(words: &[&str]) -> std::io::Result<Cmd> {
    Ok(Cmd::new("sudo").args(["-n", "--"]).arg(std::env::current_exe()?).args(words.iter().copied()))
}
