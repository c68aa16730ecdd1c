//! The resolver: role × platform × CPU level × Kubernetes × what is where → one image a role. Pure.
//!
//! The catalog's order decides which release is taken; where a release can be had from several places, the nearest is:
//! nodes, store, engine, mirrors, registry, build. Equal questions get equal answers.

use super::availability::{Availability, Found, Refusal};
use super::candidate::{Candidate, Request, Unit, What, candidates, units};
use super::catalog::{Catalog, CatalogError};
use super::choice::{Choice, Obstacle, Rejected, Source};
use super::kubernetes::KubeRange;

const CANNOT_BUILD: &str = "it cannot be built here: ";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolvable {
    /// The catalog has no such role, or is broken.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// For these roles nothing can be had.
    #[error("no image can be had for {}", .0.iter().map(|role| role.role.as_str()).collect::<Vec<_>>().join(", "))]
    Roles(Vec<UnresolvedRole>),
}

/// A role for which nothing can be had.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UnresolvedRole {
    /// The role.
    pub role: String,
    /// All that was looked at.
    pub rejected: Vec<Rejected>,
}

impl Unresolvable {
    /// The next step: what would make a candidate obtainable.
    pub fn hint(&self) -> Option<String> {
        let Self::Roles(roles) = self else { return None };
        let kinds: Vec<Obstacle> = roles.iter().flat_map(|role| &role.rejected).map(|rejected| rejected.kind).collect();
        let has = |kind| kinds.contains(&kind);
        let mut cures = Vec::new();
        let needs: Vec<&str> = roles
            .iter()
            .flat_map(|role| &role.rejected)
            .filter(|rejected| rejected.kind == Obstacle::BuildNeeds)
            .map(|rejected| rejected.reason.strip_prefix(CANNOT_BUILD).unwrap_or(&rejected.reason))
            .collect();
        if let Some(need) = needs.first() {
            cures.push(format!("provide what the build needs ({need})"));
        }
        if has(Obstacle::Offline) {
            cures.push("run it again without --offline".to_owned());
        }
        if has(Obstacle::RateLimited) {
            cures.push("wait, or `docker login` for a higher limit".to_owned());
        }
        if has(Obstacle::Unreachable) || has(Obstacle::Slow) {
            cures.push("connect this machine, or load a bundle: devstack bundle load FILE".to_owned());
        }
        if has(Obstacle::MirrorOnly) || has(Obstacle::Unreachable) {
            cures.push("name a mirror: DEVSTACK_MIRROR=HOST[/PREFIX]".to_owned());
        }
        cures.push("name an image yourself: --set COMPONENT.image=REFERENCE".to_owned());
        Some(cures.join("; or "))
    }
}

/// Chooses an image for each role, in the order the roles were asked for.
///
/// # Errors
/// [`Unresolvable`], with every candidate and its reason.
pub fn resolve(catalog: &Catalog, request: &Request, availability: &Availability) -> Result<Vec<Choice>, Unresolvable> {
    let mut kubernetes = request.target.kubernetes;
    let mut chosen: Vec<Choice> = Vec::new();
    let mut unresolved = Vec::new();
    for unit in units(catalog, request)? {
        match resolve_unit(&unit, request, &kubernetes, availability) {
            Ok(choices) => {
                if unit.is_node()
                    && let Some(version) = choices.first().and_then(|choice| choice.version.parse().ok())
                {
                    kubernetes = KubeRange::only(version);
                }
                chosen.extend(choices);
            }
            Err(roles) => unresolved.extend(roles),
        }
    }
    if !unresolved.is_empty() {
        return Err(Unresolvable::Roles(unresolved));
    }
    let place = |choice: &Choice| request.roles.iter().position(|role| *role == choice.role);
    chosen.sort_by_key(place);
    Ok(chosen)
}

/// Gives the recorded choices again where every node has them and they are what is asked for now; nobody is asked.
pub fn keep_recorded(request: &Request, nodes: &std::collections::BTreeSet<String>) -> Option<Vec<Choice>> {
    let keep = |role: &String| {
        let recorded = request.recorded.iter().find(|choice| choice.role == *role)?;
        let same_name = match request.named.get(role) {
            Some(named) => recorded.named_by_user && named.on_nodes().to_string() == recorded.reference,
            None => !recorded.named_by_user,
        };
        let fits = same_name
            && recorded.platform == request.target.platform
            && recorded.runs_on(request.target.cpu)
            && recorded.makes_nodes_of(&request.target.kubernetes)
            && nodes.iter().any(|name| recorded.is_called(name));
        let why = "chosen before, and every node has it".to_owned();
        fits.then(|| Choice {
            source: Source::Nodes,
            why,
            download_bytes: None,
            expect_seconds: None,
            ..recorded.clone()
        })
    };
    request.roles.iter().map(keep).collect()
}

