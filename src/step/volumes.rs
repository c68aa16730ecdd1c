//! Volumes of a kind cluster, made before they are asked for.
//!
//! kind's storage class makes a volume by starting a pod on the node, which makes a directory: seconds that whatever
//! needs the volume waits for, and all that need that. For the claims of a `StatefulSet` that is about to be applied
//! this does the same in advance: the directory, and a volume that is bound to the claim and marked as the
//! provisioner's own, so that the provisioner removes both with the claim.

use serde_json::{Value, json};

use crate::cluster::Provider;
use crate::ports::Kube;
use crate::ports::kube::ObjectKey;
use crate::step::{StepError, World};

/// kind's storage class, by the name that its node images give it.
const CLASS: &str = "standard";

/// Who makes volumes of that class (Rancher's local-path provisioner), and where.
const PROVISIONER: &str = "rancher.io/local-path";
const DIRECTORY: &str = "/var/local-path-provisioner";

/// A claim that a `StatefulSet` will make.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    namespace: String,
    name: String,
    modes: Value,
    storage: Value,
}

/// Makes the volumes of `objects` that are not there. What it does not make, the provisioner does.
///
/// # Errors
/// What the engine or the API server says.
pub(super) async fn provide(world: &World, kube: &dyn Kube, objects: &[Value]) -> Result<(), StepError> {
    if world.provider != Provider::Kind {
        return Ok(());
    }
    for claim in objects.iter().flat_map(claims) {
        make(world, kube, &claim).await?;
    }
    Ok(())
}

async fn make(world: &World, kube: &dyn Kube, claim: &Claim) -> Result<(), StepError> {
    let volume = format!("{}-{}", claim.namespace, claim.name);
    let there = ObjectKey {
        api_version: "v1".to_owned(),
        kind: "PersistentVolumeClaim".to_owned(),
        namespace: Some(claim.namespace.clone()),
        name: claim.name.clone(),
    };
    let object =
        ObjectKey { kind: "PersistentVolume".to_owned(), namespace: None, name: volume.clone(), ..there.clone() };
    if kube.get(&there).await?.is_some() || kube.get(&object).await?.is_some() {
        return Ok(());
    }
    let control_plane = world.control_plane();
    let Some(node) = world.nodes().await?.into_iter().find(|node| node.name == control_plane) else { return Ok(()) };
    let path = format!("{DIRECTORY}/{volume}");
    for argv in [&["mkdir", "-p", DIRECTORY][..], &["mkdir", "-m", "0777", &path]] {
        // A directory of that name may hold somebody's data.
        if world.engine.exec(&node.id, argv, None).await?.status != 0 {
            return Ok(());
        }
    }
    kube.apply(&persistent_volume(&volume, &path, &control_plane, claim)).await?;
    Ok(())
}

/// The claims of a `StatefulSet`'s pods that ask for kind's storage class.
fn claims(object: &Value) -> Vec<Claim> {
    let (Some(key), Some(templates)) =
        (ObjectKey::of(object), object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array))
    else {
        return Vec::new();
    };
    let Some(namespace) = key.namespace.filter(|_| key.kind == "StatefulSet") else { return Vec::new() };
    let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let wanted = templates.iter().filter(|template| template.pointer("/spec/storageClassName") == Some(&json!(CLASS)));
    wanted
        .filter_map(|template| {
            let name = template.pointer("/metadata/name")?.as_str()?;
            let (modes, storage) =
                (template.pointer("/spec/accessModes")?, template.pointer("/spec/resources/requests/storage")?);
            Some(
                (0..replicas)
                    .map(|ordinal| Claim {
                        namespace: namespace.clone(),
                        name: format!("{name}-{}-{ordinal}", key.name),
                        modes: modes.clone(),
                        storage: storage.clone(),
                    })
                    .collect::<Vec<_>>(),
            )
        })
        .flatten()
        .collect()
}

/// The object, as the provisioner would write it.
fn persistent_volume(name: &str, path: &str, node: &str, claim: &Claim) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
        "spec": {
            "capacity": {"storage": claim.storage},
            "accessModes": claim.modes,
            "storageClassName": CLASS,
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": claim.namespace, "name": claim.name},
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(class: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "minio", "name": "minio"},
            "spec": {"replicas": 2, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
    }

    #[test]
    fn every_replica_has_a_claim_of_kinds_class() {
        let names: Vec<String> = claims(&set(CLASS)).into_iter().map(|claim| claim.name).collect();
        assert_eq!(names, ["data-minio-0", "data-minio-1"]);
        assert_eq!(claims(&set("fast")), []);
        assert_eq!(claims(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}})), []);
    }

    #[test]
    fn the_provisioner_removes_the_volume_with_its_claim() {
        let claim = claims(&set(CLASS)).remove(0);
        let volume = persistent_volume("v", "/d/v", "n", &claim);
        assert_eq!(volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"], PROVISIONER);
        assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
        assert_eq!(volume["spec"]["claimRef"], json!({"namespace": "minio", "name": "data-minio-0"}));
        assert_eq!(volume["spec"]["capacity"]["storage"], "1Gi");
    }
}
