//! What the resolver answers: per role one image, where it comes from, why, and what was passed over.

use serde::{Deserialize, Serialize};

use super::catalog::NODE;
use super::kubernetes::KubeRange;
use super::reference::Reference;
use crate::facts::CpuLevel;
use crate::oci::{Digest, Platform};

/// The image that was chosen for a role. Recorded in the environment, so that its fields are only ever added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// The role.
    pub role: String,
    /// The release's version; of an image that the user named, its tag.
    pub version: String,
    /// The image's name on the nodes and in manifests, without a digest.
    pub reference: String,
    /// What the registry's answer or the catalog pins it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// The platform.
    pub platform: Platform,
    /// The lowest CPU level it runs on (of `amd64`).
    pub cpu: CpuLevel,
    /// Where it comes from.
    pub source: Source,
    /// The variant of the component's manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifests: Option<String>,
    /// Why this one, in one line.
    pub why: String,
    /// What was passed over, in the order it was looked at.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// Whether it stands in for upstream's program, which needs consent.
    #[serde(default)]
    pub substitute: bool,
    /// Whether the user named this image.
    #[serde(default)]
    pub named_by_user: bool,
    /// What a person should know about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Bytes to fetch, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download_bytes: Option<u64>,
    /// Seconds that building it takes on two cores, where it is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_seconds: Option<u64>,
}

impl Choice {
    /// Whether it runs on a CPU of this level; of an unknown one only what runs on all is sure to.
    pub fn runs_on(&self, cpu: Option<CpuLevel>) -> bool {
        self.platform.architecture != "amd64" || self.cpu <= cpu.unwrap_or(CpuLevel::V1)
    }

    /// Whether nodes of it are of one of these versions; of what is no node image, and of one that the user named, that
    /// is not asked.
    pub fn makes_nodes_of(&self, kubernetes: &KubeRange) -> bool {
        self.role != NODE
            || self.named_by_user
            || self.version.parse().is_ok_and(|version| kubernetes.contains(version))
    }

    /// Whether this is the recorded choice. Where the image is seen to be at the moment, and what that costs, is not
    /// part of it: after an `up` every node has what was fetched before.
    pub fn is_still(&self, recorded: &Self) -> bool {
        let Self { source, why, download_bytes, expect_seconds, .. } = recorded.clone();
        Self { source, why, download_bytes, expect_seconds, ..self.clone() } == *recorded
    }
}

/// Where an image comes from, nearest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Source {
    /// Every node has it.
    Nodes,
    /// devstack's own store: fetched, built or taken from a bundle earlier.
    Store,
    /// The container engine.
    Engine,
    /// A mirror that the user configured.
    Mirror {
        /// What to pull, pinned to the digest that the mirror answered.
        pull: Reference,
    },
    /// The registry that its name says.
    Registry {
        /// What to pull, pinned to the digest that the registry answered.
        pull: Reference,
    },
    /// A build from source.
    Build {
        /// The recipe.
        recipe: String,
    },
}

impl Source {
    /// The source in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Store => "store",
            Self::Engine => "engine",
            Self::Mirror { .. } => "mirror",
            Self::Registry { .. } => "registry",
            Self::Build { .. } => "build",
        }
    }
}

/// A candidate that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The image, or `recipe NAME`.
    pub reference: String,
    /// The release it belongs to.
    pub version: String,
    /// The kind of reason, for programs.
    pub kind: Obstacle,
    /// The reason, for people.
    pub reason: String,
}

/// Why a candidate cannot be taken, as a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// Not made for the platform.
    Platform,
    /// Needs a newer CPU.
    Cpu,
    /// Not for this Kubernetes version.
    Kubernetes,
    /// Needs another cgroup version.
    Cgroup,
    /// Only a mirror could have it, and none is configured.
    MirrorOnly,
    /// No registry was asked, as the user wished.
    Offline,
    /// It was not asked, because something before it could be had.
    NotAsked,
    /// The registry does not have it.
    NotFound,
    /// The registry does not let us have it; a deleted repository answers the same.
    Unauthorized,
    /// The registry wants us to come back later.
    RateLimited,
    /// The registry cannot be reached.
    Unreachable,
    /// The registry did not answer in time.
    Slow,
    /// The content is not what its digest promises.
    Digest,
    /// The registry does not speak the protocol, or broke off.
    Protocol,
    /// What its build needs is missing here.
    BuildNeeds,
    /// Another role of its group cannot be had in this version.
    Group,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_the_recorded_one_wherever_its_image_is_by_now() {
        let reference: Reference = "docker.io/minio/minio:v1".parse().unwrap();
        let recorded = Choice {
            role: "minio".to_owned(),
            version: "v1".to_owned(),
            reference: reference.to_string(),
            digest: None,
            platform: Platform::linux("amd64"),
            cpu: CpuLevel::V1,
            source: Source::Registry { pull: reference },
            manifests: None,
            why: "the newest".to_owned(),
            rejected: Vec::new(),
            substitute: false,
            named_by_user: false,
            note: None,
            download_bytes: Some(60 << 20),
            expect_seconds: None,
        };
        let now = Choice {
            source: Source::Nodes,
            why: "chosen before, and every node has it".to_owned(),
            download_bytes: None,
            ..recorded.clone()
        };
        assert!(now.is_still(&recorded));
        assert!(!Choice { version: "v2".to_owned(), ..now.clone() }.is_still(&recorded));
        assert!(!Choice { named_by_user: true, ..now }.is_still(&recorded));
    }
}
