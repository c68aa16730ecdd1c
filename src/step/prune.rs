//! What components of an earlier `up` made and nobody asks for any more: taken away, with consent where data goes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::cluster::Provider;
use crate::event::Action;
use crate::executor::Run;
use crate::journal::Record;
use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::{INSTANCE_LABEL, KubeError, ObjectKey};
use crate::step::late::Late;
use crate::step::{Applied, Claim, ComponentStep, Observed, StepError, World};
use crate::step_ids;
use crate::undo::objects::{Mark, mine, take_back};
use crate::undo::strangers::strangers;

/// Removes what components made and make no more, of those that are left and of those that the profile has no more.
#[derive(Debug, Clone)]
pub struct PruneStep {
    /// What each component made so far, in the order in which it was made.
    pub recorded: BTreeMap<String, Vec<ObjectKey>>,
    /// The components that there are.
    pub components: Vec<ComponentStep>,
    /// The claim on its objects, in a cluster that others use too.
    pub claim: Option<Claim>,
}

impl PruneStep {
    /// What each component makes as far as can be seen now.
    async fn seen(&self, world: &World) -> Result<Wanted, StepError> {
        let pool = world.pool().await?;
        let mut wanted = Wanted::new();
        for step in &self.components {
            let late = Late::seen(world, pool.as_deref(), step).await?;
            wanted.insert(step.component.name.clone(), step.keys(late)?);
        }
        Ok(wanted)
    }

    /// What each component makes with what the steps of this run gave.
    fn wanted(&self, run: &Run<'_>) -> Result<Wanted, StepError> {
        let keys = |step: &ComponentStep| Ok((step.component.name.clone(), step.keys(Late::given(run, step))?));
        self.components.iter().map(keys).collect()
    }

    /// What is recorded of each component and made by none. What has moved from one to another stays, and so does what
    /// is made by another version of its API: it is the same object.
    fn stale(&self, wanted: &Wanted) -> Wanted {
        let wanted: BTreeSet<_> = wanted.values().flatten().map(ObjectKey::identity).collect();
        let stale =
            |keys: &Vec<ObjectKey>| keys.iter().filter(|key| !wanted.contains(&key.identity())).cloned().collect();
        let stale = self.recorded.iter().map(|(name, keys)| (name.clone(), stale(keys)));
        stale.filter(|(_, keys): &(String, Vec<ObjectKey>)| !keys.is_empty()).collect()
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let nothing = || Observed::new(Action::Leave, "nothing to take away");
        let stale = self.stale(&self.seen(world).await?);
        let keys: Vec<ObjectKey> = stale.values().flatten().cloned().collect();
        let (keys, loses) = match world.kube() {
            Ok(kube) => {
                let mark = mark(world, self.claim.as_ref());
                let there = there(&*kube, &keys, mark).await?;
                let loses = lost(&*kube, &there, mark).await?;
                (there, loses)
            }
            // A cluster that is stopped still has it all.
            Err(_) if world.provider != Provider::Kind || !world.nodes().await?.is_empty() => {
                let loses = perhaps_lost(&keys);
                (keys, loses)
            }
            Err(_) => return Ok(nothing()),
        };
        let Some(first) = keys.first() else { return Ok(nothing()) };
        let has = |name: &&String| self.components.iter().any(|step| step.component.name == **name);
        let dropped: Vec<&str> = stale.keys().filter(|name| !has(name)).map(String::as_str).collect();
        let of = match dropped.as_slice() {
            [] => String::new(),
            [one] => format!("component {one}, "),
            several => format!("components {}, ", several.join(", ")),
        };
        let (count, more) = (keys.len(), keys.len() - 1);
        let what = format!("{of}{count} object{}", if count == 1 { "" } else { "s" });
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        Ok(Observed::new(Action::Remove, what).because(format!("{first} is asked for no more{more}")).losing(loses))
    }

    pub(super) async fn apply(&self, run: &Run<'_>) -> Result<Applied, StepError> {
        if run.settled {
            return Ok(Applied { detail: "nothing".to_owned(), ..Applied::default() });
        }
        let kube = run.world.kube()?;
        let mut wanted = self.wanted(run)?;
        let mut removed = 0;
        for (component, keys) in self.stale(&wanted) {
            removed += take_back(run.world, &*kube, &keys, mark(run.world, self.claim.as_ref())).await?;
            let left = wanted.remove(&component).unwrap_or_default();
            run.journal.append(Record::Done { step: step_ids::applied(&component), outputs: json!(left) })?;
        }
        Ok(Applied { detail: format!("{removed} objects"), outputs: Value::Null, changed: removed > 0 })
    }
}

/// Keys by component.
type Wanted = BTreeMap<String, Vec<ObjectKey>>;

/// What all objects of an environment carry.
fn mark<'a>(world: &'a World, claim: Option<&'a Claim>) -> Mark<'a> {
    claim.map_or((OWNER_LABEL, &*world.environment), |claim| (INSTANCE_LABEL, &*claim.instance))
}

