//! The [`Engine`] port over bollard.

mod answer;
mod ask;
mod endpoint;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models as api;
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OnceCell;

use self::answer::{container, image, label_filter, network, unsigned};
use crate::context::Vars;
use crate::error::chain;
use crate::ports::engine::{
    ByteStream, CommitSpec, Container, ContainerSpec, Engine, EngineError, EngineIdentity, EngineImage, EngineInfo,
    ExecOutput, Login, Network, Volume,
};

/// Reading an answer of the engine may take this long, in seconds; a load or a commit of a large image does.
const READ_TIMEOUT: u64 = 900;

/// A Docker engine, connected at first use.
#[derive(Debug)]
pub struct DockerEngine {
    endpoint: String,
    client: OnceCell<Docker>,
}

impl DockerEngine {
    /// The engine that docker's own CLI would use.
    pub fn find(vars: &Vars, home: &Path) -> Self {
        Self { endpoint: endpoint::find(vars, home), client: OnceCell::new() }
    }

    /// The address in use, such as `unix:///var/run/docker.sock`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    async fn client(&self) -> Result<&Docker, EngineError> {
        self.client.get_or_try_init(|| self.connect()).await
    }

    async fn connect(&self) -> Result<Docker, EngineError> {
        let endpoint = &self.endpoint;
        let address = |reason: String| EngineError::Address { endpoint: endpoint.clone(), reason };
        let docker = if let Some(path) = endpoint.strip_prefix("unix://") {
            if !Path::new(path).exists() {
                return Err(EngineError::NotRunning {
                    endpoint: endpoint.clone(),
                    reason: "the socket does not exist".to_owned(),
                });
            }
            #[cfg(unix)]
            let docker = Docker::connect_with_unix(path, READ_TIMEOUT, API_DEFAULT_VERSION);
            #[cfg(not(unix))]
            let docker = Docker::connect_with_local_defaults();
            docker
        } else if endpoint.starts_with("tcp://") || endpoint.starts_with("http://") {
            Docker::connect_with_http(endpoint, READ_TIMEOUT, API_DEFAULT_VERSION)
        } else if endpoint.starts_with("npipe://") {
            Docker::connect_with_local_defaults()
        } else {
            return Err(address("only unix://, npipe:// and tcp:// without TLS are supported".to_owned()));
        };
        let docker = docker.map_err(|error| address(error.to_string()))?;
        docker.negotiate_version().await.map_err(|error| match self.explain("negotiate the API version", error) {
            EngineError::Other { reason, .. } => EngineError::NotRunning { endpoint: endpoint.to_owned(), reason },
            other => other,
        })
    }

    fn explain(&self, what: impl Into<String>, error: bollard::errors::Error) -> EngineError {
        use bollard::errors::Error;
        let what = what.into();
        let endpoint = self.endpoint.clone();
        match error {
            Error::DockerResponseServerError { status_code: 404, message } => {
                EngineError::NotFound { what: format!("{what}: {message}") }
            }
            Error::DockerResponseServerError { status_code: 409, message } => {
                EngineError::Conflict { what, reason: message }
            }
            Error::DockerResponseServerError { message, .. } => EngineError::Other { what, reason: message },
            other => match io_kind(&other) {
                Some(io::ErrorKind::PermissionDenied) => EngineError::Permission { endpoint },
                Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => {
                    EngineError::NotRunning { endpoint, reason: chain(&other) }
                }
                _ => EngineError::Other { what, reason: chain(&other) },
            },
        }
    }
}

/// Gives a command its input, and the end of it in any case: a command that waits for more would never end.
async fn feed(stdin: Option<ByteStream>, mut input: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut fed = Ok(());
    let mut chunks = stdin.unwrap_or_else(|| futures::stream::empty().boxed());
    while let Some(chunk) = chunks.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => {
                fed = Err(error);
                break;
            }
        };
        // A command that stops reading closes the stream; its status tells the rest.
        if input.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let _ = input.shutdown().await;
    fed
}

/// The first I/O error of a chain of causes.
fn io_kind(error: &bollard::errors::Error) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

/// A time of the engine's without its fraction; `None` of the year 1, which says that there is none.
fn to_the_second(time: &str) -> Option<String> {
    let seconds = time.get(..19)?;
    (!seconds.starts_with("0001-")).then(|| format!("{seconds}Z"))
}

