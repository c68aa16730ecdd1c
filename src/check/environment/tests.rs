//! Every check of an environment where its problem is, and where it is not.

use serde_json::json;

use super::*;
use crate::ports::engine::ExecOutput;
use crate::ports::fake::{FakeEngine, FakeKube};

const NOW: i64 = 1_800_000_000;

/// An environment of one node, as it is when `up` is done.
struct Place {
    engine: FakeEngine,
    elsewhere: Option<EngineError>,
    kube: FakeKube,
    node: String,
    reached: Result<(), String>,
    endpoints: Asked<Vec<EndpointSeen>>,
    drift: Asked<Vec<String>>,
    shared: bool,
}

fn clock(engine: &FakeEngine, seconds: i64) {
    engine.on_exec(&["date"], move |_, _, _| ExecOutput {
        status: 0,
        stdout: format!("{seconds}\n").into_bytes(),
        ..ExecOutput::default()
    });
}

fn pod(kube: &FakeKube, namespace: &str, ready: bool) {
    let ready = if ready { "True" } else { "False" };
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}});
    let running = json!({"running": {}});
    kube.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": "web-1"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [{
                "name": "web", "image": "web:1", "ready": ready == "True", "restartCount": 5,
                "state": if ready == "True" { running } else { waiting },
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
            }],
        },
    }));
}

fn namespace(kube: &FakeKube, labels: &Value) {
    kube.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo", "labels": labels}}));
}

fn well() -> Place {
    let (engine, kube) = (FakeEngine::default(), FakeKube::default());
    let node = engine.add_kind_node("devstack-demo", 0, "kind", &[]);
    clock(&engine, NOW + SKEW);
    pod(&kube, "demo", true);
    let seen = EndpointSeen { url: "http://demo.localhost:8080".to_owned(), broken: None };
    Place {
        engine,
        elsewhere: None,
        kube,
        node,
        reached: Ok(()),
        endpoints: Asked::Known(vec![seen]),
        drift: Asked::Known(Vec::new()),
        shared: false,
    }
}

/// The same on a cluster that devstack did not make.
fn shared() -> Place {
    let place = well();
    namespace(&place.kube, &json!({ OWNER_LABEL: "demo" }));
    place.kube.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }));
    Place { shared: true, ..place }
}

impl Place {
    async fn check(&self) -> Vec<(&'static str, Outcome)> {
        let kube: &dyn Kube = &self.kube;
        let view = EnvironmentView {
            name: "demo",
            engine: &self.engine,
            elsewhere: self.elsewhere.as_ref(),
            kube: self.reached.clone().map(|()| kube),
            endpoints: self.endpoints.clone(),
            drift: self.drift.clone(),
            now: jiff::Timestamp::from_second(NOW).unwrap(),
            shared: self.shared,
        };
        view.check().await.into_iter().map(|(id, _, outcome)| (id, outcome)).collect()
    }

    /// Each check that did not pass, in a word, and what the findings say.
    async fn told(&self) -> Vec<String> {
        let outcomes = self.check().await;
        outcomes.iter().filter_map(|(id, outcome)| tell(id, outcome)).collect()
    }
}

fn tell(id: &str, outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Pass(_) => None,
        Outcome::Skip(reason) => Some(format!("{id} - {reason}")),
        Outcome::Crash(reason) => Some(format!("{id} ? {reason}")),
        Outcome::Found(findings) => {
            assert!(findings.iter().all(|finding| !finding.remedy.is_empty()), "{findings:?}");
            Some(format!("{id} ! {}", findings.iter().map(|one| one.cause.as_str()).collect::<Vec<_>>().join("; ")))
        }
    }
}

#[tokio::test]
async fn where_all_is_well_every_check_passes() {
    let outcomes = well().check().await;
    assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Pass(_))), "{outcomes:?}");
    let ids: Vec<&str> = outcomes.iter().map(|(id, _)| *id).collect();
    let listed: Vec<&str> =
        ENVIRONMENT_CHECKS.iter().map(|check| check.id).filter(|id| *id != "env.leftovers").collect();
    assert_eq!(ids, listed);
    assert_eq!(shared().told().await, ["time.clock-skew - nothing is run on nodes that are not devstack's"]);
}

