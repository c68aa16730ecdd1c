//! What every cluster needs before a pod runs on it: a pod network, a storage class, and nodes that may read claims.
//!
//! kind applies the first two when kubeadm has ended, one after the other. Here they are applied as soon as the API server
//! takes objects, so that nodes are ready by the time kubeadm ends. These are the manifests that kind's node images bring
//! along for it. All of it belongs to the cluster, and goes with it.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cluster::kind::POD_SUBNET;
use crate::event::Action;
use crate::executor::Run;
use crate::ports::Kube;
use crate::ports::kube::ObjectKey;
use crate::step::component::{PATIENCE, applied};
use crate::step::objects::{Put, drifts};
use crate::step::{Applied, Observed, StepError, World};
use crate::yaml::YamlError;

/// How often the cluster is asked for its DNS server.
const POLL: Duration = Duration::from_millis(200);

/// Where a node image keeps them (kind's contract between node images and `kind create`).
const NETWORK: &str = "/kind/manifests/default-cni.yaml";
const STORAGE: &str = "/kind/manifests/default-storage.yaml";

/// By this comment a manifest asks for the pods' subnet in the place of `{{ .PodSubnet }}`.
const TEMPLATE: &str = "would you kindly template this file";

/// By this comment the pod network's `DaemonSet` asks for the API server's address, so that it need not wait for
/// kube-proxy.
const PATCH: &str = "would you kindly patch this file";

/// Applies the pod network and the storage class.
#[derive(Debug, Clone)]
pub struct AddonsStep {
    /// The step that creates the cluster.
    pub cluster: String,
}

impl AddonsStep {
    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = "pod network, storage class, claims for nodes, DNS probe";
        let Ok(kube) = world.kube() else { return Ok(Observed::new(Action::Create, what)) };
        let (_, mut wanted) = wanted(&Manifests::find(world).await?, world, &*kube).await?;
        if let Some(key) = ObjectKey::of(&dns_probe())
            && kube.get(&key).await?.is_some()
        {
            wanted.push(dns_probe());
        }
        Ok(match drifts(&*kube, &wanted).await?.first() {
            Some(drift) => Observed::new(Action::Repair, what).because(drift.to_string()),
            None => Observed::new(Action::Leave, what),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        if run.settled {
            return Ok(Applied { detail: "as they were".to_owned(), ..Applied::default() });
        }
        let kube = run.world.kube()?;
        let deadline = Instant::now() + run.ctx.options.timeout.unwrap_or(PATIENCE);
        let manifests = Manifests::find(run.world).await?;
        manifests.keep(run.world)?;
        let (count, wanted) = wanted(&manifests, run.world, &*kube).await?;
        let put = Put { run, id, kube: &*kube, deadline, claim: None };
        let mut changed = put.wave(&wanted).await?;
        if self.has_dns(run, &*kube).await? {
            changed += put.wave(&[dns_probe()]).await?;
        }
        Ok(applied(count, changed))
    }
}

impl AddonsStep {
    /// Waits for the DNS server, which kubeadm applies near its end; `false` where the cluster is made without one.
    async fn has_dns(&self, run: &Run<'_>, kube: &dyn Kube) -> Result<bool, StepError> {
        let Some(key) = ObjectKey::of(&dns_probe()) else { return Ok(false) };
        loop {
            let made = !run.output(&self.cluster).is_null();
            match kube.get(&key).await {
                Ok(Some(_)) => return Ok(true),
                Ok(None) if made || run.has_failed(&self.cluster) => return Ok(false),
                Err(error) if !error.is_transient() => return Err(error.into()),
                Ok(None) | Err(_) => run.ctx.clock.sleep(POLL).await,
            }
        }
    }
}

/// How many objects there are, and those that have to be as they are here.
async fn wanted(manifests: &Manifests, world: &World, kube: &dyn Kube) -> Result<(usize, Vec<Value>), StepError> {
    let (mut wanted, storage) = manifests.objects(world)?;
    wanted.extend(claims_for_nodes());
    let count = wanted.len() + storage.len();
    wanted.extend(absent(kube, storage).await?);
    Ok((count, wanted))
}

/// Every kubelet may read every claim of a volume. Which ones a node needs, the API server's authorizer of nodes knows a
/// moment after the pod is on the node; a kubelet that asks within that moment is refused, and tries the pod again only
/// ten seconds later. A claim holds nothing that is secret.
fn claims_for_nodes() -> [Value; 2] {
    let name = "devstack:claims-for-nodes";
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    [
        json!({
            "apiVersion": version,
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:nodes"}],
        }),
    ]
}

/// The cluster's DNS server, asked every second whether it is ready: kubeadm has it asked every ten, and it never is at
/// the first time.
fn dns_probe() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "kube-system", "name": "coredns"},
        "spec": {"template": {"spec": {"containers": [{"name": "coredns", "readinessProbe": {"periodSeconds": 1}}]}}},
    })
}

