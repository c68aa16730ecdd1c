//! Everything that is read before anything is changed: profile, facts, images, ports.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::access::hosts;
use crate::access::ports::{self, Reservation};
use crate::access::site::Site;
use crate::check::{self, ImageNeed, Needs};
use crate::cluster::kind::Adaptation;
use crate::cluster::minikube::MinikubeSpec;
use crate::cluster::{ClusterFacts, Provider, blobs, guard};
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::facts::{EngineFacts, Facts, HostFacts, Machine};
use crate::image::{Choice, Images, KubeVersion, Limits};
use crate::journal::Journal;
use crate::plan::{self, Delivery, Ground, Inputs, KindGround, Plan, Shared, Via};
use crate::ports::engine::Container;
use crate::profile::{self, ProfileSource, Resolved, Scope};
use crate::secrets::Credential;
use crate::step::{StepError, World};
use crate::up::credentials::hide;
use crate::up::measure::measure;
use crate::up::{Desired, choose, kubernetes, minikube, provider, shared};

/// The role of the node image.
pub const NODE_ROLE: &str = "node";

/// What `up` works with.
pub struct Gathered {
    /// The environment's world.
    pub world: World,
    /// The profile.
    pub profile: Resolved,
    /// The profile as it is recorded.
    pub source: String,
    /// `--nodes`, as the command line says it or an earlier one did.
    pub nodes_asked: Option<u8>,
    /// What was read.
    pub facts: Facts,
    /// The node image of a kind cluster.
    pub node: Option<Choice>,
    /// The cluster that devstack did not make, where it is on one.
    pub shared: Option<Shared>,
    /// What minikube is asked for, where it makes the cluster.
    pub minikube: Option<MinikubeSpec>,
    /// Workload images.
    pub choices: Vec<Choice>,
    /// Number of nodes.
    pub nodes: u8,
    /// Loopback ports of the ingress of a kind cluster.
    pub ports: (u16, u16),
    /// What keeps another `up` from choosing the same ports as long as this one runs; `None` where the cluster has them.
    pub reservation: Option<Reservation>,
    /// Sites by bucket.
    pub sites: BTreeMap<String, Site>,
    /// How the hosts file may get names.
    pub hosts: hosts::Access,
}

/// What the command line and the journal leave of the desired state.
pub(super) struct Settled {
    environment: Option<String>,
    source: ProfileSource,
    pub(super) recorded_source: String,
    pub(super) sets: Vec<(String, String)>,
    pub(super) nodes: Option<u8>,
}

fn settle(ctx: &Context, desired: &Desired) -> Result<Settled, Failure> {
    let recorded =
        |name: &str| -> Result<_, Failure> { Ok(Journal::open(&ctx.dirs.environment(name), ctx.fs.clone())?.opened()) };
    let (profile, sets, nodes, environment) = match (&desired.profile, &desired.environment) {
        (Some(profile), environment) => (profile.clone(), desired.sets.clone(), desired.nodes, environment.clone()),
        (None, Some(environment)) => match recorded(environment)? {
            Some(opened) => {
                let mut sets = opened.sets;
                sets.extend(desired.sets.iter().cloned());
                (opened.profile, sets, desired.nodes.or(opened.nodes), Some(environment.clone()))
            }
            None => (default_profile(ctx), desired.sets.clone(), desired.nodes, Some(environment.clone())),
        },
        (None, None) => match crate::environments::list(ctx)?.as_slice() {
            [] => (default_profile(ctx), desired.sets.clone(), desired.nodes, None),
            [only] => match recorded(only)? {
                Some(opened) => {
                    let mut sets = opened.sets;
                    sets.extend(desired.sets.iter().cloned());
                    (opened.profile, sets, desired.nodes.or(opened.nodes), Some(only.clone()))
                }
                None => (default_profile(ctx), desired.sets.clone(), desired.nodes, None),
            },
            several => return Err(crate::environments::ambiguous(several)),
        },
    };
    let source = ProfileSource::of(&profile);
    Ok(Settled { recorded_source: source.recorded(), environment, source, sets, nodes })
}

/// The loopback ports that an environment was opened with.
fn ports_of(journal: &Journal) -> Option<(u16, u16)> {
    let opened = journal.opened()?;
    Some((*opened.ports.get("http")?, *opened.ports.get("https")?))
}