#[tokio::test]
async fn nodes_that_are_gone_stopped_or_paused() {
    let place = well();
    let waits = |first: &str| {
        let rest = ["env.api", "time.clock-skew"].map(|id| format!("{id} - needs env.nodes"));
        let mut all = vec![first.to_owned()];
        all.extend(rest);
        all.extend(["env.workloads - needs env.api".to_owned(), "env.drift - needs env.nodes".to_owned()]);
        all
    };
    place.engine.pause_container(&place.node).await.unwrap();
    assert_eq!(place.told().await, waits("env.nodes ! node devstack-demo-control-plane is paused"));
    place.engine.unpause_container(&place.node).await.unwrap();
    place.engine.stop_container(&place.node, 0).await.unwrap();
    assert_eq!(place.told().await, waits("env.nodes ! node devstack-demo-control-plane does not run"));
    place.engine.remove_container(&place.node).await.unwrap();
    assert_eq!(place.told().await, waits("env.nodes ! the cluster of demo is gone"));
    let made_in = "unix:///run/docker.sock".to_owned();
    let elsewhere = Some(EngineError::Another { endpoint: "unix:///other.sock".to_owned(), made_in });
    let place = Place { elsewhere, ..place };
    let told = "env.nodes ! the environment's cluster is in the engine at unix:///run/docker.sock, and the one at \
                unix:///other.sock has nothing of it";
    assert_eq!(place.told().await, waits(told));
    place.engine.set_down(true);
    assert!(place.told().await[0].starts_with("env.nodes ? "), "an engine that does not answer is no finding");
}

#[tokio::test]
async fn an_api_server_that_does_not_answer() {
    let mut place = well();
    place.kube.set_down(true);
    let told = ["env.api ! the API server of demo does not answer", "env.workloads - needs env.api"];
    assert_eq!(place.told().await, told);
    place.kube.set_down(false);
    place.reached = Err("no route to host".to_owned());
    assert_eq!(place.told().await, told);
    let Outcome::Found(findings) = &place.check().await[1].1 else { panic!("nothing was found") };
    assert_eq!(findings[0].evidence, "no route to host");
}

#[tokio::test]
async fn a_clock_that_is_off() {
    let place = well();
    clock(&place.engine, NOW - SKEW - 1);
    assert_eq!(place.told().await, ["time.clock-skew ! the engine's clock is 301 s behind the host's"]);
    clock(&place.engine, NOW + SKEW + 1);
    assert_eq!(place.told().await, ["time.clock-skew ! the engine's clock is 301 s ahead of the host's"]);
}

#[tokio::test]
async fn a_pod_that_crashes_is_the_root_of_a_url_that_does_not_answer() {
    let mut place = well();
    pod(&place.kube, "demo", false);
    let seen = EndpointSeen { url: "http://x".to_owned(), broken: Some("status 503".to_owned()) };
    place.endpoints = Asked::Known(vec![seen]);
    let told = place.told().await;
    assert!(told[0].starts_with("env.workloads ! "), "{told:?}");
    assert_eq!(told[1..], ["env.endpoints - needs env.workloads"]);
    pod(&place.kube, "demo", true);
    assert_eq!(place.told().await, ["env.endpoints ! http://x does not serve what it should"]);
    place.endpoints = Asked::No;
    assert_eq!(place.told().await, ["env.endpoints - nothing was promised"]);
}

#[tokio::test]
async fn what_is_no_longer_as_it_was_made() {
    let mut place = well();
    place.drift = Asked::Known(vec!["Secret s3www/reader is gone".to_owned(), "hosts lines were edited".to_owned()]);
    assert_eq!(place.told().await, ["env.drift ! Secret s3www/reader is gone; hosts lines were edited"]);
    let Outcome::Found(findings) = &place.check().await[5].1 else { panic!("nothing was found") };
    assert!(findings.iter().all(|finding| finding.is_problem() && finding.remedy == ["devstack up --env demo"]));
    place.drift = Asked::Failed("the profile cannot be read".to_owned());
    assert_eq!(place.told().await, ["env.drift ? the profile cannot be read"]);
}

#[tokio::test]
async fn in_a_cluster_of_others_only_the_environments_own_is_looked_at() {
    let place = shared();
    pod(&place.kube, "theirs", false);
    place.engine.set_down(true);
    let clock = "time.clock-skew - nothing is run on nodes that are not devstack's";
    assert_eq!(place.told().await, [clock], "somebody else's pod and engine");
    pod(&place.kube, "demo", false);
    assert!(place.told().await[1].starts_with("env.workloads ! "));
    namespace(&place.kube, &json!({}));
    assert_eq!(place.told().await, [clock, "env.workloads ! nothing of demo is in the cluster"]);
}

#[tokio::test]
async fn nodes_of_others_are_told_of_once_and_are_no_problem() {
    let place = shared();
    let time = "2026-11-21T09:00:00Z";
    let since = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": time});
    place.kube.put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "two"},
        "status": {"conditions": [since("Ready", "Unknown"), since("DiskPressure", "True")]},
    }));
    let told = place.told().await;
    let clock = "time.clock-skew - nothing is run on nodes that are not devstack's";
    assert_eq!(told, ["env.nodes ! 1 of 2 nodes are not ready", clock]);
    let Outcome::Found(findings) = &place.check().await[0].1 else { panic!("nothing was found") };
    assert!(!findings.iter().any(Finding::is_problem));
}
