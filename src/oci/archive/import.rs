//! Reading archives that anybody may have written.
//!
//! Nothing is ever written under a name from the archive: each regular file becomes a staged blob known by its
//! digest, names are only looked up. The store changes after everything has been checked, and not at all otherwise.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::Digest as _;
use tokio_util::sync::CancellationToken;

use super::super::blob::Staged;
use super::super::error::OciError;
use super::super::store::{MAX_JSON, PULLED_BY, REF_NAME, Store, StoredImage};
use super::super::types::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, media};
use super::budget::Budget;
use super::export::CONTAINERD_NAME;
use super::pipe::{StreamReader, Until};
use crate::error::printable;
use crate::ports::engine::ByteStream;

/// No honest archive has more entries.
const MAX_ENTRIES: usize = 100_000;

/// How deep an index may name indexes: archive → image → platforms.
const MAX_DEPTH: usize = 3;

/// Takes the images of an OCI layout or `docker save` archive (gzip-compressed or not) into the store.
///
/// # Errors
/// For whatever is damaged, incomplete, oversized or hostile in it; the store is unchanged then.
pub async fn import(store: &Store, archive: ByteStream) -> Result<Vec<StoredImage>, OciError> {
    let store = store.clone();
    let reader = StreamReader::new(archive);
    tokio::task::spawn_blocking(move || import_reader(&store, reader))
        .await
        .map_err(|_| OciError::Interrupted { what: "reading an archive" })?
}

/// As [`import`], from a blocking reader.
///
/// # Errors
/// As [`import`].
pub fn import_reader(store: &Store, archive: impl Read) -> Result<Vec<StoredImage>, OciError> {
    import_checked(store, archive, "", &CancellationToken::new(), |_, _| Ok(()))
}

/// As [`import`], with a last word of the caller's: `check` gets the images as (reference, manifest digest) and the
/// content of the file `name` of the archive, and its error leaves the store unchanged. So does `cancel`.
///
/// # Errors
/// As [`import`], and the check's own.
pub(crate) fn import_checked<E: From<OciError>>(
    store: &Store,
    archive: impl Read,
    name: &str,
    cancel: &CancellationToken,
    check: impl FnOnce(&[(&str, &Digest)], Option<Vec<u8>>) -> Result<(), E>,
) -> Result<Vec<StoredImage>, E> {
    let failed = |source| OciError::Stream { what: "the archive".to_owned(), source };
    let mut archive = BufReader::with_capacity(256 << 10, Until::new(archive, cancel));
    let compressed = archive.fill_buf().map_err(failed)?.starts_with(&[0x1f, 0x8b]);
    let mut contents = Contents { cancel: cancel.clone(), ..Contents::default() };
    if compressed {
        contents.read(store, flate2::bufread::MultiGzDecoder::new(archive))?;
    } else {
        contents.read(store, archive)?;
    }
    let found = if contents.files.contains_key("index.json") {
        contents.oci_images()?
    } else if contents.files.contains_key("manifest.json") {
        contents.docker_images()?
    } else {
        let reason = "neither index.json nor manifest.json is in it".to_owned();
        return Err(OciError::NotAnArchive { reason }.into());
    };
    if found.is_empty() {
        return Err(OciError::NotAnArchive { reason: "no image is in it".to_owned() }.into());
    }
    let listed: Vec<_> = found.iter().map(|image| (image.reference.as_str(), &image.manifest.digest)).collect();
    let file = contents.files.get(name).map(|digest| contents.small(name, digest)).transpose()?;
    check(&listed, file)?;
    contents.place(store, &found)?;
    let names: Vec<_> =
        found.iter().map(|image| (image.reference.clone(), image.platform.clone(), image.manifest.clone())).collect();
    Ok(store.tag_all(&names)?)
}

/// An image that was found whole.
struct Found {
    reference: String,
    platform: Platform,
    manifest: Descriptor,
    /// The manifest's bytes where the archive does not have them as a file.
    written: Option<Vec<u8>>,
    blobs: Vec<Descriptor>,
}

/// One line of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// What an archive holds: names → digests → staged bytes.
#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Digest>,
    links: BTreeMap<String, String>,
    staged: HashMap<Digest, (u64, Staged)>,
    cancel: CancellationToken,
}

