//! The cluster itself, and the two moments in its making that other steps wait for: nodes that take images, and an API
//! server that takes objects. Both come long before the provider is done.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::json;

use crate::cluster::bridge;
use crate::cluster::guard::Identity;
use crate::cluster::kind::{self, KindSpec};
use crate::event::Action;
use crate::executor::Run;
use crate::journal::Undo;
use crate::ports::engine::{Container, EngineError};
use crate::ports::kube::KubeError;
use crate::ports::runner::Stream;
use crate::step::prune::volumes;
use crate::step::{Applied, Observed, StepError, World};

/// How often a starting cluster is looked at.
const POLL: Duration = Duration::from_millis(150);

/// How long nodes and API server may take where `--timeout` says nothing.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is lost with a cluster, besides the volumes that it names.
const ALL: &str = "everything in the cluster";

/// Creates the cluster, or starts what of it has stopped.
#[derive(Debug, Clone)]
pub struct ClusterStep {
    /// What kind is asked for.
    pub spec: KindSpec,
    /// The step that brings the node image into the engine and says under which name.
    pub node_image: String,
    /// Whether an earlier `up` recorded the cluster as complete.
    pub complete: bool,
    /// Whether an earlier `up` recorded that it begins to make it. One that is there and was begun here and not
    /// completed is half-made; one that was not may be another account's, or that of a lost state directory.
    pub begun: bool,
    /// The addresses that nodes had when they were last seen to run, by name. What a node had bound or made known it
    /// finds again where it gets the same.
    pub addresses: BTreeMap<String, IpAddr>,
    /// The node image that it was made of, where that is known.
    pub made_of: Option<String>,
    /// When nodes had been started at the end of the last `up` that was ready, by name.
    pub started: BTreeMap<String, String>,
}

/// How much of a cluster is there.
enum There {
    Nothing,
    Part(Vec<Container>),
    /// All of it, made of another node image than the one that is asked for now.
    Other(Vec<Container>),
    Stopped(Vec<Container>),
    Running,
}

impl ClusterStep {
    async fn look(&self, world: &World) -> Result<There, EngineError> {
        let nodes = world.nodes().await?;
        let wanted = usize::from(self.spec.nodes);
        Ok(match nodes.len() {
            0 => There::Nothing,
            _ if self.complete && self.made_of.as_ref().is_some_and(|image| *image != self.spec.image) => {
                There::Other(nodes)
            }
            found if !self.complete || found != wanted => There::Part(nodes),
            _ if nodes.iter().all(|node| node.state == "running") => There::Running,
            _ => There::Stopped(nodes),
        })
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let nodes = if self.spec.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", self.spec.nodes) };
        let what = format!("kind cluster {}, {nodes}", self.spec.name);
        let there = self.look(world).await?;
        // An unfinished creation has nothing that anybody relies on.
        let loses = match &there {
            There::Part(_) | There::Other(_) if self.complete || !self.begun => {
                let volumes = match world.kube() {
                    Ok(kube) => volumes(&*kube).await.unwrap_or_default(),
                    Err(_) => Vec::new(),
                };
                std::iter::once(ALL.to_owned()).chain(volumes).collect()
            }
            _ => Vec::new(),
        };
        let observed = match there {
            There::Nothing if self.complete => {
                Observed::new(Action::Create, what).because("it was there and is gone: somebody removed its nodes")
            }
            There::Nothing => Observed::new(Action::Create, what),
            There::Part(found) if self.complete => {
                let (found, had, wanted) = (found.len(), self.addresses.len(), usize::from(self.spec.nodes));
                let why = if had == 0 || had == wanted {
                    format!("{found} of {wanted} nodes are there: it is created anew")
                } else {
                    format!("it was made of {had} nodes and {wanted} are asked for: it is created anew")
                };
                Observed::new(Action::Repair, what).because(why)
            }
            There::Other(_) => Observed::new(Action::Repair, what).because(format!(
                "its nodes are {}, {} is wanted: it is created anew",
                self.made_of.as_deref().unwrap_or_default(),
                self.spec.image
            )),
            There::Part(_) if !self.begun => Observed::new(Action::Repair, what)
                .because("it is there, and the state directory knows nothing of it: it is created anew"),
            There::Part(_) => {
                Observed::new(Action::Repair, what).because("an earlier creation did not finish: it is created anew")
            }
            There::Stopped(nodes) => {
                let stopped: Vec<&str> =
                    nodes.iter().filter(|node| node.state != "running").map(|node| node.name.as_str()).collect();
                Observed::new(Action::Repair, what).because(format!("not running: {}", stopped.join(", ")))
            }
            There::Running => Observed::new(Action::Leave, what),
        };
        Ok(observed.losing(loses))
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let world = run.world;
        let there = self.look(world).await?;
        if let There::Part(nodes) | There::Other(nodes) = &there {
            run.waiting(id, "removing the nodes that are there");
            // The record of its making covers its removal too. Another one would make it look half-made to the `up` after
            // a kill, before anything of it was removed.
            if !self.complete {
                self.intend(run, id)?;
            }
            try_join_all(nodes.iter().map(|node| world.engine.remove_container(&node.id))).await?;
            self.intend(run, id)?;
        }
        run.begun(id);
        let made = !matches!(there, There::Running | There::Stopped(_));
        let changed = match there {
            There::Running => false,
            There::Stopped(nodes) => {
                for node in &self.in_turn(nodes) {
                    match node.state.as_str() {
                        "running" => {}
                        "paused" => world.engine.unpause_container(&node.id).await?,
                        _ => world.engine.start_container(&node.id).await?,
                    }
                }
                true
            }
            There::Part(_) | There::Other(_) => {
                self.create(run, id).await?;
                true
            }
            There::Nothing => {
                self.intend(run, id)?;
                self.create(run, id).await?;
                true
            }
        };
        let found = world.nodes().await?;
        let running = found.iter().filter(|node| node.state == "running").count();
        if running != usize::from(self.spec.nodes) {
            return Err(StepError::message(format!(
                "kind ended well, but {running} of {} nodes of {} run",
                self.spec.nodes, self.spec.name
            )));
        }
        let started = found.iter().map(|node| async { Ok((&*node.name, world.engine.started(&node.id).await?)) });
        let started: BTreeMap<&str, Option<String>> =
            try_join_all(started).await.map_err(|error: EngineError| StepError::from(error))?.into_iter().collect();
        let again = |name: &str, time: &Option<String>| !made && self.started.get(name) != time.as_ref();
        let restarted: BTreeMap<_, _> = started.iter().filter(|(name, time)| again(name, time)).collect();
        let names: Vec<&str> = found.iter().map(|node| node.name.as_str()).collect();
        let addresses: BTreeMap<&str, &IpAddr> =
            found.iter().filter_map(|node| Some((node.name.as_str(), node.addresses.values().next()?))).collect();
        Ok(Applied {
            detail: format!("{running}/{} nodes", self.spec.nodes),
            outputs: json!({"name": self.spec.name, "nodes": names, "addresses": addresses, "image": self.spec.image, "started": started, "restarted": restarted}),
            changed,
        })
    }

