//! kind: its configuration, its binary, its call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::blobs;
use crate::cluster::bridge::SERVICE_SUBNET;
use crate::image::KubeVersion;
use crate::ports::Runner;
use crate::ports::runner::Cmd;

/// What devstack asks kind for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindSpec {
    /// The cluster's reserved name.
    pub name: String,
    /// The node image, present in the engine.
    pub image: String,
    /// Its Kubernetes version; `None` where its name does not tell it.
    pub kubernetes: Option<KubeVersion>,
    /// The number of nodes: one control plane, the rest workers.
    pub nodes: u8,
    /// Loopback ports of the host that lead to the ingress on the control plane.
    pub http: u16,
    /// As `http`, for TLS.
    pub https: u16,
    /// What the engine lacks and the nodes must do without.
    pub adaptation: Adaptation,
    /// Labels by node number; 0 is the control plane.
    pub labels: BTreeMap<u8, BTreeMap<String, String>>,
    /// The directory of this host that nodes may link image layers from; none where the engine cannot mount it.
    pub blobs: Option<PathBuf>,
}

/// What an engine in a sandbox, a dev container or a CI runner cannot give to its nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Adaptation {
    /// Containers get no `CAP_SYS_RESOURCE`: neither negative OOM scores nor raised limits. containerd must not ask for
    /// them, and the kubelet must bear that it may not write its own (`KubeletInUserNamespace`).
    pub no_sys_resource: bool,
    /// Control groups are of version 1, where systemd takes away what is empty in a hierarchy while the kubelet makes
    /// something in it: the pod is tried again after ten seconds or more. There containerd and the kubelet make control
    /// groups without systemd.
    pub cgroup_v1: bool,
}

/// What a control plane for one person is told, by version of kubeadm's configuration; kind passes over those of other
/// versions than the one it writes, which from Kubernetes 1.36 is v1beta4. Every kind that writes that merges lists of
/// arguments by name, where a merge patch alone would take kind's own away (kubernetes-sigs/kind#4173).
///
/// - Elliptic keys are made in no time; ten RSA keys take seconds of a small machine.
/// - The controller manager makes a service account and a token for each of its controllers when it starts, through a
///   client that is held to 20 requests a second. Nobody else uses this API server yet.
/// - There is one of each component, so that a lease protects it from nobody, and after a restart keeps it waiting until
///   that of its own past life has run out: fifteen seconds in which Services lead to pods that are no more.
const CONTROL_PLANE: [&str; 2] = [
    r#"
kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta3
featureGates: {PublicKeysECDSA: true}
controllerManager: {extraArgs: {kube-api-qps: "500", kube-api-burst: "1000", leader-elect: "false"}}
scheduler: {extraArgs: {leader-elect: "false"}}
"#,
    r#"
kind: ClusterConfiguration
apiVersion: kubeadm.k8s.io/v1beta4
encryptionAlgorithm: ECDSA-P256
controllerManager:
  extraArgs:
  - {name: kube-api-qps, value: "500"}
  - {name: kube-api-burst, value: "1000"}
  - {name: leader-elect, value: "false"}
scheduler:
  extraArgs:
  - {name: leader-elect, value: "false"}
"#,
];

/// Every node takes workloads, the control plane too: the loopback ports lead to it, so that the ingress needs not wait
/// for a worker to join. Of a single node kind takes the taint away itself, and fails where there is none.
const NO_TAINT: [&str; 2] = [
    "kind: InitConfiguration\napiVersion: kubeadm.k8s.io/v1beta3\nnodeRegistration: {taints: []}\n",
    "kind: InitConfiguration\napiVersion: kubeadm.k8s.io/v1beta4\nnodeRegistration: {taints: []}\n",
];

/// The kubelet bears that it may not write OOM scores and limits of its own.
const IN_USER_NAMESPACE: &str = r#"
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
featureGates: {KubeletInUserNamespace: true}
"#;

/// Control groups without systemd.
const CGROUPFS: &str = "\
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
cgroupDriver: cgroupfs
";

