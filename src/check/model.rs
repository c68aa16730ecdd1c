//! What a check finds.

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::ports::kube::ObjectKey;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It does not work, or will not.
    Error,
    /// It works and may bite later; never changes an exit code.
    Warning,
    /// As it should be, such as a readiness probe that fails while a program starts.
    Info,
}

/// One thing that a check found. The JSON form is public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable and public, `category.name`; never reused for anything else.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// Why, in one line.
    pub cause: String,
    /// What to do, in order of preference; commands where there are any.
    pub remedy: Vec<String>,
    /// Whether `devstack doctor --fix` cures it.
    pub fixable: bool,
    /// What was seen, word for word where a program said it.
    pub evidence: String,
    /// The object it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectKey>,
    /// What the object waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Reason>,
    /// Whether waiting cannot help.
    pub hopeless: bool,
}

impl Finding {
    /// A finding of the severity with this cause, and nothing else yet.
    pub fn new(id: &str, severity: Severity, cause: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            severity,
            cause: cause.into(),
            remedy: Vec::new(),
            fixable: false,
            evidence: String::new(),
            object: None,
            waiting: None,
            hopeless: false,
        }
    }

    /// An error.
    pub fn error(id: &str, cause: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, cause)
    }

    /// A warning.
    pub fn warning(id: &str, cause: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, cause)
    }

    /// Adds one thing to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy.push(remedy.into());
        self
    }

    /// Sets what was seen.
    #[must_use]
    pub fn evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = evidence.into();
        self
    }

    /// Names the object.
    #[must_use]
    pub fn about(mut self, object: ObjectKey) -> Self {
        self.object = Some(object);
        self
    }

    /// Marks it as cured by `--fix`.
    #[must_use]
    pub fn fixable(mut self) -> Self {
        self.fixable = true;
        self
    }

    /// Whether it counts as a problem (`doctor` ends with 3, `preflight` blocks).
    pub fn is_problem(&self) -> bool {
        self.severity == Severity::Error
    }
}
