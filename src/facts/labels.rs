//! Nodes of a cluster that devstack did not make, by what their objects say: nothing is run there.

use serde_json::Value;

use super::cpu::{CpuFacts, CpuLevel};
use super::node::NodeFacts;

/// The prefix of the labels of Node Feature Discovery that name CPUID flags, in that project's spelling.
const FLAGS: &str = "feature.node.kubernetes.io/cpu-cpuid.";

/// The flags that show a level. Node Feature Discovery leaves the flags of level 2 and some of level 3 out of its
/// labels by default (its `attributeBlacklist`), so that a level is taken from flags that no CPU below it has.
const LEVELS: [(CpuLevel, &[&str]); 3] = [
    (CpuLevel::V4, &["AVX512F", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512VL"]),
    (CpuLevel::V3, &["AVX2", "FMA3", "MOVBE"]),
    (CpuLevel::V2, &["AVX"]),
];

/// What a Node object tells. The CPU level is `None` where no labels tell it, and then only what runs everywhere may
/// be taken.
pub fn read_labels(node: &Value) -> NodeFacts {
    let text = |pointer: &str| node.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let label = |name: &str| node["metadata"]["labels"][name].as_str();
    let architecture = label("kubernetes.io/arch").map_or_else(|| text("/status/nodeInfo/architecture"), str::to_owned);
    let has = |flag: &&str| label(&format!("{FLAGS}{flag}")) == Some("true");
    let level = LEVELS.iter().find(|(_, flags)| flags.iter().all(has)).map(|(level, _)| *level);
    NodeFacts {
        name: text("/metadata/name"),
        cpu: CpuFacts {
            level: level.filter(|_| architecture == "amd64"),
            architecture,
            cpus: text("/status/capacity/cpu").parse().unwrap_or_default(),
            ..CpuFacts::default()
        },
        kernel: text("/status/nodeInfo/kernelVersion"),
        memory: bytes(&text("/status/allocatable/memory")),
        disk_free: 0,
        containerd: text("/status/nodeInfo/containerRuntimeVersion")
            .strip_prefix("containerd://")
            .map(|version| format!("v{version}"))
            .unwrap_or_default(),
        ..NodeFacts::default()
    }
}

/// A quantity as the kubelet writes it, `16384Ki` or plain bytes; 0 where it is neither.
fn bytes(text: &str) -> u64 {
    match text.strip_suffix("Ki") {
        Some(number) => number.parse::<u64>().unwrap_or_default() << 10,
        None => text.parse().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn level(flags: &[&str], architecture: &str) -> Option<CpuLevel> {
        let mut labels = json!({"kubernetes.io/arch": architecture});
        for flag in flags {
            labels[format!("{FLAGS}{flag}")] = json!("true");
        }
        read_labels(&json!({"metadata": {"name": "n", "labels": labels}})).cpu.level
    }

    #[test]
    fn a_level_is_what_labels_show_and_nothing_else() {
        assert_eq!(level(&[], "amd64"), None);
        assert_eq!(level(&["AESNI"], "amd64"), None);
        assert_eq!(level(&["AVX"], "amd64"), Some(CpuLevel::V2));
        assert_eq!(level(&["AVX", "AVX2"], "amd64"), Some(CpuLevel::V2));
        assert_eq!(level(&["AVX", "AVX2", "FMA3", "MOVBE"], "amd64"), Some(CpuLevel::V3));
        let all = ["AVX512F", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512VL"];
        assert_eq!(level(&all, "amd64"), Some(CpuLevel::V4));
        assert_eq!(level(&all, "arm64"), None);
    }

    #[test]
    fn a_node_says_what_it_is() {
        let facts = read_labels(&json!({
            "metadata": {"name": "a", "labels": {}},
            "status": {
                "capacity": {"cpu": "4"}, "allocatable": {"memory": "2048Ki"},
                "nodeInfo": {"architecture": "arm64", "kernelVersion": "6.1.0", "containerRuntimeVersion": "containerd://2.2.3"},
            },
        }));
        assert_eq!((facts.cpu.architecture.as_str(), facts.cpu.cpus, facts.memory), ("arm64", 4, 2 << 20));
        assert_eq!((facts.kernel.as_str(), facts.containerd.as_str()), ("6.1.0", "v2.2.3"));
    }
}
