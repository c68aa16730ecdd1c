//! Why something could not be built, and what a machine lacks for it.

use std::fmt;
use std::path::PathBuf;

use crate::error::{Advise, ExitCode};
use crate::oci::{OciError, Platform};
use crate::ports::engine::EngineError;
use crate::ports::runner::RunError;
use crate::yaml::YamlError;

/// Why something could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no such recipe.
    #[error("there is no recipe {recipe}")]
    Unknown {
        /// As it was asked for.
        recipe: String,
        /// The nearest name.
        near: Option<String>,
    },
    /// A recipe contradicts itself.
    #[error("the recipe {recipe} is not valid: {reason}")]
    Invalid {
        /// The recipe.
        recipe: String,
        /// Why.
        reason: String,
    },
    /// A recipe's YAML cannot be read.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// The machine lacks something.
    #[error("{recipe} cannot be built here: {}", list(.unmet))]
    Needs {
        /// The recipe.
        recipe: String,
        /// Everything that is missing.
        unmet: Vec<Unmet>,
    },
    /// A tool ended badly.
    #[error("building {recipe} failed")]
    Tool {
        /// The recipe.
        recipe: String,
        /// The tool's own words.
        source: RunError,
    },
    /// A tool gave something else than it should.
    #[error("building {recipe} failed: {reason}")]
    Result {
        /// The recipe.
        recipe: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store refused.
    #[error("building {recipe} failed")]
    Oci {
        /// The recipe.
        recipe: String,
        /// Why.
        source: OciError,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// The engine refused.
    #[error("the engine did not take {reference}")]
    Engine {
        /// The image.
        reference: String,
        /// Why.
        source: EngineError,
    },
    /// What is in the cache cannot be removed now.
    #[error("another devstack works with the cache {}", .cache.display())]
    InUse {
        /// The cache's directory.
        cache: PathBuf,
    },
    /// The user interrupted.
    #[error("the build was interrupted")]
    Cancelled,
}

impl BuildError {
    /// Wraps an error of the file system.
    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

impl Advise for BuildError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { near, .. } => match near {
                Some(near) => Some(format!("did you mean {near}?")),
                None => Some("`devstack image build --list` shows what can be built".to_owned()),
            },
            Self::Yaml(error) => error.hint(),
            Self::Needs { unmet, .. } => {
                let cures: Vec<String> = unmet.iter().map(Unmet::cure).collect();
                Some(cures.join("; "))
            }
            Self::Oci { source, .. } => source.hint(),
            Self::Tool { .. } => Some("run it again: what is built already is kept".to_owned()),
            Self::InUse { .. } => Some(
                "run it again when it has ended (`devstack up`, `image build`, `bundle create`); nothing was removed"
                    .to_owned(),
            ),
            Self::Cancelled => Some("run it again to go on; what is built already is kept".to_owned()),
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free disk space, for example with `devstack image prune`".to_owned())
            }
            _ => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Unknown { .. } => ExitCode::Usage,
            Self::Needs { unmet, .. } if unmet.contains(&Unmet::Root) => ExitCode::Consent,
            Self::Cancelled => ExitCode::Interrupted,
            _ => ExitCode::Failed,
        }
    }
}

fn list(unmet: &[Unmet]) -> String {
    unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Something that a machine lacks to build a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unmet {
    /// A tool is not installed.
    Tool {
        /// Its name.
        tool: &'static str,
        /// How it is installed.
        cure: &'static str,
    },
    /// Go is too old.
    GoTooOld {
        /// What is there.
        found: String,
        /// The oldest that will do.
        needed: String,
    },
    /// Only root may do it.
    Root,
    /// The platform is not this machine's.
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What this machine builds.
        here: Platform,
    },
    /// A program that devstack runs itself is not made for this machine.
    Program {
        /// Its name.
        name: String,
        /// What it is made for.
        made: Platform,
        /// What runs here.
        here: Platform,
    },
    /// Too little space is left.
    Disk {
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
}

impl Unmet {
    /// What the user can do about it.
    pub fn cure(&self) -> String {
        match self {
            Self::Tool { tool, cure } => format!("install {tool}: {cure}"),
            Self::GoTooOld { needed, .. } => format!("install Go {needed} or newer"),
            Self::Root => "run it as root".to_owned(),
            Self::Platform { wanted, .. } => format!("build it on a {wanted} machine and bring a bundle"),
            Self::Program { name, .. } => format!("install {name} and put it on PATH"),
            Self::Disk { .. } => "free disk space, for example with `devstack image prune`".to_owned(),
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool { tool, .. } => write!(f, "{tool} is not installed"),
            Self::GoTooOld { found, needed } => write!(f, "Go {found} is older than {needed}"),
            Self::Root => f.write_str("only root may do it"),
            Self::Platform { wanted, here } => write!(f, "this machine builds for {here}, not for {wanted}"),
            Self::Program { name, made, here } => write!(f, "{name} is made for {made} only, and this is {here}"),
            Self::Disk { needed, free } => {
                write!(f, "{} MB of disk are needed and {} MB are free", needed / 1_000_000, free / 1_000_000)
            }
        }
    }
}
