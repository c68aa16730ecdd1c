//! A component's objects, applied in waves, and the wait until they work.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use crate::access::incluster::is_ready;
use crate::check::{self, Depth, Selector};
use crate::event::Action;
use crate::executor::Run;
use crate::kube::ready;
use crate::ports::Kube;
use crate::ports::kube::{FIELD_MANAGER, KubeError, ObjectKey};
use crate::profile::{Ready, ReadyKind, ResolvedComponent, Scope};
use crate::step::volumes;
use crate::step::{Applied, Observed, StepError, World};

/// Requests to the API server at a time.
pub(super) const PARALLEL: usize = 8;

/// How often a server that is not ready for an object is asked again.
const RETRY: Duration = Duration::from_millis(150);

/// How often a component that is not ready is looked at.
const POLL: Duration = Duration::from_millis(250);

/// How long a component may take where `--timeout` says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Applies a component's objects.
#[derive(Debug, Clone)]
pub struct ComponentStep {
    /// The component.
    pub component: ResolvedComponent,
    /// Every value that is known before the cluster.
    pub scope: Scope,
    /// The step whose end means that pods find their images on the nodes.
    pub images: String,
}

impl ComponentStep {
    /// The scope with what earlier steps gave.
    fn scope(&self, network: &Value) -> Scope {
        let mut scope = self.scope.clone();
        scope.set("network", network.clone());
        scope
    }

