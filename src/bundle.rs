//! Bundles: everything that a profile needs, in one archive for a network without registries.
//!
//! A bundle is an OCI image layout (so `docker load` and `ctr images import` take it as well) whose first file,
//! [`MANIFEST`], says what it is for and lists every image with its digest. The tool that makes clusters is in it as an
//! image of its own.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Advise, ExitCode};
use crate::oci::archive::{self, ArchiveFormat};
use crate::oci::{Digest, OciError, Platform, Store, StoredImage};

/// The first file of a bundle.
pub const MANIFEST: &str = "devstack-bundle.json";

/// The manifest is small; what claims otherwise is no bundle.
const MAX_MANIFEST: u64 = 1 << 20;

/// What a bundle says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// `devstack/v1`.
    pub api_version: String,
    /// `Bundle`.
    pub kind: String,
    /// The profile it was made for.
    pub profile: String,
    /// The platform of all images.
    pub platform: Platform,
    /// The version of the devstack that made it.
    pub devstack: String,
    /// Every image, sorted by reference.
    pub images: Vec<Item>,
}

/// One image of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Item {
    /// Its reference.
    pub reference: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its size in bytes; images may share some of them.
    pub bytes: u64,
}

/// Why a bundle could not be made or taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// The images in it cannot be taken.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// It is another kind of file.
    #[error("this is no devstack bundle: {reason}")]
    NotABundle {
        /// Why.
        reason: String,
    },
    /// Its manifest and its content disagree.
    #[error("the bundle is damaged: {reason}")]
    Disagrees {
        /// In what.
        reason: String,
    },
    /// It is for machines of another platform.
    #[error("the bundle is for {bundle}, and this is {here}")]
    Platform {
        /// The bundle's.
        bundle: Platform,
        /// What was wanted.
        here: Platform,
    },
    /// The images of one bundle are for one platform.
    #[error("{reference} is for {found}, the bundle is for {wanted}")]
    Mixed {
        /// The image.
        reference: String,
        /// Its platform.
        found: Platform,
        /// The bundle's.
        wanted: Platform,
    },
}

impl Advise for BundleError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Oci(source) => source.hint(),
            Self::NotABundle { .. } => Some("make one with `devstack bundle create`".to_owned()),
            Self::Disagrees { .. } => Some("copy it again; nothing was changed".to_owned()),
            Self::Platform { here, .. } => Some(format!("make one on a {here} machine")),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free disk space, for example with `devstack image prune`".to_owned())
            }
            Self::Io { .. } | Self::Mixed { .. } => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::NotABundle { .. } => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> BundleError {
    let path = path.to_path_buf();
    move |source| BundleError::Io { action, path: path.clone(), source }
}

/// Writes a bundle. The file appears whole or not at all; equal images give equal bytes.
///
/// # Errors
/// Where a blob has gone, an image is for another platform, or the file cannot be written.
pub fn create(
    store: &Store,
    profile: &str,
    platform: &Platform,
    images: &[StoredImage],
    path: &Path,
) -> Result<Manifest, BundleError> {
    let mut images = images.to_vec();
    images.sort_by(|a, b| a.reference.cmp(&b.reference));
    images.dedup_by(|a, b| a.reference == b.reference);
    if let Some(other) = images.iter().find(|image| image.platform != *platform) {
        return Err(BundleError::Mixed {
            reference: other.reference.clone(),
            found: other.platform.clone(),
            wanted: platform.clone(),
        });
    }
    let item = |image: &StoredImage| Item {
        reference: image.reference.clone(),
        digest: image.manifest.digest.clone(),
        bytes: image.size,
    };
    let manifest = Manifest {
        api_version: "devstack/v1".to_owned(),
        kind: "Bundle".to_owned(),
        profile: profile.to_owned(),
        platform: platform.clone(),
        devstack: env!("CARGO_PKG_VERSION").to_owned(),
        images: images.iter().map(item).collect(),
    };
    let text =
        serde_json::to_vec_pretty(&manifest).map_err(|error| BundleError::NotABundle { reason: error.to_string() })?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Partial(PathBuf::from(partial));
    let file = File::create(&partial.0).map_err(failed("create", &partial.0))?;
    let mut output = BufWriter::with_capacity(1 << 20, file);
    archive::write(store, &images, ArchiveFormat::Oci, &[(MANIFEST, &text)], &mut output)?;
    output.flush().map_err(failed("write", &partial.0))?;
    output.get_ref().sync_all().map_err(failed("write", &partial.0))?;
    fs::rename(&partial.0, path).map_err(failed("write", path))?;
    Ok(manifest)
}