/// Those of these objects that are there and carry the mark.
async fn there(kube: &dyn Kube, keys: &[ObjectKey], mark: Mark<'_>) -> Result<Vec<ObjectKey>, KubeError> {
    let looks =
        keys.iter().map(|key| async move { Ok::<_, KubeError>(mine(kube, key, None, Some(mark)).await?.map(|_| key)) });
    Ok(futures::future::try_join_all(looks).await?.into_iter().flatten().cloned().collect())
}

/// What goes with these objects and is more than devstack can make again: the claims of volumes with their data, and
/// workloads without the mark, which somebody put into a namespace that goes.
async fn lost(kube: &dyn Kube, keys: &[ObjectKey], mark: Mark<'_>) -> Result<Vec<String>, KubeError> {
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
    let mut lost: Vec<String> = all.iter().filter(goes).map(volume).collect();
    lost.extend(strangers(kube, &namespaces, mark).await?);
    Ok(lost)
}

/// What may be lost with these objects, of a cluster that cannot be asked.
fn perhaps_lost(keys: &[ObjectKey]) -> Vec<String> {
    let lost = |key: &ObjectKey| match (&*key.kind, &key.namespace) {
        ("Namespace", _) => Some(format!("every volume and whatever else is in namespace {}", key.name)),
        ("PersistentVolumeClaim", Some(namespace)) => Some(format!("volume {namespace}/{}", key.name)),
        _ => None,
    };
    keys.iter().filter_map(lost).collect()
}

/// Every volume of a cluster, as it is lost with it.
pub(super) async fn volumes(kube: &dyn Kube) -> Result<Vec<String>, KubeError> {
    Ok(kube.list("v1", "PersistentVolumeClaim", None, "").await?.iter().map(volume).collect())
}

/// A volume, as it is lost with its claim.
pub(super) fn volume(claim: &Value) -> String {
    let text = |pointer: &str| claim.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let size = text("/spec/resources/requests/storage");
    format!("volume {}/{} ({size})", text("/metadata/namespace"), text("/metadata/name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(kind: &str, name: &str) -> ObjectKey {
        ObjectKey { api_version: "v1".to_owned(), kind: kind.to_owned(), namespace: None, name: name.to_owned() }
    }

    #[test]
    fn what_has_moved_to_another_component_stays() {
        let (namespace, role) = (key("Namespace", "proxy"), key("ClusterRole", "proxy"));
        let recorded = BTreeMap::from([
            ("old".to_owned(), vec![namespace.clone(), role.clone()]),
            ("same".to_owned(), vec![key("Namespace", "same")]),
        ]);
        let step = PruneStep { recorded, components: Vec::new(), claim: None };
        let wanted = BTreeMap::from([
            ("new".to_owned(), vec![namespace]),
            ("same".to_owned(), vec![key("Namespace", "same"), key("ConfigMap", "more")]),
        ]);
        assert_eq!(step.stale(&wanted), BTreeMap::from([("old".to_owned(), vec![role])]));
        assert_eq!(step.stale(&step.recorded), BTreeMap::new());
    }

    #[test]
    fn what_another_version_of_its_api_makes_stays() {
        let scaler = |api_version: &str| ObjectKey {
            api_version: api_version.to_owned(),
            ..key("HorizontalPodAutoscaler", "web")
        };
        let of = |api_version: &str| BTreeMap::from([("web".to_owned(), vec![scaler(api_version)])]);
        let step = PruneStep { recorded: of("autoscaling/v1"), components: Vec::new(), claim: None };
        assert_eq!(step.stale(&of("autoscaling/v2")), BTreeMap::new());
        // Another group is another object.
        assert_eq!(step.stale(&of("scaling.example.com/v1")), step.recorded);
        assert_eq!(step.stale(&of("v1")), step.recorded);
    }

    #[test]
    fn a_cluster_that_cannot_be_asked_may_lose_what_namespaces_and_claims_hold() {
        let claim = ObjectKey { namespace: Some("b".to_owned()), ..key("PersistentVolumeClaim", "data") };
        let lost = perhaps_lost(&[key("Namespace", "a"), claim, key("ConfigMap", "c")]);
        assert_eq!(lost, ["every volume and whatever else is in namespace a", "volume b/data"]);
        assert!(perhaps_lost(&[key("ConfigMap", "c")]).is_empty());
    }

    #[tokio::test]
    async fn only_the_claims_that_go_are_lost() {
        let kube = crate::ports::fake::FakeKube::default();
        for namespace in ["a", "b"] {
            kube.put(json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": namespace},
                "spec": {"resources": {"requests": {"storage": "1Gi"}}},
            }));
        }
        let mark = (OWNER_LABEL, "demo");
        let gone = [key("Namespace", "a"), key("Namespace", "c")];
        assert_eq!(lost(&kube, &gone, mark).await.unwrap(), ["volume a/data (1Gi)"]);
        assert!(lost(&kube, &[key("ConfigMap", "a")], mark).await.unwrap().is_empty());
        assert_eq!(volumes(&kube).await.unwrap().len(), 2);
    }
}
