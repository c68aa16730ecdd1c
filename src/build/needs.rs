//! What a machine must have to run recipes.

use std::path::PathBuf;

use super::builder::Builder;
use super::error::{BuildError, Unmet};
use super::recipe::{Id, Kind};
use crate::context::Context;
use crate::oci::Platform;
use crate::ports::runner::Cmd;

/// Where Go's own installation instructions put it, for accounts whose `PATH` does not have it.
const GO_FALLBACK: &str = "/usr/local/go/bin/go";

/// Results, sources and caches of Go's and apt's own, relative to the result.
const DISK_FACTOR: u64 = 3;

/// The platform that this machine builds for.
pub fn host_platform() -> Platform {
    Platform::of_machine(std::env::consts::ARCH)
}

/// What runs on this machine without an engine. Only on Linux that is what is built.
pub(super) fn this_machine() -> Platform {
    Platform { os: std::env::consts::OS.to_owned(), ..host_platform() }
}

/// The `go` command.
pub(super) fn go_program(ctx: &Context) -> PathBuf {
    program(ctx, "go").unwrap_or_else(|| {
        let fallback = PathBuf::from(GO_FALLBACK);
        if fallback.is_file() { fallback } else { PathBuf::from("go") }
    })
}

fn program(ctx: &Context, name: &str) -> Option<PathBuf> {
    which::which_in(name, ctx.vars.get("PATH"), "/").ok()
}

impl Builder {
    /// What this machine lacks to build what is missing for some targets; empty when nothing is missing.
    ///
    /// # Errors
    /// For unknown recipes or an unreadable store.
    pub async fn needs(&self, targets: &[Id]) -> Result<Vec<Unmet>, BuildError> {
        let missing = self.missing(targets)?;
        self.unmet(&missing).await
    }

    pub(super) async fn check_needs(&self, missing: &[Id]) -> Result<(), BuildError> {
        let unmet = self.unmet(missing).await?;
        if unmet.is_empty() {
            return Ok(());
        }
        let recipe = missing.last().map(ToString::to_string).unwrap_or_default();
        Err(BuildError::Needs { recipe, unmet })
    }

    async fn unmet(&self, missing: &[Id]) -> Result<Vec<Unmet>, BuildError> {
        let mut unmet = Vec::new();
        if missing.is_empty() {
            return Ok(unmet);
        }
        let mut add = |lack: Unmet| {
            if !unmet.contains(&lack) {
                unmet.push(lack);
            }
        };
        let here = this_machine();
        if self.platform != here {
            add(Unmet::Platform { wanted: self.platform.clone(), here });
        }
        let mut newest: Option<&str> = None;
        let mut bytes = 0;
        let tool = |tool: &'static str, cure: &'static str| {
            program(&self.ctx, tool).is_none().then_some(Unmet::Tool { tool, cure })
        };
        for id in missing {
            let recipe = self.recipes.get(id)?;
            bytes += recipe.expect.bytes;
            match &recipe.kind {
                Kind::Go(go) => {
                    if newest.is_none_or(|newest| version(newest) < version(&go.toolchain)) {
                        newest = Some(&go.toolchain);
                    }
                    if go.cgo {
                        tool("gcc", "apt-get install gcc libc6-dev").into_iter().for_each(&mut add);
                    }
                }
                Kind::Debian(debian) => {
                    tool("dpkg-deb", "it is part of Debian and Ubuntu").into_iter().for_each(&mut add);
                    if debian.bootstrap.is_some() {
                        tool("debootstrap", "apt-get install debootstrap").into_iter().for_each(&mut add);
                        root().into_iter().for_each(&mut add);
                    } else {
                        tool("apt-get", "it is part of Debian and Ubuntu").into_iter().for_each(&mut add);
                    }
                }
                Kind::Layers(_) => {}
                Kind::Node(_) => root().into_iter().for_each(&mut add),
            }
        }
        if let Some(lack) = self.disk(bytes) {
            add(lack);
        }
        if let Some(needed) = newest
            && let Some(lack) = self.go_lacks(needed).await
        {
            add(lack);
        }
        Ok(unmet)
    }

    async fn go_lacks(&self, needed: &str) -> Option<Unmet> {
        let cmd = Cmd::new(go_program(&self.ctx)).arg("version").env("GOTOOLCHAIN", "local");
        let Ok(output) = self.runner.run(&cmd).await else {
            return Some(Unmet::Tool { tool: "go", cure: "see https://go.dev/doc/install" });
        };
        let text = output.text();
        let found = text.split_whitespace().find_map(|word| word.strip_prefix("go1")).map(|rest| format!("1{rest}"))?;
        (version(&found) < version(needed)).then(|| Unmet::GoTooOld { found, needed: needed.to_owned() })
    }

    fn disk(&self, bytes: u64) -> Option<Unmet> {
        let needed = bytes * DISK_FACTOR;
        let space = rustix::fs::statvfs(&self.ctx.dirs.cache).ok()?;
        let free = space.f_bavail * space.f_frsize;
        (free < needed).then_some(Unmet::Disk { needed, free })
    }
}

fn root() -> Option<Unmet> {
    (!rustix::process::geteuid().is_root()).then_some(Unmet::Root)
}

/// `1.24.2` as numbers; what is no number ends it.
fn version(text: &str) -> Vec<u32> {
    text.split('.')
        .map_while(|part| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version("1.9") < version("1.24"));
        assert!(version("1.24") < version("1.24.2"));
        assert!(version("1.26.8") > version("1.26"));
        assert_eq!(version("1.26rc1"), [1, 26]);
    }
}
