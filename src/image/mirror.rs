//! Mirrors: where images are looked for before the registry that their name says.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::reference::{Reference, is_host, is_loopback};
use crate::context::{Context, Vars};
use crate::yaml::{self, YamlError};

/// The user's mirrors, in the order they are asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mirrors {
    mirrors: Vec<Mirror>,
    insecure: Vec<String>,
    publish: Option<Publish>,
}

/// A registry that images may be pushed to, for nodes that devstack cannot send images to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publish {
    /// `host[:port][/prefix]` as this machine reaches it.
    pub to: String,
    /// As nodes reach it, where that is another name.
    #[serde(default)]
    pulled_as: Option<String>,
}

impl Publish {
    /// A registry that this machine reaches under one name and nodes under another.
    pub fn new(to: impl Into<String>, pulled_as: impl Into<String>) -> Self {
        Self { to: to.into(), pulled_as: Some(pulled_as.into()) }
    }

    /// `host[:port][/prefix]` as nodes reach it.
    pub fn pull(&self) -> &str {
        self.pulled_as.as_deref().unwrap_or(&self.to)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mirror {
    /// The registry that it mirrors, `*` for every one.
    #[serde(rename = "for")]
    registry: String,
    /// `host[:port][/prefix]`; the image's own path follows.
    #[serde(rename = "use")]
    place: String,
}

/// The file `registries.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: super::catalog::ApiVersion,
    #[serde(rename = "kind")]
    _kind: FileKind,
    #[serde(default)]
    mirrors: Vec<Mirror>,
    /// Hosts that are spoken to without TLS; this machine's own always are.
    #[serde(default)]
    insecure: Vec<String>,
    /// Where images go for clusters that devstack did not make.
    #[serde(default)]
    publish: Option<Publish>,
}

#[derive(Debug, Deserialize)]
enum FileKind {
    Registries,
}

/// Why the mirrors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The file is broken.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// The file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An entry is no place.
    #[error("{origin}: `{text}` is not of the form HOST[:PORT][/PREFIX]")]
    NotAPlace {
        /// The file or variable.
        origin: String,
        /// The text.
        text: String,
    },
}

impl Mirrors {
    /// The mirrors of `registries.yaml`, those of the variable `DEVSTACK_MIRROR` before them.
    ///
    /// # Errors
    /// A file or variable that is there and broken.
    pub fn load(ctx: &Context) -> Result<Self, MirrorError> {
        let path = config_file(&ctx.vars, &ctx.dirs.home);
        let mut all = match ctx.vars.get(VARIABLE) {
            Some(text) => Self::parse_variable(text)?,
            None => Self::default(),
        };
        let read = ctx.fs.read(&path).map_err(|source| MirrorError::Read { path: path.clone(), source })?;
        if let Some(bytes) = read {
            let name = path.display().to_string();
            let file = Self::parse_file(&name, yaml::text(&name, &bytes)?)?;
            all.mirrors.extend(file.mirrors);
            all.insecure.extend(file.insecure);
            all.publish = file.publish;
        }
        Ok(all)
    }

    /// Reads the text of a `registries.yaml`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_file(name: &str, text: &str) -> Result<Self, MirrorError> {
        let file: File = yaml::parse(name, text)?;
        let places = file.mirrors.iter().map(|mirror| &mirror.place);
        let publish = file.publish.iter().flat_map(|publish| [Some(&publish.to), publish.pulled_as.as_ref()]).flatten();
        if let Some(bad) = places.chain(&file.insecure).chain(publish).find(|place| !is_place(place)) {
            return Err(MirrorError::NotAPlace { origin: name.to_owned(), text: bad.clone() });
        }
        Ok(Self { mirrors: file.mirrors, insecure: file.insecure, publish: file.publish })
    }

    /// Reads `[REGISTRY=]HOST[:PORT][/PREFIX],…`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_variable(text: &str) -> Result<Self, MirrorError> {
        let mut mirrors = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (registry, place) = item.split_once('=').unwrap_or(("*", item));
            if !is_place(place) {
                return Err(MirrorError::NotAPlace { origin: VARIABLE.to_owned(), text: item.to_owned() });
            }
            mirrors.push(Mirror { registry: registry.to_owned(), place: place.to_owned() });
        }
        Ok(Self { mirrors, ..Self::default() })
    }

    /// Where an image is to be looked for before its own registry.
    pub fn places(&self, reference: &Reference) -> Vec<Reference> {
        let serves = |mirror: &&Mirror| mirror.registry == "*" || mirror.registry == reference.registry();
        self.mirrors.iter().filter(serves).map(|mirror| reference.at(&mirror.place)).collect()
    }

    /// Where images may be pushed.
    pub fn publish(&self) -> Option<&Publish> {
        self.publish.as_ref()
    }

    /// Whether a host is spoken to over plain HTTP.
    pub fn is_plain(&self, host: &str) -> bool {
        is_loopback(host) || self.insecure.iter().any(|insecure| insecure == host)
    }
}

