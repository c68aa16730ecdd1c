//! What others put into the namespaces of an environment, and would lose with them.

use std::collections::BTreeSet;

use crate::journal::Journal;
use crate::ports::Kube;
use crate::ports::kube::{INSTANCE_LABEL, KubeError};
use crate::step::World;
use crate::undo::objects::{Mark, connect, instance, mark, mine, recorded};

/// What runs because somebody applied it.
const WORKLOADS: [(&str, &str); 6] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "Pod"),
];

/// The workloads in these namespaces that neither carry the mark nor belong to something else, one line each.
///
/// # Errors
/// What the server said.
pub(crate) async fn strangers(
    kube: &dyn Kube,
    namespaces: &BTreeSet<&str>,
    mark: Mark<'_>,
) -> Result<Vec<String>, KubeError> {
    let places = namespaces.iter().flat_map(|namespace| WORKLOADS.map(|(version, kind)| (*namespace, version, kind)));
    let looks = places.map(|(namespace, version, kind)| async move {
        let found = match kube.list(version, kind, Some(namespace), "").await {
            // A kind that the server does not have, or has no more.
            Err(KubeError::Refused { code: 404, .. } | KubeError::UnknownKind { .. }) => Vec::new(),
            other => other?,
        };
        let foreign = found.iter().map(|object| &object["metadata"]).filter(|metadata| {
            metadata["ownerReferences"].is_null() && metadata["labels"][mark.0].as_str() != Some(mark.1)
        });
        let names = foreign.filter_map(|metadata| metadata["name"].as_str());
        let told = names.map(|name| format!("{kind} {namespace}/{name}, which devstack did not make"));
        Ok::<_, KubeError>(told.collect::<Vec<_>>())
    });
    Ok(futures::future::try_join_all(looks).await?.into_iter().flatten().collect())
}

/// What others lose when the environment is taken down in a cluster that devstack did not make.
///
/// # Errors
/// The cluster cannot be asked. That says nothing of what is in it, and it may answer again a moment later: nothing may
/// be taken back there then.
pub(crate) async fn at_stake(world: &World, journal: &Journal) -> Result<Vec<String>, KubeError> {
    let recorded = recorded(journal);
    if !world.provider.is_shared() || recorded.is_empty() {
        return Ok(Vec::new());
    }
    let kube = connect(world).await?;
    let instance = instance(journal);
    let mark = mark(instance.as_deref());
    let mut going = BTreeSet::new();
    for (key, uid) in recorded.iter().filter(|(key, _)| key.kind == "Namespace") {
        if mine(&*kube, key, uid.as_deref(), mark).await?.is_some() {
            going.insert(&*key.name);
        }
    }
    // Where the mark is lost, nothing carries this one, and all is asked for.
    strangers(&*kube, &going, mark.unwrap_or((INSTANCE_LABEL, ""))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeKube;
    use serde_json::{Value, json};

    #[tokio::test]
    async fn what_somebody_put_into_a_namespace_that_goes_is_named() {
        let kube = FakeKube::default();
        let workload = |kind: &str, namespace: &str, name: &str, metadata: Value| {
            let mut object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata});
            object["metadata"]["namespace"] = json!(namespace);
            object["metadata"]["name"] = json!(name);
            kube.put(object);
        };
        workload("Deployment", "a", "own", json!({"labels": {INSTANCE_LABEL: "mark"}}));
        workload("Deployment", "a", "theirs", json!({}));
        workload("StatefulSet", "a", "another", json!({"labels": {INSTANCE_LABEL: "other"}}));
        workload("DaemonSet", "a", "made", json!({"ownerReferences": [{"name": "theirs"}]}));
        workload("Deployment", "b", "elsewhere", json!({}));
        let named = strangers(&kube, &BTreeSet::from(["a"]), (INSTANCE_LABEL, "mark")).await.unwrap();
        let told = |what: &str| format!("{what}, which devstack did not make");
        assert_eq!(named, [told("Deployment a/theirs"), told("StatefulSet a/another")]);
    }
}
