//! Steps: one change each. A closed set; what takes a change back is [`crate::journal::Undo`], which knows no steps.

mod addons;
mod claim;
mod cluster;
mod component;
mod content;
mod context;
mod error;
mod fixed;
mod hosts;
mod images;
mod jobs;
mod join;
mod labels;
mod late;
mod minikube;
mod network;
mod objects;
mod prune;
mod publish;
mod reach;
mod registry;
mod volumes;
mod world;

pub use addons::AddonsStep;
pub use claim::Claim;
pub(crate) use cluster::admin_kubeconfig;
pub use cluster::{ApiStep, ClusterStep, NodesStep};
pub use component::{ComponentStep, ReadyStep};
pub use content::{ContentStep, Secret};
pub use context::KubeContextStep;
pub use error::StepError;
pub use hosts::{HostsStep, LEFT_OUT};
pub use images::{LoadStep, NodeImageStep, ObtainStep};
pub use join::JoinStep;
pub use labels::LabelsStep;
pub use minikube::{MinikubeLoadStep, MinikubeStep};
pub(crate) use minikube::{explained as minikube_error, look as minikube_profile, own_file as minikube_kubeconfig};
pub use network::NetworkStep;
pub use prune::PruneStep;
pub use publish::PublishStep;
pub use reach::ReachStep;
pub use registry::RegistryStep;
pub use world::{World, reserved_name};

use serde_json::Value;

use crate::event::Action;
use crate::executor::Run;

/// What a step did.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Late values for later steps; an object whose keys are the step's own.
    pub outputs: Value,
    /// What a person is told, such as `1/1 Ready`.
    pub detail: String,
    /// Whether anything was changed.
    pub changed: bool,
}

/// What a step would do, found out without changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// What it would do.
    pub action: Action,
    /// To what, in one line.
    pub what: String,
    /// Why, where that is not obvious.
    pub why: Option<String>,
    /// Data that is lost by it, one line each.
    pub loses: Vec<String>,
}

impl Observed {
    /// An observation without a reason.
    pub fn new(action: Action, what: impl Into<String>) -> Self {
        Self { action, what: what.into(), why: None, loses: Vec::new() }
    }

    /// Adds the data that is lost.
    #[must_use]
    pub fn losing(mut self, loses: Vec<String>) -> Self {
        self.loses = loses;
        self
    }

    /// Adds the reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }
}

/// One change.
#[derive(Debug, Clone)]
pub enum Step {
    /// The environment's engine network.
    Network(NetworkStep),
    /// The node image, in the engine.
    NodeImage(NodeImageStep),
    /// The nodes: creates the cluster.
    Cluster(ClusterStep),
    /// Watches for the nodes of a cluster that is being made.
    Nodes(NodesStep),
    /// Watches for the API server of a cluster that is being made.
    Api(ApiStep),
    /// The pod network and the storage class of a kind cluster.
    Addons(AddonsStep),
    /// The nodes, and the way to their API server: minikube makes them.
    Minikube(MinikubeStep),
    /// Workload images, from the store into minikube's nodes.
    MinikubeLoad(MinikubeLoadStep),
    /// Labels of nodes.
    Labels(LabelsStep),
    /// Binds the environment to a cluster that is there.
    Join(Box<JoinStep>),
    /// Workload images, into devstack's store.
    Obtain(ObtainStep),
    /// Workload images, from the store into every node.
    Load(LoadStep),
    /// The environment's own registry, in a cluster that is there.
    Registry(RegistryStep),
    /// Workload images, from the store into a registry.
    Publish(PublishStep),
    /// A component's objects.
    Component(Box<ComponentStep>),
    /// What components of an earlier `up` made and nobody asks for any more.
    Prune(PruneStep),
    /// Waits until a component is ready.
    Ready(ReadyStep),
    /// Finds the way from this host to the ingress.
    Reach(ReachStep),
    /// Content, from the host into a bucket.
    Content(ContentStep),
    /// The context in the user's kubeconfig.
    KubeContext(KubeContextStep),
    /// The environment's block in the hosts file.
    Hosts(HostsStep),
}

impl Step {
    /// Whether the step first removes what is in its way, so that steps that watch it must not look before it says so
    /// ([`Run::begun`]): they would take the old for the new.
    pub fn clears(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Makes the change, or finds that there is none to make.
    ///
    /// # Errors
    /// See [`StepError`]; what was begun is in the journal.
    pub async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        match self {
            Self::Network(step) => step.apply(run, id).await,
            Self::NodeImage(step) => step.apply(run, id).await,
            Self::Cluster(step) => step.apply(run, id).await,
            Self::Nodes(step) => step.apply(run, id).await,
            Self::Api(step) => step.apply(run, id).await,
            Self::Addons(step) => step.apply(run, id).await,
            Self::Minikube(step) => step.apply(run, id).await,
            Self::MinikubeLoad(step) => step.apply(run, id).await,
            Self::Labels(step) => step.apply(run, id).await,
            Self::Join(step) => step.apply(run).await,
            Self::Obtain(step) => step.apply(run, id).await,
            Self::Registry(step) => step.apply(run, id).await,
            Self::Publish(step) => step.apply(run, id).await,
            Self::Reach(step) => step.apply(run, id).await,
            Self::Load(step) => step.apply(run, id).await,
            Self::Component(step) => step.apply(run, id).await,
            Self::Prune(step) => step.apply(run).await,
            Self::Ready(step) => step.apply(run, id).await,
            Self::Content(step) => step.apply(run, id).await,
            Self::KubeContext(step) => step.apply(run, id),
            Self::Hosts(step) => step.apply(run, id).await,
        }
    }

    /// Finds out what [`Step::apply`] would do, changing nothing. `None` for steps that only watch.
    ///
    /// # Errors
    /// See [`StepError`].
    pub async fn observe(&self, world: &World) -> Result<Option<Observed>, StepError> {
        Ok(match self {
            Self::Network(step) => Some(step.observe(world).await?),
            Self::NodeImage(step) => Some(step.observe(world).await?),
            Self::Cluster(step) => Some(step.observe(world).await?),
            Self::Addons(step) => Some(step.observe(world).await?),
            Self::Minikube(step) => Some(step.observe(world).await?),
            Self::MinikubeLoad(step) => Some(step.observe(world).await?),
            Self::Labels(step) => Some(step.observe(world).await?),
            Self::Join(step) => Some(step.observe(world)),
            Self::Load(step) => Some(step.observe(world).await?),
            Self::Registry(step) => Some(step.observe(world).await?),
            Self::Publish(step) => Some(step.observe(world).await?),
            Self::Component(step) => Some(step.observe(world).await?),
            Self::Prune(step) => Some(step.observe(world).await?),
            Self::Content(step) => Some(step.observe(world)),
            Self::KubeContext(step) => Some(step.observe(world)?),
            Self::Hosts(step) => Some(step.observe(world).await?),
            Self::Nodes(_) | Self::Api(_) | Self::Obtain(_) | Self::Ready(_) | Self::Reach(_) => None,
        })
    }
}
