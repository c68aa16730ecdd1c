//! Pods as the API gives them, and what is said about each.

use serde_json::{Value, json};

use super::*;
use crate::ports::kube::ObjectKey;

const CREATED: &str = "2026-11-21T09:00:00Z";

fn at(seconds: i64) -> Snapshot {
    let created: jiff::Timestamp = CREATED.parse().unwrap();
    Snapshot { taken: Some(created + jiff::SignedDuration::from_secs(seconds)), ..Snapshot::default() }
}

#[expect(clippy::needless_pass_by_value, reason = "callers write literals")]
fn pod(name: &str, status: Value) -> Value {
    let owner = name.rsplit_once('-').map_or(name, |(owner, _)| owner);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "web", "creationTimestamp": CREATED, "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "controller": true}],
        },
        "status": status,
    })
}

/// A pod with one container in this state.
#[expect(clippy::needless_pass_by_value, reason = "callers write literals")]
fn with_container(name: &str, restarts: u64, state: Value, last: Value) -> Value {
    pod(
        name,
        json!({
            "phase": "Pending",
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{
                "name": "app", "image": "docker.io/acme/app:1", "ready": false, "restartCount": restarts,
                "state": state, "lastState": last,
            }],
        }),
    )
}

fn waiting(name: &str, reason: &str, message: &str) -> Value {
    with_container(name, 0, json!({"waiting": {"reason": reason, "message": message}}), json!({}))
}

fn crashing(name: &str, restarts: u64, code: i64, reason: &str) -> Value {
    let ended = json!({"terminated": {"exitCode": code, "reason": reason, "finishedAt": CREATED}});
    let back_off =
        json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}});
    with_container(name, restarts, back_off, ended)
}

fn event(kind: &str, name: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": "Warning", "reason": reason, "message": message, "lastTimestamp": CREATED,
        "involvedObject": {"kind": kind, "name": name, "namespace": "web"},
    })
}

fn log(snapshot: &mut Snapshot, pod: &str, text: &str) {
    snapshot.logs.insert(("web".to_owned(), pod.to_owned(), "app".to_owned()), text.to_owned());
}

