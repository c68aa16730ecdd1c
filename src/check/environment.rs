//! Checks of an environment that should run: nodes, API server, pods, clocks, endpoints; and of what has no owner.

use std::collections::BTreeSet;

use super::collect::{Depth, collect};
use super::explain::explain;
use super::gather::in_time;
use super::inputs::Asked;
use super::model::{Finding, Severity};
use super::preflight::Outcome;
use crate::ports::engine::{Container, KIND_CLUSTER_LABEL, OWNER_LABEL};
use crate::ports::{Engine, Kube};

/// The checks of an environment, in order: id and what it makes sure of.
pub const ENVIRONMENT_CHECKS: &[(&str, &str)] = &[
    ("env.nodes", "node containers run"),
    ("env.api", "the API server answers"),
    ("time.clock-skew", "clocks of host and nodes agree"),
    ("env.workloads", "every pod is ready"),
    ("env.endpoints", "every URL keeps its promise"),
    ("env.drift", "everything is as it was made"),
    ("env.leftovers", "nothing is without an environment"),
];

/// Clocks may differ by this many seconds; S3 signatures allow 900, certificates are made a little early.
const SKEW: i64 = 300;

/// What a URL was seen to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointSeen {
    /// The URL.
    pub url: String,
    /// Where the chain name, address, port, status, body broke; `None` where the promise was kept.
    pub broken: Option<String>,
}

/// An environment, as far as it can be asked.
pub struct EnvironmentView<'a> {
    /// Its name.
    pub name: &'a str,
    /// The engine that its nodes run in.
    pub engine: &'a dyn Engine,
    /// Its API server; why there is none, else.
    pub kube: Result<&'a dyn Kube, String>,
    /// Its URLs; unasked where nobody fetched them.
    pub endpoints: Asked<Vec<EndpointSeen>>,
    /// What is no longer as it was made, a line each.
    pub drift: Asked<Vec<String>>,
    /// The time.
    pub now: jiff::Timestamp,
}

impl EnvironmentView<'_> {
    /// Runs the checks of this environment; a check whose need did not pass is skipped.
    pub async fn check(&self) -> Vec<(&'static str, &'static str, Outcome)> {
        let (nodes, containers) = self.nodes().await;
        let nodes_run = matches!(nodes, Outcome::Pass(_));
        let needs = |id: &str| Outcome::Skip(format!("needs {id}"));
        let (api, clock) = if nodes_run {
            tokio::join!(self.api(), self.clock(&containers))
        } else {
            (needs("env.nodes"), needs("env.nodes"))
        };
        let answers = matches!(api, Outcome::Pass(_));
        let workloads = if answers { self.workloads().await } else { needs("env.api") };
        let broken = matches!(&workloads, Outcome::Found(found) if found.iter().any(Finding::is_problem));
        let endpoints = match self.endpoints() {
            // Pods that do not run are the root of URLs that do not answer.
            Outcome::Found(_) if broken || !nodes_run => needs("env.workloads"),
            other => other,
        };
        ENVIRONMENT_CHECKS
            .iter()
            .zip([nodes, api, clock, workloads, endpoints, if nodes_run { self.drift() } else { needs("env.nodes") }])
            .map(|((id, title), o)| (*id, *title, o))
            .collect()
    }

    async fn nodes(&self) -> (Outcome, Vec<Container>) {
        let label = format!("{KIND_CLUSTER_LABEL}=devstack-{}", self.name);
        let containers = match in_time(self.engine.containers(Some(&label))).await {
            Ok(Ok(containers)) => containers,
            Ok(Err(error)) => return (Outcome::Crash(error.to_string()), Vec::new()),
            Err(late) => return (Outcome::Crash(format!("the engine {late}")), Vec::new()),
        };
        let up = format!("devstack up --env {}", self.name);
        if containers.is_empty() {
            let finding = Finding::error("env.nodes", format!("the cluster of {} is gone", self.name))
                .remedy(up)
                .remedy(format!("devstack down --env {}", self.name));
            return (Outcome::Found(vec![finding]), containers);
        }
        let findings: Vec<Finding> = containers
            .iter()
            .filter(|container| container.state != "running")
            .map(|container| {
                let evidence = format!("{} {}", container.name, container.state);
                if container.state == "paused" {
                    Finding::warning("env.nodes", format!("node {} is paused", container.name))
                        .remedy(format!("devstack resume --env {}", self.name))
                        .evidence(evidence)
                } else {
                    Finding::error("env.nodes", format!("node {} does not run", container.name))
                        .remedy(up.clone())
                        .evidence(evidence)
                }
            })
            .collect();
        let outcome = if findings.is_empty() {
            Outcome::Pass(format!("{0}/{0}", containers.len()))
        } else {
            Outcome::Found(findings)
        };
        (outcome, containers)
    }

    async fn api(&self) -> Outcome {
        let refused = |reason: String| {
            Outcome::Found(vec![
                Finding::error("env.api", format!("the API server of {} does not answer", self.name))
                    .remedy(format!("devstack up --env {}", self.name))
                    .remedy(format!("docker exec devstack-{}-control-plane crictl ps -a", self.name))
                    .evidence(reason),
            ])
        };
        match &self.kube {
            Err(reason) => refused(reason.clone()),
            Ok(kube) => match in_time(kube.version()).await {
                Ok(Ok(version)) => Outcome::Pass(version),
                Ok(Err(error)) => refused(error.to_string()),
                Err(late) => refused(late),
            },
        }
    }

    async fn clock(&self, nodes: &[Container]) -> Outcome {
        let Some(node) = nodes.first() else { return Outcome::Skip("no node".to_owned()) };
        let output = match in_time(self.engine.exec(&node.id, &["date", "+%s"], None)).await {
            Ok(Ok(output)) => output.text(),
            Ok(Err(error)) => return Outcome::Crash(error.to_string()),
            Err(late) => return Outcome::Crash(late),
        };
        let Ok(seconds) = output.trim().parse::<i64>() else {
            return Outcome::Skip("the node has no `date`".to_owned());
        };
        let skew = seconds - self.now.as_second();
        if skew.abs() <= SKEW {
            return Outcome::Pass("they agree".to_owned());
        }
        let way = if skew < 0 { "behind" } else { "ahead of" };
        let finding =
            Finding::error("time.clock-skew", format!("the engine's clock is {} s {way} the host's", skew.abs()))
                .remedy("restart the engine's virtual machine")
                .remedy("WSL: sudo hwclock -s")
                .evidence(format!("{} in {}", output.trim(), node.name));
        Outcome::Found(vec![finding])
    }

    async fn workloads(&self) -> Outcome {
        let Ok(kube) = self.kube else { return Outcome::Skip("needs env.api".to_owned()) };
        match in_time(collect(kube, &[], Depth::Full, self.now)).await {
            Ok(Ok(snapshot)) => {
                let mut findings = explain(&snapshot);
                let starting = findings.iter().filter(|finding| finding.severity == Severity::Info).count();
                findings.retain(|finding| finding.severity != Severity::Info);
                match (findings.is_empty(), starting) {
                    (false, _) => Outcome::Found(findings),
                    (true, 0) => Outcome::Pass(format!("{} pods", snapshot.pods.len())),
                    (true, starting) => Outcome::Pass(format!("{starting} are starting, as they should")),
                }
            }
            Ok(Err(error)) => Outcome::Crash(error.to_string()),
            Err(late) => Outcome::Crash(format!("the API server {late}")),
        }
    }

    fn drift(&self) -> Outcome {
        let lines = match &self.drift {
            Asked::Known(lines) => lines,
            Asked::No => return Outcome::Skip("nobody looked".to_owned()),
            Asked::Failed(reason) => return Outcome::Crash(reason.clone()),
        };
        let findings: Vec<Finding> = lines
            .iter()
            .map(|line| Finding::error("env.drift", line).remedy(format!("devstack up --env {}", self.name)))
            .collect();
        if findings.is_empty() { Outcome::Pass("nothing differs".to_owned()) } else { Outcome::Found(findings) }
    }

    fn endpoints(&self) -> Outcome {
        let seen = match &self.endpoints {
            Asked::Known(seen) => seen,
            Asked::No => return Outcome::Skip("nothing was promised".to_owned()),
            Asked::Failed(reason) => return Outcome::Crash(reason.clone()),
        };
        let findings: Vec<Finding> = seen
            .iter()
            .filter_map(|endpoint| Some((endpoint, endpoint.broken.as_ref()?)))
            .map(|(endpoint, reason)| {
                Finding::error("env.endpoints", format!("{} does not serve what it should", endpoint.url))
                    .remedy(format!("devstack up --env {}", self.name))
                    .evidence(reason.clone())
            })
            .collect();
        if findings.is_empty() { Outcome::Pass(format!("{0}/{0}", seen.len())) } else { Outcome::Found(findings) }
    }
}

