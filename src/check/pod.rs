//! One pod: why it is not ready.

use serde_json::Value;

use super::model::{Finding, Severity};
use super::past::is_past;
use super::reason::{Reason, Stage, short};
use super::signature::{Match, Signatures};
use super::snapshot::{Snapshot, condition, key, list, number, text};
use crate::kube::ready::is_ready;

/// How long a missing Secret or ConfigMap counts as "comes with the next component", in seconds.
const CONFIGURATION_GRACE: i64 = 60;
/// How long a failing readiness probe counts as a normal start, in seconds.
const READINESS_GRACE: i64 = 120;
/// How often a container may end badly without a known cause before waiting counts as hopeless. The back-off before
/// the next start is minutes by then.
const CRASHES_UNKNOWN: u64 = 6;

/// Why a pod is not ready; `None` where it is, or has done its work, or is going away, or is past.
pub(super) fn explain_pod(snapshot: &Snapshot, signatures: &Signatures, pod: &Value) -> Option<Finding> {
    trouble(snapshot, signatures, pod).filter(|_| !is_past(snapshot, pod))
}

/// As [`explain_pod`], also of a pod that is past.
pub(super) fn trouble(snapshot: &Snapshot, signatures: &Signatures, pod: &Value) -> Option<Finding> {
    let phase = text(pod, "/status/phase");
    if phase == "Succeeded" || pod.pointer("/metadata/deletionTimestamp").is_some() || is_ready(pod) {
        return None;
    }
    let look = Look { snapshot, signatures, pod };
    let finding = look
        .evicted()
        .or_else(|| look.unscheduled())
        .or_else(|| look.containers("/status/initContainerStatuses"))
        .or_else(|| look.containers("/status/containerStatuses"))
        .or_else(|| look.sidecars())
        .or_else(|| look.volumes())
        .or_else(|| look.starting())?;
    let waiting = finding.waiting.map(|reason| Reason { phase: phase.to_owned(), ..reason });
    Some(Finding { waiting, ..finding }.about(key(pod, "v1", "Pod")))
}

struct Look<'a> {
    snapshot: &'a Snapshot,
    signatures: &'a Signatures,
    pod: &'a Value,
}