/// What is tested, seconds since creation, the pod, an event, a log, how the one finding begins.
type Case = (&'static str, i64, Value, Option<Value>, Option<&'static str>, &'static str);

/// `id severity hopeless | line`, one a finding.
fn lines(snapshot: &Snapshot) -> Vec<String> {
    explain(snapshot)
        .iter()
        .map(|finding| {
            let hopeless = if finding.hopeless { " hopeless" } else { "" };
            let line = finding.waiting.as_ref().map_or_else(|| finding.cause.clone(), ToString::to_string);
            format!("{} {:?}{hopeless} | {line}", finding.id, finding.severity)
        })
        .collect()
}

#[test]
fn the_cpu_level_is_named_and_waiting_is_hopeless_after_two_crashes() {
    let mut snapshot = at(30);
    snapshot.pods.push(crashing("minio-0", 1, 127, "Error"));
    log(&mut snapshot, "minio-0", "Fatal glibc error: CPU does not support x86-64-v2\n");
    let findings = explain(&snapshot);
    assert_eq!(findings.len(), 1);
    let finding = &findings[0];
    assert_eq!(finding.id, "cpu.x86-64-level");
    assert!(finding.hopeless);
    assert_eq!(finding.object.as_ref().unwrap().to_string(), "Pod web/minio-0");
    assert_eq!(finding.evidence, "Fatal glibc error: CPU does not support x86-64-v2");
    let reason = finding.waiting.as_ref().unwrap();
    assert_eq!((reason.crashes, reason.exit_code, reason.phase.as_str()), (2, Some(127), "Pending"));
    insta::assert_snapshot!(
        serde_json::to_string_pretty(finding).unwrap(),
        @r#"
    {
      "id": "cpu.x86-64-level",
      "severity": "error",
      "cause": "the node's CPU lacks x86-64-v2, which this image was built for",
      "remedy": [
        "devstack image resolve",
        "in a virtual machine, show the guest the real CPU: type `host` in Proxmox or libvirt, and on VirtualBox switch Windows' Hyper-V features off"
      ],
      "fixable": false,
      "evidence": "Fatal glibc error: CPU does not support x86-64-v2",
      "object": {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": "web",
        "name": "minio-0"
      },
      "waiting": {
        "stage": "crashing",
        "phase": "Pending",
        "container": "app",
        "state": "Error",
        "image": "docker.io/acme/app:1",
        "crashes": 2,
        "exit_code": 127,
        "last_log": "Fatal glibc error: CPU does not support x86-64-v2",
        "last_event": "back-off 10s restarting failed container"
      },
      "hopeless": true
    }
    "#
    );
}

#[test]
fn one_crash_is_not_yet_hopeless() {
    let mut snapshot = at(10);
    let ended = json!({"terminated": {"exitCode": 127, "reason": "Error"}});
    snapshot.pods.push(with_container("minio-0", 0, ended, json!({})));
    log(&mut snapshot, "minio-0", "Fatal glibc error: CPU does not support x86-64-v2\n");
    let findings = explain(&snapshot);
    assert_eq!(findings[0].id, "cpu.x86-64-level");
    assert!(!findings[0].hopeless);
}

#[test]
fn what_each_state_means() {
    let gone = "Failed to pull image \"quay.io/minio/minio:latest\": unexpected status from HEAD request to \
                https://quay.io/v2/minio/minio/manifests/latest: 401 UNAUTHORIZED";
    let table: Vec<Case> = vec![
        (
            "a pull that was refused: the back-off hides it, the event tells",
            20,
            waiting("web-1", "ImagePullBackOff", "Back-off pulling image \"quay.io/minio/minio:latest\""),
            Some(event("Pod", "web-1", "Failed", gone)),
            None,
            "image.minio-removed Error hopeless | image docker.io/acme/app:1 (ImagePullBackOff): Failed to pull image",
        ),
        (
            "a pull that fails for a reason nobody knows may still succeed",
            20,
            waiting("web-1", "ErrImagePull", "rpc error: something odd"),
            None,
            None,
            "image.pull Error | image docker.io/acme/app:1 (ErrImagePull): rpc error: something odd",
        ),
        (
            "never pull",
            5,
            waiting("web-1", "ErrImageNeverPull", "Container image \"a\" is not present with pull policy of Never"),
            None,
            None,
            "image.never-pull Error hopeless | image docker.io/acme/app:1 (ErrImageNeverPull)",
        ),
        (
            "invalid name",
            5,
            waiting("web-1", "InvalidImageName", ""),
            None,
            None,
            "image.invalid-name Error hopeless | image docker.io/acme/app:1 (InvalidImageName)",
        ),
        (
            "a secret that the next component brings",
            10,
            waiting("web-1", "CreateContainerConfigError", "secret \"s3www-reader\" not found"),
            None,
            None,
            "pod.configuration Info | secret \"s3www-reader\" not found",
        ),
        (
            "a secret that nobody brings",
            90,
            waiting("web-1", "CreateContainerConfigError", "secret \"s3www-reader\" not found"),
            None,
            None,
            "pod.configuration Error hopeless | secret \"s3www-reader\" not found",
        ),
        (
            "another architecture",
            20,
            crashing("web-1", 1, 255, "Error"),
            None,
            Some("exec /s3www: exec format error"),
            "arch.exec-format Error hopeless | crashed twice, exit code 255: \"exec /s3www: exec format error\"",
        ),
        (
            "out of memory",
            20,
            crashing("web-1", 0, 137, "OOMKilled"),
            None,
            Some("starting"),
            "node.oom Error | crashed, exit code 137: \"starting\"",
        ),
        (
            "a crash that nobody knows",
            20,
            crashing("web-1", 2, 1, "Error"),
            None,
            Some("reading config\nboom\n\n"),
            "pod.crash Error | crashed 3 times, exit code 1: \"boom\"",
        ),
        (
            "a crash that nobody knows, for the sixth time",
            200,
            crashing("web-1", 5, 1, "Error"),
            None,
            None,
            "pod.crash Error hopeless | crashed 6 times, exit code 1",
        ),
        (
            "a peer that is not there yet is a start in the wrong order",
            20,
            crashing("web-1", 3, 1, "Error"),
            None,
            Some("dial tcp 10.96.84.12:9000: connect: connection refused"),
            "net.connection-refused Warning | crashed 4 times, exit code 1: \"dial tcp",
        ),
        (
            "readiness while it starts",
            20,
            with_container("web-1", 0, json!({"running": {"startedAt": CREATED}}), json!({})),
            Some(event("Pod", "web-1", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")),
            None,
            "pod.starting Info | readiness 503: normal while it starts",
        ),
        (
            "readiness that does not come",
            300,
            with_container("web-1", 0, json!({"running": {"startedAt": CREATED}}), json!({})),
            Some(event("Pod", "web-1", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")),
            Some("waiting for database"),
            "pod.readiness Error | readiness 503",
        ),
        (
            "being made",
            3,
            waiting("web-1", "ContainerCreating", ""),
            None,
            None,
            "pod.starting Info | its container is being made",
        ),
        (
            "a volume's secret is missing for long",
            90,
            waiting("web-1", "ContainerCreating", ""),
            Some(event(
                "Pod",
                "web-1",
                "FailedMount",
                "MountVolume.SetUp failed for volume \"tls\" : secret \"web-tls\" not found",
            )),
            None,
            "storage.mount-missing Error hopeless | waits for its volume: MountVolume.SetUp failed",
        ),
        (
            "evicted",
            90,
            pod(
                "web-1",
                json!({"phase": "Failed", "reason": "Evicted",
                       "message": "The node was low on resource: ephemeral-storage. Threshold quantity: 10%"}),
            ),
            None,
            None,
            "node.disk-pressure Error | The node was low on resource",
        ),
    ];
    for (case, seconds, pod, event, text, expected) in table {
        let mut snapshot = at(seconds);
        snapshot.pods.push(pod);
        snapshot.events.extend(event);
        if let Some(text) = text {
            log(&mut snapshot, "web-1", text);
        }
        let lines = lines(&snapshot);
        assert_eq!(lines.len(), 1, "{case}: {lines:?}");
        assert!(lines[0].starts_with(expected), "{case}:\n got {}\nwant {expected}", lines[0]);
    }
}

#[test]
fn scheduling() {
    let pending = |message: &str| {
        let conditions =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
        pod("web-1", json!({"phase": "Pending", "conditions": conditions}))
    };
    let table = [
        ("0/1 nodes are available: 1 Insufficient memory.", "node.insufficient Error hopeless |"),
        (
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
            "pod.waits-for-node Info |",
        ),
        (
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s).",
            "node.selector Error |",
        ),
        (
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            "node.selector Error hopeless |",
        ),
        (
            "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) didn't match PersistentVolume's node affinity.",
            "storage.other-node Error hopeless |",
        ),
        ("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.", "pod.waits-for-claim Info |"),
        ("0/3 nodes are available: 3 node(s) were unhappy.", "pod.unschedulable Error |"),
    ];
    for (message, expected) in table {
        let mut snapshot = at(5);
        snapshot.pods.push(pending(message));
        let lines = lines(&snapshot);
        assert!(lines.len() == 1 && lines[0].starts_with(expected), "{lines:?}");
    }
}

#[test]
fn what_runs_or_has_ended_is_no_finding() {
    let mut snapshot = at(500);
    let running = json!({"running": {"startedAt": CREATED}});
    let mut ready = with_container("web-1", 4, running, json!({"terminated": {"exitCode": 1}}));
    ready["status"]["conditions"][0]["status"] = json!("True");
    let mut leaving = crashing("web-2", 9, 1, "Error");
    leaving["metadata"]["deletionTimestamp"] = json!(CREATED);
    snapshot.pods = vec![ready, leaving, pod("job-1", json!({"phase": "Succeeded"}))];
    assert_eq!(lines(&snapshot), Vec::<String>::new());
    assert_eq!(one_line(&snapshot, &Selector::All), None);
}

#[test]
fn a_claim_without_provisioner_is_the_one_red_line() {
    let mut snapshot = at(120);
    let message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    let conditions =
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
    snapshot.pods.push(pod("db-0", json!({"phase": "Pending", "conditions": conditions})));
    snapshot.claims.push(json!({
        "metadata": {"name": "data-db-0", "namespace": "web", "creationTimestamp": CREATED},
        "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"},
    }));
    snapshot.events.push(event(
        "PersistentVolumeClaim",
        "data-db-0",
        "ProvisioningFailed",
        "storageclass.storage.k8s.io \"fast\" not found",
    ));
    assert_eq!(
        lines(&snapshot),
        ["storage.pvc-pending Error hopeless | waits for its volume: storageclass.storage.k8s.io \"fast\" not found"]
    );
}

#[test]
fn roots_come_first_and_replicas_are_one_finding() {
    let mut snapshot = at(200);
    for name in ["web-1", "web-2", "web-3"] {
        snapshot.pods.push(crashing(name, 3, 255, "Error"));
        log(&mut snapshot, name, "exec /s3www: exec format error");
    }
    snapshot.pods.push(with_container("slow-1", 0, json!({"running": {"startedAt": CREATED}}), json!({})));
    snapshot.nodes.push(json!({
        "metadata": {"name": "n1"},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": CREATED,
                                   "message": "Kubelet stopped posting node status."}]},
    }));
    let findings = explain(&snapshot);
    let ids: Vec<&str> = findings.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["arch.exec-format", "node.not-ready", "pod.readiness"]);
    assert!(findings[0].evidence.ends_with("(3 pods)"), "{}", findings[0].evidence);
}

