use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;

use super::*;
use crate::facts::CpuLevel;
use crate::image::{KubeRange, Request};
use crate::image::{Limits, Target};
use crate::oci::{ArchiveFormat, ImageSpec, Layer, RunConfig, Store, archive, assemble};
use crate::ports::engine::{EngineImage, EngineInfo};
use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};

const NAME: &str = "r.example/site/one:v1";

/// Images in front of an engine that has [`NAME`] for these platforms.
fn images(engine: &FakeEngine, platforms: &[&str]) -> (Images, tempfile::TempDir) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cache = tempfile::tempdir().unwrap();
    let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    ctx.dirs.cache = cache.path().to_owned();
    let platforms = platforms.iter().map(|platform| (*platform).to_owned()).collect();
    engine.put_image(NAME, EngineImage { platforms, ..EngineImage::default() });
    let engine = Arc::new(engine.clone());
    (Images::open(&ctx, Some(engine), Arc::new(FakeRunner::default()), Limits::default()).unwrap(), cache)
}

/// What an engine writes for a platform.
async fn saved(platform: &str) -> Vec<u8> {
    let cache = tempfile::tempdir().unwrap();
    let store = Store::open(cache.path()).unwrap();
    let spec = ImageSpec {
        reference: NAME.to_owned(),
        platform: platform.parse().unwrap(),
        config: RunConfig::default(),
        layers: vec![Layer::new().store(&store).unwrap()],
    };
    let image = assemble(&store, &spec).unwrap();
    let mut bytes = Vec::new();
    let mut stream = archive::export(&store, &[image], ArchiveFormat::Oci);
    while let Some(some) = stream.next().await {
        bytes.extend_from_slice(&some.unwrap());
    }
    bytes
}

async fn choice(images: &Images, platform: &str) -> Choice {
    let request = Request {
        roles: vec!["s3www".to_owned()],
        target: Target {
            platform: platform.parse().unwrap(),
            cpu: Some(CpuLevel::V1),
            kubernetes: KubeRange::default(),
            cgroup: Some(2),
        },
        named: BTreeMap::from([("s3www".to_owned(), NAME.parse().unwrap())]),
        recorded: Vec::new(),
    };
    images.resolve(&request, &std::collections::BTreeSet::new(), true).await.unwrap().remove(0)
}

#[tokio::test]
async fn the_engine_is_asked_for_the_wanted_platform_of_an_image_of_several() {
    let engine = FakeEngine::new(EngineInfo::default());
    let (images, _cache) = images(&engine, &["linux/amd64", "linux/arm64"]);
    let archives: BTreeMap<&str, Vec<u8>> =
        [("linux/amd64", saved("linux/amd64").await), ("linux/arm64", saved("linux/arm64").await)].into();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    engine.on_save(move |reference, platform| {
        seen.lock().unwrap().push(format!("{reference} {platform}"));
        Ok(archives[platform].clone())
    });
    for platform in ["linux/arm64", "linux/amd64"] {
        let choice = choice(&images, platform).await;
        assert_eq!(choice.source, Source::Engine);
        let image = images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
        assert_eq!((image.reference.as_str(), image.platform.to_string().as_str()), (NAME, platform));
    }
    assert_eq!(*asked.lock().unwrap(), [format!("{NAME} linux/arm64"), format!("{NAME} linux/amd64")]);
}

#[tokio::test]
async fn an_engine_that_cannot_save_what_it_has_is_named_with_the_way_on() {
    let engine = FakeEngine::new(EngineInfo::default());
    let (images, _cache) = images(&engine, &["linux/amd64"]);
    // What Docker before 28 says of an image of which its containerd has one platform of several.
    engine.on_save(|_, _| Err(io::Error::other("content digest sha256:30e3: not found")));
    let choice = choice(&images, "linux/amd64").await;
    let error = images.obtain(&choice, "images", &|_, _| ()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the engine does not give {NAME} for linux/amd64"));
    assert_eq!(
        error.hint().unwrap(),
        format!("docker image rm {NAME}, then run it again to have another source chosen")
    );
    assert!(images.store().image(NAME, &choice.platform).unwrap().is_none(), "nothing was stored");
}
