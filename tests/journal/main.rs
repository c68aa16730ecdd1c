//! Journals of the past are read as on the day they were written (see `README.md` beside them).

#![allow(clippy::unwrap_used, reason = "helpers of tests are not marked as tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use devstack::journal::{Journal, JournalError, Record, Undo, VERSION};
use devstack::ports::hostfs::RealFs;
use devstack::ports::kube::ObjectKey;
use sha2::{Digest as _, Sha256};

/// Every file and its digest. A line may be added, and none changed.
const FROZEN: [(&str, &str); 8] = [
    ("v1-complete.jsonl", "486a0852ea9de82edaf2f8006b4accb56e57f8a775a28e3d85c8fc5119d45bad"),
    ("v1-every-undo.jsonl", "10f0261e9635676a2728c009d148c954046e5f87ae0026303b4a8c6eea039efd"),
    ("v1-half-made.jsonl", "25606455067ddf889bf33009025b23bdff2139f7f260a934a8fcb026a0f1e94c"),
    ("v1-kernel-limit.jsonl", "5682757f10e9169be388841af6a1fdf322790cdfe97d28b64ed250e02c78007a"),
    ("v1-resumed.jsonl", "b0981fa1574616aa6f8754edf07b4816cf424a859acb54de361375411376e26c"),
    ("v1-torn.jsonl", "2a5311ab24317768f78b1bc44580c8888f7a98f54f1257da63424b6d25cad183"),
    ("v1-undone.jsonl", "a474ff8ac052120fff2642580cb27cf853d624f0efadd800e8da5207451e3189"),
    ("v2-newer.jsonl", "9ee12550bd04073108bf32ccf1159d81e5d42ffc67fa000a616e9960cfb8442b"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journal")
}

/// A fixture as the journal of an environment's directory, and the directory.
fn open(name: &str) -> (tempfile::TempDir, Result<Journal, JournalError>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join(name), dir.path().join("journal.jsonl")).unwrap();
    let journal = Journal::open(dir.path(), Arc::new(RealFs));
    (dir, journal)
}

/// What is to be undone, newest first, as a person is told.
fn pending(journal: &Journal) -> Vec<String> {
    journal.pending().into_iter().map(|(step, undo)| format!("{step}: {undo}")).collect()
}

#[test]
fn no_fixture_was_edited_or_removed() {
    let mut files: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jsonl"))
        .collect();
    files.sort();
    assert_eq!(files, FROZEN.map(|(name, _)| name), "a fixture is missing here, or its digest above");
    for (name, digest) in FROZEN {
        let found: String = Sha256::digest(std::fs::read(fixtures().join(name)).unwrap())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(found, digest, "{name} was edited; add a new fixture instead");
    }
}

