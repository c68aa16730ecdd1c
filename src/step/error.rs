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
    pub fn of(error: &impl Advise) -> Self {
        Self::Other { message: crate::error::chain(error), hint: error.hint(), exit: error.exit() }
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

impl Advise for StepError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.hint(),
            Self::Kube(error) => error.hint(),
            Self::Journal(error) => error.hint(),
            Self::Other { hint, .. } => hint.clone(),
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
