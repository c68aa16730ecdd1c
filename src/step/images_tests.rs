use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::executor;
use crate::facts::{CpuFacts, CpuLevel};
use crate::graph::{Graph, Node};
use crate::image::{Images, Limits};
use crate::journal::Journal;
use crate::oci::{ImageSpec, RunConfig, assemble};
use crate::ports::Engine as _;
use crate::ports::engine::{EngineImage, EngineInfo, ExecOutput};
use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};
use crate::step::Step;

const IMAGE: &str = "registry.example/silo:1";

fn choice(cpu: &str, source: &str) -> Choice {
    serde_json::from_value(json!({
        "role": "object-store", "version": "1", "reference": IMAGE,
        "platform": "linux/amd64", "cpu": cpu, "source": {"from": source}, "why": "",
    }))
    .unwrap()
}

#[test]
fn the_weakest_node_decides() {
    let node = |name: &str, level| {
        let cpu = CpuFacts { level, ..CpuFacts::default() };
        NodeFacts { name: name.to_owned(), cpu, ..NodeFacts::default() }
    };
    let choices = [choice("x86-64-v1", "store"), choice("x86-64-v2", "store")];
    let (v1, v2) = (Some(CpuLevel::V1), Some(CpuLevel::V2));
    assert!(runs_on(&choices, &[node("a", v2), node("b", None)]).is_ok());
    let refused = runs_on(&choices, &[node("a", v2), node("b", v1)]).unwrap_err();
    assert!(refused.to_string().contains("needs a CPU of level x86-64-v2, and node b has only x86-64-v1"));
}

/// A cluster of one node, which keeps images from the import on that is `keeps_at`, counted from 1.
struct Place {
    world: World,
    engine: FakeEngine,
    imports: Arc<AtomicUsize>,
    looks: Arc<AtomicUsize>,
    _cache: tempfile::TempDir,
}

fn place(keeps_at: usize) -> Place {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cache = tempfile::tempdir().unwrap();
    let mut ctx = fake::context(&FakeFs::default(), &FakeClock::default());
    ctx.dirs.cache = cache.path().to_owned();
    let runner = Arc::new(FakeRunner::default());
    let images = Images::open(&ctx, None, runner.clone(), Limits::default()).unwrap();
    let platform = "linux/amd64".parse().unwrap();
    let spec = ImageSpec { reference: IMAGE.to_owned(), platform, config: RunConfig::default(), layers: Vec::new() };
    assemble(images.store(), &spec).unwrap();
    let engine = FakeEngine::default();
    let (imports, looks): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let there: Arc<Mutex<String>> = Arc::default();
    let (list, looked) = (there.clone(), looks.clone());
    engine.on_exec(&["ctr", "-n", "k8s.io", "images", "ls"], move |_, _, _| {
        looked.fetch_add(1, Ordering::SeqCst);
        ExecOutput { stdout: list.lock().unwrap().clone().into(), ..ExecOutput::default() }
    });
    let imported = imports.clone();
    engine.on_exec(&["ctr", "-n", "k8s.io", "images", "import"], move |_, _, archive| {
        assert!(!archive.is_empty());
        if imported.fetch_add(1, Ordering::SeqCst) + 1 >= keeps_at {
            IMAGE.clone_into(&mut there.lock().unwrap());
        }
        ExecOutput::default()
    });
    let world = World::new(&ctx, "demo", Arc::new(engine.clone()), runner).with_images(images);
    Place { world, engine, imports, looks, _cache: cache }
}

impl Place {
    async fn load(&self, settled: bool) -> Result<(), executor::RunFailure> {
        let name = self.world.reserved_name();
        if self.engine.containers(None).await.unwrap().is_empty() {
            self.engine.create_network(&name, &BTreeMap::new()).await.unwrap();
            self.engine.add_kind_node(&name, 0, &name, &[]);
        }
        let step = Step::Load(LoadStep { choices: vec![choice("x86-64-v1", "store")], blobs: None });
        let graph = Graph::new(vec![Node { id: "load".to_owned(), needs: BTreeSet::new(), step }]).unwrap();
        let journal = Journal::open(&self.world.dir, self.world.ctx.fs.clone()).unwrap();
        executor::run(&self.world.ctx, &self.world, &journal, &graph, settled).await.map(drop)
    }

