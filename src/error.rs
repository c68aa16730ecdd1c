//! How errors reach a person: exit codes, advice, and the one form in which a command fails.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// What a command's exit status says. The numbers are public.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, and verified where there is something to verify.
    Done = 0,
    /// The environment, a check or preflight failed; the cause is printed.
    Failed = 1,
    /// The command line or a profile is wrong.
    Usage = 2,
    /// `doctor` found problems.
    Findings = 3,
    /// Something is left after `down`.
    Leftovers = 4,
    /// Consent or a privilege is missing, the engine's permission included.
    Consent = 5,
    /// Interrupted by the user; the state is safe.
    Interrupted = 130,
}

impl ExitCode {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(exit: ExitCode) -> Self {
        exit.code().into()
    }
}

/// What an error tells a person beyond its message. Every error type that reaches a user implements it.
pub trait Advise: std::error::Error {
    /// What to do about it: one line, best a command.
    fn hint(&self) -> Option<String> {
        None
    }

    /// The exit code of a command that fails with it.
    fn exit(&self) -> ExitCode {
        ExitCode::Failed
    }
}

/// How a command fails. It is made at the edge from any error that implements [`Advise`] (`?` does it) and rendered
/// by `ui`; its fields are those of [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Failure(Box<Report>);

impl std::ops::Deref for Failure {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.0
    }
}

impl std::ops::DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

/// What is known of a failure: the message, its causes, what proves them, what to do, what was kept, the exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What happened, to what.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// The id of the check that explains it, such as `cpu.x86-64-level`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// What was seen: quoted log lines, statuses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proof: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
    /// What was left in place on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// The log of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<PathBuf>,
    /// The exit code.
    #[serde(serialize_with = "as_number")]
    pub exit: ExitCode,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn as_number<S: serde::Serializer>(exit: &ExitCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(exit.code())
}

impl Failure {
    /// A failure with nothing but a message.
    pub fn new(exit: ExitCode, message: impl Into<String>) -> Self {
        Self(Box::new(Report {
            message: message.into(),
            causes: Vec::new(),
            check: None,
            proof: Vec::new(),
            hints: Vec::new(),
            kept: None,
            log: None,
            exit,
        }))
    }

    /// The command line or a profile is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// The user pressed Ctrl-C, or the process was asked to end.
    pub fn interrupted(changes: bool) -> Self {
        let failure = Self::new(ExitCode::Interrupted, "interrupted");
        if changes {
            failure.kept("state is safe, run `devstack up` again or `devstack down`")
        } else {
            failure.kept("nothing was changed")
        }
    }

