//! An environment on a cluster that devstack did not make, reached by its kubeconfig alone: no engine answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::change::{CONFIG, MORE, USES, VOLUME, write as write_profile};
use crate::harness::{BETTER_STORE, Ended, Foreign, Phases, Running, World, get, gif, output, sha256};

#[test]
fn a_cluster_of_somebody_else_is_used_and_given_back() {
    let mut phases = Phases::of("existing");
    let Some(foreign) = phases.run("a cluster of plain kind, three nodes", || Foreign::make("existing")) else {
        return phases.end();
    };
    let world = World::new("existing");
    let before = foreign.objects();
    phases.run("nothing is changed without consent, or in a dry run", || consent(&world, &foreign, &before));
    phases.run("a namespace that is there already is refused", || taken(&world, &foreign));
    phases.run("a killed up is taken back", || killed(&world, &foreign, &before));
    let up = phases.run("up", || up(&world, &foreign));
    if up.is_some() {
        phases.run("of nodes that differ the better ones get the better image", || differing(&foreign));
        phases.run("status, doctor and env ask no engine", || looks(&world, &foreign));
        phases.run("up again changes nothing", || again(&world, &foreign));
        if let Some(own) = phases.run("up of a profile of the user's own", || Own::new(&world, &foreign)) {
            phases.run("an object that is asked for no more goes, what took its place stays", || own.dropped_object());
            phases.run("a component that is asked for no more goes, data with consent", || own.dropped_component());
        }
        phases.run("a removed namespace comes back", || repaired(&world, &foreign));
        phases.run("another environment is refused", || second(&world, &foreign));
        phases.run("another cluster is refused", || other_cluster(&world, &foreign));
    }
    if up.is_some() {
        phases.run("down asks for what somebody put into its namespaces", || theirs(&world, &foreign));
    }
    phases.run("down gives the cluster back as it was", || {
        let ended = foreign.run(&world, &["down"]).expect(0);
        assert_eq!(ended.last("result")["leftovers"], serde_json::json!([]), "{}", ended.story());
        same(&foreign, &before);
        world.is_clean();
        eprintln!("    down {:.1} s", ended.seconds);
    });
    phases.end();
}

/// Fails unless the cluster is what it was.
#[track_caller]
fn same(foreign: &Foreign, before: &BTreeMap<String, String>) {
    let difference = foreign.difference(before);
    assert!(difference.is_empty(), "the cluster is not what it was: {difference:#?}");
}

fn consent(world: &World, foreign: &Foreign, before: &BTreeMap<String, String>) {
    let machine = world.look();
    let context = foreign.context();
    let dry = foreign.run(world, &["up", "--dry-run", "--context", &context]).expect(0);
    let changes = dry.changes();
    assert!(changes.iter().any(|change| change.starts_with("join adopt cluster https://")), "{changes:#?}");
    let held = format!(" its images run on {} alone", foreign.better_node());
    let held: Vec<&String> = changes.iter().filter(|change| change.ends_with(&held)).collect();
    assert!(held.len() == 1 && held[0].starts_with("minio create component minio, "), "{changes:#?}");
    let mut bare = world.bare(&["up", "--provider", "existing", "--context", &context, "-o", "json"]);
    bare.args(["--env", &world.env]);
    let ended = Running::start(foreign.without_engine(world, bare)).end().expect(5);
    assert!(ended.story().contains(&server(foreign)), "the server is not shown: {}", ended.story());
    let unknown = foreign.run(world, &["up", "--context", "no-such-context"]).expect(2);
    assert!(unknown.story().contains(&context), "{}", unknown.story());
    assert_eq!(world.difference(&machine), Vec::<String>::new());
    same(foreign, before);
}

/// A workload of somebody else in a namespace that devstack made: it goes with it, which takes consent.
fn theirs(world: &World, foreign: &Foreign) {
    foreign.kubectl(&["create", "deployment", "theirs", "-n", "minio", "--image=none.example/none", "--replicas=0"]);
    let (machine, before) = (world.look(), foreign.objects());
    let mut bare = world.bare(&["down", "-o", "json"]);
    bare.args(["--env", &world.env]);
    let ended = Running::start(foreign.without_engine(world, bare)).end().expect(5);
    assert!(ended.story().contains("Deployment minio/theirs, which devstack did not make"), "{}", ended.story());
    assert_eq!(world.changed(&machine), Vec::<String>::new());
    same(foreign, &before);
}

