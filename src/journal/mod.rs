//! The write-ahead journal of an environment: every change on the host and the cluster, recorded with its complete
//! undo before it is made.
//!
//! One JSON line a record, appended and synced. A torn last line (a kill, a power cut or a full disk in the middle of
//! an append) belongs to a change that was never begun; the next append takes its place, so that it never stands
//! between records. `down` needs nothing but these lines, and not even all of them: what carries the environment's
//! label or reserved name is found without a journal.

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

use crate::cluster::Provider;
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
                "`devstack down` goes by what can still be read of it, and finds the rest by label and name".to_owned()
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
    /// How many bytes of the file are whole lines.
    whole: usize,
    /// Whether a torn line follows them, or only the last one's end is missing.
    torn: bool,
}

impl Journal {
    /// The journal of the environment whose directory is `dir`; empty where there is none.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`JournalError::Newer`], [`JournalError::Io`].
    pub fn open(dir: &Path, fs: Arc<dyn HostFs>) -> Result<Self, JournalError> {
        match Self::salvage(dir, fs)? {
            (journal, None) => Ok(journal),
            (_, Some(damage)) => Err(damage),
        }
    }

    /// What can be read of the journal, and the first damage where there is one: whoever only takes back goes by the
    /// records that are left, which are all that tells of most of it.
    ///
    /// # Errors
    /// [`JournalError::Newer`], [`JournalError::Io`].
    pub fn salvage(dir: &Path, fs: Arc<dyn HostFs>) -> Result<(Self, Option<JournalError>), JournalError> {
        let path = dir.join("journal.jsonl");
        let bytes = fs
            .read(&path)
            .map_err(|source| JournalError::Io { action: "read", path: path.clone(), source })?
            .unwrap_or_default();
        let (state, damage) = replay(&path, &bytes)?;
        Ok((Self { path, fs, state: Arc::new(Mutex::new(state)) }, damage))
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
        let written = match state.torn {
            true => self.mend(state.whole, &line),
            false => self.fs.append(&self.path, &line).map(|()| state.whole + line.len()),
        };
        match written {
            Ok(whole) => {
                (state.whole, state.torn) = (whole, false);
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

    /// Puts a line in the place of what is torn behind the whole ones; gives the length of the file. The file is
    /// replaced at once, so that a kill leaves what it was or what it shall be.
    fn mend(&self, whole: usize, line: &[u8]) -> std::io::Result<usize> {
        let mut bytes = self.fs.read(&self.path)?.unwrap_or_default();
        bytes.truncate(whole);
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(line);
        self.fs.write(&self.path, &bytes, 0o600)?;
        Ok(bytes.len())
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

    /// Where the environment's cluster comes from. Where the record that says so is lost, what is to be taken back
    /// tells.
    pub fn provider(&self) -> Option<Provider> {
        if let Some(opened) = self.opened() {
            return opened.provider.parse().ok();
        }
        self.pending().iter().find_map(|(_, undo)| match undo {
            Undo::KindCluster { .. } | Undo::EngineNetwork { .. } => Some(Provider::Kind),
            Undo::MinikubeCluster { .. } => Some(Provider::Minikube),
            Undo::KubeObjects { .. } => Some(Provider::Existing),
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

/// The records of a journal, and its first damage.
fn replay(path: &Path, bytes: &[u8]) -> Result<(State, Option<JournalError>), JournalError> {
    let mut state = State::default();
    let mut damage = None;
    let mut end = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        end += line.len();
        // What a power cut kept from the disk reads as NULs, and may be the line's beginning alone.
        let torn = end == bytes.len() && (!line.ends_with(b"\n") || line.contains(&0));
        let text = String::from_utf8_lossy(line);
        match record(path, text.trim_end_matches(['\n', '\r']))? {
            Ok(record) => state.records.extend(record),
            Err(_) if torn => break,
            // An older devstack ended a torn line with its next append.
            Err(error) if error.is_eof() => {}
            Err(error) => {
                let reason = error.to_string();
                let found = JournalError::Damaged { path: path.to_path_buf(), line: index + 1, reason };
                damage = damage.or(Some(found));
            }
        }
        state.whole = end;
    }
    state.torn = state.whole < bytes.len() || !(bytes.is_empty() || bytes.ends_with(b"\n"));
    Ok((state, damage))
}

/// The record of a line; none of an empty one.
fn record(path: &Path, line: &str) -> Result<Result<Option<Record>, serde_json::Error>, JournalError> {
    if line.trim().is_empty() {
        return Ok(Ok(None));
    }
    let value: Result<Value, _> = serde_json::from_str(line);
    if let Ok(value) = &value
        && let Some(version) = value.get("version").and_then(Value::as_u64)
        && version > u64::from(VERSION)
    {
        let written_by = value.get("devstack").and_then(Value::as_str).unwrap_or("of a newer kind");
        return Err(JournalError::Newer { path: path.to_path_buf(), version, written_by: written_by.to_owned() });
    }
    Ok(value.and_then(serde_json::from_value).map(Some))
}

#[cfg(test)]
mod tests;
