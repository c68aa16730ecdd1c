//! The resolver and the registry client against a real registry (CNCF distribution, built from its module) on loopback,
//! behind a proxy that breaks things.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod proxy;
mod world;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use devstack::context::Vars;
use devstack::image::{Images, Obstacle, ObtainError, Publish, RegistryError, Source};
use devstack::oci::{Digest, Platform};
use proxy::Fault;
use world::{World, found, lowest_layer, refused, request};

const BOTH: &[&str] = &["linux/amd64", "linux/arm64"];
const BIG: &[u8] = &[7; 300_000];

fn no_vars() -> Vars {
    Vars::default()
}

fn failure(error: ObtainError) -> RegistryError {
    match error {
        ObtainError::Registry { source, .. } => source,
        other => panic!("not a registry's failure: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_found_by_its_manifest_and_fetched_with_checked_digests() {
    let world = World::start().await;
    let digest = world.push("site/one:v1", BOTH, &[BIG, b"second"]).await;
    let images = world.images(no_vars());
    let name = world.name("site/one:v1");
    let choice = found(&images, &name).await;
    assert_eq!((choice.source.word(), choice.digest.as_ref()), ("registry", Some(&digest)));
    assert!(choice.download_bytes.unwrap() > BIG.len() as u64);
    assert!(world.proxy.seen("/blobs/").is_empty(), "resolving fetches no blob");

    let told = std::sync::Mutex::new((0, 0));
    let image = images.obtain(&choice, "images", &|done, all| *told.lock().unwrap() = (done, all)).await.unwrap();
    assert_eq!((image.reference.as_str(), &image.platform), (name.as_str(), &Platform::linux("amd64")));
    assert_eq!(image.layers.len(), 2);
    let (done, all) = *told.lock().unwrap();
    assert_eq!((done, Some(all)), (all, choice.download_bytes), "progress ends at what was announced");

    world.proxy.forget();
    let again = found(&images, &name).await;
    assert_eq!(again.source, Source::Store);
    images.obtain(&again, "images", &|_, _| ()).await.unwrap();
    assert!(world.proxy.seen("").is_empty(), "what is in the store is not asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pushed_whole_and_only_once() {
    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG, b"second"]).await;
    let images = world.images(no_vars());
    let choice = found(&images, &world.name("site/one:v1")).await;
    let publish = Publish::new(world.name("team/mine"), "registry.example:5000/team/mine");
    let (to, pull) = Images::published_as(&publish, &choice).unwrap();
    let own = world.proxy.host.replace(':', "-");
    assert_eq!(to.to_string(), world.name(&format!("team/mine/{own}/site/one:v1")));
    assert_eq!(pull.to_string(), format!("registry.example:5000/team/mine/{own}/site/one:v1"));
    assert!(!images.is_published(&choice, &to).await, "the store does not have it yet");
    let stored = images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
    assert!(!images.is_published(&choice, &to).await);
    images.publish(&stored, &to).await.unwrap();
    assert!(images.is_published(&choice, &to).await);

    // What was pushed can be fetched, and is the same.
    let elsewhere = World::start().await;
    let copy = elsewhere.images(no_vars());
    let fetched = copy.obtain(&found(&copy, &to.to_string()).await, "images", &|_, _| ()).await.unwrap();
    assert_eq!((&fetched.manifest.digest, &fetched.layers), (&stored.manifest.digest, &stored.layers));

    world.proxy.forget();
    images.publish(&stored, &to).await.unwrap();
    assert!(world.proxy.seen("/blobs/uploads/").is_empty(), "a layer that is there is not sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_power_cut_left_short_is_fetched_again_and_alone() {
    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG, b"second"]).await;
    let images = world.images(no_vars());
    let name = world.name("site/one:v1");
    let first = images.obtain(&found(&images, &name).await, "images", &|_, _| ()).await.unwrap();
    for length in [0, 1000] {
        let blob =
            std::fs::File::options().write(true).open(images.store().blob_path(&first.layers[0].digest)).unwrap();
        blob.set_len(length).unwrap();
        world.proxy.forget();
        let choice = found(&images, &name).await;
        assert_eq!(choice.source.word(), "registry");
        assert_eq!(images.obtain(&choice, "images", &|_, _| ()).await.unwrap(), first);
        assert_eq!(world.proxy.seen("/blobs/").len(), 1, "the others are whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_two_images_share_is_fetched_once() {
    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG, b"one"]).await;
    world.push("site/two:v1", BOTH, &[BIG, b"two"]).await;
    let images = world.images(no_vars());
    let (one, two) =
        (found(&images, &world.name("site/one:v1")).await, found(&images, &world.name("site/two:v1")).await);
    let quiet = |_, _| ();
    let (first, second) = tokio::join!(images.obtain(&one, "i", &quiet), images.obtain(&two, "i", &quiet));
    let shared = &first.unwrap().layers[0].digest;
    assert_eq!(*shared, second.unwrap().layers[0].digest);
    assert_eq!(world.proxy.seen(&format!("blobs/{shared}")).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_for_other_platforms_is_refused_with_those_it_has() {
    let world = World::start().await;
    world.push("site/arm:v1", &["linux/arm64"], &[b"x"]).await;
    world.push_single("site/one-arm:v1", "linux/arm64").await;
    world.push_single("site/one-amd:v1", "linux/amd64").await;
    let images = world.images(no_vars());
    for name in ["site/arm:v1", "site/one-arm:v1"] {
        let rejected = refused(&images, &world.name(name)).await;
        assert_eq!(rejected.kind, Obstacle::Platform);
        assert!(
            rejected.reason.ends_with("is not made for linux/amd64 (it is for linux/arm64)"),
            "{}",
            rejected.reason
        );
    }
    let choice = found(&images, &world.name("site/one-amd:v1")).await;
    images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_they_can_mean() {
    let world = World::start().await;
    for (name, status) in [("a/unauthorized:v1", 401), ("a/deleted:v1", 403)] {
        world.proxy.fault(&name.replace(':', "/manifests/"), usize::MAX, Fault::Status(status, vec![]));
        let rejected = refused(&world.images(no_vars()), &world.name(name)).await;
        assert_eq!(rejected.kind, Obstacle::Unauthorized);
        assert!(rejected.reason.contains("it was deleted, is private, or needs `docker login"), "{}", rejected.reason);
    }
    let rejected = refused(&world.images(no_vars()), &world.name("a/never:v1")).await;
    assert_eq!(rejected.kind, Obstacle::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_told_and_not_asked_against() {
    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[b"x"]).await;
    let limited = Fault::Status(429, vec![("retry-after", "120".to_owned())]);
    world.proxy.fault("/manifests/", usize::MAX, limited);
    let name = world.name("site/one:v1");
    for run in 1..=2 {
        let rejected = refused(&world.images(no_vars()), &name).await;
        assert_eq!(rejected.kind, Obstacle::RateLimited);
        assert!(rejected.reason.contains("for 120 s"), "{}", rejected.reason);
        assert_eq!(world.proxy.seen("/manifests/").len(), 1, "run {run}: it is left alone for as long as it said");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_in_the_middle_is_waited_for_as_long_as_it_says() {
    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG]).await;
    let images = world.images(no_vars());
    let choice = found(&images, &world.name("site/one:v1")).await;
    world.proxy.fault("/blobs/", 1, Fault::Status(429, vec![("retry-after", "7".to_owned())]));
    images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
    assert_eq!(*world.waits.0.lock().unwrap(), [Duration::from_secs(7)]);

    world.push("site/two:v1", BOTH, &[b"other"]).await;
    let choice = found(&images, &world.name("site/two:v1")).await;
    world.proxy.fault("/blobs/", usize::MAX, Fault::Status(429, vec![("retry-after", "3600".to_owned())]));
    let error = failure(images.obtain(&choice, "images", &|_, _| ()).await.unwrap_err());
    assert!(matches!(error, RegistryError::RateLimited { retry_after: Some(3600), .. }), "too long: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_gone_after_its_manifest_leaves_nothing_behind() {
    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG]).await;
    let images = world.images(no_vars());
    let choice = found(&images, &world.name("site/one:v1")).await;
    world.proxy.fault("/blobs/", usize::MAX, Fault::Status(404, vec![]));
    let error = failure(images.obtain(&choice, "images", &|_, _| ()).await.unwrap_err());
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert_eq!(images.store().references().unwrap(), []);
    assert_eq!(world.waits.0.lock().unwrap().len(), 0, "what is gone is not asked for again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_on_where_it_broke_off() {
    for fault in [Fault::Truncate(100_000), Fault::Stall(100_000)] {
        let world = World::start().await;
        world.push("site/one:v1", BOTH, &[BIG]).await;
        let images = world.images(no_vars());
        let choice = found(&images, &world.name("site/one:v1")).await;
        let layer = lowest_layer(BIG);
        world.proxy.fault(&format!("blobs/{layer}"), 1, fault);
        let image = images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
        assert_eq!(image.layers[0].digest, layer);
        let asked = world.proxy.seen(&format!("blobs/{layer}"));
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked[1].ends_with("bytes=100000-"), "{asked:?}");
        let kept = std::fs::read(images.store().blob_path(&image.layers[0].digest)).unwrap();
        assert_eq!(Digest::of(&kept), image.layers[0].digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_always_breaks_off_or_stalls_is_given_up() {
    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG]).await;
    let images = world.images(no_vars());
    let choice = found(&images, &world.name("site/one:v1")).await;
    world.proxy.fault("/blobs/", usize::MAX, Fault::Truncate(10));
    let error = failure(images.obtain(&choice, "images", &|_, _| ()).await.unwrap_err());
    assert!(matches!(error, RegistryError::Truncated { .. }), "{error:?}");

    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG]).await;
    let images = world.images(no_vars());
    let choice = found(&images, &world.name("site/one:v1")).await;
    world.proxy.fault("/blobs/", usize::MAX, Fault::Stall(0));
    let error = failure(images.obtain(&choice, "images", &|_, _| ()).await.unwrap_err());
    assert!(matches!(error, RegistryError::Slow { .. }), "{error:?}");
    assert_eq!(images.store().references().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_with_another_digest_is_never_kept() {
    let world = World::start().await;
    let digest = world.push("site/one:v1", BOTH, &[BIG]).await;
    let images = world.images(no_vars());
    let name = world.name("site/one:v1");
    let choice = found(&images, &name).await;
    world.proxy.fault("/blobs/", 1, Fault::Corrupt);
    images.obtain(&choice, "images", &|_, _| ()).await.unwrap();

    world.push("site/two:v1", BOTH, &[b"two"]).await;
    let choice = found(&images, &world.name("site/two:v1")).await;
    world.proxy.fault("/blobs/", usize::MAX, Fault::Corrupt);
    let error = failure(images.obtain(&choice, "images", &|_, _| ()).await.unwrap_err());
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error:?}");
    assert_eq!(images.store().references().unwrap().len(), 1, "only the first image");

    let world = World::start().await;
    world.push("site/one:v1", BOTH, &[BIG]).await;
    world.proxy.fault("/manifests/", usize::MAX, Fault::Corrupt);
    let pinned = format!("{}@{digest}", world.name("site/one:v1"));
    let rejected = refused(&world.images(no_vars()), &pinned).await;
    assert_eq!(rejected.kind, Obstacle::Digest, "{}", rejected.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_answer_is_asked_once() {
    let world = World::start().await;
    world.proxy.fault("", usize::MAX, Fault::Hang);
    let images = world.images(no_vars());
    let begun = Instant::now();
    let (one, two) = (world.name("site/one:v1"), world.name("site/two:v1"));
    let (first, second) = tokio::join!(refused(&images, &one), refused(&images, &two));
    let third = refused(&images, &world.name("site/three:v1")).await;
    for rejected in [first, second, third] {
        assert_eq!(rejected.kind, Obstacle::Slow, "{}", rejected.reason);
    }
    assert_eq!(world.proxy.seen(""), ["GET /v2/"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_host_is_known_at_once_and_offline_asks_nobody() {
    let world = World::start().await;
    let images = world.images(no_vars());
    let nobody = "127.0.0.1:1/site/one:v1";
    let begun = Instant::now();
    let rejected = refused(&images, nobody).await;
    assert_eq!(rejected.kind, Obstacle::Unreachable, "{}", rejected.reason);
    assert!(begun.elapsed() < Duration::from_secs(1));

    world.push("site/one:v1", BOTH, &[b"x"]).await;
    let name = world.name("site/one:v1");
    images.resolve(&request(&name), &BTreeSet::new(), true).await.unwrap_err();
    assert!(world.proxy.seen("").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_what_its_registry_does_not() {
    let world = World::start().await;
    let digest = world.push("hub/site/one:v1", BOTH, &[b"x"]).await;
    let mirror = format!("127.0.0.1:1={}", world.name("hub"));
    let images = world.images(Vars::from([("DEVSTACK_MIRROR", mirror.as_str())]));
    let choice = found(&images, "127.0.0.1:1/site/one:v1").await;
    assert_eq!((choice.source.word(), choice.digest.as_ref()), ("mirror", Some(&digest)));
    let image = images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
    assert_eq!(image.reference, "127.0.0.1:1/site/one:v1", "it keeps its own name");
}

/// The registry wants a token; a token for a repository that is private is only worth something to its owner.
async fn private(world: &World) {
    world.push("private/one:v1", BOTH, &[b"x"]).await;
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"tests\"", world.proxy.host);
    let token = |token: &str| Fault::Json(format!("{{\"token\":\"{token}\"}}"));
    // `u:p` in base64.
    world.proxy.fault_unless("GET /token", "Basic dTpw", token("anonymous"));
    world.proxy.fault("GET /token", usize::MAX, token("owner"));
    let challenge = Fault::Status(401, vec![("www-authenticate", realm)]);
    world.proxy.fault_unless("GET /v2/", "Bearer owner", challenge);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_docker_login_is_used() {
    let world = World::start().await;
    private(&world).await;
    let name = world.name("private/one:v1");
    let rejected = refused(&world.images(no_vars()), &name).await;
    assert_eq!(rejected.kind, Obstacle::Unauthorized, "{}", rejected.reason);

    world.docker_config(&format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dTpw\"}}}}}}", world.proxy.host));
    let images = world.images(no_vars());
    let choice = found(&images, &name).await;
    images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
    let tokens = world.proxy.seen("/token");
    let asked = tokens.last().unwrap();
    assert!(asked.contains("scope=repository%3Aprivate%2Fone%3Apull") && asked.contains("service=tests"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_private_where_the_greeting_is_open_is_asked_with_the_login() {
    let world = World::start().await;
    // The first rule that fits counts.
    world.proxy.fault("GET /v2/ HTTP", usize::MAX, Fault::Json("{}".to_owned()));
    private(&world).await;
    let name = world.name("private/one:v1");
    assert_eq!(refused(&world.images(no_vars()), &name).await.kind, Obstacle::Unauthorized);
    world.docker_config(&format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dTpw\"}}}}}}", world.proxy.host));
    let images = world.images(no_vars());
    let choice = found(&images, &name).await;
    images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tag_meant_before_is_not_taken_for_another_pin() {
    let world = World::start().await;
    let first = world.push("site/one:v1", BOTH, &[b"first"]).await;
    let name = world.name("site/one:v1");
    let images = world.images(no_vars());
    let choice = found(&images, &name).await;
    let stored = images.obtain(&choice, "images", &|_, _| ()).await.unwrap();
    assert_eq!(stored.pulled_by, Some(first.clone()));
    let second = world.push("site/one:v1", BOTH, &[b"second"]).await;

    let pinned = found(&images, &format!("{name}@{second}")).await;
    assert_eq!((pinned.source.word(), pinned.digest.as_ref()), ("registry", Some(&second)));
    assert_eq!(pinned.reference, world.name(&format!("site/one@{second}")), "nodes know it by its digest");
    let new = images.obtain(&pinned, "images", &|_, _| ()).await.unwrap();
    assert_ne!(new.layers, stored.layers);
    assert_eq!(found(&images, &format!("{name}@{second}")).await.source, Source::Store);
    assert_eq!(
        images.store().image(&name, &Platform::linux("amd64")).unwrap(),
        Some(stored),
        "the tag stays as it was"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_its_owner_pushes_after_all_is_found_at_once() {
    let world = World::start().await;
    let name = world.name("site/late:v1");
    assert_eq!(refused(&world.images(no_vars()), &name).await.kind, Obstacle::NotFound);
    world.push("site/late:v1", BOTH, &[b"x"]).await;
    found(&world.images(no_vars()), &name).await;
}
