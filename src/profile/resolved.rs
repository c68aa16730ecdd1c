//! A profile with everything known that can be known before its cluster exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::error::ProfileError;
use super::schema::{KubernetesRange, Loop, Parameter, Placement, Verify};
use super::scope::{Scope, SubstituteError};
use super::world::{Bindings, Env, World};

/// A loaded profile.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The profile's name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Every parameter with its value; those of type `secret` are left out.
    pub parameters: BTreeMap<String, Value>,
    /// The settings whose values may be shown: parameters of other types than `secret`, a component's as
    /// `COMPONENT.NAME`.
    pub public: BTreeSet<String>,
    /// The settings as they are recorded: as they were given, with relative paths made absolute.
    pub settings: Vec<(String, String)>,
    /// What the parameters take and are for.
    pub definitions: BTreeMap<String, Parameter>,
    /// The cluster.
    pub cluster: ResolvedCluster,
    /// The components that are switched on, each after what it requires.
    pub components: Vec<ResolvedComponent>,
    /// Components that a condition switched off.
    pub off: BTreeSet<String>,
    /// The URLs promised.
    pub routes: Vec<ResolvedRoute>,
    pub(super) verify: Vec<(Verify, String)>,
    pub(super) world: Arc<World>,
}

/// The cluster of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedCluster {
    /// How many nodes, at least 1.
    pub nodes: u8,
    /// `auto` or a version such as `1.34`.
    pub kubernetes: String,
    /// Labels by node number; 0 is the control plane.
    pub labels: BTreeMap<u8, BTreeMap<String, String>>,
}

/// A URL promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResolvedRoute {
    /// Its name.
    pub name: String,
    /// The host name without a domain.
    pub host: String,
    /// The namespace of the service behind it.
    pub namespace: String,
    /// The service.
    pub service: String,
    /// The service's port.
    pub port: u16,
    /// The path that the URL ends with; begins with `/`.
    pub path: String,
}

/// A request and the answer it must get, everything known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// The URL. One whose host ends in `.svc.cluster.local` is asked through the API server.
    pub url: String,
    /// The HTTP status.
    pub status: u16,
    /// The SHA-256 of the body, in hexadecimal.
    pub sha256: Option<String>,
    /// Text the body contains.
    pub contains: Option<String>,
}

/// A component of an environment.
#[derive(Debug, Clone)]
pub struct ResolvedComponent {
    /// The name of this use of it.
    pub name: String,
    /// The component it is a use of.
    pub component: String,
    /// Its namespace.
    pub namespace: String,
    /// The names of the components that come before it.
    pub requires: BTreeSet<String>,
    /// Abilities that others may require.
    pub provides: Vec<String>,
    /// Roles by variable.
    pub images: BTreeMap<String, String>,
    /// References that `--set COMPONENT.image[.VARIABLE]=` gave, by variable.
    pub image_overrides: BTreeMap<String, String>,
    /// The credentials to generate, as paths below `credentials` of a [`Scope`]: `minio.root`, `minio.readers.s3www`.
    pub credentials: Vec<String>,
    /// The buckets to fill.
    pub content: Vec<ContentSpec>,
    /// Its objects as templates, by wave.
    pub waves: Vec<Vec<ManifestTemplate>>,
    /// What to wait for.
    pub ready: Vec<Ready>,
    /// The Services whose LoadBalancer addresses its objects hold, as `namespace/name`, and for each the component that
    /// waits until it has one.
    pub addresses: BTreeMap<String, String>,
    /// What others may read of it.
    pub outputs: BTreeMap<String, Value>,
    /// Bytes of memory it takes.
    pub memory: u64,
    /// Bytes of disk it takes besides its images.
    pub disk: u64,
    /// The Kubernetes versions it works on.
    pub kubernetes: Option<KubernetesRange>,
    /// Where its pods run among nodes that differ.
    pub placement: Placement,
    pub(super) world: Arc<World>,
}

