//! `devstack image prune`: what it asks, what it removes, what it says.

use std::path::Path;

use devstack::build::Recipes;
use devstack::oci::{Platform, Store};

use crate::bundle::image;
use crate::environment::TestEnvironment;

/// The store of its cache. While it is open, nobody prunes.
fn store(environment: &TestEnvironment) -> Store {
    Store::open(Path::new(&environment.path("cache"))).unwrap()
}

/// A cache with an image of upstream's, one built of a recipe as it is, one of a recipe as it was, and a tool.
fn cache() -> TestEnvironment {
    let environment = TestEnvironment::new();
    let store = store(&environment);
    let here = devstack::build::host_platform();
    let current = Recipes::builtin().unwrap().reference("mc", &here).unwrap();
    for reference in ["docker.io/library/traefik:v3.7.13", &current, "devstack.local/mc:old-0123456789ab"] {
        image(&store, reference, &here, 100_000);
    }
    environment.write("cache/builds/kind-0123456789ab/bin/kind", "a program");
    environment
}

fn references(environment: &TestEnvironment) -> Vec<String> {
    store(environment).references().unwrap().into_iter().map(|(reference, _): (String, Platform)| reference).collect()
}

#[test]
fn everything_goes_with_consent_only() {
    let environment = cache();
    let before = environment.files();
    insta::assert_snapshot!(environment.run(&["image", "prune"]), @"
    exit 5
    --- stderr
    error: consent is missing: Remove them
      cause all cached images, builds and tools
      hint  answer with --yes, or run it on a terminal
      kept  nothing changed
    ");
    let somebody = store(&environment);
    insta::assert_snapshot!(environment.run(&["image", "prune", "--yes"]), @"
    exit 1
    --- stderr
    error: another devstack works with the cache [ROOT]/cache
      hint  run it again when it has ended (`devstack up`, `image build`, `bundle create`); nothing was removed
    ");
    drop(somebody);
    assert_eq!(environment.files(), before);
    insta::assert_snapshot!(environment.run(&["image", "prune", "--yes"]), @"
    exit 0
    --- stdout
    removed 3 images, 1 builds, 0 images of the engine · 308 kB freed
    ");
    assert_eq!(references(&environment), Vec::<String>::new());
    let left: Vec<_> = environment.files().into_iter().filter(|file| file.contains("/sha256/")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(std::fs::read_dir(environment.path("cache/builds")).unwrap().count(), 0);
    insta::assert_snapshot!(environment.run(&["image", "prune", "--yes", "-o", "json"]), @r#"
    exit 0
    --- stdout
    {"type":"result","builds":0,"bytes":0,"engine_images":0,"images":0}
    "#);
}

#[test]
fn what_an_environment_needs_stays_and_nobody_is_asked() {
    let environment = cache();
    environment.write("state/environments/demo/journal.jsonl", "");
    insta::assert_snapshot!(environment.run(&["image", "prune"]), @"
    exit 0
    --- stdout
    removed 1 images, 1 builds, 0 images of the engine · 9 B freed
    ");
    let left = references(&environment);
    assert!(left.len() == 2 && !left.contains(&"devstack.local/mc:old-0123456789ab".to_owned()), "{left:?}");
    let all = environment.run(&["image", "prune", "--all"]);
    assert!(all.starts_with("exit 5\n"), "{all}");
    assert_eq!(references(&environment), left);
}
