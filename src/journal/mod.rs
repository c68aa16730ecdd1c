//! The write-ahead journal of an environment: every change on the host and the cluster, recorded with its complete
//! undo before it is made.
//!
//! One JSON line a record, appended and synced. A torn last line (a kill or a full disk in the middle of an append)
//! belongs to a change that was never begun and is dropped. `down` needs nothing but these lines, and not even them:
//! what carries the environment's label or reserved name is found without a journal.

mod lock;
mod record;
mod undo;

pub use lock::{EnvironmentLock, Holder, lock_holder};
pub use record::{Opened, Record};
pub use undo::Undo;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::cluster::guard::Identity;
use crate::error::{Advise, ExitCode, advice_on_writing};
use crate::ports::HostFs;

/// The version of the format that this devstack writes. Older ones are read; newer ones are refused.
pub const VERSION: u32 = 1;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `read`, `append to`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// A line that is not the last one does not parse.
    #[error("{}:{line} is not a journal record: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        reason: String,
    },
    /// It was written by a newer devstack.
    #[error(
        "{} was written by devstack {written_by} in format {version}; this devstack reads up to format {VERSION}",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u64,
        /// The devstack that can read it.
        written_by: String,
    },
    /// Another devstack works on the environment.
    #[error("another devstack works on environment {environment}: {holder}")]
    Locked {
        /// The environment.
        environment: String,
        /// Who holds the lock.
        holder: Holder,
    },
}

impl Advise for JournalError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io { path, source, .. } => advice_on_writing(path, source)
                .unwrap_or_else(|| format!("look at {}, then run the same command again", path.display())),
            Self::Damaged { .. } => {
                "`devstack down` works without a journal: it finds what is devstack's by label and name".to_owned()
            }
            Self::Newer { written_by, .. } => format!("use devstack {written_by} or newer for this environment"),
            Self::Locked { .. } => "wait for it to end, or stop it, then run the same command again".to_owned(),
        })
    }

    fn exit(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// An environment's journal, replayed and open for appending. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    path: PathBuf,
    fs: Arc<dyn HostFs>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    /// Bytes of a torn last line that the next append must end.
    torn: bool,
}

impl Journal {
    /// The journal of the environment whose directory is `dir`; empty where there is none.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`JournalError::Newer`], [`JournalError::Io`].
    pub fn open(dir: &Path, fs: Arc<dyn HostFs>) -> Result<Self, JournalError> {
        let path = dir.join("journal.jsonl");
        let bytes = fs
            .read(&path)
            .map_err(|source| JournalError::Io { action: "read", path: path.clone(), source })?
            .unwrap_or_default();
        let state = replay(&path, &bytes)?;
        Ok(Self { path, fs, state: Arc::new(Mutex::new(state)) })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Appends a record and syncs it. Until this returns, the change it announces must not begin.
    ///
    /// # Errors
    /// [`JournalError::Io`]; nothing was recorded then.
    pub fn append(&self, record: Record) -> Result<(), JournalError> {
        crate::kill::point("journal.before", record.kind());
        let fail = |source| JournalError::Io { action: "append to", path: self.path.clone(), source };
        let mut line = serde_json::to_vec(&record).map_err(|error| fail(error.into()))?;
        line.push(b'\n');
        let mut state = self.state();
        if state.torn {
            line.insert(0, b'\n');
        }
        match self.fs.append(&self.path, &line) {
            Ok(()) => {
                state.torn = false;
                state.records.push(record);
            }
            Err(error) => {
                // Part of the line may be on the disk.
                state.torn = true;
                return Err(fail(error));
            }
        }
        drop(state);
        crate::kill::point("journal.after", "append");
        Ok(())
    }

    /// Whether anything was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.state().records.is_empty()
    }

    /// What the environment was opened with, the newest such record.
    pub fn opened(&self) -> Option<Opened> {
        self.state().records.iter().rev().find_map(|record| match record {
            Record::Opened(opened) => Some(opened.clone()),
            _ => None,
        })
    }

    /// Whether the newest `up` ended with every endpoint verified.
    pub fn is_ready(&self) -> bool {
        self.state()
            .records
            .iter()
            .rev()
            .find_map(|record| match record {
                Record::Ready { .. } => Some(true),
                Record::Opened(_) => Some(false),
                _ => None,
            })
            .unwrap_or(false)
    }

