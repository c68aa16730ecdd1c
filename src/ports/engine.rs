//! The container engine: Docker and what speaks its API.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use serde::{Deserialize, Serialize};

use crate::error::{Advise, ExitCode};

/// The label on everything that devstack makes in an engine; its value is the environment's name.
pub const OWNER_LABEL: &str = "dev.devstack.environment";

/// The label that kind puts on its node containers; its value is the cluster's name.
pub const KIND_CLUSTER_LABEL: &str = "io.x-k8s.kind.cluster";

/// How a registry is logged in to.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password or access token.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that is exchanged for others.
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Login({user:?}, secret)"),
            Self::Identity(_) => f.write_str("Login(secret)"),
        }
    }
}

/// Bytes on their way, such as an image archive.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Which engine it is. Part of the journal: fields are only ever added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineIdentity {
    /// Its address, with the links of a socket's path followed.
    pub endpoint: String,
    /// Its own id; empty where it has none. It stays as long as the containers do, but Podman makes a new one up for
    /// every answer, so that only the same one tells something.
    #[serde(default)]
    pub id: String,
}

impl EngineIdentity {
    /// Whether both are one engine, as far as can be told: it may have two addresses, and a new id after it was set up
    /// anew.
    pub fn is(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint || (!self.id.is_empty() && self.id == other.id)
    }
}

/// What an engine says of itself (`GET /info` and `/version`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineInfo {
    /// `GET /info` `Name`, the engine's host name.
    pub name: String,
    /// `OperatingSystem`, such as `Docker Desktop` or `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// `OSType`: `linux`, or `windows` for Windows containers.
    pub os_type: String,
    /// `Architecture` as the kernel writes it: `x86_64`, `aarch64`.
    pub architecture: String,
    /// `KernelVersion`.
    pub kernel: String,
    /// `ServerVersion`.
    pub version: String,
    /// The API version in use after negotiation, such as `1.41`.
    pub api_version: String,
    /// Names of `/version` `Components`.
    pub components: Vec<String>,
    /// `SecurityOptions`.
    pub security_options: Vec<String>,
    /// `CgroupVersion`: `1` or `2`.
    pub cgroup_version: String,
    /// Number of CPUs.
    pub cpus: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// `DockerRootDir`.
    pub root_dir: String,
    /// Storage `Driver`, such as `overlay2`; the containerd image store says `overlayfs`.
    pub storage_driver: String,
    /// Whether images live in containerd's store (`DriverStatus` names its snapshotter).
    pub containerd_image_store: bool,
    /// Address that the client talks to, such as `unix:///var/run/docker.sock`.
    pub endpoint: String,
    /// Which engine it is; no fact of a machine, so that it is left out of those.
    #[serde(skip)]
    pub identity: EngineIdentity,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The full id.
    pub id: String,
    /// The name, without the leading slash.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `exited`, …
    pub state: String,
    /// The image it was made from, as it was named.
    pub image: String,
    /// Network name → IPv4 or IPv6 address.
    pub addresses: BTreeMap<String, IpAddr>,
    /// Published ports: (container port, host address, host port).
    pub ports: Vec<(u16, String, u16)>,
    /// Names of its volumes.
    pub volumes: Vec<String>,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The full id.
    pub id: String,
    /// The name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Subnets in CIDR notation, IPv4 first.
    pub subnets: Vec<String>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// The name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// An image in the engine's own store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineImage {
    /// The image id (`sha256:…`): the digest of its configuration, or with the containerd image store the digest of
    /// its manifest or index.
    pub id: String,
    /// The platforms that the engine has it for (`linux/amd64`): several at most with the containerd image store, and none
    /// where it knows the name and an index, and has no content.
    pub platforms: Vec<String>,
    /// Size in bytes.
    pub size: u64,
    /// Digests it was pulled by (`name@sha256:…`); with the containerd image store also of what was loaded or built.
    pub repo_digests: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a container shall be; the few fields that devstack needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The name.
    pub name: String,
    /// The image reference or id.
    pub image: String,
    /// The entrypoint; the image's own when empty.
    pub entrypoint: Vec<String>,
    /// The arguments; the image's own when empty.
    pub command: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `HostConfig.SecurityOpt`, such as `seccomp=unconfined`.
    pub security_options: Vec<String>,
    /// The network; the engine's default when `None`.
    pub network: Option<String>,
    /// `HOST:CONTAINER[:ro]` mounts.
    pub binds: Vec<String>,
    /// Paths on a tmpfs.
    pub tmpfs: Vec<String>,
    /// Whether the engine removes it when it ends.
    pub auto_remove: bool,
}

/// What `commit` writes into the new image's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitSpec {
    /// `repository:tag` of the new image.
    pub reference: String,
    /// Entrypoint.
    pub entrypoint: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that stops it.
    pub stop_signal: Option<String>,
}

