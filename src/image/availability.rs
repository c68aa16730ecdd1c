//! What is where, as data: the resolver's only knowledge of the world.

use std::collections::{BTreeMap, BTreeSet};

use super::choice::{Obstacle, Source};
use super::mirror::Mirrors;
use super::reference::Reference;
use super::registry::RegistryError;
use crate::oci::{Digest, Platform};
use crate::ports::engine::EngineImage;

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
    /// The digest it was pulled by, of an index or a manifest; of what was built, or loaded from elsewhere, none is known.
    pub pulled_by: Option<Digest>,
}

/// An image in the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InEngine {
    /// The platforms that its content is there for.
    pub platforms: Vec<Platform>,
    /// The digests it was pulled by; empty where it was loaded or built, unless the engine's image store is containerd's.
    pub pulled_by: Vec<Digest>,
}

impl InEngine {
    /// What the engine tells of an image.
    pub(super) fn of(image: &EngineImage) -> Self {
        Self {
            platforms: image.platforms.iter().filter_map(|platform| platform.parse().ok()).collect(),
            pulled_by: image.repo_digests.iter().filter_map(|text| text.rsplit_once('@')?.1.parse().ok()).collect(),
        }
    }

    /// Whether nothing speaks against its being what this digest names.
    pub(super) fn may_be(&self, digest: &Digest) -> bool {
        self.pulled_by.is_empty() || self.pulled_by.contains(digest)
    }
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
            let said = digest.filter(|digest| reference.ends_with(&digest.to_string()));
            return found(Source::Nodes, said, "every node has it");
        }
        let mut refusal = None;
        if let Some(stored) = self.store.get(reference) {
            match (digest, &stored.pulled_by) {
                (Some(wanted), Some(known)) if wanted != known && *wanted != stored.digest => {
                    refusal = Some((Obstacle::Digest, format!("the store's copy is not {wanted}")));
                }
                (_, known) => {
                    return found(
                        Source::Store,
                        Some(known.as_ref().unwrap_or(&stored.digest)),
                        "devstack's store has it",
                    );
                }
            }
        }
        match self.in_engine(reference, digest, platform) {
            Ok(true) => {
                let known = |digest: &&Digest| self.engine.values().any(|image| image.pulled_by.contains(digest));
                found(Source::Engine, digest.filter(known), "the engine has it")
            }
            Ok(false) => refusal.map_or(Ok(None), Err),
            Err(other) => Err(refusal.unwrap_or(other)),
        }
    }

    /// Whether the engine has it, by its name or by its digest. One that was loaded rather than pulled has no digest, and
    /// its name is believed.
    fn in_engine(&self, reference: &str, digest: Option<&Digest>, platform: &Platform) -> Result<bool, Refusal> {
        let pinned = digest.zip(reference.parse::<Reference>().ok());
        let pinned = pinned.map(|(digest, reference)| reference.by_digest(digest).to_string());
        let mut refusal = None;
        for image in [Some(reference), pinned.as_deref()].into_iter().flatten().filter_map(|name| self.engine.get(name))
        {
            if !image.platforms.contains(platform) {
                let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
                let reason = match platforms.as_slice() {
                    [] => "the engine has its name and no content".to_owned(),
                    _ => format!("the engine's copy is for {}", platforms.join(", ")),
                };
                refusal.get_or_insert((Obstacle::Platform, reason));
            } else if let Some(digest) = digest.filter(|digest| !image.may_be(digest)) {
                refusal.get_or_insert((Obstacle::Digest, format!("the engine's copy is not {digest}")));
            } else {
                return Ok(true);
            }
        }
        refusal.map_or(Ok(false), Err)
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
