//! Checks of an environment that should run: nodes, API server, pods, clocks, endpoints; and of what has no owner.

use serde_json::Value;

use super::collect::{Depth, collect};
use super::explain::explain;
use super::gather::in_time;
use super::inputs::Asked;
use super::model::{Finding, Severity};
use super::preflight::Outcome;
use crate::error::Advise as _;
use crate::kube::ready::is_ready;
use crate::ports::engine::{Container, EngineError, KIND_CLUSTER_LABEL, OWNER_LABEL};
use crate::ports::kube::KubeError;
use crate::ports::{Engine, Kube};

/// One check of an environment.
#[derive(Debug, Clone, Copy)]
pub struct EnvironmentCheck {
    /// Stable and public.
    pub id: &'static str,
    /// What it makes sure of, in a few words.
    pub title: &'static str,
    /// The checks that have to pass before this one makes sense.
    pub needs: &'static [&'static str],
}

/// The checks of an environment, in order.
pub const ENVIRONMENT_CHECKS: &[EnvironmentCheck] = &[
    EnvironmentCheck { id: "env.nodes", title: "node containers run", needs: &["engine.socket-permission"] },
    EnvironmentCheck { id: "env.api", title: "the API server answers", needs: &["env.nodes"] },
    EnvironmentCheck { id: "time.clock-skew", title: "clocks of host and nodes agree", needs: &["env.nodes"] },
    EnvironmentCheck { id: "env.workloads", title: "every pod is ready", needs: &["env.api"] },
    EnvironmentCheck { id: "env.endpoints", title: "every URL keeps its promise", needs: &["env.workloads"] },
    EnvironmentCheck { id: "env.drift", title: "everything is as it was made", needs: &["env.nodes"] },
    EnvironmentCheck {
        id: "env.leftovers",
        title: "nothing is without an environment",
        needs: &["engine.socket-permission"],
    },
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
    /// That its cluster is in another engine than this one, where that is so.
    pub elsewhere: Option<&'a EngineError>,
    /// Its API server; why there is none, else.
    pub kube: Result<&'a dyn Kube, String>,
    /// Its URLs; unasked where nobody fetched them.
    pub endpoints: Asked<Vec<EndpointSeen>>,
    /// What is no longer as it was made, a line each.
    pub drift: Asked<Vec<String>>,
    /// The time.
    pub now: jiff::Timestamp,
    /// Whether its cluster is one whose nodes devstack did not make: then no engine is asked, and only what is the
    /// environment's own is looked at.
    pub shared: bool,
}

impl EnvironmentView<'_> {
    /// Runs the checks of this environment; a check whose need did not pass is skipped.
    pub async fn check(&self) -> Vec<(&'static str, &'static str, Outcome)> {
        let (nodes, containers) = self.nodes().await;
        let nodes_run = match &nodes {
            Outcome::Pass(_) => true,
            Outcome::Found(findings) => self.shared && !findings.iter().any(Finding::is_problem),
            Outcome::Skip(_) | Outcome::Crash(_) => false,
        };
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
            .map(|(check, outcome)| (check.id, check.title, outcome))
            .collect()
    }

    /// The nodes of a cluster that devstack did not make, as its API server tells.
    async fn shared_nodes(&self) -> Outcome {
        let kube = match &self.kube {
            Ok(kube) => kube,
            Err(reason) => return self.no_api(reason.clone()),
        };
        let nodes = match in_time(kube.list("v1", "Node", None, "")).await {
            Ok(Ok(nodes)) => nodes,
            Ok(Err(error)) => return self.no_api(error.to_string()),
            Err(late) => return self.no_api(late),
        };
        let name = |node: &Value| node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let bad: Vec<String> = nodes.iter().filter(|node| !is_ready(node)).map(name).collect();
        if bad.is_empty() {
            return Outcome::Pass(format!("{0}/{0}", nodes.len()));
        }
        let finding = Finding::warning("env.nodes", format!("{} of {} nodes are not ready", bad.len(), nodes.len()))
            .remedy("ask whoever runs the cluster; devstack did not make it")
            .evidence(bad.join(", "));
        Outcome::Found(vec![finding])
    }

    /// The namespaces that are the environment's own; none means all of them.
    async fn namespaces(&self, kube: &dyn Kube) -> Result<Vec<String>, KubeError> {
        if !self.shared {
            return Ok(Vec::new());
        }
        let own = kube.list("v1", "Namespace", None, &format!("{OWNER_LABEL}={}", self.name)).await?;
        Ok(own.iter().filter_map(|one| one["metadata"]["name"].as_str().map(str::to_owned)).collect())
    }

    async fn nodes(&self) -> (Outcome, Vec<Container>) {
        if self.shared {
            return (self.shared_nodes().await, Vec::new());
        }
        let label = format!("{KIND_CLUSTER_LABEL}=devstack-{}", self.name);
        let containers = match in_time(self.engine.containers(Some(&label))).await {
            Ok(Ok(containers)) => containers,
            Ok(Err(error)) => return (Outcome::Crash(error.to_string()), Vec::new()),
            Err(late) => return (Outcome::Crash(format!("the engine {late}")), Vec::new()),
        };
        let up = format!("devstack up --env {}", self.name);
        if containers.is_empty()
            && let Some(elsewhere) = self.elsewhere
        {
            let finding = Finding::error("env.nodes", elsewhere.to_string());
            return (Outcome::Found(vec![elsewhere.hint().into_iter().fold(finding, Finding::remedy)]), containers);
        }
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
                        .remedy(up.clone())
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

    fn no_api(&self, reason: String) -> Outcome {
        let finding = Finding::error("env.api", format!("the API server of {} does not answer", self.name));
        let finding = if self.shared {
            finding.remedy("see whether the cluster is there: kubectl cluster-info, with the context that it has")
        } else {
            finding
                .remedy(format!("devstack up --env {}", self.name))
                .remedy(format!("docker exec devstack-{}-control-plane crictl ps -a", self.name))
        };
        Outcome::Found(vec![finding.evidence(reason)])
    }

    async fn api(&self) -> Outcome {
        match &self.kube {
            Err(reason) => self.no_api(reason.clone()),
            Ok(kube) => match in_time(kube.version()).await {
                Ok(Ok(version)) => Outcome::Pass(version),
                Ok(Err(error)) => self.no_api(error.to_string()),
                Err(late) => self.no_api(late),
            },
        }
    }

    async fn clock(&self, nodes: &[Container]) -> Outcome {
        if self.shared {
            return Outcome::Skip("nothing is run on nodes that are not devstack's".to_owned());
        }
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
        let look = async {
            let namespaces = self.namespaces(kube).await?;
            if self.shared && namespaces.is_empty() {
                return Ok(None);
            }
            let namespaces: Vec<&str> = namespaces.iter().map(String::as_str).collect();
            collect(kube, &namespaces, Depth::Full, self.now).await.map(Some)
        };
        match in_time(look).await {
            Ok(Ok(None)) => {
                let finding = Finding::error("env.workloads", format!("nothing of {} is in the cluster", self.name))
                    .remedy(format!("devstack up --env {}", self.name));
                Outcome::Found(vec![finding])
            }
            Ok(Ok(Some(mut snapshot))) => {
                if self.shared {
                    // Somebody else's, of which `env.nodes` has told.
                    snapshot.nodes.clear();
                }
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

#[cfg(test)]
mod tests;
