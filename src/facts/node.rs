//! A cluster node, read by commands in its container.

use serde::{Deserialize, Serialize};

use super::cpu::{CpuFacts, CpuLevel, level_of_cpuinfo};
use super::host::kib_line;
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
}

/// Reads a node by its container.
///
/// # Errors
/// What the engine answers. A command that fails in the node only leaves its field empty.
pub async fn read_node(engine: &dyn Engine, container: &str, name: &str) -> Result<NodeFacts, EngineError> {
    let (proc, disk, containerd) = futures::try_join!(
        engine.exec(container, &["cat", "/proc/cpuinfo", "/proc/meminfo", "/proc/sys/kernel/osrelease"], None),
        engine.exec(container, &["df", "-B1", "--output=avail", "/var"], None),
        engine.exec(container, &["containerd", "--version"], None),
    )?;
    let proc = proc.text();
    Ok(NodeFacts {
        name: name.to_owned(),
        cpu: level_of_cpuinfo(&proc),
        kernel: proc.lines().next_back().filter(|line| !line.contains(':')).unwrap_or_default().trim().to_owned(),
        memory: kib_line(&proc, "MemTotal").unwrap_or_default(),
        disk_free: disk.text().lines().filter_map(|line| line.trim().parse().ok()).next_back().unwrap_or_default(),
        containerd: containerd_version(&containerd.text()),
    })
}

/// `containerd github.com/containerd/containerd/v2 v2.2.3 <commit>` gives its third word.
fn containerd_version(text: &str) -> String {
    text.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

/// The level that binaries for all nodes must keep to: the lowest. `None` without nodes, or where one has no level.
pub fn lowest_level(nodes: &[NodeFacts]) -> Option<CpuLevel> {
    nodes.iter().map(|node| node.cpu.level).min().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weakest_node_decides() {
        let node = |level| NodeFacts { cpu: CpuFacts { level, ..CpuFacts::default() }, ..NodeFacts::default() };
        assert_eq!(lowest_level(&[node(Some(CpuLevel::V3)), node(Some(CpuLevel::V2))]), Some(CpuLevel::V2));
        assert_eq!(lowest_level(&[node(Some(CpuLevel::V3)), node(None)]), None);
        assert_eq!(lowest_level(&[]), None);
    }

    #[test]
    fn containerd_says_its_version_third() {
        assert_eq!(containerd_version("containerd github.com/containerd/containerd/v2 v2.2.3 abc\n"), "v2.2.3");
        assert_eq!(containerd_version(""), "");
    }
}
