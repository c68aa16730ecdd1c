//! What is wrong outside of pods: nodes, claims, workloads without pods, services without endpoints.

use serde_json::Value;

use super::model::{Finding, Severity};
use super::reason::{Reason, Stage, short};
use super::signature::Signatures;
use super::snapshot::{Snapshot, condition, key, list, number, owned_by, text};
use crate::kube::ready::is_ready;

/// How long a node may take to become ready, a claim to be bound, an address to be given, in seconds.
const GRACE: i64 = 60;

/// All findings of a snapshot that are not about one pod.
pub(super) fn explain_rest(snapshot: &Snapshot, signatures: &Signatures) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(snapshot.nodes.iter().flat_map(|object| node(snapshot, object)));
    findings.extend(snapshot.claims.iter().filter_map(|object| claim(snapshot, signatures, object)));
    findings.extend(snapshot.workloads.iter().filter_map(|object| workload(snapshot, signatures, object)));
    findings.extend(snapshot.services.iter().filter_map(|object| service(snapshot, object)));
    findings.extend(snapshot.ingresses.iter().filter_map(|object| ingress(snapshot, object)));
    findings
}

fn severity(late: bool) -> Severity {
    if late { Severity::Error } else { Severity::Info }
}

fn waiting(message: &str) -> Reason {
    Reason { last_event: (!message.is_empty()).then(|| message.to_owned()), ..Reason::at(Stage::Cluster) }
}

fn node(snapshot: &Snapshot, object: &Value) -> Vec<Finding> {
    let name = text(object, "/metadata/name");
    let mut findings = Vec::new();
    if let Some(ready) = condition(object, "Ready").filter(|ready| text(ready, "/status") != "True") {
        let message = text(ready, "/message");
        let late = snapshot.age(ready, "/lastTransitionTime") > GRACE;
        let silent = text(ready, "/status") == "Unknown";
        let cause = if silent {
            format!("node {name} does not report: its kubelet or its container is down")
        } else {
            format!("node {name} is not ready: {}", short(message, 160))
        };
        let remedy =
            if silent { "devstack up".to_owned() } else { format!("docker exec {name} journalctl -u kubelet -n 50") };
        let finding = Finding::new("node.not-ready", severity(late || silent), cause)
            .evidence(message)
            .remedy(remedy)
            .about(key(object, "v1", "Node"));
        findings.push(Finding { waiting: Some(waiting(&format!("node {name}: {}", short(message, 120)))), ..finding });
    }
    for (kind, id, cause, remedy) in [
        ("DiskPressure", "node.disk-pressure", "has too little disk left and evicts pods", "docker system df"),
        ("MemoryPressure", "node.memory-pressure", "has too little memory left", "devstack status"),
        ("PIDPressure", "node.pid-pressure", "has too few process ids left", "devstack status"),
    ] {
        if let Some(found) = condition(object, kind).filter(|found| text(found, "/status") == "True") {
            let finding = Finding::error(id, format!("node {name} {cause}"))
                .evidence(text(found, "/message"))
                .remedy(remedy)
                .about(key(object, "v1", "Node"));
            findings.push(finding);
        }
    }
    findings
}

fn claim(snapshot: &Snapshot, signatures: &Signatures, object: &Value) -> Option<Finding> {
    (text(object, "/status/phase") == "Pending").then_some(())?;
    let name = text(object, "/metadata/name");
    let events = snapshot.events_of("PersistentVolumeClaim", object);
    let last = events.last().map(|event| text(event, "/message")).unwrap_or_default();
    // Bound once a pod asks for it; the pod's own finding says why that one does not come.
    if last.contains("waiting for first consumer") {
        return None;
    }
    let late = snapshot.age(object, "/metadata/creationTimestamp") > GRACE;
    let known = signatures.diagnose(last).into_iter().next();
    let finding = match known {
        Some(found) => Finding { hopeless: late && found.signature.hopeless, ..found.finding() },
        None => {
            let class = text(object, "/spec/storageClassName");
            let cause = if class.is_empty() {
                format!("claim {name} is not bound, and names no storage class")
            } else {
                format!("claim {name} is not bound: nothing provisions storage class {class}")
            };
            let namespace = text(object, "/metadata/namespace");
            Finding::error("storage.pvc-pending", cause)
                .remedy(format!("kubectl -n {namespace} describe pvc {name}"))
                .remedy("kubectl get storageclass")
                .evidence(last)
        }
    };
    let severity = if late { finding.severity } else { Severity::Info };
    let reason = Reason { last_event: (!last.is_empty()).then(|| last.to_owned()), ..Reason::at(Stage::Storage) };
    let object = key(object, "v1", "PersistentVolumeClaim");
    Some(Finding { waiting: Some(reason), severity, ..finding }.about(object))
}