impl Contents {
    fn read(&mut self, store: &Store, archive: impl Read) -> Result<(), OciError> {
        let mut tar = tar::Archive::new(archive);
        let broken = |source| OciError::Stream { what: "the archive".to_owned(), source };
        for (count, entry) in tar.entries().map_err(broken)?.enumerate() {
            let mut entry = entry.map_err(broken)?;
            let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let refuse = |reason| OciError::Hostile { entry: shown.chars().take(200).collect(), reason };
            if count >= MAX_ENTRIES {
                return Err(refuse("is one entry too many"));
            }
            let name = plain(Path::new(&shown)).ok_or_else(|| refuse("reaches outside the archive"))?;
            match entry.header().entry_type() {
                tar::EntryType::Directory | tar::EntryType::XGlobalHeader => {}
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    if name.is_empty() || self.files.contains_key(&name) || self.links.contains_key(&name) {
                        return Err(refuse("is there twice"));
                    }
                    self.stage(store, name, &mut entry)?;
                }
                // `docker save` before 25 writes a layer that several images share as a link.
                tar::EntryType::Symlink => {
                    let target = entry.link_name().map_err(broken)?.ok_or_else(|| refuse("links to nothing"))?;
                    let target = inside(&name, &target).ok_or_else(|| refuse("links outside the archive"))?;
                    if self.files.contains_key(&name) || self.links.insert(name, target).is_some() {
                        return Err(refuse("is there twice"));
                    }
                }
                _ => return Err(refuse("is neither file nor directory")),
            }
        }
        Ok(())
    }

    fn stage(&mut self, store: &Store, name: String, content: &mut impl Read) -> Result<(), OciError> {
        let expected: Option<Digest> = match name.strip_prefix("blobs/sha256/") {
            Some(hex) => Some(format!("sha256:{hex}").parse()?),
            None => None,
        };
        let mut writer = store.blob_writer()?;
        let failed = |source| OciError::Stream { what: format!("{name:?} of the archive"), source };
        io::copy(content, &mut writer).map_err(failed)?;
        let (digest, size, staged) = writer.finish(expected.as_ref()).map_err(|error| match error {
            OciError::Damaged { expected, found, .. } => OciError::Damaged { what: name.clone(), expected, found },
            other => other,
        })?;
        self.staged.entry(digest.clone()).or_insert((size, staged));
        self.files.insert(name, digest);
        Ok(())
    }

    /// The digest of a file by its name, through one link at most.
    fn file(&self, name: &str) -> Result<&Digest, OciError> {
        let missing = || OciError::Missing { what: "the archive".to_owned(), missing: printable(name) };
        let name = plain(Path::new(name)).ok_or_else(missing)?;
        let name = self.links.get(&name).unwrap_or(&name);
        self.files.get(name).ok_or_else(missing)
    }

    fn size(&self, digest: &Digest) -> Option<u64> {
        self.staged.get(digest).map(|(size, _)| *size)
    }

    fn open(&self, digest: &Digest) -> Result<Until<File>, OciError> {
        let (_, staged) = self
            .staged
            .get(digest)
            .ok_or_else(|| OciError::Missing { what: "the archive".to_owned(), missing: digest.to_string() })?;
        let file = File::open(staged.path()).map_err(OciError::io("read", staged.path()))?;
        Ok(Until::new(file, &self.cancel))
    }

    fn json<T: DeserializeOwned>(&self, what: &str, digest: &Digest) -> Result<T, OciError> {
        let bytes = self.small(what, digest)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| OciError::Json { what: format!("{what} of the archive"), source })
    }

    fn small(&self, what: &str, digest: &Digest) -> Result<Vec<u8>, OciError> {
        if self.size(digest).is_some_and(|size| size > MAX_JSON) {
            return Err(OciError::TooLarge { what: format!("{what} of the archive"), limit: MAX_JSON });
        }
        let mut bytes = Vec::new();
        let failed = |source| OciError::Stream { what: format!("{what} of the archive"), source };
        self.open(digest)?.take(MAX_JSON).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn oci_images(&self) -> Result<Vec<Found>, OciError> {
        let index: Index = self.json("index.json", self.file("index.json")?)?;
        let docker = self.docker_names();
        let mut budget = Budget::default();
        let mut found = Vec::new();
        for entry in &index.manifests {
            let named = entry.annotations.get(CONTAINERD_NAME).or_else(|| {
                // Docker writes the bare tag here; a whole reference has a repository.
                entry.annotations.get(REF_NAME).filter(|name| name.contains([':', '/']))
            });
            if !budget.visit(&entry.digest, named.map(String::as_str), 1)? {
                continue;
            }
            let before = found.len();
            self.collect(entry, named.map(String::as_str), &docker, 1, &mut budget, &mut found)?;
            if found.len() == before && !is_attestation(entry) {
                return Err(OciError::Missing {
                    what: named.map_or_else(|| entry.digest.to_string(), |name| printable(name)),
                    missing: "every platform".to_owned(),
                });
            }
        }
        Ok(found)
    }

    /// Collects the images of an index entry. In an image of several platforms those that the archive does not
    /// have are passed over, as engines save only what they hold.
    fn collect(
        &self,
        entry: &Descriptor,
        named: Option<&str>,
        docker: &HashMap<Digest, Vec<String>>,
        depth: usize,
        budget: &mut Budget,
        found: &mut Vec<Found>,
    ) -> Result<(), OciError> {
        if is_attestation(entry) {
            return Ok(());
        }
        let what = named.map_or_else(|| entry.digest.to_string(), printable);
        if depth > 1 && self.size(&entry.digest).is_none() {
            return Ok(());
        }
        let size = self.size(&entry.digest).unwrap_or(entry.size);
        budget.document(size)?;
        let document: serde_json::Value = self.json(&what, &entry.digest)?;
        if document.get("manifests").is_some() {
            if depth >= MAX_DEPTH {
                return Err(OciError::NotAnArchive { reason: format!("{what} is nested too deeply") });
            }
            let index: Index = self.json(&what, &entry.digest)?;
            for entry in &index.manifests {
                if budget.visit(&entry.digest, named, depth + 1)? {
                    self.collect(entry, named, docker, depth + 1, budget, found)?;
                }
            }
            return Ok(());
        }
        let manifest: Manifest = self.json(&what, &entry.digest)?;
        for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
            match self.size(&blob.digest) {
                Some(size) if size == blob.size => {}
                None if depth > 1 => return Ok(()),
                _ => return Err(OciError::Missing { what, missing: blob.digest.to_string() }),
            }
        }
        budget.document(manifest.config.size)?;
        let config: ImageConfig = self.json(&what, &manifest.config.digest)?;
        let mut references: Vec<String> = named.map(ToOwned::to_owned).into_iter().collect();
        if references.is_empty() {
            references = docker.get(&manifest.config.digest).cloned().unwrap_or_default();
        }
        if references.is_empty() {
            references = vec![format!("imported@{}", entry.digest)];
        }
        let media_type = if entry.media_type.is_empty() { media::MANIFEST } else { &entry.media_type };
        let mut blobs = vec![entry.clone(), manifest.config];
        blobs.extend(manifest.layers);
        let mut descriptor = Descriptor::new(media_type, entry.digest.clone(), size);
        let pulled_by = entry.annotations.get(PULLED_BY);
        descriptor.annotations.extend(pulled_by.map(|digest| (PULLED_BY.to_owned(), digest.clone())));
        for reference in references {
            budget.image(size, blobs.len())?;
            found.push(Found {
                reference,
                platform: platform(&config)?,
                manifest: descriptor.clone(),
                written: None,
                blobs: blobs.clone(),
            });
        }
        Ok(())
    }

    /// Names in Docker's `manifest.json` by configuration, for layouts whose index names nothing.
    fn docker_names(&self) -> HashMap<Digest, Vec<String>> {
        let entries: Vec<DockerEntry> =
            self.file("manifest.json").and_then(|digest| self.json("manifest.json", digest)).unwrap_or_default();
        entries
            .into_iter()
            .filter_map(|entry| Some((self.file(&entry.config).ok()?.clone(), entry.repo_tags.unwrap_or_default())))
            .collect()
    }

    fn docker_images(&self) -> Result<Vec<Found>, OciError> {
        let entries: Vec<DockerEntry> = self.json("manifest.json", self.file("manifest.json")?)?;
        let mut budget = Budget::default();
        let mut found = Vec::new();
        for entry in entries {
            let config_digest = self.file(&entry.config)?.clone();
            let what = printable(entry.repo_tags.iter().flatten().next().unwrap_or(&entry.config));
            let size = self.size(&config_digest).unwrap_or_default();
            budget.document(size)?;
            for _ in 0..entry.repo_tags.as_ref().map_or(1, |names| names.len().max(1)) {
                budget.image(size, entry.layers.len())?;
            }
            let config: ImageConfig = self.json(&what, &config_digest)?;
            if config.rootfs.diff_ids.len() != entry.layers.len() {
                return Err(OciError::Missing { what, missing: "a layer of its configuration".to_owned() });
            }
            let mut layers = Vec::with_capacity(entry.layers.len());
            for (name, diff_id) in entry.layers.iter().zip(&config.rootfs.diff_ids) {
                layers.push(self.docker_layer(name, diff_id, &mut budget)?);
            }
            let manifest = Manifest {
                schema_version: 2,
                media_type: media::MANIFEST.to_owned(),
                config: Descriptor::new(media::CONFIG, config_digest, size),
                layers,
            };
            let bytes =
                serde_json::to_vec(&manifest).map_err(|source| OciError::Json { what: what.clone(), source })?;
            let descriptor = Descriptor::new(media::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
            let mut blobs = vec![manifest.config];
            blobs.extend(manifest.layers);
            let mut references = entry.repo_tags.unwrap_or_default();
            if references.is_empty() {
                references = vec![format!("imported@{}", descriptor.digest)];
            }
            for reference in references {
                found.push(Found {
                    reference,
                    platform: platform(&config)?,
                    manifest: descriptor.clone(),
                    written: Some(bytes.clone()),
                    blobs: blobs.clone(),
                });
            }
        }
        Ok(found)
    }

    /// A layer of a `docker save` archive, whose uncompressed bytes must be those of the configuration.
    fn docker_layer(&self, name: &str, diff_id: &Digest, budget: &mut Budget) -> Result<Descriptor, OciError> {
        let digest = self.file(name)?;
        let size = self.size(digest).unwrap_or_default();
        if digest == diff_id {
            return Ok(Descriptor::new(media::LAYER, digest.clone(), size));
        }
        if !budget.unhashed(digest, diff_id) {
            return Ok(Descriptor::new(media::LAYER_GZIP, digest.clone(), size));
        }
        let failed = |source| OciError::Stream { what: format!("{name:?} of the archive"), source };
        let mut hash = sha2::Sha256::new();
        let mut reader = flate2::read::MultiGzDecoder::new(BufReader::new(self.open(digest)?));
        let mut buffer = vec![0; 256 << 10];
        let damaged = |found| OciError::Damaged { what: printable(name), expected: diff_id.clone(), found };
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => hash.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(damaged(digest.clone())),
                Err(error) => return Err(failed(error)),
            }
        }
        let found = Digest::from_hash(&hash.finalize());
        if found != *diff_id {
            return Err(damaged(found));
        }
        Ok(Descriptor::new(media::LAYER_GZIP, digest.clone(), size))
    }

    /// Moves the blobs of the images to their places; the rest is dropped.
    fn place(&mut self, store: &Store, images: &[Found]) -> Result<(), OciError> {
        for image in images {
            for blob in &image.blobs {
                if let Some((_, staged)) = self.staged.remove(&blob.digest) {
                    staged.place(store, &blob.digest)?;
                }
            }
            if let Some(bytes) = &image.written {
                store.put_bytes(bytes)?;
            }
        }
        Ok(())
    }
}

/// A path without `.` and with nothing that leads out of the archive.
fn plain(path: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// Where a link leads, if it stays inside the archive.
fn inside(link: &str, target: &Path) -> Option<String> {
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

/// `BuildKit` attaches attestations as manifests of an unknown platform.
fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

fn platform(config: &ImageConfig) -> Result<Platform, OciError> {
    format!("{}/{}", config.os, config.architecture).parse()
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
