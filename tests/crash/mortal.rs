//! Ports of a process that may die at any change it makes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use devstack::ports::HostFs;
use devstack::ports::engine::{
    ByteStream, CommitSpec, Container, ContainerSpec, Engine, EngineError, EngineImage, EngineInfo, ExecOutput, Login,
    Network, Volume,
};
use devstack::ports::fake::{FakeEngine, FakeFs};
use devstack::ports::hostfs::{DirLock, neighbour};
use devstack::ports::kube::{Duplex, Kube, KubeError, ObjectKey};
use devstack::ports::runner::{Cmd, OnLine, Output, RunError, Runner};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::death::Death;

/// The id of the process that dies: no system gives it to a living one.
pub const DEAD: u32 = i32::MAX as u32;

/// Files.
pub struct MortalFs(pub FakeFs, pub Death);

impl MortalFs {
    fn change(&self, what: &str, path: &Path, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.1.pass(&format!("before {what} {name}"))?;
        change()?;
        self.1.pass(&format!("after {what} {name}"))
    }
}

impl HostFs for MortalFs {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        self.0.read(path)
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.1.pass(&format!("before write {name}"))?;
        if let Err(death) = self.1.pass(&format!("in the middle of write {name}")) {
            self.0.put(neighbour(path, DEAD), &bytes[..bytes.len() / 2], mode);
            return Err(death);
        }
        self.0.write(path, bytes, mode)?;
        self.1.pass(&format!("after write {name}"))
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.1.pass("before append")?;
        if let Err(death) = self.1.pass("in the middle of append") {
            self.0.append(path, &bytes[..bytes.len() / 2])?;
            return Err(death);
        }
        self.0.append(path, bytes)?;
        self.1.pass("after append")
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change("remove", path, || self.0.remove(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.change("remove directory", path, || self.0.remove_dir(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change("make directory", path, || self.0.create_dir(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }

    fn create_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change("create", path, || self.0.create_new(path, bytes))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.resolve(path)
    }

    fn mode(&self, path: &Path) -> io::Result<Option<u32>> {
        self.0.mode(path)
    }

    fn writable(&self, path: &Path) -> bool {
        self.0.writable(path)
    }

    fn set(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.change("set", path, || self.0.set(path, bytes))
    }

    fn settable(&self, path: &Path) -> bool {
        self.0.settable(path)
    }

    fn lock(&self, dir: &Path) -> io::Result<DirLock> {
        self.0.lock(dir)
    }
}

/// The engine.
pub struct MortalEngine(pub FakeEngine, pub Cluster, pub Death);

impl MortalEngine {
    async fn change<T>(
        &self,
        what: String,
        change: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        self.2.reach(&format!("before {what}")).await;
        let result = change.await;
        self.2.reach(&format!("after {what}")).await;
        result
    }
}

#[async_trait]
impl Engine for MortalEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        self.0.info().await
    }
    async fn containers(&self, label: Option<&str>) -> Result<Vec<Container>, EngineError> {
        self.2.alive().await;
        self.0.containers(label).await
    }
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        self.change(format!("create container {}", spec.name), self.0.create_container(spec)).await
    }
    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        self.change("start container".to_owned(), self.0.start_container(id)).await
    }
    async fn started(&self, id: &str) -> Result<Option<String>, EngineError> {
        self.0.started(id).await
    }
    async fn stop_container(&self, id: &str, grace: u32) -> Result<(), EngineError> {
        self.change("stop container".to_owned(), self.0.stop_container(id, grace)).await
    }
    async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        self.change("pause container".to_owned(), self.0.pause_container(id)).await
    }
    async fn unpause_container(&self, id: &str) -> Result<(), EngineError> {
        self.change("unpause container".to_owned(), self.0.unpause_container(id)).await
    }
    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let remove = async {
            // A node takes seconds to end; until then it answers as if nothing were.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let result = self.0.remove_container(id).await;
            self.1.forget_node(id, &self.0);
            result
        };
        self.change("remove container".to_owned(), remove).await
    }
    async fn exec(&self, id: &str, argv: &[&str], stdin: Option<ByteStream>) -> Result<ExecOutput, EngineError> {
        if stdin.is_some() {
            return self.change(format!("exec {}", argv.join(" ")), self.0.exec(id, argv, stdin)).await;
        }
        self.2.alive().await;
        self.0.exec(id, argv, None).await
    }
    async fn upload(&self, id: &str, path: &str, tar: ByteStream) -> Result<(), EngineError> {
        self.change("upload".to_owned(), self.0.upload(id, path, tar)).await
    }
    async fn commit(&self, id: &str, spec: &CommitSpec) -> Result<String, EngineError> {
        self.change("commit".to_owned(), self.0.commit(id, spec)).await
    }
    async fn networks(&self, label: Option<&str>) -> Result<Vec<Network>, EngineError> {
        self.2.alive().await;
        self.0.networks(label).await
    }
    async fn create_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Network, EngineError> {
        self.change("create network".to_owned(), self.0.create_network(name, labels)).await
    }
    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.change("remove network".to_owned(), self.0.remove_network(name)).await
    }
    async fn volumes(&self, label: Option<&str>) -> Result<Vec<Volume>, EngineError> {
        self.0.volumes(label).await
    }
    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        self.change("remove volume".to_owned(), self.0.remove_volume(name)).await
    }
    async fn image(&self, reference: &str) -> Result<Option<EngineImage>, EngineError> {
        self.0.image(reference).await
    }
    async fn images(&self, label: &str) -> Result<Vec<String>, EngineError> {
        self.0.images(label).await
    }
    async fn load_image(&self, archive: ByteStream) -> Result<(), EngineError> {
        self.change("load image".to_owned(), self.0.load_image(archive)).await
    }
    fn save_image(&self, reference: &str, platform: &str) -> ByteStream {
        self.0.save_image(reference, platform)
    }
    async fn pull_image(
        &self,
        reference: &str,
        platform: &str,
        login: Option<&Login>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), EngineError> {
        self.change("pull image".to_owned(), self.0.pull_image(reference, platform, login, progress)).await
    }
    async fn tag_image(&self, reference: &str, name: &str) -> Result<(), EngineError> {
        self.change("tag image".to_owned(), self.0.tag_image(reference, name)).await
    }
    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        self.change("remove image".to_owned(), self.0.remove_image(reference)).await
    }
}

