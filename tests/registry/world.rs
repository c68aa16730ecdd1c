//! A real registry on loopback, images in it, and devstack's images in front of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use devstack::build;
use devstack::context::{Context, Dirs, Options, Vars};
use devstack::event::EventSink;
use devstack::facts::CpuLevel;
use devstack::image::{Choice, ImageError, Images, KubeRange, Limits, Rejected, Request, Target, Unresolvable};
use devstack::oci::{Descriptor, Digest, Index, Platform, RunConfig, Store, assemble, media};
use devstack::oci::{ImageSpec, Layer, Source, StoredImage};
use devstack::ports::runner::ProcessRunner;
use devstack::ports::{Clock, Runner};
use tokio_util::sync::CancellationToken;

use super::proxy::Proxy;

/// A clock whose waits end at once and are remembered.
#[derive(Default)]
pub struct Waits(pub Mutex<Vec<Duration>>);

#[async_trait]
impl Clock for Waits {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.lock().unwrap().push(duration);
        tokio::task::yield_now().await;
    }
}

/// A registry process, its proxy, and a directory for both and for devstack.
pub struct World {
    pub proxy: Proxy,
    pub waits: Arc<Waits>,
    pub dir: tempfile::TempDir,
    _registry: tokio::process::Child,
    http: reqwest::Client,
}

fn runner() -> Arc<dyn Runner> {
    Arc::new(ProcessRunner::new(CancellationToken::new(), "registry-tests"))
}

/// The registry's program, built from its module into the user's own cache.
async fn program() -> std::path::PathBuf {
    let vars = Vars::of_process();
    let dirs = Dirs::of(&vars).expect("a home directory");
    let ctx = Context::real(dirs, vars, EventSink::null(), Options::default());
    static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _held = ONE_AT_A_TIME.lock().await;
    match build::tool(&ctx, runner(), "registry", "registry").await {
        Ok(path) => path,
        Err(error) => panic!("these tests need a registry, which is built with Go from its module: {error}"),
    }
}

impl World {
    pub async fn start() -> Self {
        let program = program().await;
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("registry.sock");
        let data = dir.path().join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{net: unix, addr: {}, secret: x}}\n",
            data.display(),
            socket.display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let registry = tokio::process::Command::new(program)
            .arg("serve")
            .arg(&file)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut patience = 500;
        while tokio::net::UnixStream::connect(&socket).await.is_err() {
            patience -= 1;
            assert!(patience > 0, "the registry does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let proxy = Proxy::start(socket).await;
        Self { proxy, waits: Arc::default(), dir, _registry: registry, http }
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.proxy.host)
    }

    /// Pushes an image of some platforms whose layers hold these contents; gives the digest of its index.
    pub async fn push(&self, name: &str, platforms: &[&str], layers: &[&[u8]]) -> Digest {
        let (repository, tag) = name.split_once(':').unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let store = Store::open(scratch.path()).unwrap();
        let mut manifests = Vec::new();
        for platform in platforms {
            let image = image(&store, name, &platform.parse().unwrap(), layers);
            for blob in image.layers.iter().chain([&image.config]) {
                self.push_blob(repository, &blob.digest, &store).await;
            }
            let bytes = std::fs::read(store.blob_path(&image.manifest.digest)).unwrap();
            self.push_manifest(repository, &image.manifest.digest.to_string(), media::MANIFEST, bytes).await;
            let mut entry = image.manifest.clone();
            entry.platform = Some((&image.platform).into());
            manifests.push(entry);
        }
        let index = Index { schema_version: 2, media_type: media::INDEX.to_owned(), manifests };
        let bytes = serde_json::to_vec(&index).unwrap();
        let digest = Digest::of(&bytes);
        self.push_manifest(repository, tag, media::INDEX, bytes).await;
        self.proxy.forget();
        digest
    }

    /// Pushes an image of one platform without an index.
    pub async fn push_single(&self, name: &str, platform: &str) {
        self.push(name, &[platform], &[b"single"]).await;
        let (repository, tag) = name.split_once(':').unwrap();
        let url = |version: &str| format!("http://{}/v2/{repository}/manifests/{version}", self.proxy.host);
        let index: Index = {
            let answer = self.http.get(url(tag)).header("accept", media::INDEX).send().await.unwrap();
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
        };
        let child = index.manifests[0].digest.to_string();
        let answer = self.http.get(url(&child)).header("accept", media::MANIFEST).send().await.unwrap();
        let bytes = answer.bytes().await.unwrap().to_vec();
        self.push_manifest(repository, tag, media::MANIFEST, bytes).await;
        self.proxy.forget();
    }

