//! Cluster nodes: what was read in each, and what a cluster of several has in common.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::cpu::{CpuFacts, CpuLevel, level_of_cpuinfo};
use super::host::kib_line;
use super::policy::NetworkPolicy;
use crate::error::{Advise, ExitCode};
use crate::ports::Engine;
use crate::ports::engine::EngineError;

/// What was read in one node. Sizes are bytes, 0 where they could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// Its CPUs.
    pub cpu: CpuFacts,
    /// Its kernel's release.
    pub kernel: String,
    /// Memory.
    pub memory: u64,
    /// Space for images and volumes (`/var`).
    pub disk_free: u64,
    /// containerd's version, such as `v2.2.3`; empty where there is none.
    pub containerd: String,
    /// The cgroup version, 1 or 2; `None` where it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u8>,
    /// The network plugin, such as `kindnet`; empty where none is set up yet.
    pub network: String,
    /// Whether NetworkPolicies have an effect.
    pub network_policy: NetworkPolicy,
}

/// Where a version 2 hierarchy lists its controllers.
const CONTROLLERS: &str = "/sys/fs/cgroup/cgroup.controllers";

/// Where network plugins put their configuration; the first in the order of names is the one in force.
const PLUGINS: &str = "/etc/cni/net.d";

/// Where kind's node images keep the network plugin that a new cluster gets.
const DEFAULT_PLUGIN: &str = "/kind/manifests/default-cni.yaml";

/// Reads a node by its container.
///
/// # Errors
/// What the engine answers. A command that fails in the node only leaves its field empty.
pub async fn read_node(engine: &dyn Engine, container: &str, name: &str) -> Result<NodeFacts, EngineError> {
    let (proc, disk, containerd, files, kindnet) = futures::try_join!(
        engine.exec(container, &["cat", "/proc/cpuinfo", "/proc/meminfo", "/proc/sys/kernel/osrelease"], None),
        engine.exec(container, &["df", "-B1", "--output=avail", "/var"], None),
        engine.exec(container, &["containerd", "--version"], None),
        engine.exec(container, &["find", CONTROLLERS, PLUGINS, "-maxdepth", "1", "-type", "f"], None),
        engine.exec(container, &["grep", "-oh", "kindnetd:v[0-9]*", DEFAULT_PLUGIN], None),
    )?;
    let (proc, files) = (proc.text(), files.text());
    let network = plugin(&files);
    let cgroup = (files.starts_with('/')).then(|| if files.lines().any(|file| file == CONTROLLERS) { 2 } else { 1 });
    Ok(NodeFacts {
        name: name.to_owned(),
        cpu: level_of_cpuinfo(&proc),
        kernel: proc.lines().next_back().filter(|line| !line.contains(':')).unwrap_or_default().trim().to_owned(),
        memory: kib_line(&proc, "MemTotal").unwrap_or_default(),
        disk_free: disk.text().lines().filter_map(|line| line.trim().parse().ok()).next_back().unwrap_or_default(),
        containerd: containerd_version(&containerd.text()),
        cgroup,
        network_policy: NetworkPolicy::of(&network, &kindnet.text()),
        network,
    })
}

/// Reads only the CPUs of a node by its container.
///
/// # Errors
/// What the engine answers.
pub async fn read_node_cpu(engine: &dyn Engine, container: &str) -> Result<CpuFacts, EngineError> {
    Ok(level_of_cpuinfo(&engine.exec(container, &["cat", "/proc/cpuinfo"], None).await?.text()))
}

/// `containerd github.com/containerd/containerd/v2 v2.2.3 <commit>` gives its third word.
fn containerd_version(text: &str) -> String {
    text.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

/// The plugin whose configuration is in force: `10-kindnet.conflist` is that of `kindnet`. Hidden files are being
/// written.
fn plugin(files: &str) -> String {
    let names = files.lines().filter_map(|file| file.strip_prefix(PLUGINS)?.strip_prefix('/'));
    let configured = |name: &&str| {
        !name.starts_with('.') && [".conflist", ".conf", ".json"].iter().any(|suffix| name.ends_with(suffix))
    };
    let first = names.filter(configured).min().unwrap_or_default();
    let stem = first.split('.').next().unwrap_or_default();
    stem.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned()
}

/// What programs for every node must keep to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Common {
    /// The platform of all nodes that tell it, such as `linux/amd64`.
    pub platform: Option<String>,
    /// The lowest level; `None` where a node's is not known, or the architecture has none.
    pub level: Option<CpuLevel>,
    /// Which node decides, where not all are alike.
    pub why: Option<String>,
}

