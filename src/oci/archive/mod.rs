//! Image archives: one tar with everything an engine or containerd needs to load images.

mod budget;
mod export;
mod import;
mod pipe;

pub(crate) use export::write;
pub use export::{ArchiveFormat, export, export_without};
pub(crate) use import::import_checked;
pub use import::{import, import_reader};
pub use pipe::{StreamReader, Until, stream_of};