    async fn push_blob(&self, repository: &str, digest: &Digest, store: &Store) {
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.proxy.host);
        let begun = self.http.post(url).send().await.unwrap().error_for_status().unwrap();
        let location = begun.headers()["location"].to_str().unwrap();
        let url = format!("{location}&digest={digest}");
        let url = if url.starts_with('/') { format!("http://{}{url}", self.proxy.host) } else { url };
        let bytes = std::fs::read(store.blob_path(digest)).unwrap();
        self.http.put(url).body(bytes).send().await.unwrap().error_for_status().unwrap();
    }

    async fn push_manifest(&self, repository: &str, version: &str, kind: &str, bytes: Vec<u8>) {
        let url = format!("http://{}/v2/{repository}/manifests/{version}", self.proxy.host);
        let request = self.http.put(url).header("content-type", kind).body(bytes);
        request.send().await.unwrap().error_for_status().unwrap();
    }

    /// devstack's images, with short patience and no waiting between attempts.
    pub fn images(&self, vars: Vars) -> Images {
        let at = |name: &str| self.dir.path().join(name);
        let dirs = Dirs { state: at("state"), cache: at("cache"), home: at("home") };
        let mut ctx = Context::real(dirs, vars, EventSink::null(), Options::default());
        ctx.clock = Arc::clone(&self.waits) as Arc<dyn Clock>;
        let limits = Limits {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(2),
            stall: Duration::from_millis(1500),
            attempts: 3,
            ..Limits::default()
        };
        Images::open(&ctx, None, runner(), limits).unwrap()
    }

    /// Writes docker's configuration into the home directory of [`World::images`].
    pub fn docker_config(&self, text: &str) {
        let dir = self.dir.path().join("home/.docker");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(Path::new(&dir).join("config.json"), text).unwrap();
    }
}

/// The digest of the lowest layer of an image whose first content this is.
pub fn lowest_layer(content: &[u8]) -> Digest {
    let scratch = tempfile::tempdir().unwrap();
    let store = Store::open(scratch.path()).unwrap();
    image(&store, "scratch:v1", &Platform::linux("amd64"), &[content]).layers.remove(0).digest
}

fn image(store: &Store, name: &str, platform: &Platform, layers: &[&[u8]]) -> StoredImage {
    let store_layer = |(number, content): (usize, &&[u8])| -> Descriptor {
        let mut layer = Layer::new();
        layer.file(&format!("/content-{number}"), Source::Bytes(content.to_vec()), 0o644).unwrap();
        layer.store(store).unwrap()
    };
    let layers = layers.iter().enumerate().map(store_layer).collect();
    let config = RunConfig { cmd: vec!["/content-0".to_owned()], ..RunConfig::default() };
    let spec = ImageSpec { reference: name.to_owned(), platform: platform.clone(), config, layers };
    assemble(store, &spec).unwrap()
}

/// Asks for one image by name, for `linux/amd64`.
pub fn request(reference: &str) -> Request {
    Request {
        roles: vec!["s3www".to_owned()],
        target: Target {
            platform: Platform::linux("amd64"),
            cpu: Some(CpuLevel::V2),
            kubernetes: KubeRange::default(),
            cgroup: Some(2),
        },
        named: BTreeMap::from([("s3www".to_owned(), reference.parse().unwrap())]),
        recorded: Vec::new(),
    }
}

/// Resolves one image that must be there.
pub async fn found(images: &Images, reference: &str) -> Choice {
    images.resolve(&request(reference), &BTreeSet::new(), false).await.unwrap().remove(0)
}

/// Resolves one image that must not be there.
pub async fn refused(images: &Images, reference: &str) -> Rejected {
    match images.resolve(&request(reference), &BTreeSet::new(), false).await {
        Err(ImageError::Unresolvable(Unresolvable::Roles(mut roles))) => roles.remove(0).rejected.remove(0),
        other => panic!("expected a refusal, got {other:?}"),
    }
}
