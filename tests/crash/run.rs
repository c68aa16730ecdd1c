//! The world of fakes, and whole runs of `up` and `down` on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use devstack::access::hosts::Access;
use devstack::access::site::Site;
use devstack::access::verify::Endpoint;
use devstack::cluster::{ClusterFacts, Provider};
use devstack::context::{Context, Vars};
use devstack::down::{self, Downed};
use devstack::error::Failure;
use devstack::event::{Event, EventSink};
use devstack::facts::{CpuLevel, EngineFacts, Facts};
use devstack::image::{Choice, Images, Limits, Source};
use devstack::journal::Journal;
use devstack::oci::{ImageSpec, Layer, Platform, RunConfig, Store, assemble};
use devstack::ports::engine::EngineImage;
use devstack::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner, Fault};
use devstack::ports::kube::ObjectKey;
use devstack::ports::{Clock, HostFs as _};
use devstack::profile::{self, ProfileSource, Resolved};
use devstack::step::World;
use devstack::undo::Fate;
use devstack::up::{self, Asks, Gathered, Sudo};
use serde_json::json;

use crate::cluster::{Cluster, NAME};
use crate::death::Death;
use crate::http;
use crate::mortal::{MortalEngine, MortalFs, MortalKube, MortalRunner};

/// The environment.
const ENVIRONMENT: &str = "crash";

/// Where the fakes keep the files of a user.
const KUBECONFIG: &str = "/fake/kube/config";
const HOSTS: &str = "/fake/etc/hosts";
const STATE: &str = "/fake/state";
const JOURNAL: &str = "/fake/state/environments/crash/journal.jsonl";

/// What does not change from run to run: real files that are only read, and the host's side of the site.
struct Ground {
    directory: tempfile::TempDir,
    profile: Resolved,
    choices: Vec<Choice>,
    /// Only the store is asked: everything is in it.
    images: Arc<Images>,
    node: Choice,
    ports: (u16, u16),
    /// What the load balancer gives away; `None` where this account may not listen on port 80.
    balancer: Option<Ipv4Addr>,
    served: Arc<Mutex<Option<Cluster>>>,
    /// One world at a time has the site's address.
    turn: Mutex<()>,
}

static GROUND: LazyLock<Ground> = LazyLock::new(ground);

fn choice(role: &str) -> Choice {
    Choice {
        role: role.to_owned(),
        version: "v1".to_owned(),
        reference: format!("registry.example.com/{role}:v1"),
        digest: None,
        platform: Platform::linux("amd64"),
        cpu: CpuLevel::V1,
        source: Source::Store,
        manifests: None,
        why: "it is in the store".to_owned(),
        rejected: Vec::new(),
        substitute: false,
        named_by_user: false,
        note: None,
        download_bytes: None,
        expect_seconds: None,
    }
}

fn ground() -> Ground {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let kind = directory.path().join("bin/kind");
    std::fs::create_dir(kind.parent().unwrap()).unwrap();
    std::fs::write(&kind, "").unwrap();
    std::fs::set_permissions(&kind, std::fs::Permissions::from_mode(0o755)).unwrap();
    let served = Arc::default();
    let balancer = Ipv4Addr::new(127, 44, 0, 1);
    let balancer = http::site(SocketAddr::from((balancer, 80)), Arc::clone(&served)).is_ok().then_some(balancer);
    let port = http::site(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Arc::clone(&served)).unwrap().port();
    let source = ProfileSource::of("s3www");
    let facts = ClusterFacts::own(Provider::Kind, balancer.is_some(), Some("linux/amd64".to_owned())).to_value();
    let profile = profile::load(&profile::Request::new(&source, &[], &facts)).unwrap();
    let roles: BTreeSet<&String> = profile.components.iter().flat_map(|component| component.images.values()).collect();
    let choices: Vec<Choice> = roles.into_iter().map(|role| choice(role)).collect();
    let store = Store::open(&directory.path().join("cache")).unwrap();
    let layers = vec![Layer::new().store(&store).unwrap()];
    for choice in &choices {
        let spec = ImageSpec {
            reference: choice.reference.clone(),
            platform: choice.platform.clone(),
            config: RunConfig::default(),
            layers: layers.clone(),
        };
        assemble(&store, &spec).unwrap();
    }
    let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    ctx.dirs.cache = directory.path().join("cache");
    let images = Images::open(&ctx, None, Arc::new(FakeRunner::default()), Limits::default()).unwrap();
    let images = Arc::new(images);
    Ground {
        directory,
        profile,
        choices,
        images,
        node: choice("node"),
        ports: (port, 1),
        balancer,
        served,
        turn: Mutex::default(),
    }
}