    /// Nodes in the order in which each gets the address again that it had: the engine gives the lowest free one to
    /// whoever comes first.
    fn in_turn(&self, mut nodes: Vec<Container>) -> Vec<Container> {
        nodes.sort_by_key(|node| self.addresses.get(&node.name));
        nodes
    }

    fn intend(&self, run: &Run<'_>, id: &str) -> Result<(), StepError> {
        Ok(run.intend(id, vec![Undo::KindCluster { name: self.spec.name.clone() }])?)
    }

    async fn create(&self, run: &Run<'_>, id: &str) -> Result<(), StepError> {
        let world = run.world;
        let endpoint = world.engine.info().await?.endpoint;
        let kind = match kind::on_path(&*world.runner, world.ctx.vars.get("PATH")).await {
            Some(kind) => kind,
            None => crate::build::tool(&world.ctx, world.runner.clone(), "kind", id)
                .await
                .map_err(|error| StepError::of(&error))?,
        };
        let image = run.output(&self.node_image)["reference"].as_str().map_or(self.spec.image.clone(), str::to_owned);
        let spec = KindSpec { image, ..self.spec.clone() };
        let config = world.dir.join("kind.json");
        let text =
            serde_json::to_vec_pretty(&spec.config()).map_err(|error| StepError::writing(&config)(error.into()))?;
        world.ctx.fs.write(&config, &text, 0o600).map_err(StepError::writing(&config))?;
        if let Some(blobs) = &spec.blobs {
            world.ctx.fs.create_dir(blobs).map_err(StepError::writing(blobs))?;
        }
        let cmd = spec.create(&kind, &config, &world.dir.join("kubeconfig.kind"), &endpoint);
        world
            .runner
            .stream(&cmd, &|stream, line| {
                // kind reports its phases as ` • Writing configuration 📜  ...` where it has no terminal.
                if stream == Stream::Stderr
                    && let Some(phase) = line.trim().strip_prefix('•')
                {
                    let phase: String = phase.chars().filter(char::is_ascii).collect();
                    run.waiting(id, format!("kind: {}", phase.trim().trim_end_matches(['.', ' ']).to_lowercase()));
                }
            })
            .await?;
        Ok(())
    }
}