/// What the engine holds of environments that have no state directory any more.
pub async fn leftovers(engine: &dyn Engine, environments: &[String]) -> Outcome {
    let asked = tokio::try_join!(
        engine.containers(None),
        engine.networks(Some(OWNER_LABEL)),
        engine.volumes(Some(OWNER_LABEL)),
    );
    let (containers, networks, volumes) = match asked {
        Ok(all) => all,
        Err(error) => return Outcome::Crash(error.to_string()),
    };
    let owner = |labels: &std::collections::BTreeMap<String, String>| {
        let cluster = labels.get(KIND_CLUSTER_LABEL).and_then(|name| name.strip_prefix("devstack-"));
        labels.get(OWNER_LABEL).map(String::as_str).or(cluster).map(str::to_owned)
    };
    let mut left: BTreeSet<(String, String)> = BTreeSet::new();
    let things = containers
        .iter()
        .map(|thing| (owner(&thing.labels), format!("container {}", thing.name)))
        .chain(networks.iter().map(|thing| (owner(&thing.labels), format!("network {}", thing.name))))
        .chain(volumes.iter().map(|thing| (owner(&thing.labels), format!("volume {}", thing.name))));
    for (owner, thing) in things {
        if let Some(owner) = owner.filter(|owner| !environments.contains(owner)) {
            left.insert((owner, thing));
        }
    }
    let owners: BTreeSet<&String> = left.iter().map(|(owner, _)| owner).collect();
    let findings: Vec<Finding> = owners
        .into_iter()
        .map(|name| {
            let things: Vec<&str> =
                left.iter().filter(|(own, _)| own == name).map(|(_, thing)| thing.as_str()).collect();
            Finding::warning("env.leftovers", format!("something of {name} is left, which has no state any more"))
                .remedy(format!("devstack down --env {name}"))
                .evidence(things.join(", "))
        })
        .collect();
    if findings.is_empty() { Outcome::Pass("nothing".to_owned()) } else { Outcome::Found(findings) }
}