/// A container that crashes is started again after three seconds at the latest, not after up to five minutes. When a
/// node starts, pods run before their network does and crash, and whoever develops has mended the cause long before.
const CRASHES: &str = "\
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
crashLoopBackOff: {maxContainerRestartPeriod: 3s}
";

/// What [`CRASHES`] needs in the first versions that know it; it is on by default from 1.35 (KEP 4603).
const CRASHES_GATE: &str = "\
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
featureGates: {KubeletCrashLoopBackOffMax: true}
";

/// The addresses of pods; kind's own default.
pub const POD_SUBNET: &str = "10.244.0.0/16";

/// A creation that takes longer has hung: pulling is done before it, and the slowest machine needs some minutes.
const CREATION: Duration = Duration::from_secs(1800);

/// The oldest kind whose configuration and node contract this module is written for.
const OLDEST: (u64, u64) = (0, 27);

impl KindSpec {
    /// kind's configuration file (`kind.x-k8s.io/v1alpha4`) as JSON, which is YAML too.
    pub fn config(&self) -> Value {
        let mut config = json!({
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "name": self.name,
            // `AddonsStep` brings the pod network, earlier than kind would.
            "networking": {
                "apiServerAddress": "127.0.0.1",
                "podSubnet": POD_SUBNET,
                "serviceSubnet": SERVICE_SUBNET,
                "disableDefaultCNI": true,
            },
            "nodes": self.nodes(),
        });
        let mut patches = CONTROL_PLANE.to_vec();
        if self.nodes > 1 {
            patches.extend(NO_TAINT);
        }
        let mut containerd = Vec::new();
        if self.adaptation.no_sys_resource {
            containerd.push("[plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n");
            patches.push(IN_USER_NAMESPACE);
        }
        if self.adaptation.cgroup_v1 {
            containerd.push(
                "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n  SystemdCgroup = false\n",
            );
            patches.push(CGROUPFS);
        }
        if !containerd.is_empty() {
            config["containerdConfigPatches"] = json!(containerd);
        }
        match self.kubernetes.map(|version| version.minor) {
            Some(32..35) => patches.extend([CRASHES, CRASHES_GATE]),
            Some(35..) => patches.push(CRASHES),
            Some(..32) | None => {}
        }
        config["kubeadmConfigPatches"] = json!(patches);
        config
    }

    fn nodes(&self) -> Vec<Value> {
        let mapping = |container: u16, host: u16| json!({"containerPort": container, "hostPort": host, "listenAddress": "127.0.0.1"});
        (0..self.nodes.max(1))
            .map(|number| {
                let mut node = if number == 0 {
                    let ports = [mapping(80, self.http), mapping(443, self.https)];
                    json!({"role": "control-plane", "extraPortMappings": ports})
                } else {
                    json!({"role": "worker"})
                };
                if let Some(labels) = self.labels.get(&number) {
                    node["labels"] = json!(labels);
                }
                if let Some(blobs) = &self.blobs {
                    node["extraMounts"] = json!([{"hostPath": blobs, "containerPath": blobs::MOUNT, "readOnly": true}]);
                }
                node
            })
            .collect()
    }

    /// The call that creates the cluster on the engine at `endpoint`, in the engine network of the same reserved name.
    /// Nodes of a failed creation stay, so that their logs can explain it.
    pub fn create(&self, kind: &Path, config: &Path, kubeconfig: &Path, endpoint: &str) -> Cmd {
        Cmd::new(kind)
            .args(["create", "cluster", "--retain", "--name", &self.name, "--image", &self.image])
            .arg("--config")
            .arg(config)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("KIND_EXPERIMENTAL_PROVIDER", "docker")
            .env("KIND_EXPERIMENTAL_DOCKER_NETWORK", self.name.as_str())
            .env("DOCKER_HOST", endpoint)
            .timeout(CREATION)
    }
}

/// The name that kind gives to a cluster's node of this number; 0 is the control plane.
pub fn node_name(cluster: &str, number: u8) -> String {
    match number {
        0 => format!("{cluster}-control-plane"),
        1 => format!("{cluster}-worker"),
        more => format!("{cluster}-worker{more}"),
    }
}

