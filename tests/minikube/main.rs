//! The contract with minikube: what the recordings of the real program mean to devstack.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use devstack::cluster::minikube::{Known, MinikubeSpec, Reason, Told, known, reason, told};

/// What a recorded command wrote and how it ended.
struct Recording {
    stdout: String,
    stderr: String,
    status: Option<i32>,
}

fn recording(name: &str) -> Recording {
    let read = |kind: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/minikube/recordings/{name}.{kind}"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    Recording { stdout: read("stdout"), stderr: read("stderr"), status: read("exit").trim().parse().ok() }
}

fn reason_of(name: &str) -> Reason {
    let recording = recording(name);
    reason(recording.status, &recording.stdout, &recording.stderr)
}

#[test]
fn every_line_of_a_start_is_an_event() {
    for name in ["dry-run-ok", "kicbase-unreachable", "bad-memory", "bad-cpus", "bad-kubernetes-version", "delete"] {
        let recording = recording(name);
        let lines: Vec<&str> = recording.stdout.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(!lines.is_empty());
        for line in lines {
            assert!(told(line).is_some(), "{name}: {line}");
        }
    }
}

#[test]
fn steps_are_counted() {
    let recording = recording("dry-run-ok");
    let steps: Vec<(u32, u32, String)> = recording
        .stdout
        .lines()
        .filter_map(told)
        .filter_map(|told| match told {
            Told::Step { current, total, name, .. } => Some((current, total, name)),
            _ => None,
        })
        .collect();
    assert_eq!(steps[0], (0, 19, "Initial Minikube Setup".to_owned()));
    assert_eq!(steps[1], (1, 19, "Selecting Driver".to_owned()));
}

#[test]
fn an_error_event_is_no_failure_by_itself() {
    let recording = recording("dry-run-ok");
    let errors = recording.stdout.lines().filter_map(told).filter(|told| matches!(told, Told::Error(_))).count();
    assert!(errors > 0);
    assert_eq!(recording.status, Some(0));
}

#[test]
fn the_reason_is_the_one_that_the_exit_status_belongs_to() {
    for (name, id, exit) in [
        ("root-refused", "DRV_AS_ROOT", 57),
        ("unknown-driver", "DRV_UNSUPPORTED_OS", 56),
        ("kicbase-unreachable", "INET_LOOKUP_HOST", 48),
        // With --force these are only warned of, and it goes on until something else fails.
        ("bad-memory", "INET_LOOKUP_HOST", 48),
        ("bad-cpus", "INET_LOOKUP_HOST", 48),
        ("bad-kubernetes-version", "INET_LOOKUP_HOST", 48),
    ] {
        let reason = reason_of(name);
        assert_eq!((reason.id.as_deref(), reason.exit), (Some(id), Some(exit)), "{name}");
    }
    let error = reason_of("root-refused").into_error();
    assert!(error.to_string().ends_with("[DRV_AS_ROOT]"), "{error}");
    let error = reason_of("kicbase-unreachable").into_error();
    assert!(error.to_string().starts_with("minikube: Failed to start host") && !error.to_string().contains('\n'));
}

#[test]
fn what_is_no_json_still_says_why() {
    let usage = reason_of("unknown-flag");
    assert_eq!((usage.message.as_str(), usage.exit, usage.id), ("unknown flag: --no-such-flag", Some(14), None));
    assert_eq!(reason(Some(1), "", "").message, "it said nothing");
    let templated = r#"{"type":"io.k8s.sigs.minikube.error","data":{"name":"X","exitcode":"1","message":"m","advice":"run {{.command}}"}}"#;
    assert_eq!(reason(Some(1), templated, "").advice, None);
}

#[test]
fn a_profile_is_known_by_its_name_alone() {
    let list = recording("profile-list-after-failure");
    assert_eq!((list.status, list.stderr.is_empty()), (Some(0), false));
    let kubernetes = Some("v1.34.4".to_owned());
    assert_eq!(known(&list.stdout, "minikube"), Some(Known { running: false, nodes: 1, kubernetes }));
    assert_eq!(known(&list.stdout, "devstack-demo"), None);
    assert_eq!(known(&recording("profile-list-empty").stdout, "minikube"), None);
    // Exit status 0 without any JSON, and JSON that is none.
    assert_eq!(known("", "minikube"), None);
    assert_eq!(known(&recording("status-after-failure").stdout, "minikube"), None);
}

fn words(cmd: &devstack::ports::runner::Cmd) -> String {
    cmd.args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn it_is_asked_for_events_and_for_no_addon() {
    let spec = MinikubeSpec {
        program: PathBuf::from("minikube"),
        name: "devstack-demo".to_owned(),
        nodes: 2,
        driver: Some("kvm2".to_owned()),
        kubernetes: "1.34".to_owned(),
    };
    let start = spec.start(Path::new("/state/kubeconfig"));
    assert_eq!(
        words(&start),
        "start --output json --interactive=false --keep-context --profile devstack-demo --nodes 2 --driver kvm2 \
         --kubernetes-version v1.34"
    );
    assert!(start.env.iter().any(|(name, value)| name == "KUBECONFIG" && value == "/state/kubeconfig"));
    let own = MinikubeSpec { driver: None, kubernetes: "auto".to_owned(), ..spec.clone() };
    assert!(!words(&own.start(Path::new("/k"))).contains("--driver"));
    assert_eq!(words(&spec.load(Path::new("/a.tar"))), "image load --profile devstack-demo /a.tar");
    assert_eq!(words(&spec.delete(Path::new("/k"))), "delete --output json --profile devstack-demo");
    for cmd in [spec.start(Path::new("/k")), spec.load(Path::new("/a.tar")), spec.images(), spec.profiles()] {
        assert!(!words(&cmd).contains("addon") && !words(&cmd).contains("metallb"));
    }
}
