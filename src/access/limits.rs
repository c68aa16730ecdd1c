//! Limits of this machine's kernel that several nodes or many pods use up.
//!
//! Where this account may not write them, the change goes through `sudo DEVSTACK doctor set-limit …`, which checks
//! everything again before it writes (see [`write_limit`]).

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use super::privilege::Access;
use super::privilege::{helper, sudo};
use crate::context::Context;
use crate::error::{Advise, ExitCode};
use crate::ports::Runner;
use crate::ports::runner::RunError;

/// A limit that devstack may raise. The serialised names are in journals and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// How many inotify instances an account may have.
    #[serde(rename = "fs.inotify.max_user_instances")]
    InotifyInstances,
    /// How many files an account may watch.
    #[serde(rename = "fs.inotify.max_user_watches")]
    InotifyWatches,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 2] = [Self::InotifyInstances, Self::InotifyWatches];

    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InotifyInstances => "fs.inotify.max_user_instances",
            Self::InotifyWatches => "fs.inotify.max_user_watches",
        }
    }

    /// What it is raised to, as kind's documentation asks for.
    pub fn wanted(self) -> u64 {
        match self {
            Self::InotifyInstances => 512,
            Self::InotifyWatches => 524_288,
        }
    }

    /// What may ever be written: from the smallest default that a kernel has to the largest.
    fn allowed(self) -> RangeInclusive<u64> {
        match self {
            Self::InotifyInstances => 128..=65_536,
            Self::InotifyWatches => 8_192..=4_194_304,
        }
    }

    /// The kernel's file.
    pub fn file(self) -> PathBuf {
        Path::new("/proc/sys").join(self.name().replace('.', "/"))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|limit| limit.name() == text).ok_or_else(|| format!("{text} is no limit to set"))
    }
}

/// Why a limit was not read or set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// The kernel refused.
    #[error("cannot {action} {limit}")]
    File {
        /// `read` or `set`.
        action: &'static str,
        /// The limit.
        limit: Limit,
        /// The refusal.
        source: std::io::Error,
    },
    /// This account may not set it, and there is no way to get the right.
    #[error("this account may not set {limit}")]
    Denied {
        /// The limit.
        limit: Limit,
    },
    /// sudo wants a password, and there is nobody to type it where it asks.
    #[error("setting {limit} needs sudo, which asks for a password")]
    Password {
        /// The limit.
        limit: Limit,
    },
    /// The privileged helper failed.
    #[error("{limit} was not set")]
    Helper {
        /// The limit.
        limit: Limit,
        /// What the helper said.
        source: RunError,
    },
    /// A value that may not be written.
    #[error("{value} is no value for {limit}, which may be {} to {}", .limit.allowed().start(), .limit.allowed().end())]
    Value {
        /// The limit.
        limit: Limit,
        /// The value.
        value: u64,
    },
}

impl Advise for LimitError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Password { .. } => Some("sudo -v, then the same command again".to_owned()),
            Self::Denied { limit } | Self::Helper { limit, .. } => {
                Some(format!("as root: sysctl {limit}={}", limit.wanted()))
            }
            Self::File { .. } | Self::Value { .. } => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Denied { .. } | Self::Password { .. } => ExitCode::Consent,
            Self::Value { .. } => ExitCode::Usage,
            Self::File { .. } | Self::Helper { .. } => ExitCode::Failed,
        }
    }
}

/// How a limit can be set by this account, now.
pub async fn access(ctx: &Context, runner: &dyn Runner, limit: Limit) -> Access {
    if ctx.fs.settable(&limit.file()) { Access::Direct } else { sudo(runner).await }
}

/// The limit; `None` where the kernel has none of this name.
///
/// # Errors
/// It cannot be read, or is no number.
pub fn read(ctx: &Context, limit: Limit) -> Result<Option<u64>, LimitError> {
    let failed = |source| LimitError::File { action: "read", limit, source };
    let Some(bytes) = ctx.fs.read(&limit.file()).map_err(failed)? else { return Ok(None) };
    let number = String::from_utf8_lossy(&bytes).trim().parse();
    number.map(Some).map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))
}

