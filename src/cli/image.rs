//! `devstack image`.

use clap::Subcommand;

use super::{Session, image_build, image_prune, image_resolve};
use crate::error::{ExitCode, Failure};

/// Images: what is taken for a role, builds from source, the cache
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Tell which image each role takes here, why, and what was passed over
    Resolve(image_resolve::Args),
    /// Build images from ordinary package registries
    Build(image_build::Args),
    /// Remove cached images, builds and tools
    Prune(image_prune::Args),
}

impl ImageCommand {
    /// Whether the verb, as it was called, changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::Resolve(_) => false,
            Self::Build(args) => !args.list,
            Self::Prune(_) => true,
        }
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// Whatever it fails with.
    pub fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::Resolve(args) => image_resolve::run(session, args),
            Self::Build(args) => image_build::run(session, args),
            Self::Prune(args) => image_prune::run(session, args),
        }
    }
}
