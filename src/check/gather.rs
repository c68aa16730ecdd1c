//! Reads what the rules look at. Everything is asked at once; an answer that does not come in time is no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::inputs::{Asked, EngineTrouble, Inputs, KubeContexts, Needs};
use crate::access::hosts;
use crate::cluster::Provider;
use crate::context::Context;
use crate::facts::{EngineFacts, HostFacts, Machine};
use crate::journal::{Journal, Opened, lock_holder};
use crate::ports::engine::{Container, EngineIdentity, KIND_CLUSTER_LABEL};
use crate::ports::{Engine, HostFs, Runner};
use crate::yaml;

/// The longest that one question may take.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads the machine, the engine and the user's files. Nothing is changed and nothing fails: what cannot be read is
/// in the answer.
pub async fn gather(ctx: &Context, engine: &dyn Engine, runner: &dyn Runner, needs: Needs) -> Inputs {
    let disks = [("cache", ctx.dirs.cache.as_path()), ("state", ctx.dirs.state.as_path())];
    let (host, info, networks, containers) = tokio::join!(
        HostFacts::read(Machine::ask(&disks), &*ctx.fs, runner),
        in_time(engine.info()),
        in_time(engine.networks(None)),
        in_time(engine.containers(None)),
    );
    let mut host = host;
    let engine = match info {
        Ok(Ok(info)) => Ok(EngineFacts::of(info, &host)),
        Ok(Err(error)) => Err(EngineTrouble::of(&error)),
        Err(late) => Err(EngineTrouble { permission: false, error: format!("the engine {late}") }),
    };
    if let Ok(facts) = &engine
        && facts.shares_host_kernel
    {
        let root = Path::new(&facts.info.root_dir);
        host.disks.extend(Machine::ask(&[("engine", root)]).disks);
    }
    let containers = flatten(containers);
    let clusters = match &containers {
        Asked::Known(all) => Asked::Known(clusters(all)),
        Asked::Failed(reason) => Asked::Failed(reason.clone()),
        Asked::No => Asked::No,
    };
    let own_ports: BTreeSet<u16> = match &containers {
        Asked::Known(all) if !needs.environment.is_empty() => {
            let cluster = format!("devstack-{}", needs.environment);
            let own = all.iter().filter(|container| container.labels.get(KIND_CLUSTER_LABEL) == Some(&cluster));
            own.flat_map(|container| container.ports.iter().map(|(_, _, port)| *port)).collect()
        }
        _ => BTreeSet::new(),
    };
    let mut busy_ports = BTreeMap::new();
    for port in needs.ports.iter().copied().filter(|port| !own_ports.contains(port)) {
        if let Some(holder) = holder_of(port, containers.known()).await {
            busy_ports.insert(port, holder);
        }
    }
    let environments = ctx.fs.list(&ctx.dirs.state.join("environments")).unwrap_or_default();
    let elsewhere = elsewhere(ctx, &environments, engine.as_ref().ok().map(|facts| &facts.info.identity));
    Inputs {
        host,
        engine: Some(engine),
        busy_ports,
        networks: flatten(networks),
        clusters,
        contexts: contexts(&*ctx.fs, &ctx.user_kubeconfig()),
        elsewhere,
        environments,
        hosts_blocks: hosts_blocks(&*ctx.fs, &ctx.hosts_file()),
        lock_holder: locked_by(ctx, &needs.environment),
        kind: kind(ctx),
        needs,
    }
}

/// An answer, or that it did not come in time.
pub(crate) async fn in_time<T>(question: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(PROBE_TIMEOUT, question)
        .await
        .map_err(|_| format!("did not answer within {} s", PROBE_TIMEOUT.as_secs()))
}

fn flatten<T, E: std::fmt::Display>(answer: Result<Result<T, E>, String>) -> Asked<T> {
    match answer {
        Ok(Ok(value)) => Asked::Known(value),
        Ok(Err(error)) => Asked::Failed(error.to_string()),
        Err(late) => Asked::Failed(late),
    }
}

/// Names of kind's clusters that have a container.
fn clusters(containers: &[Container]) -> BTreeSet<String> {
    containers.iter().filter_map(|container| container.labels.get(KIND_CLUSTER_LABEL).cloned()).collect()
}

/// Who holds a port of the loopback address; `None` where it is free. A port below 1024 that only root may bind
/// counts as free: the engine binds it.
async fn holder_of(port: u16, containers: Option<&Vec<Container>>) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let free = match tokio::net::TcpListener::bind(address).await {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    if free {
        return None;
    }
    let publisher = containers
        .into_iter()
        .flatten()
        .find(|container| container.ports.iter().any(|(_, _, host_port)| *host_port == port));
    Some(match publisher {
        Some(container) => format!("container {}", container.name),
        None => "a program of this machine".to_owned(),
    })
}

/// The contexts of a kubeconfig; an absent file has none.
fn contexts(fs: &dyn HostFs, file: &Path) -> Asked<KubeContexts> {
    let name = file.display().to_string();
    let bytes = match fs.read(file) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Asked::Known(KubeContexts { file: name, ..KubeContexts::default() }),
        Err(error) => return Asked::Failed(format!("cannot read {name}: {error}")),
    };
    let parsed = yaml::text(&name, &bytes).and_then(|text| yaml::parse_value(&name, text));
    let config = match parsed {
        Ok(marked) => marked.to_value(),
        Err(error) => return Asked::Failed(error.to_string()),
    };
    let text =
        |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| config.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let servers: BTreeMap<String, String> =
        list("clusters").iter().map(|cluster| (text(cluster, "/name"), text(cluster, "/cluster/server"))).collect();
    let of_contexts = list("contexts")
        .iter()
        .map(|context| {
            let server = servers.get(&text(context, "/context/cluster")).cloned();
            (text(context, "/name"), server.unwrap_or_else(|| "no server".to_owned()))
        })
        .collect();
    Asked::Known(KubeContexts { file: name, current: text(&config, "/current-context"), servers: of_contexts })
}

