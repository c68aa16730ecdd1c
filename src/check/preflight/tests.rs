//! Each rule on the facts it is made for.

use std::collections::BTreeSet;

use super::*;
use crate::check::{Asked, EngineTrouble, ImageNeed, KubeContexts, Needs};
use crate::facts::{CpuLevel, Facts};
use crate::ports::engine::Network;

fn inputs(name: &str) -> Inputs {
    let path = format!("{}/tests/facts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let Facts { host, engine, .. } = crate::facts::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap();
    Inputs { host, engine: engine.map(Ok), needs: Needs::small(), ..Inputs::default() }
}

fn ids(inputs: &Inputs) -> Vec<String> {
    let severity = |finding: &Finding| if finding.is_problem() { "" } else { " (warning)" };
    preflight(inputs).iter().map(|finding| format!("{}{}", finding.id, severity(finding))).collect()
}

#[test]
fn machines_that_are_not_at_hand() {
    let table: [(&str, &[&str]); 10] = [
        ("linux-docker", &["host.inotify (warning)"]),
        ("linux-old-docker", &["engine.api-old", "host.inotify (warning)"]),
        ("linux-remote-engine", &["engine.remote", "host.inotify (warning)"]),
        ("linux-dev-container", &["engine.remote (warning)", "host.inotify (warning)"]),
        ("wsl1", &["host.wsl1"]),
        ("linux-sandbox", &["engine.capabilities (warning)", "host.inotify (warning)"]),
        ("macos-docker-desktop-arm64", &[]),
        ("windows-containers", &["engine.windows-containers"]),
        ("wsl2-mirrored-docker-ce", &["host.inotify (warning)", "host.wsl-mirrored (warning)"]),
        ("macos-orbstack", &[]),
    ];
    for (name, expected) in table {
        assert_eq!(ids(&inputs(name)), expected, "{name}");
    }
}

#[test]
fn an_engine_elsewhere_is_told_by_its_endpoint() {
    let near = [
        "unix:///var/run/docker.sock",
        "npipe:////./pipe/docker_engine",
        "tcp://localhost:2375",
        "tcp://127.0.0.1:2375",
        "tcp://[::1]:2375",
    ];
    let far = ["tcp://10.0.0.5:2376", "ssh://anna@buildbox", "http://buildbox:2375", "tcp://[2001:db8::1]:2375"];
    for (endpoint, expected) in near.map(|one| (one, false)).into_iter().chain(far.map(|one| (one, true))) {
        let mut inputs = inputs("linux-docker");
        inputs.engine.as_mut().unwrap().as_mut().unwrap().info.endpoint = endpoint.to_owned();
        assert_eq!(ids(&inputs).contains(&"engine.remote".to_owned()), expected, "{endpoint}");
    }
}

#[test]
fn one_root_cause_is_one_red_line() {
    let mut inputs = inputs("linux-docker");
    let trouble = EngineTrouble { permission: false, error: "no container engine answers at unix:///x".to_owned() };
    inputs.engine = Some(Err(trouble));
    inputs.networks = Asked::Failed("no engine".to_owned());
    assert_eq!(ids(&inputs), ["engine.not-running", "host.inotify (warning)"]);
    let skipped = run(&inputs, None).into_iter().filter(|(_, outcome)| matches!(outcome, Outcome::Skip(_))).count();
    assert!(skipped >= 8, "{skipped} checks wait for the engine");
    assert_eq!(refusal(&preflight(&inputs)).unwrap().exit, ExitCode::Failed);
}

#[test]
fn a_refused_account_ends_with_the_consent_code() {
    let mut inputs = inputs("linux-docker");
    inputs.host.docker_group = crate::facts::DockerGroup::Outside;
    inputs.engine = Some(Err(EngineTrouble { permission: true, error: "this account may not use it".to_owned() }));
    let failure = refusal(&preflight(&inputs)).unwrap();
    assert_eq!(failure.exit, ExitCode::Consent);
    insta::assert_snapshot!(failure.render(), @"
    error: this account may not use the engine
      cause [engine.socket-permission]
      proof this account may not use it
      hint  sudo usermod -aG docker anna
      hint  then log in again, or for this shell only: newgrp docker
      hint  an engine without root: dockerd-rootless-setuptool.sh install
      kept  nothing was changed
    ");
}

#[test]
fn what_a_plan_needs() {
    let image = |level, missing: Option<&str>| ImageNeed {
        role: "minio".to_owned(),
        reference: "docker.io/pgsty/silo:1".to_owned(),
        level,
        missing: missing.map(str::to_owned),
    };
    let gib = 1 << 30;
    let table: Vec<(&str, Needs, &[&str])> = vec![
        ("linux-docker", Needs { memory: 64 * gib, ..Needs::default() }, &["host.memory", "host.inotify (warning)"]),
        (
            "linux-docker",
            Needs { cache_disk: 900 * gib, ..Needs::default() },
            &["host.disk-full", "host.inotify (warning)"],
        ),
        (
            "linux-sandbox",
            Needs { kubernetes_minor: Some(36), ..Needs::default() },
            &["host.cgroup-v1", "engine.capabilities (warning)", "host.inotify (warning)"],
        ),
        (
            "linux-proxmox-kvm64",
            Needs { images: vec![image(Some(CpuLevel::V2), None)], ..Needs::default() },
            &["cpu.x86-64-level", "host.inotify (warning)"],
        ),
        (
            "linux-arm64",
            Needs { images: vec![image(Some(CpuLevel::V4), None)], ..Needs::default() },
            &["host.inotify (warning)"],
        ),
        (
            "macos-orbstack",
            Needs { images: vec![image(None, Some("manifest unknown: manifest unknown"))], ..Needs::default() },
            &["image.manifest-unknown"],
        ),
        (
            "macos-orbstack",
            Needs { images: vec![image(None, Some("no source has it"))], ..Needs::default() },
            &["image.obtainable"],
        ),
        ("macos-colima-rosetta", Needs { cpus: 4, ..Needs::default() }, &["host.cpus (warning)"]),
    ];
    for (name, needs, expected) in table {
        let case = format!("{name} {needs:?}");
        assert_eq!(ids(&Inputs { needs, ..inputs(name) }), expected, "{case}");
    }
}

#[test]
fn the_hypervisor_that_hides_flags_is_named() {
    let mut inputs = inputs("linux-proxmox-kvm64");
    inputs.needs.images =
        vec![ImageNeed { level: Some(CpuLevel::V2), reference: "a:b".to_owned(), ..ImageNeed::default() }];
    let findings = preflight(&inputs);
    assert!(findings[0].evidence.starts_with("missing: ") && findings[0].evidence.contains("popcnt"));
    assert!(findings[0].remedy.iter().any(|remedy| remedy.contains("`host`")), "{:?}", findings[0].remedy);
}

#[test]
fn ports_locks_and_kind() {
    let mut inputs = inputs("macos-orbstack");
    inputs.needs.ports = vec![8080, 8443];
    assert_eq!(ids(&inputs), Vec::<String>::new());
    inputs.busy_ports.insert(8443, "python3, process 4711".to_owned());
    inputs.lock_holder = Some("`devstack up`, process 42".to_owned());
    inputs.kind = Asked::Failed("`go` is not installed".to_owned());
    assert_eq!(ids(&inputs), ["port.in-use", "cluster.kind-missing", "state.locked"]);
}

#[test]
fn networks_that_overlap_a_vpn() {
    let mut inputs = inputs("linux-docker");
    inputs.host.inotify = None;
    let network = |name: &str, subnet: &str| Network {
        name: name.to_owned(),
        subnets: vec![subnet.to_owned(), "fc00:f853::/64".to_owned()],
        ..Network::default()
    };
    inputs.networks = Asked::Known(vec![network("bridge", "172.17.0.0/16"), network("devstack-a", "172.18.0.0/16")]);
    inputs.host.routes = vec!["172.17.0.0/16".to_owned(), "172.18.0.0/16".to_owned()];
    assert_eq!(ids(&inputs), Vec::<String>::new(), "the engine's own bridges are no conflict");
    inputs.host.routes.push("172.16.0.0/12".to_owned());
    assert_eq!(ids(&inputs), ["net.subnet-overlap"]);
    inputs.needs.subnets = vec!["10.201.0.0/24".to_owned()];
    assert_eq!(ids(&inputs), Vec::<String>::new());
}

#[test]
fn overlaps() {
    let table = [
        ("172.18.0.0/16", "172.18.5.0/24", true),
        ("172.18.0.0/16", "172.19.0.0/16", false),
        ("0.0.0.0/0", "10.0.0.0/8", true),
        ("10.0.0.1/32", "10.0.0.1/32", true),
        ("fc00::/7", "fc00::/7", false),
        ("nonsense", "10.0.0.0/8", false),
        ("10.0.0.0/99", "10.0.0.0/8", false),
    ];
    for (a, b, expected) in table {
        assert_eq!(rules::overlap(a, b), expected, "{a} {b}");
        assert_eq!(rules::overlap(b, a), expected, "{b} {a}");
    }
}

#[test]
fn stale_contexts_and_hosts_lines() {
    let mut inputs = inputs("macos-orbstack");
    inputs.clusters = Asked::Known(BTreeSet::from(["devstack-live".to_owned()]));
    let server = "https://127.0.0.1:6443".to_owned();
    inputs.contexts = Asked::Known(KubeContexts {
        file: "/h/.kube/config".to_owned(),
        current: "kind-old".to_owned(),
        servers: ["devstack-live", "devstack-dead", "kind-old", "production"]
            .map(|name| (name.to_owned(), server.clone()))
            .into(),
    });
    inputs.environments = vec!["live".to_owned()];
    inputs.hosts_blocks = Asked::Known(vec!["live".to_owned(), "dead".to_owned()]);
    let findings = preflight(&inputs);
    let told: Vec<(&str, bool)> = findings.iter().map(|finding| (finding.cause.as_str(), finding.fixable)).collect();
    assert_eq!(
        told,
        [
            ("kubeconfig context devstack-dead leads to a cluster that is gone", true),
            ("kubeconfig context kind-old leads to a cluster that is gone, and it is the current one", false),
            ("the hosts file has lines of dead, which is gone", true),
        ]
    );
    assert!(refusal(&findings).is_none(), "warnings stand in nobody's way");
}

#[test]
fn only_one_check_and_what_it_needs() {
    let inputs = inputs("linux-docker");
    let names = |only| run(&inputs, only).iter().map(|(check, _)| check.id).collect::<Vec<_>>();
    assert_eq!(names(Some("host.inotify")), ["host.inotify"]);
    assert_eq!(
        names(Some("host.cgroup-v1")),
        ["host.wsl1", "engine.not-running", "engine.socket-permission", "engine.windows-containers", "host.cgroup-v1"]
    );
    assert_eq!(names(Some("no.such")), Vec::<&str>::new());
    // Those of an environment need some of the machine's.
    let engine = ["host.wsl1", "engine.not-running", "engine.socket-permission"];
    for id in ["env.nodes", "env.endpoints", "env.leftovers"] {
        assert_eq!(names(Some(id)), engine, "{id}");
    }
    let more = ["env.endpoints", "env.workloads", "env.api", "env.nodes", "engine.socket-permission"];
    assert_eq!(needed_for("env.endpoints")[..5], more);
}

#[test]
fn the_table_is_in_order() {
    let mut seen = BTreeSet::new();
    for check in CHECKS {
        assert!(check.needs.iter().all(|need| seen.contains(need)), "{} comes too early", check.id);
        assert!(seen.insert(check.id), "{} is there twice", check.id);
    }
    for check in ENVIRONMENT_CHECKS {
        assert!(check.needs.iter().all(|need| seen.contains(need)), "{} comes too early", check.id);
        assert!(seen.insert(check.id), "{} is there twice", check.id);
    }
}
