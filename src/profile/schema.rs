//! The files as people write them. Unknown keys are errors; values may hold `${references}` where a field says so.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::load::version;

/// The version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The first and only one.
    #[serde(rename = "devstack/v1")]
    V1,
}

/// `Profile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ProfileKind {
    /// `Profile`.
    Profile,
}

/// `Component`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ComponentKind {
    /// `Component`.
    Component,
}

/// A whole environment: a cluster, the components on it, how they are reached and how to prove that it works.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "devstack profile")]
pub struct ProfileFile {
    /// `devstack/v1`.
    pub api_version: ApiVersion,
    /// `Profile`.
    pub kind: ProfileKind,
    /// The name, also the environment's name unless another is given: lower-case letters, digits and dashes.
    pub name: String,
    /// One line for `devstack profile list`.
    #[serde(default)]
    pub summary: String,
    /// Another profile this one begins with: a file beside it without `.yaml`, or a built-in.
    #[serde(default)]
    pub extends: Option<String>,
    /// What `--set NAME=VALUE` can change, read as `${NAME}`.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// The cluster.
    #[serde(default)]
    pub cluster: Cluster,
    /// What is installed on the cluster.
    #[serde(default)]
    pub components: Vec<Use>,
    /// The URLs the environment promises.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Requests that must be answered as said before the environment counts as ready.
    #[serde(default)]
    pub verify: Vec<Verify>,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A file or directory that exists, or `builtin:NAME` for one that travels with devstack.
    Path,
    /// A host name or one label of it.
    Hostname,
    /// Anything that must not be shown: a text, or a credential (`username`, `password`) of another component.
    Secret,
    /// A list; `items` says of what.
    List,
    /// A mapping; `fields` says of what.
    Object,
}

/// A parameter of a profile or component.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What it takes; may be left out only where a profile overrides a parameter of the one it extends.
    #[serde(default, rename = "type")]
    pub kind: Option<ParameterType>,
    /// The value when none is given; without it the parameter must be set.
    #[serde(default)]
    pub default: Option<Value>,
    /// Whether it may be absent without a default.
    #[serde(default)]
    pub optional: bool,
    /// What it is for, in one line.
    #[serde(default)]
    pub help: Option<String>,
    /// The lowest integer.
    #[serde(default)]
    pub min: Option<i64>,
    /// The highest integer.
    #[serde(default)]
    pub max: Option<i64>,
    /// The only values allowed.
    #[serde(default, rename = "enum")]
    pub values: Option<Vec<Value>>,
    /// A regular expression that a whole text must match.
    #[serde(default)]
    pub pattern: Option<String>,
    /// What a list holds.
    #[serde(default)]
    pub items: Option<Box<Parameter>>,
    /// What an object or secret holds; other keys are errors.
    #[serde(default)]
    pub fields: Option<BTreeMap<String, Parameter>>,
}

/// The cluster of a profile.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// How many nodes, 1 to 9; the first is the control plane. 1 when absent.
    #[serde(default)]
    #[schemars(schema_with = "integer_or_reference")]
    pub nodes: Option<Value>,
    /// `auto` (the best this machine can run) or a version such as `1.34`.
    #[serde(default)]
    pub kubernetes: Option<String>,
    /// Labels of nodes, by node number; 0 is the control plane.
    #[serde(default)]
    pub node_labels: BTreeMap<u8, BTreeMap<String, String>>,
}

/// A component of a profile.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// The component: a directory in `components/` beside the profile, or a built-in.
    #[serde(rename = "use")]
    pub component: String,
    /// The name of this use of it, the component's own name when absent.
    #[serde(default, rename = "as")]
    pub instance: Option<String>,
    /// When it is part of the environment: `true`, `"${x}"`, `"!${x}"`, `"${x} == y"` or `"${x} != y"`.
    #[serde(default)]
    #[schemars(schema_with = "boolean_or_reference")]
    pub when: Option<Value>,
    /// Its parameters.
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
}

/// A URL the environment promises.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, read as `${routes.NAME.url}`.
    pub name: String,
    /// The host name without a domain; devstack adds `.localhost`, and `.test` where a hosts entry is allowed.
    pub host: String,
    /// The service behind it as `namespace/name`.
    pub service: String,
    /// The service's port.
    #[schemars(schema_with = "integer_or_reference")]
    pub port: Value,
    /// The path that the URL ends with; `/` when absent.
    #[serde(default)]
    pub path: Option<String>,
}

/// A request and the answer it must get.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The URL. One whose host ends in `.svc.cluster.local` is asked through the API server.
    pub get: String,
    /// The HTTP status.
    pub status: u16,
    /// The SHA-256 of the body, in hexadecimal.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Text the body contains.
    #[serde(default)]
    pub contains: Option<String>,
    /// Says to the reader that no credentials are sent (none ever are).
    #[serde(default)]
    pub anonymous: bool,
}

