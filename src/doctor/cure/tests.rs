use super::*;
use crate::check::KubeContexts;
use crate::facts::{HostFacts, Inotify};
use crate::journal::Opened;
use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner, Fault};

const KUBECONFIG: &str = "/fake/home/.kube/config";
const CONTEXTS: &str = "apiVersion: v1\nkind: Config\ncurrent-context: work\n\
    clusters:\n- name: devstack-dead\n  cluster: {server: 'https://127.0.0.1:1'}\n- name: work\n  cluster: {server: 'https://w'}\n\
    users:\n- name: devstack-dead\n  user: {}\n- name: work\n  user: {}\n\
    contexts:\n- name: devstack-dead\n  context: {cluster: devstack-dead, user: devstack-dead}\n\
    - name: work\n  context: {cluster: work, user: work}\n";
const HOSTS: &str = "127.0.0.1 localhost\n# devstack dead begin\n127.0.0.1 a.test\n# devstack dead end\n";

struct Place {
    ctx: Context,
    fs: FakeFs,
    docker: FakeEngine,
    engine: Arc<dyn Engine>,
    sudo: FakeRunner,
    runner: Arc<dyn Runner>,
}

/// A laptop with the environment `live`, and what another one called `dead` left.
///
/// The lock of an environment is the system's own, so that the state is in a real directory.
fn place() -> (Place, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (fs, docker, sudo) = (FakeFs::default(), FakeEngine::default(), FakeRunner::default());
    let mut ctx = fake::context(&fs, &FakeClock::default());
    ctx.dirs.state = dir.path().to_path_buf();
    for name in ["live", "dead"] {
        std::fs::create_dir_all(ctx.dirs.environment(name)).unwrap();
    }
    fs.put(KUBECONFIG, CONTEXTS, 0o600);
    fs.put("/etc/hosts", HOSTS, 0o644);
    fs.put(limits::Limit::InotifyInstances.file(), "128\n", 0o644);
    fs.put(limits::Limit::InotifyWatches.file(), "1048576\n", 0o644);
    let opened = Opened {
        version: crate::journal::VERSION,
        environment: "live".to_owned(),
        provider: "kind".to_owned(),
        ..Opened::default()
    };
    Journal::open(&ctx.dirs.environment("live"), ctx.fs.clone()).unwrap().append(Record::Opened(opened)).unwrap();
    let place = Place { ctx, fs, engine: Arc::new(docker.clone()), docker, runner: Arc::new(sudo.clone()), sudo };
    (place, dir)
}

impl Place {
    fn inputs(&self) -> Inputs {
        let read = |limit| limits::read(&self.ctx, limit).unwrap().unwrap();
        let inotify =
            Inotify { instances: read(limits::Limit::InotifyInstances), watches: read(limits::Limit::InotifyWatches) };
        let has = |file: &str, word: &str| self.fs.text(file).unwrap().contains(word);
        let contexts = [("devstack-dead", has(KUBECONFIG, "devstack-dead")), ("work", true)];
        Inputs {
            host: HostFacts { inotify: Some(inotify), ..HostFacts::default() },
            clusters: Asked::Known(BTreeSet::from(["devstack-live".to_owned()])),
            contexts: Asked::Known(KubeContexts {
                file: KUBECONFIG.to_owned(),
                current: "work".to_owned(),
                servers: contexts
                    .into_iter()
                    .filter(|(_, there)| *there)
                    .map(|(name, _)| (name.to_owned(), String::new()))
                    .collect(),
            }),
            environments: vec!["live".to_owned()],
            hosts_blocks: Asked::Known(if has("/etc/hosts", "# devstack dead") {
                vec!["dead".to_owned()]
            } else {
                vec![]
            }),
            ..Inputs::default()
        }
    }

    async fn found(&self, only: Option<&str>) -> BTreeSet<Cure> {
        let orphans = check::orphans(&*self.engine, &["live".to_owned()]).await.unwrap();
        cures(&self.ctx, &self.inputs(), &Asked::Known(orphans), Some("live"), only)
    }

    /// Finds, treats and verifies; every question is answered with yes, but the one about a privilege with `sudo`.
    async fn fix(&self, sudo: bool) -> Vec<(Cure, Ended)> {
        let found = self.found(None).await;
        let ask = |_: Vec<String>, privilege: bool| {
            let refusal = || Failure::new(ExitCode::Consent, "consent is missing").hint("run it on a terminal");
            if privilege && !sudo { Err(refusal()) } else { Ok(()) }
        };
        let mut ended = treat(&self.ctx, &self.engine, &self.runner, found, &ask).await.unwrap();
        verify(&mut ended, &self.found(None).await);
        ended
    }

