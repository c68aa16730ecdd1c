//! Takes objects back from a cluster that devstack did not make: those that it made, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;

use crate::cluster::guard;
use crate::journal::{Journal, Undo};
use crate::ports::Kube;
use crate::ports::kube::{INSTANCE_LABEL, KubeError, ObjectKey};
use crate::step::{StepError, World};

/// How long objects may take to go: pods have a grace period, volumes a provisioner.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often what is going is looked at.
const POLL: Duration = Duration::from_millis(500);

/// A recorded object, and its UID where that was known.
pub(crate) type Recorded = (ObjectKey, Option<String>);

/// The label that all objects of an environment carry, and its value.
pub(crate) type Mark<'a> = (&'a str, &'a str);

/// The objects that are being taken back.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// Those that were there when it began, and were not told of yet.
    left: BTreeSet<ObjectKey>,
    /// Those that nobody needs to be told of again.
    told: BTreeSet<ObjectKey>,
    /// Whether one was waited for in vain. All were asked to go at the same moment, so that none gets more time.
    late: bool,
}

/// Asks for the deletion of everything of the journal at once, so that nothing waits for anything else; what fails is
/// asked for again, and told, when its turn comes.
pub(super) async fn begin(world: &World, journal: &Journal) -> Begun {
    let objects = recorded(journal);
    if objects.is_empty() {
        return Begun::default();
    }
    let Ok(kube) = connect(world).await else { return Begun::default() };
    let instance = instance(journal);
    let asked = objects.iter().map(|object| {
        let deleted = delete(&*kube, object, mark(instance.as_deref()));
        async { deleted.await.is_ok_and(|there| there).then(|| object.0.clone()) }
    });
    let left: BTreeSet<ObjectKey> = join_all(asked).await.into_iter().flatten().collect();
    Begun { told: left.clone(), left, late: false }
}

/// Deletes recorded objects and waits until they are gone, with the volumes that came with their namespaces; `false`
/// where there were none any more.
///
/// # Errors
/// A server that does not answer, or an object that does not go.
pub(super) async fn remove(
    world: &World,
    journal: &Journal,
    objects: &[Recorded],
    begun: &mut Begun,
) -> Result<bool, StepError> {
    let kube = connect(world).await?;
    let instance = instance(journal);
    let namespaces: BTreeSet<&str> =
        objects.iter().filter(|(key, _)| key.kind == "Namespace").map(|(key, _)| key.name.as_str()).collect();
    let volumes = volumes(&*kube, &namespaces).await?;
    let mut existed = false;
    for object in objects.iter().rev() {
        let there = delete(&*kube, object, mark(instance.as_deref())).await?;
        // One that is recorded twice is told of once.
        existed |= begun.left.remove(&object.0) || (there && begun.told.insert(object.0.clone()));
    }
    let patience = if begun.late { Duration::ZERO } else { patience(world) };
    let waited = gone(world, &*kube, objects.iter().chain(&volumes), mark(instance.as_deref()), patience).await;
    begun.late |= matches!(waited, Err(StepError::Wait { .. }));
    waited.map(|()| existed)
}

fn patience(world: &World) -> Duration {
    world.ctx.options.timeout.unwrap_or(PATIENCE)
}

/// Deletes those of these objects that carry the mark, and waits until they are gone, with the volumes that came with
/// their namespaces. They are given in the order in which they were made.
///
/// # Errors
/// As [`remove`].
pub(crate) async fn take_back(
    world: &World,
    kube: &dyn Kube,
    keys: &[ObjectKey],
    mark: Mark<'_>,
) -> Result<usize, StepError> {
    let namespaces = keys.iter().filter(|key| key.kind == "Namespace").map(|key| key.name.as_str()).collect();
    let volumes = volumes(kube, &namespaces).await?;
    let objects: Vec<Recorded> = keys.iter().map(|key| (key.clone(), None)).collect();
    let mut existed = 0;
    for object in objects.iter().rev() {
        existed += usize::from(delete(kube, object, Some(mark)).await?);
    }
    gone(world, kube, objects.iter().chain(&volumes), Some(mark), patience(world)).await?;
    Ok(existed)
}

