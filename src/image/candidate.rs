//! Candidates: what the catalog or the user offers for a role, before anybody is asked.

use std::collections::BTreeMap;

use super::catalog::{Catalog, CatalogError, Entry, NODE, Release};
use super::choice::{Choice, Obstacle};
use super::kubernetes::{KubeRange, KubeVersion};
use super::reference::Reference;
use crate::facts::CpuLevel;
use crate::oci::{Digest, Platform};

/// What images are chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The nodes' platform.
    pub platform: Platform,
    /// The nodes' CPU level; unknown means that only what runs on every CPU is sure to run.
    pub cpu: Option<CpuLevel>,
    /// The Kubernetes versions that will do.
    pub kubernetes: KubeRange,
    /// The engine's cgroup version; unknown means that only what runs on both is sure to run.
    pub cgroup: Option<u8>,
}

/// What is asked of the resolver.
#[derive(Debug, Clone)]
pub struct Request {
    /// The roles, each once.
    pub roles: Vec<String>,
    /// What they are chosen for.
    pub target: Target,
    /// Images that the user named for roles; nothing else is taken for these.
    pub named: BTreeMap<String, Reference>,
    /// What was chosen before; it is kept where it can still be had.
    pub recorded: Vec<Choice>,
}

/// What can be taken for a role.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) version: String,
    pub(super) what: What,
    pub(super) cpu: CpuLevel,
    pub(super) manifests: Option<String>,
    pub(super) mirror_only: bool,
    pub(super) substitute: bool,
    pub(super) named_by_user: bool,
    pub(super) note: Option<String>,
    /// Why it is out whatever registries say.
    pub(super) obstacle: Option<(Obstacle, String)>,
}

/// An image or a recipe.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// An image by name.
    Image { reference: Reference, digest: Option<Digest> },
    /// A recipe by name.
    Recipe(String),
}

impl Candidate {
    /// How it is named to a person.
    pub(super) fn label(&self) -> String {
        match &self.what {
            What::Image { reference, .. } => reference.to_string(),
            What::Recipe(recipe) => format!("recipe {recipe}"),
        }
    }
}

/// Roles that are taken in one version.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    pub(super) entries: Vec<&'a Entry>,
}

impl Unit<'_> {
    /// Whether it is the nodes, whose version the others must work with.
    pub(super) fn is_node(&self) -> bool {
        self.entries.iter().any(|entry| entry.role == NODE)
    }

    /// The versions that every role has, best first; one chosen before comes first.
    pub(super) fn versions(&self, request: &Request) -> Vec<String> {
        let Some((first, rest)) = self.entries.split_first() else { return Vec::new() };
        let all_have = |version: &str| rest.iter().all(|entry| entry.release(version).is_some());
        let mut versions: Vec<String> = first.releases.iter().map(|release| release.version.clone()).collect();
        versions.retain(|version| all_have(version));
        let recorded = request.recorded.iter().find(|choice| choice.role == first.role);
        if let Some(at) = recorded.and_then(|choice| versions.iter().position(|version| *version == choice.version)) {
            versions[..=at].rotate_right(1);
        }
        versions
    }
}

/// Cuts the roles of a request into units, the nodes first.
pub(super) fn units<'a>(catalog: &'a Catalog, request: &Request) -> Result<Vec<Unit<'a>>, CatalogError> {
    let mut units: Vec<Unit<'a>> = Vec::new();
    for role in &request.roles {
        let entry = catalog.entry(role)?;
        let same_group =
            |unit: &&mut Unit<'_>| entry.group.is_some() && unit.entries.iter().any(|other| other.group == entry.group);
        match units.iter_mut().find(same_group) {
            Some(unit) => unit.entries.push(entry),
            None => units.push(Unit { entries: vec![entry] }),
        }
    }
    units.sort_by_key(|unit| !unit.is_node());
    Ok(units)
}

