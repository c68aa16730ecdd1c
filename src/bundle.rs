//! Bundles: everything that a profile needs, in one archive for a network without registries.
//!
//! A bundle is an OCI image layout (so `docker load` and `ctr images import` take it as well) whose first file,
//! [`MANIFEST`], says what it is for and lists every image with its digest. The tool that makes clusters is in it as an
//! image of its own.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::{Advise, ExitCode, printable};
use crate::image::Reference;
use crate::oci::archive::{self, ArchiveFormat, Until};
use crate::oci::{Digest, OciError, Platform, Store, StoredImage};
use crate::profile;

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
    /// It is for nodes of another platform.
    #[error("the bundle is for nodes of {bundle}, and nodes here are {here}")]
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
            Self::Platform { bundle, here } => Some(format!(
                "make one with --platform {here}, or load this one for other nodes with --platform {bundle}"
            )),
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

/// Writes a bundle. The file appears whole or not at all, also where `cancel` fires; equal images give equal bytes.
///
/// # Errors
/// Where a blob has gone, an image is for another platform, or the file cannot be written.
pub fn create(
    store: &Store,
    profile: &str,
    platform: &Platform,
    images: &[StoredImage],
    path: &Path,
    cancel: &CancellationToken,
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
    let (partial, file) = Partial::beside(path)?;
    let mut output = BufWriter::with_capacity(1 << 20, file);
    let first = [(MANIFEST, text.as_slice())];
    archive::write(store, &images, ArchiveFormat::Oci, &first, Until::new(&mut output, cancel))?;
    output.flush().map_err(failed("write", &partial.0))?;
    output.get_ref().sync_all().map_err(failed("write", &partial.0))?;
    fs::rename(&partial.0, path).map_err(failed("write", path))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("write", path))?;
    Ok(manifest)
}

/// An unfinished file, removed when dropped; after the rename there is none.
struct Partial(PathBuf);

impl Partial {
    /// A new file in the directory of another one, under a name that nobody has.
    fn beside(path: &Path) -> Result<(Self, File), BundleError> {
        let mut count = 0;
        loop {
            let partial = path.with_file_name(format!(".devstack-bundle-{}-{count}.partial", std::process::id()));
            match File::create_new(&partial) {
                Ok(file) => return Ok((Self(partial), file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => count += 1,
                Err(error) => return Err(failed("create", &partial)(error)),
            }
        }
    }
}

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
    // As it is: a long name in place of the first file would be read whole.
    let mut entries = archive.entries().map_err(failed("read", path))?.raw(true);
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
    let manifest: Manifest = serde_json::from_slice(text)
        .map_err(|error| strange(printable(&format!("its manifest is not valid: {error}"))))?;
    if manifest.api_version != "devstack/v1" || manifest.kind != "Bundle" {
        return Err(strange("its manifest is of another kind".to_owned()));
    }
    // Anybody may have written it, and all of it is shown.
    if !profile::is_name(&manifest.profile) {
        return Err(strange("its profile has no name".to_owned()));
    }
    if !is_version(&manifest.devstack) {
        return Err(strange("it names no version of devstack".to_owned()));
    }
    if let Some(item) = manifest.images.iter().find(|item| item.reference.parse::<Reference>().is_err()) {
        return Err(strange(format!("{:?} is no image", printable(&item.reference))));
    }
    Ok(manifest)
}

/// Whether a text may be a version: `0.1.0`, `1.2.3-rc.1+build`.
fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(plain)
}

/// Takes the images of a bundle into the store, for nodes of a platform. Everything is verified first: on an error, and
/// where `cancel` fires, nothing has changed.
///
/// # Errors
/// Where the bundle is damaged, hostile, incomplete, for another platform, or no bundle.
pub fn load(
    store: &Store,
    path: &Path,
    here: &Platform,
    cancel: &CancellationToken,
) -> Result<(Manifest, Vec<StoredImage>), BundleError> {
    if !fs::metadata(path).map_err(failed("read", path))?.is_file() {
        // It is read twice.
        return Err(BundleError::NotABundle { reason: "it is no regular file".to_owned() });
    }
    let manifest = inspect(path)?;
    if manifest.platform != *here {
        return Err(BundleError::Platform { bundle: manifest.platform, here: here.clone() });
    }
    let file = File::open(path).map_err(failed("read", path))?;
    let images = archive::import_checked(store, file, MANIFEST, cancel, |found, text| {
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
            return disagrees(format!("{:?} is in it and not in its manifest", printable(reference)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
