//! The CPU of an engine that is not on this host's kernel: seen in a container, where one can be had without a download.

use crate::facts::{self, EngineFacts};
use crate::ports::engine::Container;
use crate::step::World;
use crate::up::gather::NODE_ROLE;

/// Looks at the engine's CPU where it decides and is not known: in a running node, else in a container that lives for a
/// moment, of a node image that the engine has. Otherwise, or where looking fails, it stays unknown, and images are
/// chosen that run on every CPU.
pub(super) async fn measure(world: &World, engine: &mut EngineFacts, nodes: &[Container]) {
    if !engine.needs_measuring() {
        return;
    }
    let running = nodes.iter().find(|node| node.state == "running");
    let seen = match running {
        Some(node) => facts::read_node_cpu(&*world.engine, &node.id).await.ok(),
        None => match local_image(world, engine).await {
            Some(image) => {
                let measured = facts::measure_cpu(&*world.engine, &image, &world.environment).await;
                measured.ok().map(|(cpu, _)| cpu)
            }
            None => None,
        },
    };
    // Emulators show the list of the CPU below them, which is of another architecture.
    engine.cpu = seen.filter(|cpu| cpu.level.is_some());
}

/// A node image of the catalog that the engine has for its own platform.
async fn local_image(world: &World, engine: &EngineFacts) -> Option<String> {
    let entry = world.images().ok()?.catalog().entry(NODE_ROLE).ok()?;
    for image in entry.releases.iter().flat_map(|release| &release.images) {
        let reference = image.reference.to_string();
        if let Ok(Some(found)) = world.engine.image(&reference).await
            && found.platforms.contains(&engine.platform)
        {
            return Some(reference);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::facts::{CpuFacts, CpuLevel};
    use crate::image::{Images, Limits};
    use crate::ports::Engine as _;
    use crate::ports::engine::{EngineImage, EngineInfo, ExecOutput};
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};

    const HASWELL: &str = include_str!("../../tests/facts/cpuinfo/haswell.txt");
    const APPLE: &str = include_str!("../../tests/facts/cpuinfo/docker-desktop-apple-m1.txt");

    fn world(engine: &FakeEngine, cpuinfo: &'static str) -> (World, tempfile::TempDir) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cache = tempfile::tempdir().unwrap();
        let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        ctx.dirs.cache = cache.path().to_owned();
        engine.on_exec(&["cat", "/proc/cpuinfo"], move |_, _, _| ExecOutput {
            stdout: cpuinfo.into(),
            ..ExecOutput::default()
        });
        let runner = Arc::new(FakeRunner::default());
        let images = Images::open(&ctx, None, runner.clone(), Limits::default()).unwrap();
        (World::new(&ctx, "a", Arc::new(engine.clone()), runner).with_images(images), cache)
    }

    fn unknown() -> EngineFacts {
        EngineFacts { platform: "linux/amd64".to_owned(), ..EngineFacts::default() }
    }

    #[tokio::test]
    async fn a_node_image_that_is_there_is_enough() {
        let engine = FakeEngine::new(EngineInfo::default());
        let (world, _cache) = world(&engine, HASWELL);
        let mut facts = unknown();
        measure(&world, &mut facts, &[]).await;
        assert_eq!(facts.cpu, None, "nothing is downloaded for it");
        for (architecture, level) in [("arm64", None), ("amd64", Some(CpuLevel::V3))] {
            let image = EngineImage { platforms: vec![format!("linux/{architecture}")], ..EngineImage::default() };
            engine.put_image("docker.io/kindest/node:v1.36.4", image);
            measure(&world, &mut facts, &[]).await;
            assert_eq!(facts.level(), level, "{architecture}");
        }
        assert_eq!(engine.inventory(), Vec::<String>::new(), "the container is gone");
    }

    #[tokio::test]
    async fn a_running_node_tells_without_a_container() {
        let engine = FakeEngine::new(EngineInfo::default());
        engine.add_kind_node("devstack-a", 0, "devstack-a", &[]);
        let (world, _cache) = world(&engine, HASWELL);
        let before = engine.inventory();
        let nodes = engine.containers(None).await.unwrap();
        let mut facts = unknown();
        measure(&world, &mut facts, &nodes).await;
        assert_eq!(facts.level(), Some(CpuLevel::V3));
        assert_eq!(engine.inventory(), before);
    }

    #[tokio::test]
    async fn what_is_known_or_misleads_is_left_alone() {
        let engine = FakeEngine::new(EngineInfo::default());
        engine.add_kind_node("devstack-a", 0, "devstack-a", &[]);
        let (world, _cache) = world(&engine, APPLE);
        let nodes = engine.containers(None).await.unwrap();
        let mut facts = unknown();
        measure(&world, &mut facts, &nodes).await;
        assert_eq!(facts.cpu, None, "the list of another architecture");
        let known = CpuFacts { level: Some(CpuLevel::V2), ..CpuFacts::default() };
        let mut facts = EngineFacts { cpu: Some(known.clone()), ..unknown() };
        measure(&world, &mut facts, &nodes).await;
        assert_eq!(facts.cpu, Some(known));
    }
}
