//! The store: blobs by digest, and an index of references.
//!
//! On disk it is an OCI image layout: `blobs/sha256/<hex>`, `oci-layout`, and `index.json` whose descriptors carry the
//! reference in `org.opencontainers.image.ref.name`. Blobs are written next to their place, checked, synced and
//! renamed, so that a kill at any moment leaves whole blobs only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::blob::BlobWriter;
use super::error::OciError;
use super::lock;
use super::types::{Descriptor, Digest, Index, Manifest, Platform, media};

/// The annotation that holds an image's reference in an index.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation that holds the digest an image was pulled by, which may be that of an index.
pub(crate) const PULLED_BY: &str = "dev.devstack.pulled-by";

/// No honest manifest, index or configuration is larger.
pub(crate) const MAX_JSON: u64 = 8 << 20;

/// Blobs younger than this survive [`Store::prune`]: another devstack may be about to name them.
const YOUNG: Duration = Duration::from_secs(3600);

/// An image in the store, all of whose blobs are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The reference it was tagged with.
    pub reference: String,
    /// Its platform.
    pub platform: Platform,
    /// The manifest.
    pub manifest: Descriptor,
    /// The digest it was pulled by, of an index or of the manifest; `None` where that is not known.
    pub pulled_by: Option<Digest>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Bytes of manifest, configuration and layers as stored.
    pub size: u64,
}

/// What [`Store::prune`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Number of blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A content-addressed store. Cheap to clone; several processes may use one directory at a time. While any clone of it
/// is there, nobody prunes the cache.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    _lock: Option<Arc<File>>,
}

impl Store {
    /// Opens (and makes, where needed) the store below a cache directory; waits while somebody prunes the cache.
    ///
    /// # Errors
    /// [`OciError::Io`] where the directories cannot be made.
    pub fn open(cache_dir: &Path) -> Result<Self, OciError> {
        let root = directories(cache_dir)?;
        Self::locked(root, lock::shared(cache_dir)?)
    }

