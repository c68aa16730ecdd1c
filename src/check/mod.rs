//! Checks: what is wrong, why, and what to do. One set serves preflight, waits and `devstack doctor`.
//!
//! Two kinds feed it: *probes* look at the world, *signatures* read what programs said. [`explain()`] is pure: it sees
//! only a [`Snapshot`].

mod collect;
mod environment;
mod explain;
mod gather;
mod inputs;
mod model;
mod orphan;
mod past;
mod pod;
mod preflight;
mod reason;
mod remote;
mod rules;
mod signature;
mod snapshot;
mod stale;
mod workload;

pub use collect::{Depth, collect};
pub use environment::{ENVIRONMENT_CHECKS, EndpointSeen, EnvironmentCheck, EnvironmentView};
pub use explain::{explain, obstacles, one_line};
pub use gather::gather;
pub use inputs::{Asked, EngineTrouble, ImageNeed, Inputs, KubeContexts, Needs};
pub use model::{Finding, Severity};
pub use orphan::{Orphan, leftovers, orphans};
pub use past::without_over;
pub use preflight::{CHECKS, Check, Outcome, needed_for, preflight, refusal, run};
pub use reason::{Reason, Stage};
pub use rules::inotify_is_low;
pub use signature::{Match, Signature, SignatureError, Signatures};
pub use snapshot::{Selector, Snapshot};
pub use stale::{stale_blocks, stale_contexts};
