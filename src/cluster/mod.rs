//! Where a cluster comes from.

pub mod blobs;
pub mod kind;
pub mod orphans;
