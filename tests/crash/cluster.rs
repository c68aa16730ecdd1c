//! A kind cluster in memory: nodes in a fake engine, an API server, controllers that make things ready, a bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use devstack::ports::engine::{Engine as _, ExecOutput, KIND_CLUSTER_LABEL};
use devstack::ports::fake::{FakeEngine, FakeKube};
use devstack::ports::kube::{Kube as _, KubeError, ObjectKey};
use devstack::ports::runner::{OnLine, Stream};
use serde_json::{Value, json};

use crate::death::Death;
use crate::http::Bucket;

/// The cluster's name.
pub const NAME: &str = "devstack-crash";

/// What kubeadm writes.
const ADMIN: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: kubernetes\n  cluster:\n    server: https://x:6443\n    certificate-authority-data: Q0E=\ncontexts: []\nusers:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: Q0VSVA==\n    client-key-data: S0VZ\n";

/// What a node image brings along for kind.
const NETWORK: &str = include_str!("../kind/default-cni.yaml");
const STORAGE: &str = include_str!("../kind/default-storage.yaml");

/// A cluster; clones share it.
#[derive(Clone)]
pub struct Cluster {
    /// The API server.
    pub kube: FakeKube,
    /// What the object store holds.
    pub bucket: Arc<Mutex<Bucket>>,
    /// Images by node.
    images: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>,
    ready: Arc<Mutex<bool>>,
    nodes: u8,
}

impl Cluster {
    /// A cluster that is not there yet, on an engine; `references` are the images that can be sent to its nodes, and
    /// `address` is what its load balancer gives away.
    pub fn new(engine: &FakeEngine, nodes: u8, references: Vec<String>, address: String) -> Self {
        let kube = FakeKube::default();
        kube.set_down(true);
        controllers(&kube, address);
        let cluster = Self { kube, bucket: Arc::default(), images: Arc::default(), ready: Arc::default(), nodes };
        let answer = |text: String| ExecOutput { status: 0, stdout: text.into_bytes(), stderr: Vec::new() };
        let images = Arc::clone(&cluster.images);
        engine.on_exec(&["ctr", "-n", "k8s.io", "images", "ls"], move |node, _, _| {
            let images = images.lock().unwrap();
            let list = images.get(&node.id).into_iter().flatten().cloned().collect::<Vec<_>>();
            answer(list.join("\n"))
        });
        let images = Arc::clone(&cluster.images);
        engine.on_exec(&["ctr", "-n", "k8s.io", "images", "import"], move |node, _, _| {
            images.lock().unwrap().entry(node.id.clone()).or_default().extend(references.iter().cloned());
            answer(String::new())
        });
        engine.on_exec(&["cat", "/kind/manifests/default-cni.yaml"], move |_, _, _| answer(NETWORK.to_owned()));
        engine.on_exec(&["cat", "/kind/manifests/default-storage.yaml"], move |_, _, _| answer(STORAGE.to_owned()));
        let ready = Arc::clone(&cluster.ready);
        engine.on_exec(&["cat", "/etc/kubernetes/admin.conf"], move |_, _, _| {
            if *ready.lock().unwrap() {
                answer(ADMIN.to_owned())
            } else {
                ExecOutput { status: 1, ..ExecOutput::default() }
            }
        });
        cluster
    }

