//! Who works with a cache: any number at a time, or one that removes from it.
//!
//! Whoever opens the store of a cache shares its lock for as long as it works, the runs of one process as well: what is
//! on its way into the cache, or was found there and is about to be used, is not removed. Removing needs the lock alone
//! and never waits for it, so that nobody can wait for each other.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use super::error::OciError;

/// Shares the cache, once nobody removes from it any more; until the file is dropped, also by a kill. `None` for an
/// account that may not write there: it brings nothing into the cache and removes nothing from it.
pub(super) fn shared(cache: &Path) -> Result<Option<File>, OciError> {
    let path = cache.join("lock");
    let file = match open(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            return Ok(None);
        }
        Err(error) => return Err(OciError::io("create", &path)(error)),
    };
    file.lock_shared().map_err(OciError::io("lock", &path))?;
    Ok(Some(file))
}

/// Takes the cache alone; `None` while it is shared, by this process or another.
pub(super) fn alone(cache: &Path) -> Result<Option<File>, OciError> {
    let path = cache.join("lock");
    let file = open(&path).map_err(OciError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(OciError::io("lock", &path)(error)),
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}