/// Watches until every node's container runtime answers, and gives pods an early way to the API server.
#[derive(Debug, Clone)]
pub struct NodesStep {
    /// The step that creates the cluster.
    pub cluster: String,
    /// How many nodes there will be.
    pub nodes: u8,
}

impl NodesStep {
    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let wanted = usize::from(self.nodes);
        let nodes = poll(run, id, &self.cluster, "nodes that take images", async || {
            let nodes = run.world.nodes().await.map_err(|error| error.to_string())?;
            let running = nodes.iter().filter(|node| node.state == "running").count();
            if running < wanted || nodes.len() != wanted {
                return Err(format!("{running} of {wanted} nodes run"));
            }
            if run.settled {
                // They were asked for their images a moment ago.
                return Ok(nodes);
            }
            let answers = nodes.iter().map(|node| run.world.engine.exec(&node.id, &["ctr", "version"], None));
            match try_join_all(answers).await {
                Ok(answers) if answers.iter().all(|answer| answer.status == 0) => Ok(nodes),
                Ok(_) => Err("containerd is starting".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        if !run.settled {
            let world = run.world;
            bridge::build(&*world.engine, &nodes, &world.control_plane()).await?;
        }
        let nodes: Vec<_> = nodes.iter().map(|node| json!({"name": node.name, "id": node.id})).collect();
        Ok(Applied { detail: format!("{wanted}/{wanted}"), outputs: json!(nodes), changed: false })
    }
}

/// Watches until the API server answers, and writes devstack's kubeconfig for it.
#[derive(Debug, Clone)]
pub struct ApiStep {
    /// The step that creates the cluster.
    pub cluster: String,
}

impl ApiStep {
    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let world = run.world;
        if run.settled && world.kube().is_ok() {
            // The plan was made with the recorded kubeconfig.
            return bound(run, false).await;
        }
        let path = world.kubeconfig();
        let mut early = None;
        let written = poll(run, id, &self.cluster, "the API server", async || {
            if early.is_none() {
                early = self.early(run).await;
            }
            let (admin, text) = match early.clone() {
                Some(both) => both,
                None => {
                    let admin = admin_kubeconfig(world).await?;
                    (admin.clone(), admin)
                }
            };
            match world.connect(&text).await {
                Ok(()) => {}
                // Waiting does not make it the right one, nor a proxy one that works.
                Err(error @ (KubeError::OtherCluster { .. } | KubeError::Proxy { .. })) => return Ok(Err(error)),
                Err(error) => return Err(starting(&error)),
            }
            let known = world.ctx.fs.read(&path).map_err(|error| error.to_string())?;
            if known.as_deref() == Some(admin.as_bytes()) {
                return Ok(Ok(false));
            }
            world.ctx.fs.write(&path, admin.as_bytes(), 0o600).map_err(|error| error.to_string())?;
            Ok(Ok(true))
        })
        .await??;
        bound(run, written).await
    }

    /// The kubeconfig that stays and the one that this run connects with, while the cluster is being made: kubeadm lets
    /// its administrator in seconds after the server answers, and the group `system:masters` at once. `None` where the
    /// cluster is there already, or while its credentials are not (before Kubernetes 1.29 they never are).
    async fn early(&self, run: &Run<'_>) -> Option<(String, String)> {
        if !run.output(&self.cluster).is_null() {
            return None;
        }
        let masters = kubeconfig(run.world, "/etc/kubernetes/super-admin.conf").await.ok()?;
        Some((admin_kubeconfig(run.world).await.ok()?, masters))
    }
}

/// What a step gives that has connected to the environment's cluster: from then on the environment is bound to it.
pub(super) async fn bound(run: &Run<'_>, written: bool) -> Result<Applied, StepError> {
    let kube = run.world.kube()?;
    let identity = Identity::read(&*kube).await?;
    let changed = written || run.journal.cluster().as_ref() != Some(&identity);
    let server = kube.server();
    Ok(Applied { detail: server.clone(), outputs: json!({"server": server, "cluster": identity}), changed })
}

/// The administrator's kubeconfig of a kind cluster for this host, from its control plane's own; why there is none yet,
/// else.
pub(crate) async fn admin_kubeconfig(world: &World) -> Result<String, String> {
    kubeconfig(world, "/etc/kubernetes/admin.conf").await
}

/// As [`admin_kubeconfig`], from another of kubeadm's files.
async fn kubeconfig(world: &World, file: &str) -> Result<String, String> {
    let nodes = world.nodes().await.map_err(|error| error.to_string())?;
    let control_plane =
        nodes.iter().find(|node| node.name == world.control_plane()).ok_or("the control plane is not there yet")?;
    let published = control_plane.ports.iter().find(|(container, ..)| *container == 6443);
    let (_, address, port) = published.ok_or("the control plane publishes no port yet")?;
    let admin = world.engine.exec(&control_plane.id, &["cat", file], None).await;
    let admin = admin.map_err(|error| error.to_string())?;
    kind::kubeconfig(&admin.text(), &world.reserved_name(), &format!("https://{address}:{port}"))
        .ok_or_else(|| "kubeadm has not written its credentials yet".to_owned())
}

/// What a server that is coming up says, in one line that does not change with every attempt: connections are refused,
/// reset or left hanging, and its administrator is let in a moment after it answers.
fn starting(error: &KubeError) -> String {
    match error {
        KubeError::Unreachable { .. } => "the API server is starting".to_owned(),
        KubeError::Refused { code: 401 | 403, .. } => "the API server does not know its administrator yet".to_owned(),
        other => other.to_string(),
    }
}

/// Repeats `look` until it gives something, the creating step fails, or the time is over; tells the reason each time it
/// changes.
async fn poll<T>(
    run: &Run<'_>,
    id: &str,
    cluster: &str,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, StepError> {
    let patience = run.ctx.options.timeout.unwrap_or(PATIENCE);
    let mut told = String::new();
    let began = std::time::Instant::now();
    loop {
        let reason = match look().await {
            Ok(found) => return Ok(found),
            Err(reason) => reason,
        };
        if run.has_failed(cluster) {
            return Err(StepError::message(format!("{what}: the cluster was not made")));
        }
        if began.elapsed() > patience {
            return Err(StepError::Wait { what: what.to_owned(), reason, findings: Vec::new() });
        }
        if reason != told {
            run.waiting(id, reason.clone());
            told = reason;
        }
        run.ctx.clock.sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::cluster::kind::Adaptation;
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};

    fn step(image: &str, nodes: u8) -> ClusterStep {
        let spec = KindSpec {
            name: "devstack-demo".to_owned(),
            image: image.to_owned(),
            kubernetes: None,
            nodes,
            http: 80,
            https: 443,
            adaptation: Adaptation::default(),
            labels: BTreeMap::new(),
            blobs: None,
        };
        ClusterStep {
            spec,
            node_image: String::new(),
            complete: true,
            begun: true,
            addresses: BTreeMap::new(),
            made_of: None,
            started: BTreeMap::new(),
        }
    }

    async fn observed(step: &ClusterStep, nodes: u8) -> Observed {
        let (fs, clock) = (FakeFs::default(), FakeClock::default());
        let engine = FakeEngine::default();
        for number in 0..nodes {
            engine.add_kind_node(&step.spec.name, number, "n", &[]);
        }
        let ctx = fake::context(&fs, &clock);
        let world = World::new(&ctx, "demo", Arc::new(engine), Arc::new(FakeRunner::default()));
        step.observe(&world).await.unwrap()
    }

    #[tokio::test]
    async fn a_cluster_that_is_made_anew_is_lost_and_that_is_said() {
        let step = ClusterStep { made_of: Some("node:1".to_owned()), ..step("node:1", 2) };
        let settled = observed(&step, 2).await;
        assert_eq!((settled.action, settled.loses), (Action::Leave, Vec::new()));
        let upgraded =
            ClusterStep { spec: KindSpec { image: "node:2".to_owned(), ..step.spec.clone() }, ..step.clone() };
        let upgraded = observed(&upgraded, 2).await;
        assert_eq!(upgraded.why.as_deref(), Some("its nodes are node:1, node:2 is wanted: it is created anew"));
        assert_eq!(upgraded.loses, [ALL]);
        let missing = observed(&step, 1).await;
        assert_eq!((missing.action, missing.loses.as_slice()), (Action::Repair, &[ALL.to_owned()][..]));
        assert!(observed(&step, 0).await.loses.is_empty(), "there is nothing to lose");
        let unknown = ClusterStep { complete: false, begun: false, ..step.clone() };
        assert_eq!(observed(&unknown, 2).await.loses, [ALL], "it may be somebody else's");
        let half = ClusterStep { complete: false, ..step };
        assert!(observed(&half, 1).await.loses.is_empty(), "nobody relies on what was never finished");
    }

    #[test]
    fn nodes_are_started_by_the_addresses_they_had() {
        let addresses = [("a", "172.20.0.10"), ("b", "172.20.0.9"), ("c", "172.20.0.2")];
        let addresses = addresses.map(|(name, address)| (name.to_owned(), address.parse().unwrap())).into();
        let step = ClusterStep { addresses, ..step("node:1", 3) };
        let node = |name: &str| Container { name: name.to_owned(), ..Container::default() };
        let turn = step.in_turn(vec![node("a"), node("b"), node("c")]);
        assert_eq!(turn.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    }
}
