//! Everything that is read of a cluster that devstack did not make, before anything is changed there.

use crate::access::hosts;
use crate::access::kubeconfig;
use crate::cluster::ClusterFacts;
use crate::cluster::existing::Existing;
use crate::cluster::registry;
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::facts::{EngineFacts, Facts, HostFacts, Machine};
use crate::image::{Choice, Images, Limits, Source};
use crate::journal::Opened;
use crate::plan::{Delivery, Shared, Via};
use crate::ports::kube::KubeError;
use crate::profile::Resolved;
use crate::secrets;
use crate::step::World;
use crate::up::gather::{Gathered, Settled, load, sites};
use crate::up::{Desired, choose, kubernetes, placement};

/// Reads the cluster behind a context of the user's kubeconfig.
///
/// # Errors
/// No such context, a server that does not answer, another cluster than the environment's, images that nodes cannot
/// get.
pub(super) async fn gather(
    ctx: &Context,
    desired: &Desired,
    settled: Settled,
    world: World,
    opened: Option<&Opened>,
) -> Result<Gathered, Failure> {
    let wanted = desired.context.as_deref().or_else(|| opened?.context.as_deref());
    let lost = |failure: Failure| match opened {
        Some(_) => failure.hint(format!(
            "where that cluster is gone for good: devstack down --env {} --forget-cluster",
            world.environment
        )),
        None => failure,
    };
    let extracted = kubeconfig::extract(&*ctx.fs, &ctx.user_kubeconfigs(), wanted, &world.reserved_name());
    let extracted = extracted.map_err(|error| lost(error.into()))?;
    match world.connect(&extracted.text).await {
        Err(error @ KubeError::OtherCluster { .. }) => return Err(error.into()),
        other => other.map_err(|error| lost(error.into()))?,
    }
    let existing = Existing::read(&*world.kube()?, &extracted.context, &extracted.text).await?;
    let profile = load(ctx, &settled, &ClusterFacts::existing(&existing))?;
    labels(&profile)?;
    volumes(&profile, &settled, &existing)?;
    kubernetes::refuse(&profile, &existing.version, "choose a cluster of another version: --context CONTEXT")?;
    let machine = Machine::ask(&[("cache", &ctx.dirs.cache), ("state", &ctx.dirs.state)]);
    // An engine is of use where it has images, and is not missed otherwise.
    let (host, info) = tokio::join!(HostFacts::read(machine, &*ctx.fs, &*world.runner), world.engine.info());
    let engine = info.ok().map(|info| EngineFacts::of(info, &host));
    let images =
        Images::open(ctx, engine.is_some().then(|| world.engine.clone()), world.runner.clone(), Limits::default())?;
    let facts = Facts { source: None, host, engine, nodes: existing.nodes.clone() };
    let world = world.with_images(images);
    let recorded = choose::recorded_choices(&world);
    let choices = placement::choose(&world, &profile, &existing, desired.offline).await?;
    let brought: Vec<Choice> = choices.iter().filter(|choice| is_brought(choice, &recorded)).cloned().collect();
    let delivery = match brought.is_empty() {
        true => None,
        false => Some(Delivery { via: via(&world, &existing, desired.offline, &recorded).await?, choices: brought }),
    };
    let instance = match opened.and_then(|opened| opened.instance.clone()) {
        Some(instance) => instance,
        None => secrets::instance()?,
    };
    let nodes = u8::try_from(existing.nodes.len()).unwrap_or(u8::MAX);
    let sites = sites(&profile)?;
    let hosts = hosts::access(ctx, &*world.runner, &ctx.hosts_file()).await;
    Ok(Gathered {
        world,
        profile,
        source: settled.recorded_source,
        nodes_asked: settled.nodes,
        facts,
        node: None,
        shared: Some(Shared { existing, instance, delivery }),
        minikube: None,
        choices,
        nodes,
        ports: (0, 0),
        reservation: None,
        sites,
        hosts,
    })
}

/// Refuses a profile that labels nodes: those of this cluster are not devstack's own.
fn labels(profile: &Resolved) -> Result<(), Failure> {
    if profile.cluster.labels.is_empty() {
        return Ok(());
    }
    Err(Failure::usage("the profile labels nodes (cluster.nodeLabels), and this cluster's are not devstack's own")
        .hint("label them yourself (kubectl label node NODE NAME=VALUE), and take nodeLabels out of the profile"))
}

/// Refuses a profile that keeps data where the cluster has no class of volumes to take.
fn volumes(profile: &Resolved, settled: &Settled, existing: &Existing) -> Result<(), Failure> {
    let named = settled.sets.iter().any(|(name, _)| name.ends_with(".storageClass"));
    if profile.disk() == 0 || existing.storage_class.is_some() || named {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Failed, "the cluster has no default StorageClass, and the profile keeps data")
        .hint("choose one of `kubectl get storageclass` with --set COMPONENT.storageClass=NAME"))
}

