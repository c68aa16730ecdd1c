//! The cluster as devstack uses it: the [`crate::ports::Kube`] port over kube-rs, and readiness.

pub mod client;
mod proxy;
pub mod ready;