    /// As [`Store::open`], for one who prunes the cache; `None` while anybody else has its store open.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_alone(cache_dir: &Path) -> Result<Option<Self>, OciError> {
        let root = directories(cache_dir)?;
        lock::alone(cache_dir)?.map(|file| Self::locked(root, Some(file))).transpose()
    }

    fn locked(root: PathBuf, lock: Option<File>) -> Result<Self, OciError> {
        let store = Self { root, _lock: lock.map(Arc::new) };
        let layout = store.root.join("oci-layout");
        if !layout.exists() {
            store.replace(&layout, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(store)
    }

    /// Where a blob is (or would be).
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join("sha256").join(digest.hex())
    }

    /// Whether a blob is there.
    pub fn has(&self, digest: &Digest) -> bool {
        self.blob_path(digest).is_file()
    }

    /// Whether a blob is there in its full length, as [`Store::image`] wants it.
    pub fn has_whole(&self, blob: &Descriptor) -> bool {
        fs::metadata(self.blob_path(&blob.digest)).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size)
    }

    /// A small JSON document, its digest checked again.
    ///
    /// # Errors
    /// Where it is missing, damaged, too large or not the document that is wanted.
    pub fn read_json<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T, OciError> {
        let bytes = self.read_small(digest)?;
        serde_json::from_slice(&bytes).map_err(|source| OciError::Json { what: digest.to_string(), source })
    }

    /// The bytes of a small blob, its digest checked again.
    ///
    /// # Errors
    /// Where it is missing, damaged or larger than any honest JSON document.
    pub fn read_small(&self, digest: &Digest) -> Result<Vec<u8>, OciError> {
        let path = self.blob_path(digest);
        let file = File::open(&path).map_err(OciError::io("read", &path))?;
        let mut bytes = Vec::new();
        file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(OciError::io("read", &path))?;
        if bytes.len() as u64 > MAX_JSON {
            return Err(OciError::TooLarge { what: digest.to_string(), limit: MAX_JSON });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(OciError::Damaged { what: path.display().to_string(), expected: digest.clone(), found });
        }
        Ok(bytes)
    }

    /// Writes a blob from a stream with bounded memory; a blob that is there already is left as it is.
    ///
    /// # Errors
    /// [`OciError::Damaged`] where the bytes do not have the expected digest; nothing is kept then.
    pub async fn put_blob(
        &self,
        expected: Option<&Digest>,
        mut bytes: impl AsyncRead + Unpin + Send,
    ) -> Result<(Digest, u64), OciError> {
        let mut writer = self.blob_writer()?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = bytes.read(&mut buffer).await.map_err(|source| OciError::Stream {
                what: expected.map_or_else(|| "a blob".to_owned(), ToString::to_string),
                source,
            })?;
            if read == 0 {
                break;
            }
            writer.write_all(&buffer[..read]).map_err(OciError::io("write", writer.path()))?;
        }
        let store = self.clone();
        let expected = expected.cloned();
        tokio::task::spawn_blocking(move || writer.commit(&store, expected.as_ref()))
            .await
            .map_err(|_| OciError::Interrupted { what: "writing a blob" })?
    }

    /// Writes a small blob.
    ///
    /// # Errors
    /// [`OciError::Io`].
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<(Digest, u64), OciError> {
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(OciError::io("write", writer.path()))?;
        writer.commit(self, None)
    }

    /// Begins a blob whose digest is not known yet. Dropping the writer drops the blob.
    ///
    /// # Errors
    /// [`OciError::Io`].
    pub fn blob_writer(&self) -> Result<BlobWriter, OciError> {
        BlobWriter::create(self.temporary())
    }

    /// The image of a reference and platform; `None` where there is none or where a blob of it has gone.
    ///
    /// # Errors
    /// Where the index or the manifest cannot be read.
    pub fn image(&self, reference: &str, platform: &Platform) -> Result<Option<StoredImage>, OciError> {
        let index = self.index()?;
        match index.manifests.iter().find(|entry| is(entry, reference, platform)) {
            Some(entry) => self.stored(reference, platform, entry),
            None => Ok(None),
        }
    }

    /// Gives a manifest a name; an earlier image of this name and platform loses it. Of the descriptor's annotations the
    /// digest it was pulled by is kept.
    ///
    /// # Errors
    /// [`OciError::Missing`] where a blob of the image is not in the store.
    pub fn tag(&self, reference: &str, platform: &Platform, manifest: &Descriptor) -> Result<StoredImage, OciError> {
        let mut images = self.tag_all(&[(reference.to_owned(), platform.clone(), manifest.clone())])?;
        images
            .pop()
            .ok_or_else(|| OciError::Missing { what: reference.to_owned(), missing: manifest.digest.to_string() })
    }

    /// Gives several manifests their names at once: all of them or, on an error, none.
    ///
    /// # Errors
    /// As [`Store::tag`].
    pub fn tag_all(&self, names: &[(String, Platform, Descriptor)]) -> Result<Vec<StoredImage>, OciError> {
        let mut images = Vec::with_capacity(names.len());
        for (reference, platform, manifest) in names {
            let image = self
                .stored(reference, platform, manifest)?
                .ok_or_else(|| OciError::Missing { what: reference.clone(), missing: "a blob of it".to_owned() })?;
            images.push(image);
        }
        self.update_index(|index| {
            for (reference, platform, manifest) in names {
                index.manifests.retain(|entry| !is(entry, reference, platform));
                let mut entry = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size);
                entry.platform = Some(platform.into());
                entry.annotations.insert(REF_NAME.to_owned(), reference.clone());
                let pulled_by = manifest.annotations.get(PULLED_BY);
                entry.annotations.extend(pulled_by.map(|digest| (PULLED_BY.to_owned(), digest.clone())));
                index.manifests.push(entry);
            }
            index.manifests.sort_by(|a, b| key(a).cmp(&key(b)));
        })?;
        Ok(images)
    }

    /// Takes a name away; one that is not there is no error.
    ///
    /// # Errors
    /// [`OciError::Io`].
    pub fn untag(&self, reference: &str, platform: &Platform) -> Result<(), OciError> {
        self.update_index(|index| index.manifests.retain(|entry| !is(entry, reference, platform)))
    }

    /// All names with their platforms, sorted.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn references(&self) -> Result<Vec<(String, Platform)>, OciError> {
        let index = self.index()?;
        Ok(index.manifests.iter().filter_map(|entry| Some((name_of(entry)?.to_owned(), platform_of(entry)?))).collect())
    }

    /// Removes every blob that no name leads to, except those written within the last hour, and what killed
    /// processes left behind.
    ///
    /// # Errors
    /// Where the index or a named manifest cannot be read, or a blob cannot be removed.
    pub fn prune(&self) -> Result<Freed, OciError> {
        self.prune_older_than(YOUNG)
    }

    /// As [`Store::prune`] with an age of the caller's.
    ///
    /// # Errors
    /// As [`Store::prune`].
    pub fn prune_older_than(&self, age: Duration) -> Result<Freed, OciError> {
        let _lock = self.lock()?;
        let mut used = BTreeSet::new();
        for entry in self.index()?.manifests {
            let digest = entry.digest.clone();
            used.insert(digest.hex().to_owned());
            if !self.has(&digest) {
                continue;
            }
            let manifest: Manifest = self.read_json(&digest)?;
            used.insert(manifest.config.digest.hex().to_owned());
            used.extend(manifest.layers.iter().map(|layer| layer.digest.hex().to_owned()));
        }
        let mut freed = Freed::default();
        for dir in [self.root.join("blobs").join("sha256"), self.root.join("tmp")] {
            for entry in fs::read_dir(&dir).map_err(OciError::io("list", &dir))? {
                let entry = entry.map_err(OciError::io("list", &dir))?;
                let path = entry.path();
                let Ok(meta) = entry.metadata() else { continue };
                let young = meta
                    .modified()
                    .ok()
                    .and_then(|time| SystemTime::now().duration_since(time).ok())
                    .is_none_or(|old| old < age);
                if young || entry.file_name().to_str().is_some_and(|name| used.contains(name)) {
                    continue;
                }
                fs::remove_file(&path).map_err(OciError::io("remove", &path))?;
                freed.blobs += 1;
                freed.bytes += meta.len();
            }
        }
        Ok(freed)
    }

    fn stored(
        &self,
        reference: &str,
        platform: &Platform,
        manifest: &Descriptor,
    ) -> Result<Option<StoredImage>, OciError> {
        if !self.has(&manifest.digest) {
            return Ok(None);
        }
        let parsed: Manifest = self.read_json(&manifest.digest)?;
        let mut size = manifest.size;
        for blob in std::iter::once(&parsed.config).chain(&parsed.layers) {
            if !self.has_whole(blob) {
                return Ok(None);
            }
            size += blob.size;
        }
        let mut plain = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size);
        if plain.media_type.is_empty() {
            media::MANIFEST.clone_into(&mut plain.media_type);
        }
        Ok(Some(StoredImage {
            reference: reference.to_owned(),
            platform: platform.clone(),
            manifest: plain,
            pulled_by: manifest.annotations.get(PULLED_BY).and_then(|digest| digest.parse().ok()),
            config: parsed.config,
            layers: parsed.layers,
            size,
        }))
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }

    fn index(&self) -> Result<Index, OciError> {
        let path = self.index_path();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| OciError::Json { what: path.display().to_string(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Index { schema_version: 2, media_type: media::INDEX.to_owned(), manifests: Vec::new() })
            }
            Err(error) => Err(OciError::io("read", &path)(error)),
        }
    }

    fn update_index(&self, change: impl FnOnce(&mut Index)) -> Result<(), OciError> {
        let _lock = self.lock()?;
        let before = self.index()?;
        let mut index = before.clone();
        change(&mut index);
        if index == before {
            return Ok(());
        }
        let path = self.index_path();
        let bytes = serde_json::to_vec_pretty(&index)
            .map_err(|source| OciError::Json { what: path.display().to_string(), source })?;
        self.replace(&path, &bytes)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), OciError> {
        let temporary = self.temporary();
        let write = || -> io::Result<()> {
            let mut file = File::create_new(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(OciError::io("write", path))
    }

    /// The lock of the index; released when the file is dropped.
    fn lock(&self) -> Result<File, OciError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(OciError::io("create", &path))?;
        file.lock().map_err(OciError::io("lock", &path))?;
        Ok(file)
    }

    fn temporary(&self) -> PathBuf {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        self.root.join("tmp").join(format!("{}-{nanos}-{count}", std::process::id()))
    }
}