/// An object with references, and where it was written.
#[derive(Debug, Clone)]
pub struct ManifestTemplate {
    /// The object.
    pub object: Value,
    /// The file and line, such as `profiles/components/minio/service.yaml:3`.
    pub place: String,
    pub(super) when: Option<Value>,
    pub(super) loops: Vec<Loop>,
}

/// A bucket to fill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContentSpec {
    /// The bucket.
    pub bucket: String,
    /// What goes into it.
    pub source: ContentSource,
    /// The key of the object that the route proves.
    pub key: String,
    /// The path of that object's URL, such as `/site.gif`, or `/` for the index of a directory.
    pub path: String,
    /// The size of that object in bytes; `None` of a directory without an index, which is no site.
    pub size: Option<u64>,
    /// The namespace of the pods that serve S3.
    pub namespace: String,
    /// Their labels.
    pub pods: BTreeMap<String, String>,
    /// Their port.
    pub port: u16,
    /// The credential to write with, as in [`ResolvedComponent::credentials`].
    pub credentials: String,
}

/// Where content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentSource {
    /// A file of `profiles/content/` in the binary.
    Builtin(String),
    /// A file on the host, absolute.
    File(PathBuf),
    /// A directory on the host, absolute.
    Directory(PathBuf),
}

/// Something to wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ready {
    /// What it is.
    pub kind: ReadyKind,
    /// Its name.
    pub name: String,
    /// Its namespace; of no meaning for a CRD.
    pub namespace: String,
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadyKind {
    /// A Deployment that is rolled out.
    Deployment,
    /// A DaemonSet that is rolled out.
    DaemonSet,
    /// A StatefulSet that is rolled out.
    StatefulSet,
    /// A Job that is complete.
    Job,
    /// A CustomResourceDefinition that is established.
    Crd,
    /// A Service that has a LoadBalancer address.
    ServiceAddress,
}

impl Resolved {
    /// The requests to prove the environment with.
    ///
    /// # Errors
    /// [`ProfileError::Render`] where a value is not in the scope yet.
    pub fn verify(&self, scope: &Scope) -> Result<Vec<Verification>, ProfileError> {
        let none = Bindings::new();
        let env = Env::new(&self.world, None, &none, scope);
        self.verify
            .iter()
            .map(|(verify, place)| {
                let text = |text: &str| {
                    env.strict(&Value::String(text.to_owned()))
                        .map(plain)
                        .map_err(|error| ProfileError::Render { place: place.clone(), error })
                };
                Ok(Verification {
                    url: text(&verify.get)?,
                    status: verify.status,
                    sha256: verify.sha256.as_deref().map(text).transpose()?,
                    contains: verify.contains.as_deref().map(text).transpose()?,
                })
            })
            .collect()
    }

    /// The requests as far as they are known, for a plan; what is late stays `${…}`.
    pub fn verify_preview(&self) -> Vec<Verification> {
        let (none, late) = (Bindings::new(), Scope::new());
        let env = Env::new(&self.world, None, &none, &late);
        let text = |text: &str| {
            let template = Value::String(text.to_owned());
            env.lenient(&template).map_or_else(|_| text.to_owned(), plain)
        };
        let preview = |(verify, _): &(Verify, String)| Verification {
            url: text(&verify.get),
            status: verify.status,
            sha256: verify.sha256.as_deref().map(text),
            contains: verify.contains.as_deref().map(text),
        };
        self.verify.iter().map(preview).collect()
    }

    /// The value of a reference as the profile itself would read it, such as `minio.endpoint`.
    ///
    /// # Errors
    /// Where it is unknown or not in the scope yet.
    pub fn value(&self, reference: &str, scope: &Scope) -> Result<Value, SubstituteError> {
        let none = Bindings::new();
        Env::new(&self.world, None, &none, scope).strict(&Value::String(format!("${{{reference}}}")))
    }

    /// Bytes of memory of all components.
    pub fn memory(&self) -> u64 {
        self.components.iter().map(|component| component.memory).sum()
    }

    /// Bytes of disk of all components, images not counted.
    pub fn disk(&self) -> u64 {
        self.components.iter().map(|component| component.disk).sum()
    }
}

/// A scalar as text.
pub(super) fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}
