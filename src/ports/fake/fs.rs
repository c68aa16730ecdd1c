//! Files in memory, on a disk that can be full or read-only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ports::HostFs;
use crate::ports::hostfs::DirLock;

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No space is left. An append leaves half of its bytes behind, as a real one can.
    Full,
    /// Nothing can be written or removed.
    ReadOnly,
}

impl Fault {
    /// What the system says of it.
    pub fn error(self) -> io::Error {
        match self {
            // The words of Linux, which known failures of engines and nodes have too.
            Self::Full => io::Error::new(io::ErrorKind::StorageFull, "No space left on device (os error 28)"),
            Self::ReadOnly => io::ErrorKind::ReadOnlyFilesystem.into(),
        }
    }
}

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    dirs: BTreeSet<PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
    denied: BTreeSet<PathBuf>,
    fault: Option<(usize, Fault)>,
    writes: usize,
    /// From this append on, nothing can be written below the directory.
    full: Option<(usize, PathBuf)>,
    appends: usize,
}

impl Disk {
    fn is_full(&self, path: &Path) -> bool {
        matches!(&self.full, Some((from, dir)) if self.appends > *from && path.starts_with(dir))
    }
}

/// A file system in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeFs(Arc<Mutex<Disk>>);

impl FakeFs {
    /// From the `nth` change on (0 is the next one) everything that changes the disk fails.
    pub fn break_at(&self, nth: usize, fault: Fault) {
        let mut disk = self.disk();
        disk.fault = Some((disk.writes + nth, fault));
    }

    /// The file system that is mounted at `dir` is full from the `nth` append on (0 is the next one), wherever that
    /// append goes to; what lies elsewhere can be written.
    pub fn fill_at_append(&self, nth: usize, dir: impl Into<PathBuf>) {
        let mut disk = self.disk();
        disk.full = Some((disk.appends + nth, dir.into()));
    }

    /// The disk is well again.
    pub fn repair(&self) {
        let mut disk = self.disk();
        (disk.fault, disk.full) = (None, None);
    }

    /// How often something was appended, failed attempts included.
    pub fn appends(&self) -> usize {
        self.disk().appends
    }

    /// How often the disk was changed, failed attempts included.
    pub fn writes(&self) -> usize {
        self.disk().writes
    }

    /// Puts a file there.
    pub fn put(&self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>, mode: u32) {
        self.disk().files.insert(path.into(), (bytes.into(), mode));
    }

    /// Puts a symbolic link there.
    pub fn link(&self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        self.disk().links.insert(path.into(), target.into());
    }

    /// Takes away the right to write a file.
    pub fn deny(&self, path: impl Into<PathBuf>) {
        self.disk().denied.insert(path.into());
    }

    /// A file as text; `None` where it does not exist.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let disk = self.disk();
        disk.files.get(path.as_ref()).map(|(bytes, _)| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Every file with its bytes, to compare the disk before and after.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.disk().files.iter().map(|(path, (bytes, _))| (path.clone(), bytes.clone())).collect()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, path: &Path) -> (MutexGuard<'_, Disk>, io::Result<()>) {
        let mut disk = self.disk();
        let number = disk.writes;
        disk.writes += 1;
        let result = match disk.fault {
            Some((from, fault)) if number >= from => Err(fault.error()),
            _ if disk.is_full(path) => Err(Fault::Full.error()),
            _ if disk.denied.contains(path) => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Ok(()),
        };
        (disk, result)
    }
}

impl HostFs for FakeFs {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let path = self.resolve(path)?;
        Ok(self.disk().files.get(&path).map(|(bytes, _)| bytes.clone()))
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let (mut disk, result) = self.change(path);
        result?;
        // As a rename does it: the link itself is replaced.
        disk.links.remove(path);
        disk.files.insert(path.to_path_buf(), (bytes.to_vec(), mode));
        Ok(())
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.disk().appends += 1;
        let (mut disk, result) = self.change(path);
        let written = match &result {
            Ok(()) => bytes,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => &bytes[..bytes.len() / 2],
            Err(_) => return result,
        };
        let file = disk.files.entry(path.to_path_buf()).or_insert_with(|| (Vec::new(), 0o600));
        file.0.extend_from_slice(written);
        result
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (mut disk, result) = self.change(path);
        // A full disk takes removals.
        match result {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
            _ => {}
        }
        disk.files.remove(path);
        disk.links.remove(path);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let (mut disk, result) = self.change(path);
        match result {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => return Err(error),
            _ => {}
        }
        disk.files.retain(|file, _| !file.starts_with(path));
        disk.dirs.retain(|dir| !dir.starts_with(path));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let (mut disk, result) = self.change(path);
        result?;
        disk.dirs.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk();
        let names = disk.files.keys().chain(&disk.dirs).chain(disk.links.keys()).filter_map(|entry| {
            let below = entry.strip_prefix(path).ok()?;
            Some(below.components().next()?.as_os_str().to_string_lossy().into_owned())
        });
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn create_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, result) = self.change(path);
        result?;
        if disk.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.insert(path.to_path_buf(), (bytes.to_vec(), 0o600));
        Ok(())
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let disk = self.disk();
        let mut path = path.to_path_buf();
        while let Some(target) = disk.links.get(&path) {
            path.clone_from(target);
        }
        Ok(path)
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        let path = self.resolve(path)?;
        Ok(self.disk().files.get(&path).map(|(_, mode)| *mode))
    }

    fn writable(&self, path: &Path) -> bool {
        let disk = self.disk();
        !disk.denied.contains(path) && !matches!(disk.fault, Some((from, Fault::ReadOnly)) if disk.writes >= from)
    }

    fn set(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, result) = self.change(path);
        result?;
        let file = disk.files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
        bytes.clone_into(&mut file.0);
        Ok(())
    }

    fn settable(&self, path: &Path) -> bool {
        self.disk().files.contains_key(path) && self.writable(path)
    }

    fn lock(&self, _dir: &Path) -> io::Result<DirLock> {
        Ok(DirLock::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_fails_from_the_nth_change_on_and_can_be_repaired() {
        let fs = FakeFs::default();
        let path = Path::new("/a/journal");
        fs.append(path, b"one\n").unwrap();
        fs.break_at(1, Fault::Full);
        fs.append(path, b"two\n").unwrap();
        assert_eq!(fs.append(path, b"three\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs.text(path).unwrap(), "one\ntwo\nthr");
        fs.remove(path).unwrap();
        fs.break_at(0, Fault::ReadOnly);
        assert!(fs.write(path, b"", 0o600).is_err() && fs.remove(path).is_err() && !fs.writable(path));
        fs.repair();
        fs.write(path, b"x", 0o600).unwrap();
        assert_eq!((fs.list(Path::new("/a")).unwrap(), fs.writes()), (vec!["journal".to_owned()], 7));
        assert_eq!(fs.list(Path::new("/")).unwrap(), ["a"]);
    }

    #[test]
    fn links_and_rights_are_kept() {
        let fs = FakeFs::default();
        fs.put("/real", "x", 0o640);
        fs.link("/link", "/real");
        fs.deny("/etc/hosts");
        assert_eq!(fs.resolve(Path::new("/link")).unwrap(), Path::new("/real"));
        assert_eq!(fs.mode(Path::new("/link")).unwrap(), Some(0o640));
        assert!(!fs.writable(Path::new("/etc/hosts")));
        assert_eq!(fs.create_new(Path::new("/real"), b"").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
