//! The only traits of devstack: where it touches the world. Each has a real implementation and a stateful fake.

pub mod clock;
pub mod docker;
pub mod engine;
#[cfg(any(test, feature = "fakes"))]
pub mod fake;
pub mod hostfs;
pub mod kube;
pub mod process;
pub mod runner;

pub use clock::Clock;
pub use engine::Engine;
pub use hostfs::HostFs;
pub use kube::Kube;
pub use runner::Runner;