    fn imported(&self) -> usize {
        self.imports.load(Ordering::SeqCst)
    }

    fn looked(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn images_that_a_node_took_and_lost_are_sent_again() {
    let place = place(3);
    place.load(false).await.unwrap();
    assert_eq!(place.imported(), 3);
    place.load(false).await.unwrap();
    assert_eq!(place.imported(), 3, "they are there");
}

#[tokio::test]
async fn a_node_that_never_keeps_them_is_given_up() {
    let place = place(usize::MAX);
    let failure = place.load(false).await.unwrap_err();
    let executor::RunFailure::Step { source, .. } = failure else { panic!("{failure:?}") };
    assert!(source.to_string().contains("it took the images, but registry.example/silo:1 is not there"), "{source}");
    assert_eq!(place.imported(), usize::try_from(ATTEMPTS).unwrap());
}

#[tokio::test]
async fn what_was_seen_a_moment_ago_is_not_looked_for_again() {
    let place = place(1);
    place.load(false).await.unwrap();
    let looked = place.looked();
    place.load(true).await.unwrap();
    let from = |source| LoadStep { choices: vec![choice("x86-64-v1", source)], blobs: None };
    assert_eq!(from("nodes").observe(&place.world).await.unwrap().action, Action::Leave);
    assert_eq!(place.looked(), looked, "seen when the image was chosen");
    assert_eq!(from("store").observe(&place.world).await.unwrap().action, Action::Leave);
    assert_eq!(place.looked(), looked + 1);
}

#[tokio::test]
async fn a_node_image_that_was_pulled_by_its_digest_is_found_by_its_name() {
    let (name, digest) = ("r.example/node:v1", format!("sha256:{}", "a".repeat(64)));
    let pull = format!("{name}@{digest}");
    let choice: Choice = serde_json::from_value(json!({
        "role": "node", "version": "v1.37.0", "reference": name, "platform": "linux/amd64", "cpu": "x86-64-v1",
        "digest": digest, "source": {"from": "registry", "pull": pull}, "why": "",
    }))
    .unwrap();
    let image = |platform: &str, digest: &str| EngineImage {
        platforms: vec![platform.to_owned()],
        repo_digests: vec![format!("r.example/node@{digest}")],
        ..EngineImage::default()
    };
    let other = format!("sha256:{}", "b".repeat(64));
    // The name leads to nothing, to another platform's image, as after `docker pull --platform`, or to another build.
    for taken in [None, Some(image("linux/arm64", &digest)), Some(image("linux/amd64", &other))] {
        let engine = FakeEngine::new(EngineInfo::default());
        engine.offer_image(&pull, image("linux/amd64", &digest));
        if let Some(taken) = &taken {
            engine.put_image(name, taken.clone());
        }
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let world = World::new(&ctx, "a", Arc::new(engine.clone()), Arc::new(FakeRunner::default()));
        let journal = Journal::open(&world.dir, ctx.fs.clone()).unwrap();
        let step = NodeImageStep { choice: choice.clone() };
        let node = Node { id: "node-image".to_owned(), needs: BTreeSet::new(), step: Step::NodeImage(step.clone()) };
        let graph = Graph::new(vec![node]).unwrap();

        assert_eq!(step.observe(&world).await.unwrap().action, Action::Create);
        let outputs = executor::run(&ctx, &world, &journal, &graph, false).await.unwrap();
        let made_of = outputs["node-image"]["reference"].as_str().unwrap();
        assert_eq!(made_of, if taken.is_some() { &pull } else { name });
        assert!(choice.is_called(made_of));
        if taken.is_some() {
            assert_eq!(engine.image(name).await.unwrap(), taken, "the name stays whose it was");
        }
        assert_eq!(step.observe(&world).await.unwrap().action, Action::Leave, "the next up has nothing to do");
    }
}