impl Look<'_> {
    fn namespace(&self) -> &str {
        text(self.pod, "/metadata/namespace")
    }

    fn name(&self) -> &str {
        text(self.pod, "/metadata/name")
    }

    /// A command that shows the pod's events.
    fn describe(&self) -> String {
        format!("kubectl -n {} describe pod {}", self.namespace(), self.name())
    }

    fn logs_command(&self, container: &str, previous: bool) -> String {
        let previous = if previous { " --previous" } else { "" };
        format!("kubectl -n {} logs {} -c {container}{previous}", self.namespace(), self.name())
    }

    /// The newest event whose reason is one of these.
    fn event(&self, reasons: &[&str]) -> Option<String> {
        let events = self.snapshot.events_of("Pod", self.pod);
        let found = events.iter().rev().find(|event| reasons.contains(&text(event, "/reason")))?;
        Some(text(found, "/message").trim().to_owned())
    }

    /// The finding of the first text that a signature knows.
    fn known(&self, texts: &[&str]) -> Option<(Match<'_>, Finding)> {
        let found = texts.iter().find_map(|text| self.signatures.diagnose(text).into_iter().next())?;
        let finding = found.finding();
        Some((found, finding))
    }

    fn evicted(&self) -> Option<Finding> {
        (text(self.pod, "/status/reason") == "Evicted").then_some(())?;
        let message = text(self.pod, "/status/message");
        let finding = match self.known(&[message]) {
            Some((_, finding)) => finding,
            None => Finding::error("pod.evicted", "the node put the pod out to save itself").remedy(self.describe()),
        };
        let reason =
            Reason { state: Some("Evicted".to_owned()), last_event: non_empty(message), ..Reason::at(Stage::Cluster) };
        Some(Finding { waiting: Some(reason), ..finding.evidence(message) })
    }

    fn unscheduled(&self) -> Option<Finding> {
        let scheduled = condition(self.pod, "PodScheduled").filter(|found| text(found, "/status") == "False")?;
        let message = text(scheduled, "/message");
        let at = |stage| Reason {
            state: non_empty(text(scheduled, "/reason")),
            last_event: non_empty(message),
            ..Reason::at(stage)
        };
        if message.contains("PersistentVolumeClaim") {
            let cause = "a claim of its volume is not bound";
            let finding = Finding::new("pod.waits-for-claim", Severity::Info, cause).evidence(message);
            return Some(Finding { waiting: Some(at(Stage::Storage)), ..finding });
        }
        // A node that just came up carries the taint until its network is ready.
        if message.contains("node.kubernetes.io/not-ready") || message.contains("no nodes available") {
            let finding = Finding::new("pod.waits-for-node", Severity::Info, "no node is ready yet").evidence(message);
            return Some(Finding { waiting: Some(at(Stage::Scheduling)), ..finding });
        }
        let finding = match self.known(&[message]) {
            // A node that is not ready yet has a taint, which newer schedulers do not name: it may be the one that fits.
            Some((found, finding)) => {
                let hopeless = found.signature.hopeless && !message.contains("untolerated taint");
                Finding { hopeless, ..finding }
            }
            None => Finding::error("pod.unschedulable", "no node fits the pod").remedy(self.describe()),
        };
        Some(Finding { waiting: Some(at(Stage::Scheduling)), ..finding.evidence(message) })
    }

    /// Whether an init container goes on running beside the others.
    fn is_sidecar(&self, status: &Value) -> bool {
        let same = |container: &&Value| text(container, "/name") == text(status, "/name");
        let container = list(self.pod, "/spec/initContainers").iter().find(same);
        container.is_some_and(|container| text(container, "/restartPolicy") == "Always")
    }

    /// A sidecar that was started and is not ready.
    fn sidecars(&self) -> Option<Finding> {
        let waits = |status: &&Value| self.is_sidecar(status) && !is(status, "/ready") && is(status, "/started");
        list(self.pod, "/status/initContainerStatuses").iter().find(waits).map(|status| self.not_ready(status))
    }

    fn containers(&self, pointer: &str) -> Option<Finding> {
        let init = pointer.contains("init");
        list(self.pod, pointer).iter().find_map(|status| self.container(status, init))
    }

    fn container(&self, status: &Value, init: bool) -> Option<Finding> {
        let state = text(status, "/state/waiting/reason");
        let message = text(status, "/state/waiting/message");
        match state {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "ErrImageNeverPull"
            | "InvalidImageName"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed" => return Some(self.image(status, state, message)),
            "CreateContainerConfigError" => return Some(self.configuration(status, message)),
            _ => {}
        }
        let crashes = crashes(status);
        if crashes > 0 {
            return Some(self.crashed(status, crashes));
        }
        let name = text(status, "/name");
        // A sidecar that was started holds no other container back.
        if init && self.is_sidecar(status) && (is(status, "/ready") || is(status, "/started")) {
            return None;
        }
        if init && status.pointer("/state/running").is_some() {
            let last_log = self.snapshot.log(self.pod, name).and_then(last_line);
            let reason = Reason { container: non_empty(name), last_log, ..Reason::at(Stage::Initialising) };
            let finding = Finding::new("pod.initialising", Severity::Info, format!("init container {name} runs"));
            return Some(Finding { waiting: Some(reason), ..finding });
        }
        (!init && !is(status, "/ready") && status.pointer("/state/running").is_some()).then(|| self.not_ready(status))
    }

    fn image(&self, status: &Value, state: &str, message: &str) -> Finding {
        let image = text(status, "/image");
        // The back-off message repeats nothing of the cause; the event before it has the registry's words.
        let failed = self.event(&["Failed"]).unwrap_or_default();
        let pulled = self.pull_failure().unwrap_or_default();
        let words = [message, pulled.as_str(), failed.as_str()];
        let finding = match self.known(&words) {
            Some((found, finding)) => Finding { hopeless: found.signature.hopeless, ..finding },
            None => match state {
                "InvalidImageName" => Finding {
                    hopeless: true,
                    ..Finding::error("image.invalid-name", format!("`{image}` is not an image reference"))
                        .remedy("correct the image in the profile or with --set")
                },
                "ErrImageNeverPull" => Finding {
                    hopeless: true,
                    ..Finding::error("image.never-pull", format!("{image} is not in the node and may not be pulled"))
                        .remedy("devstack up")
                },
                _ => Finding::error("image.pull", format!("{image} cannot be pulled"))
                    .remedy(format!("devstack image resolve {}", role_of(image)))
                    .remedy(self.describe()),
            },
        };
        let said = words.into_iter().filter(|words| !words.starts_with("Back-off")).find(|words| !words.is_empty());
        let evidence = if finding.evidence.is_empty() { said.unwrap_or(message) } else { &finding.evidence };
        let reason = Reason {
            container: non_empty(text(status, "/name")),
            state: Some(state.to_owned()),
            image: non_empty(image),
            last_event: said.map(|words| short(words, 200)),
            ..Reason::at(Stage::Image)
        };
        let evidence = evidence.to_owned();
        Finding { waiting: Some(reason), ..finding.evidence(evidence) }
    }

    /// The newest event in which the runtime says why a pull failed.
    fn pull_failure(&self) -> Option<String> {
        let events = self.snapshot.events_of("Pod", self.pod);
        let messages = events.iter().rev().map(|event| text(event, "/message"));
        messages.into_iter().find(|message| message.starts_with("Failed to pull image")).map(str::to_owned)
    }

    fn configuration(&self, status: &Value, message: &str) -> Finding {
        let late = self.snapshot.age(self.pod, "/metadata/creationTimestamp") > CONFIGURATION_GRACE;
        let (severity, cause) = if late {
            (Severity::Error, format!("its configuration is incomplete: {}", short(message, 160)))
        } else {
            (Severity::Info, format!("it waits for its configuration: {}", short(message, 160)))
        };
        let reason = Reason {
            container: non_empty(text(status, "/name")),
            state: Some("CreateContainerConfigError".to_owned()),
            image: non_empty(text(status, "/image")),
            last_event: non_empty(message),
            ..Reason::at(Stage::Configuration)
        };
        let finding = Finding::new("pod.configuration", severity, cause).evidence(message).remedy(self.describe());
        Finding { waiting: Some(reason), hopeless: late, ..finding }
    }

    fn crashed(&self, status: &Value, crashes: u64) -> Finding {
        let name = text(status, "/name");
        let ended = ["/state/terminated", "/lastState/terminated"].into_iter().find_map(|at| status.pointer(at));
        let state = ended.map(|ended| text(ended, "/reason")).unwrap_or_default();
        let exit_code = ended.and_then(|ended| ended.pointer("/exitCode")).and_then(Value::as_i64);
        let said = ended.map(|ended| text(ended, "/message")).unwrap_or_default();
        let waiting = text(status, "/state/waiting/message");
        let log = self.snapshot.log(self.pod, name).unwrap_or_default();
        let known = if state == "OOMKilled" { None } else { self.known(&[log, said, waiting]) };
        let finding = match known {
            Some((found, finding)) => Finding { hopeless: found.signature.hopeless && crashes >= 2, ..finding },
            None if state == "OOMKilled" => Finding {
                hopeless: crashes >= 3,
                ..Finding::error("node.oom", format!("container {name} was killed: it used more memory than its limit"))
                    .remedy("raise the container's memory limit in the profile")
                    .remedy("give the engine's virtual machine more memory, or the cluster fewer components")
                    .evidence(format!("OOMKilled, exit code {}", exit_code.unwrap_or(137)))
            },
            None => {
                let liveness = self.event(&["Killing"]).filter(|message| message.contains("liveness"));
                let (id, cause) = match (&liveness, exit_code) {
                    (Some(_), _) => ("pod.liveness", format!("container {name} failed its liveness probe")),
                    (None, Some(code)) => ("pod.crash", format!("container {name} ended with exit code {code}")),
                    (None, None) => ("pod.crash", format!("container {name} ends again and again")),
                };
                let evidence = last_line(log).or_else(|| non_empty(said)).or(liveness).unwrap_or_default();
                Finding { hopeless: crashes >= CRASHES_UNKNOWN, ..Finding::error(id, cause) }
                    .remedy(self.logs_command(name, true))
                    .evidence(evidence)
            }
        };
        let reason = Reason {
            container: non_empty(name),
            state: non_empty(state),
            image: non_empty(text(status, "/image")),
            crashes,
            exit_code,
            last_log: last_line(log).or_else(|| non_empty(said)),
            last_event: non_empty(waiting),
            ..Reason::at(Stage::Crashing)
        };
        // One crash may be a start in the wrong order, which the next start cures.
        let once = crashes == 1 && status.pointer("/state/running").is_some() && finding.id.starts_with("pod.");
        let severity = if once { Severity::Warning } else { finding.severity };
        Finding { waiting: Some(reason), severity, ..finding }
    }

    fn not_ready(&self, status: &Value) -> Finding {
        let name = text(status, "/name");
        let running = self.snapshot.age(status, "/state/running/startedAt");
        let probe = self.event(&["Unhealthy"]).map(|message| probe_words(&message));
        let log = self.snapshot.log(self.pod, name);
        let reason = Reason {
            container: non_empty(name),
            image: non_empty(text(status, "/image")),
            last_log: log.and_then(last_line),
            last_event: probe.clone(),
            ..Reason::at(Stage::Readiness)
        };
        let words = probe.unwrap_or_else(|| "not ready yet".to_owned());
        let finding = if running <= READINESS_GRACE {
            Finding::new("pod.starting", Severity::Info, format!("{words}: normal while it starts"))
        } else {
            match self.known(&[log.unwrap_or_default()]) {
                Some((_, finding)) => finding,
                None => Finding::error("pod.readiness", format!("container {name} runs for {running} s: {words}"))
                    .remedy(self.logs_command(name, false))
                    .remedy(self.describe())
                    .evidence(reason.last_log.clone().unwrap_or(words)),
            }
        };
        Finding { waiting: Some(reason), ..finding }
    }

    /// Volumes and sandboxes fail before there is a container to blame; only events tell.
    fn volumes(&self) -> Option<Finding> {
        let message = self.event(&["FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"])?;
        let reason = |stage| Reason { last_event: non_empty(&message), ..Reason::at(stage) };
        let (found, finding) = self.known(&[&message])?;
        let late = self.snapshot.age(self.pod, "/metadata/creationTimestamp") > CONFIGURATION_GRACE;
        let severity = if late { finding.severity } else { Severity::Info };
        let hopeless = late && found.signature.hopeless;
        Some(Finding { waiting: Some(reason(Stage::Storage)), severity, hopeless, ..finding })
    }

    fn starting(&self) -> Option<Finding> {
        let message = self.event(&["Pulling", "FailedMount", "FailedCreatePodSandBox"]);
        let (stage, cause) = match &message {
            Some(message) if message.starts_with("Pulling") => (Stage::Creating, "its image is being pulled"),
            _ => (Stage::Creating, "its containers are being made"),
        };
        let reason = Reason { last_event: message, ..Reason::at(stage) };
        Some(Finding { waiting: Some(reason), ..Finding::new("pod.starting", Severity::Info, cause) })
    }
}