/// Something that can be installed on a cluster, with its manifests beside it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "devstack component")]
pub struct ComponentFile {
    /// `devstack/v1`.
    pub api_version: ApiVersion,
    /// `Component`.
    pub kind: ComponentKind,
    /// The name, that of its directory.
    pub name: String,
    /// One line that says what it is.
    #[serde(default)]
    pub summary: String,
    /// The namespace it lives in, made by devstack; the instance's name when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What a profile's `with` can say, read as `${NAME}`.
    #[serde(default)]
    pub parameters: BTreeMap<String, Parameter>,
    /// Components or abilities that must be in the profile and come first.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Abilities other components may require.
    #[serde(default)]
    pub provides: Vec<String>,
    /// Images by variable, each with its role in the catalog; read as `${images.VARIABLE.ref}`.
    #[serde(default)]
    pub images: BTreeMap<String, String>,
    /// User names and passwords generated for each environment.
    #[serde(default)]
    pub credentials: Vec<Credential>,
    /// Buckets that devstack fills from files of the host.
    #[serde(default)]
    pub content: Vec<Content>,
    /// The objects.
    #[serde(default)]
    pub manifests: Vec<Manifest>,
    /// What must be ready before the component is.
    #[serde(default)]
    pub ready: Vec<ReadyFile>,
    /// What others may read as `${COMPONENT.NAME}`.
    #[serde(default)]
    pub outputs: BTreeMap<String, Value>,
    /// Memory it takes, such as `512Mi`.
    #[serde(default)]
    pub memory: Option<String>,
    /// Disk it takes besides its images, such as `1Gi`.
    #[serde(default)]
    pub disk: Option<String>,
    /// The Kubernetes versions it works on.
    #[serde(default)]
    pub kubernetes: Option<KubernetesRange>,
    /// Where its pods run in a cluster whose nodes differ in architecture or CPU level.
    #[serde(default)]
    pub placement: Placement,
}

/// Where pods run in a cluster whose nodes differ in architecture or CPU level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// On any node: only images are taken that run on all of them.
    #[default]
    Everywhere,
    /// On the nodes that the best image to be had runs on, by a required node affinity.
    Fitting,
}

/// Kubernetes versions, both ends included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesRange {
    /// The lowest, such as `1.25`.
    #[serde(default)]
    pub min: Option<String>,
    /// The highest.
    #[serde(default)]
    pub max: Option<String>,
}

impl KubernetesRange {
    /// Whether a version such as `1.34`, `v1.34.4` or `v1.34.4+k3s1` is in it, by its minor; `None` where one of them is
    /// no version.
    pub fn contains(&self, found: &str) -> Option<bool> {
        let found = version(found.split(['+', '-']).next()?)?;
        let above = self.min.as_deref().map_or(Some(true), |min| Some(version(min)? <= found))?;
        let below = self.max.as_deref().map_or(Some(true), |max| Some(found <= version(max)?))?;
        Some(above && below)
    }
}

impl fmt::Display for KubernetesRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.min, &self.max) {
            (None, None) => f.write_str("of any version"),
            (Some(min), None) => write!(f, "{min} or newer"),
            (None, Some(max)) => write!(f, "{max} or older"),
            (Some(min), Some(max)) if min == max => f.write_str(min),
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
        }
    }
}

/// One loop: a name and the list it goes through.
pub type Loop = BTreeMap<String, Value>;

/// A generated user name and password, read as `${credentials.NAME.username}` and `.password`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Its name.
    pub name: String,
    /// With `for`: the key of each pair, read as `${credentials.NAME.KEY.username}`.
    #[serde(default)]
    pub key: Option<String>,
    /// Loops, the later ones inside the earlier ones.
    #[serde(default, rename = "for")]
    pub loops: Vec<Loop>,
}

/// A bucket that devstack fills.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The bucket.
    pub bucket: String,
    /// The file or directory, from a parameter of type `path`.
    pub source: String,
    /// The credential to write with.
    pub credentials: String,
    /// Labels of the pods that serve S3.
    pub pods: BTreeMap<String, String>,
    /// The pods' port.
    pub port: u16,
    /// When it is filled.
    #[serde(default)]
    #[schemars(schema_with = "boolean_or_reference")]
    pub when: Option<Value>,
    /// Loops, the later ones inside the earlier ones.
    #[serde(default, rename = "for")]
    pub loops: Vec<Loop>,
}

/// A file of objects.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The file beside the component's.
    pub file: String,
    /// Waves are applied one after the other, objects of a wave at once.
    #[serde(default)]
    pub wave: u8,
    /// When it is applied.
    #[serde(default)]
    #[schemars(schema_with = "boolean_or_reference")]
    pub when: Option<Value>,
    /// Loops, the later ones inside the earlier ones; the file is applied once for each round.
    #[serde(default, rename = "for")]
    pub loops: Vec<Loop>,
}

/// Something to wait for; exactly one of the kinds.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReadyFile {
    /// A Deployment that is rolled out.
    #[serde(default)]
    pub deployment: Option<String>,
    /// A DaemonSet that is rolled out.
    #[serde(default)]
    pub daemonset: Option<String>,
    /// A StatefulSet that is rolled out.
    #[serde(default)]
    pub statefulset: Option<String>,
    /// A Job that is complete.
    #[serde(default)]
    pub job: Option<String>,
    /// A CustomResourceDefinition that is established.
    #[serde(default)]
    pub crd: Option<String>,
    /// A Service that has a LoadBalancer address.
    #[serde(default)]
    pub service_address: Option<String>,
    /// The namespace, the component's own when absent.
    #[serde(default)]
    pub namespace: Option<String>,
    /// When it is waited for.
    #[serde(default)]
    #[schemars(schema_with = "boolean_or_reference")]
    pub when: Option<Value>,
    /// Loops, the later ones inside the earlier ones.
    #[serde(default, rename = "for")]
    pub loops: Vec<Loop>,
}

fn integer_or_reference(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "\\$\\{.+\\}"}]})
}

fn boolean_or_reference(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": "\\$\\{.+\\}"}]})
}

/// The JSON Schema of profile files.
pub fn profile_schema() -> Value {
    schemars::schema_for!(ProfileFile).to_value()
}

/// The JSON Schema of component files.
pub fn component_schema() -> Value {
    schemars::schema_for!(ComponentFile).to_value()
}
