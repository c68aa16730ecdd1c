//! `devstack status`: what is there, with truth from probes.

use serde::Serialize;
use serde_json::Value;

use crate::access::verify::{self, Endpoint};
use crate::check;
use crate::cluster::{Provider, guard};
use crate::context::Context;
use crate::error::Failure;
use crate::journal::Journal;
use crate::kube::ready::is_ready;
use crate::ports::engine::OWNER_LABEL;
use crate::step::World;
use crate::up;

/// How an environment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing of it is there.
    Absent,
    /// An `up` has not finished.
    Creating,
    /// Everything keeps its promise.
    Ready,
    /// Something does not.
    Degraded,
    /// Frozen.
    Paused,
}

impl State {
    /// The state's public name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
        }
    }
}

/// A node of the environment.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// The state of its container; the provider of a node that is none of the engine's.
    pub state: String,
    /// Whether Kubernetes calls it ready; absent where nobody could be asked.
    pub ready: Option<bool>,
}

/// A component of the environment.
#[derive(Debug, Clone, Serialize)]
pub struct ComponentStatus {
    /// Its name.
    pub name: String,
    /// Pods that are ready.
    pub ready: usize,
    /// Pods that should be.
    pub pods: usize,
}

/// An environment as it is. The JSON form is public.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its name.
    pub environment: String,
    /// How it is.
    pub state: State,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// Its components.
    pub components: Vec<ComponentStatus>,
    /// What its URLs do.
    pub endpoints: Vec<Endpoint>,
    /// Its forwards.
    pub forwards: Vec<Value>,
    /// What is no longer as `up` left it, and what the next one brings back; a line each.
    pub drift: Vec<String>,
}

/// Looks at an environment.
///
/// # Errors
/// Where the engine or the state directory cannot be asked.
pub async fn status(ctx: &Context, environment: &str) -> Result<Status, Failure> {
    let world = World::real(ctx, environment);
    let journal = Journal::open(&world.dir, ctx.fs.clone())?;
    let containers = world.nodes().await?;
    guard::at_home(&world, &containers).await?;
    let paused = !containers.is_empty() && containers.iter().all(|node| node.state == "paused");
    let told_by_server = world.provider != Provider::Kind;
    let connected = !paused && (told_by_server || !containers.is_empty()) && {
        guard::meet(&world).await?;
        world.kube().is_ok()
    };
    let mut objects = Vec::new();
    let mut pods = Vec::new();
    if connected {
        let kube = world.kube()?;
        let own = format!("{OWNER_LABEL}={environment},dev.devstack.component");
        let (found_nodes, found_pods) =
            tokio::join!(kube.list("v1", "Node", None, ""), kube.list("v1", "Pod", None, &own));
        objects = found_nodes.unwrap_or_default();
        pods = check::without_over(&*kube, found_pods.unwrap_or_default(), &own).await;
    }
    let name = |node: &Value| node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let found = objects.iter().filter(|_| told_by_server);
    let found = found.map(|node| NodeStatus {
        name: name(node),
        state: world.provider.to_string(),
        ready: Some(is_ready(node)),
    });
    let nodes: Vec<NodeStatus> = containers
        .iter()
        .map(|container| NodeStatus {
            name: container.name.clone(),
            state: container.state.clone(),
            ready: objects.iter().find(|node| node["metadata"]["name"] == *container.name).map(is_ready),
        })
        .chain(found)
        .collect();
    let promises = verify::recorded(ctx, &world.dir);
    let (endpoints, drift) = if paused {
        (Vec::new(), Vec::new())
    } else {
        let shown = promises.iter().filter(|promise| promise.shown);
        let kube = world.kube().ok();
        let fetched = futures::future::join_all(shown.map(|promise| verify::fetch(ctx, kube.as_deref(), promise)));
        tokio::join!(fetched, drifted(ctx, environment))
    };
    let components = components(&pods);
    let whole = connected
        && nodes.iter().all(|node| node.ready == Some(true))
        && endpoints.iter().all(|endpoint| endpoint.ok)
        && drift.is_empty()
        && components.iter().all(|component| component.ready == component.pods);
    let state = match (journal.is_empty() && nodes.is_empty(), paused, journal.is_ready()) {
        (true, ..) => State::Absent,
        (_, true, _) => State::Paused,
        (_, _, false) => State::Creating,
        (_, _, true) if whole => State::Ready,
        _ => State::Degraded,
    };
    Ok(Status { environment: environment.to_owned(), state, nodes, components, endpoints, forwards: Vec::new(), drift })
}

/// What differs, or why that cannot be told.
async fn drifted(ctx: &Context, environment: &str) -> Vec<String> {
    match up::drift(ctx, environment).await {
        Ok(changes) => changes.iter().map(up::told).collect(),
        Err(failure) => vec![format!("what differs cannot be told: {}", failure.message)],
    }
}

/// Pods by component; those of finished jobs are done and count for nothing.
fn components(pods: &[Value]) -> Vec<ComponentStatus> {
    let mut components: Vec<ComponentStatus> = Vec::new();
    for pod in pods.iter().filter(|pod| pod["status"]["phase"] != "Succeeded") {
        let name = pod["metadata"]["labels"]["dev.devstack.component"].as_str().unwrap_or_default();
        let at = components.iter().position(|component| component.name == name).unwrap_or_else(|| {
            components.push(ComponentStatus { name: name.to_owned(), ready: 0, pods: 0 });
            components.len() - 1
        });
        components[at].pods += 1;
        components[at].ready += usize::from(is_ready(pod));
    }
    components.sort_by(|one, other| one.name.cmp(&other.name));
    components
}