/// A clock that steps back whenever it is asked.
struct Backwards(FakeClock);

#[async_trait]
impl Clock for Backwards {
    fn now(&self) -> jiff::Timestamp {
        self.0.shift(jiff::SignedDuration::from_hours(-1));
        self.0.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.0.sleep(duration).await;
    }
}

/// What an `up` makes: objects of the cluster, things of the engine.
type Made = (Vec<ObjectKey>, Vec<String>);

/// A machine made of fakes, on which devstack runs as often as one likes.
pub struct Fakes {
    fs: FakeFs,
    engine: FakeEngine,
    cluster: Cluster,
    before: (BTreeMap<PathBuf, Vec<u8>>, Vec<String>),
    told: Arc<Mutex<Vec<String>>>,
    clock: Arc<dyn Clock>,
    _turn: MutexGuard<'static, ()>,
}

impl Fakes {
    /// A fresh machine.
    pub fn new() -> Self {
        let ground = &*GROUND;
        let turn = ground.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fs = FakeFs::default();
        fs.put(
            KUBECONFIG,
            "# mine\napiVersion: v1\nkind: Config\ncurrent-context: work\nclusters:\n- name: work\n  cluster:\n    server: https://work.example.com\ncontexts:\n- name: work\n  context:\n    cluster: work\n    user: me\nusers:\n- name: me\n  user:\n    token: abc\n",
            0o600,
        );
        fs.put(HOSTS, "127.0.0.1 localhost\n# mine", 0o644);
        let engine = FakeEngine::default();
        let platforms = vec![ground.node.platform.to_string()];
        engine.put_image(&ground.node.reference, EngineImage { platforms, ..EngineImage::default() });
        let references = ground.choices.iter().map(|choice| choice.reference.clone()).collect();
        let address = ground.balancer.map(|address| address.to_string()).unwrap_or_default();
        let cluster = Cluster::new(&engine, 1, references, address);
        *ground.served.lock().unwrap() = Some(cluster.clone());
        let before = (fs.snapshot(), engine.inventory());
        let clock = Arc::new(FakeClock::default());
        Self { fs, engine, cluster, before, told: Arc::default(), clock, _turn: turn }
    }

    /// From now on the clock is an hour earlier each time somebody looks at it.
    pub fn turn_clock_back(&mut self) {
        self.clock = Arc::new(Backwards(FakeClock::default()));
    }

    /// Takes away the right to write the hosts file, which every plan believes to have; gives its text.
    pub fn refuse_hosts(&self) -> String {
        self.fs.deny(HOSTS);
        self.hosts()
    }

    /// The hosts file.
    pub fn hosts(&self) -> String {
        self.fs.text(HOSTS).unwrap()
    }

