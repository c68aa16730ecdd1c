//! Names in the hosts file: what is there, how it may be changed, and the change.
//!
//! Where this account may not write the file, the change goes through `sudo DEVSTACK hosts write-block …`, which
//! checks everything again before it writes (see [`write_block`]).

mod block;

use std::path::{Path, PathBuf};

pub use block::{
    Conflict, Entry, EntryError, State, blocks, conflicts, has_block, is_local, state, with_block, without_block,
};

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

impl HostsError {
    /// Whether this account did not get the right to change the file. The file itself is well.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied { .. } | Self::Password { .. } | Self::Helper { .. })
    }
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
    sudo(runner).await
}

/// Has sudo ask for its password now, where it needs one to take the blocks of these environments out and there is a
/// terminal to ask on. What it does not get, the change itself is refused for.
pub async fn unlock(ctx: &Context, runner: &dyn Runner, environments: &[String]) {
    let file = ctx.hosts_file();
    let text = read(ctx, &file).unwrap_or_default();
    let has_names = |environment: &String| has_block(&text, environment);
    if ctx.options.interactive
        && environments.iter().any(has_names)
        && access(ctx, runner, &file).await == (Access::Sudo { passwordless: false })
    {
        ctx.events.note(format!("taking names out of {} needs sudo", file.display()));
        privilege::authenticate(runner).await;
    }
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
    change(ctx, runner, file, environment, Some(entries)).await
}

/// Takes the environment's block out; `false` where there is none.
///
/// # Errors
/// The file cannot be changed; then it is as it was.
pub async fn remove(ctx: &Context, runner: &dyn Runner, file: &Path, environment: &str) -> Result<bool, HostsError> {
    change(ctx, runner, file, environment, None).await
}

/// The file's bytes with the environment's block as it should be: these entries, or none at all.
fn edited(text: &[u8], environment: &str, entries: Option<&[Entry]>) -> Vec<u8> {
    match entries {
        Some(entries) => with_block(text, environment, entries),
        None => without_block(text, environment),
    }
}

async fn change(
    ctx: &Context,
    runner: &dyn Runner,
    file: &Path,
    environment: &str,
    entries: Option<&[Entry]>,
) -> Result<bool, HostsError> {
    let is_right = |text: &[u8]| edited(text, environment, entries) == text;
    if is_right(&read(ctx, file)?) {
        return Ok(false);
    }
    let owned = || file.to_path_buf();
    match access(ctx, runner, file).await {
        Access::Direct => rewrite(ctx, file, environment, entries),
        Access::Sudo { passwordless: false } => Err(HostsError::Password { file: owned() }),
        Access::Unavailable => Err(HostsError::Denied { file: owned() }),
        Access::Sudo { passwordless: true } => {
            let cmd = helper(file, environment, entries).map_err(|source| HostsError::File {
                action: "find the program that writes",
                file: owned(),
                source,
            })?;
            runner.run(&cmd).await.map_err(|source| HostsError::Helper { file: owned(), source })?;
            // The helper's status is not the proof; the block is. The rest of the file is anybody's.
            if is_right(&read(ctx, file)?) { Ok(true) } else { Err(HostsError::Denied { file: owned() }) }
        }
    }
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
    let parsed = lines.map(|lines| lines.lines().map(str::parse).collect::<Result<Vec<Entry>, _>>());
    rewrite(ctx, file, environment, parsed.transpose()?.as_deref())
}

/// Edits the file as it is now, and lets no other devstack edit it meanwhile: of two that read the same text, the
/// second would take the first one's block away. `false` where nothing is to be done.
fn rewrite(ctx: &Context, file: &Path, environment: &str, entries: Option<&[Entry]>) -> Result<bool, HostsError> {
    let failed = |source| HostsError::File { action: "write", file: file.to_path_buf(), source };
    let target = ctx.fs.resolve(file).map_err(failed)?;
    let Some(dir) = target.parent() else { return Err(failed(std::io::ErrorKind::InvalidInput.into())) };
    let lock = ctx.fs.lock(dir).map_err(failed)?;
    let before = read(ctx, &target)?;
    let after = edited(&before, environment, entries);
    if before == after {
        return Ok(false);
    }
    // Only who may write the system's file may remove what a killed writer left beside it.
    if let Some(name) = target.file_name().and_then(|name| name.to_str()) {
        for left in abandoned(&*ctx.fs, dir, Some(name)).unwrap_or_default() {
            let _ = ctx.fs.remove(&left);
        }
    }
    let mode = ctx.fs.mode(&target).map_err(failed)?.unwrap_or(0o644);
    ctx.fs.write(&target, &after, mode).map_err(failed)?;
    drop(lock);
    Ok(true)
}

#[cfg(test)]
mod tests;