/// Makes the directories of a store, and gives the uppermost.
fn directories(cache_dir: &Path) -> Result<PathBuf, OciError> {
    let root = cache_dir.join("store");
    for dir in [root.join("blobs").join("sha256"), root.join("tmp")] {
        fs::create_dir_all(&dir).map_err(OciError::io("create", &dir))?;
    }
    Ok(root)
}

/// The manifests and configurations that an index entry is known by.
fn name_of(entry: &Descriptor) -> Option<&str> {
    entry.annotations.get(REF_NAME).map(String::as_str)
}

fn platform_of(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform.as_ref()?;
    Some(Platform { os: platform.os.clone(), architecture: platform.architecture.clone() })
}

fn is(entry: &Descriptor, reference: &str, platform: &Platform) -> bool {
    name_of(entry) == Some(reference) && platform_of(entry).as_ref() == Some(platform)
}

fn key(entry: &Descriptor) -> (Option<&str>, Option<Platform>) {
    (name_of(entry), platform_of(entry))
}

/// Counts blobs once over several images.
pub(crate) fn distinct_blobs(images: &[StoredImage]) -> BTreeMap<Digest, u64> {
    images
        .iter()
        .flat_map(|image| std::iter::once(&image.manifest).chain(std::iter::once(&image.config)).chain(&image.layers))
        .map(|blob| (blob.digest.clone(), blob.size))
        .collect()
}

#[cfg(test)]
#[path = "store_tests.rs"]
pub(crate) mod tests;
