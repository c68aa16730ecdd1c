//! The root command, its global flags, and how a wrong command line is answered.

use std::ffi::OsString;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use super::{Command, values};
use crate::error::{ExitCode, Failure};
use crate::ui::Format;
use crate::ui::handle::early_failure;

/// A whole local Kubernetes environment with one command, proven to work and cleaned up without a trace
#[derive(Debug, Parser)]
#[command(
    name = "devstack",
    version,
    max_term_width = 100,
    propagate_version = false,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "Exit codes: 0 done and verified, 1 failed (cause printed), 2 usage or invalid profile, \
                  3 doctor found problems, 4 leftovers after down, 5 consent or privilege missing, 130 interrupted."
)]
pub struct Cli {
    /// Flags of every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every verb.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// What standard output carries: text, or JSON lines each with a "type"
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Tell of everything, also of what was left as it is
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Answer every question with yes, but for privileges of an account that is not root
    #[arg(long, global = true)]
    pub yes: bool,
    /// The longest that each wait may take, such as 30s, 5m or 1h30m
    #[arg(long, global = true, value_name = "DURATION", value_parser = values::timeout)]
    pub timeout: Option<Duration>,
    /// Print without colours (as NO_COLOR and TERM=dumb do)
    #[arg(long, global = true)]
    pub no_color: bool,
    /// The environment to work with; the only one there is, unless given
    #[arg(long, global = true, value_name = "NAME", value_parser = values::environment_name)]
    pub env: Option<String>,
}

/// Whether clap may use colours; asked before it has parsed `--no-color` itself.
pub fn color_choice(args: &[OsString]) -> clap::ColorChoice {
    if args.iter().any(|arg| arg == "--no-color") { clap::ColorChoice::Never } else { clap::ColorChoice::Auto }
}

/// What standard output carries, for an answer to a command line that could not be parsed.
fn format_of(args: &[OsString]) -> Format {
    let json = |arg: &OsString| matches!(arg.to_str(), Some("-ojson" | "-o=json" | "--output=json"));
    let pair = |pair: &[OsString]| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json";
    if args.iter().any(json) || args.windows(2).any(pair) { Format::Json } else { Format::Text }
}

/// Prints help, the version, or what is wrong with the command line.
pub fn refuse(error: &clap::Error, args: &[OsString]) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that went away is no failure.
        let _ = error.print();
        return ExitCode::Done;
    }
    if format_of(args) == Format::Json {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return early_failure(&Failure::usage(message).hint("devstack --help"), Format::Json);
    }
    let _ = error.print();
    ExitCode::Usage
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_format_is_known_of_a_broken_command_line() {
        let format = |words: &[&str]| format_of(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(format(&["devstack", "upp", "-o", "json"]), Format::Json);
        assert_eq!(format(&["devstack", "--output=json", "upp"]), Format::Json);
        assert_eq!(format(&["devstack", "upp", "-o"]), Format::Text);
        assert_eq!(format(&["devstack", "json"]), Format::Text);
    }
}
