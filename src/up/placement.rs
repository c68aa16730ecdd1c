//! Images for nodes that differ: those of most components run on every node, those of a component that allows it on the
//! nodes that the best release is for.

use std::collections::BTreeSet;

use crate::cluster::existing::Existing;
use crate::error::{ExitCode, Failure};
use crate::facts::{self, NodeGroup};
use crate::image::{Catalog, Choice, KubeRange, KubeVersion, Request, Target};
use crate::oci::Platform;
use crate::profile::{Placement, Resolved};
use crate::step::World;
use crate::up::choose;

/// What runs on every node is chosen for this.
///
/// # Errors
/// Nodes of several architectures; a server whose version is not known.
pub(super) fn everywhere(existing: &Existing) -> Result<Target, Failure> {
    let common = facts::common(&existing.nodes)?.unwrap_or_else(|| existing.common.clone());
    let platform = choose::platform(common.platform.as_deref().unwrap_or_default())?;
    Ok(Target { platform, cpu: common.level, kubernetes: version(existing)?, cgroup: None })
}

fn version(existing: &Existing) -> Result<KubeRange, Failure> {
    let unknown = || Failure::new(ExitCode::Failed, format!("the server's version {} is not known", existing.version));
    // What follows the patch number is the distribution's own.
    let version: KubeVersion =
        existing.version.split(['+', '-']).next().unwrap_or_default().parse().map_err(|_| unknown())?;
    format!("1.{}", version.minor).parse().map_err(|_| unknown())
}

/// The roles that only components use whose pods may be held to some nodes.
fn fitting(profile: &Resolved) -> BTreeSet<&String> {
    let of = |placement| {
        let components = profile.components.iter().filter(move |component| component.placement == placement);
        components.flat_map(|component| component.images.values()).collect::<BTreeSet<_>>()
    };
    &of(Placement::Fitting) - &of(Placement::Everywhere)
}

/// Chooses an image for each role of a profile on a cluster that is there.
///
/// # Errors
/// Images that cannot be had; nodes of several architectures, where a component's pods may run on any of them.
pub(super) async fn choose(
    world: &World,
    profile: &Resolved,
    existing: &Existing,
    offline: bool,
) -> Result<Vec<Choice>, Failure> {
    let (groups, fitting) = (facts::groups(&existing.nodes), fitting(profile));
    if groups.len() < 2 || fitting.is_empty() {
        return choose::choose(world, profile, &[], everywhere(existing)?, &existing.images, offline).await;
    }
    let images = world.images().map_err(Failure::from)?;
    let kubernetes = version(existing)?;
    let recorded = choose::recorded_choices(world);
    let everything = |target| choose::request(profile, &[], target, recorded.clone());
    let mut chosen = Vec::new();
    let mut first_failure = None;
    for group in &groups {
        let target = target(group, kubernetes)?;
        let mut request = everything(target)?;
        request.roles.retain(|role| fitting.contains(role));
        match images.resolve(&request, &existing.images, offline).await {
            Ok(choices) => chosen.push(choices),
            Err(error) if first_failure.is_none() => first_failure = Some(error),
            Err(_) => {}
        }
    }
    let before = recorded.iter().find(|choice| fitting.contains(&choice.role)).map(|choice| &choice.platform);
    let Some(mut choices) = best(images.catalog(), chosen, before) else {
        return Err(first_failure.map_or_else(|| Failure::new(ExitCode::Failed, "there are no nodes"), Failure::from));
    };
    let all = everything(target(&groups[0], kubernetes)?)?;
    if all.roles.iter().any(|role| !fitting.contains(role)) {
        let rest = everything(everywhere(existing)?)?;
        let rest = Request { roles: rest.roles.into_iter().filter(|role| !fitting.contains(role)).collect(), ..rest };
        choices.extend(images.resolve(&rest, &existing.images, offline).await?);
    }
    choices.sort_by_key(|choice| all.roles.iter().position(|role| *role == choice.role));
    Ok(choices)
}

fn target(group: &NodeGroup, kubernetes: KubeRange) -> Result<Target, Failure> {
    Ok(Target { platform: choose::platform(&group.platform)?, cpu: group.level, kubernetes, cgroup: None })
}

/// Of what can be had for each group what comes first in the catalog; of equals, what the larger group runs. The platform
/// of before stays as long as it can, for data does not follow pods to other nodes.
fn best(catalog: &Catalog, chosen: Vec<Vec<Choice>>, before: Option<&Platform>) -> Option<Vec<Choice>> {
    let rank = |choices: &Vec<Choice>| {
        let moves = choices.iter().any(|choice| before.is_some_and(|before| choice.platform != *before));
        let places = choices.iter().map(|choice| place(catalog, choice));
        (moves, places.fold((0, 0), |(release, image), (r, i)| (release + r, image + i)))
    };
    chosen.into_iter().min_by_key(rank)
}

/// How far down in the catalog an image is: its release, and its place there; what the user named is at the top.
fn place(catalog: &Catalog, choice: &Choice) -> (usize, usize) {
    let Some(entry) = catalog.entry(&choice.role).ok().filter(|_| !choice.named_by_user) else { return (0, 0) };
    let releases = &entry.releases;
    let at = releases.iter().position(|release| release.version == choice.version).unwrap_or(releases.len());
    let images = releases.get(at).map(|release| release.images.as_slice()).unwrap_or_default();
    let image = images.iter().position(|image| image.reference.to_string() == choice.reference);
    (at, image.unwrap_or(images.len()))
}

#[cfg(test)]
mod tests;