/// The environments whose journal names another provider than kind or another engine, or cannot be read.
fn elsewhere(ctx: &Context, environments: &[String], engine: Option<&EngineIdentity>) -> BTreeSet<String> {
    let is_here = |opened: &Opened| {
        let engines = opened.engine.as_ref().zip(engine);
        opened.provider == Provider::Kind.to_string() && engines.is_none_or(|(made_in, here)| made_in.is(here))
    };
    let on_kind = |name: &String| match Journal::open(&ctx.dirs.environment(name), ctx.fs.clone()) {
        Ok(journal) => journal.opened().is_none_or(|opened| is_here(&opened)),
        Err(_) => false,
    };
    environments.iter().filter(|name| !on_kind(name)).cloned().collect()
}

/// Environments whose block a hosts file has.
fn hosts_blocks(fs: &dyn HostFs, file: &Path) -> Asked<Vec<String>> {
    match fs.read(file) {
        Ok(bytes) => {
            Asked::Known(hosts::blocks(&bytes.unwrap_or_default()).into_iter().map(|(name, _)| name).collect())
        }
        Err(error) => Asked::Failed(format!("cannot read {}: {error}", file.display())),
    }
}

/// Another devstack that works on the environment. This one's own lock is no obstacle to itself.
fn locked_by(ctx: &Context, environment: &str) -> Option<String> {
    if environment.is_empty() {
        return None;
    }
    let holder = lock_holder(&ctx.dirs.environment(environment))?;
    (holder.pid != std::process::id()).then(|| holder.to_string())
}

/// How kind will be had: from `PATH`, or built by Go.
fn kind(ctx: &Context) -> Asked<String> {
    let find = |name: &str| which::which_in(name, ctx.vars.get("PATH"), "/").ok();
    let usual_go = Path::new("/usr/local/go/bin/go");
    match (find("kind"), find("go")) {
        (Some(path), _) => Asked::Known(path.display().to_string()),
        (None, Some(go)) => Asked::Known(format!("built from its module by {}", go.display())),
        (None, None) if usual_go.exists() => Asked::Known(format!("built from its module by {}", usual_go.display())),
        (None, None) => Asked::Failed("neither `kind` nor `go` is on PATH".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::hostfs::RealFs;

    #[test]
    fn contexts_of_a_kubeconfig() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        assert_eq!(contexts(&RealFs, &file).known().unwrap().servers.len(), 0);
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: kind-a\n\
            clusters:\n- {name: a, cluster: {server: 'https://127.0.0.1:1'}}\n\
            contexts:\n- {name: kind-a, context: {cluster: a, user: a}}\n- {name: lost, context: {cluster: gone}}\n";
        std::fs::write(&file, text).unwrap();
        let found = contexts(&RealFs, &file).known().cloned().unwrap();
        assert_eq!(found.current, "kind-a");
        assert_eq!(found.servers["kind-a"], "https://127.0.0.1:1");
        assert_eq!(found.servers["lost"], "no server");
        std::fs::write(&file, "a: [").unwrap();
        assert!(matches!(contexts(&RealFs, &file), Asked::Failed(_)));
    }

    #[test]
    fn an_engine_tells_nothing_of_what_is_in_another_one() {
        use crate::journal::Record;
        use crate::ports::fake::{self, FakeClock, FakeFs};
        let ctx = fake::context(&FakeFs::default(), &FakeClock::default());
        let engine = |name: &str| EngineIdentity { endpoint: format!("unix:///{name}.sock"), id: name.to_owned() };
        for (name, provider, made_in) in [
            ("here", "kind", Some(engine("a"))),
            ("there", "kind", Some(engine("b"))),
            ("old", "kind", None),
            ("shared", "existing", None),
        ] {
            let journal = Journal::open(&ctx.dirs.environment(name), ctx.fs.clone()).unwrap();
            let provider = provider.to_owned();
            let opened = Opened { version: 1, provider, engine: made_in, ..Opened::default() };
            journal.append(Record::Opened(opened)).unwrap();
        }
        let all = ["here", "there", "old", "shared"].map(str::to_owned);
        let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(elsewhere(&ctx, &all, Some(&engine("a"))), of(&["shared", "there"]));
        assert_eq!(elsewhere(&ctx, &all, None), of(&["shared"]));
    }

    #[test]
    fn blocks_of_a_hosts_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        std::fs::write(&file, "127.0.0.1 localhost\n# devstack a begin\n127.0.0.1 a.test\n# devstack a end\n").unwrap();
        assert_eq!(hosts_blocks(&RealFs, &file), Asked::Known(vec!["a".to_owned()]));
    }

    #[tokio::test]
    async fn a_port_that_is_held_is_busy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let containers = vec![Container {
            name: "web".to_owned(),
            ports: vec![(80, "127.0.0.1".to_owned(), port)],
            ..Container::default()
        }];
        assert_eq!(holder_of(port, None).await.unwrap(), "a program of this machine");
        assert_eq!(holder_of(port, Some(&containers)).await.unwrap(), "container web");
        drop(listener);
        assert_eq!(holder_of(port, Some(&containers)).await, None);
    }
}
