//! Two devstacks on one environment.

use std::path::Path;

use devstack::journal::{EnvironmentLock, Holder};

use crate::environment::TestEnvironment;

#[test]
fn the_second_is_refused_and_told_who_works() {
    let environment = TestEnvironment::new();
    environment.write("state/environments/demo/journal.jsonl", "");
    let holder = Holder { pid: 41, verb: "up".to_owned(), since: "2026-11-21T10:00:00Z".to_owned() };
    let dir = environment.path("state/environments/demo");
    let held = EnvironmentLock::take(Path::new(&dir), "demo", &holder).unwrap();
    let (before, lock) = (environment.files(), environment.read("state/environments/demo/lock"));
    insta::assert_snapshot!(environment.run(&["down"]), @"
    exit 1
    --- stderr
    error: another devstack works on environment demo: `devstack up`, process 41, since 2026-11-21T10:00:00Z
      hint  wait for it to end, or stop it, then run the same command again
    ");
    assert_eq!((environment.files(), environment.read("state/environments/demo/lock")), (before, lock));
    held.release();
    let after = environment.run(&["down"]);
    assert!(!after.contains("another devstack"), "{after}");
}