/// The loopback ports of the ingress: those that the environment has or had, unless its cluster is not there, or only
/// half of it, and somebody else has taken them in the meantime; else a free pair that no other environment has.
fn ingress_ports(
    ctx: &Context,
    environment: &str,
    facts: &Facts,
    nodes: &[Container],
) -> Result<((u16, u16), Option<Reservation>), Failure> {
    let journal = Journal::open(&ctx.dirs.environment(environment), ctx.fs.clone())?;
    let recorded = ports_of(&journal);
    if let Some(ports) = recorded {
        let complete = !nodes.is_empty() && journal.outputs().contains_key(plan::id::CLUSTER);
        let publishes = |node: &Container| node.ports.iter().any(|(.., port)| *port == ports.0);
        if complete || nodes.iter().any(publishes) {
            return Ok((ports, None));
        }
    }
    if let Some(kept) = recorded.and_then(|ports| ports::keep(facts, ports)) {
        return Ok((kept.ports, Some(kept)));
    }
    let others = crate::environments::list(ctx)?.into_iter().filter(|name| name != environment);
    // A journal that cannot be read says nothing of ports; it is told of where its environment is asked for.
    let journals = others.filter_map(|name| Journal::open(&ctx.dirs.environment(&name), ctx.fs.clone()).ok());
    let taken = journals.filter_map(|journal| ports_of(&journal)).flat_map(|(http, https)| [http, https]).collect();
    let reservation = ports::choose(facts, &taken)?;
    Ok((reservation.ports, Some(reservation)))
}

/// `./devstack.yaml` where there is one, else the built-in that needs no thought.
fn default_profile(ctx: &Context) -> String {
    let own = PathBuf::from("./devstack.yaml");
    if matches!(ctx.fs.read(&own), Ok(Some(_))) { own.display().to_string() } else { "s3www".to_owned() }
}

/// Reads everything; changes nothing.
///
/// # Errors
/// A [`Failure`] with the exit code of the contract: invalid input 2, an engine that refuses this account 5, the rest 1.
pub async fn gather(ctx: &Context, desired: &Desired) -> Result<Gathered, Failure> {
    let settled = settle(ctx, desired)?;
    // A wrong profile is told before a missing engine.
    let name = load(ctx, &settled, &ClusterFacts::guess())?.name;
    let environment = settled.environment.clone().unwrap_or(name);
    crate::environments::environment_name(&environment).map_err(|why| {
        Failure::usage(format!("the profile's name `{environment}` cannot be the environment's: {why}"))
            .hint("give the environment a name of its own: devstack up --env NAME")
    })?;
    let opened = Journal::open(&ctx.dirs.environment(&environment), ctx.fs.clone())?.opened();
    let world = World::real(ctx, &environment);
    let provider = match provider::settle(&environment, desired, opened.as_ref())? {
        Some(provider) => provider,
        None => provider::auto(ctx, &*world.engine).await?,
    };
    let world = world.on(provider);
    match provider {
        Provider::Existing => shared::gather(ctx, desired, settled, world, opened.as_ref()).await,
        Provider::Minikube => minikube::gather(ctx, desired, settled, world).await,
        Provider::Kind => kind(ctx, desired, settled, world).await,
    }
}

/// What there is before a kind cluster is made.
async fn kind(ctx: &Context, desired: &Desired, settled: Settled, world: World) -> Result<Gathered, Failure> {
    let environment = world.environment.clone();
    let machine = Machine::ask(&[("cache", &ctx.dirs.cache), ("state", &ctx.dirs.state)]);
    let (host, info) = tokio::join!(HostFacts::read(machine, &*ctx.fs, &*world.runner), world.engine.info());
    let info = info?;
    let engine = EngineFacts::of(info, &host);
    let mut facts = Facts { source: None, host, engine: Some(engine), nodes: Vec::new() };
    let profile = load(ctx, &settled, &cluster_facts(&facts))?;
    let images = Images::open(ctx, Some(world.engine.clone()), world.runner.clone(), Limits::default())?;
    let world = world.with_images(images);
    let sites = sites(&profile)?;
    let nodes = profile.cluster.nodes;
    let there = world.nodes().await?;
    guard::at_home(&world, &there).await?;
    // What runs has shown that it can.
    let nothing_runs = there.iter().all(|node| node.state != "running");
    if nothing_runs {
        refuse_machine(&facts)?;
    }
    if let Some(engine) = &mut facts.engine {
        measure(&world, engine, &there).await;
    }
    let target = choose::target(&profile, &facts)?;
    let on_nodes = choose::images_on_nodes(&world).await?;
    let choices = choose::choose(&world, &profile, &[NODE_ROLE], target.clone(), &on_nodes, desired.offline).await?;
    let (node, choices) = choose::split(choices)?;
    let node = choose::keep_node(&world, node, &there, &target);
    kubernetes::refuse(&profile, &node.version, "see which versions can be had: devstack image resolve node")?;
    let (ports, reservation) = ingress_ports(ctx, &environment, &facts, &there)?;
    let hosts = hosts::access(ctx, &*world.runner, &ctx.hosts_file()).await;
    if nothing_runs {
        let needs = beside(&there, needs(&environment, &profile, &node, &choices, ports));
        let inputs = check::gather(ctx, &*world.engine, &*world.runner, needs).await;
        if let Some(refusal) = check::refusal(&check::preflight(&inputs)) {
            return Err(refusal);
        }
    }
    Ok(Gathered {
        world,
        profile,
        source: settled.recorded_source,
        nodes_asked: settled.nodes,
        facts,
        node: Some(node),
        shared: None,
        minikube: None,
        choices,
        nodes,
        ports,
        reservation,
        sites,
        hosts,
    })
}

