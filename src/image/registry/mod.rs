//! Registries: asking for manifests and fetching blobs.

mod error;

pub use error::RegistryError;
