//! `devstack facts`.

use std::path::PathBuf;

use super::Session;
use super::session::Runtime;
use crate::check;
use crate::error::{ExitCode, Failure};
use crate::facts::{self, Facts, NodeFacts};
use crate::ports::docker::DockerEngine;
use crate::ports::runner::ProcessRunner;
use crate::step::World;

/// Arguments of `devstack facts`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show the facts in this file instead of reading this machine
    #[arg(long, value_name = "FILE")]
    pub facts: Option<PathBuf>,
}

/// The running nodes of the environment that is named, or of all; those that cannot be read are left out.
async fn nodes(session: &Session) -> Vec<NodeFacts> {
    let ctx = &session.ctx;
    let named = session.global.env.clone().map(|name| vec![name]);
    let mut read = Vec::new();
    for environment in named.or_else(|| crate::environments::list(ctx).ok()).unwrap_or_default() {
        let world = World::real(ctx, &environment);
        let nodes = world.nodes().await.unwrap_or_default();
        let running = nodes.iter().filter(|node| node.state == "running");
        let asked = running.map(|node| facts::read_node(&*world.engine, &node.id, &node.name));
        read.extend(futures::future::join_all(asked).await.into_iter().flatten());
    }
    read
}

/// Prints what is known of the machine and the engine.
///
/// # Errors
/// The file cannot be used, or the output not be written.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    session.block_on(Runtime::Small, async {
        let facts = match &args.facts {
            Some(path) => {
                let name = path.display().to_string();
                let missing = || Failure::usage(format!("there is no file {name}"));
                let refused =
                    |error: std::io::Error| Failure::usage(format!("cannot read {name}")).cause(error.to_string());
                let bytes = session.ctx.fs.read(path).map_err(refused)?.ok_or_else(missing)?;
                facts::parse(&name, &String::from_utf8_lossy(&bytes))?
            }
            None => {
                let ctx = &session.ctx;
                let engine = DockerEngine::find(&ctx.vars, &ctx.dirs.home);
                let runner = ProcessRunner::new(ctx.cancel.clone(), "facts");
                let inputs = check::gather(ctx, &engine, &runner, check::Needs::default()).await;
                let nodes = nodes(session).await;
                Facts { source: None, host: inputs.host, engine: inputs.engine.and_then(Result::ok), nodes }
            }
        };
        let text: String = facts.lines().iter().map(|line| format!("{line}\n")).collect();
        let value = serde_json::to_value(&facts)
            .map_err(|error| Failure::new(ExitCode::Failed, "cannot write the facts").cause(error.to_string()))?;
        session.ui.object("facts", value, &text)?;
        Ok(ExitCode::Done)
    })
}
