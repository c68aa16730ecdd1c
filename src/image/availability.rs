//! What is where, as data: the resolver's only knowledge of the world.

use std::collections::{BTreeMap, BTreeSet};

use super::choice::{Obstacle, Source};
use super::mirror::Mirrors;
use super::reference::Reference;
use super::registry::RegistryError;
use crate::oci::{Digest, Platform};

/// What is where.
#[derive(Debug, Clone, Default)]
pub struct Availability {
    /// References that every node has.
    pub nodes: BTreeSet<String>,
    /// References in devstack's store, for the platform that is wanted.
    pub store: BTreeMap<String, Stored>,
    /// References in the engine.
    pub engine: BTreeMap<String, InEngine>,
    /// The user's mirrors.
    pub mirrors: Mirrors,
    /// What registries and mirrors answered, by what they were asked for.
    pub remote: BTreeMap<Reference, Result<Remote, RegistryError>>,
    /// Recipes and what they would make.
    pub recipes: BTreeMap<String, RecipeState>,
    /// Whether nobody outside this machine is asked.
    pub offline: bool,
}

/// An image in devstack's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The digest of its manifest.
    pub digest: Digest,
}

/// An image in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InEngine {
    /// The platforms that its content is there for.
    pub platforms: Vec<Platform>,
    /// The digests it was pulled by; empty where it was loaded or built, unless the engine's image store is containerd's.
    pub pulled_by: Vec<Digest>,
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Remote {
    /// The digest of what the reference names: an index or a manifest.
    pub digest: Digest,
    /// Bytes to fetch for the platform.
    pub bytes: u64,
}

/// A recipe and the image it makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecipeState {
    /// The reference of what it makes.
    pub reference: String,
    /// What it needs and this machine lacks, one sentence each.
    pub unmet: Vec<String>,
    /// How long it takes on two cores, where that is known.
    pub seconds: Option<u64>,
}

/// Where an image can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) source: Source,
    pub(super) digest: Option<Digest>,
    pub(super) bytes: Option<u64>,
    pub(super) why: String,
}

/// Why it cannot be had from one place.
pub(super) type Refusal = (Obstacle, String);

impl Availability {
    /// Looks in the places that need no network.
    pub(super) fn locally(
        &self,
        reference: &str,
        digest: Option<&Digest>,
        platform: &Platform,
    ) -> Result<Option<Found>, Refusal> {
        let found = |source, digest: Option<&Digest>, why: &str| {
            Ok(Some(Found { source, digest: digest.cloned(), bytes: None, why: why.to_owned() }))
        };
        if self.nodes.contains(reference) {
            return found(Source::Nodes, digest, "every node has it");
        }
        if let Some(stored) = self.store.get(reference) {
            return found(Source::Store, Some(digest.unwrap_or(&stored.digest)), "devstack's store has it");
        }
        let Some(image) = self.engine.get(reference) else { return Ok(None) };
        if !image.platforms.contains(platform) {
            let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
            let reason = match platforms.as_slice() {
                [] => "the engine has its name and no content".to_owned(),
                _ => format!("the engine's copy is for {}", platforms.join(", ")),
            };
            return Err((Obstacle::Platform, reason));
        }
        match digest {
            Some(digest) if !image.pulled_by.is_empty() && !image.pulled_by.contains(digest) => {
                Err((Obstacle::Digest, format!("the engine's copy is not {digest}")))
            }
            _ => found(Source::Engine, digest, "the engine has it"),
        }
    }

    /// The places outside this machine where an image may be, in the order they are asked.
    pub(super) fn places(&self, reference: &Reference, digest: Option<&Digest>, mirror_only: bool) -> Vec<Place> {
        let pinned = |reference: Reference| digest.map_or_else(|| reference.clone(), |digest| reference.pinned(digest));
        let mirrors =
            self.mirrors.places(reference).into_iter().map(|place| Place { pull: pinned(place), mirror: true });
        let own = (!mirror_only).then(|| Place { pull: pinned(reference.clone()), mirror: false });
        mirrors.chain(own).collect()
    }

    /// Looks at what a place answered.
    pub(super) fn at(&self, place: &Place) -> Result<Found, Refusal> {
        let host = place.pull.registry();
        match self.remote.get(&place.pull) {
            None if self.offline => Err((Obstacle::Offline, format!("{host} was not asked (offline)"))),
            None => Err((Obstacle::NotAsked, format!("{host} was not asked"))),
            Some(Err(error)) => Err((error.obstacle(), error.to_string())),
            Some(Ok(remote)) => {
                let pull = place.pull.pinned(&remote.digest);
                let kind = if place.mirror { "mirror" } else { "registry" };
                Ok(Found {
                    why: format!("the {kind} {host} has it"),
                    source: if place.mirror { Source::Mirror { pull } } else { Source::Registry { pull } },
                    digest: Some(remote.digest.clone()),
                    bytes: Some(remote.bytes),
                })
            }
        }
    }
}

/// One place outside this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// What to ask it for.
    pub(super) pull: Reference,
    /// Whether it is a mirror.
    pub(super) mirror: bool,
}