fn server(foreign: &Foreign) -> String {
    foreign.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"])
}

fn taken(world: &World, foreign: &Foreign) {
    let machine = world.look();
    foreign.kubectl(&["create", "namespace", "minio"]);
    let before = foreign.objects();
    let ended = foreign.run(world, &["up", "--context", &foreign.context()]).expect(1);
    assert!(ended.story().contains("Namespace minio"), "{}", ended.story());
    same(foreign, &before);
    assert_eq!(world.difference(&machine), Vec::<String>::new());
    foreign.kubectl(&["delete", "namespace", "minio"]);
}

fn killed(world: &World, foreign: &Foreign, before: &BTreeMap<String, String>) {
    let mut running = Running::start(foreign.command(world, &["up", "--context", &foreign.context()]));
    assert!(
        running.until(|event| event["type"] == "step-started" && event["step"] == "publish"),
        "publish never began"
    );
    running.signal(Signal::KILL);
    running.end();
    assert!(!foreign.difference(before).is_empty(), "it was killed before it made anything");
    foreign.run(world, &["down"]).expect(0);
    same(foreign, before);
    world.is_clean();
}

/// Fails unless the endpoints that devstack calls proven serve the GIF.
#[track_caller]
fn serves(world: &World, ended: &Ended) {
    let endpoints = ended.last("result")["endpoints"].as_array().unwrap();
    assert!(!endpoints.is_empty(), "{}", ended.story());
    for endpoint in endpoints {
        let page = get(endpoint["url"].as_str().unwrap(), &world.hosts()).unwrap();
        assert_eq!((page.status, page.sha256), (200, sha256(&gif())), "{endpoint}");
    }
}

fn up(world: &World, foreign: &Foreign) {
    let ended = foreign.run(world, &["up", "--provider", "existing", "--context", &foreign.context()]).expect(0);
    serves(world, &ended);
    eprintln!("    up {:.1} s", ended.seconds);
    let kubeconfig = std::fs::read_to_string(world.kubeconfig()).unwrap();
    assert!(!kubeconfig.contains(&world.name()), "the user's kubeconfig was changed");
    let nodes = foreign.kubectl(&[
        "get",
        "pods",
        "-A",
        "-l",
        "dev.devstack.component",
        "-o",
        "jsonpath={.items[*].spec.hostNetwork}",
    ]);
    assert_eq!(nodes.trim(), "", "a pod takes ports of its node");
    let class = foreign.kubectl(&["get", "ingressclass", "-o", "json"]);
    assert!(!class.contains("\"is-default-class\": \"true\""), "{class}");
}

/// The object store is held to the node whose labels show a CPU that its first image runs on; what runs everywhere is held
/// to nothing.
fn differing(foreign: &Foreign) {
    let get = |what: &[&str]| -> Value {
        serde_json::from_str(&foreign.kubectl(&[&["get"], what, &["-o", "json"]].concat())).unwrap()
    };
    let pod = get(&["pod", "-n", "minio", "minio-0"]);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["image"], BETTER_STORE, "{container}");
    assert_eq!(pod["spec"]["nodeName"], foreign.better_node().as_str());
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = pod["spec"]["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"].to_string();
    assert!(terms.contains("feature.node.kubernetes.io/cpu-cpuid.AVX"), "{terms}");
    let everywhere = get(&["deployment", "-n", "s3www", "s3www"]);
    assert!(everywhere["spec"]["template"]["spec"]["affinity"].is_null(), "{everywhere}");
}

fn looks(world: &World, foreign: &Foreign) {
    let status = foreign.run(world, &["status"]).expect(0);
    let status = status.last("status");
    assert_eq!((&status["state"], status["nodes"].as_array().unwrap().len()), (&Value::from("ready"), 3), "{status}");
    let doctor = foreign.run(world, &["doctor"]).expect(0);
    assert_eq!(
        doctor.last("result")["findings"].as_array().unwrap().iter().filter(|one| one["severity"] == "error").count(),
        0
    );
    let env = foreign.run(world, &["env"]).expect(0);
    let file = env.last("env")["kubeconfig"].as_str().unwrap().to_owned();
    let mut kubectl = std::process::Command::new("kubectl");
    assert!(output(kubectl.args(["--kubeconfig", &file, "get", "namespaces"])).contains("s3www"));
}

fn again(world: &World, foreign: &Foreign) {
    let before = foreign.objects();
    let ended = foreign.run(world, &["up"]).expect(0);
    assert_eq!(ended.changes(), Vec::<String>::new());
    serves(world, &ended);
    same(foreign, &before);
}

