//! `devstack image prune`.

use std::sync::Arc;

use serde_json::json;

use super::Session;
use super::session::Runtime;
use crate::build::{Pruner, Scope, host_platform};
use crate::error::{ExitCode, Failure};
use crate::ports::Engine as _;
use crate::ports::docker::DockerEngine;
use crate::ports::runner::ProcessRunner;
use crate::ui::confirm::Question;
use crate::ui::steps::bytes;

/// The label of every image that devstack built.
const BUILT: &str = "dev.devstack.recipe";

/// Arguments of `devstack image prune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove everything, although environments exist or something would be needed again
    #[arg(long)]
    pub all: bool,
}

/// Prunes the cache: everything when no environment exists, else what nothing leads to.
///
/// # Errors
/// No consent, or a cache that cannot be changed or that another devstack works with.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    session.block_on(Runtime::Parallel, async {
        let scope = if args.all || session.environments()?.is_empty() { Scope::Everything } else { Scope::Stale };
        if scope == Scope::Everything {
            session.ui.confirm(&Question {
                what: vec!["all cached images, builds and tools".to_owned()],
                ask: "Remove them".to_owned(),
                explain: "The next `devstack up` fetches or builds again what it needs.".to_owned(),
                privilege: false,
            })?;
        }
        let runner = Arc::new(ProcessRunner::new(session.ctx.cancel.clone(), "image-prune"));
        // Kept until the engine is done with, too: an `up` that begins now looks there as well.
        let cache = Pruner::new(&session.ctx, runner, host_platform())?;
        let pruned = cache.prune(scope)?;
        let engine = if scope == Scope::Everything { engine_images(session).await } else { 0 };
        let text = format!(
            "removed {} images, {} builds, {} images of the engine · {} freed\n",
            pruned.images,
            pruned.builds,
            engine,
            bytes(pruned.bytes)
        );
        let value = json!({
            "images": pruned.images, "builds": pruned.builds, "engine_images": engine, "bytes": pruned.bytes,
        });
        session.ui.result(value, &text)?;
        Ok(ExitCode::Done)
    })
}

/// Removes the images that devstack built from the engine. One that a container uses stays, and an engine that does
/// not answer has none to remove.
async fn engine_images(session: &Session) -> u64 {
    let engine = DockerEngine::find(&session.ctx.vars, &session.ctx.dirs.home);
    let mut removed = 0;
    for reference in engine.images(BUILT).await.unwrap_or_default() {
        match engine.remove_image(&reference).await {
            Ok(()) => removed += 1,
            Err(error) => session.ctx.events.note(format!("{reference} stays in the engine: {error}")),
        }
    }
    removed
}
