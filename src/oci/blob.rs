//! Blobs on their way into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::error::OciError;
use super::store::Store;
use super::types::Digest;

/// A blob on its way into the store.
#[derive(Debug)]
pub struct BlobWriter {
    file: io::BufWriter<File>,
    hash: sha2::Sha256,
    size: u64,
    path: PathBuf,
}

impl BlobWriter {
    /// Begins a blob in a file that is not there yet.
    pub(super) fn create(path: PathBuf) -> Result<Self, OciError> {
        let file = File::create_new(&path).map_err(OciError::io("create", &path))?;
        Ok(Self { file: io::BufWriter::with_capacity(256 << 10, file), hash: sha2::Sha256::new(), size: 0, path })
    }

    /// The file that it is written to.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks, syncs and names the blob; gives its digest and size.
    ///
    /// # Errors
    /// [`OciError::Damaged`] where the digest is not the expected one.
    pub fn commit(self, store: &Store, expected: Option<&Digest>) -> Result<(Digest, u64), OciError> {
        let (digest, size, staged) = self.finish(expected)?;
        staged.place(store, &digest)?;
        Ok((digest, size))
    }

    /// Checks and syncs the blob and leaves it beside the store.
    pub(crate) fn finish(mut self, expected: Option<&Digest>) -> Result<(Digest, u64, Staged), OciError> {
        self.file.flush().map_err(OciError::io("write", &self.path))?;
        self.file.get_ref().sync_data().map_err(OciError::io("write", &self.path))?;
        let found = Digest::from_hash(&self.hash.clone().finalize());
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(OciError::Damaged { what: "a blob".to_owned(), expected: expected.clone(), found });
        }
        Ok((found, self.size, Staged { path: std::mem::take(&mut self.path) }))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        drop_file(&self.path);
    }
}

/// A whole blob that has no place in the store yet; dropping it removes it.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
}

impl Staged {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the blob to its place. Renaming over an equal blob also makes it young for [`Store::prune`].
    pub(crate) fn place(mut self, store: &Store, digest: &Digest) -> Result<(), OciError> {
        let place = store.blob_path(digest);
        fs::rename(&self.path, &place).map_err(OciError::io("rename", &place))?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        drop_file(&self.path);
    }
}

/// Removes a file that nobody needs; what cannot be removed is left to `prune`.
fn drop_file(path: &Path) {
    if !path.as_os_str().is_empty() {
        let _ = fs::remove_file(path);
    }
}
