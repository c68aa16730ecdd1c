//! Tests of the journal.

use super::*;

fn intent(step: &str, undo: Undo) -> String {
    serde_json::to_string(&Record::Intent { step: step.to_owned(), undo: vec![undo] }).unwrap()
}

fn network(name: &str) -> Undo {
    Undo::EngineNetwork { name: name.to_owned() }
}

fn pending(text: &str) -> Vec<Undo> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal.jsonl"), text).unwrap();
    let journal = Journal::open(dir.path(), Arc::new(crate::ports::hostfs::RealFs)).unwrap();
    journal.pending().into_iter().map(|(_, undo)| undo).collect()
}

#[test]
fn a_torn_last_line_is_dropped_and_everything_before_it_holds() {
    let whole = format!("{}\n{}\n", intent("a", network("one")), intent("b", network("two")));
    for cut in 0..whole.len() {
        let text = &whole[..cut];
        let complete = text.matches('\n').count();
        let found = pending(text);
        // A line is complete also where only its newline is missing.
        assert!(found.len() == complete || found.len() == complete + 1, "cut at {cut}: {found:?}");
    }
}

#[test]
fn an_append_after_a_torn_line_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = intent("a", network("one"));
    let torn = &intent("b", network("two"))[..20];
    std::fs::write(dir.path().join("journal.jsonl"), format!("{first}\n{torn}")).unwrap();
    let fs: Arc<dyn HostFs> = Arc::new(crate::ports::hostfs::RealFs);
    let journal = Journal::open(dir.path(), fs.clone()).unwrap();
    journal.append(Record::Intent { step: "c".to_owned(), undo: vec![network("three")] }).unwrap();
    let again = Journal::open(dir.path(), fs).unwrap();
    let undo: Vec<Undo> = again.pending().into_iter().map(|(_, undo)| undo).collect();
    assert_eq!(undo, [network("three"), network("one")]);
}

#[test]
fn what_a_power_cut_left_of_a_line_never_becomes_damage() {
    let (first, second) = (intent("a", network("one")), intent("b", network("two")));
    let cut = |bytes: usize| second.as_bytes()[..bytes].to_vec();
    let nuls = |bytes: usize| vec![0; bytes];
    // Blocks that never reached the disk read as NULs, to the end of the line, before it, or as all of it.
    let mut tails: Vec<Vec<u8>> = (1..second.len()).map(cut).collect();
    tails.extend([
        nuls(512),
        [cut(20), nuls(100)].concat(),
        [nuls(20), second.as_bytes()[20..].to_vec(), b"\n".to_vec()].concat(),
        [nuls(20), b"\n".to_vec()].concat(),
    ]);
    for tail in tails {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("journal.jsonl");
        std::fs::write(&file, [first.as_bytes(), b"\n", &tail].concat()).unwrap();
        let fs: Arc<dyn HostFs> = Arc::new(crate::ports::hostfs::RealFs);
        let journal = Journal::open(dir.path(), fs.clone()).unwrap();
        for name in ["three", "four"] {
            journal.append(Record::Intent { step: "c".to_owned(), undo: vec![network(name)] }).unwrap();
        }
        let expected = [&first, &intent("c", network("three")), &intent("c", network("four"))];
        let lines: String = expected.iter().map(|line| format!("{line}\n")).collect();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), lines, "after {:?}", String::from_utf8_lossy(&tail));
        assert_eq!(Journal::open(dir.path(), fs).unwrap().pending().len(), 3);
    }
}

#[test]
fn a_line_that_only_lacks_its_end_is_kept_by_the_next_append() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("journal.jsonl"), intent("a", network("one"))).unwrap();
    let fs: Arc<dyn HostFs> = Arc::new(crate::ports::hostfs::RealFs);
    let journal = Journal::open(dir.path(), fs.clone()).unwrap();
    journal.append(Record::Intent { step: "b".to_owned(), undo: vec![network("two")] }).unwrap();
    let undo: Vec<Undo> = Journal::open(dir.path(), fs).unwrap().pending().into_iter().map(|(_, undo)| undo).collect();
    assert_eq!(undo, [network("two"), network("one")]);
}

#[test]
fn an_append_that_failed_halfway_leaves_nothing_to_the_next_one() {
    use crate::ports::fake::{FakeFs, Fault};
    let (fs, dir) = (FakeFs::default(), Path::new("/state/environments/demo"));
    let journal = Journal::open(dir, Arc::new(fs.clone())).unwrap();
    let record = |name: &str| Record::Intent { step: "a".to_owned(), undo: vec![network(name)] };
    journal.append(record("one")).unwrap();
    fs.break_at(0, Fault::Full);
    assert!(journal.append(record("two")).is_err() && journal.append(record("two")).is_err());
    fs.repair();
    journal.append(record("three")).unwrap();
    journal.append(record("four")).unwrap();
    let text = fs.text(dir.join("journal.jsonl")).unwrap();
    let lines = ["one", "three", "four"].map(|name| format!("{}\n", intent("a", network(name))));
    assert_eq!(text, lines.concat());
}

