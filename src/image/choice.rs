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
    /// The image's name on the nodes and in manifests; with a digest only where the user pinned it.
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
    /// The names that an engine may have it by, the plain one first. Where that leads to another image, as for somebody
    /// who pulled another build of the tag, the digest tells them apart.
    pub fn names(&self) -> Vec<String> {
        let pull = match &self.source {
            Source::Mirror { pull } | Source::Registry { pull } => Some(pull.on_nodes()),
            _ => None,
        };
        let pinned = self.digest.as_ref().zip(self.reference.parse::<Reference>().ok());
        let pinned = pinned.map(|(digest, reference)| reference.by_digest(digest));
        let mut names = vec![self.reference.clone()];
        for name in pinned.into_iter().chain(pull).map(|name| name.to_string()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether a container that was made of this name was made of it.
    pub fn is_called(&self, name: &str) -> bool {
        name == self.reference || self.digest.as_ref().is_some_and(|digest| name.ends_with(&format!("@{digest}")))
    }

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

    /// Whether this is the recorded choice. Where the image is seen to be at the moment, what that costs and what was
    /// looked at before it is not part of it: after an `up` every node has what was fetched before, and nobody is asked
    /// for what nodes have.
    pub fn is_still(&self, recorded: &Self) -> bool {
        let Self { source, why, rejected, download_bytes, expect_seconds, .. } = recorded.clone();
        // A registry pins an index, the store the manifest of one platform, and nodes tell nothing.
        let elsewhere = self.source.word() != recorded.source.word();
        let digest = if elsewhere { recorded.digest.clone() } else { self.digest.clone() };
        Self { source, why, rejected, digest, download_bytes, expect_seconds, ..self.clone() } == *recorded
    }

    /// What is recorded of choices after others: each that is still the recorded one stays as it is, for where it came
    /// from is not seen any more. That nodes had it is no place to get it from, and gives way to one.
    pub fn record<'a>(chosen: impl Iterator<Item = &'a Self>, recorded: &[Self]) -> Vec<Self> {
        let of = |choice: &Self| {
            let known = recorded.iter().find(|known| known.role == choice.role);
            let known = known.filter(|known| choice.is_still(known));
            known.filter(|known| known.source != Source::Nodes).unwrap_or(choice).clone()
        };
        chosen.map(of).collect()
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

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    fn fetched(role: &str) -> Choice {
        let reference = reference(&format!("docker.io/{role}/{role}:v1"));
        Choice {
            role: role.to_owned(),
            version: "v1".to_owned(),
            reference: reference.to_string(),
            digest: Some(Digest::of(b"index")),
            platform: Platform::linux("amd64"),
            cpu: CpuLevel::V1,
            source: Source::Registry { pull: reference },
            manifests: None,
            why: "the newest".to_owned(),
            rejected: vec![Rejected {
                reference: "docker.io/gone:v2".to_owned(),
                version: "v2".to_owned(),
                kind: Obstacle::NotFound,
                reason: "docker.io does not have it".to_owned(),
            }],
            substitute: false,
            named_by_user: false,
            note: None,
            download_bytes: Some(60 << 20),
            expect_seconds: None,
        }
    }

    /// The same image as the resolver finds it on nodes that have it.
    fn on_nodes(role: &str) -> Choice {
        Choice {
            source: Source::Nodes,
            digest: None,
            why: "chosen before, and every node has it".to_owned(),
            rejected: Vec::new(),
            download_bytes: None,
            ..fetched(role)
        }
    }

    #[test]
    fn a_choice_is_the_recorded_one_wherever_its_image_is_by_now() {
        let (recorded, now) = (fetched("minio"), on_nodes("minio"));
        assert!(now.is_still(&recorded));
        assert!(!Choice { version: "v2".to_owned(), ..now.clone() }.is_still(&recorded));
        assert!(!Choice { named_by_user: true, ..now.clone() }.is_still(&recorded));
        let stored = Choice { source: Source::Store, digest: Some(Digest::of(b"manifest")), ..now };
        assert!(stored.is_still(&recorded));
        // The registry means another image by the same name.
        let moved = Choice { digest: Some(Digest::of(b"other")), ..recorded.clone() };
        assert!(!moved.is_still(&recorded));
    }

    #[test]
    fn a_new_role_or_version_leaves_the_record_of_the_others() {
        let recorded = [fetched("minio"), fetched("traefik")];
        let newer = Choice { version: "v2".to_owned(), ..fetched("s3www") };
        let now = [on_nodes("minio"), on_nodes("traefik"), newer.clone()];
        let record = Choice::record(now.iter(), &recorded);
        assert_eq!(record, [fetched("minio"), fetched("traefik"), newer.clone()]);
        // What is not asked for any more is forgotten, and what changed is told as it is.
        let changed = Choice { version: "v2".to_owned(), ..on_nodes("traefik") };
        let now = [changed.clone(), newer.clone()];
        assert_eq!(Choice::record(now.iter(), &record), [changed, newer]);
    }

    #[test]
    fn a_place_to_get_it_from_is_worth_more_than_that_nodes_had_it() {
        let recorded = [on_nodes("minio")];
        let now = [fetched("minio")];
        assert_eq!(Choice::record(now.iter(), &recorded), now);
        assert_eq!(Choice::record(recorded.iter(), &now), now);
    }
}
