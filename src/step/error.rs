//! Why a step failed.

use crate::error::{Advise, ExitCode, advice_on_writing};
use crate::journal::JournalError;
use crate::ports::engine::EngineError;
use crate::ports::kube::KubeError;
use crate::ports::runner::RunError;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The API server refused.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// A child process failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The journal cannot be written: nothing may be changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file of the host cannot be read or written.
    #[error("cannot {action} {path}")]
    File {
        /// `read`, `write`.
        action: &'static str,
        /// The file.
        path: String,
        /// The refusal.
        source: std::io::Error,
    },
    /// A wait ended: its deadline passed, or waiting cannot help.
    #[error("{what}: {reason}")]
    Wait {
        /// What was waited for.
        what: String,
        /// Why it is not there.
        reason: String,
        /// Findings that explain it, root cause first.
        findings: Vec<crate::check::Finding>,
    },
    /// A file of this host cannot be written, as another part of devstack says.
    #[error("{message}")]
    Host {
        /// What cannot be written, and why.
        message: String,
        /// The next command to type.
        hint: Option<String>,
    },
    /// Anything else that a part of devstack says, with its own advice.
    #[error("{message}")]
    Other {
        /// What happened, to what, and why.
        message: String,
        /// The next command to type.
        hint: Option<String>,
        /// The exit code.
        exit: ExitCode,
    },
}

impl StepError {
    /// An error of another part of devstack, its chain of causes as one line.
    pub fn of(error: &(impl Advise + 'static)) -> Self {
        let (message, hint) = (crate::error::chain(error), error.hint());
        if is_of_a_disk(error) {
            Self::Host { message, hint }
        } else {
            Self::Other { message, hint, exit: error.exit() }
        }
    }

    /// Whether it is about a file that devstack itself reads or writes on this host. Its words may be those of a known
    /// failure of the engine or a node, whose disk is another one.
    pub fn is_of_this_host(&self) -> bool {
        matches!(self, Self::Journal(_) | Self::File { .. } | Self::Host { .. })
    }

    /// An error with a plain message.
    pub fn message(message: impl Into<String>) -> Self {
        Self::Other { message: message.into(), hint: None, exit: ExitCode::Failed }
    }

    /// A failed read of a file.
    pub fn reading(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { action: "read", path, source }
    }

    /// A failed write of a file.
    pub fn writing(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { action: "write", path, source }
    }
}

/// Whether a system call of this process failed for the sake of a disk.
fn is_of_a_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
}

impl Advise for StepError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Kube(error) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::Host { hint, .. } | Self::Other { hint, .. } => hint.clone(),
            Self::Wait { findings, .. } => findings.first().and_then(|finding| finding.remedy.first().cloned()),
            Self::File { path, source, .. } => advice_on_writing(std::path::Path::new(path), source),
            Self::Run(_) => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Engine(error) => error.exit(),
            Self::Other { exit, .. } => *exit,
            _ => ExitCode::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::Fault;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot change the kubeconfig")]
    struct Outer(#[source] std::io::Error);

    impl Advise for Outer {
        fn hint(&self) -> Option<String> {
            Some("make room".to_owned())
        }
    }

    #[test]
    fn a_full_disk_of_this_host_is_known_below_any_error() {
        let full = StepError::of(&Outer(Fault::Full.error()));
        assert!(full.is_of_this_host(), "{full:?}");
        assert_eq!(full.to_string(), "cannot change the kubeconfig: No space left on device (os error 28)");
        assert_eq!((full.hint(), full.exit()), (Some("make room".to_owned()), ExitCode::Failed));
        assert!(!StepError::of(&Outer(std::io::ErrorKind::ConnectionRefused.into())).is_of_this_host());
        assert!(!StepError::message("in a node: No space left on device").is_of_this_host());
    }
}