#[test]
fn a_complete_environment_is_known_by_all_it_has() {
    let (_dir, journal) = open("v1-complete.jsonl");
    let journal = journal.unwrap();
    let opened = journal.opened().unwrap();
    assert_eq!((opened.version, opened.devstack.as_str(), opened.environment.as_str()), (1, "0.1.0", "s3www"));
    assert_eq!((opened.profile.as_str(), opened.provider.as_str(), opened.nodes), ("s3www", "kind", Some(2)));
    assert_eq!(opened.sets, [("host".to_owned(), "shop".to_owned())]);
    assert_eq!((opened.ports["http"], opened.ports["https"], opened.context), (8080, 8443, None));
    assert!(journal.is_ready() && !journal.is_empty());
    let outputs = journal.outputs();
    assert_eq!(outputs["cluster"]["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(outputs["network"]["pool"], "172.18.255.201-172.18.255.250");
    assert_eq!(outputs["content.site"]["keys"][0], "site.gif");
    assert_eq!(
        pending(&journal),
        [
            "hosts: hosts lines of s3www",
            "kube-context: kubeconfig context devstack-s3www",
            "cluster: kind cluster devstack-s3www",
            "network: network devstack-s3www",
        ]
    );
}

#[test]
fn a_half_made_environment_has_no_cluster_and_all_undos() {
    let (_dir, journal) = open("v1-half-made.jsonl");
    let journal = journal.unwrap();
    assert!(!journal.is_ready());
    assert!(!journal.outputs().contains_key("cluster"));
    assert_eq!(
        pending(&journal),
        [
            "kube-context: kubeconfig context devstack-s3www",
            "cluster: kind cluster devstack-s3www",
            "network: network devstack-s3www",
        ]
    );
}

#[test]
fn what_was_undone_is_not_undone_again() {
    let (_dir, journal) = open("v1-undone.jsonl");
    let journal = journal.unwrap();
    assert_eq!(pending(&journal), ["cluster: kind cluster devstack-s3www", "network: network devstack-s3www"]);
    assert!(!journal.outputs().contains_key("hosts"));
}

#[test]
fn a_torn_line_is_a_change_that_never_began_and_the_next_append_ends_it() {
    let (dir, journal) = open("v1-torn.jsonl");
    let journal = journal.unwrap();
    let before = ["cluster: kind cluster devstack-s3www", "network: network devstack-s3www"];
    assert_eq!(pending(&journal), before);
    let undo = Undo::File { path: "/home/ada/x".into() };
    journal.append(Record::Intent { step: "x".to_owned(), undo: vec![undo] }).unwrap();
    let again = Journal::open(dir.path(), Arc::new(RealFs)).unwrap();
    assert_eq!(pending(&again), ["x: file /home/ada/x", before[0], before[1]]);

    let (_dir, journal) = open("v1-resumed.jsonl");
    let journal = journal.unwrap();
    assert_eq!(pending(&journal), ["kube-context: kubeconfig context devstack-s3www", before[0], before[1]]);
    assert_eq!(journal.opened().unwrap().at, "2026-11-20T10:01:00Z");
}

#[test]
fn each_kind_of_undo_keeps_its_meaning() {
    let (_dir, journal) = open("v1-every-undo.jsonl");
    let journal = journal.unwrap();
    let opened = journal.opened().unwrap();
    assert_eq!((opened.provider.as_str(), opened.context.as_deref(), opened.nodes), ("existing", Some("work"), None));
    assert!(opened.sets.is_empty() && opened.ports.is_empty());
    let name = || "devstack-team".to_owned();
    let kubeconfig = PathBuf::from("/home/ada/.kube/config");
    let key = |api_version: &str, kind: &str, namespace: Option<&str>| ObjectKey {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.map(str::to_owned),
        name: "s3www".to_owned(),
    };
    let undos: Vec<Undo> = journal.pending().into_iter().rev().map(|(_, undo)| undo).collect();
    assert_eq!(
        undos,
        [
            Undo::EngineNetwork { name: name() },
            Undo::KindCluster { name: name() },
            Undo::MinikubeCluster { name: name() },
            Undo::KubeContext { file: kubeconfig.clone(), name: name() },
            Undo::HostsBlock { file: "/etc/hosts".into(), environment: "team".to_owned() },
            Undo::File { path: "/home/ada/.local/state/devstack/environments/team/ca.pem".into() },
            Undo::KubeObjects {
                kubeconfig,
                context: "work".to_owned(),
                objects: vec![
                    (key("v1", "Namespace", None), None),
                    (
                        key("apps/v1", "Deployment", Some("s3www")),
                        Some("6f9619ff-8b86-d011-b42d-00cf4fc964ff".to_owned()),
                    ),
                ],
            },
        ]
    );
}

#[test]
fn a_raised_limit_is_given_back_what_it_was() {
    let (_dir, journal) = open("v1-kernel-limit.jsonl");
    assert_eq!(
        pending(&journal.unwrap()),
        [
            "doctor: kernel limit fs.inotify.max_user_watches, back to 65536",
            "doctor: kernel limit fs.inotify.max_user_instances, back to 128",
        ]
    );
}

#[test]
fn a_newer_format_is_refused_with_the_devstack_that_reads_it() {
    let (_dir, journal) = open("v2-newer.jsonl");
    match journal.map(drop).unwrap_err() {
        JournalError::Newer { version, written_by, .. } => {
            assert_eq!((version, written_by.as_str()), (u64::from(VERSION) + 1, "3.1.0"));
        }
        other => panic!("{other}"),
    }
}