    /// What `kind create cluster` does, in moments between which devstack can die.
    pub async fn create(&self, engine: &FakeEngine, death: &Death, on_line: OnLine<'_>) -> Result<(), String> {
        death.reach("before kind").await;
        let label = format!("{KIND_CLUSTER_LABEL}={NAME}");
        let there = engine.containers(Some(&label)).await.map_err(|error| error.to_string())?;
        if !there.is_empty() {
            return Err(format!(
                "ERROR: failed to create cluster: node(s) already exist for a cluster with the name {NAME:?}"
            ));
        }
        if !engine.inventory().contains(&format!("network {NAME}")) {
            return Err(format!("kind made a network {NAME} of its own"));
        }
        on_line(Stream::Stderr, " • Preparing nodes 📦  ...");
        for number in 0..self.nodes {
            let ports = [(6443, "127.0.0.1".to_owned(), 34_567)];
            engine.add_kind_node(NAME, number, NAME, if number == 0 { &ports } else { &[] });
            death.reach(&format!("kind made node {number}")).await;
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        death.reach("kind starts the control plane").await;
        *self.ready.lock().unwrap() = true;
        self.kube.set_down(false);
        self.kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}));
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.kube.put(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "kube-system", "name": "coredns"},
            "spec": {"template": {"spec": {"containers": [{"name": "coredns", "readinessProbe": {"periodSeconds": 10}}]}}},
        }));
        death.reach("kind is done").await;
        Ok(())
    }

    /// A node was removed; without nodes there is no cluster.
    pub fn forget_node(&self, id: &str, engine: &FakeEngine) {
        self.images.lock().unwrap().remove(id);
        if !engine.inventory().iter().any(|name| name.starts_with("container ")) {
            self.kube.wipe();
            self.kube.set_down(true);
            *self.ready.lock().unwrap() = false;
            self.bucket.lock().unwrap().clear();
        }
    }

    /// Applies an object; a set of pods gets its pod.
    pub async fn apply(&self, object: &Value) -> Result<Value, KubeError> {
        let stored = self.kube.apply(object).await?;
        if ObjectKey::of(object).is_some_and(|key| (key.kind.as_str(), key.name.as_str()) == ("StatefulSet", "minio")) {
            self.kube.put(pod(object));
        }
        Ok(stored)
    }

    /// From now on pods say that their containers were started at `time`.
    pub fn start_pods(&self, time: &str) {
        let status = json!([{"name": "minio", "ready": true, "state": {"running": {"startedAt": time}}}]);
        self.kube.react("Pod", 0, move |pod| pod["status"]["containerStatuses"] = status.clone());
    }

    /// The Jobs that are there have given up, and stay so.
    pub async fn fail_jobs(&self) {
        let jobs = self.kube.list("batch/v1", "Job", None, "").await.unwrap();
        let failed: Vec<Value> = jobs.iter().map(|job| job["metadata"]["uid"].clone()).collect();
        assert!(!failed.is_empty());
        self.kube.react("Job", 0, move |job| {
            if failed.contains(&job["metadata"]["uid"]) {
                let message = "Job was active longer than specified deadline";
                job["status"] = json!({"conditions": [{"type": "Failed", "status": "True", "message": message}]});
            }
        });
    }

    /// Whether the site would be served: its objects are there, and so are the pods and the way to them.
    pub async fn serves(&self) -> bool {
        let deployment = |namespace: &str, name: &str| ObjectKey {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
        };
        for key in [deployment("s3www", "s3www"), deployment("traefik", "traefik")] {
            if !matches!(self.kube.get(&key).await, Ok(Some(_))) {
                return false;
            }
        }
        true
    }
}

fn pod(set: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "minio-0", "namespace": set["metadata"]["namespace"], "labels": set.pointer("/spec/template/metadata/labels")},
        "spec": set.pointer("/spec/template/spec"),
        "status": {"phase": "Running", "podIP": "10.244.0.5", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    pod["spec"]["nodeName"] = json!(format!("{NAME}-control-plane"));
    pod
}

/// The controllers of a cluster: what was applied is ready when it is looked at for the second time.
fn controllers(kube: &FakeKube, address: String) {
    let status = |kube: &FakeKube, kind: &str, status: fn(&Value) -> Value| {
        kube.react(kind, 1, move |object| object["status"] = status(&object["metadata"]["generation"]));
    };
    for kind in ["Deployment", "StatefulSet"] {
        status(
            kube,
            kind,
            |generation| json!({"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}),
        );
    }
    status(
        kube,
        "DaemonSet",
        |generation| json!({"observedGeneration": generation, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1}),
    );
    status(kube, "Job", |_| json!({"conditions": [{"type": "Complete", "status": "True"}]}));
    status(kube, "CustomResourceDefinition", |_| json!({"conditions": [{"type": "Established", "status": "True"}]}));
    kube.react("Service", 1, move |service| {
        if service["spec"]["type"] == "LoadBalancer" {
            service["status"] = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        }
    });
}
