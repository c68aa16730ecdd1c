//! Images: which one a role takes, where it is, and how it gets into devstack's store.
//!
//! The catalog (`profiles/catalog`) says what may be taken, [`Availability`] says what is where, and [`resolve`]
//! combines the two without asking anybody. [`Images`] is the edge to the world: it surveys and fetches.

mod answers;
mod availability;
mod candidate;
mod catalog;
mod choice;
mod images;
mod kubernetes;
mod mirror;
mod obtain;
mod publish;
mod reference;
mod registry;
mod resolve;

pub use availability::{Availability, InEngine, RecipeState, Remote, Stored};
pub use candidate::{Request, Target};
pub use catalog::{Catalog, CatalogError};
pub use choice::{Choice, Obstacle, Rejected, Source};
pub use images::{ImageError, Images};
pub use kubernetes::{KubeRange, KubeVersion};
pub use mirror::{MirrorError, Mirrors, Publish, config_file};
pub use obtain::{ObtainError, Progress, in_engine};
pub use publish::PublishError;
pub use reference::{NotAReference, Reference};
pub use registry::{Client, Credentials, Inspected, Limits, RegistryError};
pub use resolve::{Unresolvable, UnresolvedRole, keep_recorded, resolve};
