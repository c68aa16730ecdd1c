//! Small files on the host: journals, secrets, kubeconfigs, the hosts file.
//!
//! Blobs and archives do not go through this port; they are streamed by `oci`.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ports::process::is_alive;

/// Reads and writes small files. Writes are atomic (write to a neighbour, fsync, rename, fsync the directory).
pub trait HostFs: Send + Sync {
    /// The whole file, or `None` where it does not exist.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>>;
    /// Replaces the file; `mode` is the permission bits on Unix, such as `0o600`.
    ///
    /// Where the file exists and cannot be replaced by a rename (a bind mount, as in containers' `/etc/hosts`), it
    /// is written in place.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;
    /// Appends and syncs; creates the file with mode `0600`.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file; a missing one is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all in it; a missing one is no error.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory and its parents, owner-only (`0700`).
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted; empty where it does not exist.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Creates a file with this content and mode `0600`; fails with [`io::ErrorKind::AlreadyExists`] where it exists.
    fn create_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// The file that a chain of symbolic links leads to; the path itself where there is no link, or nothing.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// The permission bits of a file, or `None` where it does not exist or the system has none.
    fn mode(&self, path: &Path) -> io::Result<Option<u32>>;
    /// Whether this account may replace the file, or make it where it does not exist.
    fn writable(&self, path: &Path) -> bool;
    /// Gives a value to one of the kernel's own files, which can be neither replaced nor made.
    fn set(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Whether this account may give it a value.
    fn settable(&self, path: &Path) -> bool;
    /// Keeps every other devstack on this machine, of whichever account, from changing the files of a directory under
    /// such a lock of its own, until it is dropped; waits for one that does. Nothing is made or changed.
    fn lock(&self, dir: &Path) -> io::Result<DirLock>;
}

/// How long a lock that another devstack holds is waited for, and how often it is looked at.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// See [`HostFs::lock`]; goes with a kill as well.
#[derive(Debug, Default)]
pub struct DirLock(#[expect(dead_code, reason = "open as long as the lock is held")] Option<File>);

/// The machine's own file system.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealFs;

impl RealFs {
    fn sync_parent(path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    fn options(mode: u32) -> std::fs::OpenOptions {
        let mut options = std::fs::OpenOptions::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(mode);
        }
        #[cfg(not(unix))]
        let _ = mode;
        options
    }

    fn replace(path: &Path, neighbour: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = Self::options(mode).write(true).create(true).truncate(true).open(neighbour)?;
        file.write_all(bytes)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        file.sync_all()?;
        std::fs::rename(neighbour, path)
    }
}

impl HostFs for RealFs {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let neighbour = neighbour(path, std::process::id());
        match Self::replace(path, &neighbour, bytes, mode) {
            Ok(()) => Self::sync_parent(path),
            Err(error) => {
                let _ = std::fs::remove_file(&neighbour);
                // EBUSY: the path is a mount point, which a rename cannot replace.
                if error.kind() != io::ErrorKind::ResourceBusy {
                    return Err(error);
                }
                let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path)?;
                file.write_all(bytes)?;
                file.sync_all()
            }
        }
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let existed = path.exists();
        let mut file = Self::options(0o600).append(true).create(true).open(path)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        if existed { Ok(()) } else { Self::sync_parent(path) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        ignore_missing(std::fs::remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        ignore_missing(std::fs::remove_dir_all(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::DirBuilderExt as _;
            builder.mode(0o700);
        }
        builder.create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn create_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        Self::options(0o600).write(true).create_new(true).open(path)?.write_all(bytes)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let mut path = path.to_path_buf();
        // As many links as Linux follows itself.
        for _ in 0..40 {
            match std::fs::read_link(&path) {
                Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
                Err(_) => return Ok(path),
            }
        }
        Err(io::Error::other("too many levels of symbolic links"))
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        match std::fs::metadata(path) {
            #[cfg(unix)]
            Ok(metadata) => {
                use std::os::unix::fs::PermissionsExt as _;
                Ok(Some(metadata.permissions().mode() & 0o7777))
            }
            #[cfg(not(unix))]
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn writable(&self, path: &Path) -> bool {
        let Ok(path) = self.resolve(path) else { return false };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        #[cfg(unix)]
        {
            let may = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
            may(parent) && (!path.exists() || may(&path))
        }
        #[cfg(not(unix))]
        {
            let read_only = |path: &Path| std::fs::metadata(path).is_ok_and(|data| data.permissions().readonly());
            parent.exists() && !read_only(&path)
        }
    }

    fn set(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        std::fs::OpenOptions::new().write(true).open(path)?.write_all(bytes)
    }

    fn settable(&self, path: &Path) -> bool {
        std::fs::OpenOptions::new().write(true).open(path).is_ok()
    }

    // A directory stays what it is when a file in it is replaced, and who may not write it may open it.
    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        let Ok(file) = File::open(dir) else { return Ok(DirLock::default()) };
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(DirLock(Some(file))),
                // A file system without locks is no reason to change nothing.
                Err(TryLockError::Error(_)) => return Ok(DirLock::default()),
                Err(TryLockError::WouldBlock) if began.elapsed() > LOCK_PATIENCE => {
                    return Err(io::Error::new(
                        io::ErrorKind::WouldBlock,
                        "another program holds a lock on its directory",
                    ));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            }
        }
    }
}

/// What stands between a neighbour's name and the id of the process that writes it.
const NEIGHBOUR: &str = ".devstack-";

/// The file that the process `pid` writes before it takes the place of `path`.
pub fn neighbour(path: &Path, pid: u32) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!("{NEIGHBOUR}{pid}"));
    path.with_file_name(name)
}

/// Neighbours in a directory whose writers are dead: what a kill in the middle of [`HostFs::write`] leaves. With
/// `of`, only those of that file.
///
/// # Errors
/// The directory cannot be read.
pub fn abandoned(fs: &dyn HostFs, dir: &Path, of: Option<&str>) -> io::Result<Vec<PathBuf>> {
    let is_abandoned = |name: &String| {
        let Some((file, pid)) = name.rsplit_once(NEIGHBOUR) else { return false };
        let digits = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        // A process of another machine that shares the directory cannot be asked for; devstack's own directories and
        // a user's home are written by one machine at a time.
        let dead = || pid.parse().is_ok_and(|pid| pid != std::process::id() && !is_alive(pid));
        !file.is_empty() && of.is_none_or(|of| of == file) && digits && dead()
    };
    Ok(fs.list(dir)?.into_iter().filter(is_abandoned).map(|name| dir.join(name)).collect())
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_dead_writers_left_is_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        // No system gives this id to a process.
        let dead = i32::MAX as u32;
        let (own, file) = (std::process::id(), dir.path().join("config"));
        let names = [
            neighbour(&file, dead),
            neighbour(&file, own),
            neighbour(&file, 1),
            neighbour(&dir.path().join("hosts"), dead),
        ];
        for path in names.iter().chain([&file]) {
            std::fs::write(path, "").unwrap();
        }
        for name in
            ["config.devstack-", "config.devstack-x1", "config.devstack--1", ".devstack-2147483647", "config.lock"]
        {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(abandoned(&RealFs, dir.path(), Some("config")).unwrap(), [names[0].clone()]);
        assert_eq!(abandoned(&RealFs, dir.path(), None).unwrap(), [names[0].clone(), names[3].clone()]);
        assert_eq!(abandoned(&RealFs, &dir.path().join("none"), None).unwrap(), Vec::<PathBuf>::new());
    }
}
