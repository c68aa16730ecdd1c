//! Registries: asking for manifests, fetching blobs, pushing images.
//!
//! Written on plain HTTP requests: devstack needs what a registry's refusal says (`Retry-After`, the platforms there
//! are), answers by the host as a whole, and blobs that go on where they broke off.

mod blob;
mod challenge;
mod client;
mod credentials;
mod error;
mod inspect;
mod push;

pub use client::{Client, Limits};
pub use credentials::Credentials;
pub use error::RegistryError;
pub use inspect::Inspected;