/// A component of the user's own beside those of the profile.
struct Own<'a> {
    world: &'a World,
    foreign: &'a Foreign,
    directory: PathBuf,
    /// The cluster without it.
    before: BTreeMap<String, String>,
}

impl<'a> Own<'a> {
    fn new(world: &'a World, foreign: &'a Foreign) -> Self {
        // Of somebody else's, in a namespace of the environment's.
        foreign.kubectl(&["-n", "minio", "create", "configmap", "theirs", "--from-literal=colour=red"]);
        let own = Self { world, foreign, directory: world.aside.join("mine"), before: BTreeMap::new() };
        write_profile(&own.directory, "", &[VOLUME]);
        serves(world, &own.up());
        Self { before: foreign.objects(), ..own }
    }

    fn up(&self) -> Ended {
        self.foreign.run(self.world, &["up", &self.directory.display().to_string()]).expect(0)
    }

    fn dropped_object(&self) {
        write_profile(&self.directory, USES, &[CONFIG, MORE, VOLUME]);
        serves(self.world, &self.up());
        let before = self.foreign.objects();
        write_profile(&self.directory, USES, &[CONFIG, VOLUME]);
        let ended = self.up();
        assert_eq!(ended.changes(), ["prune remove 1 object ConfigMap notes/more is asked for no more"]);
        let difference = self.foreign.difference(&before);
        assert!(
            difference.len() == 1 && difference[0].starts_with("v1 ConfigMap notes more: Some("),
            "{difference:#?}"
        );
        // Somebody takes one away and makes another by its name; it is not this environment's any more.
        self.foreign.kubectl(&["-n", "notes", "delete", "configmap", "notes"]);
        self.foreign.kubectl(&["-n", "notes", "create", "configmap", "notes", "--from-literal=text=theirs"]);
        let before = self.foreign.objects();
        write_profile(&self.directory, USES, &[VOLUME]);
        assert_eq!(self.up().changes(), Vec::<String>::new());
        same(self.foreign, &before);
    }

    fn dropped_component(&self) {
        write_profile(&self.directory, "", &[VOLUME]);
        let before = self.foreign.objects();
        let mut bare = self.world.bare(&["up", &self.directory.display().to_string(), "-o", "json"]);
        bare.args(["--env", &self.world.env]);
        let refused = Running::start(self.foreign.without_engine(self.world, bare)).end().expect(5);
        assert!(refused.last("error").to_string().contains("volume notes/data (1Mi)"), "{}", refused.story());
        same(self.foreign, &before);
        let ended = self.up();
        let changes = ended.changes();
        assert!(changes.len() == 1 && changes[0].starts_with("prune remove component notes, "), "{changes:#?}");
        serves(self.world, &ended);
        same(self.foreign, &self.before);
    }
}

fn repaired(world: &World, foreign: &Foreign) {
    foreign.kubectl(&["delete", "namespace", "s3www"]);
    let status = foreign.run(world, &["status"]).expect(1);
    assert_eq!(status.last("status")["state"], "degraded");
    let ended = foreign.run(world, &["up"]).expect(0);
    assert!(ended.changes().iter().all(|change| change.starts_with("s3www ")), "{:#?}", ended.changes());
    serves(world, &ended);
}

fn second(world: &World, foreign: &Foreign) {
    let before = foreign.objects();
    let mut command = world.bare(&["up", "--context", &foreign.context(), "--yes", "-o", "json", "--env", "second"]);
    command.env("DEVSTACK_HOME", world.aside.join("second"));
    let ended = Running::start(foreign.without_engine(world, command)).end().expect(1);
    assert!(ended.story().contains("not this environment's"), "{}", ended.story());
    same(foreign, &before);
}

/// The journal is made to say that the environment is bound to another cluster: the one that answers is the wrong one.
fn other_cluster(world: &World, foreign: &Foreign) {
    let journal = world.state().join("environments").join(&world.env).join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let uid = foreign.uid();
    assert!(text.contains(&uid));
    write(&journal, &text.replace(&uid, "00000000-0000-0000-0000-000000000000"));
    let before = foreign.objects();
    for verb in ["up", "down", "status"] {
        let ended = foreign.run(world, &[verb]).expect(1);
        assert!(ended.story().contains("another cluster answers than the environment's own"), "{}", ended.story());
    }
    same(foreign, &before);
    write(&journal, &text);
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
