//! `devstack bundle`: made, looked at, taken into an empty cache. Nothing here has an engine or asks a registry.

use std::path::Path;

use devstack::build::{Id, LOCAL_REGISTRY, Recipes};
use devstack::bundle;
use devstack::oci::{ImageSpec, Layer, Platform, RunConfig, Source, Store, StoredImage, assemble};
use tokio_util::sync::CancellationToken;

use crate::engine::CannedEngine;
use crate::environment::TestEnvironment;

fn amd64() -> Platform {
    Platform::linux("amd64")
}

fn store(environment: &TestEnvironment) -> Store {
    Store::open(Path::new(&environment.path("cache"))).unwrap()
}

/// An image with a layer of so many bytes.
pub fn image(store: &Store, reference: &str, platform: &Platform, bytes: usize) -> StoredImage {
    let mut layer = Layer::new();
    layer.file("name", Source::Bytes(reference.bytes().cycle().take(bytes).collect()), 0o644).unwrap();
    let layers = vec![layer.store(store).unwrap()];
    let (reference, platform) = (reference.to_owned(), platform.clone());
    assemble(store, &ImageSpec { reference, platform, config: RunConfig::default(), layers }).unwrap()
}

/// A bundle that the library made, in a place whose cache is empty.
fn bundle(environment: &TestEnvironment, platform: &Platform, bytes: usize) -> String {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let references = ["docker.io/library/traefik:v3.7.13", "docker.io/y4m4/s3www:v1.0.0"];
    let images = references.map(|reference| image(&store, reference, platform, bytes));
    let file = environment.path("s3www.bundle.tar");
    bundle::create(&store, "s3www", platform, &images, Path::new(&file), &CancellationToken::new()).unwrap();
    file
}

/// What a command printed, whatever version it is of.
fn told(output: &str) -> String {
    output.replace(env!("CARGO_PKG_VERSION"), "[VERSION]")
}

