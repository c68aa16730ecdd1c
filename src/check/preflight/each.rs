//! Every check on a machine where its problem is, and on one where it is not.

use std::collections::BTreeSet;

use super::*;
use crate::check::{Asked, EngineTrouble, ImageNeed, KubeContexts, Needs};
use crate::facts::{CpuLevel, DockerGroup, EngineFacts, Facts, Inotify, Wsl};
use crate::ports::engine::Network;

fn facts(name: &str) -> Facts {
    let path = format!("{}/tests/facts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    crate::facts::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
}

fn network(name: &str, subnet: &str) -> Network {
    Network { name: name.to_owned(), subnets: vec![subnet.to_owned()], ..Network::default() }
}

/// A laptop on which all is well, and everything was asked.
fn well() -> Inputs {
    let Facts { host, engine, .. } = facts("linux-docker");
    let image = ImageNeed {
        role: "minio".to_owned(),
        reference: "docker.io/pgsty/silo:1".to_owned(),
        level: Some(CpuLevel::V2),
        missing: None,
    };
    let server = "https://127.0.0.1:6443".to_owned();
    let mut inputs = Inputs {
        host,
        engine: engine.map(Ok),
        needs: Needs {
            environment: "demo".to_owned(),
            kubernetes_minor: Some(34),
            ports: vec![8080, 8443],
            images: vec![image],
            ..Needs::small()
        },
        networks: Asked::Known(vec![network("bridge", "172.17.0.0/16"), network("devstack-demo", "172.18.0.0/16")]),
        clusters: Asked::Known(BTreeSet::from(["devstack-demo".to_owned()])),
        contexts: Asked::Known(KubeContexts {
            file: "/h/.kube/config".to_owned(),
            current: "devstack-demo".to_owned(),
            servers: [("devstack-demo".to_owned(), server)].into(),
        }),
        environments: vec!["demo".to_owned()],
        hosts_blocks: Asked::Known(vec!["demo".to_owned()]),
        kind: Asked::Known("/usr/bin/kind".to_owned()),
        ..Inputs::default()
    };
    inputs.host.wsl = Wsl::V2;
    inputs.host.wsl_networking = Some("nat".to_owned());
    inputs.host.inotify = Some(Inotify { instances: 512, watches: 524_288 });
    inputs.host.routes = vec!["172.17.0.0/16".to_owned(), "172.18.0.0/16".to_owned()];
    inputs
}

fn engine(inputs: &mut Inputs) -> &mut EngineFacts {
    inputs.engine.as_mut().unwrap().as_mut().unwrap()
}

fn trouble(inputs: &mut Inputs, permission: bool, error: &str) {
    inputs.engine = Some(Err(EngineTrouble { permission, error: error.to_owned() }));
}

/// The same laptop with the problem of one check, and a word of what the check says of it.
fn ill(id: &str) -> (Inputs, &'static str) {
    let mut inputs = well();
    let word = match id {
        "host.wsl1" => {
            inputs.host.wsl = Wsl::V1;
            "no Linux kernel"
        }
        "engine.not-running" => {
            trouble(&mut inputs, false, "connection refused");
            "connection refused"
        }
        "engine.socket-permission" => {
            inputs.host.docker_group = DockerGroup::NextLogin;
            trouble(&mut inputs, true, "permission denied");
            "newgrp docker"
        }
        "engine.windows-containers" => {
            "windows".clone_into(&mut engine(&mut inputs).info.os_type);
            "Switch to Linux containers"
        }
        "engine.remote" => {
            "tcp://10.0.0.5:2376".clone_into(&mut engine(&mut inputs).info.endpoint);
            "tcp://10.0.0.5:2376"
        }
        "engine.api-old" => {
            "1.40".clone_into(&mut engine(&mut inputs).info.api_version);
            "1.41 is the oldest"
        }
        "engine.capabilities" => {
            engine(&mut inputs).missing_capabilities = vec!["CAP_SYS_ADMIN".to_owned(), "CAP_NET_ADMIN".to_owned()];
            "CAP_SYS_ADMIN, CAP_NET_ADMIN"
        }
        "host.cgroup-v1" => {
            "1".clone_into(&mut engine(&mut inputs).info.cgroup_version);
            inputs.needs.kubernetes_minor = Some(35);
            "Kubernetes 1.35 refuses cgroup v1"
        }
        "cpu.x86-64-level" => {
            let cpu = facts("linux-proxmox-kvm64").engine.unwrap().cpu;
            engine(&mut inputs).cpu = cpu;
            "x86-64-v2"
        }
        "image.obtainable" => {
            inputs.needs.images[0].missing = Some("no source has it".to_owned());
            "devstack bundle load"
        }
        "host.disk-full" => {
            inputs.host.disks.get_mut("cache").unwrap().free = 1 << 20;
            "the cache disk has 1"
        }
        "host.memory" => {
            engine(&mut inputs).info.memory = 1 << 30;
            "the engine has 1.0 GiB"
        }
        "host.cpus" => {
            engine(&mut inputs).info.cpus = 1;
            "1 CPU"
        }
        "host.inotify" => {
            inputs.host.inotify = Some(Inotify { instances: 128, watches: 524_288 });
            "max_user_instances 128"
        }
        "host.wsl-mirrored" => {
            inputs.host.wsl_networking = Some("mirrored".to_owned());
            "networkingMode mirrored"
        }
        "port.in-use" => {
            inputs.busy_ports.insert(8443, "container web".to_owned());
            "port 8443"
        }
        "net.subnet-overlap" => {
            inputs.host.routes.push("172.16.0.0/12".to_owned());
            "ip route: 172.16.0.0/12"
        }
        "cluster.kind-missing" => {
            inputs.kind = Asked::Failed("neither `kind` nor `go` is on PATH".to_owned());
            "neither"
        }
        "cluster.context-stale" => {
            inputs.clusters = Asked::Known(BTreeSet::new());
            "devstack-demo leads to a cluster that is gone, and it is the current one"
        }
        "hosts.block-stale" => {
            inputs.hosts_blocks = Asked::Known(vec!["demo".to_owned(), "dead".to_owned()]);
            "lines of dead"
        }
        "state.locked" => {
            inputs.lock_holder = Some("`devstack up`, process 42".to_owned());
            "process 42"
        }
        new => panic!("{new} is not tried here: give it a machine that has its problem"),
    };
    (inputs, word)
}

/// The ids of the checks that found something, and all that they say.
fn found(inputs: &Inputs) -> (Vec<&'static str>, String) {
    let mut ids = Vec::new();
    let mut said = String::new();
    for (check, outcome) in run(inputs, None) {
        match outcome {
            Outcome::Found(findings) => {
                ids.push(check.id);
                for finding in findings {
                    assert!(!finding.remedy.is_empty(), "{} says not what to do", finding.id);
                    assert!(!finding.evidence.is_empty() || finding.id == "host.cpus" || finding.id == "host.memory");
                    said.push_str(&format!("{}\n{}\n{}\n", finding.cause, finding.remedy.join("\n"), finding.evidence));
                }
            }
            Outcome::Crash(reason) => panic!("{} could not look: {reason}", check.id),
            Outcome::Pass(_) | Outcome::Skip(_) => {}
        }
    }
    (ids, said)
}

#[test]
fn where_all_is_well_every_check_looks_and_none_finds_anything() {
    for (check, outcome) in run(&well(), None) {
        assert!(matches!(outcome, Outcome::Pass(_)), "{}: {outcome:?}", check.id);
    }
}

#[test]
fn each_check_finds_its_problem_and_no_other_check_does() {
    for check in CHECKS {
        let (inputs, word) = ill(check.id);
        let (ids, said) = found(&inputs);
        assert_eq!(ids, [check.id]);
        assert!(said.contains(word), "{}: {word:?} is not in\n{said}", check.id);
    }
}

#[test]
fn a_missing_answer_is_told_and_is_no_finding() {
    let late = || "the engine did not answer within 10 s".to_owned();
    let mut inputs = well();
    inputs.networks = Asked::Failed(late());
    inputs.clusters = Asked::Failed(late());
    inputs.hosts_blocks = Asked::Failed("cannot read /etc/hosts".to_owned());
    let crashed: Vec<&str> = run(&inputs, None)
        .into_iter()
        .filter_map(|(check, outcome)| matches!(outcome, Outcome::Crash(_)).then_some(check.id))
        .collect();
    assert_eq!(crashed, ["net.subnet-overlap", "cluster.context-stale", "hosts.block-stale"]);
    assert!(preflight(&inputs).is_empty(), "what could not be looked at stands in nobody's way");
}