/// Those that are not there. kind applies the storage class once more in a way of its own, and whoever changes it later
/// means it.
async fn absent(kube: &dyn Kube, objects: Vec<Value>) -> Result<Vec<Value>, StepError> {
    let looks = objects.into_iter().map(|object| async move {
        let gone = match ObjectKey::of(&object) {
            Some(key) => kube.get(&key).await?.is_none(),
            None => false,
        };
        Ok::<_, StepError>(gone.then_some(object))
    });
    Ok(futures::future::try_join_all(looks).await?.into_iter().flatten().collect())
}

/// The file of the control plane's manifests, in the environment's directory: asking the node takes longer than all else
/// that is looked at together.
const KEPT: &str = "addons.json";

/// The manifests that a control plane's node image has.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifests {
    /// The id of the control plane's container.
    node: String,
    network: String,
    storage: String,
}

impl Manifests {
    /// Those that are kept, as long as they are this control plane's; else its own.
    async fn find(world: &World) -> Result<Self, StepError> {
        let control_plane = world.control_plane();
        let node = world.nodes().await?.into_iter().find(|node| node.name == control_plane);
        let node = node.ok_or_else(|| StepError::message(format!("{control_plane} is gone")))?.id;
        if let Some(kept) = Self::kept(world).filter(|kept| kept.node == node) {
            return Ok(kept);
        }
        let read = async |path: &str| {
            let answer = world.engine.exec(&node, &["cat", path], None).await?;
            if answer.status != 0 {
                return Err(StepError::message(format!("the node image has no {path}: it is none of kind's")));
            }
            Ok(answer.text())
        };
        let (network, storage) = tokio::try_join!(read(NETWORK), read(STORAGE))?;
        Ok(Self { node, network, storage })
    }

    fn kept(world: &World) -> Option<Self> {
        let text = world.ctx.fs.read(&world.dir.join(KEPT)).ok().flatten()?;
        serde_json::from_slice(&text).ok()
    }

    fn keep(&self, world: &World) -> Result<(), StepError> {
        if Self::kept(world).as_ref() == Some(self) {
            return Ok(());
        }
        let path = world.dir.join(KEPT);
        let text = serde_json::to_vec_pretty(self).map_err(|error| StepError::writing(&path)(error.into()))?;
        world.ctx.fs.write(&path, &text, 0o600).map_err(StepError::writing(&path))
    }

    /// The objects of the pod network and those of the storage class.
    fn objects(&self, world: &World) -> Result<(Vec<Value>, Vec<Value>), StepError> {
        let read = |path, text| render(path, text, &world.control_plane()).map_err(|error| StepError::of(&error));
        Ok((read(NETWORK, &self.network)?, read(STORAGE, &self.storage)?))
    }
}