/// The result among the lines of a command that answers in JSON.
fn result(output: &str) -> serde_json::Value {
    let line = output.lines().find(|line| line.contains(r#""type":"result""#)).unwrap_or_else(|| panic!("{output}"));
    serde_json::from_str(line).unwrap()
}

/// The images that the resolver chooses without asking anybody, with their sources.
fn resolved(environment: &TestEnvironment, args: &[&str]) -> Vec<String> {
    let fixed = ["image", "resolve", "--offline", "-o", "json", "--platform", "linux/amd64"];
    let output = environment.run(&[&fixed[..], args].concat());
    let value = result(&output);
    let choices = value["choices"].as_array().unwrap_or_else(|| panic!("{output}"));
    choices
        .iter()
        .map(|choice| {
            format!("{} {}", choice["source"]["from"].as_str().unwrap(), choice["reference"]).replace('"', "")
        })
        .collect()
}

/// Blobs of the store, and what is on its way there.
fn blobs(environment: &TestEnvironment) -> Vec<String> {
    let files = environment.files().into_iter();
    files.filter(|file| file.contains("/store/blobs/sha256/") || file.contains("/store/tmp/")).collect()
}

#[test]
fn what_a_bundle_brings_is_found_in_the_store() {
    let environment = TestEnvironment::new();
    let file = bundle(&environment, &amd64(), 5000);
    insta::assert_snapshot!(told(&environment.run(&["bundle", "inspect", &file])), @"
    exit 0
    --- stdout
    s3www · linux/amd64 · devstack [VERSION]
    IMAGE                              SIZE    DIGEST
    docker.io/library/traefik:v3.7.13  7.3 kB  sha256:86edae6910e8
    docker.io/y4m4/s3www:v1.0.0        7.3 kB  sha256:b2c3b92d7811
    ");
    assert_eq!(blobs(&environment), Vec::<String>::new());
    insta::assert_snapshot!(told(&environment.run(&["bundle", "load", &file, "--platform", "linux/amd64"])), @"
    exit 0
    --- stdout
    s3www · linux/amd64 · devstack [VERSION]
    IMAGE                              SIZE    DIGEST
    docker.io/library/traefik:v3.7.13  7.3 kB  sha256:86edae6910e8
    docker.io/y4m4/s3www:v1.0.0        7.3 kB  sha256:b2c3b92d7811
    2 images verified and taken into the cache
    ");
    assert_eq!(
        resolved(&environment, &["traefik", "s3www"]),
        ["store docker.io/y4m4/s3www:v1.0.0", "store docker.io/library/traefik:v3.7.13"]
    );
}

#[test]
fn a_damaged_bundle_changes_nothing() {
    let environment = TestEnvironment::new();
    let file = bundle(&environment, &amd64(), 5000);
    let mut bytes = std::fs::read(&file).unwrap();
    let layer = bytes.windows(28).rposition(|bytes| bytes == b"docker.io/y4m4/s3www:v1.0.0d").unwrap();
    bytes[layer] = b'D';
    std::fs::write(&file, bytes).unwrap();
    let output = environment.run(&["bundle", "load", &file, "--platform", "linux/amd64"]);
    assert!(output.starts_with("exit 1\n--- stderr\nerror: blobs/sha256/"), "{output}");
    assert!(output.contains("is damaged") && output.contains("what was there before is untouched"), "{output}");
    assert_eq!(blobs(&environment), Vec::<String>::new());
    environment.write("text", "no bundle at all");
    let output = environment.run(&["bundle", "inspect", &environment.path("text")]);
    assert!(output.starts_with("exit 2\n--- stderr\nerror: this is no devstack bundle"), "{output}");
}

#[test]
fn a_bundle_is_for_the_engines_platform_or_the_one_that_is_named() {
    let machine = Platform::linux("s390x");
    let mut environment = TestEnvironment::new();
    let file = bundle(&environment, &machine, 5000);
    let here = environment.run(&["bundle", "load", &file]).replace("arm64", "amd64");
    insta::assert_snapshot!(here, @"
    exit 1
    --- stderr
    error: the bundle is for nodes of linux/s390x, and nodes here are linux/amd64
      hint  make one with --platform linux/amd64, or load this one for other nodes with --platform linux/s390x
    ");
    assert_eq!(blobs(&environment), Vec::<String>::new());
    let named = environment.run(&["bundle", "load", &file, "--platform", "linux/s390x"]);
    assert!(named.starts_with("exit 0\n"), "{named}");

    let engine = CannedEngine::on("s390x");
    environment.set("DOCKER_HOST", engine.host());
    environment.set("DEVSTACK_CACHE", &environment.path("other"));
    let there = environment.run(&["bundle", "load", &file]);
    assert!(there.starts_with("exit 0\n"), "{there}");
}

#[test]
fn an_interruption_ends_at_once_and_leaves_nothing() {
    let environment = TestEnvironment::new();
    let file = bundle(&environment, &amd64(), 50 << 20);
    let load = ["bundle", "load", &file, "--platform", "linux/amd64"];
    let (code, text) = environment.interrupt(&load, || blobs(&environment).len() > 1);
    assert_eq!(code, Some(130), "{text}");
    insta::assert_snapshot!(text, @"
    error: interrupted
      kept  nothing was changed
    ");
    assert_eq!(blobs(&environment), Vec::<String>::new());
}

#[cfg(target_os = "linux")]
#[test]
fn looking_at_what_does_not_come_can_be_interrupted() {
    use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
    let environment = TestEnvironment::new();
    let pipe = environment.path("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    // Without a reader nobody can write into a pipe.
    let writer = std::cell::OnceCell::new();
    let begun = || match open(&pipe, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(file) => writer.set(file).is_ok(),
        Err(_) => false,
    };
    let (code, text) = environment.interrupt(&["bundle", "inspect", &pipe], begun);
    assert_eq!(code, Some(130), "{text}");
    insta::assert_snapshot!(text, @"
    error: interrupted
      kept  nothing was changed
    ");
}

/// Fills a cache with what a machine without registries may have of everything: built images, and some of upstream's.
fn fill(environment: &TestEnvironment) {
    let (store, recipes) = (store(environment), Recipes::builtin().unwrap());
    for recipe in ["node", "mc", "s3www-compat"] {
        image(&store, &recipes.reference(recipe, &amd64()).unwrap(), &amd64(), 1000);
    }
    let kind = Id::parts("kind");
    let (version, input) = (&recipes.get(&kind).unwrap().version, recipes.input(&kind, &amd64()).unwrap());
    image(&store, &format!("{LOCAL_REGISTRY}/tools/kind:{version}-{}", input.short()), &amd64(), 1000);
    for reference in [
        "docker.io/library/traefik:v3.7.13",
        "docker.io/pgsty/mc:RELEASE.2026-09-16T00-00-00Z",
        "docker.io/pgsty/silo:RELEASE.2026-09-16T00-00-00Z",
        "docker.io/pgsty/silo:RELEASE.2026-09-16T00-00-00Z-distroless",
        "quay.io/metallb/controller:v0.16.2",
        "quay.io/metallb/speaker:v0.16.2",
    ] {
        image(&store, reference, &amd64(), 1000);
    }
}

/// The references in a bundle, with the hashes of inputs left out.
fn references(output: &str) -> Vec<String> {
    let value = result(output);
    let images = value["bundle"]["images"].as_array().unwrap_or_else(|| panic!("{output}"));
    let short = |reference: &str| match reference.rsplit_once('-') {
        Some((rest, _)) if reference.starts_with("devstack.local/") => rest.to_owned(),
        _ => reference.to_owned(),
    };
    images.iter().map(|item| short(item["reference"].as_str().unwrap())).collect()
}

#[test]
fn a_substitute_goes_into_a_bundle_with_consent_only() {
    let environment = TestEnvironment::new();
    fill(&environment);
    let file = environment.path("out/s3www.tar");
    environment.write("out/s3www.tar.partial", "the user's own");
    let create = ["bundle", "create", "--offline", "--platform", "linux/amd64", "--kubernetes", "1.34", "-f", &file];
    let refused = environment.run(&create);
    let tag = refused.split("s3www-compat:compat-1-").nth(1).and_then(|rest| rest.get(..12)).unwrap_or_default();
    insta::assert_snapshot!(refused.replace(tag, "[INPUT]"), @"
    exit 5
    --- stderr
    error: consent is missing: Go on
      cause s3www is played by devstack.local/s3www-compat:compat-1-[INPUT], which is not upstream's: built from source earlier, devstack's store has it
      hint  answer with --yes, or run it on a terminal
      kept  nothing changed
    ");
    assert!(!Path::new(&file).exists());

    let old = environment.run(&[&create[..], &["--cpu", "x86-64-v1", "--yes", "-o", "json"]].concat());
    insta::assert_snapshot!(references(&old).join("\n"), @"
    devstack.local/mc:v0.0.0-20250313080218-cf909e1063a9
    devstack.local/node:v1.34.4
    devstack.local/s3www-compat:compat-1
    devstack.local/tools/kind:v0.33.0
    docker.io/library/traefik:v3.7.13
    docker.io/pgsty/silo:RELEASE.2026-09-16T00-00-00Z-distroless
    quay.io/metallb/controller:v0.16.2
    quay.io/metallb/speaker:v0.16.2
    ");
    let mut left = std::fs::read_dir(environment.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.by_ref().count(), 2, "the bundle, and what was there");
    assert_eq!(environment.read("out/s3www.tar.partial"), "the user's own");
    let new = environment.run(&[&create[..], &["--cpu", "x86-64-v2", "--yes", "-o", "json"]].concat());
    assert!(references(&new).contains(&"docker.io/pgsty/silo:RELEASE.2026-09-16T00-00-00Z".to_owned()), "{new}");

    // An image that the user names for `up` is what goes into the bundle.
    image(&store(&environment), "r.example/own:1", &amd64(), 1000);
    let mine = environment.path("out/mine.tar");
    let named = ["--set", "minio.image=r.example/own:1", "-f", &mine, "--yes", "-o", "json"];
    let own = references(&environment.run(&[&create[..7], &named].concat()));
    let of_minio = own.iter().filter(|name| name.contains("own") || name.contains("silo"));
    assert_eq!(of_minio.collect::<Vec<_>>(), ["r.example/own:1"], "{own:?}");

    // The last one is loaded elsewhere, and everything but the hosts' kind is chosen from it.
    let other = TestEnvironment::new();
    let loaded = other.run(&["bundle", "load", &file, "--platform", "linux/amd64"]);
    assert!(loaded.contains("8 images verified and taken into the cache"), "{loaded}");
    let found = resolved(
        &other,
        &["node", "object-store", "mc", "traefik", "s3www", "--cpu", "x86-64-v2", "--kubernetes", "1.34"],
    );
    assert!(found.len() == 5 && found.iter().all(|choice| choice.starts_with("store ")), "{found:?}");
}

#[test]
fn a_bundle_is_not_made_for_nodes_that_the_profile_does_not_work_with() {
    let environment = TestEnvironment::new();
    environment.write(
        "devstack.yaml",
        "apiVersion: devstack/v1\nkind: Profile\nname: demo\ncluster: {kubernetes: '1.33'}\ncomponents: []\n",
    );
    insta::assert_snapshot!(environment.run(&["bundle", "create", "./devstack.yaml", "--kubernetes", "1.34"]), @"
    exit 2
    --- stderr
    error: demo works with Kubernetes 1.33, not with 1.34
      kept  nothing was changed
    ");
}
