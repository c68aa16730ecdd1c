//! The environment's context in the user's kubeconfig.
//!
//! The user's file is edited as text: what devstack adds is three list items, and everything else keeps its bytes,
//! comments and order. Where that is not possible (a file in JSON or flow style), the file is written anew with the
//! same content. Either way the result is parsed and compared with what it has to be before it is written. The current
//! context is never set, and only unset when it names a context that is removed.

mod edit;
mod extract;

pub use extract::{Extracted, extract};

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Advise, ExitCode};
use crate::ports::HostFs;
use crate::ports::process::is_alive;
use crate::yaml::{self, YamlError};

/// The lists of a kubeconfig, and the member of an item that holds its content.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

/// The extension that marks a file which devstack made. It survives kubectl, which drops comments.
const MADE_BY: &str = "dev.devstack/made";

/// How long a lock of kubectl is waited for, and how often it is looked at.
const LOCK_LOOKS: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why a kubeconfig was not read or changed. The file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeconfigError {
    /// The file system refused.
    #[error("cannot {action} {}", .file.display())]
    File {
        /// `read`, `write`, `lock`.
        action: &'static str,
        /// The file.
        file: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// It is not YAML.
    #[error("the kubeconfig cannot be used, and nothing was changed")]
    Broken(#[source] YamlError),
    /// It is YAML and no kubeconfig.
    #[error("{} is not a kubeconfig: {reason}", .file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It lacks a context, or what that one names.
    #[error(
        "the kubeconfig has no {what}; it has {}",
        if .known.is_empty() { "no contexts".to_owned() } else { .known.join(", ") }
    )]
    NoContext {
        /// What it lacks.
        what: String,
        /// The contexts that it has.
        known: Vec<String>,
    },
    /// Somebody holds kubectl's lock.
    #[error("{} is locked by another program", .file.display())]
    Locked {
        /// The kubeconfig.
        file: PathBuf,
        /// The lock.
        lock: PathBuf,
    },
}

impl Advise for KubeconfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Broken(error) => error.hint(),
            Self::Shape { file, .. } => Some(format!("kubectl config view --kubeconfig {}", file.display())),
            Self::Locked { lock, .. } => Some(format!("if no kubectl runs: rm {}", lock.display())),
            Self::NoContext { .. } => Some("kubectl config get-contexts".to_owned()),
            Self::File { .. } => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::NoContext { .. } => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}

/// How the file compares with the environment's own kubeconfig.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The context, its cluster and its user are there and lead to the environment.
    Present,
    /// None of them is there.
    Absent,
    /// Some are missing, or lead elsewhere.
    Differs,
}

/// How the context `name` in `file` compares with the current context of `own`, the text of the environment's own
/// kubeconfig.
///
/// # Errors
/// Either cannot be used.
pub fn state(fs: &dyn HostFs, file: &Path, name: &str, own: &str) -> Result<State, KubeconfigError> {
    let wanted = items(file, name, own)?;
    let (_, found) = load(fs, file)?;
    let found: Vec<_> = LISTS.iter().map(|(list, _)| item(&found, list, name)).collect();
    if found.iter().all(Option::is_none) {
        return Ok(State::Absent);
    }
    let same = found.iter().zip(&wanted).all(|(found, wanted)| *found == Some(wanted));
    Ok(if same { State::Present } else { State::Differs })
}

/// Whether any of the three items is there.
///
/// # Errors
/// The file cannot be used.
pub fn contains(fs: &dyn HostFs, file: &Path, name: &str) -> Result<bool, KubeconfigError> {
    let (_, found) = load(fs, file)?;
    Ok(LISTS.iter().any(|(list, _)| item(&found, list, name).is_some()))
}

/// Adds the current context of `own`, its cluster and its user under `name`, or brings them back; `false` where they
/// are there already.
///
/// # Errors
/// The file cannot be used or written; then it is as it was.
pub fn add(fs: &dyn HostFs, file: &Path, name: &str, own: &str) -> Result<bool, KubeconfigError> {
    let wanted = items(file, name, own)?;
    change(fs, file, |text, config| {
        let mut text = if config.is_null() { edit::Text::made(MADE_BY) } else { text };
        for ((list, _), wanted) in LISTS.iter().zip(&wanted) {
            if item(text.value(), list, name) != Some(wanted) {
                text = text.without(list, name).with(list, wanted);
            }
        }
        Some(text)
    })
}

