//! Fetching what was chosen into devstack's store.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::io::StreamReader;

use super::availability::InEngine;
use super::choice::{Choice, Source};
use super::images::Images;
use super::reference::Reference;
use super::registry::RegistryError;
use crate::build::{self, BuildError};
use crate::error::{Advise, ExitCode};
use crate::oci::{self, Descriptor, Digest, OciError, Platform, StoredImage};
use crate::ports::Engine;
use crate::ports::engine::EngineError;

/// Blobs of one image under way at a time.
const BLOBS: usize = 3;

/// Called with bytes done and bytes in all while an image is fetched.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Why an image could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObtainError {
    /// The registry or mirror failed.
    #[error("cannot fetch {reference}")]
    Registry {
        /// The image.
        reference: String,
        /// The failure.
        source: RegistryError,
    },
    /// The store refused it.
    #[error("cannot store {reference}")]
    Store {
        /// The image.
        reference: String,
        /// The failure.
        source: OciError,
    },
    /// It could not be built.
    #[error("cannot build {reference}")]
    Build {
        /// The image.
        reference: String,
        /// The failure.
        source: Box<BuildError>,
    },
    /// The engine has it and does not give it.
    #[error("the engine does not give {reference} for {platform}")]
    Engine {
        /// The image.
        reference: String,
        /// The platform.
        platform: Platform,
        /// The failure: of the engine, or of its archive.
        source: OciError,
    },
    /// It was chosen from a place that does not have it any more.
    #[error("{reference} is no longer where it was found ({place})")]
    Gone {
        /// The image.
        reference: String,
        /// The place.
        place: &'static str,
    },
    /// The user interrupted.
    #[error("fetching {reference} was interrupted")]
    Cancelled {
        /// The image.
        reference: String,
    },
}

impl Advise for ObtainError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry { source: RegistryError::Unauthorized { host, .. }, .. } => {
                Some(format!("docker login {host}, or run it again to have another source chosen"))
            }
            Self::Registry { source, .. } if source.is_transient() => {
                Some("run it again: layers that have arrived are kept".to_owned())
            }
            Self::Registry { .. } | Self::Gone { .. } => Some("run it again to have another source chosen".to_owned()),
            // An engine older than 28 whose image store is containerd's cannot save one platform of several.
            Self::Engine { reference, .. } => {
                Some(format!("docker image rm {reference}, then run it again to have another source chosen"))
            }
            Self::Store { source, .. } => source.hint(),
            Self::Build { source, .. } => source.hint(),
            Self::Cancelled { .. } => Some("run it again: layers that have arrived are kept".to_owned()),
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Cancelled { .. } => ExitCode::Interrupted,
            Self::Build { source, .. } if matches!(**source, BuildError::Cancelled) => ExitCode::Interrupted,
            _ => ExitCode::Failed,
        }
    }
}

impl Images {
    /// Brings a chosen image into the store, from wherever it was found; an image that is there costs nothing.
    ///
    /// `step` is the id under which a build reports its progress.
    ///
    /// # Errors
    /// [`ObtainError`]. What had arrived whole stays in the store, and the next attempt goes on from there.
    pub async fn obtain(
        &self,
        choice: &Choice,
        step: &str,
        progress: Progress<'_>,
    ) -> Result<StoredImage, ObtainError> {
        let reference = &choice.reference;
        if let Some(image) = self.stored(choice).map_err(store_error(reference))? {
            return Ok(image);
        }
        let work = async {
            match &choice.source {
                Source::Mirror { pull } | Source::Registry { pull } => self.pull(choice, pull, progress).await,
                Source::Engine => self.take_from_engine(choice).await,
                Source::Build { recipe } => {
                    let runner = std::sync::Arc::clone(&self.runner);
                    build::build_image(&self.ctx, runner, recipe, &choice.platform, step)
                        .await
                        .map_err(|source| ObtainError::Build { reference: reference.clone(), source: Box::new(source) })
                }
                Source::Nodes | Source::Store => {
                    Err(ObtainError::Gone { reference: reference.clone(), place: choice.source.word() })
                }
            }
        };
        tokio::select! {
            done = work => done,
            () = self.ctx.cancel.cancelled() => Err(ObtainError::Cancelled { reference: reference.clone() }),
        }
    }