/// The kind on `PATH`, where it is one that devstack is written for.
pub async fn on_path(runner: &dyn Runner, path: Option<&str>) -> Option<PathBuf> {
    let found = which::which_in("kind", path, Path::new("/")).ok()?;
    let output = runner.run(&Cmd::new(&found).args(["version", "-q"])).await.ok()?;
    let text = output.text();
    let mut numbers = text.trim().trim_start_matches('v').split('.').map(|part| part.parse::<u64>().ok());
    let version = (numbers.next()??, numbers.next()??);
    (version >= OLDEST).then_some(found)
}

/// devstack's kubeconfig for the cluster: the credentials of `admin.conf` as the control plane has it, under the
/// reserved name, at the loopback port that leads to the API server. `None` where `admin.conf` is not complete yet.
pub fn kubeconfig(admin: &str, name: &str, server: &str) -> Option<String> {
    let admin = kube::config::Kubeconfig::from_yaml(admin).ok()?;
    let ca = admin.clusters.first()?.cluster.as_ref()?.certificate_authority_data.clone()?;
    let user = serde_json::to_value(admin.auth_infos.first()?.auth_info.as_ref()?).ok()?;
    let certificate = user.get("client-certificate-data")?.as_str()?.to_owned();
    let key = user.get("client-key-data")?.as_str()?.to_owned();
    Some(format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {name}\npreferences: {{}}\n\
         clusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\n\
         users:\n- name: {name}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(nodes: u8) -> KindSpec {
        KindSpec {
            name: "devstack-demo".to_owned(),
            image: "kindest/node:v1.34.11".to_owned(),
            kubernetes: "1.34.11".parse().ok(),
            nodes,
            http: 8080,
            https: 8443,
            adaptation: Adaptation::default(),
            labels: BTreeMap::new(),
            blobs: None,
        }
    }

    #[test]
    fn only_the_control_plane_publishes_ports_and_only_on_loopback() {
        let config = spec(3).config();
        let nodes = config["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 3);
        for mapping in nodes[0]["extraPortMappings"].as_array().unwrap() {
            assert_eq!(mapping["listenAddress"], "127.0.0.1");
        }
        assert!(nodes[1..].iter().all(|node| *node == json!({"role": "worker"})));
        assert_eq!(config["networking"]["apiServerAddress"], "127.0.0.1");
    }

    #[test]
    fn nodes_are_adapted_only_where_the_engine_lacks_something() {
        assert!(spec(1).config().get("containerdConfigPatches").is_none());
        let adapted = |no_sys_resource, cgroup_v1| {
            KindSpec { adaptation: Adaptation { no_sys_resource, cgroup_v1 }, ..spec(1) }.config()
        };
        let old = adapted(false, true);
        assert_eq!(old["containerdConfigPatches"].as_array().map(Vec::len), Some(1));
        assert!(old["containerdConfigPatches"][0].as_str().unwrap().contains("SystemdCgroup = false"));
        assert!(old["kubeadmConfigPatches"].to_string().contains("cgroupDriver: cgroupfs"));
        assert_eq!(adapted(true, true)["containerdConfigPatches"].as_array().map(Vec::len), Some(2));
        let adapted = adapted(true, false);
        assert!(adapted["containerdConfigPatches"][0].as_str().unwrap().contains("restrict_oom_score_adj = true"));
        let patches = |config: &Value| config["kubeadmConfigPatches"].to_string();
        assert!(patches(&adapted).contains("KubeletInUserNamespace: true"));
        assert!(!patches(&spec(1).config()).contains("KubeletInUserNamespace"));
    }

    #[test]
    fn a_kubelet_is_told_only_what_its_version_knows() {
        let patches = |version: &str| {
            let config = KindSpec { kubernetes: version.parse().ok(), ..spec(1) }.config();
            config["kubeadmConfigPatches"].to_string()
        };
        let told = |version: &str| {
            let patches = patches(version);
            (patches.contains("crashLoopBackOff"), patches.contains("KubeletCrashLoopBackOffMax"))
        };
        assert_eq!(told("1.31.9"), (false, false));
        assert_eq!(told("1.32.0"), (true, true));
        assert_eq!(told("1.34"), (true, true));
        assert_eq!(told("1.35.1"), (true, false));
        assert_eq!(told("latest"), (false, false));
    }

    /// The arguments of a component in the control plane's patch of one version, which are a map before v1beta4.
    fn arguments(version: &str, component: &str) -> BTreeMap<String, String> {
        let patches = spec(1).config()["kubeadmConfigPatches"].clone();
        let patches = patches.as_array().unwrap().iter().map(|patch| patch.as_str().unwrap());
        let parsed = patches.map(|patch| crate::yaml::parse_value("patch", patch).unwrap().to_value());
        let of_version = |patch: &Value| {
            patch["kind"] == "ClusterConfiguration" && patch["apiVersion"] == format!("kubeadm.k8s.io/{version}")
        };
        let mut found: Vec<Value> = parsed.filter(of_version).collect();
        assert_eq!(found.len(), 1, "{version}");
        let arguments = found.remove(0)[component]["extraArgs"].clone();
        let pair =
            |name: &Value, value: &Value| (name.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned());
        match arguments {
            Value::Array(list) => list.iter().map(|one| pair(&one["name"], &one["value"])).collect(),
            Value::Object(map) => map.iter().map(|(name, value)| pair(&Value::from(name.as_str()), value)).collect(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_version_of_the_configuration_says_the_same() {
        for component in ["controllerManager", "scheduler"] {
            let told = arguments("v1beta3", component);
            assert_eq!(told["leader-elect"], "false");
            assert_eq!(arguments("v1beta4", component), told, "{component}");
        }
        assert_eq!(arguments("v1beta4", "controllerManager")["kube-api-qps"], "500");
    }

    #[test]
    fn a_single_node_keeps_the_taint_that_kind_takes_away() {
        let patches = |nodes: u8| spec(nodes).config()["kubeadmConfigPatches"].to_string();
        assert!(!patches(1).contains("taints"));
        assert!(patches(2).contains("taints: []"));
        for version in ["kubeadm.k8s.io/v1beta3", "kubeadm.k8s.io/v1beta4"] {
            assert_eq!(patches(2).matches(version).count(), 2);
        }
    }

    #[test]
    fn every_node_can_read_the_layers_and_none_can_change_them() {
        let mounted = KindSpec { blobs: Some(PathBuf::from("/state/blobs")), ..spec(2) }.config();
        for node in mounted["nodes"].as_array().unwrap() {
            let mount = json!({"hostPath": "/state/blobs", "containerPath": blobs::MOUNT, "readOnly": true});
            assert_eq!(node["extraMounts"], json!([mount]));
        }
    }

    #[test]
    fn labels_go_to_the_node_of_their_number() {
        let labels = BTreeMap::from([(1, BTreeMap::from([("tier".to_owned(), "data".to_owned())]))]);
        let config = KindSpec { labels, ..spec(2) }.config();
        assert!(config["nodes"][0].get("labels").is_none());
        assert_eq!(config["nodes"][1]["labels"]["tier"], "data");
    }

    #[test]
    fn the_kubeconfig_keeps_credentials_and_renames_everything() {
        let admin = "apiVersion: v1\nkind: Config\nclusters:\n- name: kubernetes\n  cluster:\n    server: https://x:6443\n    certificate-authority-data: Q0E=\ncontexts: []\nusers:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: Q0VSVA==\n    client-key-data: S0VZ\n";
        let text = kubeconfig(admin, "devstack-demo", "https://127.0.0.1:4242").unwrap();
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        assert_eq!(parsed.current_context.as_deref(), Some("devstack-demo"));
        assert_eq!(parsed.clusters[0].cluster.as_ref().unwrap().server.as_deref(), Some("https://127.0.0.1:4242"));
        assert!(text.contains("client-key-data: S0VZ"));
        assert_eq!(kubeconfig("apiVersion: v1\nkind: Config\nclusters: []\n", "n", "s"), None);
    }
}
