//! Names in the hosts file: what is there, how it may be changed, and the change.
//!
//! Where this account may not write the file, the change goes through `sudo DEVSTACK hosts write-block …`, which
//! checks everything again before it writes (see [`write_block`]).

mod block;

use std::path::{Path, PathBuf};

pub use block::{Conflict, Entry, EntryError, State, blocks, conflicts, has_block, state, with_block, without_block};

pub use super::privilege::Access;
use super::privilege::{self, sudo};
use crate::context::Context;
use crate::error::{Advise, ExitCode};
use crate::ports::Runner;
use crate::ports::hostfs::abandoned;
use crate::ports::runner::{Cmd, RunError};

/// The system's hosts file, the only one that is ever written with privilege.
pub const SYSTEM_FILE: &str = "/etc/hosts";

/// Why the hosts file was not read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostsError {
    /// The file system refused.
    #[error("cannot {action} the hosts file {}", .file.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// This account may not change the file, and there is no way to get the right.
    #[error("this account may not change the hosts file {}", .file.display())]
    Denied {
        /// The file.
        file: PathBuf,
    },
    /// sudo wants a password, and there is nobody to type it where it asks.
    #[error("changing the hosts file {} needs sudo, which asks for a password", .file.display())]
    Password {
        /// The file.
        file: PathBuf,
    },
    /// The privileged helper failed.
    #[error("the hosts file {} was not changed", .file.display())]
    Helper {
        /// The file.
        file: PathBuf,
        /// What the helper said.
        source: RunError,
    },
    /// The privileged helper was asked for another file than it may write.
    #[error("{} is not the hosts file", .file.display())]
    NotTheFile {
        /// The file.
        file: PathBuf,
    },
    /// A line that may not be written.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

impl Advise for HostsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Password { .. } => Some("sudo -v, then the same command again".to_owned()),
            Self::Denied { .. } | Self::Helper { .. } => {
                Some("run it as an account that may use sudo; every *.localhost URL works without".to_owned())
            }
            Self::File { .. } | Self::NotTheFile { .. } | Self::Entry(_) => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Denied { .. } | Self::Password { .. } => ExitCode::Consent,
            Self::Entry(_) | Self::NotTheFile { .. } => ExitCode::Usage,
            Self::File { .. } | Self::Helper { .. } => ExitCode::Failed,
        }
    }
}

/// How the file can be changed by this account, now.
pub async fn access(ctx: &Context, runner: &dyn Runner, file: &Path) -> Access {
    if ctx.fs.writable(file) {
        return Access::Direct;
    }
    // Root without the right to write has a read-only file system before it, which sudo does not change.
    if file != Path::new(SYSTEM_FILE) {
        return Access::Unavailable;
    }
    sudo(ctx, runner).await
}

/// The file's bytes; none where it does not exist.
///
/// # Errors
/// It cannot be read.
pub fn read(ctx: &Context, file: &Path) -> Result<Vec<u8>, HostsError> {
    let read = ctx.fs.read(file);
    read.map(Option::unwrap_or_default).map_err(|source| HostsError::File {
        action: "read",
        file: file.to_path_buf(),
        source,
    })
}

/// Makes the environment's block what it should be; `false` where it is so already.
///
/// # Errors
/// The file cannot be changed; then it is as it was.
pub async fn set(
    ctx: &Context,
    runner: &dyn Runner,
    file: &Path,
    environment: &str,
    entries: &[Entry],
) -> Result<bool, HostsError> {
    let before = read(ctx, file)?;
    let after = with_block(&before, environment, entries);
    change(ctx, runner, file, environment, Some(entries), &before, &after).await
}

/// Takes the environment's block out; `false` where there is none.
///
/// # Errors
/// The file cannot be changed; then it is as it was.
pub async fn remove(ctx: &Context, runner: &dyn Runner, file: &Path, environment: &str) -> Result<bool, HostsError> {
    let before = read(ctx, file)?;
    let after = without_block(&before, environment);
    change(ctx, runner, file, environment, None, &before, &after).await
}

async fn change(
    ctx: &Context,
    runner: &dyn Runner,
    file: &Path,
    environment: &str,
    entries: Option<&[Entry]>,
    before: &[u8],
    after: &[u8],
) -> Result<bool, HostsError> {
    if before == after {
        return Ok(false);
    }
    let owned = || file.to_path_buf();
    match access(ctx, runner, file).await {
        Access::Direct => write(ctx, file, after)?,
        Access::Sudo { passwordless: false } => return Err(HostsError::Password { file: owned() }),
        Access::Unavailable => return Err(HostsError::Denied { file: owned() }),
        Access::Sudo { passwordless: true } => {
            let cmd = helper(file, environment, entries).map_err(|source| HostsError::File {
                action: "find the program that writes",
                file: owned(),
                source,
            })?;
            runner.run(&cmd).await.map_err(|source| HostsError::Helper { file: owned(), source })?;
            // The helper's status is not the proof; the file is.
            if read(ctx, file)? != after {
                return Err(HostsError::Denied { file: owned() });
            }
        }
    }
    Ok(true)
}

/// The privileged command, as it can be shown before it runs.
///
/// # Errors
/// The path of this program is not known.
pub fn helper(file: &Path, environment: &str, entries: Option<&[Entry]>) -> std::io::Result<Cmd> {
    let lines: String = entries.unwrap_or_default().iter().map(|entry| format!("{entry}\n")).collect();
    let cmd = privilege::helper(&["hosts", "write-block", "--env", environment, "--file"])?.arg(file);
    Ok(if entries.is_some() { cmd.stdin(lines) } else { cmd.arg("--remove") })
}

/// What the privileged helper does: checks the file and every line once more, then writes the block, or removes it
/// where `lines` is `None`. `elevated` says whether sudo gave the privilege; then only the system's file will do.
///
/// # Errors
/// Anything is not as it must be, or the file cannot be written.
pub fn write_block(
    ctx: &Context,
    file: &Path,
    environment: &str,
    lines: Option<&str>,
    elevated: bool,
) -> Result<bool, HostsError> {
    if file != Path::new(SYSTEM_FILE) && (elevated || file != ctx.hosts_file()) {
        return Err(HostsError::NotTheFile { file: file.to_path_buf() });
    }
    let before = read(ctx, file)?;
    let after = match lines {
        None => without_block(&before, environment),
        Some(lines) => {
            let entries = lines.lines().map(str::parse).collect::<Result<Vec<Entry>, _>>()?;
            with_block(&before, environment, &entries)
        }
    };
    if before == after {
        return Ok(false);
    }
    write(ctx, file, &after)?;
    Ok(true)
}

fn write(ctx: &Context, file: &Path, bytes: &[u8]) -> Result<(), HostsError> {
    let failed = |source| HostsError::File { action: "write", file: file.to_path_buf(), source };
    let target = ctx.fs.resolve(file).map_err(failed)?;
    // Only who may write the system's file may remove what a killed writer left beside it.
    if let (Some(dir), Some(name)) = (target.parent(), target.file_name().and_then(|name| name.to_str())) {
        for left in abandoned(&*ctx.fs, dir, Some(name)).unwrap_or_default() {
            let _ = ctx.fs.remove(&left);
        }
    }
    let mode = ctx.fs.mode(&target).map_err(failed)?.unwrap_or(0o644);
    ctx.fs.write(&target, bytes, mode).map_err(failed)
}

#[cfg(test)]
mod tests;
