//! Checks: what is wrong, why, and what to do. One set serves preflight, waits and `devstack doctor`.
//!
//! Two kinds feed it: *probes* look at the world, *signatures* read what programs said. [`explain()`] is pure: it sees
//! only a [`Snapshot`].

mod collect;
mod explain;
mod model;
mod pod;
mod reason;
mod signature;
mod snapshot;
mod workload;

pub use collect::{Depth, collect};
pub use explain::{explain, one_line};
pub use model::{Finding, Severity};
pub use reason::{Reason, Stage};
pub use signature::{Match, Signature, SignatureError, Signatures};
pub use snapshot::{Selector, Snapshot};
