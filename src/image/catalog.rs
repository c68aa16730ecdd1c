//! The catalog: per role its releases, best first. Data in `profiles/catalog/ROLE.yaml`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::kubernetes::{KubeRange, KubeVersion, NotAVersion};
use super::reference::Reference;
use crate::assets::PROFILES;
use crate::facts::CpuLevel;
use crate::oci::{Digest, Platform};
use crate::yaml::{self, YamlError};

/// The role whose releases are Kubernetes versions.
pub const NODE: &str = "node";

/// All roles and their releases.
#[derive(Debug, Clone, Default)]
pub struct Catalog(BTreeMap<String, Entry>);

/// One file of the catalog.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// `devstack/v1`.
    pub api_version: ApiVersion,
    /// `Catalog`.
    pub kind: Kind,
    /// The role; also the file's name.
    pub role: String,
    /// What the role is, in one line.
    pub summary: String,
    /// Roles of one group are taken in one version, because they share their manifests.
    #[serde(default)]
    pub group: Option<String>,
    /// The releases, best first.
    pub releases: Vec<Release>,
}

/// The format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ApiVersion {
    /// The only one there is.
    #[serde(rename = "devstack/v1")]
    V1,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// An entry of the catalog.
    Catalog,
}

/// One version of what a role does.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// Its version, unique in its role.
    pub version: String,
    /// Upstream's images, best first; one is taken.
    #[serde(default)]
    pub images: Vec<Image>,
    /// The recipe that builds it, tried after its images.
    #[serde(default)]
    pub build: Option<Build>,
    /// The variant of the component's manifests that belongs to it.
    #[serde(default)]
    pub manifests: Option<String>,
    /// The Kubernetes versions it works with; for [`NODE`] its own version counts.
    #[serde(default)]
    pub kubernetes: Option<KubeRange>,
    /// The cgroup version it needs, where it does not run on all.
    #[serde(default)]
    pub cgroup: Option<u8>,
    /// Upstream's repository is gone: only a mirror, or what is here already, can have it.
    #[serde(default)]
    pub mirror_only: bool,
    /// Not upstream's program but a stand-in; taking it is asked for.
    #[serde(default)]
    pub substitute: bool,
    /// What a person should know about it.
    #[serde(default)]
    pub note: Option<String>,
}

/// An image in a registry.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Where it is, with a tag.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// The digest of its index, where it is known from more than one place.
    #[serde(default)]
    pub digest: Option<Digest>,
    /// The platforms it is made for.
    pub platforms: Vec<Platform>,
    /// The lowest CPU level it runs on, for `amd64`.
    #[serde(default = "lowest")]
    pub cpu: CpuLevel,
}

/// How to build a release from source.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Build {
    /// The recipe's name.
    pub recipe: String,
    /// The platforms it can be built for.
    pub platforms: Vec<Platform>,
}

fn lowest() -> CpuLevel {
    CpuLevel::V1
}

/// What is wrong with the catalog or with what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// A file is not what it should be.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A file is well-formed and contradicts itself.
    #[error("{file}: {reason}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A role that the catalog does not have.
    #[error("the catalog has no role `{role}`{}", did_you_mean(.known, .role))]
    UnknownRole {
        /// What was asked for.
        role: String,
        /// The roles there are.
        known: Vec<String>,
    },
}

fn did_you_mean(known: &[String], role: &str) -> String {
    match yaml::did_you_mean(role, known.iter().map(String::as_str)) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => format!(" (it has {})", known.join(", ")),
    }
}

impl Catalog {
    /// The catalog that travels in the binary.
    ///
    /// # Errors
    /// A file that is broken, which the tests rule out for what is shipped.
    pub fn builtin() -> Result<Self, CatalogError> {
        let files = PROFILES.get_dir("catalog").into_iter().flat_map(include_dir::Dir::files);
        let mut texts = Vec::new();
        for file in files.filter(|file| file.path().extension().is_some_and(|extension| extension == "yaml")) {
            let name = format!("profiles/{}", file.path().display());
            let text = yaml::text(&name, file.contents())?.to_owned();
            texts.push((name, text));
        }
        Self::parse(texts)
    }

    /// Reads a catalog from (file name, text) pairs.
    ///
    /// # Errors
    /// The first file that is broken.
    pub fn parse(files: impl IntoIterator<Item = (String, String)>) -> Result<Self, CatalogError> {
        let mut entries = BTreeMap::new();
        for (file, text) in files {
            let entry: Entry = yaml::parse(&file, &text)?;
            entry.check().map_err(|reason| CatalogError::Invalid { file: file.clone(), reason })?;
            let role = entry.role.clone();
            if entries.insert(role.clone(), entry).is_some() {
                let reason = format!("the role `{role}` has another file already");
                return Err(CatalogError::Invalid { file, reason });
            }
        }
        Ok(Self(entries))
    }

    /// The roles, sorted.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A role's entry.
    ///
    /// # Errors
    /// [`CatalogError::UnknownRole`].
    pub fn entry(&self, role: &str) -> Result<&Entry, CatalogError> {
        self.0.get(role).ok_or_else(|| CatalogError::UnknownRole {
            role: role.to_owned(),
            known: self.roles().map(str::to_owned).collect(),
        })
    }
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for release in &self.releases {
            let version = &release.version;
            if !seen.insert(version) {
                return Err(format!("the release {version} is there twice"));
            }
            if release.images.is_empty() && release.build.is_none() {
                return Err(format!("the release {version} has neither an image nor a recipe"));
            }
            if self.role == NODE {
                release.node_version().map_err(|error| error.to_string())?;
            }
            for image in &release.images {
                if image.reference.tag().is_none_or(|tag| tag == "latest") || image.reference.digest().is_some() {
                    return Err(format!("{} needs a tag that says a version; its digest has a key", image.reference));
                }
                if image.platforms.is_empty() {
                    return Err(format!("{} is for no platform", image.reference));
                }
            }
        }
        Ok(())
    }

    /// A release by its version.
    pub fn release(&self, version: &str) -> Option<&Release> {
        self.releases.iter().find(|release| release.version == version)
    }
}

impl Release {
    /// The Kubernetes version of a node release.
    ///
    /// # Errors
    /// A release of another role, whose version is no Kubernetes version.
    pub fn node_version(&self) -> Result<KubeVersion, NotAVersion> {
        self.version.parse()
    }
}

#[cfg(test)]
mod tests;
