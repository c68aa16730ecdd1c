//! References to images, as people write them and as registries need them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::oci::Digest;

/// The registry that is meant where a reference names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A complete reference: `registry/repository:tag[@digest]`.
///
/// Written out in full, it is the name an image has on the nodes; containerd and docker expand `nginx` to the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no image reference: {reason}")]
pub struct NotAReference {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// The host, with its port where one is written: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry, such as `library/traefik`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where it is pinned.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image in another place of the form `host[:port][/prefix]`.
    #[must_use]
    pub fn at(&self, place: &str) -> Self {
        let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        let repository = match prefix {
            "" => self.repository.clone(),
            prefix => format!("{prefix}/{}", self.repository),
        };
        Self { registry: host.to_owned(), repository, tag: self.tag.clone(), digest: self.digest.clone() }
    }

    /// The same reference, pinned.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> Self {
        Self { digest: Some(digest.clone()), ..self.clone() }
    }

    /// The name that nodes know the image by: with its digest where it is pinned, else with its tag. A name that has both
    /// is not one: container runtimes drop the tag, and by the tag alone another image could be meant.
    #[must_use]
    pub fn on_nodes(&self) -> Self {
        let tag = self.tag.clone().filter(|_| self.digest.is_none());
        Self { tag, ..self.clone() }
    }

    /// The name by a digest alone, by which engines and nodes know what was pulled by it.
    #[must_use]
    pub fn by_digest(&self, digest: &Digest) -> Self {
        self.pinned(digest).on_nodes()
    }

    /// The same image with a tag in the place of its digest, for registries that are pushed to.
    #[must_use]
    pub fn tagged(&self) -> Self {
        let Some(digest) = &self.digest else { return self.clone() };
        let tag = self.tag.clone().unwrap_or_else(|| digest.to_string().replace(':', "-"));
        Self { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// What a registry is asked for: the digest where it is pinned, else the tag.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }

    /// The short form that people know: `traefik:v3` for `docker.io/library/traefik:v3`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        short.strip_prefix("library/").unwrap_or(short).to_owned()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = NotAReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let no = |reason| NotAReference { text: text.chars().take(200).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| no("what follows the @ is no sha256 digest"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err(no("it has no name"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':', '[']) => (first, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        if !is_host(registry) {
            return Err(no("its registry is no host name"));
        }
        if !path.split('/').all(is_component) {
            return Err(no("its repository may hold small letters, digits, `.`, `_`, `-` and `/` only"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(no("its tag may hold letters, digits, `.`, `_` and `-` only, 128 at most"));
        }
        let repository = match path.contains('/') {
            false if registry == DEFAULT_REGISTRY => format!("library/{path}"),
            _ => path.to_owned(),
        };
        let tag = match tag {
            None if digest.is_none() => Some("latest".to_owned()),
            tag => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = NotAReference;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// Whether a text is `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match (rest.strip_prefix(':'), rest) {
                (_, "") => return true,
                (Some(port), _) => return port.parse::<u16>().is_ok(),
                (None, _) => return false,
            }
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Whether a host is this machine, where plain HTTP harms nobody.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_component(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.chars().next().is_some_and(word)
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5";

    #[test]
    fn references_are_written_out() {
        for (text, full) in [
            ("traefik", "docker.io/library/traefik:latest"),
            ("traefik:v3.7.13", "docker.io/library/traefik:v3.7.13"),
            ("y4m4/s3www:v1.0.0", "docker.io/y4m4/s3www:v1.0.0"),
            ("index.docker.io/y4m4/s3www:v1.0.0", "docker.io/y4m4/s3www:v1.0.0"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("localhost/a", "localhost/a:latest"),
            ("[::1]:5000/a:b", "[::1]:5000/a:b"),
            ("quay.io/metallb/speaker:v0.16.2", "quay.io/metallb/speaker:v0.16.2"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full, "{text}");
        }
        let pinned: Reference = format!("kindest/node@{DIGEST}").parse().unwrap();
        assert_eq!(pinned.tag(), None);
        assert_eq!(pinned.version(), DIGEST);
        let both: Reference = format!("kindest/node:v1.37.0@{DIGEST}").parse().unwrap();
        assert_eq!(both.to_string(), format!("docker.io/kindest/node:v1.37.0@{DIGEST}"));
        assert_eq!(both.on_nodes().to_string(), format!("docker.io/kindest/node@{DIGEST}"));
        assert_eq!(
            both.on_nodes().tagged().to_string(),
            format!("docker.io/kindest/node:{}", DIGEST.replace(':', "-"))
        );
        assert_eq!(both.tagged().to_string(), "docker.io/kindest/node:v1.37.0");
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = format!("a:{}", "x".repeat(129));
        for bad in [
            "",
            ":tag",
            "Traefik",
            "a//b",
            "../a",
            "a:b:c",
            "a@sha256:12",
            "a b",
            "-h.io/a",
            "h.io:99999/a",
            "a/-b",
            "[::g]:1/a",
            "https://h.io/a",
            "a:-x",
            "h.io/",
            &long,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mirror_keeps_the_path() {
        let reference: Reference = "pgsty/silo:RELEASE.2026-09-16T00-00-00Z".parse().unwrap();
        assert_eq!(
            reference.at("m.example:5000").to_string(),
            "m.example:5000/pgsty/silo:RELEASE.2026-09-16T00-00-00Z"
        );
        assert_eq!(reference.at("m.example/hub/").to_string(), "m.example/hub/pgsty/silo:RELEASE.2026-09-16T00-00-00Z");
    }

    #[test]
    fn loopback_is_known() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000", "127.8.8.8"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "10.0.0.1:5000", "localhost.example", "[2001:db8::1]:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
