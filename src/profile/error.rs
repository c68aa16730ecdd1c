//! What can be wrong with a profile.

use std::path::PathBuf;

use crate::error::{Advise, ExitCode};
use crate::yaml::{YamlError, did_you_mean};

use super::scope::SubstituteError;

/// Why a profile cannot be used. All are mistakes of the one who asked; nothing has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// There is no built-in profile of that name.
    #[error("no profile is called `{name}`{}", did_you_mean(.name, .known.iter().map(String::as_str)).map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// As asked for.
        name: String,
        /// The built-ins.
        known: Vec<String>,
    },
    /// The file or directory is not there.
    #[error("{} does not exist", .path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{} cannot be read: {reason}", .path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A `--set` that cannot be applied.
    #[error("--set {setting}: {reason}")]
    Setting {
        /// As given; the value of a secret is left out.
        setting: String,
        /// Why.
        reason: String,
    },
    /// A parameter has no value.
    #[error("the profile {profile} needs a value for `{name}`{}", .help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default())]
    Unset {
        /// The profile.
        profile: String,
        /// The parameter.
        name: String,
        /// What it is for.
        help: Option<String>,
    },
    /// The files are wrong; all problems that were found, in the order of the files, at least one.
    #[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid {
        /// Each with its place.
        problems: Vec<YamlError>,
    },
    /// A reference that was fine when the profile was loaded cannot be followed now.
    #[error("{place}: {error}")]
    Render {
        /// The manifest and line.
        place: String,
        /// Why.
        error: SubstituteError,
    },
}

impl From<YamlError> for ProfileError {
    fn from(problem: YamlError) -> Self {
        Self::Invalid { problems: vec![problem] }
    }
}

impl ProfileError {
    pub(super) fn unknown(name: &str, known: Vec<String>) -> Self {
        Self::Unknown { name: name.to_owned(), known }
    }
}

impl Advise for ProfileError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { known, .. } => Some(format!(
                "built in: {}; a file or directory is given as a path, such as ./devstack.yaml",
                known.join(", ")
            )),
            Self::Missing { .. } => Some("devstack profile list names the built-in profiles".to_owned()),
            Self::Unreadable { .. } | Self::Render { .. } => None,
            Self::Setting { .. } => Some("devstack profile show PROFILE lists the parameters".to_owned()),
            Self::Unset { name, .. } => Some(format!("give it with --set {name}=VALUE")),
            Self::Invalid { problems } => problems.first().and_then(YamlError::hint).or_else(|| {
                Some("devstack profile validate FILE checks it; devstack profile show s3www is a model".to_owned())
            }),
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Render { .. } => ExitCode::Failed,
            _ => ExitCode::Usage,
        }
    }
}