/// An unfinished file, removed when dropped; after the rename there is none.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Reads what a bundle says of itself, without reading (or believing) the rest.
///
/// # Errors
/// Where the file is no bundle.
pub fn inspect(path: &Path) -> Result<Manifest, BundleError> {
    let file = File::open(path).map_err(failed("read", path))?;
    let strange = |reason: &str| BundleError::NotABundle { reason: reason.to_owned() };
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut entries = archive.entries().map_err(failed("read", path))?;
    let entry = entries.next().ok_or_else(|| strange("it is empty"))?;
    let entry = entry.map_err(|_| strange("it is no tar archive"))?;
    if *entry.path_bytes() != *MANIFEST.as_bytes() || !entry.header().entry_type().is_file() {
        return Err(strange("its first file is not a bundle's"));
    }
    let mut text = Vec::new();
    entry.take(MAX_MANIFEST + 1).read_to_end(&mut text).map_err(failed("read", path))?;
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Manifest, BundleError> {
    let strange = |reason: String| BundleError::NotABundle { reason };
    if text.len() as u64 > MAX_MANIFEST {
        return Err(strange("its manifest is too large".to_owned()));
    }
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| strange(format!("its manifest is not valid: {error}")))?;
    if manifest.api_version != "devstack/v1" || manifest.kind != "Bundle" {
        return Err(strange("its manifest is of another kind".to_owned()));
    }
    Ok(manifest)
}

/// Takes the images of a bundle into the store. Everything is verified first: on an error nothing has changed.
///
/// # Errors
/// Where the bundle is damaged, hostile, incomplete, for another platform, or no bundle.
pub fn load(store: &Store, path: &Path, here: &Platform) -> Result<(Manifest, Vec<StoredImage>), BundleError> {
    let manifest = inspect(path)?;
    if manifest.platform != *here {
        return Err(BundleError::Platform { bundle: manifest.platform, here: here.clone() });
    }
    let file = File::open(path).map_err(failed("read", path))?;
    let images = archive::import_checked(store, file, MANIFEST, |found, text| {
        if parse(&text.unwrap_or_default())? != manifest {
            return Err(BundleError::Disagrees { reason: "it changed while it was read".to_owned() });
        }
        agree(&manifest, found)
    })?;
    Ok((manifest, images))
}

