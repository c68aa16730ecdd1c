//! Where a cluster comes from, and which one it is.

pub mod blobs;
pub mod bridge;
pub mod existing;
mod facts;
pub mod guard;
pub mod kind;
pub mod minikube;
pub mod orphans;
mod provider;
pub mod registry;

pub use facts::ClusterFacts;
pub use provider::{NotAProvider, Provider};