    fn world(&self, death: &Death) -> (Context, World) {
        let mut ctx = fake::context(&self.fs, &FakeClock::default());
        let told = Arc::clone(&self.told);
        ctx.events = EventSink::new(move |event| {
            if !matches!(event, Event::StepProgress { .. } | Event::Plan { .. }) {
                told.lock().unwrap().push(format!("{event:?}"));
            }
        });
        ctx.clock = Arc::clone(&self.clock);
        ctx.fs = Arc::new(MortalFs(self.fs.clone(), death.clone()));
        ctx.dirs.cache = GROUND.directory.path().join("cache");
        let path = GROUND.directory.path().join("bin");
        ctx.vars =
            Vars::from([("PATH", path.to_str().unwrap()), ("KUBECONFIG", KUBECONFIG), ("DEVSTACK_HOSTS_FILE", HOSTS)]);
        // Fakes are quick; whatever waits for longer waits for what never comes.
        ctx.options.timeout = Some(Duration::from_secs(5));
        let engine = Arc::new(MortalEngine(self.engine.clone(), self.cluster.clone(), death.clone()));
        let runner = Arc::new(MortalRunner(self.cluster.clone(), self.engine.clone(), death.clone()));
        let (cluster, mortal) = (self.cluster.clone(), death.clone());
        let mut world = World::new(&ctx, ENVIRONMENT, engine, runner)
            .with_kube(Arc::new(move |_| Arc::new(MortalKube(cluster.clone(), mortal.clone()))));
        world.images = Some(Arc::clone(&GROUND.images));
        (ctx, world)
    }

    /// Runs `up` until its end or `death`; then there is no result.
    pub fn up_until(&self, death: &Death) -> Option<Result<Vec<Endpoint>, Failure>> {
        let ground = &*GROUND;
        let (ctx, world) = self.world(death);
        let gathered = Gathered {
            world,
            profile: ground.profile.clone(),
            source: "s3www".to_owned(),
            nodes_asked: None,
            facts: Facts {
                engine: Some(EngineFacts { platform: "linux/amd64".to_owned(), ..EngineFacts::default() }),
                ..Facts::default()
            },
            node: Some(ground.node.clone()),
            shared: None,
            minikube: None,
            choices: ground.choices.clone(),
            nodes: 1,
            ports: ground.ports,
            reservation: None,
            sites: BTreeMap::from([("site".to_owned(), Site::of_bytes("site.gif", b"GIF89a"))]),
            hosts: Access::Direct,
        };
        self.run(death, up::carry_out(&ctx, &gathered, Asks { consent: &|_| Ok(()), sudo: Sudo::Nobody }))
    }

    /// Runs `up` to its end.
    pub fn up(&self) -> Result<Vec<Endpoint>, Failure> {
        self.up_until(&Death::never()).unwrap()
    }

    /// Runs `down` until its end or `death`; then there is no result.
    pub fn down_until(&self, death: &Death) -> Option<Result<Downed, Failure>> {
        let (ctx, world) = self.world(death);
        self.run(death, down::take_back(&ctx, &world, Fate::Remove))
    }

    /// Runs `down` to its end.
    pub fn down(&self) -> Result<Downed, Failure> {
        self.down_until(&Death::never()).unwrap()
    }

    /// Fails unless everything is there that an `up` without interruption makes, once, and is recorded so.
    pub fn is_whole(&self) {
        static WHOLE: LazyLock<Mutex<Option<Made>>> = LazyLock::new(Mutex::default);
        let now = (self.cluster.kube.keys(), self.engine.inventory());
        let mut whole = WHOLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The first one that is looked at was made without an interruption: it is prepared as such.
        let whole = whole.get_or_insert_with(|| now.clone());
        assert_eq!(now, *whole);
        let journal = Journal::open(Path::new(JOURNAL).parent().unwrap(), Arc::new(self.fs.clone())).unwrap();
        assert!(journal.is_ready());
        assert_eq!(self.fs.text(format!("{KUBECONFIG}.lock")), None, "kubectl would refuse to change the kubeconfig");
        let half: Vec<_> =
            self.fs.snapshot().into_keys().filter(|path| path.to_str().unwrap().contains(".devstack-")).collect();
        assert!(half.is_empty(), "half-written files stay: {half:?}");
        let kubeconfig = self.fs.text(KUBECONFIG).unwrap();
        assert!(kubeconfig.contains("current-context: work") && kubeconfig.contains(NAME), "{kubeconfig}");
        let hosts = self.fs.text(HOSTS).unwrap();
        assert_eq!(hosts.matches("s3www.crash.test").count(), 1, "{hosts}");
        let bucket = self.cluster.bucket.lock().unwrap();
        assert_eq!(bucket.get("/site/site.gif").map(|(bytes, _)| bytes.as_slice()), Some(b"GIF89a".as_slice()));
    }