fn agree(manifest: &Manifest, found: &[(&str, &Digest)]) -> Result<(), BundleError> {
    let disagrees = |reason: String| Err(BundleError::Disagrees { reason });
    for item in &manifest.images {
        if !found.iter().any(|(reference, digest)| *reference == item.reference && **digest == item.digest) {
            return disagrees(format!("{} is not in it as {}", item.reference, item.digest));
        }
    }
    for (reference, digest) in found {
        if !manifest.images.iter().any(|item| item.reference == *reference && item.digest == **digest) {
            return disagrees(format!("{reference} is in it and not in its manifest"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{ImageSpec, Layer, RunConfig, Source, assemble};

    fn amd64() -> Platform {
        Platform::linux("amd64")
    }

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn image(store: &Store, reference: &str) -> StoredImage {
        let mut layer = Layer::new();
        layer.file("name", Source::Bytes(reference.repeat(2000).into_bytes()), 0o644).unwrap();
        let layers = vec![layer.store(store).unwrap()];
        let config = RunConfig::default();
        assemble(store, &ImageSpec { reference: reference.to_owned(), platform: amd64(), config, layers }).unwrap()
    }

    fn bundle(dir: &Path, store: &Store) -> PathBuf {
        let path = dir.join("s3www.bundle");
        let images = [image(store, "devstack.local/b:1"), image(store, "devstack.local/a:1")];
        create(store, "s3www", &amd64(), &images, &path).unwrap();
        path
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let (dir, store) = open();
        let path = bundle(dir.path(), &store);
        let first = fs::read(&path).unwrap();
        assert_eq!(fs::read(bundle(dir.path(), &store)).unwrap(), first, "equal images give equal bytes");
        let inspected = inspect(&path).unwrap();
        let names: Vec<&str> = inspected.images.iter().map(|item| item.reference.as_str()).collect();
        assert_eq!(names, ["devstack.local/a:1", "devstack.local/b:1"]);
        let (_other, fresh) = open();
        let (manifest, images) = load(&fresh, &path, &amd64()).unwrap();
        assert_eq!(manifest, inspected);
        assert_eq!(images.len(), 2);
        assert_eq!(fresh.references().unwrap().len(), 2);
        assert!(!dir.path().join("s3www.bundle.partial").exists());
    }

    #[test]
    fn damage_anywhere_is_refused_and_changes_nothing() {
        let (dir, store) = open();
        let path = bundle(dir.path(), &store);
        let whole = fs::read(&path).unwrap();
        let (_other, fresh) = open();
        let blob = whole.windows(20).position(|bytes| bytes == b"devstack.local/b:1de").unwrap();
        let digest = whole.windows(7).position(|bytes| bytes == b"sha256:").unwrap() + 7;
        for at in [blob, digest, whole.len() / 2] {
            let mut bytes = whole.clone();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            fs::write(&path, bytes).unwrap();
            let error = load(&fresh, &path, &amd64()).unwrap_err();
            assert!(!error.to_string().is_empty());
            assert_eq!(fresh.references().unwrap(), [], "{at}: {error}");
        }
        for length in [0, 100, blob, whole.len() * 3 / 4] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(load(&fresh, &path, &amd64()).is_err(), "cut at {length}");
            assert_eq!(fresh.references().unwrap(), []);
        }
    }

    #[test]
    fn what_is_no_bundle_is_named() {
        let (dir, store) = open();
        let path = dir.path().join("file");
        fs::write(&path, "hello, I am a text file, and of more than one tar block".repeat(20)).unwrap();
        assert_eq!(inspect(&path).unwrap_err().to_string(), "this is no devstack bundle: it is no tar archive");
        let file = File::create(&path).unwrap();
        archive::write(&store, &[image(&store, "a:1")], ArchiveFormat::Oci, &[], file).unwrap();
        let error = load(&store, &path, &amd64()).unwrap_err();
        assert_eq!(error.to_string(), "this is no devstack bundle: its first file is not a bundle's");
        assert_eq!(error.exit(), ExitCode::Usage);
    }

    #[test]
    fn an_image_that_the_manifest_does_not_name_is_refused() {
        let (dir, store) = open();
        let path = bundle(dir.path(), &store);
        let manifest = inspect(&path).unwrap();
        let images = [image(&store, "devstack.local/a:1"), image(&store, "devstack.local/evil:1")];
        let text = serde_json::to_vec(&manifest).unwrap();
        let file = File::create(&path).unwrap();
        archive::write(&store, &images, ArchiveFormat::Oci, &[(MANIFEST, &text)], file).unwrap();
        let (_other, fresh) = open();
        let error = load(&fresh, &path, &amd64()).unwrap_err();
        assert!(matches!(error, BundleError::Disagrees { .. }), "{error}");
        assert_eq!(fresh.references().unwrap(), []);
    }

    #[test]
    fn a_bundle_is_for_one_platform() {
        let (dir, store) = open();
        let path = bundle(dir.path(), &store);
        let error = load(&store, &path, &Platform::linux("arm64")).unwrap_err();
        assert_eq!(error.to_string(), "the bundle is for linux/amd64, and this is linux/arm64");
        let error =
            create(&store, "x", &Platform::linux("arm64"), &[image(&store, "a:1")], &dir.path().join("y")).unwrap_err();
        assert!(matches!(error, BundleError::Mixed { .. }), "{error}");
    }
}
