//! Pods that are past: a roll-out replaces them, or they ended badly while what they were for stands.

use futures::future;
use serde_json::Value;

use super::snapshot::{Snapshot, condition, key, list, number, owned_by, text};
use crate::ports::Kube;

/// Where a Deployment's controller counts its ReplicaSets.
const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";

/// Whether a pod says nothing of its workload as it should be now.
pub(super) fn is_past(snapshot: &Snapshot, pod: &Value) -> bool {
    workload(snapshot, pod).is_some_and(|workload| is_replaced(snapshot, workload, pod) || is_over(workload, pod))
}

/// The StatefulSet that a pod of an older revision belongs to, where its controller replaces such pods.
pub(super) fn old_of<'a>(snapshot: &'a Snapshot, pod: &Value) -> Option<&'a Value> {
    workload(snapshot, pod).filter(|set| text(set, "/kind") == "StatefulSet" && is_of_old_revision(set, pod))
}

/// Leaves out the pods that ended badly while what they were for stands. Only where some ended badly are the workloads
/// that match `selector` asked for; those that cannot be read excuse no pod.
pub async fn without_over(kube: &dyn Kube, mut pods: Vec<Value>, selector: &str) -> Vec<Value> {
    if pods.iter().any(has_failed) {
        let kinds =
            [("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"), ("batch/v1", "Job")];
        let lists = kinds.map(|(api_version, kind)| kube.list(api_version, kind, None, selector));
        let workloads = future::join_all(lists).await.into_iter().flatten().flatten().collect();
        let snapshot = Snapshot { workloads, ..Snapshot::default() };
        pods.retain(|pod| !workload(&snapshot, pod).is_some_and(|workload| is_over(workload, pod)));
    }
    pods
}

/// The workload that a pod belongs to.
fn workload<'a>(snapshot: &'a Snapshot, pod: &Value) -> Option<&'a Value> {
    snapshot.workloads.iter().find(|workload| {
        text(workload, "/metadata/namespace") == text(pod, "/metadata/namespace")
            && owned_by(pod, &key(workload, "", text(workload, "/kind")))
    })
}

fn is_replaced(snapshot: &Snapshot, workload: &Value, pod: &Value) -> bool {
    // Until the controller has seen the newest spec, every pod is one of an older.
    let seen = number(workload, "/status/observedGeneration");
    if seen > 0 && seen < number(workload, "/metadata/generation") {
        return true;
    }
    text(workload, "/kind") == "Deployment" && is_of_old_set(snapshot, workload, pod)
}

fn is_of_old_set(snapshot: &Snapshot, deployment: &Value, pod: &Value) -> bool {
    let revision = |set: &Value| text(set, REVISION).parse::<u64>().ok();
    let (namespace, name) = (text(deployment, "/metadata/namespace"), text(deployment, "/metadata/name"));
    let is_its = |set: &&Value| text(set, "/metadata/namespace") == namespace && owner(set, "Deployment") == Some(name);
    let sets: Vec<&Value> = snapshot.replica_sets.iter().filter(is_its).collect();
    let own = sets.iter().find(|set| owner(pod, "ReplicaSet") == Some(text(set, "/metadata/name")));
    let newest = sets.iter().filter_map(|set| revision(set)).max();
    own.and_then(|set| revision(set)).is_some_and(|own| Some(own) < newest)
}

fn is_of_old_revision(set: &Value, pod: &Value) -> bool {
    let strategy = "/spec/updateStrategy";
    // What the author keeps at an older revision is as it should be.
    let rolls = text(set, &format!("{strategy}/type")) != "OnDelete"
        && number(set, &format!("{strategy}/rollingUpdate/partition")) == 0;
    let (own, newest) = (text(pod, "/metadata/labels/controller-revision-hash"), text(set, "/status/updateRevision"));
    rolls && !own.is_empty() && !newest.is_empty() && own != newest
}

/// The name of an object's owner of a kind.
fn owner<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let owners = list(object, "/metadata/ownerReferences");
    owners.iter().find(|owner| text(owner, "/kind") == kind).map(|owner| text(owner, "/name"))
}

fn has_failed(pod: &Value) -> bool {
    text(pod, "/status/phase") == "Failed"
}