/// What a command in a container did. A status other than 0 is not an error of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// The exit status.
    pub status: i64,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl ExecOutput {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// What went wrong between devstack and the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Nothing answers at the engine's address.
    #[error("no container engine answers at {endpoint}: {reason}")]
    NotRunning {
        /// The address.
        endpoint: String,
        /// What the attempt said.
        reason: String,
    },
    /// The engine is there, and this account may not use it.
    #[error("this account may not use the container engine at {endpoint}")]
    Permission {
        /// The address.
        endpoint: String,
    },
    /// The engine's address cannot be used.
    #[error("the engine's address {endpoint} cannot be used: {reason}")]
    Address {
        /// The address.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// It is not the engine that the environment's cluster is in.
    #[error("the environment's cluster is in the engine at {made_in}, and the one at {endpoint} has nothing of it")]
    Another {
        /// The address of the engine in use.
        endpoint: String,
        /// The address of the environment's own.
        made_in: String,
    },
    /// The thing is not there.
    #[error("{what}: not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// The thing is there already, or in use.
    #[error("{what}: {reason}")]
    Conflict {
        /// What was asked for.
        what: String,
        /// The engine's words.
        reason: String,
    },
    /// Anything else that the engine said.
    #[error("{what}: {reason}")]
    Other {
        /// What was asked for.
        what: String,
        /// The engine's words.
        reason: String,
    },
}

impl Advise for EngineError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { .. } => {
                Some("start the container engine (Docker Desktop, `colima start`, `sudo systemctl start docker`), then run the same command again".to_owned())
            }
            Self::Permission { .. } => Some("sudo usermod -aG docker \"$USER\", then log in again".to_owned()),
            Self::Address { .. } => Some("check DOCKER_HOST and `docker context ls`".to_owned()),
            Self::Another { made_in, .. } => Some(format!(
                "nothing was changed; `docker context use` the environment's own, or run the same command with \
                 DOCKER_HOST={made_in}; where that engine is gone for good: devstack down --forget-cluster"
            )),
            Self::NotFound { .. } | Self::Conflict { .. } | Self::Other { .. } => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Permission { .. } => ExitCode::Consent,
            _ => ExitCode::Failed,
        }
    }
}

/// A container engine.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What the engine says of itself.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// All containers, running or not, that carry the label; every container when `label` is `None`.
    /// The label is `NAME` or `NAME=value`.
    async fn containers(&self, label: Option<&str>) -> Result<Vec<Container>, EngineError>;
    /// Makes a container without starting it and gives its id.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError>;
    /// Starts a container; one that runs already is no error.
    async fn start_container(&self, id: &str) -> Result<(), EngineError>;
    /// When a container was last started, in RFC 3339 to the second, UTC, by the engine's clock; `None` of one that never
    /// was.
    async fn started(&self, id: &str) -> Result<Option<String>, EngineError>;
    /// Stops a container, killing it after `grace` seconds.
    async fn stop_container(&self, id: &str, grace: u32) -> Result<(), EngineError>;
    /// Freezes a container.
    async fn pause_container(&self, id: &str) -> Result<(), EngineError>;
    /// Thaws a container.
    async fn unpause_container(&self, id: &str) -> Result<(), EngineError>;
    /// Removes a container and its anonymous volumes, running or not; a missing one is no error.
    async fn remove_container(&self, id: &str) -> Result<(), EngineError>;
    /// Runs a command in a running container, feeding `stdin` where given.
    async fn exec(&self, id: &str, argv: &[&str], stdin: Option<ByteStream>) -> Result<ExecOutput, EngineError>;
    /// Unpacks a tar stream below `path` in a container.
    async fn upload(&self, id: &str, path: &str, tar: ByteStream) -> Result<(), EngineError>;
    /// Makes an image of a container's file system.
    async fn commit(&self, id: &str, spec: &CommitSpec) -> Result<String, EngineError>;

    /// All networks that carry the label (`NAME` or `NAME=value`); every network when `None`.
    async fn networks(&self, label: Option<&str>) -> Result<Vec<Network>, EngineError>;
    /// Makes a bridge network as kind does (IPv6 off, masquerading on) with the given labels.
    async fn create_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Network, EngineError>;
    /// Removes a network; a missing one is no error.
    async fn remove_network(&self, name: &str) -> Result<(), EngineError>;

    /// All volumes that carry the label; every volume when `None`.
    async fn volumes(&self, label: Option<&str>) -> Result<Vec<Volume>, EngineError>;
    /// Removes a volume; a missing one is no error.
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError>;

    /// An image of the engine's store by reference, digest or id; `None` where it is not there.
    async fn image(&self, reference: &str) -> Result<Option<EngineImage>, EngineError>;
    /// References (`repository:tag`) of all images that carry the label.
    async fn images(&self, label: &str) -> Result<Vec<String>, EngineError>;
    /// Loads a `docker save` archive.
    async fn load_image(&self, archive: ByteStream) -> Result<(), EngineError>;
    /// An image as a `docker save` archive: of one platform (`linux/amd64`) where the engine can tell them apart, else
    /// of what it has.
    fn save_image(&self, reference: &str, platform: &str) -> ByteStream;
    /// Pulls an image for a platform (`linux/amd64`), with the user's login for its registry where there is one; `progress`
    /// gets (bytes done, bytes in all).
    async fn pull_image(
        &self,
        reference: &str,
        platform: &str,
        login: Option<&Login>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), EngineError>;
    /// Gives an image of the engine's store one more name (`repository:tag`), which it takes from another.
    async fn tag_image(&self, reference: &str, name: &str) -> Result<(), EngineError>;
    /// Removes an image; a missing one is no error.
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError>;
}