/// Child processes: kind, and nothing else is installed.
pub struct MortalRunner(pub Cluster, pub FakeEngine, pub Death);

#[async_trait]
impl Runner for MortalRunner {
    async fn stream(&self, cmd: &Cmd, on_line: OnLine<'_>) -> Result<Output, RunError> {
        self.2.alive().await;
        let line = cmd.line();
        if !cmd.program.ends_with("kind") {
            return Err(RunError::NotFound { program: cmd.program.display().to_string() });
        }
        if cmd.args.first().is_some_and(|word| word == "version") {
            return Ok(Output { stdout: b"0.30.0\n".to_vec(), stderr: Vec::new() });
        }
        let made = self.0.create(&self.1, &self.2, on_line).await;
        made.map(|()| Output::default()).map_err(|stderr| RunError::Failed {
            line,
            code: Some(1),
            signal: None,
            stdout: String::new(),
            stderr,
        })
    }
}

/// The API server.
pub struct MortalKube(pub Cluster, pub Death);

#[async_trait]
impl Kube for MortalKube {
    fn server(&self) -> String {
        self.0.kube.server()
    }
    async fn version(&self) -> Result<String, KubeError> {
        self.0.kube.version().await
    }
    async fn apply(&self, object: &Value) -> Result<Value, KubeError> {
        let key = ObjectKey::of(object).map(|key| key.to_string()).unwrap_or_default();
        self.1.reach(&format!("before apply {key}")).await;
        let result = self.0.apply(object).await;
        self.1.reach(&format!("after apply {key}")).await;
        result
    }
    async fn apply_dry_run(&self, object: &Value) -> Result<Value, KubeError> {
        self.0.kube.apply_dry_run(object).await
    }
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, KubeError> {
        self.1.alive().await;
        self.0.kube.get(key).await
    }
    async fn list(
        &self,
        version: &str,
        kind: &str,
        namespace: Option<&str>,
        selector: &str,
    ) -> Result<Vec<Value>, KubeError> {
        self.1.alive().await;
        self.0.kube.list(version, kind, namespace, selector).await
    }
    async fn delete(&self, key: &ObjectKey, uid: Option<&str>) -> Result<(), KubeError> {
        self.1.reach(&format!("before delete {key}")).await;
        let result = self.0.kube.delete(key, uid).await;
        self.1.reach(&format!("after delete {key}")).await;
        result
    }
    async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: i64,
        previous: bool,
    ) -> Result<String, KubeError> {
        self.0.kube.logs(namespace, pod, container, lines, previous).await
    }
    async fn port_forward(&self, namespace: &str, pod: &str, _port: u16) -> Result<Box<dyn Duplex>, KubeError> {
        self.1.alive().await;
        if namespace != "minio" {
            return self.0.kube.port_forward(namespace, pod, 0).await;
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(crate::http::object_store(theirs, Arc::clone(&self.0.bucket), self.1.clone()));
        Ok(Box::new(ours))
    }
}