/// The objects of a node image's manifest, as `kind create` would apply them.
fn render(path: &str, text: &str, control_plane: &str) -> Result<Vec<Value>, YamlError> {
    let filled = if text.contains(TEMPLATE) { text.replace("{{ .PodSubnet }}", POD_SUBNET) } else { text.to_owned() };
    let documents = crate::yaml::parse_documents(path, &filled)?;
    let mut objects: Vec<Value> =
        documents.iter().map(crate::yaml::Marked::to_value).filter(Value::is_object).collect();
    for object in objects.iter_mut().filter(|object| object["kind"] == "StorageClass") {
        // kind gives it a namespace, which it cannot have.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
    }
    if text.contains(PATCH) {
        for object in objects.iter_mut().filter(|object| object["kind"] == "DaemonSet") {
            let env = object.pointer_mut("/spec/template/spec/containers/0/env").and_then(Value::as_array_mut);
            if let Some(env) = env {
                env.push(json!({"name": "CONTROL_PLANE_ENDPOINT", "value": format!("{control_plane}:6443")}));
            }
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ports::Engine as _;
    use crate::ports::engine::ExecOutput;
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};

    const NETWORK: &str = include_str!("../../tests/kind/default-cni.yaml");
    const STORAGE: &str = include_str!("../../tests/kind/default-storage.yaml");

    #[test]
    fn kinds_own_manifests_are_rendered_as_kind_renders_them() {
        let objects = render("cni", NETWORK, "devstack-demo-control-plane").unwrap();
        let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
        assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding", "ServiceAccount", "DaemonSet"]);
        let env = &objects[3]["spec"]["template"]["spec"]["containers"][0]["env"];
        assert_eq!(env[2], json!({"name": "POD_SUBNET", "value": POD_SUBNET}));
        assert_eq!(env[3], json!({"name": "CONTROL_PLANE_ENDPOINT", "value": "devstack-demo-control-plane:6443"}));

        let objects = render("storage", STORAGE, "devstack-demo-control-plane").unwrap();
        let class = objects.iter().find(|object| object["kind"] == "StorageClass").unwrap();
        assert_eq!(class["metadata"]["name"], "standard");
        assert!(class["metadata"].get("namespace").is_none());
        assert!(objects.iter().all(|object| object.pointer("/metadata/name").is_some()));
    }

    #[test]
    fn a_manifest_that_asks_for_nothing_is_taken_as_it_is() {
        let text = "kind: DaemonSet\nspec: {template: {spec: {containers: [{env: [], args: ['{{ .PodSubnet }}']}]}}}\n";
        let objects = render("cni", text, "x").unwrap();
        assert_eq!(
            objects[0].pointer("/spec/template/spec/containers/0"),
            Some(&json!({"env": [], "args": ["{{ .PodSubnet }}"]}))
        );
    }

    #[tokio::test]
    async fn a_control_plane_is_asked_once_for_its_manifests_and_another_one_anew() {
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let engine = FakeEngine::default();
        let world = World::new(&ctx, "demo", Arc::new(engine.clone()), Arc::new(FakeRunner::default()));
        let say = |text: &'static str| {
            engine.on_exec(&["cat"], move |_, _, _| ExecOutput { stdout: text.into(), ..ExecOutput::default() });
        };
        engine.create_network("n", &std::collections::BTreeMap::new()).await.unwrap();
        engine.add_kind_node(&world.reserved_name(), 0, "n", &[]);
        say("kind: First");
        let first = Manifests::find(&world).await.unwrap();
        say("kind: Second");
        assert_eq!(Manifests::find(&world).await.unwrap().network, "kind: Second", "looking keeps nothing");
        first.keep(&world).unwrap();
        assert_eq!(Manifests::find(&world).await.unwrap(), first);
        for node in engine.containers(None).await.unwrap() {
            engine.remove_container(&node.id).await.unwrap();
        }
        engine.add_kind_node(&world.reserved_name(), 0, "n", &[]);
        assert_eq!(Manifests::find(&world).await.unwrap().storage, "kind: Second");
    }
}