    /// What each step gave when it last ended well and was not undone since.
    pub fn outputs(&self) -> BTreeMap<String, Value> {
        let mut outputs = BTreeMap::new();
        for record in &self.state().records {
            match record {
                Record::Done { step, outputs: given } => {
                    outputs.insert(step.clone(), given.clone());
                }
                Record::Intent { step, .. } | Record::Undone { step, .. } => {
                    outputs.remove(step);
                }
                Record::Opened(_) | Record::Ready { .. } => {}
            }
        }
        outputs
    }

    /// The cluster that the environment is bound to: the one that a step last connected to, and that was not begun anew
    /// or removed since.
    pub fn cluster(&self) -> Option<Identity> {
        let made = |undo: &Undo| matches!(undo, Undo::KindCluster { .. } | Undo::MinikubeCluster { .. });
        let mut cluster = None;
        for record in &self.state().records {
            match record {
                Record::Done { outputs, .. } => {
                    let given = outputs.get("cluster").and_then(|one| serde_json::from_value(one.clone()).ok());
                    cluster = given.or(cluster);
                }
                Record::Intent { undo, .. } if undo.iter().any(made) => cluster = None,
                Record::Undone { undo, .. } if made(undo) => cluster = None,
                _ => {}
            }
        }
        cluster
    }

    /// What is still to be undone, newest first, each with its step. An undo that was recorded twice appears once.
    pub fn pending(&self) -> Vec<(String, Undo)> {
        let mut pending: Vec<(String, Undo)> = Vec::new();
        for record in &self.state().records {
            match record {
                Record::Intent { step, undo } => {
                    for one in undo {
                        pending.retain(|(_, known)| known != one);
                        pending.push((step.clone(), one.clone()));
                    }
                }
                Record::Undone { undo, .. } => pending.retain(|(_, known)| known != undo),
                _ => {}
            }
        }
        pending.reverse();
        pending
    }
}

/// What an environment's directory must have room for before an `up` begins, in bytes: the journal, kubeconfigs,
/// credentials, what was chosen and promised. All of it takes less.
const ROOM: usize = 256 << 10;

/// Makes sure that the directory of an environment can be written to and has room for what an `up` writes there. The
/// caller holds the environment's lock.
///
/// # Errors
/// [`JournalError::Io`]; nothing was changed then.
pub fn make_room(fs: &dyn HostFs, dir: &Path) -> Result<(), JournalError> {
    let path = dir.join("room");
    let fail = |source| JournalError::Io { action: "write to", path: path.clone(), source };
    // One that a killed devstack left.
    fs.remove(&path).map_err(fail)?;
    let written = fs.create_new(&path, &vec![0; ROOM]);
    let removed = fs.remove(&path);
    written.and(removed).map_err(fail)
}

fn replay(path: &Path, bytes: &[u8]) -> Result<State, JournalError> {
    let text = String::from_utf8_lossy(bytes);
    let torn = !bytes.is_empty() && !bytes.ends_with(b"\n");
    let lines: Vec<&str> = text.lines().collect();
    let mut records = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let value: Result<Value, _> = serde_json::from_str(line);
        if let Ok(value) = &value
            && let Some(version) = value.get("version").and_then(Value::as_u64)
            && version > u64::from(VERSION)
        {
            let written_by = value.get("devstack").and_then(Value::as_str).unwrap_or("of a newer kind");
            return Err(JournalError::Newer { path: path.to_path_buf(), version, written_by: written_by.to_owned() });
        }
        match value.and_then(serde_json::from_value::<Record>) {
            Ok(record) => records.push(record),
            // A line that was torn, and was ended by a later append, is a change that was never begun.
            Err(error) if error.is_eof() || (torn && index + 1 == lines.len()) => {}
            Err(error) => {
                return Err(JournalError::Damaged {
                    path: path.to_path_buf(),
                    line: index + 1,
                    reason: error.to_string(),
                });
            }
        }
    }
    Ok(State { records, torn })
}

#[cfg(test)]
mod tests {
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
    fn a_damaged_line_in_the_middle_is_refused_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let line = intent("a", network("one"));
        std::fs::write(dir.path().join("journal.jsonl"), format!("{line}\n{{\"record\":\"nonsense\"}}\n{line}\n"))
            .unwrap();
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
        for (fault, word) in
            [(Fault::Full, "make room (df -h /state/environments/demo)"), (Fault::ReadOnly, "writable")]
        {
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
}
