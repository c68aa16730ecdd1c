//! `devstack completions SHELL`.

use clap::CommandFactory as _;

use super::{Cli, Session};
use crate::error::{ExitCode, Failure};

/// Arguments of `devstack completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell to complete for
    pub shell: clap_complete::Shell,
}

/// Prints the script.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "devstack", &mut script);
    session.ui.text(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::Done)
}
