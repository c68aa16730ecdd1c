//! A container engine in memory.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::ports::Engine;
use crate::ports::engine::{
    ByteStream, CommitSpec, Container, ContainerSpec, EngineError, EngineImage, EngineInfo, ExecOutput,
    KIND_CLUSTER_LABEL, Login, Network, Volume,
};

type OnExec = Arc<dyn Fn(&Container, &[&str], &[u8]) -> ExecOutput + Send + Sync>;
type OnSave = Arc<dyn Fn(&str, &str) -> std::io::Result<Vec<u8>> + Send + Sync>;
type OnLoad = Arc<dyn Fn(&[u8]) -> Vec<(String, EngineImage)> + Send + Sync>;

#[derive(Default)]
struct State {
    info: EngineInfo,
    containers: BTreeMap<String, Container>,
    networks: BTreeMap<String, Network>,
    volumes: BTreeMap<String, Volume>,
    images: BTreeMap<String, EngineImage>,
    remote: BTreeMap<String, EngineImage>,
    uploads: Vec<(String, String, Vec<u8>)>,
    execs: Vec<(Vec<String>, OnExec)>,
    on_load: Option<OnLoad>,
    on_save: Option<OnSave>,
    made: u64,
    started: Option<String>,
    down: bool,
}

/// An engine in memory. Clones share it.
#[derive(Clone, Default)]
pub struct FakeEngine(Arc<Mutex<State>>);

impl FakeEngine {
    /// An engine that says this of itself.
    pub fn new(info: EngineInfo) -> Self {
        let engine = Self::default();
        engine.lock().info = info;
        engine
    }

    /// Stops the engine, or starts it again; its containers stay.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// Puts an image into the engine's store.
    pub fn put_image(&self, reference: &str, image: EngineImage) {
        self.lock().images.insert(reference.to_owned(), image);
    }

    /// Makes an image available to pull.
    pub fn offer_image(&self, reference: &str, image: EngineImage) {
        self.lock().remote.insert(reference.to_owned(), image);
    }

    /// Says which images an archive that is loaded holds; without it, loading is refused.
    pub fn on_load(&self, read: impl Fn(&[u8]) -> Vec<(String, EngineImage)> + Send + Sync + 'static) {
        self.lock().on_load = Some(Arc::new(read));
    }

    /// Gives the archive of an image by reference and platform, or says why there is none; without it, an archive of an
    /// image that is there is no image's.
    pub fn on_save(&self, write: impl Fn(&str, &str) -> std::io::Result<Vec<u8>> + Send + Sync + 'static) {
        self.lock().on_save = Some(Arc::new(write));
    }

    /// Answers every command in a container whose words begin with `prefix`; the last answer that fits counts. A
    /// command without an answer ends with status 0 and no output.
    pub fn on_exec(
        &self,
        prefix: &[&str],
        answer: impl Fn(&Container, &[&str], &[u8]) -> ExecOutput + Send + Sync + 'static,
    ) {
        let prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
        self.lock().execs.push((prefix, Arc::new(answer)));
    }

    /// Says when everything that runs was started, as after a restart of the engine.
    pub fn set_started(&self, time: &str) {
        self.lock().started = Some(time.to_owned());
    }

    /// Every upload so far: container name, path, tar.
    pub fn uploads(&self) -> Vec<(String, String, Vec<u8>)> {
        self.lock().uploads.clone()
    }

    /// Makes a running container on a network as kind does for a node, with an anonymous volume; its id is given back.
    ///
    /// The names are kind's: `CLUSTER-control-plane`, `CLUSTER-worker`, `CLUSTER-worker2`.
    pub fn add_kind_node(&self, cluster: &str, number: u8, network: &str, ports: &[(u16, String, u16)]) -> String {
        let name = match number {
            0 => format!("{cluster}-control-plane"),
            1 => format!("{cluster}-worker"),
            more => format!("{cluster}-worker{more}"),
        };
        let role = if number == 0 { "control-plane" } else { "worker" };
        let mut state = self.lock();
        let volume = format!("{name}-var");
        state.volumes.insert(volume.clone(), Volume { name: volume.clone(), labels: BTreeMap::new() });
        let address = state.next_address(network);
        let id = state.next_id();
        let container = Container {
            id: id.clone(),
            name,
            labels: BTreeMap::from([
                (KIND_CLUSTER_LABEL.to_owned(), cluster.to_owned()),
                ("io.x-k8s.kind.role".to_owned(), role.to_owned()),
            ]),
            state: "running".to_owned(),
            image: String::new(),
            addresses: BTreeMap::from([(network.to_owned(), address)]),
            ports: ports.to_vec(),
            volumes: vec![volume],
        };
        state.containers.insert(id.clone(), container);
        id
    }

