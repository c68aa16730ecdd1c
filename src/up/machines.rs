//! What `up --dry-run` says on machines that are not at hand: every file of `tests/facts`, with everything that its facts
//! decide, is compared with a recorded plan beside them. `INSTA_UPDATE=always cargo test --lib machines` records anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use super::choose::{request, split, target};
use super::gather::{NODE_ROLE, cluster_facts, needs, refuse_machine, sites};
use super::{Gathered, Sudo, consent, show};
use crate::access::hosts;
use crate::access::ports::{self, Probe};
use crate::check::{self, Asked, Inputs, Severity};
use crate::cluster::blobs;
use crate::context::Context;
use crate::error::Failure;
use crate::facts::{self, Facts};
use crate::image::{Availability, Choice, Images, Limits, RecipeState, Remote, resolve};
use crate::journal::Journal;
use crate::oci::Digest;
use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};
use crate::profile::{self, ProfileSource};
use crate::step::World;

const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/facts");

/// The machines by name, with what was read of each.
pub(super) fn machines() -> BTreeMap<String, Facts> {
    let files = std::fs::read_dir(FACTS).unwrap().map(|entry| entry.unwrap().path());
    let facts = files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let facts = facts::parse(&name, &std::fs::read_to_string(&path).unwrap()).unwrap();
        (name, facts)
    });
    facts.collect()
}

/// The machine's user: may sudo with a password, unless root.
fn context(facts: &Facts, cache: &Path) -> Context {
    let fs = FakeFs::default();
    if !facts.host.root {
        fs.deny("/etc/hosts");
    }
    let mut ctx = fake::context(&fs, &FakeClock::default());
    ctx.dirs.cache = cache.to_owned();
    ctx.options.interactive = true;
    ctx
}

/// A world in which every registry answers and has what the catalog says that it has, and Go is there for builds.
fn everything(images: &Images, roles: &[String]) -> Availability {
    let mut world = Availability::default();
    for release in roles.iter().flat_map(|role| &images.catalog().entry(role).unwrap().releases) {
        if let Some(build) = &release.build {
            let state = RecipeState { reference: format!("devstack.local/{}", build.recipe), ..RecipeState::default() };
            world.recipes.insert(build.recipe.clone(), RecipeState { seconds: Some(90), ..state });
        }
        for image in &release.images {
            let digest = image.digest.clone().unwrap_or_else(|| Digest::of(image.reference.to_string().as_bytes()));
            let pull = image.digest.as_ref().map_or_else(|| image.reference.clone(), |own| image.reference.pinned(own));
            world.remote.insert(pull, Ok(Remote { digest, bytes: 100 << 20 }));
        }
    }
    world
}

/// What an ordinary account finds of a port where nobody listens.
fn probe(facts: &Facts, port: u16) -> Probe {
    if port >= 1024 || facts.host.root { Probe::Free } else { Probe::Denied }
}

/// Everything that is decided before anything is changed, in the order in which [`super::gather`] decides it.
pub(super) async fn decide(facts: &Facts, cache: &Path) -> Result<(Gathered, Vec<check::Finding>), Failure> {
    let ctx = context(facts, cache);
    let runner = FakeRunner::default();
    runner.fails(&["sudo"], 1, "sudo: a password is required");
    let engine = facts.engine.clone().unwrap();
    let world = World::new(&ctx, "s3www", Arc::new(FakeEngine::new(engine.info.clone())), Arc::new(runner.clone()));
    refuse_machine(facts)?;
    let source = ProfileSource::of("s3www");
    let known = cluster_facts(facts).to_value();
    let profile = profile::load(&profile::Request::new(&source, &[], &known))?;
    let images = Images::open(&ctx, None, Arc::new(runner.clone()), Limits::default())?;
    let request = request(&profile, &[NODE_ROLE], target(&profile, facts)?, Vec::new())?;
    let available = everything(&images, &request.roles);
    let (node, choices) =
        split(resolve(images.catalog(), &request, &available).map_err(crate::image::ImageError::from)?)?;
    let privileged = ports::binds_low_ports(&engine);
    let ports = ports::pick(privileged, &|port| probe(facts, port), Some).unwrap();
    let hosts = hosts::access(&ctx, &runner, &ctx.hosts_file()).await;
    let inputs = Inputs {
        host: facts.host.clone(),
        engine: Some(Ok(engine)),
        needs: needs("s3www", &profile, &node, &choices, ports),
        kind: Asked::Known("kind".to_owned()),
        ..Inputs::default()
    };
    let findings = check::preflight(&inputs);
    if let Some(refusal) = check::refusal(&findings) {
        return Err(refusal);
    }
    let gathered = Gathered {
        world: world.with_images(images),
        sites: sites(&profile)?,
        nodes: profile.cluster.nodes,
        profile,
        source: "s3www".to_owned(),
        nodes_asked: None,
        facts: facts.clone(),
        node: Some(node),
        shared: None,
        minikube: None,
        choices,
        ports,
        reservation: None,
        hosts,
    };
    Ok((gathered, findings))
}