#[async_trait]
impl Engine for DockerEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let client = self.client().await?;
        let (info, version) = tokio::try_join!(client.info(), client.version())
            .map_err(|error| self.explain("read what the engine says of itself", error))?;
        let driver_status = info.driver_status.unwrap_or_default();
        Ok(EngineInfo {
            name: info.name.unwrap_or_default(),
            operating_system: info.operating_system.unwrap_or_default(),
            os_type: info.os_type.unwrap_or_default(),
            architecture: info.architecture.unwrap_or_default(),
            kernel: info.kernel_version.unwrap_or_default(),
            version: info.server_version.unwrap_or_default(),
            api_version: client.client_version().to_string(),
            components: version.components.unwrap_or_default().into_iter().map(|component| component.name).collect(),
            security_options: info.security_options.unwrap_or_default(),
            cgroup_version: info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
            cpus: unsigned(info.ncpu),
            memory: unsigned(info.mem_total),
            root_dir: info.docker_root_dir.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            containerd_image_store: driver_status
                .iter()
                .any(|pair| pair.iter().any(|text| text.contains("io.containerd.snapshotter"))),
            endpoint: self.endpoint.clone(),
            identity: EngineIdentity { endpoint: endpoint::followed(&self.endpoint), id: info.id.unwrap_or_default() },
        })
    }

    async fn containers(&self, label: Option<&str>) -> Result<Vec<Container>, EngineError> {
        let options = query::ListContainersOptionsBuilder::default().all(true).filters(&label_filter(label)).build();
        let list = self.client().await?.list_containers(Some(options)).await;
        let mut list: Vec<Container> =
            list.map_err(|error| self.explain("list containers", error))?.into_iter().map(container).collect();
        list.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(list)
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String, EngineError> {
        let list = |values: &[String]| (!values.is_empty()).then(|| values.to_vec());
        let body = api::ContainerCreateBody {
            image: Some(spec.image.clone()),
            entrypoint: list(&spec.entrypoint),
            cmd: list(&spec.command),
            labels: Some(spec.labels.clone().into_iter().collect()),
            host_config: Some(api::HostConfig {
                security_opt: list(&spec.security_options),
                network_mode: spec.network.clone(),
                binds: list(&spec.binds),
                auto_remove: Some(spec.auto_remove),
                tmpfs: (!spec.tmpfs.is_empty())
                    .then(|| spec.tmpfs.iter().map(|path| (path.clone(), String::new())).collect()),
                ..api::HostConfig::default()
            }),
            ..api::ContainerCreateBody::default()
        };
        let options = query::CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let made = self.client().await?.create_container(Some(options), body).await;
        Ok(made.map_err(|error| self.explain(format!("create container {}", spec.name), error))?.id)
    }

    async fn start_container(&self, id: &str) -> Result<(), EngineError> {
        let started = self.client().await?.start_container(id, None::<query::StartContainerOptions>).await;
        started.map_err(|error| self.explain(format!("start container {id}"), error))
    }

    async fn started(&self, id: &str) -> Result<Option<String>, EngineError> {
        let found = self.client().await?.inspect_container(id, None::<query::InspectContainerOptions>).await;
        let found = found.map_err(|error| self.explain(format!("inspect container {id}"), error))?;
        Ok(found.state.and_then(|state| state.started_at).and_then(|time| to_the_second(&time)))
    }

    async fn stop_container(&self, id: &str, grace: u32) -> Result<(), EngineError> {
        let grace = i32::try_from(grace).unwrap_or(i32::MAX);
        let options = query::StopContainerOptionsBuilder::default().t(grace).build();
        let stopped = self.client().await?.stop_container(id, Some(options)).await;
        stopped.map_err(|error| self.explain(format!("stop container {id}"), error))
    }

    async fn pause_container(&self, id: &str) -> Result<(), EngineError> {
        let paused = self.client().await?.pause_container(id).await;
        paused.map_err(|error| self.explain(format!("pause container {id}"), error))
    }

    async fn unpause_container(&self, id: &str) -> Result<(), EngineError> {
        let thawed = self.client().await?.unpause_container(id).await;
        thawed.map_err(|error| self.explain(format!("unpause container {id}"), error))
    }

    async fn remove_container(&self, id: &str) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let removed = self.client().await?.remove_container(id, Some(options)).await;
        missing_is_fine(removed.map_err(|error| self.explain(format!("remove container {id}"), error)))
    }

    async fn exec(&self, id: &str, argv: &[&str], stdin: Option<ByteStream>) -> Result<ExecOutput, EngineError> {
        let what = || format!("run `{}` in {id}", argv.join(" "));
        let client = self.client().await?;
        let options = CreateExecOptions {
            cmd: Some(argv.iter().map(|&word| word.to_owned()).collect()),
            attach_stdin: Some(stdin.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::<String>::default()
        };
        let exec = client.create_exec(id, options).await.map_err(|error| self.explain(what(), error))?;
        let started = client.start_exec(&exec.id, None).await.map_err(|error| self.explain(what(), error))?;
        let mut result = ExecOutput::default();
        if let StartExecResults::Attached { mut output, mut input } = started {
            let read = async {
                while let Some(chunk) = output.try_next().await? {
                    match chunk {
                        LogOutput::StdErr { message } => result.stderr.extend_from_slice(&message),
                        other => result.stdout.extend_from_slice(&other.into_bytes()),
                    }
                }
                Ok::<_, bollard::errors::Error>(())
            };
            let (fed, read) = tokio::join!(feed(stdin, &mut input), read);
            // What the command says of half an input only follows from that.
            fed.map_err(|error| EngineError::Other { what: what(), reason: format!("its input: {error}") })?;
            read.map_err(|error| self.explain(what(), error))?;
        }
        let ended = client.inspect_exec(&exec.id).await.map_err(|error| self.explain(what(), error))?;
        result.status = ended.exit_code.unwrap_or(-1);
        Ok(result)
    }

    async fn upload(&self, id: &str, path: &str, tar: ByteStream) -> Result<(), EngineError> {
        let options = query::UploadToContainerOptionsBuilder::default().path(path).build();
        let body = bollard::body_try_stream(tar);
        let sent = self.client().await?.upload_to_container(id, Some(options), body).await;
        sent.map_err(|error| self.explain(format!("copy files into {id}:{path}"), error))
    }

    async fn commit(&self, id: &str, spec: &CommitSpec) -> Result<String, EngineError> {
        let (repository, tag) = spec.reference.rsplit_once(':').unwrap_or((&spec.reference, "latest"));
        let options =
            query::CommitContainerOptionsBuilder::default().container(id).repo(repository).tag(tag).pause(true).build();
        let config = api::ContainerConfig {
            entrypoint: Some(spec.entrypoint.clone()),
            cmd: Some(Vec::new()),
            env: Some(spec.env.clone()),
            labels: Some(spec.labels.clone().into_iter().collect()),
            stop_signal: spec.stop_signal.clone(),
            ..api::ContainerConfig::default()
        };
        let made = self.client().await?.commit_container(options, config).await;
        Ok(made.map_err(|error| self.explain(format!("commit {id} as {}", spec.reference), error))?.id)
    }

    async fn networks(&self, label: Option<&str>) -> Result<Vec<Network>, EngineError> {
        let options = query::ListNetworksOptionsBuilder::default().filters(&label_filter(label)).build();
        let list = self.client().await?.list_networks(Some(options)).await;
        Ok(list.map_err(|error| self.explain("list networks", error))?.into_iter().map(network).collect())
    }

    async fn create_network(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Network, EngineError> {
        let request = api::NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels.clone().into_iter().collect()),
            options: Some(HashMap::from([(
                "com.docker.network.bridge.enable_ip_masquerade".to_owned(),
                "true".to_owned(),
            )])),
            ..api::NetworkCreateRequest::default()
        };
        let what = || format!("create network {name}");
        let client = self.client().await?;
        client.create_network(request).await.map_err(|error| self.explain(what(), error))?;
        let made = client.inspect_network(name, None::<query::InspectNetworkOptions>).await;
        let made = made.map_err(|error| self.explain(what(), error))?;
        Ok(network(api::Network {
            id: made.id,
            name: made.name,
            labels: made.labels,
            ipam: made.ipam,
            ..api::Network::default()
        }))
    }

    async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.client().await?.remove_network(name).await;
        missing_is_fine(removed.map_err(|error| self.explain(format!("remove network {name}"), error)))
    }

    async fn volumes(&self, label: Option<&str>) -> Result<Vec<Volume>, EngineError> {
        let options = query::ListVolumesOptionsBuilder::default().filters(&label_filter(label)).build();
        let list = self.client().await?.list_volumes(Some(options)).await;
        let list = list.map_err(|error| self.explain("list volumes", error))?.volumes.unwrap_or_default();
        Ok(list
            .into_iter()
            .map(|volume| Volume { name: volume.name, labels: volume.labels.into_iter().collect() })
            .collect())
    }

    async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let removed = self.client().await?.remove_volume(name, None::<query::RemoveVolumeOptions>).await;
        missing_is_fine(removed.map_err(|error| self.explain(format!("remove volume {name}"), error)))
    }

    async fn image(&self, reference: &str) -> Result<Option<EngineImage>, EngineError> {
        let client = ask::for_manifests(self.client().await?.clone());
        let found = client.inspect_image(reference).await;
        match found.map_err(|error| self.explain(format!("look for image {reference}"), error)) {
            Ok(found) => Ok(Some(image(found))),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn images(&self, label: &str) -> Result<Vec<String>, EngineError> {
        let options = query::ListImagesOptionsBuilder::default().filters(&label_filter(Some(label))).build();
        let list = self.client().await?.list_images(Some(options)).await;
        let list = list.map_err(|error| self.explain("list images", error))?;
        Ok(list.into_iter().flat_map(|image| image.repo_tags).collect())
    }

    async fn load_image(&self, archive: ByteStream) -> Result<(), EngineError> {
        let options = query::ImportImageOptionsBuilder::default().quiet(true).build();
        let client = self.client().await?;
        let loaded: Result<Vec<_>, _> = client.import_image_stream(options, archive, None).try_collect().await;
        loaded.map(drop).map_err(|error| self.explain("load an image archive", error))
    }

    fn save_image(&self, reference: &str, platform: &str) -> ByteStream {
        let Some(client) = self.client.get().cloned() else {
            let error = io::Error::new(io::ErrorKind::NotConnected, "the engine was not asked before");
            return futures::stream::once(async { Err(error) }).boxed();
        };
        let client = ask::for_platform(client, platform);
        let reference = reference.to_owned();
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            let mut chunks = std::pin::pin!(client.export_image(&reference));
            while let Some(chunk) = chunks.next().await {
                if sender.send(chunk.map_err(io::Error::other)).await.is_err() {
                    return;
                }
            }
        });
        futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed()
    }

    async fn pull_image(
        &self,
        reference: &str,
        platform: &str,
        login: Option<&Login>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<(), EngineError> {
        let options = query::CreateImageOptionsBuilder::default().from_image(reference).platform(platform).build();
        let client = self.client().await?;
        let mut events = client.create_image(Some(options), None, login.map(answer::credentials));
        let mut layers: HashMap<String, (u64, u64)> = HashMap::new();
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| self.explain(format!("pull {reference}"), error))?;
            if let (Some(id), Some(detail)) = (event.id, event.progress_detail) {
                let total = unsigned(detail.total);
                if total > 0 {
                    layers.insert(id, (unsigned(detail.current), total));
                }
                progress(layers.values().map(|layer| layer.0).sum(), layers.values().map(|layer| layer.1).sum());
            }
        }
        Ok(())
    }

    async fn tag_image(&self, reference: &str, name: &str) -> Result<(), EngineError> {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = query::TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        let tagged = self.client().await?.tag_image(reference, Some(options)).await;
        tagged.map_err(|error| self.explain(format!("name {reference} {name}"), error))
    }

    async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let options = query::RemoveImageOptionsBuilder::default().build();
        let removed = self.client().await?.remove_image(reference, Some(options), None).await;
        missing_is_fine(removed.map(drop).map_err(|error| self.explain(format!("remove image {reference}"), error)))
    }
}

fn missing_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::NotFound { .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn an_input_that_breaks_off_ends_and_is_told() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let broken = io::Error::new(io::ErrorKind::UnexpectedEof, "the layer is cut short");
        let chunks = futures::stream::iter([Ok("half".into()), Err(broken)]).boxed();
        let fed = feed(Some(chunks), &mut near).await;
        assert_eq!(fed.unwrap_err().to_string(), "the layer is cut short");
        let mut read = Vec::new();
        // `near` is still there, as the connection of a command is.
        let end = tokio::time::timeout(Duration::from_secs(5), far.read_to_end(&mut read)).await;
        assert!(end.is_ok_and(|end| end.is_ok()) && read == b"half");
        drop(near);
    }

    #[test]
    fn times_are_compared_to_the_second() {
        assert_eq!(to_the_second("2026-11-21T19:17:31.77832462Z").as_deref(), Some("2026-11-21T19:17:31Z"));
        assert_eq!(to_the_second("0001-01-01T00:00:00Z"), None);
    }
}
