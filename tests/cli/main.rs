//! The command line as a person and a program meet it: hermetic, in an environment of its own.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not marked as tests")]

mod bundle;
mod doctor;
mod engine;
mod environment;
mod lock;
mod prune;
mod reference;
mod signals;

use environment::TestEnvironment;

#[test]
fn an_unknown_verb_gets_a_suggestion() {
    insta::assert_snapshot!(TestEnvironment::new().run(&["compltions"]), @"
    exit 2
    --- stderr
    error: unrecognized subcommand 'compltions'

      tip: a similar subcommand exists: 'completions'

    Usage: devstack [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn an_unknown_flag_gets_a_suggestion() {
    insta::assert_snapshot!(TestEnvironment::new().run(&["man", "--outpt", "json"]), @"
    exit 2
    --- stderr
    error: unexpected argument '--outpt' found

      tip: a similar argument exists: '--output'

    Usage: devstack man --output <FORMAT>

    For more information, try '--help'.
    ");
}

#[test]
fn a_wrong_command_line_is_json_where_json_was_asked_for() {
    insta::assert_snapshot!(TestEnvironment::new().run(&["-o", "json", "zzz"]), @r#"
    exit 2
    --- stdout
    {"causes":[],"exit":2,"hints":["devstack --help"],"message":"unrecognized subcommand 'zzz'","type":"error"}
    --- stderr
    error: unrecognized subcommand 'zzz'
      hint  devstack --help
    "#);
}

#[test]
fn a_profile_whose_name_is_too_long_for_an_environment_is_refused() {
    let environment = TestEnvironment::new();
    let name = "a".repeat(33);
    environment.write("long.yaml", &format!("apiVersion: devstack/v1\nkind: Profile\nname: {name}\nextends: s3www\n"));
    let path = environment.path("long.yaml");
    insta::assert_snapshot!(environment.run(&["up", &path]), @"
    exit 2
    --- stderr
    error: the profile's name `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` cannot be the environment's: a name has at most 32 characters
      hint  give the environment a name of its own: devstack up --env NAME
    ");
    let named = environment.run(&["up", &path, "--env", "short"]);
    assert!(named.contains("engine") && !named.contains("characters"), "{named}");
}

#[test]
fn values_say_what_is_wrong_with_them() {
    let environment = TestEnvironment::new();
    for (args, expected) in [
        (["env", "--env", "../x"], "'.' is not allowed; a name is made of a-z, 0-9 and -"),
        (["env", "--env", "UPPER"], "'U' is not allowed"),
        (["env", "--timeout", "30"], "write 30s, 5m or 1h30m"),
        (["env", "--timeout", "-1s"], "error:"),
        (["env", "--output", "yaml"], "[possible values: text, json]"),
    ] {
        let output = environment.run(&args);
        assert!(output.starts_with("exit 2\n--- stderr\nerror:") && output.contains(expected), "{args:?}: {output}");
    }
}

#[test]
fn without_an_environment_there_is_nothing_to_point_at() {
    insta::assert_snapshot!(TestEnvironment::new().run(&["env"]), @"
    exit 2
    --- stderr
    error: there is no environment
      hint  devstack up
    ");
}

#[test]
fn several_environments_are_listed() {
    let environment = TestEnvironment::new();
    environment.write("state/environments/one/journal", "");
    environment.write("state/environments/two/kubeconfig", "");
    insta::assert_snapshot!(environment.run(&["env"]), @"
    exit 2
    --- stderr
    error: there are 2 environments: one, two
      hint  choose one with --env one
    ");
    insta::assert_snapshot!(environment.run(&["env", "--env", "two"]), @"
    exit 0
    --- stdout
    export KUBECONFIG='[ROOT]/state/environments/two/kubeconfig'
    ");
    insta::assert_snapshot!(environment.run(&["env", "--env", "one", "-o", "json"]), @r#"
    exit 1
    --- stdout
    {"causes":[],"exit":1,"hints":["devstack up --env one"],"message":"the environment one has no cluster yet","type":"error"}
    --- stderr
    error: the environment one has no cluster yet
      hint  devstack up --env one
    "#);
}

#[test]
fn hosts_are_listed_and_removed() {
    let environment = TestEnvironment::new();
    let before = "127.0.0.1 localhost\n";
    environment.write("hosts", before);
    insta::assert_snapshot!(environment.run(&["hosts", "list"]), @"
    exit 0
    --- stdout
    devstack manages no name in [ROOT]/hosts
    ");
    let file = environment.path("hosts");
    let write = ["hosts", "write-block", "--env", "demo", "--file", &file];
    insta::assert_snapshot!(environment.run_with_input(&write, "127.0.0.1 demo.test\n127.0.0.1 evil.example\n"), @r#"
    exit 2
    --- stderr
    error: "evil.example" is not a lower-case host name below .test or .localhost
    "#);
    insta::assert_snapshot!(environment.run_with_input(&write, "127.0.0.1 demo.test\n"), @"exit 0");
    insta::assert_snapshot!(environment.run(&["hosts", "list"]), @"
    exit 0
    --- stdout
    ENVIRONMENT  ADDRESS    NAME
    demo         127.0.0.1  demo.test
    ");
    insta::assert_snapshot!(environment.run(&["hosts", "remove"]), @"
    exit 0
    --- stdout
    [ROOT]/hosts: the names of demo are gone
    ");
    assert_eq!(environment.read("hosts"), before);
}

#[test]
fn the_helper_writes_no_other_file() {
    let environment = TestEnvironment::new();
    environment.write("passwd", "");
    let file = environment.path("passwd");
    let write = ["hosts", "write-block", "--env", "demo", "--file", &file];
    insta::assert_snapshot!(environment.run_with_input(&write, "127.0.0.1 demo.test\n"), @"
    exit 2
    --- stderr
    error: [ROOT]/passwd is not the hosts file
    ");
    assert_eq!(environment.read("passwd"), "");
}

#[test]
fn completions_and_pages_come_for_every_shell() {
    let environment = TestEnvironment::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = environment.run(&["completions", shell]);
        assert!(output.starts_with("exit 0\n--- stdout\n") && output.contains("devstack"), "{shell}: {output}");
    }
    let page = environment.run(&["man"]);
    assert!(page.contains(".TH devstack 1"), "{page}");
    let dir = environment.path("man");
    environment.run(&["man", "--dir", &dir]);
    assert!(environment.read("man/devstack-hosts-list.1").contains("devstack-hosts-list"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let environment = TestEnvironment::new();
    assert_eq!(environment.run_into_closed_pipe(&["completions", "bash"]), (Some(0), String::new()));
    // Nor does it hide what the command found.
    let found = ["doctor", "--only", "engine.not-running", "-o", "json"];
    assert_eq!(environment.run_into_closed_pipe(&found), (Some(3), String::new()));
}

#[test]
fn colours_come_only_when_asked_for() {
    let mut environment = TestEnvironment::new();
    assert!(!environment.run(&["env"]).contains('\u{1b}'));
    environment.set("CLICOLOR_FORCE", "1");
    assert!(environment.run(&["env"]).contains("\u{1b}[31merror:\u{1b}[0m"));
    assert!(!environment.run(&["env", "--no-color"]).contains('\u{1b}'));
}

#[test]
fn commands_that_only_look_leave_no_file() {
    let environment = TestEnvironment::new();
    for args in [&["env"][..], &["hosts", "list"], &["profile", "list"], &["completions", "bash"], &["hosts", "remove"]]
    {
        environment.run(args);
    }
    assert_eq!(environment.files(), Vec::<String>::new());
}
