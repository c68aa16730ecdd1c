//! Images for the roles of a profile: what is asked of the resolver, and what was chosen before.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{ExitCode, Failure};
use crate::facts::{EngineFacts, Facts};
use crate::image::{self, Choice, Source, Target};
use crate::oci::Platform;
use crate::ports::engine::{Container, KIND_CLUSTER_LABEL};
use crate::profile::Resolved;
use crate::step::World;
use crate::up::gather::NODE_ROLE;
use crate::up::kubernetes;

/// The file of what was chosen, in the environment's directory.
pub(super) const CHOICES: &str = "choices.json";

/// The platform of a cluster.
pub(super) fn platform(text: &str) -> Result<Platform, Failure> {
    text.parse().map_err(|_| Failure::new(ExitCode::Failed, format!("no images are made for {text}")))
}

/// What the images of a kind cluster will run on.
pub(super) fn target(profile: &Resolved, facts: &Facts) -> Result<Target, Failure> {
    let target = facts.target()?;
    let cgroup = facts.engine.as_ref().map(EngineFacts::cgroup).filter(|version| *version != 0);
    Ok(Target {
        platform: platform(target.platform.as_deref().unwrap_or("linux/amd64"))?,
        cpu: target.level,
        kubernetes: kubernetes::wanted(profile)?,
        cgroup,
    })
}

/// What the resolver is asked for: every role of the profile, and `more`.
pub(crate) fn request(
    profile: &Resolved,
    more: &[&str],
    target: Target,
    recorded: Vec<Choice>,
) -> Result<image::Request, Failure> {
    let mut roles: Vec<String> = more.iter().map(|role| (*role).to_owned()).collect();
    let mut named = BTreeMap::new();
    for component in &profile.components {
        for (variable, role) in &component.images {
            if !roles.contains(role) {
                roles.push(role.clone());
            }
            if let Some(reference) = component.image_overrides.get(variable) {
                named.insert(
                    role.clone(),
                    reference.parse().map_err(|error: image::NotAReference| Failure::usage(error.to_string()))?,
                );
            }
        }
    }
    Ok(image::Request { roles, target, named, recorded })
}

/// Chooses an image for each role of the profile and for `more`.
pub(super) async fn choose(
    world: &World,
    profile: &Resolved,
    more: &[&str],
    target: Target,
    on_nodes: &BTreeSet<String>,
    offline: bool,
) -> Result<Vec<Choice>, Failure> {
    let request = request(profile, more, target, recorded_choices(world))?;
    Ok(world.images().map_err(Failure::from)?.resolve(&request, on_nodes, offline).await?)
}

/// The node image and those of the workloads.
pub(super) fn split(mut choices: Vec<Choice>) -> Result<(Choice, Vec<Choice>), Failure> {
    let node = choices.iter().position(|choice| choice.role == NODE_ROLE).map(|at| choices.remove(at));
    let node = node.ok_or_else(|| Failure::new(ExitCode::Failed, "the catalog has no node image"))?;
    Ok((node, choices))
}

/// The node image of a cluster that is there: the one that it was made of, as long as the profile allows it. That the
/// catalog has a better one by now is no reason to make a cluster anew.
pub(super) fn keep_node(world: &World, chosen: Choice, there: &[Container], target: &Target) -> Choice {
    let keeps = |recorded: &Choice| {
        recorded.role == NODE_ROLE
            && recorded.named_by_user == chosen.named_by_user
            && there.iter().any(|node| recorded.is_called(&node.image))
            && recorded.makes_nodes_of(&target.kubernetes)
            && recorded.runs_on(target.cpu)
    };
    match recorded_choices(world).into_iter().find(keeps) {
        Some(recorded) => Choice { source: Source::Nodes, why: "the cluster is made of it".to_owned(), ..recorded },
        None => chosen,
    }
}

/// What an earlier `up` chose; nothing where it cannot be read, and then the choice is made again.
pub(super) fn recorded_choices(world: &World) -> Vec<Choice> {
    let text = world.ctx.fs.read(&world.dir.join(CHOICES)).ok().flatten();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What every running node has, and the image that the nodes themselves were made from.
pub(super) async fn images_on_nodes(world: &World) -> Result<BTreeSet<String>, Failure> {
    let nodes = world.engine.containers(Some(&format!("{KIND_CLUSTER_LABEL}={}", world.reserved_name()))).await?;
    let lists = nodes.iter().filter(|node| node.state == "running").map(|node| async {
        let list = world.engine.exec(&node.id, &["ctr", "-n", "k8s.io", "images", "ls", "-q"], None).await;
        list.map(|list| list.text().lines().map(str::to_owned).collect::<BTreeSet<_>>()).unwrap_or_default()
    });
    let lists = futures::future::join_all(lists).await;
    if lists.len() != nodes.len() {
        return Ok(BTreeSet::new());
    }
    let everywhere = lists.into_iter().reduce(|one, other| one.intersection(&other).cloned().collect());
    let mut images = everywhere.unwrap_or_default();
    images.extend(nodes.first().map(|node| node.image.clone()));
    Ok(images)
}
