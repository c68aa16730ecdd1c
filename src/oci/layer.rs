//! Layers: tar archives that are the same bytes for the same files, on any machine and at any time.
//!
//! Entries are sorted, times are 0, parents are always written before their children. Layers are not compressed: a
//! node unpacks an image at the first start of a container, and reading a plain tar from the page cache is several
//! times faster than inflating it; nothing here crosses a network.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::error::OciError;
use super::store::Store;
use super::types::{Descriptor, Digest, media};

/// Where a file's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In memory.
    Bytes(Vec<u8>),
    /// In a file of the host.
    File(PathBuf),
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Dir {
        /// Permission bits.
        mode: u32,
        /// Numeric owner.
        uid: u64,
        /// Numeric group.
        gid: u64,
    },
    /// A regular file.
    File {
        /// Its content.
        source: Source,
        /// Permission bits.
        mode: u32,
        /// Numeric owner.
        uid: u64,
        /// Numeric group.
        gid: u64,
    },
    /// A symbolic link; the target is written as it is.
    Symlink {
        /// The target.
        target: String,
    },
}

/// A layer under construction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an entry at a path (`usr/bin/x` or `/usr/bin/x`), replacing one that is there; missing parents become
    /// directories of root with mode 0755.
    ///
    /// # Errors
    /// [`OciError::Layer`] for a path that is empty or has `.` or `..` in it, or whose parent is no directory.
    pub fn add(&mut self, path: &str, entry: Entry) -> Result<(), OciError> {
        let path = path.trim_start_matches('/').trim_end_matches('/');
        let refuse = |reason| OciError::Layer { path: path.to_owned(), reason };
        if path.is_empty() || path.contains('\0') {
            return Err(refuse("the path is empty"));
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refuse("the path is not plain"));
        }
        for (at, _) in path.match_indices('/') {
            let parent = self.entries.entry(path[..at].to_owned());
            let parent = parent.or_insert(Entry::Dir { mode: 0o755, uid: 0, gid: 0 });
            if !matches!(parent, Entry::Dir { .. }) {
                return Err(refuse("a parent is no directory"));
            }
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Adds a regular file of root.
    ///
    /// # Errors
    /// As [`Layer::add`].
    pub fn file(&mut self, path: &str, source: Source, mode: u32) -> Result<(), OciError> {
        self.add(path, Entry::File { source, mode, uid: 0, gid: 0 })
    }

    /// Adds a directory of root.
    ///
    /// # Errors
    /// As [`Layer::add`].
    pub fn dir(&mut self, path: &str, mode: u32) -> Result<(), OciError> {
        self.add(path, Entry::Dir { mode, uid: 0, gid: 0 })
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Layer::add`].
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), OciError> {
        self.add(path, Entry::Symlink { target: target.to_owned() })
    }

    /// The entry at a path without leading slash.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Keeps the entries that a function wants.
    pub fn retain(&mut self, mut wanted: impl FnMut(&str) -> bool) {
        self.entries.retain(|path, _| wanted(path));
    }

    /// Paths with their entries, sorted.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Adds what is in a directory of the host below `at` (the root when empty), with modes and owners. Device nodes, sockets and fifos are left out:
    /// engines make their own.
    ///
    /// # Errors
    /// Where the tree cannot be read, or a name is not UTF-8.
    pub fn add_tree(&mut self, root: &Path, at: &str) -> Result<(), OciError> {
        let mut pending = vec![(root.to_path_buf(), at.trim_matches('/').to_owned())];
        while let Some((dir, at)) = pending.pop() {
            for entry in fs::read_dir(&dir).map_err(OciError::io("list", &dir))? {
                let entry = entry.map_err(OciError::io("list", &dir))?;
                let path = entry.path();
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    let path = path.display().to_string();
                    return Err(OciError::Layer { path, reason: "the name is not UTF-8" });
                };
                let inside = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
                let meta = entry.metadata().map_err(OciError::io("read", &path))?;
                let (mode, uid, gid) = ownership(&meta);
                if meta.is_symlink() {
                    let target = fs::read_link(&path).map_err(OciError::io("read", &path))?;
                    self.symlink(&inside, &target.to_string_lossy())?;
                } else if meta.is_dir() {
                    self.add(&inside, Entry::Dir { mode, uid, gid })?;
                    pending.push((path, inside));
                } else if meta.is_file() {
                    self.add(&inside, Entry::File { source: Source::File(path), mode, uid, gid })?;
                }
            }
        }
        Ok(())
    }

    /// Gives everything to root, whoever owns it on the host.
    pub fn give_to_root(&mut self) {
        for entry in self.entries.values_mut() {
            if let Entry::Dir { uid, gid, .. } | Entry::File { uid, gid, .. } = entry {
                (*uid, *gid) = (0, 0);
            }
        }
    }

    /// Writes the layer as tar.
    ///
    /// # Errors
    /// Where a file of the host cannot be read or the output cannot be written.
    pub fn write(&self, output: impl Write) -> Result<(), OciError> {
        let mut tar = tar::Builder::new(output);
        for (path, entry) in &self.entries {
            let failed = |source| OciError::Stream { what: format!("{path} of a layer"), source };
            let mut header = tar::Header::new_gnu();
            header.set_mtime(0);
            match entry {
                Entry::Dir { mode, uid, gid } => {
                    set(&mut header, tar::EntryType::Directory, *mode, *uid, *gid);
                    tar.append_data(&mut header, format!("{path}/"), io::empty()).map_err(failed)?;
                }
                Entry::File { source, mode, uid, gid } => {
                    set(&mut header, tar::EntryType::Regular, *mode, *uid, *gid);
                    match source {
                        Source::Bytes(bytes) => {
                            header.set_size(bytes.len() as u64);
                            tar.append_data(&mut header, path, bytes.as_slice()).map_err(failed)?;
                        }
                        Source::File(host) => {
                            let file = File::open(host).map_err(OciError::io("read", host))?;
                            let size = file.metadata().map_err(OciError::io("read", host))?.len();
                            header.set_size(size);
                            tar.append_data(&mut header, path, io::Read::take(file, size)).map_err(failed)?;
                        }
                    }
                }
                Entry::Symlink { target } => {
                    set(&mut header, tar::EntryType::Symlink, 0o777, 0, 0);
                    tar.append_link(&mut header, path, target).map_err(failed)?;
                }
            }
        }
        let failed = |source| OciError::Stream { what: "a layer".to_owned(), source };
        tar.into_inner().map_err(failed)?.flush().map_err(failed)
    }

    /// Writes the layer into a store. As it is not compressed, its digest is its `diff_id` as well.
    ///
    /// # Errors
    /// As [`Layer::write`].
    pub fn store(&self, store: &Store) -> Result<Descriptor, OciError> {
        let mut writer = store.blob_writer()?;
        self.write(&mut writer)?;
        let (digest, size): (Digest, u64) = writer.commit(store, None)?;
        Ok(Descriptor::new(media::LAYER, digest, size))
    }
}

fn set(header: &mut tar::Header, kind: tar::EntryType, mode: u32, uid: u64, gid: u64) {
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_size(0);
}

#[cfg(unix)]
fn ownership(meta: &fs::Metadata) -> (u32, u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (meta.mode() & 0o7777, u64::from(meta.uid()), u64::from(meta.gid()))
}

#[cfg(not(unix))]
fn ownership(_: &fs::Metadata) -> (u32, u64, u64) {
    (0o755, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(order: &[usize]) -> Vec<u8> {
        let long = format!("deep/{}/file", "x".repeat(120));
        let mut layer = Layer::new();
        for index in order {
            match index {
                0 => layer.file("/usr/bin/tool", Source::Bytes(b"#!".to_vec()), 0o755).unwrap(),
                1 => layer.symlink("bin", "usr/bin").unwrap(),
                2 => layer.file(&long, Source::Bytes(b"long".to_vec()), 0o644).unwrap(),
                _ => layer.dir("tmp", 0o1777).unwrap(),
            }
        }
        let mut bytes = Vec::new();
        layer.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let bytes = sample(&[0, 1, 2, 3]);
        assert_eq!(bytes, sample(&[3, 2, 1, 0]));
        let listed: Vec<String> = tar::Archive::new(bytes.as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.header().mtime().unwrap(), 0);
                format!("{:o} {}", entry.header().mode().unwrap(), entry.path().unwrap().display())
            })
            .map(|line| line.replace(&"x".repeat(120), "X"))
            .collect();
        let expected =
            ["777 bin", "755 deep/", "755 deep/X/", "644 deep/X/file", "1777 tmp/", "755 usr/", "755 usr/bin/"];
        assert_eq!(listed[..7], expected);
    }

    #[test]
    fn paths_stay_inside() {
        let mut layer = Layer::new();
        layer.symlink("lib", "usr/lib").unwrap();
        for bad in ["", "/", "../etc/passwd", "a/../../b", "a//b", "./a", "lib/x"] {
            assert!(layer.file(bad, Source::Bytes(Vec::new()), 0o644).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tree_is_read_with_links_and_modes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/name"), "x").unwrap();
        std::os::unix::fs::symlink("name", dir.path().join("etc/alias")).unwrap();
        let mut layer = Layer::new();
        layer.add_tree(dir.path(), "").unwrap();
        layer.retain(|path| path != "etc/name");
        let names: Vec<&str> = layer.entries().map(|(path, _)| path).collect();
        assert_eq!(names, ["etc", "etc/alias"]);
        assert_eq!(layer.get("etc/alias"), Some(&Entry::Symlink { target: "name".to_owned() }));
    }

    #[test]
    fn what_is_given_to_root_keeps_its_modes() {
        let mut layer = Layer::new();
        let source = Source::Bytes(Vec::new());
        layer.add("bin", Entry::Dir { mode: 0o700, uid: 1000, gid: 100 }).unwrap();
        layer.add("bin/su", Entry::File { source: source.clone(), mode: 0o4755, uid: 1000, gid: 100 }).unwrap();
        layer.give_to_root();
        assert_eq!(layer.get("bin"), Some(&Entry::Dir { mode: 0o700, uid: 0, gid: 0 }));
        assert_eq!(layer.get("bin/su"), Some(&Entry::File { source, mode: 0o4755, uid: 0, gid: 0 }));
    }
}
