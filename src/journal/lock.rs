//! One devstack at a time on an environment.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::JournalError;

/// How often a lock that is held is tried again, and after which time, before its holder is believed to work.
const LOOKS: u32 = 5;
const BETWEEN: Duration = Duration::from_millis(10);

/// Who holds an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id; 0 where the lock file could not be read.
    pub pid: u32,
    /// The verb it runs.
    pub verb: String,
    /// Since when, in RFC 3339.
    pub since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return f.write_str("it has just begun");
        }
        write!(f, "`devstack {}`, process {}, since {}", self.verb, self.pid, self.since)
    }
}

/// An exclusive lock on an environment's directory; released when dropped, also by a kill.
#[derive(Debug)]
pub struct EnvironmentLock {
    file: File,
    path: PathBuf,
}

impl EnvironmentLock {
    /// Takes the lock without waiting.
    ///
    /// # Errors
    /// [`JournalError::Locked`] with the holder; [`JournalError::Io`] where the file cannot be made.
    pub fn take(dir: &Path, environment: &str, holder: &Holder) -> Result<Self, JournalError> {
        let path = dir.join("lock");
        let fail = |source| JournalError::Io { action: "lock", path: path.clone(), source };
        let mut looks = 0;
        loop {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&path).map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                // Whoever only looks (`lock_holder`) is gone again in a moment.
                Err(TryLockError::WouldBlock) if looks < LOOKS => {
                    looks += 1;
                    std::thread::sleep(BETWEEN);
                    continue;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(JournalError::Locked { environment: environment.to_owned(), holder: read(&mut file) });
                }
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
            // `down` removes the file while it holds the lock: a file that is no longer at its path guards nothing.
            if !is_at(&file, &path) {
                continue;
            }
            let text = serde_json::to_vec(holder).map_err(|error| fail(error.into()))?;
            // The lock is what counts. On a full disk nobody can be told who holds it, and `down` works all the same.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
            return Ok(Self { file, path });
        }
    }

    /// The lock file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go. Dropping does the same; this says so.
    pub fn release(self) {
        let _ = self.file.unlock();
    }
}

/// Who holds the lock of the environment whose directory this is; `None` where nobody does. Whether it is held is
/// asked of the lock itself, for a moment and shared, so that it is true on every system and also after a kill; the
/// file only says who. Nothing is made or changed.
pub fn lock_holder(dir: &Path) -> Option<Holder> {
    let mut file = File::open(dir.join("lock")).ok()?;
    match file.try_lock_shared() {
        Ok(()) | Err(TryLockError::Error(_)) => None,
        Err(TryLockError::WouldBlock) => Some(read(&mut file)),
    }
}

/// What a lock file says; nothing where it cannot be read.
fn read(file: &mut File) -> Holder {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    serde_json::from_str(&text).unwrap_or_default()
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => held.ino() == there.ino() && held.dev() == there.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: u32) -> Holder {
        Holder { pid, verb: "up".to_owned(), since: "2026-11-21T10:00:00Z".to_owned() }
    }

    #[test]
    fn a_second_one_is_told_who_holds_it_and_gets_it_after() {
        let dir = tempfile::tempdir().unwrap();
        let first = EnvironmentLock::take(dir.path(), "demo", &holder(41)).unwrap();
        let refused = EnvironmentLock::take(dir.path(), "demo", &holder(42)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "another devstack works on environment demo: `devstack up`, process 41, since 2026-11-21T10:00:00Z"
        );
        first.release();
        EnvironmentLock::take(dir.path(), "demo", &holder(42)).unwrap();
    }

    #[test]
    fn who_looks_is_told_who_holds_it_and_stands_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(lock_holder(dir.path()), None, "no file, and none is made");
        assert!(!dir.path().join("lock").exists());
        let lock = EnvironmentLock::take(dir.path(), "demo", &holder(41)).unwrap();
        assert_eq!(lock_holder(dir.path()), Some(holder(41)));
        // A kill leaves the file, and with it a process id that another program may have by now.
        lock.release();
        assert!(dir.path().join("lock").exists());
        assert_eq!(lock_holder(dir.path()), None);
        // One who looks at the same moment is waited for.
        let looker = File::open(dir.path().join("lock")).unwrap();
        looker.lock_shared().unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::sleep(BETWEEN * 2);
            drop(looker);
        });
        EnvironmentLock::take(dir.path(), "demo", &holder(42)).unwrap();
        looking.join().unwrap();
        let lock = EnvironmentLock::take(dir.path(), "demo", &holder(43)).unwrap();
        std::fs::write(lock.path(), "torn").unwrap();
        assert_eq!(lock_holder(dir.path()).map(|holder| holder.to_string()).unwrap(), "it has just begun");
    }

    #[test]
    fn a_lock_whose_file_was_removed_does_not_block_a_fresh_one() {
        let dir = tempfile::tempdir().unwrap();
        let first = EnvironmentLock::take(dir.path(), "demo", &holder(41)).unwrap();
        std::fs::remove_file(first.path()).unwrap();
        EnvironmentLock::take(dir.path(), "demo", &holder(42)).unwrap();
    }
    #[test]
    fn of_several_at_once_one_works_also_where_each_removes_the_file_at_its_end() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (inside, worked) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for pid in 1..=4 {
                let (dir, inside, worked) = (dir.path(), &inside, &worked);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let Ok(lock) = EnvironmentLock::take(dir, "demo", &holder(pid)) else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
                        worked.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        // With the file goes the lock: the next one makes another.
                        inside.fetch_sub(1, Ordering::SeqCst);
                        std::fs::remove_file(lock.path()).unwrap();
                        lock.release();
                    }
                });
            }
        });
        assert!(worked.into_inner() > 1);
    }
}
