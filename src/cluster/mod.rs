//! Where a cluster comes from, and which one it is.

pub mod blobs;
pub mod guard;
pub mod kind;
pub mod orphans;
mod provider;

pub use provider::{NotAProvider, Provider};
