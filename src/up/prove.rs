//! The proof at the end of `up`: every URL is fetched from the host; and what a failed step is explained by.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use crate::access::verify::{self, Endpoint, Promise};
use crate::access::{hosts, incluster};
use crate::check;
use crate::cluster::Provider;
use crate::context::Context;
use crate::error::{Advise as _, ExitCode, Failure};
use crate::event::Event;
use crate::plan::{Plan, id, route_host, url};
use crate::ports::engine::EngineError;
use crate::ports::runner::RunError;
use crate::profile::{ResolvedRoute, Verification};
use crate::step::{LEFT_OUT, StepError, World};
use crate::up::Gathered;

/// How long an endpoint may take once everything behind it is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way in that every route has.
struct Entrance {
    /// What the endpoint's name ends with.
    suffix: &'static str,
    /// The domain of its host names; `None` where only the API server leads to the services themselves.
    domain: Option<&'static str>,
    port: u16,
    /// The address to dial, where names are not looked up.
    dial: Option<SocketAddr>,
}

impl Entrance {
    fn url(&self, gathered: &Gathered, route: &ResolvedRoute) -> String {
        let host = route_host(&gathered.world.environment, &gathered.profile.name, &route.host);
        match self.domain {
            Some(domain) => url(&format!("{host}.{domain}"), self.port, &route.path),
            None => {
                url(&format!("{}.{}{}", route.service, route.namespace, incluster::DOMAIN), route.port, &route.path)
            }
        }
    }
}

/// Whether the names are in the hosts file.
fn has_names(outputs: &BTreeMap<String, Value>) -> bool {
    outputs.get(id::HOSTS).is_some_and(|given| given[LEFT_OUT].is_null())
}

/// The ways into a kind cluster: a port of the loopback address, and where the hosts file has names, what they point at.
fn published(gathered: &Gathered, outputs: &BTreeMap<String, Value>, balanced: bool) -> Vec<Entrance> {
    let port = gathered.ports.0;
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let mut entrances = vec![Entrance { suffix: "", domain: Some("localhost"), port, dial: Some(loopback) }];
    if has_names(outputs) {
        let port = if balanced { 80 } else { port };
        entrances.push(Entrance { suffix: "-test", domain: Some("test"), port, dial: None });
    }
    entrances
}

/// The way into a cluster whose ingress is not published on this host, as it was found.
fn found(gathered: &Gathered, outputs: &BTreeMap<String, Value>) -> Vec<Entrance> {
    let reach = outputs.get(id::REACH).cloned().unwrap_or_default();
    let address = reach["ingress"].as_str().and_then(|address| address.parse::<IpAddr>().ok());
    let address = address.zip(reach["port"].as_u64().and_then(|port| u16::try_from(port).ok()));
    let Some((ip, port)) = address else {
        let reason = reach["unreachable"].as_str().unwrap_or("it was given no address");
        gathered.world.ctx.events.warn(format!(
            "the ingress cannot be reached from this host ({reason}): services are proven through the API server, and \
             `kubectl port-forward` leads to them"
        ));
        return vec![Entrance { suffix: "", domain: None, port: 80, dial: None }];
    };
    let at = SocketAddr::new(ip, port);
    // Names below `localhost` need no entry anywhere.
    let (domain, dial) = match (ip.is_loopback(), has_names(outputs)) {
        (true, _) => ("localhost", Some(at)),
        (false, true) => ("test", None),
        (false, false) => {
            let why = match hosts::is_local(ip) {
                true => "the hosts file cannot be changed",
                false => "the hosts file gets no public address from devstack",
            };
            gathered.world.ctx.events.warn(format!("{why}: point the names at {ip} yourself"));
            ("test", Some(at))
        }
    };
    vec![Entrance { suffix: "", domain: Some(domain), port, dial }]
}

/// What the environment promises: each route under each of its names, and the profile's own requests.
///
/// # Errors
/// Where a value of the profile is not known; a defect after a run.
pub fn promises(gathered: &Gathered, plan: &Plan, outputs: &BTreeMap<String, Value>) -> Result<Vec<Promise>, Failure> {
    let mut scope = plan.scope.clone();
    let address = plan
        .ingress_address
        .as_ref()
        .and_then(|(service, step)| outputs.get(step)?.get(service)?.as_str()?.parse::<IpAddr>().ok());
    scope.set("network", outputs.get(id::NETWORK).cloned().unwrap_or_default());
    for component in &gathered.profile.components {
        let given = outputs.get(&id::ready(&component.name)).and_then(Value::as_object);
        for (service, address) in given.into_iter().flatten() {
            scope.set(&format!("services.{}.address", service.replace('/', ".")), address.clone());
        }
    }
    let entrances = match gathered.world.provider {
        _ if gathered.profile.routes.is_empty() => Vec::new(),
        Provider::Existing | Provider::Minikube => found(gathered, outputs),
        Provider::Kind => published(gathered, outputs, address.is_some()),
    };
    for route in &gathered.profile.routes {
        if let Some(entrance) = entrances.first() {
            let url = entrance.url(gathered, route);
            scope.set(&format!("routes.{}.url", route.name), url);
        }
    }
    let mut verifications = gathered.profile.verify(&scope)?;
    let mut promises: Vec<Promise> = Vec::new();
    for route in &gathered.profile.routes {
        let own = scope.get(&format!("routes.{}.url", route.name)).and_then(Value::as_str).unwrap_or_default();
        let wanted = verifications.iter().position(|one| one.url == own).map(|at| verifications.remove(at));
        let wanted = wanted.as_ref();
        for entrance in &entrances {
            promises.push(Promise {
                name: format!("{}{}", route.name, entrance.suffix),
                url: entrance.url(gathered, route),
                status: wanted.map_or(200, |one| one.status),
                sha256: wanted.and_then(|one| one.sha256.clone()),
                contains: wanted.and_then(|one| one.contains.clone()),
                dial: entrance.dial,
                shown: true,
            });
        }
    }
    for one in verifications {
        let promise = further(&promises, one);
        promises.push(promise);
    }
    Ok(promises)
}

