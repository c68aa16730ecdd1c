//! Images into the user's own registry, for nodes that pull from there.

use super::choice::Choice;
use super::images::Images;
use super::mirror::Publish;
use super::reference::{NotAReference, Reference};
use super::registry::RegistryError;
use crate::error::Advise;
use crate::oci::{Manifest, OciError, StoredImage};

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The registry failed or refused.
    #[error("cannot push {reference}")]
    Registry {
        /// The image as it shall be called there.
        reference: String,
        /// The failure.
        source: RegistryError,
    },
    /// The store does not have it whole.
    #[error("cannot read {reference} from the store")]
    Store {
        /// The image as it shall be called there.
        reference: String,
        /// The failure.
        source: OciError,
    },
}

impl PublishError {
    /// Whether sending it again can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Registry { source, .. } if source.is_transient() || matches!(source, RegistryError::Protocol { .. }))
    }
}

impl Advise for PublishError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry { source: RegistryError::Unauthorized { host, .. }, .. } => {
                Some(format!("docker login {host}"))
            }
            Self::Registry { .. } => Some("look at `publish` in registries.yaml, then run it again".to_owned()),
            Self::Store { source, .. } => source.hint(),
        }
    }
}

impl Images {
    /// The registry that images may be pushed to and nodes pull from, where the user named one.
    pub fn publishes_to(&self) -> Option<&Publish> {
        self.mirrors.publish()
    }

    /// Where an image goes in the user's registry, and its name there as nodes say it.
    ///
    /// # Errors
    /// A name that is no reference; a defect of the catalog.
    pub fn published_as(publish: &Publish, choice: &Choice) -> Result<(Reference, Reference), NotAReference> {
        let reference: Reference = choice.reference.parse()?;
        // A registry of its own in the path keeps images of two registries apart.
        let own = reference.registry().replace([':', '[', ']'], "-");
        let named = reference.tagged();
        let place = |base: &str| named.at(&format!("{}/{own}", base.trim_end_matches('/')));
        Ok((place(&publish.to), place(publish.pull())))
    }

    /// Whether the registry has the very image that the store has. One that the store does not have, or a registry that
    /// does not answer, counts as not.
    pub async fn is_published(&self, choice: &Choice, to: &Reference) -> bool {
        let Ok(Some(stored)) = self.store.image(&choice.reference, &choice.platform) else { return false };
        matches!(self.client.document(to).await, Ok(there) if there.digest == stored.manifest.digest)
    }

    /// Pushes an image: layers, configuration, and at last the manifest, so that the registry has it whole or not at all.
    ///
    /// # Errors
    /// [`PublishError`]; what has arrived stays there and is not sent again.
    pub async fn publish(&self, image: &StoredImage, to: &Reference) -> Result<(), PublishError> {
        let reference = to.to_string();
        let store = |source| PublishError::Store { reference: reference.clone(), source };
        let registry = |source| PublishError::Registry { reference: reference.clone(), source };
        let manifest: Manifest = self.store.read_json(&image.manifest.digest).map_err(store)?;
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            self.client.push_blob(to, blob, &self.store.blob_path(&blob.digest)).await.map_err(registry)?;
        }
        let bytes = self.store.read_small(&image.manifest.digest).map_err(store)?;
        self.client.push_manifest(to, &image.manifest.media_type, bytes).await.map_err(registry)
    }
}
