//! Names of steps that devstack's own plans and records have. A component gives its name to a step of the plan, so that
//! none may be called like one of these.

macro_rules! step_ids {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)*) => {
        $($(#[$doc])* pub const $name: &str = $id;)*
        /// All of them.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

step_ids! {
    /// The engine network.
    NETWORK = "network",
    /// The node image in the engine.
    NODE_IMAGE = "node-image",
    /// The cluster.
    CLUSTER = "cluster",
    /// Nodes that take images.
    NODES = "nodes",
    /// The API server.
    API = "api",
    /// The pod network and the storage class.
    ADDONS = "addons",
    /// Labels of nodes.
    NODE_LABELS = "node-labels",
    /// Workload images in the store.
    IMAGES = "images",
    /// Workload images in the nodes.
    LOAD = "load",
    /// The context in the user's kubeconfig.
    CONTEXT = "kube-context",
    /// The hosts file.
    HOSTS = "hosts",
    /// What components that are no more asked for have left.
    PRUNE = "prune",
    /// Every component at once.
    READY = "ready",
    /// The binding to a cluster that is there.
    JOIN = "join",
    /// The environment's own registry in a cluster that is there.
    REGISTRY = "registry",
    /// Workload images in a registry.
    PUBLISH = "publish",
    /// The way to the ingress of a cluster that is there.
    REACH = "reach",
    /// What `down` reports of itself.
    DOWN = "down",
    /// Cures, in the journal.
    DOCTOR = "doctor",
    /// What `down` takes back by its name alone, and nothing recorded.
    RESERVED = "reserved",
}

/// The step that fills a bucket. A component's name has no dot, so that this, [`applied`] and
/// [`ready`] are no component's.
pub fn content(bucket: &str) -> String {
    format!("content.{bucket}")
}

/// Under this the journal has the keys of what a component made.
pub fn applied(component: &str) -> String {
    format!("{APPLIED}{component}")
}

/// The component whose keys the journal has under this id.
pub fn applied_by(id: &str) -> Option<&str> {
    id.strip_prefix(APPLIED)
}

const APPLIED: &str = "applied.";

/// The step that waits for a component.
pub fn ready(component: &str) -> String {
    format!("{component}.ready")
}
