//! What an image in a registry is: its manifest for one platform.

use super::client::{Client, Document};
use super::error::RegistryError;
use crate::image::reference::Reference;
use crate::oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, media};

/// An image of one platform in a registry.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The digest of what the reference names: an index or a manifest.
    pub digest: Digest,
    /// The manifest as it came.
    pub document: Document,
    /// The manifest.
    pub manifest: Manifest,
}

impl Inspected {
    /// Bytes to fetch.
    pub fn bytes(&self) -> u64 {
        let layers: u64 = self.manifest.layers.iter().map(|layer| layer.size).sum();
        layers + self.manifest.config.size
    }

    /// The manifest's descriptor.
    pub fn descriptor(&self) -> Descriptor {
        let size = self.document.bytes.len() as u64;
        Descriptor::new(&self.document.media_type, self.document.digest.clone(), size)
    }
}

impl Client {
    /// Finds an image's manifest for a platform.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::WrongPlatform`] where the image is not made for it.
    pub async fn inspect(&self, reference: &Reference, platform: &Platform) -> Result<Inspected, RegistryError> {
        let top = self.document(reference).await?;
        let digest = top.digest.clone();
        if !matches!(top.media_type.as_str(), media::INDEX | media::DOCKER_INDEX) {
            let manifest = read_manifest(reference, &top)?;
            let config = self.small_blob(reference, &manifest.config.digest).await?;
            let config: ImageConfig = serde_json::from_slice(&config)
                .map_err(|_| protocol(reference, "the image's configuration cannot be understood"))?;
            let made_for = format!("{}/{}", config.os, config.architecture);
            if made_for != platform.to_string() {
                return Err(wrong_platform(reference, platform, vec![made_for]));
            }
            return Ok(Inspected { digest, document: top, manifest });
        }
        let index: Index = serde_json::from_slice(&top.bytes)
            .map_err(|_| protocol(reference, "the image's index cannot be understood"))?;
        let child = index.manifests.iter().find(|entry| {
            entry.platform.as_ref().is_some_and(|p| p.os == platform.os && p.architecture == platform.architecture)
        });
        let Some(child) = child else {
            let known = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let has = known.filter(|p| p.os != "unknown").map(|p| format!("{}/{}", p.os, p.architecture)).collect();
            return Err(wrong_platform(reference, platform, has));
        };
        let document = self.document(&reference.pinned(&child.digest)).await?;
        let manifest = read_manifest(reference, &document)?;
        Ok(Inspected { digest, document, manifest })
    }
}

fn read_manifest(reference: &Reference, document: &Document) -> Result<Manifest, RegistryError> {
    if !matches!(document.media_type.as_str(), media::MANIFEST | media::DOCKER_MANIFEST) {
        return Err(protocol(reference, &format!("its manifest is of the unknown kind {:?}", document.media_type)));
    }
    serde_json::from_slice(&document.bytes)
        .map_err(|_| protocol(reference, "the image's manifest cannot be understood"))
}

fn protocol(reference: &Reference, reason: &str) -> RegistryError {
    let host = reference.registry().to_owned();
    RegistryError::Protocol { host, reason: format!("{}: {reason}", reference.repository()) }
}

fn wrong_platform(reference: &Reference, wanted: &Platform, has: Vec<String>) -> RegistryError {
    RegistryError::WrongPlatform { what: reference.familiar(), wanted: wanted.to_string(), has }
}