#[test]
fn a_workload_whose_pods_are_refused() {
    let mut snapshot = at(5);
    snapshot.workloads.push(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "web"}, "spec": {"replicas": 2},
    }));
    assert_eq!(lines(&snapshot), ["workload.no-pods Info | no pod yet"]);
    let refusal = "pods \"web-7d-\" is forbidden: exceeded quota: team, requested: cpu=1";
    snapshot.events.push(event("ReplicaSet", "web-7d", "FailedCreate", refusal));
    assert!(lines(&snapshot)[0].starts_with("workload.quota Error | no pod: pods"), "{:?}", lines(&snapshot));
    snapshot.pods.push(crashing("web-7d-x", 0, 1, "Error"));
    assert_eq!(lines(&snapshot), ["pod.crash Error | crashed, exit code 1"]);
}

#[test]
fn services_and_ingresses() {
    let mut snapshot = at(120);
    let service = |name: &str, app: &str, kind: &str| {
        json!({"metadata": {"name": name, "namespace": "web", "creationTimestamp": CREATED},
               "spec": {"type": kind, "selector": {"app": app}}, "status": {"loadBalancer": {}}})
    };
    snapshot.services = vec![service("a", "nobody", "ClusterIP"), service("b", "web", "LoadBalancer")];
    snapshot
        .ingresses
        .push(json!({"metadata": {"name": "i", "namespace": "web"}, "spec": {"ingressClassName": "nginx"}}));
    snapshot.ingress_classes = Some(vec![json!({"metadata": {"name": "traefik"}})]);
    let ids: Vec<String> = explain(&snapshot).into_iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["ingress.no-endpoints", "lb.pending", "ingress.class"]);
    // A pod that is not ready is the root; its service says nothing.
    snapshot.services.truncate(1);
    snapshot.ingresses.clear();
    snapshot.services[0]["spec"]["selector"]["app"] = json!("web");
    snapshot.pods.push(crashing("web-1", 2, 1, "Error"));
    let ids: Vec<String> = explain(&snapshot).into_iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["pod.crash"]);
}