/// Takes the context, its cluster and its user out; `false` where none of them is there. A file that devstack made
/// goes with its last item.
///
/// # Errors
/// The file cannot be used or written; then it is as it was.
pub fn remove(fs: &dyn HostFs, file: &Path, name: &str) -> Result<bool, KubeconfigError> {
    change(fs, file, |mut text, config| {
        if LISTS.iter().all(|(list, _)| item(config, list, name).is_none()) {
            return Some(text);
        }
        for (list, _) in LISTS {
            text = text.without(list, name);
        }
        if text.value()["current-context"] == name {
            text = text.without_current_context();
        }
        let made = item(text.value(), "extensions", MADE_BY).is_some();
        let empty = LISTS.iter().all(|(list, _)| text.value()[*list].as_array().is_none_or(Vec::is_empty));
        (!(made && empty)).then_some(text)
    })
}

/// The three items as they shall be, in the order of [`LISTS`].
fn items(file: &Path, name: &str, own: &str) -> Result<Vec<Value>, KubeconfigError> {
    let source = "the environment's kubeconfig";
    let own = yaml::parse_value(source, own).map_err(KubeconfigError::Broken)?.to_value();
    let missing = |what: &str| KubeconfigError::Shape {
        file: file.to_path_buf(),
        reason: format!("{source} names a {what} that it lacks"),
    };
    let current = own["current-context"].as_str().ok_or_else(|| missing("current context"))?;
    let context = item(&own, "contexts", current).ok_or_else(|| missing("context"))?;
    let content = |list: &str, member: &str| {
        let wanted = context["context"][member].as_str()?;
        item(&own, list, wanted).map(|item| item[member].clone())
    };
    let cluster = content("clusters", "cluster").ok_or_else(|| missing("cluster"))?;
    let user = content("users", "user").ok_or_else(|| missing("user"))?;
    Ok(vec![
        json!({"name": name, "cluster": cluster}),
        json!({"name": name, "context": {"cluster": name, "user": name}}),
        json!({"name": name, "user": user}),
    ])
}

fn item<'a>(config: &'a Value, list: &str, name: &str) -> Option<&'a Value> {
    config[list].as_array()?.iter().find(|item| item["name"] == name)
}

/// The text and the content of the file; a missing one is empty, and an empty one is null.
fn load(fs: &dyn HostFs, file: &Path) -> Result<(Option<String>, Value), KubeconfigError> {
    let bytes = fs.read(file).map_err(|source| io("read", file, source))?;
    let Some(bytes) = bytes else { return Ok((None, Value::Null)) };
    let source = file.display().to_string();
    let text = yaml::text(&source, &bytes).map_err(KubeconfigError::Broken)?;
    let mut documents = yaml::parse_documents(&source, text).map_err(KubeconfigError::Broken)?;
    let shape = |reason: &str| KubeconfigError::Shape { file: file.to_path_buf(), reason: reason.to_owned() };
    let config = match documents.len() {
        0 => json!({}),
        1 => documents.remove(0).to_value(),
        _ => return Err(shape("it has several documents")),
    };
    if !config.is_object() {
        return Err(shape("it is no mapping"));
    }
    for (list, _) in LISTS {
        if !config[list].is_null() && !config[list].is_array() {
            return Err(shape(&format!("`{list}` is no list")));
        }
    }
    Ok((Some(text.to_owned()), config))
}

