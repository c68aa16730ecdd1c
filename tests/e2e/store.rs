//! An engine whose images are in containerd's store, where a name may lead to an index of which one platform is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use devstack::context::{Context, Dirs, Options, Vars};
use devstack::event::EventSink;
use devstack::image::{Choice, ImageError, Images, Limits, Source};
use devstack::ports::docker::DockerEngine;
use devstack::ports::runner::ProcessRunner;
use tokio_util::sync::CancellationToken;

use crate::harness::{Phases, StoreEngine, World, docker, full, tell};
use crate::registry::{self, world::lowest_layer};

const CONTENT: &[u8] = b"the lowest layer";

#[test]
fn an_engine_with_the_containerd_image_store_serves_as_any_other() {
    if StoreEngine::is_beside() {
        return beside();
    }
    if !full() {
        return tell("skipped: an engine with the containerd image store (only in the full set)");
    }
    match StoreEngine::find() {
        Ok(engine) => engine.run("store::an_engine_with_the_containerd_image_store_serves_as_any_other"),
        Err(reason) => tell(&format!("skipped: an engine with the containerd image store ({reason})")),
    }
}

/// The test beside the engine, which is the only one here.
fn beside() {
    let mut phases = Phases::of("store");
    let told = docker(&["info", "-f", "{{.ServerVersion}} {{.Driver}} {{json .DriverStatus}}"]);
    assert!(told.contains("io.containerd.snapshotter.v1"), "another image store: {told}");
    let world = World::new("store");
    phases.run("it is told as it is", || {
        let facts = world.bare(&["facts", "-o", "json"]).output().unwrap();
        let facts: serde_json::Value = serde_json::from_slice(&facts.stdout).unwrap();
        assert_eq!(facts.pointer("/engine/info/containerd_image_store"), Some(&true.into()), "{facts}");
    });
    phases.run("an image of several platforms", one_platform_of_several);
    phases.run("up, and nothing to do", || {
        world.serves_the_gif(&world.up(&["s3www"]));
        assert_eq!(world.dry_run(&["s3www"]), [""; 0]);
        world.serves_the_gif(&world.up(&["s3www"]));
    });
    phases.run("two nodes", || world.serves_the_gif(&world.up(&["s3www", "--nodes", "2"])));
    phases.run("down", || {
        world.down();
    });
    tell(&format!("matrix: containerd image store: {}", told.trim()));
    phases.end();
}

/// What the engine has of an image is taken from it, what it has not is not.
fn one_platform_of_several() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let registry = registry::world::World::start().await;
        registry.push("site/one:v1", &["linux/amd64", "linux/arm64"], &[CONTENT]).await;
        let name = registry.name("site/one:v1");
        // It is not this machine's own that the engine gets first.
        for (pulled, had) in [("linux/arm64", &["linux/arm64"][..]), ("linux/amd64", &["linux/arm64", "linux/amd64"])] {
            let argument = name.clone();
            let pull = move || docker(&["pull", "--quiet", "--platform", pulled, &argument]);
            tokio::task::spawn_blocking(pull).await.unwrap();
            for platform in ["linux/amd64", "linux/arm64"] {
                let cache = tempfile::tempdir().unwrap();
                let images = images(cache.path());
                let found = in_the_engine(&images, &name, platform).await;
                if !had.contains(&platform) {
                    let error = found.unwrap_err();
                    assert!(format!("{error:?}").contains("the engine's copy is for linux/arm64"), "{error:?}");
                    continue;
                }
                let choice = found.unwrap();
                assert_eq!(choice.source, Source::Engine);
                let image = images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
                assert_eq!((image.reference.as_str(), image.platform.to_string().as_str()), (&*name, platform));
                assert_eq!(image.layers[0].digest, lowest_layer(CONTENT));
            }
        }
        let remove = move || docker(&["image", "rm", "--force", &name]);
        tokio::task::spawn_blocking(remove).await.unwrap();
    });
}

/// devstack's images, with nothing but the engine to take them from.
fn images(cache: &std::path::Path) -> Images {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let vars = Vars::of_process();
    let mut dirs = Dirs::of(&vars).unwrap();
    dirs.cache = cache.to_owned();
    let engine = Arc::new(DockerEngine::find(&vars, &dirs.home));
    let ctx = Context::real(dirs, vars, EventSink::null(), Options::default());
    let runner = Arc::new(ProcessRunner::new(CancellationToken::new(), "store"));
    Images::open(&ctx, Some(engine), runner, Limits::default()).unwrap()
}

/// The choice of an image by name where no registry is asked.
async fn in_the_engine(images: &Images, name: &str, platform: &str) -> Result<Choice, ImageError> {
    let mut request = registry::world::request(name);
    request.target.platform = platform.parse().unwrap();
    Ok(images.resolve(&request, &BTreeSet::new(), true).await?.remove(0))
}
