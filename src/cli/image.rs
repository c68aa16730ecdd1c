//! `devstack image`.

use clap::Subcommand;

use super::{Session, image_resolve};
use crate::error::{ExitCode, Failure};

/// Images: what is taken for a role, and where it comes from
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Tell which image each role takes here, why, and what was passed over
    Resolve(image_resolve::Args),
}

impl ImageCommand {
    /// Whether the verb, as it was called, changes anything.
    pub fn changes(&self) -> bool {
        match self {
            Self::Resolve(_) => false,
        }
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// Whatever it fails with.
    pub fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::Resolve(args) => image_resolve::run(session, args),
        }
    }
}