    fn journal(&self, environment: &str) -> String {
        self.fs.text(self.ctx.dirs.environment(environment).join("journal.jsonl")).unwrap_or_default()
    }
}

fn ends(ended: &[(Cure, Ended)]) -> Vec<(&str, &Ended)> {
    ended.iter().map(|(cure, end)| (cure.id(), end)).collect()
}

#[tokio::test]
async fn everything_is_cured_and_only_that() {
    let (place, _dir) = place();
    place.docker.add_kind_node("devstack-live", 0, "kind", &[]);
    place.docker.add_kind_node("devstack-busy", 0, "kind", &[]);
    let labels = [(crate::ports::engine::OWNER_LABEL.to_owned(), "dead".to_owned())].into();
    place.docker.create_network("devstack-dead", &labels).await.unwrap();
    let ended = place.fix(false).await;
    assert_eq!(
        ends(&ended),
        [
            ("cluster.context-stale", &Ended::Cured),
            ("hosts.block-stale", &Ended::Cured),
            ("env.leftovers", &Ended::Cured),
            ("host.inotify", &Ended::Cured),
        ]
    );
    assert_eq!(exit(ExitCode::Done, &ended), ExitCode::Done);
    let config = place.fs.text(KUBECONFIG).unwrap();
    assert!(!config.contains("devstack-dead") && config.contains("current-context: work"), "{config}");
    assert_eq!(place.fs.text("/etc/hosts").unwrap(), "127.0.0.1 localhost\n");
    let left = place.docker.inventory();
    assert!(!left.iter().any(|thing| thing.contains("dead")), "{left:?}");
    assert!(
        left.iter().any(|thing| thing.contains("busy")),
        "what may hold data is nobody's to remove unasked: {left:?}"
    );
    assert_eq!(place.fs.text(limits::Limit::InotifyInstances.file()).unwrap(), "512\n");
    assert_eq!(place.fs.text(limits::Limit::InotifyWatches.file()).unwrap(), "1048576\n", "it is high enough");
    assert_eq!(place.journal("dead"), "", "an environment that is gone leaves no directory");
    insta::assert_snapshot!(ended.iter().map(|(cure, end)| render(cure, end, Style::PLAIN)).collect::<String>(), @"
    cured  context devstack-dead out of /fake/home/.kube/config  [cluster.context-stale]
    cured  lines of dead out of /etc/hosts  [hosts.block-stale]
    cured  network devstack-dead of dead removed  [env.leftovers]
    cured  kernel limits raised to at least fs.inotify.max_user_instances 512, fs.inotify.max_user_watches 524288  [host.inotify]
             back   devstack down --env live
    ");
    insta::assert_snapshot!(to_value(&ended[3].0, &ended[3].1), @r#"{"environment":"live","id":"host.inotify","outcome":"cured","reason":null,"undone_by":"devstack down --env live","what":"kernel limits raised to at least fs.inotify.max_user_instances 512, fs.inotify.max_user_watches 524288"}"#);
}

#[tokio::test]
async fn down_takes_back_what_a_cure_changed_on_the_machine() {
    let (place, _dir) = place();
    place.fix(false).await;
    assert!(
        place.journal("live").contains(r#""undo":"kernel-limit","limit":"fs.inotify.max_user_instances","before":128"#)
    );
    let world = World::new(&place.ctx, "live", place.engine.clone(), place.runner.clone());
    let downed = down::take_back(&place.ctx, &world, Fate::Remove).await.unwrap();
    assert_eq!(downed.undone, ["kernel limit fs.inotify.max_user_instances, back to 128"]);
    assert_eq!(place.fs.text(limits::Limit::InotifyInstances.file()).unwrap(), "128\n");
}

#[tokio::test]
async fn a_cure_is_recorded_before_it_begins_and_down_finishes_it() {
    let (place, _dir) = place();
    // The intent is written, and then the disk is full.
    place.fs.break_at(2, Fault::ReadOnly);
    let cure = Cure::Context { file: KUBECONFIG.into(), environment: "dead".to_owned() };
    cure.carry_out(&place.ctx, &place.engine, &place.runner).await.unwrap_err();
    place.fs.repair();
    assert!(place.fs.text(KUBECONFIG).unwrap().contains("devstack-dead"));
    assert!(place.journal("dead").contains(r#""undo":"kube-context""#), "{}", place.journal("dead"));
    let world = World::new(&place.ctx, "dead", place.engine.clone(), place.runner.clone());
    down::take_back(&place.ctx, &world, Fate::Remove).await.unwrap();
    assert!(!place.fs.text(KUBECONFIG).unwrap().contains("devstack-dead"));
    // And where not even the intent can be written, nothing begins.
    let (place, _dir) = self::place();
    let before = place.fs.snapshot();
    place.fs.break_at(0, Fault::ReadOnly);
    assert!(cure.carry_out(&place.ctx, &place.engine, &place.runner).await.is_err());
    assert_eq!(place.fs.snapshot(), before);
}

#[tokio::test]
async fn without_consent_nothing_is_changed() {
    let (place, _dir) = place();
    let before = place.fs.snapshot();
    let asked = std::sync::Mutex::new(Vec::new());
    let ask = |what: Vec<String>, privilege: bool| {
        asked.lock().unwrap().push((what.len(), privilege));
        Err(Failure::new(ExitCode::Consent, "consent is missing"))
    };
    let refused = treat(&place.ctx, &place.engine, &place.runner, place.found(None).await, &ask).await.unwrap_err();
    assert_eq!(refused.exit, ExitCode::Consent);
    assert_eq!((place.fs.snapshot(), asked.into_inner().unwrap()), (before, vec![(3, false)]));
}

#[tokio::test]
async fn what_needs_root_is_asked_apart_and_goes_through_the_helper() {
    let (place, _dir) = place();
    for file in ["/etc/hosts".into(), limits::Limit::InotifyInstances.file()] {
        place.fs.deny(file);
    }
    place.sudo.prints(&["sudo"], "");
    let ended = place.fix(false).await;
    let left = Ended::Left { reason: "run it on a terminal".to_owned(), consent: true };
    let expected = [("cluster.context-stale", &Ended::Cured), ("hosts.block-stale", &left), ("host.inotify", &left)];
    assert_eq!(ends(&ended), expected);
    assert_eq!(exit(ExitCode::Done, &ended), ExitCode::Consent);
    assert_eq!(exit(ExitCode::Findings, &ended), ExitCode::Findings);
    // With consent sudo is called, and what it did not do is not believed.
    let ended = place.fix(true).await;
    let lines = place.sudo.lines();
    let ran = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(ran("hosts write-block --env dead --file /etc/hosts --remove"), "{lines:?}");
    assert!(ran("doctor set-limit fs.inotify.max_user_instances 512"), "{lines:?}");
    assert!(ended.iter().all(|(_, end)| matches!(end, Ended::Failed(_))), "{ended:?}");
    assert_eq!(exit(ExitCode::Done, &ended), ExitCode::Failed);
    assert!(!place.journal("live").contains("\"done\""), "{}", place.journal("live"));
}

#[tokio::test]
async fn what_cannot_be_done_is_told_and_left() {
    let (place, _dir) = place();
    place.fs.deny("/etc/hosts");
    let ended = place.fix(true).await;
    let Ended::Left { reason, consent: true } = &ended[1].1 else { panic!("{ended:?}") };
    assert_eq!(reason, "it needs root; as an account that may use sudo: devstack down --env dead");
    let unbooked = Cure::Inotify { environment: None };
    assert!(matches!(unbooked.way(&place.ctx, &*place.runner).await, Way::Blocked { privilege: false, .. }));
}

#[tokio::test]
async fn a_cure_that_did_not_help_is_not_believed() {
    let (place, _dir) = place();
    let found = place.found(Some("hosts.block-stale")).await;
    let mut ended: Vec<(Cure, Ended)> = found.iter().map(|cure| (cure.clone(), Ended::Cured)).collect();
    assert_eq!(ended.len(), 1, "only the check that was asked for");
    verify(&mut ended, &BTreeSet::new());
    assert_eq!(ended[0].1, Ended::Cured);
    verify(&mut ended, &found);
    assert!(matches!(&ended[0].1, Ended::Failed(reason) if reason.contains("the same again")));
}

#[test]
fn what_may_be_in_use_is_no_cure() {
    let (place, _dir) = place();
    let named = |inputs: &Inputs| {
        let found = cures(&place.ctx, inputs, &Asked::No, None, None);
        found.iter().map(Cure::id).collect::<Vec<_>>()
    };
    let mut inputs = Inputs { host: HostFacts::default(), ..place.inputs() };
    assert_eq!(named(&inputs), ["cluster.context-stale", "hosts.block-stale"]);
    inputs.elsewhere.insert("dead".to_owned());
    assert_eq!(named(&inputs), ["hosts.block-stale"], "the engine knows nothing of minikube's clusters");
    inputs.clusters = Asked::Known(BTreeSet::from(["devstack-dead".to_owned()]));
    assert_eq!(named(&inputs), Vec::<&str>::new(), "its cluster is there: its state is elsewhere");
    inputs.clusters = Asked::No;
    assert_eq!(named(&inputs), Vec::<&str>::new(), "nobody could tell");
}