/// What a role can take in one version, best first. `kubernetes` is the version of the nodes, or the range it will be in.
pub(super) fn candidates(entry: &Entry, version: &str, request: &Request, kubernetes: &KubeRange) -> Vec<Candidate> {
    let Some(release) = entry.release(version) else { return Vec::new() };
    let of_release = |what, cpu, obstacle| Candidate {
        version: release.version.clone(),
        what,
        cpu,
        manifests: release.manifests.clone(),
        mirror_only: release.mirror_only,
        substitute: release.substitute,
        named_by_user: false,
        note: release.note.clone(),
        obstacle,
    };
    if let Some(reference) = request.named.get(&entry.role) {
        let what = What::Image { reference: reference.on_nodes(), digest: reference.digest().cloned() };
        return vec![Candidate {
            version: reference.tag().map_or_else(|| reference.version(), str::to_owned),
            mirror_only: false,
            substitute: false,
            named_by_user: true,
            note: None,
            ..of_release(what, CpuLevel::V1, None)
        }];
    }
    let target = &request.target;
    let common = release_obstacle(entry, release, target, kubernetes);
    let images = release.images.iter().map(|image| {
        let obstacle = common
            .clone()
            .or_else(|| platform_obstacle(&image.platforms, &target.platform))
            .or_else(|| cpu_obstacle(image.cpu, target));
        let what = What::Image { reference: image.reference.clone(), digest: image.digest.clone() };
        of_release(what, image.cpu, obstacle)
    });
    let builds = release.build.iter().map(|build| {
        let obstacle = common.clone().or_else(|| platform_obstacle(&build.platforms, &target.platform));
        of_release(What::Recipe(build.recipe.clone()), CpuLevel::V1, obstacle)
    });
    let mut all: Vec<Candidate> = images.chain(builds).collect();
    let recorded = request.recorded.iter().find(|choice| choice.role == entry.role);
    if let Some(recorded) = recorded {
        let is_recorded = |candidate: &Candidate| match &candidate.what {
            What::Image { reference, .. } => reference.to_string() == recorded.reference,
            What::Recipe(_) => false,
        };
        all.sort_by_key(|candidate| !is_recorded(candidate));
    }
    all
}

fn release_obstacle(
    entry: &Entry,
    release: &Release,
    target: &Target,
    kubernetes: &KubeRange,
) -> Option<(Obstacle, String)> {
    if entry.role == NODE {
        let version: KubeVersion = release.node_version().ok()?;
        if !kubernetes.contains(version) {
            return Some((Obstacle::Kubernetes, format!("Kubernetes {kubernetes} is wanted")));
        }
    } else if let Some(range) = &release.kubernetes
        && !range.meets(kubernetes)
    {
        return Some((Obstacle::Kubernetes, format!("it works with Kubernetes {range}, not {kubernetes}")));
    }
    match (release.cgroup, target.cgroup) {
        (Some(needed), Some(have)) if needed != have => {
            Some((Obstacle::Cgroup, format!("it needs cgroup v{needed}, the engine has v{have}")))
        }
        (Some(needed), None) => {
            Some((Obstacle::Cgroup, format!("it needs cgroup v{needed}, and the engine's version is not known")))
        }
        _ => None,
    }
}

fn platform_obstacle(platforms: &[Platform], wanted: &Platform) -> Option<(Obstacle, String)> {
    (!platforms.contains(wanted)).then(|| {
        let has: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        (Obstacle::Platform, format!("it is for {}, not {wanted}", has.join(", ")))
    })
}

fn cpu_obstacle(needed: CpuLevel, target: &Target) -> Option<(Obstacle, String)> {
    if target.platform.architecture != "amd64" || needed <= target.cpu.unwrap_or(CpuLevel::V1) {
        return None;
    }
    Some(match target.cpu {
        Some(level) => (Obstacle::Cpu, format!("it needs a CPU of level {needed}, this one has {level}")),
        None => (Obstacle::Cpu, format!("it needs a CPU of level {needed}, and the level here is not known")),
    })
}
