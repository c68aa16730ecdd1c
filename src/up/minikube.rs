//! Everything that is read before minikube makes a cluster.

use crate::access::hosts;
use crate::cluster::minikube::{self, MinikubeSpec};
use crate::cluster::{ClusterFacts, Provider};
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::facts::{EngineFacts, Facts, HostFacts, Machine};
use crate::image::{Images, KubeRange, KubeVersion, Limits, Target};
use crate::ports::Runner;
use crate::profile::Resolved;
use crate::step::{World, minikube_profile};
use crate::up::gather::{Gathered, Settled, load, sites};
use crate::up::{Desired, choose, kubernetes};

/// Reads the machine and minikube's own record of the cluster; asks no cluster.
///
/// # Errors
/// No minikube, an invalid profile, a cluster of another Kubernetes version, images that cannot be had.
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
    let spec = MinikubeSpec {
        program,
        name: world.reserved_name(),
        nodes: profile.cluster.nodes,
        driver: desired.driver.clone(),
        kubernetes: profile.cluster.kubernetes.clone(),
    };
    let kubernetes = versions(&*world.runner, &spec, &profile, &world.environment).await?;
    let world = world.with_images(images);
    // Which CPU its nodes will see is not known before they are there: only what runs on all is taken.
    let target = Target { platform: choose::platform(&platform)?, cpu: None, kubernetes, cgroup: None };
    let nothing = std::collections::BTreeSet::new();
    let choices = choose::choose(&world, &profile, &[], target, &nothing, desired.offline).await?;
    let sites = sites(&profile)?;
    let hosts = hosts::access(ctx, &*world.runner, &ctx.hosts_file()).await;
    Ok(Gathered {
        nodes: profile.cluster.nodes,
        world,
        profile,
        source: settled.recorded_source,
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

/// The Kubernetes versions that images are chosen for: the one of the cluster that is there, else those that the profile
/// allows. minikube cannot make a cluster older, and what it is started with does not tell what it already is.
///
/// # Errors
/// The cluster that is there is of a version that the profile or one of its components does not work with.
async fn versions(
    runner: &dyn Runner,
    spec: &MinikubeSpec,
    profile: &Resolved,
    environment: &str,
) -> Result<KubeRange, Failure> {
    let wanted = kubernetes::wanted(profile)?;
    let Some(text) = minikube_profile(runner, spec).await?.and_then(|known| known.kubernetes) else {
        return Ok(wanted);
    };
    let hint = format!(
        "make the cluster anew with a version that fits: devstack down --env {environment}, and name it in the profile \
         (cluster.kubernetes)"
    );
    kubernetes::refuse(profile, &text, &hint)?;
    let Ok(version) = text.parse::<KubeVersion>() else { return Ok(wanted) };
    if !wanted.contains(version) {
        let message = format!("the profile wants Kubernetes {wanted}, and its cluster has {text}");
        return Err(Failure::new(ExitCode::Failed, message).hint(hint).kept("nothing was changed"));
    }
    Ok(KubeRange::only(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeRunner;
    use crate::up::kubernetes::tests::profile;

    /// What minikube v1.38.1 was seen to say of a profile with Kubernetes v1.34.4.
    const LIST: &str = include_str!("../../tests/minikube/recordings/profile-list-after-failure.stdout");

    async fn of(name: &str, kubernetes: &str, range: &str) -> Result<String, Failure> {
        let runner = FakeRunner::default();
        runner.prints(&["minikube", "profile", "list"], LIST);
        let spec = MinikubeSpec {
            program: "minikube".into(),
            name: name.to_owned(),
            nodes: 1,
            driver: None,
            kubernetes: kubernetes.to_owned(),
        };
        let profile = profile(&format!("'{kubernetes}'"), range, "{}").unwrap();
        versions(&runner, &spec, &profile, "demo").await.map(|range| range.to_string())
    }

    #[tokio::test]
    async fn the_version_of_a_cluster_that_is_there_is_held_against_every_component() {
        assert_eq!(of("minikube", "auto", "{min: '1.29', max: '1.34'}").await.unwrap(), "1.34.4");
        let failure = of("minikube", "auto", "{max: '1.33'}").await.unwrap_err();
        assert_eq!(failure.exit, ExitCode::Failed);
        assert_eq!(failure.message, "the component old works with Kubernetes 1.33 or older, not with v1.34.4");
        let failure = of("minikube", "1.33", "{}").await.unwrap_err();
        assert_eq!(failure.message, "the profile wants Kubernetes 1.33, and its cluster has v1.34.4");
    }

    #[tokio::test]
    async fn before_there_is_a_cluster_the_profile_decides() {
        assert_eq!(of("devstack-demo", "auto", "{max: '1.33'}").await.unwrap(), "1.33 or older");
        assert_eq!(of("devstack-demo", "1.33", "{}").await.unwrap(), "1.33");
    }
}