    /// The names of everything there is, to compare the engine before and after: `container x`, `network y`, `volume z`.
    pub fn inventory(&self) -> Vec<String> {
        let state = self.lock();
        let containers = state.containers.values().map(|container| format!("container {}", container.name));
        let networks = state.networks.keys().map(|name| format!("network {name}"));
        let volumes = state.volumes.keys().map(|name| format!("volume {name}"));
        let mut all: Vec<_> = containers.chain(networks).chain(volumes).collect();
        all.sort();
        all
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Result<MutexGuard<'_, State>, EngineError> {
        let state = self.lock();
        if state.down {
            return Err(EngineError::NotRunning {
                endpoint: state.info.endpoint.clone(),
                reason: "connection refused".to_owned(),
            });
        }
        Ok(state)
    }

    fn set_state(&self, id: &str, from: &[&str], to: &str) -> Result<(), EngineError> {
        let mut state = self.running()?;
        let container = state.container_mut(id)?;
        if container.state != to && !from.contains(&container.state.as_str()) {
            let reason = format!("the container is {}", container.state);
            return Err(EngineError::Conflict { what: format!("container {id}"), reason });
        }
        to.clone_into(&mut container.state);
        Ok(())
    }
}

impl State {
    fn next_id(&mut self) -> String {
        self.made += 1;
        format!("{:064x}", self.made)
    }

    fn next_address(&self, network: &str) -> IpAddr {
        let subnet = self.networks.get(network).and_then(|network| network.subnets.first()?.parse_prefix());
        let [a, b] = subnet.unwrap_or([172, 17]);
        let used = self.containers.values().filter(|container| container.addresses.contains_key(network)).count();
        let last = u8::try_from(used + 2).unwrap_or(u8::MAX);
        Ipv4Addr::new(a, b, 0, last).into()
    }

    fn container_mut(&mut self, id: &str) -> Result<&mut Container, EngineError> {
        self.containers
            .values_mut()
            .find(|container| container.id == id || container.name == id)
            .ok_or_else(|| EngineError::NotFound { what: format!("container {id}") })
    }
}

trait ParsePrefix {
    fn parse_prefix(&self) -> Option<[u8; 2]>;
}

impl ParsePrefix for String {
    fn parse_prefix(&self) -> Option<[u8; 2]> {
        let mut parts = self.split('.');
        Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
    }
}

fn carries(labels: &BTreeMap<String, String>, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    })
}

async fn drain(what: &str, mut stream: ByteStream) -> Result<Vec<u8>, EngineError> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| EngineError::Other { what: what.to_owned(), reason: error.to_string() })?;
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

