//! What a damaged journal does not tell of objects in a cluster that others use too. The cluster tells it: everything
//! that devstack makes there carries the mark of its environment.

use std::collections::BTreeSet;

use crate::cluster::Provider;
use crate::journal::{Journal, Opened, Record, Undo, VERSION};
use crate::ports::Kube;
use crate::ports::kube::{INSTANCE_LABEL, KubeError, ObjectKey};
use crate::step::{StepError, World};
use crate::step_ids;
use crate::undo::objects::{Recorded, connect, instance, mine, recorded};

/// Kinds without a namespace that components are made of. What is in a namespace goes with it.
const KINDS: [(&str, &str); 6] = [
    ("v1", "Namespace"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("networking.k8s.io/v1", "IngressClass"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
];

/// Records what carries the environment's mark and is not recorded any more, so that it is taken back with the rest.
///
/// # Errors
/// The cluster cannot be asked, or the journal cannot be written.
pub(crate) async fn recover(world: &World, journal: &Journal) -> Result<(), StepError> {
    let kube = connect(world).await?;
    let known = recorded(journal);
    let instance = match instance(journal) {
        Some(instance) => instance,
        None => match learned(&*kube, &known).await? {
            Some(instance) => {
                journal.append(Record::Opened(opened(world, &instance)))?;
                instance
            }
            None => {
                let warning = "what marks the environment's objects is lost: only those go whose UIDs are recorded";
                world.ctx.events.warn(warning);
                return Ok(());
            }
        },
    };
    let known: BTreeSet<&ObjectKey> = known.iter().map(|(key, _)| key).collect();
    let mut kinds: BTreeSet<(&str, &str)> = known.iter().map(|key| (&*key.api_version, &*key.kind)).collect();
    kinds.extend(KINDS);
    let mut found: Vec<Recorded> = Vec::new();
    for (version, kind) in kinds {
        let listed = kube.list(version, kind, None, &format!("{INSTANCE_LABEL}={instance}")).await?;
        let uid = |object: &serde_json::Value| object["metadata"]["uid"].as_str().map(str::to_owned);
        let keys = listed.iter().filter_map(|object| Some((ObjectKey::of(object)?, uid(object))));
        found.extend(keys.filter(|(key, _)| !known.contains(key)));
    }
    if !found.is_empty() {
        let undo = Undo::KubeObjects { kubeconfig: world.kubeconfig(), context: world.reserved_name(), objects: found };
        journal.append(Record::Intent { step: step_ids::DOWN.to_owned(), undo: vec![undo] })?;
    }
    Ok(())
}

/// The mark, from an object that is known to be the environment's by its UID.
async fn learned(kube: &dyn Kube, known: &[Recorded]) -> Result<Option<String>, KubeError> {
    for (key, uid) in known.iter().filter(|(_, uid)| uid.is_some()) {
        let found = mine(kube, key, uid.as_deref(), None).await?;
        if let Some(mark) = found.as_ref().and_then(|found| found["metadata"]["labels"][INSTANCE_LABEL].as_str()) {
            return Ok(Some(mark.to_owned()));
        }
    }
    Ok(None)
}

/// As much of the lost record as taking back needs.
fn opened(world: &World, instance: &str) -> Opened {
    Opened {
        version: VERSION,
        devstack: env!("CARGO_PKG_VERSION").to_owned(),
        environment: world.environment.clone(),
        provider: Provider::Existing.to_string(),
        instance: Some(instance.to_owned()),
        at: world.ctx.clock.now().to_string(),
        ..Opened::default()
    }
}