/// A request of the profile beside those of the routes: what an URL answers may be asked in several ways, and the host
/// of a route is dialled as the route is.
fn further(promises: &[Promise], wanted: Verification) -> Promise {
    let of_host = promises.iter().find(|promise| host(&promise.url) == host(&wanted.url));
    let name = match promises.iter().filter(|promise| promise.url == wanted.url).count() {
        0 => format!("verify {}", wanted.url),
        before => format!("verify {} ({})", wanted.url, before + 1),
    };
    Promise {
        name,
        dial: of_host.and_then(|promise| promise.dial),
        url: wanted.url,
        status: wanted.status,
        sha256: wanted.sha256,
        contains: wanted.contains,
        shown: false,
    }
}

/// Scheme, host and port of a URL.
fn host(url: &str) -> &str {
    let begin = url.find("://").map_or(0, |at| at + 3);
    url[begin..].find('/').map_or(url, |end| &url[..begin + end])
}

/// Fetches everything that is promised, all at a time.
///
/// # Errors
/// A [`Failure`] that names the first endpoint that does not keep its promise, and why.
pub async fn prove(
    ctx: &Context,
    gathered: &Gathered,
    plan: &Plan,
    outputs: &BTreeMap<String, Value>,
) -> Result<Vec<Endpoint>, Failure> {
    let promises = promises(gathered, plan, outputs)?;
    verify::record(ctx, &gathered.world.dir, &promises).map_err(StepError::writing(&gathered.world.dir))?;
    let began = std::time::Instant::now();
    let step = "verify".to_owned();
    ctx.events.emit(Event::StepStarted { step: step.clone() });
    let patience = ctx.options.timeout.unwrap_or(PATIENCE);
    let kube = gathered.world.kube()?;
    let fetched = promises.iter().map(|promise| {
        let step = step.clone();
        let waiting = move |reason: &str| {
            let reason = format!("{}: {reason}", promise.url);
            ctx.events.emit(Event::StepWaiting { step: step.clone(), reason });
        };
        verify::fetch_until(ctx, Some(&*kube), promise, patience, waiting)
    });
    let fetched = tokio::select! {
        () = ctx.cancel.cancelled() => return Err(Failure::interrupted(true)),
        fetched = futures::future::join_all(fetched) => fetched,
    };
    let seconds = began.elapsed().as_secs_f64();
    if let Some(broken) = fetched.iter().find(|endpoint| !endpoint.ok) {
        let reason = broken.reason.clone().unwrap_or_default();
        ctx.events.emit(Event::StepFailed { step, error: format!("{}: {reason}", broken.url), seconds });
        return Err(Failure::new(ExitCode::Failed, format!("{} does not serve what it promises", broken.url))
            .cause(reason)
            .hint("devstack doctor")
            .kept("what was made; `devstack up` resumes here, `devstack down` removes it"));
    }
    let detail = format!("{0}/{0}", fetched.len());
    ctx.events.emit(Event::StepDone { step, detail, changed: false, seconds });
    let shown = |endpoint: &Endpoint| promises.iter().any(|promise| promise.shown && promise.name == endpoint.name);
    Ok(fetched.into_iter().filter(shown).collect())
}

/// All that an error knows: of a child process everything it wrote.
fn text_of(error: &StepError) -> String {
    match error {
        StepError::Run(RunError::Failed { stdout, stderr, .. }) => format!("{stderr}\n{stdout}"),
        other => crate::error::chain(other),
    }
}