    fn render(&self, network: &Value) -> Result<Vec<Vec<Value>>, StepError> {
        self.component.render(&self.scope(network)).map_err(|error| StepError::of(&error))
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let what = format!("component {}", self.component.name);
        let Ok(kube) = world.kube() else {
            return Ok(Observed::new(Action::Create, what));
        };
        let network = json!({"pool": world.pool().await?});
        let objects: Vec<Value> = self.render(&network)?.into_iter().flatten().collect();
        let total = objects.len();
        let drift: Vec<Option<(ObjectKey, bool)>> = futures::stream::iter(objects)
            .map(|object| {
                let kube = &kube;
                async move { drift(&**kube, &object).await }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;
        let drift: Vec<(ObjectKey, bool)> = drift.into_iter().flatten().collect();
        Ok(match drift.first() {
            None => Observed::new(Action::Leave, what),
            Some(_) if drift.len() == total => Observed::new(Action::Create, format!("{what}, {total} objects")),
            Some((key, gone)) => Observed::new(Action::Repair, what).because(format!(
                "{key} {}{}",
                if *gone { "is gone" } else { "differs" },
                if drift.len() > 1 { format!(", and {} more", drift.len() - 1) } else { String::new() }
            )),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let kube = run.world.kube()?;
        let deadline = Instant::now() + run.ctx.options.timeout.unwrap_or(PATIENCE);
        let mut count = 0;
        let mut changed = 0;
        for wave in self.render(&run.output("network"))? {
            if wave.iter().any(has_pods) && !run.ended(&self.images).await {
                return Err(StepError::message("its images did not reach the nodes"));
            }
            volumes::provide(run.world, &*kube, &wave).await?;
            let results: Vec<bool> = futures::stream::iter(&wave)
                .map(|object| put(run, id, &*kube, object, deadline))
                .buffer_unordered(PARALLEL)
                .try_collect()
                .await?;
            count += results.len();
            changed += results.iter().filter(|changed| **changed).count();
        }
        Ok(Applied {
            detail: if changed == 0 { format!("{count} objects") } else { format!("{changed} of {count} objects") },
            outputs: json!({"objects": count}),
            changed: changed > 0,
        })
    }
}

/// Applies one object, again and again while the server is not ready for it; tells whether it changed.
pub(super) async fn put(
    run: &Run<'_>,
    id: &str,
    kube: &dyn Kube,
    object: &Value,
    deadline: Instant,
) -> Result<bool, StepError> {
    let mut told = String::new();
    let mut before = None;
    loop {
        match compared(kube, object, &mut before).await {
            Ok(changed) => return Ok(changed),
            // What a Job runs cannot be changed; it is done over.
            Err(KubeError::Refused { code: 422, ref reason, .. })
                if object["kind"] == "Job" && reason.contains("immutable") =>
            {
                if let Some(key) = ObjectKey::of(object) {
                    kube.delete(&key).await?;
                }
            }
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                let reason = error.to_string();
                if reason != told {
                    run.waiting(id, reason.clone());
                    told = reason;
                }
            }
            Err(error) => return Err(error.into()),
        }
        run.ctx.clock.sleep(RETRY).await;
    }
}

/// Whether pods come of an object.
fn has_pods(object: &Value) -> bool {
    matches!(
        object["kind"].as_str(),
        Some("Deployment" | "StatefulSet" | "DaemonSet" | "Job" | "CronJob" | "Pod" | "ReplicaSet")
    )
}

/// Applies an object; tells whether that changed it. `before` keeps what was read of it across attempts, so that one
/// whose answer was lost counts.
async fn compared(kube: &dyn Kube, object: &Value, before: &mut Option<Value>) -> Result<bool, KubeError> {
    if before.is_none() {
        *before = match ObjectKey::of(object) {
            Some(key) => Some(own_entry(&kube.get(&key).await?.unwrap_or_default())),
            None => Some(Value::Null),
        };
    }
    let stored = kube.apply(object).await?;
    Ok(before.as_ref() != Some(&own_entry(&stored)))
}

/// What a server keeps of devstack's applies to an object, null where there were none: it renews the entry only when
/// what it manages changed. Comparing entries asks no clock, neither the host's nor the server's.
fn own_entry(object: &Value) -> Value {
    let fields = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    let own = fields.into_iter().flatten().find(|entry| entry["manager"] == FIELD_MANAGER);
    json!({"entry": own, "generation": object.pointer("/metadata/generation")})
}

/// The key of an object that an apply would change, and whether it is gone; `None` where it is as it should be.
pub(super) async fn drift(kube: &dyn Kube, object: &Value) -> Result<Option<(ObjectKey, bool)>, KubeError> {
    let Some(key) = ObjectKey::of(object) else { return Ok(None) };
    let Some(mut there) = kube.get(&key).await? else { return Ok(Some((key, true))) };
    let mut wanted = match kube.apply_dry_run(object).await {
        Ok(wanted) => wanted,
        // A change that the server refuses (a Job's template) is a change.
        Err(KubeError::Refused { .. }) => return Ok(Some((key, false))),
        Err(error) => return Err(error),
    };
    for side in [&mut there, &mut wanted] {
        if let Some(metadata) = side.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
            metadata.remove("generation");
        }
        if let Some(fields) = side.as_object_mut() {
            fields.remove("status");
        }
    }
    Ok((there != wanted).then_some((key, false)))
}

/// Whether a pod is done, or ready with containers that were all started after `time`. Times are written alike, to the
/// second in UTC.
fn is_back(pod: &Value, time: &str) -> bool {
    if matches!(pod.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed")) {
        return true;
    }
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    let started =
        |container: &Value| container.pointer("/state/running/startedAt").and_then(Value::as_str) >= Some(time);
    is_ready(pod) && containers.is_some_and(|containers| containers.iter().all(started))
}

/// Waits until a component is ready, telling why it is not; stops early where waiting cannot help.
#[derive(Debug, Clone)]
pub struct ReadyStep {
    /// The step that creates the cluster, or starts it again.
    pub cluster: String,
    /// The component.
    pub component: String,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// What must hold.
    pub ready: Vec<Ready>,
}

impl ReadyStep {
    /// A pod that is not ready, or of which that is not known, since this run started its node again. Until the node's
    /// kubelet has looked a pod seems to be as it was, and until the controllers run again so do its owners.
    async fn stale(&self, run: &Run<'_>, kube: &dyn Kube) -> Result<Option<String>, StepError> {
        let cluster = run.output(&self.cluster);
        let Some(restarted) = cluster["restarted"].as_str() else { return Ok(None) };
        for namespace in &self.namespaces {
            match kube.list("v1", "Pod", Some(namespace), "").await {
                Ok(pods) => {
                    if let Some(pod) = pods.iter().find(|pod| !is_back(pod, restarted)) {
                        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                        return Ok(Some(format!("pod {namespace}/{name} is not back since its node was started")));
                    }
                }
                Err(error) if error.is_transient() => return Ok(Some(error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn one_line(&self, snapshot: &check::Snapshot) -> Option<String> {
        self.namespaces.iter().find_map(|name| check::one_line(snapshot, &Selector::Namespace(name.clone())))
    }

    pub(super) async fn apply(&self, run: &Run<'_>, _id: &str) -> Result<Applied, StepError> {
        let kube = run.world.kube()?;
        let deadline = Instant::now() + run.ctx.options.timeout.unwrap_or(PATIENCE);
        let mut told = String::new();
        let mut outputs = serde_json::Map::new();
        loop {
            let mut missing = self.stale(run, &*kube).await?;
            for ready in &self.ready {
                if missing.is_some() {
                    break;
                }
                match ready::look(&*kube, ready).await {
                    Ok(ready::State::Ready(value)) => {
                        if ready.kind == ReadyKind::ServiceAddress {
                            outputs.insert(format!("{}/{}", ready.namespace, ready.name), value);
                        }
                    }
                    Ok(ready::State::Waiting(reason)) => missing = Some(reason),
                    Err(error) if error.is_transient() => missing = Some(error.to_string()),
                    Err(error) => return Err(error.into()),
                }
            }
            let Some(reason) = missing else {
                return Ok(Applied { detail: "ready".to_owned(), outputs: Value::Object(outputs), changed: false });
            };
            let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
            let mut findings = Vec::new();
            let mut reason = reason;
            // A server that does not answer is the reason itself.
            if let Ok(snapshot) = check::collect(&*kube, &namespaces, Depth::Wait, run.ctx.clock.now()).await {
                findings = check::explain(&snapshot);
                reason = self.one_line(&snapshot).unwrap_or(reason);
            }
            if findings.iter().any(|finding| finding.hopeless) || Instant::now() > deadline {
                return Err(StepError::Wait { what: self.component.clone(), reason, findings });
            }
            if reason != told {
                run.waiting(&self.component, reason.clone());
                told = reason;
            }
            run.ctx.clock.sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fake::FakeKube;

    #[test]
    fn a_pod_is_back_when_it_is_ready_with_containers_of_after_the_restart() {
        let time = "2026-11-21T15:55:41Z";
        let pod = |ready: &str, state: Value| json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [{"state": state}]}});
        let since = |started: &str| json!({"running": {"startedAt": started}});
        assert!(is_back(&pod("True", since(time)), time));
        assert!(!is_back(&pod("True", since("2026-11-21T15:55:40Z")), time), "nobody has looked at it");
        assert!(!is_back(&pod("False", since(time)), time));
        assert!(!is_back(&pod("False", json!({"waiting": {"reason": "CrashLoopBackOff"}})), time));
        assert!(!is_back(&pod("True", json!({"waiting": {"reason": "CrashLoopBackOff"}})), time));
        assert!(is_back(&json!({"status": {"phase": "Succeeded"}}), time));
    }

    #[tokio::test]
    async fn only_an_apply_that_changed_something_counts() {
        let kube = FakeKube::default();
        let object = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}, "data": {"a": value}});
        assert!(compared(&kube, &object("1"), &mut None).await.unwrap(), "it was not there");
        assert!(!compared(&kube, &object("1"), &mut None).await.unwrap());
        assert!(compared(&kube, &object("2"), &mut None).await.unwrap());
        // The answer to the first attempt was lost.
        let mut before = None;
        kube.set_down(true);
        assert!(compared(&kube, &object("3"), &mut before).await.is_err());
        kube.set_down(false);
        assert!(compared(&kube, &object("3"), &mut before).await.unwrap());
        // Somebody else's entry is none of ours.
        let of =
            |manager: &str| own_entry(&json!({"metadata": {"managedFields": [{"manager": manager, "time": "x"}]}}));
        assert_eq!(of("kubectl"), own_entry(&Value::Null));
        assert_ne!(of(FIELD_MANAGER), own_entry(&Value::Null));
    }
}
