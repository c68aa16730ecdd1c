//! `devstack env`.

use std::path::Path;

use super::Session;
use crate::error::{ExitCode, Failure};

/// Arguments of `devstack env`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell that shall evaluate it
    #[arg(long, value_enum, default_value_t)]
    pub shell: Shell,
}

/// Ways to set a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Shell {
    /// bash, zsh and every other POSIX shell
    #[default]
    Sh,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
}

/// Prints what points kubectl, helm and Terraform at the environment.
///
/// # Errors
/// There is no such environment, or it has no cluster yet.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let environment = session.environment()?;
    let file = session.ctx.dirs.environment(&environment).join("kubeconfig");
    let read = session.ctx.fs.read(&file).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot read {}", file.display())).cause(error.to_string())
    })?;
    if read.is_none() {
        let message = format!("the environment {environment} has no cluster yet");
        return Err(Failure::new(ExitCode::Failed, message).hint(format!("devstack up --env {environment}")));
    }
    let value = serde_json::json!({"environment": environment, "kubeconfig": file});
    session.ui.object("env", value, &line(args.shell, &file))?;
    Ok(ExitCode::Done)
}

/// The line to evaluate. The path is quoted, so that no character of it means anything to the shell.
fn line(shell: Shell, file: &Path) -> String {
    let path = file.display().to_string();
    match shell {
        Shell::Sh => format!("export KUBECONFIG='{}'\n", path.replace('\'', r"'\''")),
        Shell::Fish => {
            format!("set -gx KUBECONFIG '{}'\n", path.replace('\\', r"\\").replace('\'', r"\'"))
        }
        Shell::Powershell => format!("$env:KUBECONFIG = '{}'\n", path.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_can_break_out_of_its_quotes() {
        let path = Path::new(r"/o'brien/$HOME/a\'b");
        insta::assert_snapshot!([Shell::Sh, Shell::Fish, Shell::Powershell].map(|shell| line(shell, path)).concat(), @r"
        export KUBECONFIG='/o'\''brien/$HOME/a\'\''b'
        set -gx KUBECONFIG '/o\'brien/$HOME/a\\\'b'
        $env:KUBECONFIG = '/o''brien/$HOME/a\''b'
        ");
    }
}