fn resolve_unit(
    unit: &Unit<'_>,
    request: &Request,
    kubernetes: &KubeRange,
    availability: &Availability,
) -> Result<Vec<Choice>, Vec<UnresolvedRole>> {
    let mut rejected: Vec<Vec<Rejected>> = vec![Vec::new(); unit.entries.len()];
    for version in unit.versions(request) {
        let picks: Vec<Result<(Candidate, String, Found), String>> = unit
            .entries
            .iter()
            .zip(&mut rejected)
            .map(|(entry, rejected)| {
                let offered = candidates(entry, &version, request, kubernetes);
                pick(&offered, request, availability, rejected).ok_or_else(|| entry.role.clone())
            })
            .collect();
        let missing: Vec<String> = picks.iter().filter_map(|pick| pick.as_ref().err().cloned()).collect();
        if missing.is_empty() {
            let picks = picks.into_iter().filter_map(Result::ok);
            let parts = unit.entries.iter().zip(picks).zip(rejected);
            return Ok(parts
                .map(|((entry, pick), rejected)| choice(&entry.role, pick, rejected, request, availability))
                .collect());
        }
        for (pick, rejected) in picks.into_iter().zip(&mut rejected) {
            if let Ok((candidate, ..)) = pick {
                let reason = format!("{} cannot be had in this version", missing.join(", "));
                rejected.push(reject(&candidate, Obstacle::Group, reason));
            }
        }
        // What the user named is the same in every version; asking again would only repeat its reasons.
        if unit.entries.iter().all(|entry| request.named.contains_key(&entry.role)) {
            break;
        }
    }
    let roles = unit.entries.iter().zip(rejected);
    Err(roles.map(|(entry, rejected)| UnresolvedRole { role: entry.role.clone(), rejected }).collect())
}

/// Takes the first candidate that can be had; the reasons of those before it are added to `rejected`.
fn pick(
    offered: &[Candidate],
    request: &Request,
    availability: &Availability,
    rejected: &mut Vec<Rejected>,
) -> Option<(Candidate, String, Found)> {
    for candidate in offered {
        if let Some((kind, reason)) = &candidate.obstacle {
            rejected.push(reject(candidate, *kind, reason.clone()));
            continue;
        }
        match find(candidate, request, availability) {
            Ok((reference, found)) => return Some((candidate.clone(), reference, found)),
            Err(refusals) => {
                rejected.extend(refusals.into_iter().map(|(kind, reason)| reject(candidate, kind, reason)));
            }
        }
    }
    None
}

/// Where a candidate can be had, nearest first; else the reason of each place.
fn find(
    candidate: &Candidate,
    request: &Request,
    availability: &Availability,
) -> Result<(String, Found), Vec<Refusal>> {
    let platform = &request.target.platform;
    let mut refusals = Vec::new();
    match &candidate.what {
        What::Image { reference, digest } => {
            let name = reference.to_string();
            match availability.locally(&name, digest.as_ref(), platform) {
                Ok(Some(found)) => return Ok((name, found)),
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
            for place in availability.places(reference, digest.as_ref(), candidate.mirror_only) {
                match availability.at(&place) {
                    Ok(found) => return Ok((name, found)),
                    Err(refusal) => refusals.push(refusal),
                }
            }
            if candidate.mirror_only && availability.mirrors.places(reference).is_empty() {
                let reason = "its registry has deleted it, and no mirror is configured".to_owned();
                refusals.push((Obstacle::MirrorOnly, reason));
            }
        }
        What::Recipe(recipe) => {
            let Some(state) = availability.recipes.get(recipe) else {
                return Err(vec![(Obstacle::BuildNeeds, "this devstack has no such recipe".to_owned())]);
            };
            let name = state.reference.clone();
            match availability.locally(&name, None, platform) {
                Ok(Some(found)) => {
                    let why = format!("built from source earlier, {}", found.why);
                    return Ok((name, Found { why, ..found }));
                }
                Ok(None) => {}
                Err(refusal) => refusals.push(refusal),
            }
            if availability.offline {
                let reason = "it is not built yet, and a build fetches sources (offline)".to_owned();
                refusals.push((Obstacle::Offline, reason));
            } else if state.unmet.is_empty() {
                let source = Source::Build { recipe: recipe.clone() };
                let why = "it can be built from source here".to_owned();
                return Ok((name, Found { source, digest: None, bytes: None, why }));
            } else {
                refusals.push((Obstacle::BuildNeeds, format!("{CANNOT_BUILD}{}", state.unmet.join("; "))));
            }
        }
    }
    Err(refusals)
}

fn reject(candidate: &Candidate, kind: Obstacle, reason: String) -> Rejected {
    Rejected { reference: candidate.label(), version: candidate.version.clone(), kind, reason }
}

fn choice(
    role: &str,
    (candidate, reference, found): (Candidate, String, Found),
    rejected: Vec<Rejected>,
    request: &Request,
    availability: &Availability,
) -> Choice {
    let expect_seconds = match &found.source {
        Source::Build { recipe } => availability.recipes.get(recipe).and_then(|state| state.seconds),
        _ => None,
    };
    let kept = request.recorded.iter().any(|recorded| recorded.role == role && recorded.reference == reference);
    let why = match (candidate.named_by_user, kept) {
        (true, _) => format!("you named it, and {}", found.why),
        (false, true) => format!("chosen before, and {}", found.why),
        (false, false) => found.why,
    };
    Choice {
        role: role.to_owned(),
        version: candidate.version,
        reference,
        digest: found.digest,
        platform: request.target.platform.clone(),
        cpu: candidate.cpu,
        source: found.source,
        manifests: candidate.manifests,
        why,
        rejected,
        substitute: candidate.substitute,
        named_by_user: candidate.named_by_user,
        note: candidate.note,
        download_bytes: found.bytes,
        expect_seconds,
    }
}

#[cfg(test)]
mod tests;
