//! The lines of a journal. Frozen: fields may be added with a default, never renamed or removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::Undo;
use crate::ports::engine::EngineIdentity;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// An `up` began, with this desired state.
    Opened(Opened),
    /// A step is about to change something; this undoes it.
    Intent {
        /// The step.
        step: String,
        /// Its complete undo.
        undo: Vec<Undo>,
    },
    /// A step ended well.
    Done {
        /// The step.
        step: String,
        /// What it gave, see `step`.
        outputs: Value,
    },
    /// Every endpoint of the environment was verified.
    Ready {
        /// When.
        at: String,
    },
    /// An undo was carried out.
    Undone {
        /// The step it belonged to.
        step: String,
        /// What was undone.
        undo: Undo,
    },
}

impl Record {
    /// The record's tag.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Opened(_) => "opened",
            Self::Intent { .. } => "intent",
            Self::Done { .. } => "done",
            Self::Ready { .. } => "ready",
            Self::Undone { .. } => "undone",
        }
    }
}

/// The desired state that an `up` was called with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// [`crate::journal::VERSION`] of the writer.
    pub version: u32,
    /// The writer's own version.
    pub devstack: String,
    /// The environment's name.
    pub environment: String,
    /// The profile as it was named: a built-in name or an absolute path.
    pub profile: String,
    /// `--set`, in order.
    #[serde(default)]
    pub sets: Vec<(String, String)>,
    /// The provider: `kind`, `minikube`, `existing`.
    pub provider: String,
    /// `--nodes`, where given.
    #[serde(default)]
    pub nodes: Option<u8>,
    /// The kubeconfig context of an `existing` cluster.
    #[serde(default)]
    pub context: Option<String>,
    /// What marks the environment's objects in a cluster that others use too; no other environment has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The engine that a kind cluster is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineIdentity>,
    /// Loopback ports of the ingress: `http`, `https`.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// When, in RFC 3339.
    pub at: String,
}
