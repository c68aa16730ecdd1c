//! Jobs, which are done over where no apply changes them.

use serde_json::Value;

use crate::ports::Kube;
use crate::ports::kube::{KubeError, ObjectKey};

/// Whether the server refuses to change an object because it is a Job, whose template cannot be changed.
pub(super) fn is_changed(object: &Value, reason: &str) -> bool {
    object["kind"] == "Job" && reason.contains("immutable")
}

/// Whether an object of the cluster is a Job that gave up: it stays so, whatever is applied to it.
pub(super) fn gave_up(there: &Value) -> bool {
    there["kind"] == "Job" && holds(there, "Failed")
}

/// Whether a Job in an object's place has given up, or is about to: its time is over, which its controller says only
/// once it runs again, in a cluster that was just started.
pub(super) async fn is_over(kube: &dyn Kube, object: &Value, now: jiff::Timestamp) -> Result<bool, KubeError> {
    let Some(key) = ObjectKey::of(object).filter(|key| key.kind == "Job") else { return Ok(false) };
    let there = kube.get(&key).await?;
    Ok(there.is_some_and(|there| gave_up(&there) || (!holds(&there, "Complete") && is_late(&there, now))))
}

fn is_late(job: &Value, now: jiff::Timestamp) -> bool {
    let began = job.pointer("/status/startTime").and_then(Value::as_str).and_then(|time| time.parse().ok());
    let may_take = job.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64);
    let late = |(began, seconds): (jiff::Timestamp, i64)| now.as_second() - began.as_second() > seconds;
    began.zip(may_take).is_some_and(late)
}

fn holds(job: &Value, condition: &str) -> bool {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == condition && one["status"] == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ports::fake::FakeKube;

    #[tokio::test]
    async fn a_job_is_over_when_it_failed_or_has_no_time_left() {
        let began: jiff::Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
        let after = |seconds: i64| began + jiff::SignedDuration::from_secs(seconds);
        let kube = FakeKube::default();
        let job = |kind: &str, condition: &str| {
            json!({"apiVersion": "batch/v1", "kind": kind, "metadata": {"name": "a", "namespace": "b"},
                "spec": {"activeDeadlineSeconds": 600},
                "status": {"startTime": "2026-11-21T09:00:00Z", "conditions": [{"type": condition, "status": "True"}]}})
        };
        assert!(!is_over(&kube, &job("Job", "Failed"), after(0)).await.unwrap(), "it is not there");
        for (there, seconds, over) in [
            (job("Job", "Failed"), 1, true),
            (job("Job", "Suspended"), 600, false),
            (job("Job", "Suspended"), 601, true),
            (job("Job", "Complete"), 601, false),
            (job("Pod", "Failed"), 601, false),
        ] {
            kube.put(there.clone());
            assert_eq!(is_over(&kube, &there, after(seconds)).await.unwrap(), over, "{there} {seconds}");
        }
    }
}
