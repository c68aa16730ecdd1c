//! The command line: one file per verb, no logic that a test would want.
//!
//! A verb is a file with `Args` and `run(&Session, &Args) -> Result<ExitCode, Failure>`, a variant of [`Command`],
//! and a line in [`Command::changes`] and [`Command::run`].

pub mod bundle;
pub mod completions;
pub mod doctor;
pub mod down;
pub mod env;
pub mod facts;
pub mod hosts;
pub mod image;
pub mod image_build;
pub mod image_prune;
pub mod image_resolve;
pub mod man;
pub mod profile;
#[cfg(test)]
mod remedies;
pub mod root;
pub mod session;
pub mod status;
pub mod up;
pub mod values;

use clap::{CommandFactory as _, FromArgMatches as _, Subcommand};

use crate::error::{ExitCode, Failure};
pub use root::{Cli, Global};
pub use session::Session;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring an environment up, or back to what it should be, and prove that it works
    Up(up::Args),
    /// Take an environment down and verify that nothing is left
    Down(down::Args),
    /// Show how an environment is, with truth from probes
    Status(status::Args),
    /// Find out what is wrong with the machine or an environment, and what to do
    Doctor(doctor::Args),
    /// Print what was read about this machine and its engine
    Facts(facts::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Print what points kubectl, helm and Terraform at an environment, for eval
    Env(env::Args),
    /// Names in the hosts file
    Hosts(hosts::Args),
    /// Print the manual page, or write all of them to a directory
    Man(man::Args),
    /// Bundles: everything a profile needs in one file, for a network without registries
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Images: what is taken for a role, builds from source, the cache
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// List, show, check or draw profiles
    Profile(profile::Args),
}

impl Command {
    /// Whether the verb, as it was called, changes anything. Such a run has a log, and an interruption lets it end
    /// what it does; another run is simply dropped.
    pub fn changes(&self) -> bool {
        match self {
            Self::Up(args) => !args.dry_run,
            Self::Down(_) => true,
            Self::Bundle(command) => command.changes(),
            Self::Image(command) => command.changes(),
            Self::Doctor(args) => args.fix || args.helper.is_some(),
            Self::Hosts(args) => args.verb.changes(),
            Self::Status(_)
            | Self::Completions(_)
            | Self::Env(_)
            | Self::Facts(_)
            | Self::Man(_)
            | Self::Profile(_) => false,
        }
    }

    /// Runs the verb. Verbs that wait for anything are futures and go through [`Session::block_on`].
    ///
    /// # Errors
    /// Whatever the verb fails with.
    pub fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::Up(args) => up::run(session, args),
            Self::Down(args) => down::run(session, args),
            Self::Status(args) => status::run(session, args),
            Self::Completions(args) => completions::run(session, args),
            Self::Bundle(command) => command.run(session),
            Self::Image(command) => command.run(session),
            Self::Doctor(args) => doctor::run(session, args),
            Self::Facts(args) => facts::run(session, args),
            Self::Env(args) => env::run(session, args),
            Self::Hosts(args) => hosts::run(session, args),
            Self::Man(args) => man::run(session, args),
            Self::Profile(args) => profile::run(session, args),
        }
    }
}

/// Parses the process's arguments and runs the verb.
pub fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let command = Cli::command().color(root::color_choice(&args));
    let cli = match command.try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return root::refuse(&error, &args),
    };
    session::run(&cli)
}
