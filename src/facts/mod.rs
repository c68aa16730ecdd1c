//! Facts: what was read about the laptop, the engine and the nodes. Data only; decisions are functions over it.
//!
//! Facts are printed by `devstack facts` and loaded again by `--facts FILE`, so every decision can be shown and tested
//! for machines that are not at hand.

mod cpu;
mod cpuid;
#[cfg(test)]
mod decisions;
mod engine;
mod file;
mod host;
mod labels;
mod machine;
mod node;
mod policy;

pub use cpu::{CpuFacts, CpuLevel, ParseCpuLevelError, level_of_cpuinfo};
pub use engine::{EngineFacts, EngineKind, Reachability, measure_cpu, reachable};
pub(crate) use file::size;
pub use file::{Facts, FactsError, parse};
pub use host::{CapSet, Disk, DockerGroup, HostFacts, Inotify, Wsl};
pub use labels::{Held, held_to, read_labels};
pub use machine::Machine;
pub use node::{Common, MixedArchitectures, NodeFacts, NodeGroup, common, groups, read_node, read_node_cpu};
pub use policy::NetworkPolicy;