/// Whether a pod ended badly, such as one that its node put out, and its workload has what it wants without it.
fn is_over(workload: &Value, pod: &Value) -> bool {
    let wanted = || workload.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    has_failed(pod)
        && match text(workload, "/kind") {
            "Job" => condition(workload, "Complete").is_some_and(|complete| text(complete, "/status") == "True"),
            "DaemonSet" => {
                number(workload, "/status/numberReady") >= number(workload, "/status/desiredNumberScheduled")
            }
            _ => number(workload, "/status/readyReplicas") >= wanted(),
        }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::explain::{explain, obstacles};
    use super::*;
    use crate::ports::fake::FakeKube;

    fn workload(kind: &str, name: &str, status: &Value) -> Value {
        let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "web", "generation": 2},
            "spec": {}, "status": status})
    }

    /// A pod of an owner, whose container crashed for the sixth time.
    fn crashed(name: &str, kind: &str, owner: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "web",
                "ownerReferences": [{"kind": kind, "name": owner}], "labels": {}},
            "status": {"phase": "Running", "containerStatuses": [{"name": "app", "ready": false, "restartCount": 5,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}]}})
    }

    /// The pods that are judged.
    fn judged(snapshot: &Snapshot) -> Vec<String> {
        let findings = explain(snapshot).into_iter().filter(|finding| finding.hopeless || finding.is_problem());
        findings.filter_map(|finding| finding.object).map(|key| key.name).collect()
    }

    #[test]
    fn pods_of_a_deployments_older_sets_are_not_judged() {
        let set = |name: &str, revision: &str| {
            json!({"metadata": {"name": name, "namespace": "web",
                "ownerReferences": [{"kind": "Deployment", "name": "app"}],
                "annotations": {"deployment.kubernetes.io/revision": revision}}})
        };
        let mut snapshot = Snapshot {
            workloads: vec![workload("Deployment", "app", &json!({"observedGeneration": 2}))],
            replica_sets: vec![set("app-old", "9"), set("app-new", "10")],
            pods: vec![crashed("app-old-x", "ReplicaSet", "app-old")],
            ..Snapshot::default()
        };
        assert_eq!(judged(&snapshot), Vec::<String>::new());
        snapshot.pods.push(crashed("app-new-x", "ReplicaSet", "app-new"));
        assert_eq!(judged(&snapshot), ["app-new-x"]);
        // The apply was just now.
        snapshot.workloads[0]["status"]["observedGeneration"] = json!(1);
        assert_eq!(judged(&snapshot), Vec::<String>::new());
        // A set of which nothing is known, and sets of a namesake elsewhere.
        snapshot.workloads[0]["status"]["observedGeneration"] = json!(2);
        snapshot.pods = vec![crashed("app-more-x", "ReplicaSet", "app-more")];
        assert_eq!(judged(&snapshot), ["app-more-x"]);
        snapshot.pods = vec![crashed("app-old-x", "ReplicaSet", "app-old")];
        snapshot.replica_sets[1]["metadata"]["namespace"] = json!("other");
        assert_eq!(judged(&snapshot), ["app-old-x"]);
    }

    #[test]
    fn pods_of_a_stateful_sets_older_revision_are_in_its_way() {
        let pod = |name: &str, revision: &str| {
            let mut pod = crashed(name, "StatefulSet", "db");
            pod["metadata"]["labels"]["controller-revision-hash"] = json!(revision);
            pod
        };
        let status = json!({"observedGeneration": 2, "updateRevision": "db-2"});
        let mut snapshot = Snapshot {
            workloads: vec![workload("StatefulSet", "db", &status)],
            pods: vec![pod("db-0", "db-1"), pod("db-1", "db-2")],
            ..Snapshot::default()
        };
        let obstructing = |snapshot: &Snapshot| {
            obstacles(snapshot).iter().map(|(_, pod)| text(pod, "/metadata/name").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(obstructing(&snapshot), ["db-0"]);
        assert_eq!(judged(&snapshot), ["db-0"], "it is the cause, as long as it is there");
        // One that may yet become ready, and one that is on its way out.
        snapshot.pods[0]["status"]["containerStatuses"] = json!([]);
        assert_eq!(obstructing(&snapshot), Vec::<String>::new());
        snapshot.pods[0] = pod("db-0", "db-1");
        snapshot.pods[0]["metadata"]["deletionTimestamp"] = json!("2026-11-21T09:00:00Z");
        assert_eq!(obstructing(&snapshot), Vec::<String>::new());
        // An older revision that is wanted.
        snapshot.pods = vec![pod("db-0", "db-1")];
        for strategy in [json!({"type": "OnDelete"}), json!({"rollingUpdate": {"partition": 1}})] {
            snapshot.workloads[0]["spec"]["updateStrategy"] = strategy;
            assert_eq!(obstructing(&snapshot), Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn what_ended_badly_counts_until_its_work_is_done() {
        let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let table = [
            ("Deployment", "ReplicaSet", "app-7d", json!({"readyReplicas": 1}), json!({"readyReplicas": 0})),
            ("StatefulSet", "StatefulSet", "app", json!({"readyReplicas": 1}), json!({})),
            (
                "DaemonSet",
                "DaemonSet",
                "app",
                json!({"desiredNumberScheduled": 2, "numberReady": 2}),
                json!({"desiredNumberScheduled": 2, "numberReady": 1}),
            ),
            ("Job", "Job", "app", complete, json!({"active": 1})),
        ];
        for (kind, owning, owner, well, ill) in table {
            let mut evicted = crashed("app-x", owning, owner);
            evicted["status"] = json!({"phase": "Failed", "reason": "Evicted", "message": "low on resource"});
            for (status, past) in [(well, true), (ill, false)] {
                let object = workload(kind, "app", &status);
                let kube = FakeKube::default();
                kube.put(object.clone());
                let counted = without_over(&kube, vec![evicted.clone()], "").await;
                assert_eq!(counted.is_empty(), past, "{object}");
                let snapshot = Snapshot { workloads: vec![object], pods: vec![evicted.clone()], ..Snapshot::default() };
                assert_eq!(judged(&snapshot).is_empty(), past, "{kind}");
            }
            // What runs badly counts however many others run well.
            let pods = vec![crashed("app-x", owning, owner)];
            assert_eq!(without_over(&FakeKube::default(), pods, "").await.len(), 1);
        }
    }
}
