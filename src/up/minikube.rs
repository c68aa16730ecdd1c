//! Everything that is read before minikube makes a cluster.

use crate::access::hosts;
use crate::cluster::minikube::{self, MinikubeSpec};
use crate::cluster::{ClusterFacts, Provider};
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::facts::{EngineFacts, Facts, HostFacts, Machine};
use crate::image::{Images, Limits, Target};
use crate::step::World;
use crate::up::gather::{Gathered, Settled, load, sites};
use crate::up::{Desired, choose, kubernetes};

/// Reads the machine; asks no cluster.
///
/// # Errors
/// No minikube, an invalid profile, images that cannot be had.
pub(super) async fn gather(
    ctx: &Context,
    desired: &Desired,
    settled: Settled,
    world: World,
) -> Result<Gathered, Failure> {
    let program = minikube::on_path(ctx.vars.get("PATH")).ok_or_else(|| {
        Failure::new(ExitCode::Failed, "there is no minikube on PATH")
            .hint("https://minikube.sigs.k8s.io/docs/start")
            .hint("devstack up --provider kind")
    })?;
    let machine = Machine::ask(&[("cache", &ctx.dirs.cache), ("state", &ctx.dirs.state)]);
    // An engine is of use where it has images; minikube's own may be another, or none.
    let (host, info) = tokio::join!(HostFacts::read(machine, &*ctx.fs, &*world.runner), world.engine.info());
    let engine = info.ok().map(|info| EngineFacts::of(info, &host));
    let engine_port = engine.is_some().then(|| world.engine.clone());
    let images = Images::open(ctx, engine_port, world.runner.clone(), Limits::default())?;
    let platform = format!("linux/{}", host.architecture);
    let profile = load(ctx, &settled, &ClusterFacts::own(Provider::Minikube, false, Some(platform.clone())))?;
    let world = world.with_images(images);
    // Which CPU its nodes will see is not known before they are there: only what runs on all is taken.
    let target = Target {
        platform: choose::platform(&platform)?,
        cpu: None,
        kubernetes: kubernetes::wanted(&profile)?,
        cgroup: None,
    };
    let nothing = std::collections::BTreeSet::new();
    let choices = choose::choose(&world, &profile, &[], target, &nothing, desired.offline).await?;
    let spec = MinikubeSpec {
        program,
        name: world.reserved_name(),
        nodes: profile.cluster.nodes,
        driver: desired.driver.clone(),
        kubernetes: profile.cluster.kubernetes.clone(),
    };
    let sites = sites(&profile)?;
    let hosts = hosts::access(ctx, &*world.runner, &ctx.hosts_file()).await;
    Ok(Gathered {
        nodes: profile.cluster.nodes,
        world,
        profile,
        source: settled.recorded_source,
        sets: settled.sets,
        nodes_asked: settled.nodes,
        facts: Facts { source: None, host, engine, nodes: Vec::new() },
        node: None,
        shared: None,
        minikube: Some(spec),
        choices,
        ports: (0, 0),
        reservation: None,
        sites,
        hosts,
    })
}