#[test]
fn one_line_for_the_component_that_waits() {
    let mut snapshot = at(20);
    snapshot.pods.push(crashing("web-7d-1", 1, 127, "Error"));
    log(&mut snapshot, "web-7d-1", "Fatal glibc error: CPU does not support x86-64-v2\n");
    snapshot.pods[0]["metadata"]["ownerReferences"][0]["name"] = json!("web-7d");
    snapshot.pods.push(with_container("api-1", 0, json!({"running": {"startedAt": CREATED}}), json!({})));
    let owner = |name: &str| {
        Selector::Owner(ObjectKey {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: Some("web".to_owned()),
            name: name.to_owned(),
        })
    };
    insta::assert_snapshot!(one_line(&snapshot, &owner("web")).unwrap(), @r#"crashed twice, exit code 127: "Fatal glibc error: CPU does not support x86-64-v2": the node's CPU lacks x86-64-v2, which this image was built for"#);
    assert_eq!(one_line(&snapshot, &owner("other")), None);
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    assert!(one_line(&snapshot, &Selector::Labels("web".to_owned(), labels)).unwrap().starts_with("crashed twice"));
    snapshot.pods.remove(0);
    assert_eq!(
        one_line(&snapshot, &Selector::Namespace("web".to_owned())).unwrap(),
        "runs, not ready yet: normal while it starts"
    );
}

#[test]
fn a_sidecar_hides_nothing() {
    let mut snapshot = at(20);
    let mut pod = crashing("web-1", 3, 1, "Error");
    pod["spec"] = json!({"initContainers": [{"name": "proxy", "restartPolicy": "Always"}]});
    let sidecar = |started: bool, ready: bool| {
        json!([{"name": "proxy", "started": started, "ready": ready, "restartCount": 0,
            "state": {"running": {"startedAt": CREATED}}}])
    };
    for (started, ready, expected) in [
        (true, true, "pod.crash Error | crashed 4 times, exit code 1"),
        (true, false, "pod.crash Error | crashed 4 times, exit code 1"),
        (false, false, "pod.initialising Info | init container proxy runs"),
    ] {
        pod["status"]["initContainerStatuses"] = sidecar(started, ready);
        snapshot.pods = vec![pod.clone()];
        assert_eq!(lines(&snapshot), [expected]);
    }
    // The others are ready, and the sidecar is not.
    pod["status"]["initContainerStatuses"] = sidecar(true, false);
    pod["status"]["containerStatuses"] = json!([]);
    snapshot.pods = vec![pod.clone()];
    assert_eq!(lines(&snapshot), ["pod.starting Info | runs, not ready yet: normal while it starts"]);
    // An ordinary one that runs, whatever it says of itself.
    pod["spec"] = json!({"initContainers": [{"name": "proxy"}]});
    pod["status"]["initContainerStatuses"] = sidecar(true, false);
    snapshot.pods = vec![pod];
    assert_eq!(lines(&snapshot), ["pod.initialising Info | init container proxy runs"]);
}
