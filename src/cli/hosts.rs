//! `devstack hosts list|remove`, and the privileged helper `hosts write-block`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Session;
use super::session::Runtime;
use crate::access::hosts::{self, Access};
use crate::error::{ExitCode, Failure};
use crate::ports::runner::ProcessRunner;
use crate::ui::{Question, Table};

/// More input than any block has.
const LONGEST_INPUT: u64 = 64 * 1024;

/// Arguments of `devstack hosts`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs of `devstack hosts`.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// List the names that devstack manages in the hosts file
    List,
    /// Take an environment's names out of the hosts file; `up` brings them back
    Remove,
    /// Write or remove one environment's block, after checking every line again; what sudo runs
    #[command(hide = true)]
    WriteBlock {
        /// The hosts file
        #[arg(long)]
        file: PathBuf,
        /// Remove the block instead of reading its lines (ADDRESS NAME) from standard input
        #[arg(long)]
        remove: bool,
    },
}

impl Verb {
    /// Whether anything is changed.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::List)
    }
}

/// Runs the verb.
///
/// # Errors
/// What the hosts file, sudo or the user says.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    match &args.verb {
        Verb::List => list(session)?,
        Verb::Remove => return session.block_on(Runtime::Small, remove(session)),
        Verb::WriteBlock { file, remove } => write_block(session, file, *remove)?,
    }
    Ok(ExitCode::Done)
}

fn list(session: &Session) -> Result<(), Failure> {
    let file = session.ctx.hosts_file();
    let blocks = hosts::blocks(&hosts::read(&session.ctx, &file)?);
    let mut table = Table::new(["ENVIRONMENT", "ADDRESS", "NAME"]);
    let mut names = Vec::new();
    for (environment, entries) in &blocks {
        for entry in entries {
            table.row([environment.clone(), entry.address.to_string(), entry.name.clone()]);
            names.push(json!({"environment": environment, "address": entry.address, "name": entry.name}));
        }
    }
    let text =
        if table.is_empty() { format!("devstack manages no name in {}\n", file.display()) } else { table.render() };
    session.ui.object("hosts", json!({"file": file, "names": names}), &text)
}

async fn remove(session: &Session) -> Result<ExitCode, Failure> {
    let ctx = &session.ctx;
    let file = ctx.hosts_file();
    let environment = match &session.global.env {
        Some(name) => name.clone(),
        None => only(hosts::blocks(&hosts::read(ctx, &file)?).into_iter().map(|(name, _)| name).collect())?,
    };
    let runner = ProcessRunner::new(ctx.cancel.clone(), environment.clone());
    let text = hosts::read(ctx, &file)?;
    if hosts::without_block(&text, &environment) != text
        && matches!(hosts::access(ctx, &runner, &file).await, Access::Sudo { .. })
    {
        session.ui.confirm(&Question {
            what: vec![format!("{}: the names of {environment} are taken out, with sudo", file.display())],
            ask: "Change the hosts file".to_owned(),
            explain: "Only root may write the file. devstack runs itself with sudo for this one change and checks \
                      every line again before it writes."
                .to_owned(),
            privilege: true,
        })?;
        hosts::unlock(ctx, &runner, std::slice::from_ref(&environment)).await;
    }
    let removed = hosts::remove(ctx, &runner, &file, &environment).await?;
    let text = if removed {
        format!("{}: the names of {environment} are gone\n", file.display())
    } else {
        format!("{}: nothing of {environment} was there\n", file.display())
    };
    session.ui.result(json!({"environment": environment, "file": file, "changed": removed}), &text)?;
    Ok(ExitCode::Done)
}

fn only(mut names: Vec<String>) -> Result<String, Failure> {
    names.dedup();
    match names.len() {
        0 => Err(Failure::usage("devstack manages no name in the hosts file")),
        1 => Ok(names.remove(0)),
        _ => Err(Failure::usage(format!("several environments have names there: {}", names.join(", ")))
            .hint(format!("devstack hosts remove --env {}", names[0]))),
    }
}

fn write_block(session: &Session, file: &Path, remove: bool) -> Result<(), Failure> {
    let environment = session.global.env.as_deref().ok_or_else(|| Failure::usage("--env NAME is missing"))?;
    let elevated = session.ctx.vars.get("SUDO_UID").is_some();
    let mut lines = String::new();
    if !remove {
        let mut input = std::io::stdin().lock().take(LONGEST_INPUT);
        input
            .read_to_string(&mut lines)
            .map_err(|error| Failure::usage("the lines on standard input cannot be read").cause(error.to_string()))?;
    }
    let changed = hosts::write_block(&session.ctx, file, environment, (!remove).then_some(&lines), elevated)?;
    session.ui.result(json!({"environment": environment, "file": file, "changed": changed}), "")
}