fn image(choice: &Choice) -> String {
    let mut line = format!("  {:22} {} from the {}\n", choice.role, choice.reference, choice.source.word());
    for rejected in &choice.rejected {
        writeln!(line, "  {:22} - not {}: {}", "", rejected.reference, rejected.reason).unwrap();
    }
    line
}

/// The plan as a text, with what it follows from.
async fn plan(facts: &Facts, cache: &Path) -> String {
    let (gathered, findings) = match decide(facts, cache).await {
        Ok(decided) => decided,
        Err(failure) => return refused(&failure),
    };
    let engine = facts.engine.as_ref().unwrap();
    let journal = Journal::open(&gathered.world.dir, gathered.world.ctx.fs.clone()).unwrap();
    let plan = gathered.plan(&journal, BTreeMap::new()).unwrap();
    let sudo = Sudo::Ask(&|_| Ok(()));
    let changes = show(&gathered.world.ctx, &gathered, &journal, &plan, sudo).await.unwrap();
    let mut text = format!("plan    {}\n", gathered.summary());
    let way = facts.reachable();
    writeln!(text, "way in  127.0.0.1:{} and {}", gathered.ports.0, gathered.ports.1).unwrap();
    let word = if way.reachable { "LoadBalancer addresses too" } else { "no LoadBalancer address" };
    writeln!(text, "        {word}: {}", way.why).unwrap();
    writeln!(
        text,
        "names   {}",
        match gathered.hosts {
            hosts::Access::Direct => "the hosts file is written",
            hosts::Access::Sudo { .. } => "the hosts file is written by sudo, after asking",
            hosts::Access::Unavailable => "the hosts file is left alone",
        }
    )
    .unwrap();
    let adapted = if engine.needs_userns_adaptation() { "do without CAP_SYS_RESOURCE" } else { "as kind makes them" };
    let layers = if blobs::can_mount(engine) { "linked" } else { "streamed" };
    writeln!(text, "nodes   {adapted}, image layers {layers}").unwrap();
    text.push_str("images\n");
    gathered.node.iter().chain(&gathered.choices).for_each(|choice| text.push_str(&image(choice)));
    text.push_str("changes\n");
    for change in &changes {
        let why = change.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        writeln!(text, "  {:?} {}: {}{why}", change.action, change.step, change.what).unwrap();
    }
    for reason in consent::reasons(&gathered, &changes) {
        writeln!(text, "asks    {reason}").unwrap();
    }
    for finding in findings.iter().filter(|finding| finding.severity != Severity::Info) {
        writeln!(text, "warns   {} [{}]", finding.cause, finding.id).unwrap();
        finding.remedy.iter().for_each(|remedy| writeln!(text, "  hint  {remedy}").unwrap());
    }
    text
}

fn refused(failure: &Failure) -> String {
    let mut text = format!("refused {}", failure.message);
    failure.check.iter().for_each(|id| write!(text, " [{id}]").unwrap());
    writeln!(text, ", exit {}", failure.exit.code()).unwrap();
    failure.causes.iter().for_each(|cause| writeln!(text, "  cause {cause}").unwrap());
    failure.hints.iter().for_each(|hint| writeln!(text, "  hint  {hint}").unwrap());
    text
}

#[tokio::test]
async fn every_machine_has_its_plan() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cache = tempfile::tempdir().unwrap();
    let machines = machines();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(format!("{FACTS}/plans"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (name, facts) in &machines {
        let text = plan(facts, cache.path()).await;
        settings.set_description(facts.source.clone().unwrap());
        settings.bind(|| insta::assert_snapshot!(name.clone(), text));
    }
    let recorded = std::fs::read_dir(format!("{FACTS}/plans")).unwrap().map(|entry| entry.unwrap().path());
    let recorded: BTreeSet<String> =
        recorded.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(recorded, machines.into_keys().collect(), "a plan of no machine");
}