/// Waits until objects are gone.
async fn gone<'a>(
    world: &World,
    kube: &dyn Kube,
    objects: impl Iterator<Item = &'a Recorded> + Clone,
    mark: Option<Mark<'_>>,
    patience: Duration,
) -> Result<(), StepError> {
    let began = Instant::now();
    loop {
        let mut left = None;
        for (key, uid) in objects.clone() {
            if let Some(found) = mine(kube, key, uid.as_deref(), mark).await? {
                left = Some((key, found));
                break;
            }
        }
        let Some((key, found)) = left else { return Ok(()) };
        if began.elapsed() >= patience {
            return Err(StepError::Wait { what: key.to_string(), reason: why(&found), findings: Vec::new() });
        }
        world.ctx.clock.sleep(POLL).await;
    }
}

/// The environment's cluster: the one that the verb has met, else the one behind the recorded kubeconfig.
pub(super) async fn connect(world: &World) -> Result<Arc<dyn Kube>, KubeError> {
    if world.kube().is_err() {
        guard::enter(world).await?;
    }
    world.kube()
}

/// The objects of the journal that were not taken back.
pub(super) fn recorded(journal: &Journal) -> Vec<Recorded> {
    let objects = journal.pending().into_iter().filter_map(|(_, undo)| match undo {
        Undo::KubeObjects { objects, .. } => Some(objects),
        _ => None,
    });
    objects.flatten().collect()
}

pub(super) fn instance(journal: &Journal) -> Option<String> {
    journal.opened()?.instance
}

pub(super) fn mark(instance: Option<&str>) -> Option<Mark<'_>> {
    Some((INSTANCE_LABEL, instance?))
}

/// The object of a key where it is the environment's: it has the recorded UID, or the environment's mark.
pub(crate) async fn mine(
    kube: &dyn Kube,
    key: &ObjectKey,
    uid: Option<&str>,
    mark: Option<Mark<'_>>,
) -> Result<Option<Value>, KubeError> {
    let found = kube.get(key).await?;
    Ok(found.filter(|found| {
        let is = |pointer: &str| found.pointer(pointer).and_then(Value::as_str);
        let marked = mark.is_some_and(|(label, value)| found["metadata"]["labels"][label] == value);
        (uid.is_some() && is("/metadata/uid") == uid) || marked
    }))
}

/// Asks for the deletion of an object that is the environment's; tells whether it was there.
async fn delete(kube: &dyn Kube, (key, uid): &Recorded, mark: Option<Mark<'_>>) -> Result<bool, KubeError> {
    let Some(found) = mine(kube, key, uid.as_deref(), mark).await? else { return Ok(false) };
    // What has the name by the time of the request may be another.
    kube.delete(key, found.pointer("/metadata/uid").and_then(Value::as_str)).await?;
    Ok(true)
}

/// The volumes of these namespaces that go with their claims.
async fn volumes(kube: &dyn Kube, namespaces: &BTreeSet<&str>) -> Result<Vec<Recorded>, KubeError> {
    if namespaces.is_empty() {
        return Ok(Vec::new());
    }
    let all = kube.list("v1", "PersistentVolume", None, "").await?;
    let claimed = all.into_iter().filter(|volume| {
        let namespace = volume.pointer("/spec/claimRef/namespace").and_then(Value::as_str);
        namespace.is_some_and(|namespace| namespaces.contains(namespace))
            && volume.pointer("/spec/persistentVolumeReclaimPolicy").and_then(Value::as_str) == Some("Delete")
    });
    let uid = |volume: &Value| volume.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
    Ok(claimed.filter_map(|volume| Some((ObjectKey::of(&volume)?, uid(&volume)))).collect())
}

