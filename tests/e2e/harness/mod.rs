//! What the tests work with: an account's whole surroundings in a temporary directory, the machine before and after,
//! and clients that share nothing with devstack.

mod disk;
mod engine;
mod foreign;
mod http;
mod machine;
mod phases;
mod process;
mod store;
mod tools;
mod world;

pub use disk::SmallDisk;
pub use engine::OwnEngine;
pub use foreign::{BETTER_STORE, Foreign};
pub use http::get;
pub use machine::Machine;
pub use phases::Phases;
pub use process::{Ended, Running};
pub use store::StoreEngine;
pub use tools::{docker, gif, noise, output, sha256, tell};
pub use world::{Options, World};

/// Whether the long matrices run as well.
pub fn full() -> bool {
    std::env::var("DEVSTACK_E2E_FULL").is_ok_and(|value| !value.is_empty() && value != "0")
}
