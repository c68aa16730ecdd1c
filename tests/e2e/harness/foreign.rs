//! A cluster that devstack did not make: plain kind's, with a kubeconfig file of its own. Three nodes with a name, a
//! network and something of somebody else's; or one node under the reserved name of an environment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use devstack::context::{Dirs, Vars};
use devstack::oci::{ArchiveFormat, Platform, Store, archive};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::tools::{docker, lacks_sys_resource, output, runtime, sha256, tool};
use super::{Ended, World};

/// Kinds that the cluster itself changes all the time.
const RESTLESS: &[&str] = &["events", "leases", "componentstatuses", "endpoints", "endpointslices"];

/// Members that a server changes without anybody's doing.
const VOLATILE: &[&str] = &["resourceVersion", "managedFields", "generation"];

/// The catalog's image of the object store for CPUs of x86-64-v2.
pub const BETTER_STORE: &str = "docker.io/pgsty/silo:RELEASE.2026-09-16T00-00-00Z";

/// The cluster. It goes with this.
pub struct Foreign {
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    name: String,
    directory: tempfile::TempDir,
    kind: PathBuf,
}

impl Foreign {
    /// Makes one of three nodes that differ: the last one has the labels that Node Feature Discovery would set where a CPU
    /// has AVX, put there by hand, for the nodes of one machine have one CPU. Where no registry has the image for such CPUs
    /// either, a stand-in has its name: the server that is built from source.
    pub fn make(name: &str) -> Self {
        let made = Self::of(format!("foreign-{name}-{:x}", std::process::id()));
        made.create(&["control-plane", "worker", "worker"]);
        made.kubectl(&["create", "namespace", "team"]);
        made.kubectl(&["-n", "team", "create", "configmap", "settings", "--from-literal=colour=green"]);
        made.kubectl(&["label", "node", &made.better_node(), "feature.node.kubernetes.io/cpu-cpuid.AVX=true"]);
        runtime().block_on(made.give(&[("registry", None), ("object-store", Some(BETTER_STORE))]));
        made
    }

    /// Deletes an environment's cluster as anybody can who has kind, and makes one of one node under its name.
    pub fn in_place_of(world: &World) -> Self {
        let made = Self::of(world.name());
        made.delete();
        made.create(&["control-plane"]);
        made
    }

    fn of(name: String) -> Self {
        let directory = tempfile::Builder::new().prefix("foreign-").tempdir().unwrap();
        let kind = which::which("kind").unwrap_or_else(|_| tool("kind").unwrap());
        Self { kubeconfig: directory.path().join("kubeconfig"), name, directory, kind }
    }

    fn delete(&self) {
        let mut delete = Command::new(&self.kind);
        delete.args(["delete", "cluster", "--name", &self.name]).arg("--kubeconfig").arg(&self.kubeconfig);
        let _ = delete.output();
    }

    fn create(&self, roles: &[&str]) {
        let config = self.directory.path().join("kind.json");
        std::fs::write(&config, config_of_nodes(roles).to_string()).unwrap();
        let image = resolved("node")["reference"].as_str().unwrap().to_owned();
        if !Command::new("docker").args(["image", "inspect", &image]).output().unwrap().status.success() {
            // Only devstack can bring it into the engine.
            let world = World::new("ground");
            world.up(&[]);
            world.down();
        }
        let mut create = Command::new(&self.kind);
        create.args(["create", "cluster", "--wait", "180s", "--name", &self.name, "--image", &image]);
        create.arg("--config").arg(&config).arg("--kubeconfig").arg(&self.kubeconfig);
        output(create.env("KIND_EXPERIMENTAL_DOCKER_NETWORK", &self.name));
    }