#[test]
fn what_can_be_read_of_a_damaged_journal_is_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    let (first, last) = (intent("a", network("one")), intent("b", network("two")));
    let text = format!("\0\0\0\n{first}\n{{\"record\":\"nonsense\"}}\n{last}\n{}", &last[..9]);
    std::fs::write(dir.path().join("journal.jsonl"), text).unwrap();
    let fs: Arc<dyn HostFs> = Arc::new(crate::ports::hostfs::RealFs);
    let (journal, damage) = Journal::salvage(dir.path(), fs.clone()).unwrap();
    assert!(matches!(damage, Some(JournalError::Damaged { line: 1, .. })), "{damage:?}");
    assert_eq!(journal.pending().len(), 2);
    // What is appended is read again, and the damage stays what it was.
    journal.append(Record::Undone { step: "a".to_owned(), undo: network("one") }).unwrap();
    let (journal, damage) = Journal::salvage(dir.path(), fs.clone()).unwrap();
    assert_eq!((journal.pending().len(), damage.is_some()), (1, true));
    assert!(matches!(Journal::open(dir.path(), fs), Err(JournalError::Damaged { line: 1, .. })));
}

#[test]
fn what_is_to_be_taken_back_tells_the_provider_where_its_record_is_lost() {
    let of = |text: String| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("journal.jsonl"), text).unwrap();
        Journal::salvage(dir.path(), Arc::new(crate::ports::hostfs::RealFs)).unwrap().0.provider()
    };
    let objects = Undo::KubeObjects { kubeconfig: "/k".into(), context: "devstack-x".to_owned(), objects: Vec::new() };
    assert_eq!(of(String::new()), None);
    assert_eq!(of(intent("a", objects)), Some(Provider::Existing));
    assert_eq!(of(intent("a", network("one"))), Some(Provider::Kind));
    assert_eq!(of(intent("a", Undo::MinikubeCluster { name: "x".to_owned() })), Some(Provider::Minikube));
    assert_eq!(of(intent("a", Undo::File { path: "/f".into() })), None);
}

#[test]
fn a_damaged_line_in_the_middle_is_refused_with_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let line = intent("a", network("one"));
    std::fs::write(dir.path().join("journal.jsonl"), format!("{line}\n{{\"record\":\"nonsense\"}}\n{line}\n")).unwrap();
    let error = Journal::open(dir.path(), Arc::new(crate::ports::hostfs::RealFs)).map(drop).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { line: 2, .. }), "{error}");
}

#[test]
fn a_newer_format_names_the_devstack_that_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let line = r#"{"record":"opened","version":2,"devstack":"3.1.0","environment":"x"}"#;
    std::fs::write(dir.path().join("journal.jsonl"), format!("{line}\n")).unwrap();
    let error = Journal::open(dir.path(), Arc::new(crate::ports::hostfs::RealFs)).map(drop).unwrap_err();
    assert!(error.to_string().contains("written by devstack 3.1.0"), "{error}");
}

#[test]
fn a_full_or_read_only_directory_is_refused_before_anything_begins() {
    use crate::ports::fake::{FakeFs, Fault};
    let (fs, dir) = (FakeFs::default(), Path::new("/state/environments/demo"));
    make_room(&fs, dir).unwrap();
    assert!(fs.snapshot().is_empty());
    for (fault, word) in [(Fault::Full, "make room (df -h /state/environments/demo)"), (Fault::ReadOnly, "writable")] {
        fs.break_at(0, fault);
        let error = make_room(&fs, dir).unwrap_err();
        assert!(error.to_string().starts_with("cannot write to /state/environments/demo/"), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains(word) && hint.contains("DEVSTACK_HOME=DIR"), "{hint}");
        fs.repair();
        assert!(fs.snapshot().is_empty());
    }
}

#[test]
fn an_environment_is_bound_to_its_cluster_until_that_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), Arc::new(crate::ports::hostfs::RealFs)).unwrap();
    let done = |outputs| Record::Done { step: "api".to_owned(), outputs };
    let cluster = Undo::KindCluster { name: "devstack-x".to_owned() };
    let intent = Record::Intent { step: "cluster".to_owned(), undo: vec![cluster.clone()] };
    let known = serde_json::json!({"server": "https://s", "cluster": {"uid": "1", "server": "https://s"}});
    assert_eq!(journal.cluster(), None);
    journal.append(intent.clone()).unwrap();
    // An older devstack recorded no cluster.
    journal.append(done(serde_json::json!({"server": "https://s"}))).unwrap();
    assert_eq!(journal.cluster(), None);
    journal.append(done(known.clone())).unwrap();
    journal.append(done(serde_json::json!({"objects": 3}))).unwrap();
    assert_eq!(journal.cluster().unwrap().uid, "1");
    journal.append(intent).unwrap();
    assert_eq!(journal.cluster(), None, "it is made anew");
    journal.append(done(known)).unwrap();
    journal.append(Record::Undone { step: "cluster".to_owned(), undo: cluster }).unwrap();
    assert_eq!(journal.cluster(), None, "it was removed");
}

#[test]
fn undone_things_are_not_pending() {
    let undone = serde_json::to_string(&Record::Undone { step: "a".to_owned(), undo: network("one") }).unwrap();
    let text = format!("{}\n{}\n{undone}\n", intent("a", network("one")), intent("b", network("two")));
    assert_eq!(pending(&text), [network("two")]);
}
