//! Profiles and components: their format, where they are found, parameters, references and what they resolve to.
//!
//! [`load`] turns a [`ProfileSource`] and settings into a [`Resolved`] profile: everything that can be known before a
//! cluster exists is checked, and what cannot (`${network.pool}`, `${routes.site.url}`, generated credentials) stays a
//! reference of a known name until a step renders it with a [`Scope`]. The format is described in `docs/profiles.md`.

mod component;
mod condition;
mod content;
mod document;
mod error;
mod fill;
pub mod graph;

mod load;
mod merge;
mod nodes;
mod order;
mod parameter;
mod render;
mod resolved;
pub mod schema;
mod scope;
mod secret;
mod show;
mod source;
mod template;
mod uses;
mod world;

pub use error::ProfileError;
pub use load::{Request, builtins, load};
pub use parameter::parse_setting;
pub use render::Rendered;
pub use resolved::{
    ContentSource, ContentSpec, ManifestTemplate, Ready, ReadyKind, Resolved, ResolvedCluster, ResolvedComponent,
    ResolvedRoute, Verification,
};
pub use schema::Placement;
pub use scope::{Scope, SubstituteError, substitute};
pub use show::to_json;
pub use source::ProfileSource;
pub(crate) use source::is_name;
pub use template::references;

#[cfg(test)]
mod tests;