    /// Fails unless the journal holds how to take back all that is there.
    pub fn is_recorded(&self) {
        let journal = Journal::open(Path::new(JOURNAL).parent().unwrap(), Arc::new(self.fs.clone())).unwrap();
        let undone: Vec<String> = journal.pending().iter().map(|(_, undo)| undo.to_string()).collect();
        assert!(undone.len() >= 4, "{undone:?}");
    }

    /// Fails unless the machine is what it was at the beginning.
    pub fn is_clean(&self) {
        assert_eq!(self.engine.inventory(), self.before.1);
        let now = self.fs.snapshot();
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&now), names(&self.before.0));
        for (path, bytes) in &now {
            assert_eq!(
                String::from_utf8_lossy(bytes),
                String::from_utf8_lossy(&self.before.0[path]),
                "{}",
                path.display()
            );
        }
    }

    /// Puts another cluster in the place of the environment's: same nodes' names, same objects, another `kube-system`.
    pub fn replace_cluster(&self) {
        self.cluster.kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}));
    }

    /// The engine has started every node again at `time`; what pods say of themselves is from before.
    pub fn restart_nodes(&self, time: &str) {
        self.engine.set_started(time);
    }

    /// The nodes have looked at their pods and started them at `time`.
    pub fn start_pods(&self, time: &str) {
        self.cluster.start_pods(time);
    }

    /// The Jobs of the cluster give up.
    pub fn fail_jobs(&self) {
        self.run(&Death::never(), self.cluster.fail_jobs());
    }

    /// Everything that devstack could have changed.
    pub fn everything(&self) -> (Made, BTreeMap<PathBuf, Vec<u8>>, usize) {
        ((self.cluster.kube.keys(), self.engine.inventory()), self.fs.snapshot(), self.cluster.kube.applies())
    }

    /// The journal's bytes.
    pub fn journal(&self) -> Vec<u8> {
        self.fs.text(JOURNAL).unwrap_or_default().into_bytes()
    }

    /// Replaces the journal.
    pub fn set_journal(&self, bytes: &[u8]) {
        self.fs.put(JOURNAL, bytes, 0o600);
    }

    /// How often the disk was changed so far.
    pub fn writes(&self) -> usize {
        self.fs.writes()
    }

    /// The disk is full from the `nth` change on.
    pub fn fill_disk_at(&self, nth: usize) {
        self.fs.break_at(nth, Fault::Full);
    }

    /// How often a line was appended to the journal so far.
    pub fn appends(&self) -> usize {
        self.fs.appends()
    }

    /// The disk that holds the state, and nothing else, is full from the `nth` append on.
    pub fn fill_state_at_append(&self, nth: usize) {
        self.fs.fill_at_append(nth, STATE);
    }

    /// Somebody removes the state directory.
    pub fn remove_state(&self) {
        self.fs.remove_dir(Path::new(STATE)).unwrap();
    }

    /// The disk has space again.
    pub fn repair_disk(&self) {
        self.fs.repair();
    }

    fn run<T>(&self, death: &Death, work: impl Future<Output = T>) -> Option<T> {
        self.told.lock().unwrap().clear();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), death.outlive(work)).await });
        ended.unwrap_or_else(|_| panic!("it neither ends nor dies:\n{}", self.told.lock().unwrap().join("\n")))
    }
}
