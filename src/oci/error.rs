//! What can go wrong with blobs, layers and archives.

use std::io;
use std::path::{Path, PathBuf};

use super::types::Digest;
use crate::error::Advise;

/// Why an image, a blob or an archive could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried: `read`, `write`, `rename`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// The bytes on their way in stopped with an error.
    #[error("cannot read {what}")]
    Stream {
        /// What was read.
        what: String,
        /// The error of the stream.
        source: io::Error,
    },
    /// The content is not what its digest promises.
    #[error("{what} is damaged: its digest is {found}, not {expected}")]
    Damaged {
        /// What was read.
        what: String,
        /// The promised digest.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// A digest is not written as `sha256:` and 64 hexadecimal digits.
    #[error("{text:?} is no sha256 digest")]
    NotADigest {
        /// The text.
        text: String,
    },
    /// A platform is not written as `linux/amd64`.
    #[error("{text:?} is no platform such as linux/amd64")]
    NotAPlatform {
        /// The text.
        text: String,
    },
    /// A JSON document of an image cannot be understood.
    #[error("{what} is not valid")]
    Json {
        /// Which document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A document or an archive is larger than anything honest.
    #[error("{what} is larger than {limit} bytes and was refused")]
    TooLarge {
        /// What was read.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Something that an image names is not there.
    #[error("{what} is incomplete: {missing} is missing")]
    Missing {
        /// The image or archive.
        what: String,
        /// What is missing.
        missing: String,
    },
    /// An archive tries to reach outside itself, or holds what no image archive holds.
    #[error("the archive was refused: {entry:?} {reason}")]
    Hostile {
        /// The entry's name.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The input is not an image archive.
    #[error("this is no image archive: {reason}")]
    NotAnArchive {
        /// Why.
        reason: String,
    },
    /// A layer's description contradicts itself.
    #[error("cannot put {path} into a layer: {reason}")]
    Layer {
        /// The path in the layer.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A background task ended abnormally.
    #[error("{what} was interrupted")]
    Interrupted {
        /// What was under way.
        what: &'static str,
    },
}

impl OciError {
    /// Wraps an error of the file system.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

impl Advise for OciError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } | Self::Missing { .. } => {
                Some("fetch it again; what was there before is untouched".to_owned())
            }
            Self::NotAnArchive { .. } => {
                Some("give an archive of `devstack bundle create`, `docker save` or an OCI layout".to_owned())
            }
            Self::Hostile { .. } | Self::TooLarge { .. } => {
                Some("nothing was changed; do not trust where this archive came from".to_owned())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free disk space, for example with `devstack image prune`".to_owned())
            }
            _ => None,
        }
    }
}
