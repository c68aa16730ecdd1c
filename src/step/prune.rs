//! What components of an earlier `up` made and nobody asks for any more: taken away, with consent where data goes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::event::Action;
use crate::executor::Run;
use crate::journal::Record;
use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::{INSTANCE_LABEL, KubeError, ObjectKey};
use crate::step::{Applied, Claim, Observed, StepError, World};
use crate::undo::objects::{Mark, mine, take_back};

/// Removes components that the profile has no more.
#[derive(Debug, Clone)]
pub struct PruneStep {
    /// What each of them made, in the order in which it was made.
    pub dropped: BTreeMap<String, Vec<ObjectKey>>,
    /// The claim on its objects, in a cluster that others use too.
    pub claim: Option<Claim>,
}

impl PruneStep {
    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let names: Vec<&str> = self.dropped.keys().map(String::as_str).collect();
        let what = format!("component{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "));
        let Ok(kube) = world.kube() else { return Ok(Observed::new(Action::Leave, what)) };
        let keys: Vec<ObjectKey> = self.dropped.values().flatten().cloned().collect();
        let there = there(&*kube, &keys, mark(world, self.claim.as_ref())).await?;
        let loses = lost(&*kube, &there).await?;
        let what = format!("{what}, {} objects", there.len());
        Ok(Observed::new(Action::Remove, what).because("the profile has it no more").losing(loses))
    }

    pub(super) async fn apply(&self, run: &Run<'_>) -> Result<Applied, StepError> {
        let kube = run.world.kube()?;
        let mut removed = 0;
        for (component, keys) in &self.dropped {
            removed += take_back(run.world, &*kube, keys, mark(run.world, self.claim.as_ref())).await?;
            run.journal.append(Record::Done { step: component.clone(), outputs: json!({"applied": []}) })?;
        }
        Ok(Applied { detail: format!("{removed} objects"), outputs: Value::Null, changed: removed > 0 })
    }
}

/// What all objects of an environment carry.
pub(super) fn mark<'a>(world: &'a World, claim: Option<&'a Claim>) -> Mark<'a> {
    claim.map_or((OWNER_LABEL, &*world.environment), |claim| (INSTANCE_LABEL, &*claim.instance))
}

/// Those of these objects that are there and carry the mark.
pub(super) async fn there(kube: &dyn Kube, keys: &[ObjectKey], mark: Mark<'_>) -> Result<Vec<ObjectKey>, KubeError> {
    let looks =
        keys.iter().map(|key| async move { Ok::<_, KubeError>(mine(kube, key, None, Some(mark)).await?.map(|_| key)) });
    Ok(futures::future::try_join_all(looks).await?.into_iter().flatten().cloned().collect())
}

/// The claims of volumes whose data goes with these objects.
pub(super) async fn lost(kube: &dyn Kube, keys: &[ObjectKey]) -> Result<Vec<String>, KubeError> {
    let of = |kind: &str| keys.iter().filter(|key| key.kind == kind).collect::<Vec<_>>();
    let namespaces: BTreeSet<&str> = of("Namespace").iter().map(|key| key.name.as_str()).collect();
    let claims = of("PersistentVolumeClaim");
    if namespaces.is_empty() && claims.is_empty() {
        return Ok(Vec::new());
    }
    let all = kube.list("v1", "PersistentVolumeClaim", None, "").await?;
    let goes = |claim: &&Value| {
        let text = |pointer: &str| claim.pointer(pointer).and_then(Value::as_str);
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        namespace.is_some_and(|namespace| namespaces.contains(namespace))
            || claims.iter().any(|key| key.namespace.as_deref() == namespace && Some(&*key.name) == name)
    };
    Ok(all.iter().filter(goes).map(volume).collect())
}

/// Every volume of a cluster, as it is lost with it.
pub(super) async fn volumes(kube: &dyn Kube) -> Result<Vec<String>, KubeError> {
    Ok(kube.list("v1", "PersistentVolumeClaim", None, "").await?.iter().map(volume).collect())
}

fn volume(claim: &Value) -> String {
    let text = |pointer: &str| claim.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let size = text("/spec/resources/requests/storage");
    format!("volume {}/{} ({size})", text("/metadata/namespace"), text("/metadata/name"))
}
