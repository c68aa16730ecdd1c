//! Tests of `down`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::cluster::Provider;
use crate::context::Vars;
use crate::journal::{Opened, Record, Undo};
use crate::ports::engine::{ContainerSpec, EngineIdentity, EngineImage, EngineInfo};
use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeKube, FakeRunner};
use crate::ports::hostfs::RealFs;
use crate::ports::kube::{INSTANCE_LABEL, Kube as _, ObjectKey};
use crate::ports::{Clock as _, Engine as _};

/// What is asked while this test runs, and a yes to it.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl Asked {
    async fn down(&self, world: &World, fate: Fate) -> Result<Downed, Failure> {
        let ask = |what: Vec<String>| {
            self.0.lock().unwrap().extend(what);
            Ok(())
        };
        agree_and_take_back(&world.ctx, world, fate, &ask).await
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

fn line(record: &Record) -> String {
    format!("{}\n", serde_json::to_string(record).unwrap())
}

fn opened(provider: Provider, engine: Option<EngineIdentity>) -> Record {
    let instance = provider.is_shared().then(|| "mark".to_owned());
    let (environment, provider) = ("demo".to_owned(), provider.to_string());
    Record::Opened(Opened { version: 1, environment, provider, instance, engine, ..Opened::default() })
}

fn object(kind: &str, name: &str, mark: Option<&str>) -> Value {
    let labels = mark.map_or_else(|| json!({}), |mark| json!({INSTANCE_LABEL: mark}));
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels}});
    if kind != "Namespace" {
        object["metadata"]["namespace"] = json!("a");
        object["apiVersion"] = json!("apps/v1");
    }
    object
}

fn namespace(name: &str) -> ObjectKey {
    ObjectKey::of(&object("Namespace", name, None)).unwrap()
}

/// The record of a namespace that is about to be made, or was.
fn made(name: &str, uid: Option<&str>) -> Record {
    let objects = vec![(namespace(name), uid.map(str::to_owned))];
    let undo = Undo::KubeObjects { kubeconfig: "/k".into(), context: "devstack-demo".to_owned(), objects };
    Record::Intent { step: "x".to_owned(), undo: vec![undo] }
}

/// An environment in a cluster that others use too, with this journal and the namespaces `a` and `b` in the cluster.
struct Shared {
    fs: FakeFs,
    clock: FakeClock,
    kube: FakeKube,
    world: World,
}

impl Shared {
    fn new(journal: &str) -> Self {
        let (fs, clock, kube) = (FakeFs::default(), FakeClock::default(), FakeKube::default());
        for one in [
            object("Namespace", "kube-system", None),
            object("Namespace", "theirs", Some("another")),
            object("Namespace", "a", Some("mark")),
            object("Namespace", "b", Some("mark")),
        ] {
            kube.put(one);
        }
        let mut ctx = fake::context(&fs, &clock);
        ctx.options.timeout = Some(Duration::from_millis(20));
        let opened = kube.clone();
        let world = World::new(&ctx, "demo", Arc::new(FakeEngine::default()), Arc::new(FakeRunner::default()))
            .on(Provider::Existing)
            .with_kube(Arc::new(move |_| Arc::new(opened.clone())));
        fs.put(world.kubeconfig(), "of the cluster", 0o600);
        fs.put(world.dir.join("secrets.json"), "{}", 0o600);
        fs.put(world.dir.join("journal.jsonl"), journal, 0o600);
        Self { fs, clock, kube, world }
    }

    /// One that recorded both of its namespaces.
    fn whole() -> Self {
        let records = [opened(Provider::Existing, None), made("a", None), made("b", None)];
        Self::new(&records.iter().map(line).collect::<String>())
    }