/// Sets a limit, with privilege where that is needed.
///
/// # Errors
/// It cannot be set; then it is as it was.
pub async fn set(ctx: &Context, runner: &dyn Runner, limit: Limit, value: u64) -> Result<(), LimitError> {
    match access(ctx, runner, limit).await {
        Access::Direct => write_limit(ctx, limit, value),
        Access::Sudo { passwordless: false } => Err(LimitError::Password { limit }),
        Access::Unavailable => Err(LimitError::Denied { limit }),
        Access::Sudo { passwordless: true } => {
            let cmd = helper(&["doctor", "set-limit", limit.name(), &value.to_string()])
                .map_err(|source| LimitError::File { action: "find the program that sets", limit, source })?;
            runner.run(&cmd).await.map_err(|source| LimitError::Helper { limit, source })?;
            // The helper's status is not the proof; the kernel is.
            if read(ctx, limit)? == Some(value) { Ok(()) } else { Err(LimitError::Denied { limit }) }
        }
    }
}

/// Gives a limit back the value that it had; `false` where it is no longer what devstack set: the machine was started
/// again, or somebody else has chosen another value.
///
/// # Errors
/// As [`set`].
pub async fn restore(
    ctx: &Context,
    runner: &dyn Runner,
    limit: Limit,
    before: u64,
    raised: u64,
) -> Result<bool, LimitError> {
    if read(ctx, limit)? != Some(raised) {
        return Ok(false);
    }
    set(ctx, runner, limit, before).await?;
    Ok(true)
}

/// What the privileged helper does: checks the value once more, then writes it.
///
/// # Errors
/// The value is none for this limit, or the kernel refuses it.
pub fn write_limit(ctx: &Context, limit: Limit, value: u64) -> Result<(), LimitError> {
    if !limit.allowed().contains(&value) {
        return Err(LimitError::Value { limit, value });
    }
    let failed = |source| LimitError::File { action: "set", limit, source };
    ctx.fs.set(&limit.file(), format!("{value}\n").as_bytes()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::{self, FakeClock, FakeFs, FakeRunner};
    use crate::ports::runner::Output;

    const LIMIT: Limit = Limit::InotifyInstances;

    fn world() -> (Context, FakeFs, FakeRunner) {
        let fs = FakeFs::default();
        fs.put(LIMIT.file(), "128\n", 0o644);
        (fake::context(&fs, &FakeClock::default()), fs, FakeRunner::default())
    }

    #[tokio::test]
    async fn a_limit_is_set_and_given_back_only_where_it_is_still_ours() {
        let (ctx, fs, runner) = world();
        assert_eq!(LIMIT.file(), Path::new("/proc/sys/fs/inotify/max_user_instances"));
        set(&ctx, &runner, LIMIT, 512).await.unwrap();
        assert_eq!(read(&ctx, LIMIT).unwrap(), Some(512));
        assert!(restore(&ctx, &runner, LIMIT, 128, 512).await.unwrap());
        assert_eq!(fs.text(LIMIT.file()).unwrap(), "128\n");
        fs.put(LIMIT.file(), "1024\n", 0o644);
        assert!(!restore(&ctx, &runner, LIMIT, 128, 512).await.unwrap(), "somebody else's value");
        assert_eq!(read(&ctx, LIMIT).unwrap(), Some(1024));
        assert_eq!(runner.lines(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn sudo_sets_what_this_account_may_not_and_is_not_believed() {
        let (ctx, fs, runner) = world();
        fs.deny(LIMIT.file());
        assert_eq!(set(&ctx, &runner, LIMIT, 512).await.unwrap_err().exit(), ExitCode::Consent);
        runner.prints(&["sudo"], "");
        assert!(matches!(set(&ctx, &runner, LIMIT, 512).await, Err(LimitError::Denied { .. })));
        let disk = fs.clone();
        runner.on(&["sudo", "-n", "--"], move |_| {
            disk.put(LIMIT.file(), "512\n", 0o644);
            Ok(Output::default())
        });
        set(&ctx, &runner, LIMIT, 512).await.unwrap();
        let line = runner.lines().pop().unwrap();
        assert!(line.ends_with("doctor set-limit fs.inotify.max_user_instances 512"), "{line}");
    }

    #[test]
    fn the_helper_writes_nothing_but_sensible_values() {
        let (ctx, fs, _) = world();
        for value in [0, 127, u64::MAX] {
            assert!(matches!(write_limit(&ctx, LIMIT, value), Err(LimitError::Value { .. })), "{value}");
        }
        assert_eq!(fs.writes(), 0);
        assert!("kernel.core_pattern".parse::<Limit>().is_err());
        for limit in Limit::ALL {
            assert_eq!(limit.name().parse(), Ok(limit));
            assert_eq!(serde_json::to_value(limit).unwrap(), limit.name());
            assert!(limit.allowed().contains(&limit.wanted()));
        }
    }
}
