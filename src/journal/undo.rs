//! What takes a change back. A closed set, frozen in its serialised form: it knows no steps, so that `down` needs
//! neither profile nor plan, and a newer devstack undoes what an older one did.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::access::limits::Limit;
use crate::ports::kube::ObjectKey;

/// One thing to take back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "kebab-case")]
pub enum Undo {
    /// Remove an engine network.
    EngineNetwork {
        /// Its name, of the reserved kind `devstack-ENV`.
        name: String,
    },
    /// Remove the node containers of a kind cluster, with their volumes.
    KindCluster {
        /// kind's name of the cluster, of the reserved kind `devstack-ENV`.
        name: String,
    },
    /// Delete a minikube profile.
    MinikubeCluster {
        /// minikube's name of the profile, of the reserved kind `devstack-ENV`.
        name: String,
    },
    /// Take a context, its cluster and its user out of a kubeconfig file.
    KubeContext {
        /// The file.
        file: PathBuf,
        /// The context's name, of the reserved kind `devstack-ENV`.
        name: String,
    },
    /// Take the environment's block out of the hosts file.
    HostsBlock {
        /// The file.
        file: PathBuf,
        /// The environment's name.
        environment: String,
    },
    /// Remove a file that devstack made.
    File {
        /// The file.
        path: PathBuf,
    },
    /// Delete objects that devstack made in a cluster that is not its own.
    KubeObjects {
        /// The kubeconfig file.
        kubeconfig: PathBuf,
        /// The context.
        context: String,
        /// Each object, and its UID where it is known. An object with another UID is somebody else's and stays.
        objects: Vec<(ObjectKey, Option<String>)>,
    },
    /// Give a limit of the kernel the value back that it had, where it still has the one that devstack set.
    KernelLimit {
        /// The limit.
        limit: Limit,
        /// What it was.
        before: u64,
        /// What devstack set.
        raised: u64,
    },
}

impl Undo {
    /// Whether it takes back a cluster of devstack's own, or the network that it is on.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::KindCluster { .. } | Self::MinikubeCluster { .. } | Self::EngineNetwork { .. })
    }
}

impl std::fmt::Display for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EngineNetwork { name } => write!(f, "network {name}"),
            Self::KindCluster { name } => write!(f, "kind cluster {name}"),
            Self::MinikubeCluster { name } => write!(f, "minikube profile {name}"),
            Self::KubeContext { name, .. } => write!(f, "kubeconfig context {name}"),
            Self::HostsBlock { environment, .. } => write!(f, "hosts lines of {environment}"),
            Self::File { path } => write!(f, "file {}", path.display()),
            Self::KubeObjects { objects, .. } => match objects.as_slice() {
                [(only, _)] => write!(f, "{only} in the cluster"),
                several => write!(f, "{} objects in the cluster", several.len()),
            },
            Self::KernelLimit { limit, before, .. } => write!(f, "kernel limit {limit}, back to {before}"),
        }
    }
}
