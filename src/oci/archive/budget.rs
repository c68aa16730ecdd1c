//! What an archive may ask for: documents can name each other so that few bytes of them lead to endless work.

use std::collections::HashSet;

use super::super::error::OciError;
use super::super::store::MAX_JSON;
use super::super::types::Digest;

/// Entries of indexes that are looked at, and names that are given. A cluster of everything has some dozens.
const MAX_IMAGES: usize = 4096;

/// Blobs of all images, a shared one counted for each.
const MAX_BLOBS: usize = 100_000;

/// Bytes of documents read, one that is read twice counted twice.
const MAX_DOCUMENTS: u64 = 32 * MAX_JSON;

/// What an archive was given so far.
#[derive(Default)]
pub(super) struct Budget {
    seen: HashSet<(Digest, Option<String>, usize)>,
    hashed: HashSet<(Digest, Digest)>,
    entries: usize,
    images: usize,
    blobs: usize,
    documents: u64,
}

impl Budget {
    /// Counts an entry of an index, and says whether it is one that was not looked at under this name and at this depth.
    pub(super) fn visit(&mut self, digest: &Digest, name: Option<&str>, depth: usize) -> Result<bool, OciError> {
        self.entries += 1;
        within(self.entries, MAX_IMAGES, "names too many images")?;
        Ok(self.seen.insert((digest.clone(), name.map(ToOwned::to_owned), depth)))
    }

    /// Counts a document that is about to be read.
    pub(super) fn document(&mut self, bytes: u64) -> Result<(), OciError> {
        self.documents = self.documents.saturating_add(bytes);
        if self.documents > MAX_DOCUMENTS {
            let what = "what the archive says of its images".to_owned();
            return Err(OciError::TooLarge { what, limit: MAX_DOCUMENTS });
        }
        Ok(())
    }

    /// Counts a name that an image is given. The store reads its manifest once more for each.
    pub(super) fn image(&mut self, manifest: u64, blobs: usize) -> Result<(), OciError> {
        self.images += 1;
        within(self.images, MAX_IMAGES, "names too many images")?;
        self.blobs += blobs;
        within(self.blobs, MAX_BLOBS, "names too many layers")?;
        self.document(manifest)
    }

    /// Whether a layer was not held against its uncompressed digest yet.
    pub(super) fn unhashed(&mut self, layer: &Digest, diff_id: &Digest) -> bool {
        self.hashed.insert((layer.clone(), diff_id.clone()))
    }
}

fn within(count: usize, limit: usize, reason: &'static str) -> Result<(), OciError> {
    if count > limit { Err(OciError::Hostile { entry: "index".to_owned(), reason }) } else { Ok(()) }
}
