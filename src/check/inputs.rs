//! What the probes read; the rules over it are pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{CpuLevel, EngineFacts, HostFacts};
use crate::ports::engine::{EngineError, Network};

/// An answer that may not have come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Asked<T> {
    /// Nobody asked; the checks that need it are skipped.
    #[default]
    No,
    /// The answer.
    Known(T),
    /// Asking failed, or took too long; the checks that need it say so.
    Failed(String),
}

impl<T> Asked<T> {
    /// The answer, where there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::No | Self::Failed(_) => None,
        }
    }
}

/// Why there are no facts about the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineTrouble {
    /// Whether it is there and refuses this account.
    pub permission: bool,
    /// The error in one line.
    pub error: String,
}

impl EngineTrouble {
    /// What an error of the engine means for the checks.
    pub fn of(error: &EngineError) -> Self {
        Self { permission: matches!(error, EngineError::Permission { .. }), error: error.to_string() }
    }
}

/// What a plan asks of the machine. Sizes are bytes; 0 asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The environment.
    pub environment: String,
    /// The minor of Kubernetes 1.x; `None` where any will do.
    pub kubernetes_minor: Option<u32>,
    /// Memory of the engine.
    pub memory: u64,
    /// CPUs of the engine.
    pub cpus: u64,
    /// Space in the cache directory.
    pub cache_disk: u64,
    /// Space on the engine's disk.
    pub engine_disk: u64,
    /// Ports of the loopback address that have to be free, or the environment's own.
    pub ports: Vec<u16>,
    /// The environment's network, where it exists or is about to.
    pub subnets: Vec<String>,
    /// The images chosen, with what each asks for.
    pub images: Vec<ImageNeed>,
}

impl Needs {
    /// What a small environment of one node needs; for `doctor` without a plan.
    pub fn small() -> Self {
        Self { memory: 2 << 30, cpus: 2, cache_disk: 2 << 30, engine_disk: 5 << 30, ..Self::default() }
    }
}

/// An image that a plan uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageNeed {
    /// The role in the catalog.
    pub role: String,
    /// The chosen reference; empty where nothing could be chosen.
    pub reference: String,
    /// The CPU level that it was built for.
    pub level: Option<CpuLevel>,
    /// Why it cannot be had; `None` where it can.
    pub missing: Option<String>,
}

/// The user's kubeconfig, as far as checks look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeContexts {
    /// The file.
    pub file: String,
    /// The current context; empty where none is.
    pub current: String,
    /// All contexts, with the server of each.
    pub servers: BTreeMap<String, String>,
}

/// Everything that probes read before anything is changed.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The laptop.
    pub host: HostFacts,
    /// The engine.
    pub engine: Option<Result<EngineFacts, EngineTrouble>>,
    /// What the plan asks for.
    pub needs: Needs,
    /// Who holds which of the needed ports, in words; free ports are absent.
    pub busy_ports: BTreeMap<u16, String>,
    /// The engine's networks.
    pub networks: Asked<Vec<Network>>,
    /// Names of kind's clusters in the engine.
    pub clusters: Asked<BTreeSet<String>>,
    /// The user's kubeconfig.
    pub contexts: Asked<KubeContexts>,
    /// Environments that have a state directory.
    pub environments: Vec<String>,
    /// Those of them whose cluster is not kind's, or in another engine, so that this one cannot tell whether it is
    /// gone.
    pub elsewhere: BTreeSet<String>,
    /// Environments that have a block in the hosts file.
    pub hosts_blocks: Asked<Vec<String>>,
    /// Who holds the environment's lock, in words.
    pub lock_holder: Option<String>,
    /// How kind is had: a path, or how it will be built. `Failed` where neither is possible.
    pub kind: Asked<String>,
}
