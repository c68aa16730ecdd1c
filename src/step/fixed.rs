//! Fields that Kubernetes never changes once an object is made: which one keeps an object from what it should be, and
//! what it costs to make everything anew.

use serde_json::Value;

use crate::error::ExitCode;
use crate::ports::Kube;
use crate::ports::engine::OWNER_LABEL;
use crate::ports::kube::{KubeError, ObjectKey};
use crate::step::StepError;
use crate::step::prune::volume;

/// How the API server calls a change of a field that it does not change.
const REFUSALS: [&str; 3] = ["immutable", "Forbidden: updates to", "may not change"];

/// What stands between a field and what is wrong with it.
const MARKS: [&str; 2] = [": Forbidden", ": Invalid value"];

/// The error of an apply. Where it is one that no apply of this object can avoid, it names the field and the way out.
pub(super) async fn explained(kube: &dyn Kube, object: &Value, error: KubeError) -> StepError {
    match told(kube, object, &error).await {
        Some(told) => told,
        None => error.into(),
    }
}

async fn told(kube: &dyn Kube, object: &Value, error: &KubeError) -> Option<StepError> {
    let KubeError::Refused { code: 422, reason, .. } = error else { return None };
    let end = REFUSALS.iter().filter_map(|words| Some(reason.find(words)? + words.len())).min()?;
    let key = ObjectKey::of(object)?;
    // Of one that is not there nothing is changed.
    let there = kube.get(&key).await.ok()??;
    let field = field(reason, end, &there, object);
    // What components make is marked with it.
    let environment = object["metadata"]["labels"][OWNER_LABEL].as_str()?;
    let selector = format!("{OWNER_LABEL}={environment}");
    let claims = kube.list("v1", "PersistentVolumeClaim", None, &selector).await.unwrap_or_default();
    let lost: Vec<String> = claims.iter().map(volume).collect();
    let lost = if lost.is_empty() { String::new() } else { format!("; lost by that for good: {}", lost.join(", ")) };
    Some(StepError::Other {
        message: format!("{key} cannot be changed in place: Kubernetes never changes its {field}"),
        hint: Some(format!(
            "keep what it was, or make it anew: devstack down --env {environment}, then the same `up` again{lost}"
        )),
        exit: ExitCode::Failed,
    })
}

/// The field that is refused: the one that the server names before `end`, or what differs inside it.
fn field(reason: &str, end: usize, there: &Value, wanted: &Value) -> String {
    let before = &reason[..end];
    let mark = MARKS.iter().filter_map(|mark| before.rfind(mark)).max();
    let path = mark.and_then(|mark| before[..mark].split_whitespace().next_back()).unwrap_or("spec");
    let path = path.trim_start_matches('[');
    let mut sides = (there, wanted);
    for key in path.split('.') {
        sides = (&sides.0[key], &sides.1[key]);
    }
    let Value::Object(fields) = sides.1 else { return path.to_owned() };
    // Those that can be changed the server names.
    let mut fixed = fields.iter().filter(|(key, _)| !reason.contains(&format!("'{key}'")));
    let differing = fixed.find_map(|(key, value)| first(&sides.0[key], value, &format!("{path}.{key}")));
    differing.unwrap_or_else(|| path.to_owned())
}

/// The first field that is not as wanted. What nobody asks for does not count.
fn first(there: &Value, wanted: &Value, path: &str) -> Option<String> {
    match (there, wanted) {
        (there, Value::Object(fields)) => {
            fields.iter().find_map(|(key, value)| first(&there[key], value, &format!("{path}.{key}")))
        }
        (Value::Array(there), Value::Array(wanted)) if there.len() == wanted.len() => {
            let mut pairs = there.iter().zip(wanted).enumerate();
            pairs.find_map(|(at, (there, wanted))| first(there, wanted, &format!("{path}[{at}]")))
        }
        (there, wanted) => (there != wanted).then(|| path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Advise as _;
    use crate::ports::fake::FakeKube;
    use crate::step::objects::drifts;

    fn set(size: &str, replicas: u8) -> Value {
        let claim = json!({"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}});
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "minio", "namespace": "minio", "labels": {OWNER_LABEL: "demo"}},
            "spec": {"replicas": replicas, "volumeClaimTemplates": [claim]},
        })
    }

    #[tokio::test]
    async fn a_field_that_is_fixed_is_named_with_the_way_out_and_its_price() {
        let kube = FakeKube::default();
        kube.put(set("1Gi", 1));
        for (environment, size) in [("demo", "1Gi"), ("other", "5Gi")] {
            kube.put(json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data-minio-0", "namespace": environment, "labels": {OWNER_LABEL: environment}},
                "spec": {"resources": {"requests": {"storage": size}}},
            }));
        }
        kube.refuse(
            "StatefulSet",
            "StatefulSet.apps \"minio\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than \
             'replicas', 'ordinals', 'template', 'updateStrategy' and 'minReadySeconds' are forbidden",
        );
        let error = drifts(&kube, &[set("2Gi", 2)]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "StatefulSet minio/minio cannot be changed in place: Kubernetes never changes its \
             spec.volumeClaimTemplates[0].spec.resources.requests.storage"
        );
        assert_eq!(
            error.hint().unwrap(),
            "keep what it was, or make it anew: devstack down --env demo, then the same `up` again; lost by that for \
             good: volume demo/data-minio-0 (1Gi)"
        );
    }

    #[tokio::test]
    async fn other_refusals_are_the_servers_own_words() {
        let kube = FakeKube::default();
        let what = "apply".to_owned();
        let refused = |reason: &str| KubeError::Refused { what: what.clone(), code: 422, reason: reason.to_owned() };
        let immutable = "Deployment.apps \"a\" is invalid: [spec.template.metadata.labels: Invalid value: \
                         {\"app\":\"b\"}: `selector` does not match template `labels`, spec.selector: Invalid value: \
                         {\"matchLabels\":{\"app\":\"a\"}}: field is immutable]";
        let object = |app: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {OWNER_LABEL: "demo"}},
                "spec": {"selector": {"matchLabels": {"app": app}}},
            })
        };
        let told = explained(&kube, &object("a"), refused(immutable)).await.to_string();
        assert_eq!(told, refused(immutable).to_string(), "it is not there");
        kube.put(object("b"));
        let told = explained(&kube, &object("a"), refused(immutable)).await.to_string();
        assert!(told.ends_with("Kubernetes never changes its spec.selector.matchLabels.app"), "{told}");
        let invalid = "Deployment.apps \"a\" is invalid: spec.template.spec.containers: Required value";
        assert_eq!(explained(&kube, &object("a"), refused(invalid)).await.to_string(), refused(invalid).to_string());
    }
}