/// Refuses what no plan would work on, before images are looked for: of such an engine they could not be had.
pub(super) fn refuse_machine(facts: &Facts) -> Result<(), Failure> {
    let (host, engine) = (facts.host.clone(), facts.engine.clone().map(Ok));
    let inputs = check::Inputs { host, engine, ..check::Inputs::default() };
    check::refusal(&check::preflight(&inputs)).map_or(Ok(()), Err)
}

/// What a kind cluster on the machine of these facts will be.
pub(super) fn cluster_facts(facts: &Facts) -> ClusterFacts {
    let platform = facts.engine.as_ref().map(|engine| engine.platform.clone());
    ClusterFacts::own(Provider::Kind, facts.reachable().reachable, platform)
}

/// Loads the profile for a cluster.
pub(super) fn load(ctx: &Context, settled: &Settled, cluster: &ClusterFacts) -> Result<Resolved, Failure> {
    let facts = cluster.to_value();
    let request = profile::Request::new(&settled.source, &settled.sets, &facts);
    let guessed = cluster.is_guess();
    let profile = profile::load(&profile::Request { nodes: settled.nodes, fs: &*ctx.fs, guessed, ..request })?;
    hide(ctx, &profile, &Scope::new());
    Ok(profile)
}

pub(super) fn sites(profile: &Resolved) -> Result<BTreeMap<String, Site>, Failure> {
    let contents = profile.components.iter().flat_map(|component| &component.content);
    contents.map(|content| Ok((content.bucket.clone(), plan::site_of(&content.source)?))).collect()
}

/// Memory that a node takes besides its components: the control plane, the kubelet, the runtime.
const NODE_MEMORY: u64 = 768 << 20;

/// Space on the engine's disk that a node takes besides volumes: its writable layer and unpacked images.
const NODE_DISK: u64 = 2 << 30;

/// What this plan asks of the machine.
pub(super) fn needs(
    environment: &str,
    profile: &Resolved,
    node: &Choice,
    choices: &[Choice],
    ports: (u16, u16),
) -> Needs {
    let nodes = u64::from(profile.cluster.nodes);
    let image = |choice: &Choice| ImageNeed {
        role: choice.role.clone(),
        reference: choice.reference.clone(),
        level: Some(choice.cpu),
        missing: None,
    };
    Needs {
        environment: environment.to_owned(),
        kubernetes_minor: node.version.parse::<KubeVersion>().ok().map(|version| u32::from(version.minor)),
        memory: profile.memory() + nodes * NODE_MEMORY,
        cpus: 1,
        cache_disk: choices.iter().filter_map(|choice| choice.download_bytes).sum(),
        engine_disk: profile.disk() + nodes * NODE_DISK,
        ports: vec![ports.0, ports.1],
        subnets: Vec::new(),
        images: choices.iter().map(image).collect(),
    }
}

/// What is asked for where the environment has nodes, running or not: the room of theirs is taken already.
fn beside(there: &[Container], needs: Needs) -> Needs {
    if there.is_empty() { needs } else { Needs { engine_disk: 0, ..needs } }
}