    /// Writing the command's output failed.
    pub fn of_output(error: &std::io::Error) -> Self {
        Self::new(ExitCode::Failed, "cannot write the output").cause(error.to_string())
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Names the check that explains it.
    #[must_use]
    pub fn check(mut self, id: impl Into<String>) -> Self {
        self.check = Some(id.into());
        self
    }

    /// Adds what was seen.
    #[must_use]
    pub fn proof(mut self, proof: impl Into<String>) -> Self {
        self.proof.push(proof.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says what was left in place.
    #[must_use]
    pub fn kept(mut self, kept: impl Into<String>) -> Self {
        self.kept = Some(kept.into());
        self
    }

    /// Names the log of the run.
    #[must_use]
    pub fn log(mut self, path: Option<&Path>) -> Self {
        if self.log.is_none() {
            self.log = path.map(Path::to_path_buf);
        }
        self
    }

    /// The failure as a person reads it: the message, then one labelled line for each thing known.
    ///
    /// A cause or proof of several lines keeps its lines, indented below its label.
    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", indent(&self.message));
        let mut line = |label: &str, value: &str| {
            text.push_str(&format!("  {label:<6}{}\n", indent(value)));
        };
        for (index, cause) in self.causes.iter().enumerate() {
            match &self.check {
                Some(id) if index + 1 == self.causes.len() => line("cause", &format!("{cause}  [{id}]")),
                _ => line("cause", cause),
            }
        }
        if let (Some(id), true) = (&self.check, self.causes.is_empty()) {
            line("cause", &format!("[{id}]"));
        }
        for proof in &self.proof {
            line("proof", proof);
        }
        for hint in &self.hints {
            line("hint", hint);
        }
        if let Some(kept) = &self.kept {
            line("kept", kept);
        }
        if let Some(log) = &self.log {
            line("log", &log.display().to_string());
        }
        text
    }
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n        ")
}

/// A stranger's text, short enough to be shown, and with nothing in it that a terminal would obey.
pub fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What to do where the file system refuses to write below `path`; `None` where the refusal says nothing of it.
pub fn advice_on_writing(path: &Path, refusal: &std::io::Error) -> Option<String> {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let dir = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(path).display();
    match refusal.kind() {
        StorageFull | QuotaExceeded => {
            Some(format!("make room (df -h {dir}), then run the same command again; DEVSTACK_HOME=DIR moves the state"))
        }
        ReadOnlyFilesystem | PermissionDenied => {
            Some(format!("make {dir} writable, or move the state: DEVSTACK_HOME=DIR, then run the same command again"))
        }
        _ => None,
    }
}

/// An error and its causes in one line, each told once.
pub fn chain(error: &(impl std::error::Error + ?Sized)) -> String {
    let mut line = error.to_string();
    for cause in causes(error) {
        line.push_str(": ");
        line.push_str(&cause);
    }
    line
}

/// The causes of an error, outermost first, without those that a message before repeats, as many libraries do.
fn causes(error: &(impl std::error::Error + ?Sized)) -> Vec<String> {
    let mut told = error.to_string();
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !text.is_empty() && !told.contains(&text) {
            causes.push(text.clone());
            told = text;
        }
        source = cause.source();
    }
    causes
}

impl<E: Advise> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut failure = Self::new(error.exit(), error.to_string());
        failure.causes = causes(&error);
        failure.hints.extend(error.hint());
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot write the journal /state/journal")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("write failed: no space left on device")]
    struct Middle(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("no space left on device")]
    struct Inner;

    impl Advise for Outer {
        fn hint(&self) -> Option<String> {
            Some("devstack image prune".to_owned())
        }

        fn exit(&self) -> ExitCode {
            ExitCode::Leftovers
        }
    }

    #[test]
    fn an_error_becomes_a_failure_with_each_cause_told_once() {
        assert_eq!(
            chain(&Outer(Middle(Inner))),
            "cannot write the journal /state/journal: write failed: no space left on device"
        );
        let failure = Failure::from(Outer(Middle(Inner)));
        assert_eq!(failure.exit, ExitCode::Leftovers);
        insta::assert_snapshot!(failure.render(), @"
        error: cannot write the journal /state/journal
          cause write failed: no space left on device
          hint  devstack image prune
        ");
    }

    #[test]
    fn everything_known_is_rendered_in_one_order() {
        let failure = Failure::new(ExitCode::Failed, "minio crashed twice: waiting cannot help")
            .hint("devstack up s3www --set minio.image=…")
            .cause("the node's CPU lacks x86-64-v2")
            .check("cpu.x86-64-level")
            .proof("Fatal glibc error:\nCPU does not support x86-64-v2\n")
            .kept("the cluster; `up` resumes here, `down` removes it")
            .log(Some(Path::new("/state/logs/1.jsonl")));
        insta::assert_snapshot!(failure.render(), @"
        error: minio crashed twice: waiting cannot help
          cause the node's CPU lacks x86-64-v2  [cpu.x86-64-level]
          proof Fatal glibc error:
                CPU does not support x86-64-v2
          hint  devstack up s3www --set minio.image=…
          kept  the cluster; `up` resumes here, `down` removes it
          log   /state/logs/1.jsonl
        ");
        insta::assert_snapshot!(serde_json::to_string(&failure).unwrap(), @r#"{"message":"minio crashed twice: waiting cannot help","causes":["the node's CPU lacks x86-64-v2"],"check":"cpu.x86-64-level","proof":["Fatal glibc error:\nCPU does not support x86-64-v2\n"],"hints":["devstack up s3www --set minio.image=…"],"kept":"the cluster; `up` resumes here, `down` removes it","log":"/state/logs/1.jsonl","exit":1}"#);
    }
}