/// Changes the file under kubectl's lock: `edit` gets the text and the content, null where there is no file, and
/// gives what shall be, or nothing where the file shall go.
fn change(
    fs: &dyn HostFs,
    file: &Path,
    edit: impl Fn(edit::Text, &Value) -> Option<edit::Text>,
) -> Result<bool, KubeconfigError> {
    let target = fs.resolve(file).map_err(|source| io("read", file, source))?;
    // What the file shall be, and whether it exists and is that already.
    let look = || -> Result<(Option<edit::Text>, bool, bool), KubeconfigError> {
        let (text, config) = load(fs, &target)?;
        let exists = text.is_some();
        let text = text.unwrap_or_default();
        let after = edit(edit::Text::new(text.clone(), config.clone()), &config);
        let is_right = after.as_ref().is_some_and(|after| after.text() == text);
        Ok((after, exists, is_right))
    };
    // Where nothing is to be done no lock is made, which would need the right to write.
    let (_, exists, is_right) = look()?;
    if is_right {
        release_abandoned(fs, &target)?;
        return Ok(false);
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let (Some(parent), false) = (parent, exists) {
        fs.create_dir(parent).map_err(|source| io("write", file, source))?;
    }
    let lock = Lock::take(fs, &target)?;
    // Whoever held the lock until now may have changed the file.
    let (after, _, is_right) = look()?;
    if is_right {
        return Ok(false);
    }
    let mode = fs.mode(&target).map_err(|source| io("read", file, source))?.unwrap_or(0o600);
    match &after {
        Some(after) => fs.write(&target, after.text().as_bytes(), mode),
        None => fs.remove(&target),
    }
    .map_err(|source| io("write", file, source))?;
    drop(lock);
    if let (None, Some(parent)) = (&after, parent)
        && parent.ends_with(".kube")
        && fs.list(parent).is_ok_and(|names| names.is_empty())
    {
        fs.remove_dir(parent).map_err(|source| io("write", file, source))?;
    }
    Ok(true)
}

fn io(action: &'static str, file: &Path, source: std::io::Error) -> KubeconfigError {
    KubeconfigError::File { action, file: file.to_path_buf(), source }
}

/// Removes the lock that a killed devstack left beside the file; kubectl would refuse to change it.
///
/// # Errors
/// [`KubeconfigError::File`].
pub fn release_abandoned(fs: &dyn HostFs, file: &Path) -> Result<(), KubeconfigError> {
    let target = fs.resolve(file).map_err(|source| io("read", file, source))?;
    let path = Lock::beside(&target);
    if is_abandoned(fs, &path) {
        fs.remove(&path).map_err(|source| io("lock", file, source))?;
    }
    Ok(())
}

/// kubectl's own lock, a file beside the kubeconfig. Ours says whose it is, so that the lock of a killed devstack is
/// no obstacle to the next one.
struct Lock<'a> {
    fs: &'a dyn HostFs,
    path: PathBuf,
}

impl<'a> Lock<'a> {
    fn beside(file: &Path) -> PathBuf {
        let mut name = file.file_name().unwrap_or_default().to_os_string();
        name.push(".lock");
        file.with_file_name(name)
    }

    fn take(fs: &'a dyn HostFs, file: &Path) -> Result<Self, KubeconfigError> {
        let path = Self::beside(file);
        let content = format!("devstack {}", std::process::id());
        for _ in 0..LOCK_LOOKS {
            match fs.create_new(&path, content.as_bytes()) {
                Ok(()) => return Ok(Self { fs, path }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(io("lock", file, source)),
            }
            if is_abandoned(fs, &path) {
                fs.remove(&path).map_err(|source| io("lock", file, source))?;
            } else {
                std::thread::sleep(LOCK_PAUSE);
            }
        }
        Err(KubeconfigError::Locked { file: file.to_path_buf(), lock: path })
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // A lock that stays is taken over by the next devstack, and named by the next kubectl.
        let _ = self.fs.remove(&self.path);
    }
}

/// Whether a lock is that of a devstack which is gone, or of this process (of an attempt that was given up). One that
/// cannot be read is kubectl's, whose locks nobody may read.
fn is_abandoned(fs: &dyn HostFs, lock: &Path) -> bool {
    let holder = fs.read(lock).ok().flatten().unwrap_or_default();
    let pid =
        std::str::from_utf8(&holder).ok().and_then(|text| text.strip_prefix("devstack ")?.trim().parse::<u32>().ok());
    pid.is_some_and(|pid| pid == std::process::id() || !is_alive(pid))
}

#[cfg(test)]
mod tests;