    async fn uid(&self, name: &str) -> String {
        let found = self.kube.get(&namespace(name)).await.unwrap().unwrap();
        found["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    fn namespaces(&self) -> Vec<String> {
        self.kube.keys().into_iter().filter(|key| key.kind == "Namespace").map(|key| key.name).collect()
    }

    fn is_clean(&self) {
        assert_eq!(self.namespaces(), ["kube-system", "theirs"]);
        assert_eq!(self.fs.snapshot().into_keys().collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

#[tokio::test]
async fn a_damaged_line_keeps_nothing_in_a_cluster_that_others_use_too() {
    // The line that told of `b` is lost.
    let bad = "\0\0\0\0\n".to_owned();
    let shared = Shared::new(&[line(&opened(Provider::Existing, None)), bad, line(&made("a", None))].concat());
    assert_eq!(World::real(&shared.world.ctx, "demo").provider, Provider::Existing);
    Asked::default().down(&shared.world, Fate::Remove).await.unwrap();
    shared.is_clean();
}

#[tokio::test]
async fn a_lost_first_line_is_made_up_for_by_the_cluster() {
    let shared = Shared::new("");
    let uid = shared.uid("a").await;
    let journal = format!("nonsense\n{}{}", line(&made("a", None)), line(&made("a", Some(&uid))));
    shared.fs.put(shared.world.dir.join("journal.jsonl"), journal, 0o600);
    assert_eq!(World::real(&shared.world.ctx, "demo").provider, Provider::Existing);
    Asked::default().down(&shared.world, Fate::Remove).await.unwrap();
    shared.is_clean();
}

#[tokio::test]
async fn a_damaged_journal_stays_until_everything_is_gone() {
    let shared =
        Shared::new(&format!("{}nonsense\n{}", line(&opened(Provider::Existing, None)), line(&made("a", None))));
    shared.kube.set_down(true);
    let before = shared.fs.snapshot();
    let failure = Asked::default().down(&shared.world, Fate::Remove).await.unwrap_err();
    assert!(failure.causes[0].contains("does not answer"), "{failure:?}");
    forget_untouched(&shared.world.ctx, &shared.world);
    assert_eq!(shared.fs.snapshot(), before);
}

#[tokio::test]
async fn without_an_engine_the_directory_stays_as_it_was() {
    fn files(dir: &Path) -> Vec<(PathBuf, String)> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let read = entries.filter(|path| !path.ends_with("lock"));
        let mut all: Vec<_> = read.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect();
        all.sort();
        all
    }
    let state = tempfile::tempdir().unwrap();
    let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    ctx.dirs.state = state.path().to_path_buf();
    ctx.fs = Arc::new(RealFs);
    ctx.vars = Vars::from([("DOCKER_HOST", "unix:///nonexistent/docker.sock")]);
    let dir = ctx.dirs.environment("demo");
    std::fs::create_dir_all(&dir).unwrap();
    for (name, text) in [("journal.jsonl", "nonsense\n"), ("kubeconfig", "k"), ("secrets.json", "{}")] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    let before = files(&dir);
    let failure = down(&ctx, "demo", Fate::Remove, &|_| Ok(())).await.unwrap_err();
    assert!(failure.message.starts_with("no container engine answers"), "{failure:?}");
    assert_eq!(files(&dir), before);
}

#[tokio::test]
async fn a_look_that_fails_lets_nothing_be_deleted() {
    for code in [403, 429, 504] {
        let shared = Shared::whole();
        shared.kube.put(object("Deployment", "theirs", None));
        shared.kube.refuse_list("Deployment", code);
        let (objects, files) = (shared.kube.keys(), shared.fs.snapshot());
        let asked = Asked::default();
        let failure = asked.down(&shared.world, Fate::Remove).await.unwrap_err();
        assert!(failure.message.contains("cannot be looked at"), "{failure:?}");
        assert!(failure.hints[0].ends_with("devstack down --env demo"), "{failure:?}");
        assert_eq!((shared.kube.keys(), shared.fs.snapshot()), (objects, files));
        assert_eq!(asked.all(), [""; 0]);
    }
    // A server without the kind has none of them.
    let shared = Shared::whole();
    shared.kube.put(object("StatefulSet", "theirs", None));
    shared.kube.refuse_list("CronJob", 404);
    let asked = Asked::default();
    asked.down(&shared.world, Fate::Remove).await.unwrap();
    assert_eq!(asked.all(), ["StatefulSet a/theirs, which devstack did not make"]);
    shared.is_clean();
}

#[tokio::test]
async fn what_is_in_a_cluster_that_is_gone_can_be_forgotten() {
    let shared = Shared::whole();
    let failure = Asked::default().down(&shared.world, Fate::Forget).await.unwrap_err();
    assert!(failure.message.contains("is not gone"), "{failure:?}");
    assert_eq!(failure.hints, ["devstack down --env demo"]);

    let shared = Shared::whole();
    shared.kube.set_down(true);
    let failure = Asked::default().down(&shared.world, Fate::Remove).await.unwrap_err();
    assert!(failure.hints[1].contains("devstack down --env demo --forget-cluster"), "{failure:?}");
    let asked = Asked::default();
    asked.down(&shared.world, Fate::Forget).await.unwrap();
    assert_eq!(asked.all(), ["Namespace a", "Namespace b"]);
    assert_eq!(shared.fs.snapshot().len(), 0);
}

#[tokio::test]
async fn what_was_in_the_cluster_that_another_has_replaced_can_be_forgotten() {
    let shared = Shared::whole();
    let journal = Journal::open(&shared.world.dir, shared.world.ctx.fs.clone()).unwrap();
    let outputs = json!({"cluster": {"uid": "4711", "server": "https://fake:6443"}});
    journal.append(Record::Done { step: "api".to_owned(), outputs }).unwrap();
    let failure = Asked::default().down(&shared.world, Fate::Remove).await.unwrap_err();
    assert!(failure.message.starts_with("another cluster answers"), "{failure:?}");
    assert!(failure.hints[0].contains("devstack down --forget-cluster"), "{failure:?}");
    let objects = shared.kube.keys();
    let asked = Asked::default();
    asked.down(&shared.world, Fate::Forget).await.unwrap();
    assert_eq!(asked.all(), ["Namespace a", "Namespace b"]);
    assert_eq!((shared.kube.keys(), shared.fs.snapshot().len()), (objects, 0));
}

#[tokio::test]
async fn what_does_not_go_is_not_asked_to_go_again_and_again() {
    let mut shared = Shared::whole();
    shared.world.ctx.options.timeout = Some(Duration::ZERO);
    shared.kube.put(json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pvc-1", "finalizers": ["kubernetes.io/pv-protection"]},
        "spec": {"claimRef": {"namespace": "b"}, "persistentVolumeReclaimPolicy": "Delete"},
    }));
    let began = shared.clock.now();
    let failure = Asked::default().down(&shared.world, Fate::Remove).await.unwrap_err();
    assert_eq!(failure.causes, ["PersistentVolume pvc-1: it waits for kubernetes.io/pv-protection"]);
    assert_eq!(shared.clock.now(), began, "another round mends nothing");
}

/// An environment of kind's that was made in the engine at `a`, on a machine whose engine is this one.
fn elsewhere(engine: &EngineIdentity) -> (FakeFs, World) {
    let made_in = EngineIdentity { endpoint: "unix:///a.sock".to_owned(), id: "A".to_owned() };
    let undo = vec![Undo::KindCluster { name: "devstack-demo".to_owned() }];
    let records = [opened(Provider::Kind, Some(made_in)), Record::Intent { step: "cluster".to_owned(), undo }];
    let fs = FakeFs::default();
    let ctx = fake::context(&fs, &FakeClock::default());
    let docker = FakeEngine::new(EngineInfo { identity: engine.clone(), ..EngineInfo::default() });
    let world = World::new(&ctx, "demo", Arc::new(docker), Arc::new(FakeRunner::default()));
    fs.put(world.dir.join("journal.jsonl"), records.iter().map(line).collect::<String>(), 0o600);
    (fs, world)
}

#[tokio::test]
async fn a_cluster_in_another_engine_is_not_taken_for_gone() {
    let engine = |endpoint: &str, id: &str| EngineIdentity { endpoint: endpoint.to_owned(), id: id.to_owned() };
    let other = engine("unix:///b.sock", "B");
    for other in [&other, &engine("unix:///b.sock", "")] {
        let (fs, world) = elsewhere(other);
        let before = fs.snapshot();
        let failure = Asked::default().down(&world, Fate::Remove).await.unwrap_err();
        for part in ["unix:///a.sock", "unix:///b.sock"] {
            assert!(failure.message.contains(part), "{failure:?}");
        }
        for part in ["DOCKER_HOST=unix:///a.sock", "--forget-cluster"] {
            assert!(failure.hints[0].contains(part), "{failure:?}");
        }
        assert_eq!(fs.snapshot(), before);
    }
    // By another name, or set up anew in its place, it is the same one.
    for same in [engine("unix:///b.sock", "A"), engine("unix:///a.sock", "B")] {
        let (fs, world) = elsewhere(&same);
        let refused = Asked::default().down(&world, Fate::Forget).await.unwrap_err();
        assert!(refused.message.contains("is not gone"), "{refused:?}");
        Asked::default().down(&world, Fate::Remove).await.unwrap();
        assert_eq!(fs.snapshot().len(), 0);
    }
    let (fs, world) = elsewhere(&other);
    let asked = Asked::default();
    asked.down(&world, Fate::Forget).await.unwrap();
    assert_eq!(asked.all(), ["kind cluster devstack-demo"]);
    assert_eq!(fs.snapshot().len(), 0);
}

#[tokio::test]
async fn a_container_that_a_killed_devstack_looked_at_the_cpu_in_is_taken_back() {
    let engine = FakeEngine::new(EngineInfo::default());
    engine.put_image("node:1", EngineImage::default());
    let spec = ContainerSpec {
        name: "devstack-demo-facts-7".to_owned(),
        image: "node:1".to_owned(),
        labels: [(OWNER_LABEL.to_owned(), "demo".to_owned())].into(),
        ..ContainerSpec::default()
    };
    engine.create_container(&spec).await.unwrap();
    let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    let world = World::new(&ctx, "demo", Arc::new(engine), Arc::new(FakeRunner::default()));
    let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
    assert_eq!(undo::leftovers(&world).await.unwrap(), ["container devstack-demo-facts-7"]);
    assert!(undo::undo_all(&world, &journal, Fate::Remove).await.failed.is_empty());
    assert_eq!(undo::leftovers(&world).await.unwrap(), [""; 0]);
}

#[test]
fn one_environment_that_stays_keeps_no_other_from_going() {
    let downed = |name: &str| Ok(Downed { environment: name.to_owned(), ..Downed::default() });
    let locked = || Err(Failure::new(ExitCode::Consent, "devstack 42 is at work on it").hint("wait"));
    let mut several = Several::default();
    several.add("a", locked()).unwrap();
    several.add("b", downed("b")).unwrap();
    several.add("c", Err(Failure::new(ExitCode::Failed, "no answer").cause("a timeout"))).unwrap();
    let failure = several.failure().unwrap();
    assert_eq!((failure.exit, failure.message.as_str()), (ExitCode::Consent, "a, c could not be taken down"));
    assert_eq!(failure.causes, ["a: devstack 42 is at work on it", "c: no answer", "c: a timeout"]);
    assert_eq!(failure.kept.as_deref(), Some("b taken down"));

    let mut alone = Several::default();
    alone.add("a", locked()).unwrap();
    assert_eq!(alone.failure().unwrap().message, "devstack 42 is at work on it");
    assert!(several.add("d", Err(Failure::interrupted(true))).is_err(), "nothing is begun after an interruption");
    let mut clean = Several::default();
    clean.add("a", downed("a")).unwrap();
    assert!(clean.failure().is_none());
}
