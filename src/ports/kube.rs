//! A Kubernetes API server.

use async_trait::async_trait;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::Advise;

/// The field manager of everything devstack applies.
pub const FIELD_MANAGER: &str = "devstack";

/// The label of objects in a cluster that others use too: the instance of the environment that made them.
pub const INSTANCE_LABEL: &str = "dev.devstack.instance";

/// Names an object: what `kubectl get KIND.VERSION.GROUP -n NAMESPACE NAME` would.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ObjectKey {
    /// `v1`, `apps/v1`, …
    #[serde(rename = "apiVersion")]
    pub api_version: String,
    /// `Deployment`, …
    pub kind: String,
    /// `None` for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// The key of a manifest; `None` where it lacks a version, kind or name.
    pub fn of(object: &Value) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            api_version: text("/apiVersion")?,
            kind: text("/kind")?,
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name")?,
        })
    }

    /// What names the object whatever version it is asked for in: group, kind, namespace and name.
    pub fn identity(&self) -> (&str, &str, Option<&str>, &str) {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        (group, &self.kind, self.namespace.as_deref(), &self.name)
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What went wrong between devstack and the API server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeError {
    /// The server cannot be reached, or stopped answering.
    #[error("the Kubernetes API server at {server} does not answer: {reason}")]
    Unreachable {
        /// The server's URL.
        server: String,
        /// What the attempt said.
        reason: String,
    },
    /// The server refused the request.
    #[error("{what}: {reason} ({code})")]
    Refused {
        /// What was asked for.
        what: String,
        /// HTTP status.
        code: u16,
        /// The server's words.
        reason: String,
    },
    /// The server knows no such kind (its CRD is not there yet).
    #[error("{what}: the server has no kind {kind}")]
    UnknownKind {
        /// What was asked for.
        what: String,
        /// `apiVersion/Kind`.
        kind: String,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {reason}")]
    Config {
        /// Why.
        reason: String,
    },
    /// The proxy that the kubeconfig or the environment names cannot be used.
    #[error("the proxy to the cluster cannot be used: {reason}")]
    Proxy {
        /// Why.
        reason: String,
    },
    /// It is not the cluster that the environment is bound to.
    #[error("another cluster answers than the environment's own: {found} instead of {expected}")]
    OtherCluster {
        /// The cluster that answers.
        found: String,
        /// The cluster that the environment is bound to.
        expected: String,
    },
    /// Anything else.
    #[error("{what}: {reason}")]
    Other {
        /// What was asked for.
        what: String,
        /// Why.
        reason: String,
    },
}

impl KubeError {
    /// Whether asking again later can help: the server is starting, a webhook or a CRD is not ready yet.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::UnknownKind { .. } => true,
            Self::Refused { code, reason, .. } => {
                matches!(code, 429 | 500 | 502 | 503 | 504)
                    || (*code == 409 && !reason.contains("conflict"))
                    || reason.contains("failed calling webhook")
                    // An object can arrive before its namespace.
                    || (*code == 404 && reason.starts_with("namespaces "))
            }
            Self::Config { .. } | Self::Proxy { .. } | Self::OtherCluster { .. } | Self::Other { .. } => false,
        }
    }
}

impl Advise for KubeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { .. } => Some("devstack doctor".to_owned()),
            Self::Proxy { .. } => Some(
                "correct HTTPS_PROXY and NO_PROXY (a list of names and addresses without empty entries), or the \
                 kubeconfig's proxy-url"
                    .to_owned(),
            ),
            Self::OtherCluster { .. } => Some(
                "nothing was changed; use another --env for that one, or point back at the environment's own (a cluster \
                 of kind's that took its name: `kind delete cluster`); where one that devstack did not make is gone \
                 for good: devstack down --forget-cluster"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// A two-way byte stream to a port of a pod.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A Kubernetes API server. Objects are JSON as the API has them.
#[async_trait]
pub trait Kube: Send + Sync {
    /// The server's URL.
    fn server(&self) -> String;
    /// The server's version, such as `v1.34.4`; also the cheapest proof that it answers.
    async fn version(&self) -> Result<String, KubeError>;
    /// Server-side apply with force, as [`FIELD_MANAGER`]; gives the object as stored.
    async fn apply(&self, object: &Value) -> Result<Value, KubeError>;
    /// Server-side apply as a dry run: what [`Kube::apply`] would store.
    async fn apply_dry_run(&self, object: &Value) -> Result<Value, KubeError>;
    /// One object, or `None`.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, KubeError>;
    /// Objects of a kind; all namespaces when `namespace` is `None`; `selector` is a label selector or empty.
    /// An unknown kind gives an empty list.
    async fn list(
        &self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, KubeError>;
    /// Deletes with foreground propagation; a missing object is no error. With a UID, only the object that has it:
    /// another of that name is left alone, and that is no error either.
    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), KubeError>;
    /// The last `lines` lines of a container's log; of its previous run when `previous`.
    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: i64,
        previous: bool,
    ) -> Result<String, KubeError>;
    /// Opens a connection to a port of a pod.
    async fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> Result<Box<dyn Duplex>, KubeError>;
}
