//! Images as OCI defines them: blobs in a content-addressed store, deterministic layers, archives.

pub mod archive;
mod assemble;
mod blob;
mod error;
mod layer;
mod lock;
mod store;
mod types;

pub use archive::ArchiveFormat;
pub use assemble::{ImageSpec, assemble};
pub use blob::BlobWriter;
pub use error::OciError;
pub use layer::{Entry, Layer, Source};
pub(crate) use store::PULLED_BY;
#[cfg(test)]
pub(crate) use store::tests::scratch_store;
pub use store::{Freed, Store, StoredImage};
pub use types::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, RunConfig, media};