    /// Gives the nodes the images that devstack chooses for these roles on this machine, where no registry would give
    /// them to the nodes: what the owner of a cluster without a network does. Of each role another name for its image.
    async fn give(&self, roles: &[(&str, Option<&str>)]) {
        let store = Store::open(&Dirs::of(&Vars::of_process()).unwrap().cache).unwrap();
        let (mut images, mut names, mut aliases) = (Vec::new(), Vec::new(), Vec::new());
        for (role, alias) in roles {
            let choice = resolved(role);
            if choice["source"]["from"] == "registry" {
                continue;
            }
            if choice["source"]["from"] == "build" {
                output(Command::new(env!("CARGO_BIN_EXE_devstack")).args(["image", "build", role, "--yes"]));
            }
            let reference = choice["reference"].as_str().unwrap().to_owned();
            let platform: Platform = choice["platform"].as_str().unwrap().parse().unwrap();
            images.push(store.image(&reference, &platform).unwrap().unwrap());
            aliases.extend(alias.map(|alias| (reference.clone(), alias.to_owned())));
            names.extend(std::iter::once(reference).chain(alias.map(str::to_owned)));
        }
        if images.is_empty() {
            return;
        }
        let file = self.directory.path().join("images.tar");
        let mut bytes = archive::export(&store, &images, ArchiveFormat::Oci);
        let mut archive = std::fs::File::create(&file).unwrap();
        while let Some(some) = bytes.next().await {
            archive.write_all(&some.unwrap()).unwrap();
        }
        let give = |node: &str| {
            let images = |args: &[&str]| {
                let mut ctr = Command::new("docker");
                ctr.args(["exec", "-i", node, "ctr", "-n", "k8s.io", "images"]).args(args);
                ctr
            };
            output(images(&["import", "-"]).stdin(Stdio::from(std::fs::File::open(&file).unwrap())));
            for (reference, alias) in &aliases {
                output(&mut images(&["tag", reference, alias]));
            }
        };
        let (give, nodes) = (&give, self.nodes());
        std::thread::scope(|scope| nodes.iter().for_each(|node| drop(scope.spawn(move || give(node)))));
        let began = Instant::now();
        let told = || {
            let nodes: Value = serde_json::from_str(&self.kubectl(&["get", "nodes", "-o", "json"])).unwrap();
            let told = |node: &Value, name: &String| node["status"]["images"].to_string().contains(name);
            nodes["items"].as_array().unwrap().iter().all(|node| names.iter().all(|name| told(node, name)))
        };
        while !told() {
            assert!(began.elapsed() < Duration::from_secs(180), "the nodes do not tell of {names:?}");
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// The node that differs.
    pub fn better_node(&self) -> String {
        self.nodes().into_iter().max().unwrap()
    }

    /// The context in its kubeconfig.
    pub fn context(&self) -> String {
        format!("kind-{}", self.name)
    }

    /// The containers of its nodes.
    fn nodes(&self) -> Vec<String> {
        let filter = format!("label=io.x-k8s.kind.cluster={}", self.name);
        let names = docker(&["ps", "--filter", &filter, "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Runs kubectl against it.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        output(Command::new("kubectl").arg("--kubeconfig").arg(&self.kubeconfig).args(args))
    }

    /// What it is known by: nothing else has it.
    pub fn uid(&self) -> String {
        self.kubectl(&["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"])
    }

    /// Every object of it that can be listed, by kind, namespace and name: its UID and a digest of what it says, its
    /// status aside.
    pub fn objects(&self) -> BTreeMap<String, String> {
        let kinds = self.kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
        let kinds: Vec<&str> =
            kinds.lines().filter(|kind| !RESTLESS.contains(&kind.split('.').next().unwrap())).collect();
        let all: Value = serde_json::from_str(&self.kubectl(&["get", &kinds.join(","), "-A", "-o", "json"])).unwrap();
        let text =
            |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or("-").to_owned();
        let objects = all["items"].as_array().unwrap().iter().map(|object| {
            let names = ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"].map(|at| text(object, at));
            let mut bare = object.clone();
            bare.as_object_mut().unwrap().remove("status");
            for member in VOLATILE {
                bare["metadata"].as_object_mut().unwrap().remove(*member);
            }
            (names.join(" "), format!("{} {}", text(object, "/metadata/uid"), sha256(bare.to_string().as_bytes())))
        });
        objects.collect()
    }

    /// What is different from an earlier look.
    pub fn difference(&self, before: &BTreeMap<String, String>) -> Vec<String> {
        let now = self.objects();
        let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        let changed = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
        changed.map(|name| format!("{name}: {:?} → {:?}", before.get(name), now.get(name))).collect()
    }

    /// Runs devstack against it, from an account that has its context and no engine.
    pub fn run(&self, world: &World, args: &[&str]) -> Ended {
        super::Running::start(self.command(world, args)).end()
    }

    /// The command of [`Foreign::run`].
    pub fn command(&self, world: &World, args: &[&str]) -> Command {
        self.without_engine(world, world.command(args))
    }

    /// Gives a command the account that has its context and no engine.
    pub fn without_engine(&self, world: &World, mut command: Command) -> Command {
        let files = std::env::join_paths([world.kubeconfig(), self.kubeconfig.clone()]).unwrap();
        command.env("KUBECONFIG", files).env("DOCKER_HOST", "tcp://127.0.0.1:1");
        command
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.delete();
        // One that an environment made is the environment's to remove.
        if self.name.starts_with("devstack-") {
            return;
        }
        let _ = Command::new("docker").args(["network", "rm", &self.name]).output();
    }
}

/// What devstack chooses for a role on this machine.
fn resolved(role: &str) -> Value {
    let told = output(Command::new(env!("CARGO_BIN_EXE_devstack")).args(["image", "resolve", role, "-o", "json"]));
    let result: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    result["choices"][0].clone()
}

/// kind's configuration of nodes with these roles; on an engine that cannot give `CAP_SYS_RESOURCE`, nodes do without.
fn config_of_nodes(roles: &[&str]) -> Value {
    let roles: Vec<Value> = roles.iter().map(|role| json!({"role": role})).collect();
    let mut config = json!({"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "nodes": roles});
    if lacks_sys_resource() {
        config["containerdConfigPatches"] =
            json!(["[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n"]);
        config["kubeadmConfigPatches"] = json!([
            "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nfeatureGates: {KubeletInUserNamespace: true}\n"
        ]);
    }
    config
}