impl Gathered {
    /// Records what was chosen, so that the next `up` asks nobody. What is recorded already stays as it is.
    ///
    /// # Errors
    /// What the file system said.
    pub fn record_choices(&self) -> Result<(), Failure> {
        let path = self.world.dir.join(choose::CHOICES);
        let recorded = choose::recorded_choices(&self.world);
        let record = Choice::record(self.all_choices(), &recorded);
        if record == recorded {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        Ok(self.world.ctx.fs.write(&path, &text, 0o600).map_err(StepError::writing(&path))?)
    }

    /// Every image that was chosen.
    pub fn all_choices(&self) -> impl Iterator<Item = &Choice> {
        let registry = match self.shared.as_ref().and_then(|shared| shared.delivery.as_ref()) {
            Some(Delivery { via: Via::Own(choice), .. }) => Some(&**choice),
            _ => None,
        };
        self.node.iter().chain(&self.choices).chain(registry)
    }

    /// The plan. For a dry run no credentials exist yet; the names stand for them.
    ///
    /// # Errors
    /// A defect of the plan.
    pub fn plan(&self, journal: &Journal, credentials: BTreeMap<String, Credential>) -> Result<Plan, Failure> {
        let engine = self.facts.engine.as_ref();
        let ground = match (&self.shared, &self.minikube, &self.node) {
            (Some(shared), ..) => Ground::Shared(Box::new(shared.clone())),
            (None, Some(spec), _) => Ground::Minikube(spec.clone()),
            (None, None, Some(node)) => Ground::Kind(Box::new(KindGround {
                node: node.clone(),
                nodes: self.nodes,
                adaptation: Adaptation {
                    no_sys_resource: engine.is_some_and(EngineFacts::needs_userns_adaptation),
                    cgroup_v1: engine.is_some_and(|engine| engine.cgroup() == 1),
                },
                blobs: engine.is_some_and(blobs::can_mount).then(|| self.world.dir.join("blobs")),
            })),
            (None, None, None) => {
                return Err(Failure::new(ExitCode::Failed, "there is no node image to make a cluster of"));
            }
        };
        let inputs = Inputs {
            environment: &self.world.environment,
            profile: &self.profile,
            ground,
            choices: self.choices.clone(),
            ports: self.ports,
            credentials,
            sites: self.sites.clone(),
            begun: journal.pending().iter().any(|(step, _)| step == plan::id::CLUSTER),
            before: journal.outputs(),
            kubeconfig: self.world.ctx.user_kubeconfig(),
            hosts: Some(self.world.ctx.hosts_file()),
        };
        let plan = plan::plan(&inputs);
        let plan = plan.map_err(|error| Failure::new(ExitCode::Failed, format!("the plan is wrong: {error}")))?;
        hide(&self.world.ctx, &self.profile, &plan.scope);
        Ok(plan)
    }

    /// One line that says what is coming.
    pub fn summary(&self) -> String {
        let (level, why, platform, place, version) = match (&self.shared, &self.minikube) {
            (None, Some(spec)) => (
                None,
                None,
                self.choices.first().map(|choice| choice.platform.to_string()).unwrap_or_default(),
                format!("minikube, {} driver", spec.driver.as_deref().unwrap_or("its own choice of")),
                spec.kubernetes.clone(),
            ),
            (Some(Shared { existing, .. }), _) => (
                existing.common.level,
                existing.common.why.clone(),
                existing.common.platform.clone().unwrap_or_else(|| "several architectures".to_owned()),
                format!("existing, {} ({})", existing.context, existing.identity.server),
                existing.version.clone(),
            ),
            (None, None) => {
                let target = self.facts.target().ok();
                (
                    target.as_ref().and_then(|target| target.level),
                    target.as_ref().and_then(|target| target.why.clone()),
                    target.and_then(|target| target.platform).unwrap_or_default(),
                    self.world.provider.to_string(),
                    self.node.as_ref().map(|node| node.version.clone()).unwrap_or_default(),
                )
            }
        };
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let level = level.map(|level| format!(", CPU level {level}{why}")).unwrap_or_default();
        let nodes = if self.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", self.nodes) };
        let name = if self.world.environment == self.profile.name {
            self.profile.name.clone()
        } else {
            format!("{} as {}", self.profile.name, self.world.environment)
        };
        format!("{name} · {place} · {nodes} · Kubernetes {version} · {platform}{level}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Opened, Record};
    use crate::ports::fake::{self, FakeClock, FakeFs};

    fn record(ctx: &Context, environment: &str, ports: (u16, u16)) {
        let opened = Opened {
            version: 1,
            environment: environment.to_owned(),
            provider: "kind".to_owned(),
            ports: BTreeMap::from([("http".to_owned(), ports.0), ("https".to_owned(), ports.1)]),
            ..Opened::default()
        };
        let journal = Journal::open(&ctx.dirs.environment(environment), ctx.fs.clone()).unwrap();
        journal.append(Record::Opened(opened)).unwrap();
    }

    #[test]
    fn room_is_asked_for_where_there_is_no_node_yet() {
        let needs = Needs { engine_disk: 3 << 30, cache_disk: 1, ..Needs::default() };
        let stopped = Container { state: "exited".to_owned(), ..Container::default() };
        assert_eq!(beside(&[], needs.clone()), needs);
        assert_eq!(beside(&[stopped], needs.clone()), Needs { engine_disk: 0, ..needs });
    }

    #[test]
    fn ports_are_kept_as_long_as_nobody_else_has_them() {
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let facts = Facts::default();
        let ports = |environment: &str, nodes: &[Container]| ingress_ports(&ctx, environment, &facts, nodes).unwrap();
        // Two worlds at the same moment: neither has written anything yet.
        let (first, second) = (ports("new", &[]), ports("newer", &[]));
        assert_ne!(first.0, second.0);
        // Nothing listens there while an environment is stopped, and still they are its own.
        record(&ctx, "stopped", first.0);
        drop(first);
        assert!(journal_ports(&ctx, "stopped") != ports("new", &[]).0);
        let free = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let own = (free(), free());
        record(&ctx, "own", own);
        let held = ports("own", &[]);
        assert_eq!(held.0, own);
        assert_ne!(ports("own", &[]).0, own, "another up has them reserved");
        drop(held);
        let listener = std::net::TcpListener::bind(("127.0.0.1", own.0)).unwrap();
        assert_ne!(ports("own", &[]).0, own, "its cluster is gone, and a program has taken them");
        let node = Container { ports: vec![(80, "127.0.0.1".to_owned(), own.0)], ..Container::default() };
        assert_eq!(ports("own", &[node]).0, own, "its own node listens there");
        drop(listener);
    }

    #[test]
    fn a_profiles_secrets_are_known_before_anything_is_told() {
        let fs = FakeFs::default();
        let ctx = fake::context(&fs, &FakeClock::default());
        fs.put(
            "/p/profile.yaml",
            "apiVersion: devstack/v1\nkind: Profile\nname: demo\n\
             parameters: {key: {type: secret, default: old-and-own}}\n\
             components:\n  - {use: app, with: {token: \"${key}-and-more\"}}\n\
             verify:\n  - {get: \"http://a.test/?key=${key}\", status: 200}\n",
            0o600,
        );
        let component = "apiVersion: devstack/v1\nkind: Component\nname: app\nparameters:\n  token: {type: secret}\n";
        fs.put("/p/components/app/component.yaml", component, 0o600);
        let settled = |sets: &[(&str, &str)]| {
            let sets = sets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            settle(&ctx, &Desired { profile: Some("/p/profile.yaml".to_owned()), sets, ..Desired::default() }).unwrap()
        };
        let facts = ClusterFacts::own(Provider::Kind, false, None);
        load(&ctx, &settled(&[]), &facts).unwrap();
        assert_eq!(ctx.redactor.apply("?key=old-and-own, old-and-own-and-more"), "?key=<redacted>, <redacted>");
        load(&ctx, &settled(&[("app.token", "given-here")]), &facts).unwrap();
        assert_eq!(ctx.redactor.apply("given-here, not there"), "<redacted>, not there");
    }

    #[test]
    fn an_address_is_missed_once_the_machine_is_known() {
        let fs = FakeFs::default();
        let ctx = fake::context(&fs, &FakeClock::default());
        fs.put(
            "/p/profile.yaml",
            "apiVersion: devstack/v1\nkind: Profile\nname: demo\n\
             components: [{use: metallb, when: \"${facts.reachable}\"}, {use: traefik}]\n\
             verify: [{get: \"http://${traefik.address}/\", status: 404}]\n",
            0o600,
        );
        let desired = Desired { profile: Some("/p/profile.yaml".to_owned()), ..Desired::default() };
        let loads = |facts: &ClusterFacts| load(&ctx, &settle(&ctx, &desired).unwrap(), facts).is_ok();
        assert!(loads(&ClusterFacts::guess()) && loads(&ClusterFacts::own(Provider::Kind, true, None)));
        assert!(!loads(&ClusterFacts::own(Provider::Kind, false, None)));
    }

    fn journal_ports(ctx: &Context, environment: &str) -> (u16, u16) {
        ports_of(&Journal::open(&ctx.dirs.environment(environment), ctx.fs.clone()).unwrap()).unwrap()
    }
}