/// What a failed step is explained by: its own findings, else what the known signatures read in its error. An error that
/// devstack met on this host knows its own cure.
pub async fn explain(world: &World, step: &str, error: StepError) -> Failure {
    let mut failure = Failure::new(error.exit(), format!("{step} failed")).cause(crate::error::chain(&error));
    // The programs that a step calls see only that a connection broke, and blame what they were waiting for.
    if world.provider == Provider::Kind
        && !error.is_of_this_host()
        && let Err(gone @ EngineError::NotRunning { .. }) = world.engine.info().await
    {
        let hint = gone.hint().unwrap_or_else(|| "devstack doctor".to_owned());
        return failure.cause(gone.to_string()).hint(hint).hint("then run `devstack up` again: it resumes here");
    }
    let findings = match &error {
        StepError::Wait { findings, .. } => findings.clone(),
        own if own.is_of_this_host() => Vec::new(),
        other => check::Signatures::builtin()
            .map(|signatures| signatures.diagnose(&text_of(other)).iter().map(check::Match::finding).collect())
            .unwrap_or_default(),
    };
    match findings.first() {
        Some(finding) => {
            failure = failure.cause(finding.cause.clone()).check(finding.id.clone());
            if !finding.evidence.is_empty() {
                failure = failure.proof(finding.evidence.clone());
            }
            for remedy in &finding.remedy {
                failure = failure.hint(remedy.clone());
            }
        }
        None => match error.hint() {
            Some(hint) => failure = failure.hint(hint),
            None => failure = failure.hint("devstack doctor"),
        },
    }
    if world.provider != Provider::Kind {
        return match world.identity() {
            Some(_) => {
                failure.kept("what was made in the cluster; `devstack up` resumes here, `devstack down` removes it")
            }
            None => failure,
        };
    }
    match world.nodes().await {
        Ok(nodes) if !nodes.is_empty() => {
            failure.kept("the cluster; `devstack up` resumes here, `devstack down` removes it")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::journal::Journal;
    use crate::ports::fake::{self, FakeClock, FakeEngine, FakeFs, FakeRunner};
    use crate::profile::{self, ProfileSource};
    use crate::up::machines::{decide, machines};

    #[tokio::test]
    async fn a_proof_knows_every_address_that_was_waited_for_and_the_pool() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let component = dir.path().join("components/app");
        std::fs::create_dir_all(&component).unwrap();
        let text = "apiVersion: devstack/v1\nkind: Component\nname: app\nready: [{service-address: web}]\n";
        std::fs::write(component.join("component.yaml"), text).unwrap();
        let text = "apiVersion: devstack/v1\nkind: Profile\nname: demo\ncomponents: [{use: app}]\n\
                    verify: [{get: \"http://${services.app.web.address}/${network.pool}\", status: 200}]\n";
        std::fs::write(dir.path().join("devstack.yaml"), text).unwrap();
        let source = ProfileSource::Dir(dir.path().to_path_buf());
        let (mut gathered, _) = decide(&machines()["linux-docker"], dir.path()).await.unwrap();
        gathered.profile = profile::load(&profile::Request::new(&source, &[], &json!({}))).unwrap();
        let journal = Journal::open(&gathered.world.dir, gathered.world.ctx.fs.clone()).unwrap();
        let plan = gathered.plan(&journal, BTreeMap::new()).unwrap();
        let outputs = BTreeMap::from([
            (id::NETWORK.to_owned(), json!({"pool": "10.0.0.7-10.0.0.9"})),
            (id::ready("app"), json!({"app/web": "10.0.0.7"})),
        ]);
        let promised = promises(&gathered, &plan, &outputs).unwrap();
        assert_eq!(promised[0].url, "http://10.0.0.7/10.0.0.7-10.0.0.9");
    }

    #[test]
    fn every_request_of_a_profile_is_made() {
        let dial = Some(SocketAddr::from(([10, 0, 0, 7], 80)));
        let url = "http://s3www.test:80/site.gif".to_owned();
        let mut promises = vec![Promise { name: "site".to_owned(), url: url.clone(), dial, ..Promise::default() }];
        let ask = |url: &str, text: &str| Verification {
            url: url.to_owned(),
            status: 200,
            sha256: None,
            contains: Some(text.to_owned()),
        };
        let asked = [
            ask(&url, "a"),
            ask(&url, "b"),
            ask("http://s3www.test:80/x", "c"),
            ask("http://x.svc.cluster.local/", "d"),
        ];
        for one in asked {
            let promise = further(&promises, one);
            promises.push(promise);
        }
        let made: Vec<_> = promises[1..].iter().map(|one| (&*one.name, one.contains.as_deref(), one.dial)).collect();
        assert_eq!(
            made,
            [
                ("verify http://s3www.test:80/site.gif (2)", Some("a"), dial),
                ("verify http://s3www.test:80/site.gif (3)", Some("b"), dial),
                ("verify http://s3www.test:80/x", Some("c"), dial),
                ("verify http://x.svc.cluster.local/", Some("d"), None),
            ]
        );
    }

    #[tokio::test]
    async fn an_engine_that_went_away_is_the_cause_and_not_what_broke_with_it() {
        let engine = FakeEngine::default();
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let world = World::new(&ctx, "demo", Arc::new(engine.clone()), Arc::new(FakeRunner::default()));
        let broken = || StepError::message("failed to init node with kubeadm: docker exec: exit status 255");
        let blamed = explain(&world, "cluster", broken()).await;
        engine.set_down(true);
        let seen = explain(&world, "cluster", broken()).await;
        assert_eq!((blamed.check.is_some(), seen.check.as_deref()), (true, None));
        assert!(seen.causes.last().is_some_and(|cause| cause.contains("engine")), "{seen:?}");
        assert!(seen.hints.iter().any(|hint| hint.contains("devstack up")), "{seen:?}");
    }
}
