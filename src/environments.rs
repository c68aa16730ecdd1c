//! Which environments there are, and which one a verb without `--env` means.

use crate::context::Context;
use crate::error::{ExitCode, Failure};

/// Names of the environments that have a directory, sorted.
///
/// # Errors
/// What the file system said.
pub fn list(ctx: &Context) -> Result<Vec<String>, Failure> {
    let dir = ctx.dirs.state.join("environments");
    ctx.fs.list(&dir).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot read {}", dir.display())).cause(error.to_string())
    })
}

/// The environment that a verb acts on: the named one, else the only one. `None` where there is none at all.
///
/// # Errors
/// A usage failure that lists them where there are several.
pub fn choose(ctx: &Context, named: Option<&str>) -> Result<Option<String>, Failure> {
    if let Some(name) = named {
        return Ok(Some(name.to_owned()));
    }
    match list(ctx)?.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        several => Err(ambiguous(several)),
    }
}

/// The failure of a verb that could mean several environments.
pub fn ambiguous(names: &[String]) -> Failure {
    Failure::usage(format!("there are {} environments: {}", names.len(), names.join(", "))).hint("name one with --env")
}