const VARIABLE: &str = "DEVSTACK_MIRROR";

/// `registries.yaml` in the user's configuration directory.
pub fn config_file(vars: &Vars, home: &Path) -> PathBuf {
    let config = vars.get("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    config.join("devstack").join("registries.yaml")
}

fn is_place(text: &str) -> bool {
    let (host, prefix) = text.split_once('/').unwrap_or((text, ""));
    let host_ok = is_host(host) && (host.contains(['.', ':']) || host == "localhost");
    host_ok && (prefix.is_empty() || format!("{host}/{}", prefix.trim_end_matches('/')).parse::<Reference>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(mirrors: &Mirrors, reference: &str) -> Vec<String> {
        mirrors.places(&reference.parse().unwrap()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_names_mirrors() {
        let text = "apiVersion: devstack/v1\nkind: Registries\nmirrors:\n  - {for: docker.io, use: m.example/hub}\n  - {for: '*', use: 'n.example:5000'}\ninsecure: ['n.example:5000']\n";
        let mirrors = Mirrors::parse_file("registries.yaml", text).unwrap();
        assert_eq!(
            places(&mirrors, "y4m4/s3www:v1.0.0"),
            ["m.example/hub/y4m4/s3www:v1.0.0", "n.example:5000/y4m4/s3www:v1.0.0"]
        );
        assert_eq!(places(&mirrors, "quay.io/metallb/speaker:v0.16.2"), ["n.example:5000/metallb/speaker:v0.16.2"]);
        assert!(mirrors.is_plain("n.example:5000") && mirrors.is_plain("127.0.0.1:9"));
        assert!(!mirrors.is_plain("m.example"));
    }

    #[test]
    fn a_file_names_where_images_are_pushed() {
        let file = |publish: &str| format!("apiVersion: devstack/v1\nkind: Registries\npublish: {publish}\n");
        let read =
            |publish: &str| Mirrors::parse_file("registries.yaml", &file(publish)).map(|one| one.publish.unwrap());
        assert_eq!(read("{to: 'r.example/team'}").unwrap().pull(), "r.example/team");
        let other = read("{to: 'localhost:5000', pulledAs: 'registry.local:5000/x'}").unwrap();
        assert_eq!((other.to.as_str(), other.pull()), ("localhost:5000", "registry.local:5000/x"));
        assert!(read("{to: 'https://r.example'}").is_err());
        assert!(read("{to: 'r.example', pulledAs: 'r'}").is_err());
    }

    #[test]
    fn a_variable_names_mirrors() {
        let mirrors = Mirrors::parse_variable("m.example, quay.io=q.example/q").unwrap();
        assert_eq!(places(&mirrors, "a/b:c"), ["m.example/a/b:c"]);
        assert_eq!(places(&mirrors, "quay.io/a/b:c"), ["m.example/a/b:c", "q.example/q/a/b:c"]);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in ["https://m.example", "m", "m.example/../x", "m.example/UP", "=", "docker.io="] {
            assert!(Mirrors::parse_variable(bad).is_err(), "{bad}");
        }
        let text = "apiVersion: devstack/v1\nkind: Registries\nmirrors:\n  - {for: docker.io, us: m.example}\n";
        let error = Mirrors::parse_file("registries.yaml", text).unwrap_err().to_string();
        assert!(error.starts_with("registries.yaml:4:"), "{error}");
    }
}
