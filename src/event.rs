//! What happened. Logic emits events; only `ui` prints them.
//!
//! The JSON form is public (`-o json` prints one event per line, tagged by `type`): fields may be added, never
//! renamed or removed.

use std::sync::Arc;

use serde::Serialize;

/// One thing that happened while a command ran.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The plan that is about to run (or that a dry run prints).
    Plan {
        /// One line that says what is coming, such as `s3www · kind · 1 node · amd64, CPU level v2`.
        summary: String,
        /// What is asked for now and was not before.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        settings: Vec<Setting>,
        /// Each change, in the order of the graph.
        changes: Vec<Change>,
    },
    /// A step began.
    StepStarted {
        /// The step's id, unique in its plan.
        step: String,
    },
    /// A step moved on; `total` is absent where the size is not known.
    StepProgress {
        /// The step's id.
        step: String,
        /// Units done so far.
        done: u64,
        /// Units in all.
        total: Option<u64>,
        /// What is counted: `bytes`, `images`, `recipes`.
        unit: &'static str,
        /// What is worked on, such as an image reference.
        detail: String,
    },
    /// A step waits, and this is why. Emitted when the reason changes.
    StepWaiting {
        /// The step's id.
        step: String,
        /// The reason in one line.
        reason: String,
    },
    /// A step ended well.
    StepDone {
        /// The step's id.
        step: String,
        /// What came out of it, such as `6/6` or `1/1 Ready`.
        detail: String,
        /// Whether anything was changed.
        changed: bool,
        /// Wall time.
        seconds: f64,
    },
    /// A step failed; the command's error follows at its end.
    StepFailed {
        /// The step's id.
        step: String,
        /// The error and its causes in one line.
        error: String,
        /// Wall time.
        seconds: f64,
    },
    /// Something the user should know and that stops nothing.
    Warning {
        /// The text.
        message: String,
    },
    /// A plain line of information.
    Note {
        /// The text.
        message: String,
    },
    /// The last line of a command that has a result: an object whose fields are the command's own.
    #[serde(rename = "result")]
    Result(serde_json::Value),
}

/// A setting that differs from what an environment was last brought up with.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Setting {
    /// `profile`, `--nodes`, or the name of a `--set`.
    pub name: String,
    /// What it was; `None` where it was left to the profile.
    pub before: Option<String>,
    /// What it is; as `before`.
    pub after: Option<String>,
}

/// One planned change as shown to a person and in JSON.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Change {
    /// The id of the step that makes it.
    pub step: String,
    /// What will be done.
    pub action: Action,
    /// What is changed, in one line.
    pub what: String,
    /// Why, where that is not obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Data that is lost by it, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loses: Vec<String>,
}

/// What a step will do to the thing it describes.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is not there and will be made.
    Create,
    /// It is there, differs, and will be brought back.
    Repair,
    /// It is there, is not asked for any more, and will be taken away.
    Remove,
    /// It is there, was not made by devstack, and will be used and never deleted.
    Adopt,
    /// It is as it should be.
    Leave,
    /// It cannot be known before an earlier step ran.
    Later,
}

/// Where events go. Cheap to clone; safe to call from any task.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(Event) + Send + Sync>);

impl EventSink {
    /// Makes a sink of a function, such as a channel's sender or a renderer.
    pub fn new(receive: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(receive))
    }

    /// A sink that drops everything.
    pub fn null() -> Self {
        Self::new(|_| {})
    }

    /// Hands one event to whoever listens.
    pub fn emit(&self, event: Event) {
        (self.0)(event);
    }

    /// Emits a [`Event::Warning`].
    pub fn warn(&self, message: impl Into<String>) {
        self.emit(Event::Warning { message: message.into() });
    }

    /// Emits a [`Event::Note`].
    pub fn note(&self, message: impl Into<String>) {
        self.emit(Event::Note { message: message.into() });
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}
