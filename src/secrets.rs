//! Credentials: generated once an environment, kept in one owner-only file beside the journal and in the cluster.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Advise;
use crate::ports::HostFs;

/// Characters of a password: enough for 190 bits, none that needs quoting anywhere.
const LENGTH: usize = 32;

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A user and a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Who.
    pub username: String,
    /// The proof.
    pub password: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({})", self.username)
    }
}

/// Why credentials cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretsError {
    /// The file cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// `read`, `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: std::io::Error,
    },
    /// The file is not what devstack wrote.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Advise for SecretsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged(_) => Some("`devstack down` and `devstack up` make new ones".to_owned()),
            _ => None,
        }
    }
}

/// The credentials of these names, such as `minio.readers.s3www`: those that the file has, and fresh ones for the
/// rest, written before they are given out.
///
/// # Errors
/// See [`SecretsError`].
pub fn ensure(
    fs: &dyn HostFs,
    path: &Path,
    names: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<String, Credential>, SecretsError> {
    let mut known = read(fs, path)?;
    let mut fresh = false;
    for name in names {
        if let Entry::Vacant(place) = known.entry(name) {
            let username = username(place.key());
            place.insert(Credential { username, password: password()? });
            fresh = true;
        }
    }
    if fresh {
        let fail = |source| SecretsError::Io { action: "write", path: path.to_path_buf(), source };
        let text = serde_json::to_vec_pretty(&known).map_err(|error| fail(error.into()))?;
        fs.write(path, &text, 0o600).map_err(fail)?;
    }
    Ok(known)
}

/// The credentials of the file; none where there is no file.
///
/// # Errors
/// See [`SecretsError`].
pub fn read(fs: &dyn HostFs, path: &Path) -> Result<BTreeMap<String, Credential>, SecretsError> {
    let text = fs.read(path).map_err(|source| SecretsError::Io { action: "read", path: path.to_path_buf(), source })?;
    let Some(text) = text else { return Ok(BTreeMap::new()) };
    serde_json::from_slice(&text).map_err(|_| SecretsError::Damaged(path.to_path_buf()))
}

/// Who a credential is of: `root` for `minio.root`, `reader-web-1` for `minio.readers.web-1`, so that no two of a
/// component are one user. MinIO wants three characters at least.
fn username(name: &str) -> String {
    let mut parts = name.split('.').skip(1);
    let user = match (parts.next(), parts.next()) {
        (Some(kind), Some(key)) => format!("{}-{key}", kind.strip_suffix('s').unwrap_or(kind)),
        (own, _) => own.unwrap_or(name).to_owned(),
    };
    if user.len() < 3 { format!("user-{user}") } else { user }
}

/// What marks the objects of one environment in a cluster that others use too: a label's value that nobody else has.
///
/// # Errors
/// [`SecretsError::Random`].
pub fn instance() -> Result<String, SecretsError> {
    Ok(password()?.to_ascii_lowercase())
}

fn password() -> Result<String, SecretsError> {
    let mut password = String::with_capacity(LENGTH);
    while password.len() < LENGTH {
        let mut bytes = [0_u8; 64];
        getrandom::fill(&mut bytes).map_err(SecretsError::Random)?;
        // Bytes past the last whole multiple of the alphabet would make its first letters likelier.
        let fair =
            bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < 256 / ALPHABET.len() * ALPHABET.len());
        password.extend(fair.map(|byte| char::from(ALPHABET[byte % ALPHABET.len()])).take(LENGTH - password.len()));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::hostfs::RealFs;

    #[test]
    fn credentials_are_made_once_and_only_their_owner_may_read_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.json");
        let first = ensure(&RealFs, &path, ["minio.root".to_owned()]).unwrap();
        let again = ensure(&RealFs, &path, ["minio.root".to_owned(), "minio.readers.s3www".to_owned()]).unwrap();
        assert_eq!(first["minio.root"], again["minio.root"]);
        assert_eq!(again["minio.readers.s3www"].username, "reader-s3www");
        assert_ne!(again["minio.readers.s3www"].password, again["minio.root"].password);
        assert_eq!(again["minio.root"].password.len(), LENGTH);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{again:?}").contains(&again["minio.root"].password));
    }

    #[test]
    fn no_two_credentials_of_a_component_are_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.json");
        // What an earlier devstack made stays as it was.
        let old = r#"{"minio.readers.web-1": {"username": "web1", "password": "x"}}"#;
        std::fs::write(&path, old).unwrap();
        let names = ["root", "readers.web-1", "readers.web1", "readers.root", "db"].map(|name| format!("minio.{name}"));
        let users = ensure(&RealFs, &path, names.clone()).unwrap();
        let users = names.each_ref().map(|name| users[name].username.as_str());
        assert_eq!(users, ["root", "web1", "reader-web1", "reader-root", "user-db"]);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.json");
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(read(&RealFs, &path), Err(SecretsError::Damaged(_))));
    }
}