fn workload(snapshot: &Snapshot, signatures: &Signatures, object: &Value) -> Option<Finding> {
    let kind = text(object, "/kind");
    let api_version = text(object, "/apiVersion");
    let object_key = key(object, api_version, kind);
    if kind == "Job" {
        let failed = condition(object, "Failed").filter(|failed| text(failed, "/status") == "True")?;
        let (name, message) = (text(object, "/metadata/name"), text(failed, "/message"));
        let cause = format!("job {name} gave up: {}", short(message, 160));
        let command = format!("kubectl -n {} logs job/{name}", text(object, "/metadata/namespace"));
        let finding = Finding::error("workload.job-failed", cause).remedy(command).evidence(message);
        let reason = Some(waiting(message));
        return Some(Finding { waiting: reason, hopeless: true, ..finding }.about(object_key));
    }
    let wanted = match kind {
        "DaemonSet" => number(object, "/status/desiredNumberScheduled"),
        _ => object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1),
    };
    if wanted == 0 || snapshot.pods.iter().any(|pod| owned_by(pod, &object_key)) {
        return None;
    }
    // A Deployment's pods are refused at its ReplicaSet, whose events carry the refusal.
    let name = text(object, "/metadata/name");
    let namespace = text(object, "/metadata/namespace");
    let refused = snapshot.events.iter().rev().find(|event| {
        let about = text(event, "/involvedObject/name");
        text(event, "/reason") == "FailedCreate"
            && text(event, "/involvedObject/namespace") == namespace
            && (about == name || about.rsplit_once('-').is_some_and(|(owner, _)| owner == name))
    });
    let message = refused.map(|event| text(event, "/message")).unwrap_or_default();
    let finding = match signatures.diagnose(message).into_iter().next() {
        Some(found) => found.finding(),
        None if message.is_empty() => {
            Finding::new("workload.no-pods", Severity::Info, format!("{name} has no pod yet"))
        }
        None => Finding::error("workload.no-pods", format!("{name} may not have its pods: {}", short(message, 200)))
            .remedy(format!("kubectl -n {namespace} get events --sort-by=.lastTimestamp"))
            .evidence(message),
    };
    let last_event = (!message.is_empty()).then(|| message.to_owned());
    let reason = Reason { last_event, ..Reason::at(Stage::Absent) };
    Some(Finding { waiting: Some(reason), ..finding }.about(object_key))
}

fn service(snapshot: &Snapshot, object: &Value) -> Option<Finding> {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let object_key = || key(object, "v1", "Service");
    if text(object, "/spec/type") == "LoadBalancer" && list(object, "/status/loadBalancer/ingress").is_empty() {
        let events = snapshot.events_of("Service", object);
        let failed = events.iter().rev().map(|event| text(event, "/message")).find(|text| text.contains("allocate"));
        let late = failed.is_some() || snapshot.age(object, "/metadata/creationTimestamp") > GRACE;
        let message = failed.unwrap_or("no address yet");
        let finding = Finding::new("lb.pending", severity(late), format!("{namespace}/{name} has no address"))
            .remedy("kubectl -n metallb-system get pods,ipaddresspools.metallb.io,l2advertisements.metallb.io")
            .evidence(message)
            .about(object_key());
        return Some(Finding { waiting: Some(waiting(message)), ..finding });
    }
    let selector = object.pointer("/spec/selector").and_then(Value::as_object).filter(|map| !map.is_empty())?;
    let backs = |pod: &&Value| {
        text(pod, "/metadata/namespace") == namespace
            && selector
                .iter()
                .all(|(key, value)| pod.pointer("/metadata/labels").and_then(|l| l.get(key)) == Some(value))
    };
    let pods: Vec<&Value> = snapshot.pods.iter().filter(backs).collect();
    // Pods that are not ready have findings of their own; that is the root, and one red line is enough.
    if pods.iter().any(|pod| !is_ready(pod)) {
        return None;
    }
    let answers = snapshot
        .endpoint_slices
        .iter()
        .filter(|slice| {
            text(slice, "/metadata/namespace") == namespace
                && text(slice, "/metadata/labels/kubernetes.io~1service-name") == name
        })
        .flat_map(|slice| list(slice, "/endpoints"))
        .any(|endpoint| endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true));
    if answers || (snapshot.endpoint_slices.is_empty() && !pods.is_empty()) {
        return None;
    }
    let late = snapshot.age(object, "/metadata/creationTimestamp") > GRACE;
    let cause = if pods.is_empty() {
        format!("no pod carries the labels that service {namespace}/{name} selects")
    } else {
        format!("service {namespace}/{name} has no endpoint although its pods are ready")
    };
    let command = format!("kubectl -n {namespace} get endpointslices -l kubernetes.io/service-name={name}");
    let finding = Finding::new("ingress.no-endpoints", severity(late), cause).remedy(command);
    Some(Finding { waiting: Some(waiting("no endpoint")), ..finding }.about(object_key()))
}

fn ingress(snapshot: &Snapshot, object: &Value) -> Option<Finding> {
    let classes = snapshot.ingress_classes.as_ref()?;
    let named = text(object, "/spec/ingressClassName");
    let known = |name: &str| classes.iter().any(|class| text(class, "/metadata/name") == name);
    let has_default = classes
        .iter()
        .any(|class| text(class, "/metadata/annotations/ingressclass.kubernetes.io~1is-default-class") == "true");
    let old_style = !text(object, "/metadata/annotations/kubernetes.io~1ingress.class").is_empty();
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let cause = match named {
        "" if has_default || old_style => return None,
        "" => format!("ingress {namespace}/{name} names no class, and no class is the default"),
        class if known(class) => return None,
        class => format!("ingress {namespace}/{name} names class {class}, which does not exist"),
    };
    let names: Vec<&str> = classes.iter().map(|class| text(class, "/metadata/name")).collect();
    let finding = Finding::error("ingress.class", cause)
        .remedy("set spec.ingressClassName to a class that exists")
        .evidence(format!("classes: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
    Some(finding.about(key(object, "networking.k8s.io/v1", "Ingress")))
}