/// Nodes of several architectures: an image is chosen for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the nodes have several architectures: {0}")]
pub struct MixedArchitectures(String);

impl Advise for MixedArchitectures {
    fn hint(&self) -> Option<String> {
        Some("use a cluster whose nodes have one architecture, or cordon and remove those of the others".to_owned())
    }

    fn exit(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// What the nodes of a cluster have in common; nothing without nodes. Any pod may land on any node, so that the lowest
/// level decides.
///
/// # Errors
/// [`MixedArchitectures`].
pub fn common(nodes: &[NodeFacts]) -> Result<Option<Common>, MixedArchitectures> {
    if nodes.is_empty() {
        return Ok(None);
    }
    let mut by_architecture: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| !node.cpu.architecture.is_empty()) {
        by_architecture.entry(&node.cpu.architecture).or_default().push(&node.name);
    }
    if by_architecture.len() > 1 {
        let each = by_architecture.iter().map(|(architecture, names)| format!("{architecture} ({})", names.join(", ")));
        return Err(MixedArchitectures(each.collect::<Vec<_>>().join(", ")));
    }
    // `None` is below every level.
    let level = nodes.iter().map(|node| node.cpu.level).min().flatten();
    let lowest: Vec<&str> = nodes.iter().filter(|node| node.cpu.level == level).map(|node| &*node.name).collect();
    let why = (lowest.len() < nodes.len()).then(|| {
        let names = lowest.join(", ");
        match level {
            Some(_) => format!("the lowest of {} nodes decides: {names}", nodes.len()),
            None => format!("nothing is known of the CPU of {names}"),
        }
    });
    let platform = by_architecture.keys().next().map(|architecture| format!("linux/{architecture}"));
    Ok(Some(Common { platform, level, why }))
}

/// Nodes that one image runs on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeGroup {
    /// Their platform.
    pub platform: String,
    /// The lowest of their CPU levels; `None` where a node's is not known, or the architecture has none.
    pub level: Option<CpuLevel>,
    /// How many they are.
    pub nodes: usize,
}