    /// A chosen image, where the store has it; another one under its name is not it.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn stored(&self, choice: &Choice) -> Result<Option<StoredImage>, OciError> {
        let stored = self.store.image(&choice.reference, &choice.platform)?;
        let is_it = |image: &StoredImage| match (&choice.digest, &image.pulled_by) {
            (Some(wanted), Some(known)) => wanted == known || *wanted == image.manifest.digest,
            _ => true,
        };
        Ok(stored.filter(is_it))
    }

    async fn take_from_engine(&self, choice: &Choice) -> Result<StoredImage, ObtainError> {
        let reference = &choice.reference;
        let gone = || ObtainError::Gone { reference: reference.clone(), place: "engine" };
        let engine = self.engine.as_ref().ok_or_else(gone)?;
        let platform = choice.platform.to_string();
        let name = in_engine(engine.as_ref(), choice).await.ok().flatten().ok_or_else(gone)?;
        let images = oci::archive::import(&self.store, engine.save_image(&name, &platform)).await;
        let images = images.map_err(|source| match source {
            OciError::Stream { .. } | OciError::Missing { .. } | OciError::NotAnArchive { .. } => {
                ObtainError::Engine { reference: reference.clone(), platform: choice.platform.clone(), source }
            }
            other => store_error(reference)(other),
        })?;
        let image = images.into_iter().find(|image| image.platform == choice.platform).ok_or_else(gone)?;
        if image.reference == *reference && choice.digest.is_none() {
            return Ok(image);
        }
        // The engine writes the short form of a name into its archives, and none for a digest.
        self.name(choice, image.manifest, choice.digest.as_ref()).map_err(store_error(reference))
    }

    async fn pull(
        &self,
        choice: &Choice,
        pull: &Reference,
        progress: Progress<'_>,
    ) -> Result<StoredImage, ObtainError> {
        let reference = &choice.reference;
        let failed = |source| ObtainError::Registry { reference: reference.clone(), source };
        let found = self.client.inspect(pull, &choice.platform).await.map_err(failed)?;
        let total = found.bytes();
        let done = AtomicU64::new(0);
        let tell = |more: u64| progress(done.fetch_add(more, Ordering::Relaxed) + more, total);
        let blobs = found.manifest.layers.iter().chain([&found.manifest.config]);
        stream::iter(blobs)
            .map(|blob| self.pull_blob(reference, pull, blob, &tell))
            .buffer_unordered(BLOBS)
            .try_collect::<()>()
            .await?;
        self.store.put_bytes(&found.document.bytes).map_err(store_error(reference))?;
        self.name(choice, found.descriptor(), Some(&found.digest)).map_err(store_error(reference))
    }

    /// Names what has arrived, with the digest that it was pulled by.
    fn name(
        &self,
        choice: &Choice,
        mut manifest: Descriptor,
        pulled_by: Option<&Digest>,
    ) -> Result<StoredImage, OciError> {
        manifest.annotations.extend(pulled_by.map(|digest| (oci::PULLED_BY.to_owned(), digest.to_string())));
        self.store.tag(&choice.reference, &choice.platform, &manifest)
    }

    /// Fetches one blob. A blob that came whole and is not what it should be is fetched once more from the start.
    async fn pull_blob(
        &self,
        reference: &str,
        pull: &Reference,
        blob: &Descriptor,
        tell: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), ObtainError> {
        let lock = self.blob_lock(&blob.digest);
        let _held = lock.lock().await;
        if self.store.has_whole(blob) {
            tell(blob.size);
            return Ok(());
        }
        let mut second = false;
        loop {
            // Progress never runs backwards: a second round is not counted again.
            let count = |bytes: u64| {
                if !second {
                    tell(bytes);
                }
            };
            let body = self.client.blob(pull, blob).inspect_ok(|piece| count(piece.len() as u64));
            let reader = StreamReader::new(Box::pin(body));
            match self.store.put_blob(Some(&blob.digest), reader).await {
                Ok(_) => return Ok(()),
                Err(OciError::Damaged { .. }) if !second => second = true,
                Err(error) => return Err(pull_error(reference, pull, error)),
            }
        }
    }
}

/// The name by which an engine has a chosen image, for its platform and of its digest as far as the engine knows it.
///
/// # Errors
/// What the engine fails at.
pub async fn in_engine(engine: &dyn Engine, choice: &Choice) -> Result<Option<String>, EngineError> {
    // What comes out of the store is known by its name alone; engines may rewrite the manifest that its digest is of.
    let digest = choice.digest.as_ref();
    let digest = digest.filter(|_| !matches!(choice.source, Source::Store | Source::Build { .. }));
    for name in choice.names() {
        let Some(image) = engine.image(&name).await? else { continue };
        let image = InEngine::of(&image);
        if image.platforms.contains(&choice.platform) && digest.is_none_or(|digest| image.may_be(digest)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn store_error(reference: &str) -> impl FnOnce(OciError) -> ObtainError + use<'_> {
    move |source| ObtainError::Store { reference: reference.to_owned(), source }
}

/// Takes a registry's failure out of the stream error that carried it.
fn pull_error(reference: &str, pull: &Reference, error: OciError) -> ObtainError {
    let reference = reference.to_owned();
    match error {
        OciError::Stream { what, source } => match source.downcast::<RegistryError>() {
            Ok(source) => ObtainError::Registry { reference, source },
            Err(source) => ObtainError::Store { reference, source: OciError::Stream { what, source } },
        },
        OciError::Damaged { expected, found, .. } => {
            let host = pull.registry().to_owned();
            let (expected, actual) = (expected.to_string(), found.to_string());
            ObtainError::Registry { reference, source: RegistryError::DigestMismatch { host, expected, actual } }
        }
        source => ObtainError::Store { reference, source },
    }
}

#[cfg(test)]
#[path = "obtain_tests.rs"]
mod tests;