/// Whether devstack brings an image to the cluster: one that its nodes have, or that its own registry was seen to have,
/// they get by themselves. What was so when it was chosen stays so, for an image must not move without a reason.
fn is_brought(choice: &Choice, recorded: &[Choice]) -> bool {
    let by_themselves = |choice: &Choice| matches!(choice.source, Source::Nodes | Source::Registry { .. });
    let before = recorded.iter().find(|known| known.role == choice.role && known.reference == choice.reference);
    // Nodes lose images, and new ones come without.
    let before = before.filter(|known| known.source != Source::Nodes);
    !by_themselves(before.unwrap_or(choice))
}

/// The registry that images go through: the user's, else one of the environment's own in the cluster.
async fn via(world: &World, existing: &Existing, offline: bool, recorded: &[Choice]) -> Result<Via, Failure> {
    let images = world.images().map_err(Failure::from)?;
    if let Some(publish) = images.publishes_to() {
        return Ok(Via::Registry(publish.clone()));
    }
    let request = crate::image::Request {
        roles: vec![registry::ROLE.to_owned()],
        // Its pod may run on any node.
        target: placement::everywhere(existing)?,
        named: std::collections::BTreeMap::new(),
        recorded: recorded.to_vec(),
    };
    let refusal = || {
        Failure::new(ExitCode::Failed, "the nodes can get neither the images nor a registry to get them from")
            .cause("images that no registry has are brought through a registry in the cluster, and its own image would have to be brought too")
            .hint("name a registry that the nodes pull from under `publish` in registries.yaml, or load the image of the role `registry` into the nodes")
    };
    let found = images.resolve(&request, &existing.images, offline).await.map_err(|_| refusal())?;
    found
        .into_iter()
        .find(|choice| !is_brought(choice, recorded))
        .map(|choice| Via::Own(Box::new(choice)))
        .ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{self, ProfileSource};
    use serde_json::json;

    fn choice(role: &str, source: &serde_json::Value, digest: Option<&str>) -> Choice {
        let digest = digest.map(|text| crate::oci::Digest::of(text.as_bytes()).to_string());
        serde_json::from_value(json!({
            "role": role, "version": "v1", "reference": format!("r.example/{role}:v1"), "digest": digest,
            "platform": "linux/amd64", "cpu": "x86-64-v1", "source": source, "why": "",
        }))
        .unwrap()
    }

    #[test]
    fn nodes_that_are_not_devstacks_own_get_no_labels() {
        let dir = tempfile::tempdir().unwrap();
        let of = |cluster: &str| {
            let text = format!("apiVersion: devstack/v1\nkind: Profile\nname: demo\ncluster: {cluster}\n");
            std::fs::write(dir.path().join("devstack.yaml"), text).unwrap();
            let source = ProfileSource::Dir(dir.path().to_path_buf());
            labels(&profile::load(&profile::Request::new(&source, &[], &json!({}))).unwrap())
        };
        of("{nodes: 2}").unwrap();
        assert_eq!(of("{nodes: 2, nodeLabels: {1: {disk: fast}}}").unwrap_err().exit, ExitCode::Usage);
    }

    #[test]
    fn an_image_that_nodes_pulled_by_themselves_is_never_brought_to_them_later() {
        let pulled = |role: &str| {
            choice(role, &json!({"from": "registry", "pull": format!("r.example/{role}:v1")}), Some("index"))
        };
        let on_nodes = |role: &str| choice(role, &json!({"from": "nodes"}), None);
        let built = |source: &serde_json::Value| choice("s3www", source, None);
        let brought = |now: &[Choice], recorded: &[Choice]| {
            let brought = now.iter().filter(|choice| is_brought(choice, recorded));
            brought.map(|choice| choice.role.clone()).collect::<Vec<_>>()
        };
        // The first `up`: one image from its registry, one that only this machine can make.
        let first = [pulled("traefik"), built(&json!({"from": "build", "recipe": "s3www"}))];
        assert_eq!(brought(&first, &[]), ["s3www"]);
        let recorded = Choice::record(first.iter(), &[]);
        // The second has one more role; of a brought image nodes know only the name that they pulled it by.
        let second = [on_nodes("traefik"), built(&json!({"from": "store"})), pulled("minio")];
        assert_eq!(brought(&second, &recorded), ["s3www"]);
        let recorded = Choice::record(second.iter(), &recorded);
        // The third finds a node that has nothing yet, and the image in devstack's own store.
        let third =
            [choice("traefik", &json!({"from": "store"}), Some("manifest")), on_nodes("s3www"), on_nodes("minio")];
        assert_eq!(brought(&third, &recorded), ["s3www"]);
    }
}