fn is(status: &Value, pointer: &str) -> bool {
    status.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// How often a container ended badly. `restartCount` counts starts after the first, so a container that is down right
/// now has ended once more than that.
fn crashes(status: &Value) -> u64 {
    let restarts = number(status, "/restartCount");
    let failed = |at: &str| {
        status.pointer(at).is_some_and(|ended| {
            ended.pointer("/exitCode").and_then(Value::as_i64) != Some(0) || text(ended, "/reason") == "Error"
        })
    };
    let down = text(status, "/state/waiting/reason") == "CrashLoopBackOff"
        || matches!(text(status, "/state/waiting/reason"), "RunContainerError" | "CreateContainerError" | "StartError")
        || failed("/state/terminated");
    let was_down = restarts > 0 && !is(status, "/ready") && status.pointer("/lastState/terminated").is_some();
    match (down, was_down) {
        (true, _) => restarts + 1,
        (false, true) => restarts,
        (false, false) => 0,
    }
}

/// `Readiness probe failed: HTTP probe failed with statuscode: 503` becomes `readiness 503`.
fn probe_words(message: &str) -> String {
    let kind = message.split_whitespace().next().unwrap_or_default().to_lowercase();
    match message.rsplit_once("statuscode: ") {
        Some((_, code)) => format!("{kind} {}", code.trim()),
        None if message.contains("connection refused") => format!("{kind}: connection refused"),
        None if message.contains("context deadline exceeded") || message.contains("Timeout exceeded") => {
            format!("{kind}: no answer in time")
        }
        None => short(message, 120),
    }
}

/// The last line of a log that says something.
fn last_line(log: &str) -> Option<String> {
    log.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The role that an image most likely plays: the last part of its repository.
fn role_of(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    last.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_in_few_words() {
        let table = [
            ("Readiness probe failed: HTTP probe failed with statuscode: 503", "readiness 503"),
            (
                "Readiness probe failed: Get \"http://10.244.0.7:9000/minio/health/live\": dial tcp 10.244.0.7:9000: \
                 connect: connection refused",
                "readiness: connection refused",
            ),
            (
                "Startup probe failed: Get \"http://10.244.0.7:8080/\": context deadline exceeded (Client.Timeout \
                 exceeded while awaiting headers)",
                "startup: no answer in time",
            ),
        ];
        for (message, words) in table {
            assert_eq!(probe_words(message), words);
        }
    }

    #[test]
    fn roles_of_images() {
        assert_eq!(role_of("docker.io/y4m4/s3www:v1.0.0"), "s3www");
        assert_eq!(role_of("localhost:5000/a/minio@sha256:ab"), "minio");
    }
}