/// The groups of nodes that an image can be chosen for, the largest first: for each architecture those of each level and
/// above. Nodes that do not tell their architecture are in none.
pub fn groups(nodes: &[NodeFacts]) -> Vec<NodeGroup> {
    let known = nodes.iter().filter(|node| !node.cpu.architecture.is_empty());
    let kinds: BTreeSet<(&str, Option<CpuLevel>)> =
        known.map(|node| (&*node.cpu.architecture, node.cpu.level)).collect();
    let group = |(architecture, level): (&str, Option<CpuLevel>)| NodeGroup {
        platform: format!("linux/{architecture}"),
        level,
        nodes: nodes.iter().filter(|node| node.cpu.architecture == architecture && node.cpu.level >= level).count(),
    };
    let mut groups: Vec<NodeGroup> = kinds.into_iter().map(group).collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.nodes));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::engine::{EngineInfo, ExecOutput};
    use crate::ports::fake::FakeEngine;

    fn node(name: &str, architecture: &str, level: Option<CpuLevel>) -> NodeFacts {
        let cpu = CpuFacts { architecture: architecture.to_owned(), level, ..CpuFacts::default() };
        NodeFacts { name: name.to_owned(), cpu, ..NodeFacts::default() }
    }

    #[test]
    fn the_weakest_node_decides() {
        let (v2, v3) = (Some(CpuLevel::V2), Some(CpuLevel::V3));
        let of = |nodes: &[NodeFacts]| common(nodes).unwrap().map(|common| (common.level, common.why));
        assert_eq!(of(&[node("a", "amd64", v3), node("b", "amd64", v3)]), Some((v3, None)));
        let why = "the lowest of 3 nodes decides: b, c".to_owned();
        assert_eq!(
            of(&[node("a", "amd64", v3), node("b", "amd64", v2), node("c", "amd64", v2)]),
            Some((v2, Some(why)))
        );
        let why = "nothing is known of the CPU of b".to_owned();
        assert_eq!(of(&[node("a", "amd64", v3), node("b", "amd64", None)]), Some((None, Some(why))));
        assert_eq!(of(&[node("a", "arm64", None), node("b", "arm64", None)]), Some((None, None)));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn nodes_that_differ_fall_into_groups() {
        let (v2, v3) = (Some(CpuLevel::V2), Some(CpuLevel::V3));
        let of = |nodes: &[NodeFacts]| {
            let groups = groups(nodes).into_iter();
            groups.map(|group| (group.platform, group.level, group.nodes)).collect::<Vec<_>>()
        };
        let (amd64, arm64) = (|| "linux/amd64".to_owned(), || "linux/arm64".to_owned());
        assert_eq!(of(&[node("a", "amd64", v3), node("b", "amd64", v3)]), [(amd64(), v3, 2)]);
        let levels = [node("a", "amd64", v3), node("b", "amd64", None), node("c", "amd64", v2)];
        assert_eq!(of(&levels), [(amd64(), None, 3), (amd64(), v2, 2), (amd64(), v3, 1)]);
        let both = [node("a", "amd64", v3), node("b", "arm64", None), node("c", "arm64", None)];
        assert_eq!(of(&both), [(arm64(), None, 2), (amd64(), v3, 1)]);
        assert_eq!(of(&[node("a", "", None), node("b", "arm64", None)]), [(arm64(), None, 1)]);
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn several_architectures_are_refused() {
        let error =
            common(&[node("a", "amd64", None), node("b", "arm64", None), node("c", "amd64", None)]).unwrap_err();
        assert_eq!(error.to_string(), "the nodes have several architectures: amd64 (a, c), arm64 (b)");
        assert!(error.hint().is_some());
    }

    #[test]
    fn containerd_says_its_version_third() {
        assert_eq!(containerd_version("containerd github.com/containerd/containerd/v2 v2.2.3 abc\n"), "v2.2.3");
        assert_eq!(containerd_version(""), "");
    }

    #[test]
    fn the_first_configuration_is_in_force() {
        let of = |names: &[&str]| plugin(&names.iter().map(|name| format!("{PLUGINS}/{name}\n")).collect::<String>());
        assert_eq!(of(&["10-kindnet.conflist"]), "kindnet");
        assert_eq!(of(&["10-calico.conflist", "calico-kubeconfig", "05-cilium.conflist"]), "cilium");
        assert_eq!(of(&[".10-flannel.conflist", "README"]), "");
    }

    /// A node that answers as a container of kind's node image does.
    async fn read(files: &'static str, kindnet: &'static str) -> NodeFacts {
        let engine = FakeEngine::new(EngineInfo::default());
        let id = engine.add_kind_node("devstack-a", 0, "devstack-a", &[]);
        let say = |text: &'static str| {
            move |_: &_, _: &[&str], _: &[u8]| ExecOutput { stdout: text.into(), ..ExecOutput::default() }
        };
        engine.on_exec(
            &["cat"],
            say("processor: 0\nflags: lm\nMemTotal:  2048 kB\nHugepagesize:  2048 kB\n6.12.48+deb13-amd64\n"),
        );
        engine.on_exec(&["df"], say("      Avail\n5368709120\n"));
        engine.on_exec(&["containerd"], say("containerd github.com/containerd/containerd/v2 v2.2.3 abc\n"));
        engine.on_exec(&["find"], say(files));
        engine.on_exec(&["grep"], say(kindnet));
        read_node(&engine, &id, "a").await.unwrap()
    }

    #[tokio::test]
    async fn all_of_a_node_is_read() {
        let files = "/sys/fs/cgroup/cgroup.controllers\n/etc/cni/net.d/10-kindnet.conflist\n";
        let facts = read(files, "kindnetd:v20260708\n").await;
        assert_eq!((facts.cpu.architecture.as_str(), facts.cpu.level), ("amd64", Some(CpuLevel::V1)));
        assert_eq!((facts.memory, facts.disk_free, facts.cgroup), (2048 * 1024, 5_368_709_120, Some(2)));
        assert_eq!((facts.kernel.as_str(), facts.containerd.as_str()), ("6.12.48+deb13-amd64", "v2.2.3"));
        assert_eq!((facts.network.as_str(), facts.network_policy), ("kindnet", NetworkPolicy::Enforced));
    }

    #[tokio::test]
    async fn a_node_without_the_new_hierarchy_has_the_old_one() {
        let facts = read("/etc/cni/net.d/10-flannel.conflist\n", "").await;
        assert_eq!((facts.cgroup, facts.network_policy), (Some(1), NetworkPolicy::NotEnforced));
        let facts = read("", "").await;
        assert_eq!((facts.cgroup, facts.network_policy), (None, NetworkPolicy::Unknown), "find is not there");
    }
}