#[async_trait]
impl Engine for FakeEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        Ok(self.running()?.info.clone())
    }

    async fn containers(&self, label: Option<&str>) -> Result<Vec<Container>, EngineError> {
        let state = self.running()?;
        Ok(state.containers.values().filter(|container| carries(&container.labels, label)).cloned().collect())
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let mut state = self.running()?;
        if state.containers.values().any(|container| container.name == spec.name) {
            let what = format!("container {}", spec.name);
            return Err(EngineError::Conflict { what, reason: "the name is in use".to_owned() });
        }
        let known = |(reference, image): (&String, &EngineImage)| *reference == spec.image || image.id == spec.image;
        if !state.images.iter().any(known) {
            return Err(EngineError::NotFound { what: format!("image {}", spec.image) });
        }
        let network = spec.network.clone().unwrap_or_else(|| "bridge".to_owned());
        let address = state.next_address(&network);
        let id = state.next_id();
        let container = Container {
            id: id.clone(),
            name: spec.name.clone(),
            labels: spec.labels.clone(),
            state: "created".to_owned(),
            image: spec.image.clone(),
            addresses: BTreeMap::from([(network, address)]),
            ports: Vec::new(),
            volumes: Vec::new(),
        };
        state.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        self.set_state(id, &["created", "exited"], "running")
    }

    async fn started(&self, id: &str) -> Result<Option<String>, EngineError> {
        let mut state = self.running()?;
        let running = state.container_mut(id)?.state == "running";
        Ok(running.then(|| state.started.clone()).flatten())
    }

    async fn stop_container(&self, id: &str, _grace: u32) -> Result<(), EngineError> {
        self.set_state(id, &["created", "running", "paused"], "exited")
    }

    async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        self.set_state(id, &["running"], "paused")
    }

    async fn unpause_container(&self, id: &str) -> Result<(), EngineError> {
        self.set_state(id, &["paused"], "running")
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let mut state = self.running()?;
        let Ok(container) = state.container_mut(id).cloned() else { return Ok(()) };
        state.containers.remove(&container.id);
        state.volumes.retain(|name, _| !container.volumes.contains(name));
        Ok(())
    }

    async fn exec(&self, id: &str, argv: &[&str], stdin: Option<ByteStream>) -> Result<ExecOutput, EngineError> {
        let input = match stdin {
            Some(stream) => drain("exec", stream).await?,
            None => Vec::new(),
        };
        let (container, answer) = {
            let mut state = self.running()?;
            let container = state.container_mut(id)?.clone();
            let fits = |prefix: &[String]| {
                prefix.len() <= argv.len() && prefix.iter().zip(argv).all(|(wanted, word)| wanted == word)
            };
            let answer = state.execs.iter().rev().find(|(prefix, _)| fits(prefix)).map(|(_, answer)| answer.clone());
            (container, answer)
        };
        if container.state != "running" {
            let reason = format!("container {} is {}", container.name, container.state);
            return Err(EngineError::Conflict { what: "exec".to_owned(), reason });
        }
        Ok(answer.map(|answer| answer(&container, argv, &input)).unwrap_or_default())
    }

    async fn upload(&self, id: &str, path: &str, tar: ByteStream) -> Result<(), EngineError> {
        let tar = drain("upload", tar).await?;
        let mut state = self.running()?;
        let name = state.container_mut(id)?.name.clone();
        state.uploads.push((name, path.to_owned(), tar));
        Ok(())
    }

    async fn commit(&self, id: &str, spec: &CommitSpec) -> Result<String, EngineError> {
        let mut state = self.running()?;
        state.container_mut(id)?;
        let image = format!("sha256:{}", state.next_id());
        let labels = spec.labels.clone();
        let made = EngineImage { id: image.clone(), labels, ..EngineImage::default() };
        state.images.insert(spec.reference.clone(), made);
        Ok(image)
    }

    async fn networks(&self, label: Option<&str>) -> Result<Vec<Network>, EngineError> {
        let state = self.running()?;
        Ok(state.networks.values().filter(|network| carries(&network.labels, label)).cloned().collect())
    }

    async fn create_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Network, EngineError> {
        let mut state = self.running()?;
        if state.networks.contains_key(name) {
            let what = format!("network {name}");
            return Err(EngineError::Conflict { what, reason: "it exists already".to_owned() });
        }
        let second = 18 + state.networks.len();
        let network = Network {
            id: state.next_id(),
            name: name.to_owned(),
            labels: labels.clone(),
            subnets: vec![format!("172.{second}.0.0/16")],
        };
        state.networks.insert(name.to_owned(), network.clone());
        Ok(network)
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let mut state = self.running()?;
        if state.containers.values().any(|container| container.addresses.contains_key(name)) {
            let what = format!("network {name}");
            return Err(EngineError::Conflict { what, reason: "it has active endpoints".to_owned() });
        }
        state.networks.remove(name);
        Ok(())
    }

    async fn volumes(&self, label: Option<&str>) -> Result<Vec<Volume>, EngineError> {
        let state = self.running()?;
        Ok(state.volumes.values().filter(|volume| carries(&volume.labels, label)).cloned().collect())
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.running()?.volumes.remove(name);
        Ok(())
    }

    async fn image(&self, reference: &str) -> Result<Option<EngineImage>, EngineError> {
        let state = self.running()?;
        let by_id = || state.images.values().find(|image| image.id == reference);
        Ok(state.images.get(reference).or_else(by_id).cloned())
    }

    async fn images(&self, label: &str) -> Result<Vec<String>, EngineError> {
        let state = self.running()?;
        let labelled = state.images.iter().filter(|(_, image)| carries(&image.labels, Some(label)));
        Ok(labelled.map(|(reference, _)| reference.clone()).collect())
    }

    async fn load_image(&self, archive: ByteStream) -> Result<(), EngineError> {
        let archive = drain("load", archive).await?;
        let mut state = self.running()?;
        let Some(read) = state.on_load.clone() else {
            return Err(EngineError::Other { what: "load".to_owned(), reason: "no archive was expected".to_owned() });
        };
        state.images.extend(read(&archive));
        Ok(())
    }

    fn save_image(&self, reference: &str, platform: &str) -> ByteStream {
        let (known, write) = {
            let state = self.lock();
            (state.images.contains_key(reference), state.on_save.clone())
        };
        let result = match write {
            _ if !known => Err(std::io::Error::other(format!("image {reference}: not found"))),
            Some(write) => write(reference, platform).map(bytes::Bytes::from),
            None => Ok(bytes::Bytes::from(format!("archive of {reference}"))),
        };
        Box::pin(futures::stream::iter([result]))
    }

    async fn pull_image(
        &self,
        reference: &str,
        platform: &str,
        _login: Option<&Login>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), EngineError> {
        let mut state = self.running()?;
        let offered = state.remote.get(reference).cloned();
        let image = offered
            .filter(|image| image.platforms.iter().any(|one| one == platform))
            .ok_or_else(|| EngineError::NotFound { what: format!("image {reference} for {platform}") })?;
        progress(image.size, image.size);
        let (name, digest) = reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
        match (digest, name.rsplit_once(':')) {
            // As the engine does, which has it by its digest and not by the tag.
            (Some(digest), Some((repository, _))) => {
                state.images.insert(format!("{repository}@{digest}"), image.clone());
                state.images.insert(reference.to_owned(), image);
            }
            _ => drop(state.images.insert(reference.to_owned(), image)),
        }
        Ok(())
    }

    async fn tag_image(&self, reference: &str, name: &str) -> Result<(), EngineError> {
        let mut state = self.running()?;
        let missing = || EngineError::NotFound { what: format!("image {reference}") };
        let image = state.images.get(reference).cloned().ok_or_else(missing)?;
        state.images.insert(name.to_owned(), image);
        Ok(())
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.running()?.images.remove(reference);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nodes_live_on_a_network_that_outlives_them() {
        let engine = FakeEngine::default();
        engine.create_network("devstack-a", &BTreeMap::new()).await.unwrap();
        let id = engine.add_kind_node("devstack-a", 0, "devstack-a", &[]);
        engine.add_kind_node("devstack-a", 1, "devstack-a", &[]);
        assert_eq!(engine.containers(Some("io.x-k8s.kind.cluster=devstack-a")).await.unwrap().len(), 2);
        assert!(engine.containers(Some("io.x-k8s.kind.cluster=devstack")).await.unwrap().is_empty());
        assert!(matches!(engine.remove_network("devstack-a").await, Err(EngineError::Conflict { .. })));
        engine.pause_container(&id).await.unwrap();
        assert!(engine.exec(&id, &["true"], None).await.is_err());
        engine.set_down(true);
        assert!(matches!(engine.remove_container(&id).await, Err(EngineError::NotRunning { .. })));
        engine.set_down(false);
        for name in ["devstack-a-control-plane", "devstack-a-worker", "nobody"] {
            engine.remove_container(name).await.unwrap();
        }
        engine.remove_network("devstack-a").await.unwrap();
        assert_eq!(engine.inventory(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn commands_are_answered_by_the_last_script_that_fits() {
        let engine = FakeEngine::default();
        let id = engine.add_kind_node("c", 0, "n", &[]);
        let status = |status| move |_: &Container, _: &[&str], _: &[u8]| ExecOutput { status, ..ExecOutput::default() };
        engine.on_exec(&["cat"], status(1));
        engine.on_exec(&["cat", "/a"], status(2));
        for (argv, expected) in [(vec!["cat", "/a"], 2), (vec!["cat", "/b"], 1), (vec!["ls"], 0)] {
            assert_eq!(engine.exec(&id, &argv, None).await.unwrap().status, expected, "{argv:?}");
        }
    }
}