/// Why an object does not go, as far as it tells.
fn why(object: &Value) -> String {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let told = conditions.into_iter().flatten().filter(|one| one["status"] == "True");
    let told: Vec<&str> = told.filter_map(|one| one["message"].as_str()).collect();
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    let finalizers: Vec<&str> = finalizers.into_iter().flatten().filter_map(Value::as_str).collect();
    match (told.is_empty(), finalizers.is_empty()) {
        (false, _) => told.join("; "),
        (true, false) => format!("it waits for {}", finalizers.join(", ")),
        (true, true) => "it is still there".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Opened, Record};
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeKube, FakeRunner};
    use serde_json::json;

    async fn world(kube: &FakeKube) -> (World, Journal) {
        kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}));
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let opened = kube.clone();
        let world = World::new(&ctx, "demo", Arc::new(FakeEngine::default()), Arc::new(FakeRunner::default()))
            .on(crate::cluster::Provider::Existing)
            .with_kube(Arc::new(move |_| Arc::new(opened.clone())));
        world.connect("").await.unwrap();
        let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
        let record = Opened {
            environment: "demo".to_owned(),
            provider: "existing".to_owned(),
            context: Some("work".to_owned()),
            instance: Some("mark".to_owned()),
            ..Opened::default()
        };
        journal.append(Record::Opened(record)).unwrap();
        (world, journal)
    }

    fn config(name: &str, instance: Option<&str>) -> Value {
        let labels = instance.map_or_else(|| json!({}), |instance| json!({INSTANCE_LABEL: instance}));
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "a", "labels": labels}})
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::of(&config(name, None)).unwrap()
    }

    #[tokio::test]
    async fn only_what_has_the_uid_or_the_mark_goes() {
        let kube = FakeKube::default();
        let (world, journal) = world(&kube).await;
        for object in [config("known", None), config("marked", Some("mark")), config("other", Some("else"))] {
            kube.put(object);
        }
        kube.put(config("same-name", None));
        let uid = kube.get(&key("known")).await.unwrap().unwrap()["metadata"]["uid"].as_str().map(str::to_owned);
        let recorded = [
            (key("known"), uid),
            (key("marked"), None),
            (key("other"), None),
            (key("same-name"), Some("gone".to_owned())),
            (key("never-made"), None),
        ];
        assert!(remove(&world, &journal, &recorded, &mut Begun::default()).await.unwrap());
        let left: Vec<String> =
            kube.keys().into_iter().filter(|key| key.kind == "ConfigMap").map(|key| key.name).collect();
        assert_eq!(left, ["other", "same-name"]);
        assert!(!remove(&world, &journal, &recorded, &mut Begun::default()).await.unwrap());
        kube.set_down(true);
        assert!(remove(&world, &journal, &recorded, &mut Begun::default()).await.is_err());
    }

    #[tokio::test]
    async fn the_volumes_of_a_namespace_are_waited_for() {
        let kube = FakeKube::default();
        let (mut world, journal) = world(&kube).await;
        world.ctx.options.timeout = Some(Duration::ZERO);
        let volume = |policy: &str| {
            json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": "pvc-1", "finalizers": ["kubernetes.io/pv-protection"]},
                "spec": {"claimRef": {"namespace": "a"}, "persistentVolumeReclaimPolicy": policy},
            })
        };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {INSTANCE_LABEL: "mark"}}});
        kube.put(namespace.clone());
        kube.put(volume("Delete"));
        let recorded = [(ObjectKey::of(&namespace).unwrap(), None)];
        let error = remove(&world, &journal, &recorded, &mut Begun::default()).await.unwrap_err().to_string();
        assert_eq!(error, "PersistentVolume pvc-1: it waits for kubernetes.io/pv-protection");
        // All were asked to go at once: what one was not given, the next one is not given either.
        world.ctx.options.timeout = Some(Duration::from_millis(5));
        let mut begun = Begun::default();
        remove(&world, &journal, &recorded, &mut begun).await.unwrap_err();
        let waited = world.ctx.clock.now();
        remove(&world, &journal, &recorded, &mut begun).await.unwrap_err();
        assert_eq!(world.ctx.clock.now(), waited);
        kube.put(volume("Retain"));
        remove(&world, &journal, &recorded, &mut Begun::default()).await.unwrap();
    }
}
