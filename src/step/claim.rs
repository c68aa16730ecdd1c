//! Objects in a cluster that others use too: what is there already is refused, what is made is recorded so that it can
//! be told from everything else.
//!
//! Each object that devstack makes there carries the environment's instance, a random text that no other environment
//! has, and is recorded twice: its key before it is made, so that a kill in between loses nothing, and its UID after.
//! `down` deletes what of these has the recorded UID or the instance, and nothing else.

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;

use crate::executor::Run;
use crate::journal::Undo;
use crate::ports::Kube;
use crate::ports::kube::{INSTANCE_LABEL, KubeError, ObjectKey};
use crate::step::objects::PARALLEL;
use crate::step::{StepError, World};

/// An environment's claim on objects of a cluster that is not its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The environment's instance.
    pub instance: String,
}

impl Claim {
    /// Marks an object as the environment's.
    pub(super) fn mark(&self, object: &mut Value) {
        object["metadata"]["labels"][INSTANCE_LABEL] = self.instance.clone().into();
    }

    /// Whether an object is the environment's.
    pub(super) fn holds(&self, object: &Value) -> bool {
        object["metadata"]["labels"][INSTANCE_LABEL] == self.instance.as_str()
    }

    /// Refuses to make objects in whose place there are somebody else's.
    pub(super) async fn refuse_foreign(&self, kube: &dyn Kube, objects: &[Value]) -> Result<(), StepError> {
        let looked: Vec<Option<ObjectKey>> = futures::stream::iter(objects.iter().filter_map(ObjectKey::of))
            .map(|key| async move {
                let foreign = kube.get(&key).await?.is_some_and(|object| !self.holds(&object));
                Ok::<_, KubeError>(foreign.then_some(key))
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let mut foreign: Vec<ObjectKey> = looked.into_iter().flatten().collect();
        foreign.sort();
        if foreign.is_empty() { Ok(()) } else { Err(self.refusal(&foreign)) }
    }

    fn refusal(&self, foreign: &[ObjectKey]) -> StepError {
        let names: Vec<String> = foreign.iter().map(ToString::to_string).collect();
        StepError::Other {
            message: format!(
                "the cluster has what devstack would make, and it is not this environment's: {}",
                names.join(", ")
            ),
            hint: Some("it was left alone; remove or rename it yourself, or use another cluster".to_owned()),
            exit: crate::error::ExitCode::Failed,
        }
    }

    /// Records the objects of a wave that are not there yet, before they are made; gives their keys.
    pub(super) async fn announce(
        &self,
        run: &Run<'_>,
        id: &str,
        kube: &dyn Kube,
        wave: &[Value],
    ) -> Result<Vec<ObjectKey>, StepError> {
        let mut absent = Vec::new();
        let mut foreign = Vec::new();
        for key in wave.iter().filter_map(ObjectKey::of) {
            match kube.get(&key).await? {
                None => absent.push(key),
                Some(object) if self.holds(&object) => {}
                Some(_) => foreign.push(key),
            }
        }
        if !foreign.is_empty() {
            return Err(self.refusal(&foreign));
        }
        if !absent.is_empty() {
            run.intend(id, vec![undo(run.world, absent.iter().map(|key| (key.clone(), None)).collect())])?;
        }
        Ok(absent)
    }

    /// Records the UIDs of what was made.
    pub(super) fn made(run: &Run<'_>, id: &str, objects: Vec<(ObjectKey, Option<String>)>) -> Result<(), StepError> {
        if !objects.is_empty() {
            run.intend(id, vec![undo(run.world, objects)])?;
        }
        Ok(())
    }
}

fn undo(world: &World, objects: Vec<(ObjectKey, Option<String>)>) -> Undo {
    Undo::KubeObjects { kubeconfig: world.kubeconfig(), context: world.reserved_name(), objects }
}
