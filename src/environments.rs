//! Which environments there are, and which one a verb without `--env` means.

use crate::context::Context;
use crate::error::{ExitCode, Failure};

/// The longest name of an environment, so that `devstack-NAME-control-plane` stays a host name.
const LONGEST_NAME: usize = 32;

/// Names of the environments that have a directory, sorted.
///
/// # Errors
/// What the file system said.
pub fn list(ctx: &Context) -> Result<Vec<String>, Failure> {
    let dir = ctx.dirs.state.join("environments");
    let names = ctx.fs.list(&dir).map_err(|error| {
        Failure::new(ExitCode::Failed, format!("cannot read {}", dir.display())).cause(error.to_string())
    })?;
    Ok(names.into_iter().filter(|name| environment_name(name).is_ok()).collect())
}

/// A name that can be part of host names, container names and labels: an RFC 1123 label of at most 32 characters.
///
/// # Errors
/// What is wrong with it.
pub fn environment_name(text: &str) -> Result<String, String> {
    let edge = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    if text.is_empty() {
        return Err("a name has at least one character".to_owned());
    }
    if text.chars().count() > LONGEST_NAME {
        return Err(format!("a name has at most {LONGEST_NAME} characters"));
    }
    if let Some(wrong) = text.chars().find(|&character| !edge(character) && character != '-') {
        return Err(format!("{wrong:?} is not allowed; a name is made of a-z, 0-9 and -"));
    }
    if !text.starts_with(edge) || !text.ends_with(edge) {
        return Err("a name begins and ends with a letter or a digit".to_owned());
    }
    Ok(text.to_owned())
}

/// The reserved name of everything of an environment: its cluster, network and kubeconfig context.
pub fn reserved_name(environment: &str) -> String {
    format!("devstack-{environment}")
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
    Failure::usage(format!("there are {} environments: {}", names.len(), names.join(", ")))
        .hint(format!("choose one with --env {}", names[0]))
}
