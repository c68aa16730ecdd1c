//! `devstack doctor`, and what `--fix` changes on a machine.

use crate::engine::CannedEngine;
use crate::environment::TestEnvironment;

const HOSTS: &str = "127.0.0.1 localhost\n# devstack gone begin\n127.0.0.1 gone.test\n# devstack gone end\n";

/// A machine with an engine, and the hosts lines of an environment that is gone.
fn machine(engine: &CannedEngine) -> TestEnvironment {
    let mut environment = TestEnvironment::new();
    environment.set("DOCKER_HOST", engine.host());
    environment.write("hosts", HOSTS);
    environment
}

#[test]
fn no_engine_is_named_with_its_address() {
    // Checks of an environment need the engine.
    for id in ["engine.not-running", "env.nodes", "env.workloads"] {
        let output = TestEnvironment::new().run(&["doctor", "--only", id]);
        assert!(output.starts_with("exit 3\n"), "{output}");
        assert!(output.contains("[engine.not-running]"), "{output}");
        assert!(output.contains("unix:///nonexistent/docker.sock"), "{output}");
    }
}

#[test]
fn a_cure_needs_consent() {
    let engine = CannedEngine::start();
    let environment = machine(&engine);
    let only = ["doctor", "--only", "hosts.block-stale"];
    insta::assert_snapshot!(environment.run(&only), @"
    exit 0
    --- stdout
    machine
      ! the hosts file has lines of gone, which is gone  [hosts.block-stale]
          proof  # devstack gone begin
          cure   devstack doctor --fix
          cure   devstack down --env gone
    1 checked, 0 problems, 1 warnings
    ");
    insta::assert_snapshot!(environment.run(&[&only[..], &["--fix"]].concat()), @"
    exit 5
    --- stderr
    error: consent is missing: Cure these
      cause lines of gone out of [ROOT]/hosts
      hint  answer with --yes, or run it on a terminal
      kept  nothing changed
    ");
    assert_eq!(environment.read("hosts"), HOSTS);
}

#[test]
fn a_cure_is_carried_out_and_its_check_run_again() {
    let engine = CannedEngine::start();
    let environment = machine(&engine);
    let fix = ["doctor", "--only", "hosts.block-stale", "--fix", "--yes"];
    insta::assert_snapshot!(environment.run(&fix), @"
    exit 0
    --- stdout
    machine
      ✓ the hosts file is clean                      0 of devstack's blocks
    1 checked, 0 problems, 0 warnings
    cured  lines of gone out of [ROOT]/hosts  [hosts.block-stale]
    ");
    assert_eq!(environment.read("hosts"), "127.0.0.1 localhost\n");
    let state = environment.files().into_iter().filter(|file| file.contains("/environments"));
    assert_eq!(state.collect::<Vec<_>>(), Vec::<String>::new(), "the cure leaves no environment behind");
    insta::assert_snapshot!(environment.run(&fix), @"
    exit 0
    --- stdout
    machine
      ✓ the hosts file is clean                      0 of devstack's blocks
    1 checked, 0 problems, 0 warnings
    nothing here can be cured without you; follow the lines that begin with `cure`
    ");
    environment.write("hosts", HOSTS);
    insta::assert_snapshot!(environment.run(&[&fix[..], &["-o", "json"]].concat()), @r#"
    exit 0
    --- stdout
    {"detail":"0 of devstack's blocks","id":"hosts.block-stale","outcome":"pass","title":"the hosts file is clean","type":"check"}
    {"type":"result","checked":1,"cures":[{"environment":"gone","id":"hosts.block-stale","outcome":"cured","reason":null,"undone_by":null,"what":"lines of gone out of [ROOT]/hosts"}],"findings":[]}
    "#);
}

#[test]
fn lines_that_may_be_in_use_are_left() {
    let environment = TestEnvironment::new();
    environment.write("hosts", HOSTS);
    // No engine tells whether the environment is gone.
    let output = environment.run(&["doctor", "--only", "hosts.block-stale", "--fix", "--yes"]);
    assert!(output.contains("[hosts.block-stale]") && output.contains("nothing here can be cured"), "{output}");
    assert_eq!(environment.read("hosts"), HOSTS);
}

#[test]
fn another_devstack_at_work_is_named_as_long_as_it_is() {
    let environment = TestEnvironment::new();
    let lock = "state/environments/demo/lock";
    environment.write(lock, r#"{"pid":1,"verb":"up","since":"2026-11-21T10:00:00Z"}"#);
    let look = || environment.run(&["doctor", "--only", "state.locked"]);
    let free = look();
    assert!(free.starts_with("exit 0\n"), "process 1 lives, and holds nothing: {free}");
    let file = std::fs::File::open(environment.path(lock)).unwrap();
    file.lock().unwrap();
    let held = look();
    assert!(held.starts_with("exit 3\n") && held.contains("`devstack up`, process 1, since 2026-11-21"), "{held}");
}

#[test]
fn the_helper_sets_no_other_limit_and_no_other_value() {
    let environment = TestEnvironment::new();
    insta::assert_snapshot!(environment.run(&["doctor", "set-limit", "kernel.core_pattern", "1"]), @"
    exit 2
    --- stderr
    error: invalid value 'kernel.core_pattern' for '<LIMIT>': kernel.core_pattern is no limit to set

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(environment.run(&["doctor", "set-limit", "fs.inotify.max_user_watches", "1"]), @"
    exit 2
    --- stderr
    error: 1 is no value for fs.inotify.max_user_watches, which may be 8192 to 4194304
    ");
}
