//! Which provider an environment's cluster comes from.

use std::fmt;
use std::str::FromStr;

/// Where a cluster comes from. The names are recorded in journals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Provider {
    /// kind: nodes are containers of the engine.
    #[default]
    Kind,
    /// minikube, through its own program.
    Minikube,
    /// A cluster that devstack did not make, by a context of the user's kubeconfig.
    Existing,
}

/// A text that names no provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no provider: kind, minikube or existing")]
pub struct NotAProvider(String);

impl Provider {
    /// The name on the command line and in journals.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Minikube => "minikube",
            Self::Existing => "existing",
        }
    }

    /// Whether others may use the cluster too: nothing is taken for devstack's own there but what its journal says.
    pub fn is_shared(self) -> bool {
        self == Self::Existing
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Provider {
    type Err = NotAProvider;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Kind, Self::Minikube, Self::Existing]
            .into_iter()
            .find(|provider| provider.as_str() == text)
            .ok_or_else(|| NotAProvider(text.to_owned()))
    }
}
