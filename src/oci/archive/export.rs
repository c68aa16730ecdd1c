//! Writing archives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Write};

use serde::Serialize;

use super::super::error::OciError;
use super::super::store::{PULLED_BY, REF_NAME, Store, StoredImage, distinct_blobs};
use super::super::types::{Digest, Index, media};
use super::pipe::stream_of;
use crate::ports::engine::ByteStream;

/// The annotation by which containerd names an imported image.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What the archive looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout for containerd, with Docker's `manifest.json` beside it.
    Oci,
    /// Docker's `manifest.json` alone, for `docker load` of any age.
    Docker,
}

/// One line of Docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Streams images as one tar that holds each blob once. Errors, such as a blob that has gone, end the stream.
///
/// Must be called inside a Tokio runtime.
pub fn export(store: &Store, images: &[StoredImage], format: ArchiveFormat) -> ByteStream {
    export_without(store, images, format, &BTreeSet::new())
}

/// As [`export`], but for the blobs that its reader has already.
pub fn export_without(
    store: &Store,
    images: &[StoredImage],
    format: ArchiveFormat,
    known: &BTreeSet<Digest>,
) -> ByteStream {
    let store = store.clone();
    let images = images.to_vec();
    let mut blobs = distinct_blobs(&images);
    blobs.retain(|digest, _| !known.contains(digest));
    stream_of(move |writer| write_blobs(&store, &images, format, &[], &blobs, writer).map_err(io::Error::other))
}

/// Writes what [`export`] streams, after some small files of the caller's.
pub(crate) fn write(
    store: &Store,
    images: &[StoredImage],
    format: ArchiveFormat,
    first: &[(&str, &[u8])],
    writer: impl Write,
) -> Result<(), OciError> {
    write_blobs(store, images, format, first, &distinct_blobs(images), writer)
}

fn write_blobs(
    store: &Store,
    images: &[StoredImage],
    format: ArchiveFormat,
    first: &[(&str, &[u8])],
    blobs: &BTreeMap<Digest, u64>,
    writer: impl Write,
) -> Result<(), OciError> {
    let mut tar = tar::Builder::new(writer);
    for (name, bytes) in first {
        append(&mut tar, name, bytes)?;
    }
    if format == ArchiveFormat::Oci {
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append_json(&mut tar, "index.json", &index(images))?;
    }
    append_json(&mut tar, "manifest.json", &docker(images))?;
    for (digest, size) in blobs {
        append_blob(&mut tar, store, digest, *size)?;
    }
    let failed = |source| OciError::Stream { what: "the archive".to_owned(), source };
    tar.into_inner().map_err(failed)?.flush().map_err(failed)
}

fn index(images: &[StoredImage]) -> Index {
    let manifests = images
        .iter()
        .map(|image| {
            let mut entry = image.manifest.clone();
            entry.platform = Some((&image.platform).into());
            entry.annotations.insert(REF_NAME.to_owned(), image.reference.clone());
            entry.annotations.insert(CONTAINERD_NAME.to_owned(), image.reference.clone());
            let pulled_by = image.pulled_by.as_ref();
            entry.annotations.extend(pulled_by.map(|digest| (PULLED_BY.to_owned(), digest.to_string())));
            entry
        })
        .collect();
    Index { schema_version: 2, media_type: media::INDEX.to_owned(), manifests }
}

fn docker(images: &[StoredImage]) -> Vec<DockerEntry> {
    images
        .iter()
        .map(|image| DockerEntry {
            config: blob_name(&image.config.digest),
            // Docker takes no digest for a name.
            repo_tags: if image.reference.contains('@') { Vec::new() } else { vec![image.reference.clone()] },
            layers: image.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        })
        .collect()
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn append_json<W: Write>(tar: &mut tar::Builder<W>, name: &str, value: &impl Serialize) -> Result<(), OciError> {
    let bytes = serde_json::to_vec(value).map_err(|source| OciError::Json { what: name.to_owned(), source })?;
    append(tar, name, &bytes)
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8]) -> Result<(), OciError> {
    tar.append_data(&mut header(bytes.len() as u64), name, bytes)
        .map_err(|source| OciError::Stream { what: name.to_owned(), source })
}

fn append_blob<W: Write>(tar: &mut tar::Builder<W>, store: &Store, digest: &Digest, size: u64) -> Result<(), OciError> {
    let path = store.blob_path(digest);
    let file = File::open(&path).map_err(OciError::io("read", &path))?;
    let found = file.metadata().map_err(OciError::io("read", &path))?.len();
    if found != size {
        return Err(OciError::Missing { what: digest.to_string(), missing: "a part of the blob".to_owned() });
    }
    tar.append_data(&mut header(size), blob_name(digest), file.take(size))
        .map_err(|source| OciError::Stream { what: digest.to_string(), source })
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}
