//! Child processes. Nothing else in devstack starts one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio_util::sync::CancellationToken;

use crate::ports::process::Process;

/// The environment variable that marks every child with the environment it works for, so that a child which
/// outlives a killed devstack is found again.
pub const OWNER_VARIABLE: &str = "DEVSTACK_OWNER";

/// The environment variable that marks every child with the devstack that started it, a [`Process`], so that the children
/// of one that lives are left alone.
pub const PARENT_VARIABLE: &str = "DEVSTACK_PARENT";

/// A command to run. Arguments are passed as they are; no shell is involved.
#[derive(Debug, Clone, Default)]
pub struct Cmd {
    /// The program: a path, or a name looked up on `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to the inherited environment.
    pub env: Vec<(String, OsString)>,
    /// Working directory; inherited when `None`.
    pub cwd: Option<PathBuf>,
    /// What the child reads from its standard input.
    pub stdin: Vec<u8>,
    /// The longest it may take; unbounded when `None`.
    pub timeout: Option<Duration>,
    /// Whether it talks to the person at the terminal itself. It reads devstack's own input then, and belongs to its
    /// process group: a terminal stops whatever reads from it in the background.
    pub terminal: bool,
}

impl Cmd {
    /// A command without arguments.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the child's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Sets what the child reads.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Lets it talk to the person at the terminal.
    #[must_use]
    pub fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Sets the longest time it may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The command line as a person would type it, for messages only.
    pub fn line(&self) -> String {
        let words = std::iter::once(self.program.as_os_str()).chain(self.args.iter().map(OsString::as_os_str));
        words
            .map(|word| {
                let word = word.to_string_lossy();
                if word.is_empty() || word.contains([' ', '\t', '\n', '"', '\'', '$', '*']) {
                    format!("{word:?}")
                } else {
                    word.into_owned()
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What a child that ended with status 0 wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Which of a child's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Called with each line a child writes, as it is written.
pub type OnLine<'a> = &'a (dyn Fn(Stream, &str) + Send + Sync);

/// Why a child did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The program is not there.
    #[error("`{program}` is not installed")]
    NotFound {
        /// The program as it was asked for.
        program: String,
    },
    /// It ended with another status than 0, or by a signal.
    #[error("`{line}` {}: {}", describe_status(*.code, *.signal), last_lines(.stderr, .stdout))]
    Failed {
        /// The command line.
        line: String,
        /// Exit status; `None` after a signal.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// What it wrote on standard output.
        stdout: String,
        /// What it wrote on standard error.
        stderr: String,
    },
    /// It took longer than allowed and was killed.
    #[error("`{line}` took longer than {} s and was stopped", .after.as_secs())]
    Timeout {
        /// The command line.
        line: String,
        /// The allowed time.
        after: Duration,
    },
    /// The user interrupted devstack, which stopped the child.
    #[error("`{line}` was interrupted")]
    Cancelled {
        /// The command line.
        line: String,
    },
    /// The operating system refused.
    #[error("cannot run `{line}`")]
    Io {
        /// The command line.
        line: String,
        /// The refusal.
        source: std::io::Error,
    },
}

fn describe_status(code: Option<i32>, signal: Option<i32>) -> String {
    match (code, signal) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended abnormally".to_owned(),
    }
}

fn last_lines(stderr: &str, stdout: &str) -> String {
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

/// Runs child processes.
#[async_trait]
pub trait Runner: Send + Sync {
    /// Runs a command to its end, calling `on_line` for each line it writes. The child has a process group of its
    /// own, which is stopped when the call is cancelled or times out.
    ///
    /// # Errors
    /// Every way in which the command does not end with status 0; see [`RunError`].
    async fn stream(&self, cmd: &Cmd, on_line: OnLine<'_>) -> Result<Output, RunError>;

    /// Runs a command to its end.
    ///
    /// # Errors
    /// As [`Runner::stream`].
    async fn run(&self, cmd: &Cmd) -> Result<Output, RunError> {
        self.stream(cmd, &|_, _| {}).await
    }
}

/// Runs real processes, each marked with its owner and its parent (see [`OWNER_VARIABLE`] and [`PARENT_VARIABLE`]).
#[derive(Debug, Clone)]
pub struct ProcessRunner {
    cancel: CancellationToken,
    owner: String,
    process: Option<Process>,
}

impl ProcessRunner {
    /// A runner whose children stop when `cancel` fires and carry `owner` in their environment.
    pub fn new(cancel: CancellationToken, owner: impl Into<String>) -> Self {
        Self { cancel, owner: owner.into(), process: Process::own() }
    }
}

#[async_trait]
impl Runner for ProcessRunner {
    async fn stream(&self, cmd: &Cmd, on_line: OnLine<'_>) -> Result<Output, RunError> {
        let line = cmd.line();
        let mut command = tokio::process::Command::new(&cmd.program);
        command
            .args(&cmd.args)
            .envs(cmd.env.iter().map(|(name, value)| (name, value)))
            .env(OWNER_VARIABLE, &self.owner)
            .env(PARENT_VARIABLE, self.process.map_or_else(String::new, |process| process.to_string()))
            .stdin(match cmd.terminal {
                true => Stdio::inherit(),
                false if cmd.stdin.is_empty() => Stdio::null(),
                false => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(if cmd.terminal { Stdio::inherit() } else { Stdio::piped() })
            .kill_on_drop(true);
        #[cfg(unix)]
        if !cmd.terminal {
            command.process_group(0);
        }
        if let Some(dir) = &cmd.cwd {
            command.current_dir(dir);
        }
        let mut child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => RunError::NotFound { program: cmd.program.display().to_string() },
            _ => RunError::Io { line: line.clone(), source },
        })?;
        let mut group = if cmd.terminal { Group { id: None } } else { Group::of(&child) };
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A child that does not read its input closes the pipe; its status tells the rest.
                let _ = stdin.write_all(&cmd.stdin).await;
                let _ = stdin.shutdown().await;
            }
        };
        let stdout = collect(child.stdout.take(), Stream::Stdout, on_line);
        let stderr = collect(child.stderr.take(), Stream::Stderr, on_line);
        let work = async {
            let ((), stdout, stderr, status) = tokio::join!(feed, stdout, stderr, child.wait());
            (stdout, stderr, status)
        };
        let deadline = async {
            match cmd.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let (stdout, stderr, status) = tokio::select! {
            ended = work => ended,
            () = self.cancel.cancelled() => {
                group.stop().await;
                return Err(RunError::Cancelled { line });
            }
            () = deadline => {
                group.stop().await;
                return Err(RunError::Timeout { line, after: cmd.timeout.unwrap_or_default() });
            }
        };
        group.ended();
        let status = status.map_err(|source| RunError::Io { line: line.clone(), source })?;
        if status.success() {
            return Ok(Output { stdout, stderr });
        }
        #[cfg(unix)]
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        #[cfg(not(unix))]
        let signal = None;
        Err(RunError::Failed {
            line,
            code: status.code(),
            signal,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

async fn collect(source: Option<impl AsyncRead + Unpin>, stream: Stream, on_line: OnLine<'_>) -> Vec<u8> {
    let mut all = Vec::new();
    let Some(source) = source else { return all };
    let mut reader = BufReader::new(source);
    loop {
        let start = all.len();
        match reader.read_until(b'\n', &mut all).await {
            Ok(0) | Err(_) => return all,
            Ok(_) => on_line(stream, String::from_utf8_lossy(&all[start..]).trim_end()),
        }
    }
}

/// A child's process group; stopped on drop unless the child has ended.
struct Group {
    id: Option<u32>,
}

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self { id: child.id() }
    }

    fn ended(&mut self) {
        self.id = None;
    }

    /// Asks the group to end, and kills what is left after a moment.
    async fn stop(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.id.take() {
            signal_group(id, rustix::process::Signal::TERM);
            tokio::time::sleep(Duration::from_millis(500)).await;
            signal_group(id, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(id) = self.id.take() {
            signal_group(id, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(unix)]
fn signal_group(id: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
        // A group that is gone already is what was wanted.
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_talks_to_a_person_shares_the_terminal() {
        let runner = ProcessRunner::new(CancellationToken::new(), "runner-test");
        let cmd = Cmd::new("/bin/sh").args(["-c", "read -r line < /proc/$$/stat; set -- $line; echo $$ $5"]);
        let own = rustix::process::getpgrp().as_raw_nonzero().to_string();
        for on_terminal in [false, true] {
            let cmd = if on_terminal { cmd.clone().on_terminal() } else { cmd.clone() };
            let told = runner.run(&cmd).await.unwrap().text();
            let (pid, group) = told.trim().split_once(' ').unwrap();
            assert_eq!(group, if on_terminal { &own } else { pid });
        }
    }
}
