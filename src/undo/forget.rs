//! What `down --forget-cluster` forgets: what was recorded in a cluster that is gone, or that nobody can ask any more.

use crate::cluster::{Provider, guard};
use crate::error::{ExitCode, Failure, chain};
use crate::journal::{Journal, Undo};
use crate::ports::engine::EngineError;
use crate::step::World;

/// What is forgotten, one line each.
///
/// # Errors
/// The cluster is not gone, so that a plain `down` takes it back; what the engine says.
pub(crate) async fn forgotten(world: &World, journal: &Journal) -> Result<Vec<String>, Failure> {
    let gone = match world.provider {
        Provider::Existing => guard::enter(world).await.err().map(|error| chain(&error)),
        Provider::Kind => match guard::at_home(world, &world.nodes().await?).await {
            Err(error @ EngineError::Another { .. }) => Some(chain(&error)),
            other => {
                other?;
                None
            }
        },
        // Its program tells of all of them, wherever they are.
        Provider::Minikube => None,
    };
    let Some(why) = gone else {
        let environment = &world.environment;
        let message = format!("the cluster of environment {environment} is not gone, nothing of it is to be forgotten");
        let failure = Failure::new(ExitCode::Failed, message).kept("nothing changed");
        return Err(failure.hint(format!("devstack down --env {environment}")));
    };
    let mut all: Vec<String> = journal.pending().iter().flat_map(|(_, undo)| in_cluster(undo)).collect();
    all.sort();
    all.dedup();
    if !all.is_empty() {
        world.ctx.events.note(why);
    }
    Ok(all)
}

fn in_cluster(undo: &Undo) -> Vec<String> {
    match undo {
        Undo::KubeObjects { objects, .. } => objects.iter().map(|(key, _)| key.to_string()).collect(),
        cluster if cluster.is_cluster() => vec![cluster.to_string()],
        _ => Vec::new(),
    }
}
