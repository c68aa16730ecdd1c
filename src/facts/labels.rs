//! Nodes of a cluster that devstack did not make, by what their objects say: nothing is run there.

use serde_json::{Value, json};

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

/// The nodes of a cluster that some pods are held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Their names.
    pub nodes: Vec<String>,
    /// The terms of a node affinity that selects them: `nodeSelectorTerms`.
    pub terms: Vec<Value>,
}

/// The nodes that [`read_labels`] says a program for this architecture and CPU level runs on; `None` where that is all
/// of them.
pub fn held_to(nodes: &[NodeFacts], architecture: &str, level: CpuLevel) -> Option<Held> {
    let leveled = architecture == "amd64" && level > CpuLevel::V1;
    let fits = |node: &NodeFacts| node.cpu.architecture == architecture && (!leveled || node.cpu.level >= Some(level));
    let names: Vec<String> = nodes.iter().filter(|node| fits(node)).map(|node| node.name.clone()).collect();
    if names.len() == nodes.len() {
        return None;
    }
    let is = |key: &str, value: &str| json!({"key": key, "operator": "In", "values": [value]});
    let own = is("kubernetes.io/arch", architecture);
    if !leveled {
        return Some(Held { nodes: names, terms: vec![json!({"matchExpressions": [own]})] });
    }
    // Of two terms one is enough, and a node of a higher level need not have the labels of a lower one.
    let enough = LEVELS.iter().rev().filter(|(shown, _)| *shown >= level);
    let term = |flags: &[&str]| {
        let flags = flags.iter().map(|flag| is(&format!("{FLAGS}{flag}"), "true"));
        json!({"matchExpressions": std::iter::once(own.clone()).chain(flags).collect::<Vec<_>>()})
    };
    Some(Held { nodes: names, terms: enough.map(|(_, flags)| term(flags)).collect() })
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

    #[test]
    fn pods_are_held_to_exactly_the_nodes_that_show_the_level() {
        let node = |name: &str, architecture: &str, flags: &[&str]| {
            let mut labels = json!({"kubernetes.io/arch": architecture});
            for flag in flags {
                labels[format!("{FLAGS}{flag}")] = json!("true");
            }
            json!({"metadata": {"name": name, "labels": labels}})
        };
        let objects = [
            node("v3", "amd64", &["AVX", "AVX2", "FMA3", "MOVBE"]),
            node("v4", "amd64", &["AVX512F", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512VL"]),
            node("unknown", "amd64", &[]),
            node("arm", "arm64", &[]),
        ];
        let selects = |term: &Value, object: &Value| {
            let mut expressions = term["matchExpressions"].as_array().unwrap().iter();
            let holds = |one: &Value| object["metadata"]["labels"][one["key"].as_str().unwrap()] == one["values"][0];
            expressions.all(holds)
        };
        let held = |objects: &[Value], architecture: &str, level: CpuLevel| {
            let nodes: Vec<NodeFacts> = objects.iter().map(read_labels).collect();
            let held = held_to(&nodes, architecture, level)?;
            let chosen = objects.iter().filter(|object| held.terms.iter().any(|term| selects(term, object)));
            let names: Vec<_> = chosen.map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
            assert_eq!(held.nodes, names);
            Some(held.nodes)
        };
        assert_eq!(held(&objects, "amd64", CpuLevel::V2).unwrap(), ["v3", "v4"]);
        assert_eq!(held(&objects, "amd64", CpuLevel::V4).unwrap(), ["v4"]);
        assert_eq!(held(&objects, "amd64", CpuLevel::V1).unwrap(), ["v3", "v4", "unknown"]);
        assert_eq!(held(&objects, "arm64", CpuLevel::V2).unwrap(), ["arm"]);
        assert_eq!(held(&objects[..3], "amd64", CpuLevel::V1), None);
        assert_eq!(held(&objects[..2], "amd64", CpuLevel::V3), None);
    }
}
