//! Where a cluster comes from.

pub mod kind;
pub mod orphans;
