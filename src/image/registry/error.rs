//! What can go wrong between devstack and a registry.

use serde::{Deserialize, Serialize};

use crate::image::choice::Obstacle;

/// A failure, as data: it is remembered and shown again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RegistryError {
    /// No such repository, tag or blob.
    #[error("{host} does not have {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// 401 or 403. Registries answer a deleted repository the same way, so as not to tell which private ones exist.
    #[error("{host} refuses {what} ({status}): it was deleted, is private, or needs `docker login {host}`")]
    Unauthorized {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// 429.
    #[error("{host} limits the rate of requests{}", .retry_after.map(|s| format!(", for {s} s")).unwrap_or_default())]
    RateLimited {
        /// The registry.
        host: String,
        /// Seconds to wait, where it says so.
        retry_after: Option<u64>,
    },
    /// The image is there, for other platforms.
    #[error("{what} is not made for {wanted} (it is for {})", .has.join(", "))]
    WrongPlatform {
        /// The image.
        what: String,
        /// The platform that was wanted.
        wanted: String,
        /// The platforms there are.
        has: Vec<String>,
    },
    /// No connection: no name, no route, refused, or a certificate that is not trusted.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why.
        reason: String,
    },
    /// 5xx.
    #[error("{host} is out of order ({status})")]
    Unavailable {
        /// The registry.
        host: String,
        /// The HTTP status.
        status: u16,
    },
    /// Connected, and then nothing came for too long.
    #[error("{host} sent nothing for {seconds} s")]
    Slow {
        /// The registry.
        host: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The content does not have the digest it was asked for by.
    #[error("{host} sent something else than {expected} (it is {actual})")]
    DigestMismatch {
        /// The registry.
        host: String,
        /// The digest that was asked for.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// The content ended early, again and again.
    #[error("{host} broke off {what} after {got} of {size} bytes")]
    Truncated {
        /// The registry.
        host: String,
        /// The blob.
        what: String,
        /// Bytes that came.
        got: u64,
        /// Bytes there should be.
        size: u64,
    },
    /// Anything else that is not the protocol.
    #[error("{host}: {reason}")]
    Protocol {
        /// The registry.
        host: String,
        /// What is wrong.
        reason: String,
    },
}

impl RegistryError {
    /// The kind of obstacle this is for a candidate.
    pub fn obstacle(&self) -> Obstacle {
        match self {
            Self::NotFound { .. } => Obstacle::NotFound,
            Self::Unauthorized { .. } => Obstacle::Unauthorized,
            Self::RateLimited { .. } => Obstacle::RateLimited,
            Self::WrongPlatform { .. } => Obstacle::Platform,
            Self::Unreachable { .. } | Self::Unavailable { .. } => Obstacle::Unreachable,
            Self::Slow { .. } => Obstacle::Slow,
            Self::DigestMismatch { .. } => Obstacle::Digest,
            Self::Truncated { .. } | Self::Protocol { .. } => Obstacle::Protocol,
        }
    }

    /// Whether the same request can succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::Slow { .. }
            | Self::Truncated { .. }
            | Self::Unavailable { .. }
            | Self::Unreachable { .. } => true,
            Self::NotFound { .. }
            | Self::Unauthorized { .. }
            | Self::WrongPlatform { .. }
            | Self::DigestMismatch { .. }
            | Self::Protocol { .. } => false,
        }
    }
}
