//! Content: from the host into a bucket, streamed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::access::s3::{S3, S3Error};
use crate::access::site::{Body, MARKER, Object, Site};
use crate::event::{Action, Event};
use crate::executor::Run;
use crate::kube::ready::serves;
use crate::ports::kube::KubeError;
use crate::step::{Applied, Observed, StepError, World};

/// How often a server that does not answer yet is asked again.
const POLL: Duration = Duration::from_millis(200);

/// Up to this many objects are looked at one by one; of larger sites only the marker is.
const LOOK_AT: usize = 64;

/// Fills a bucket.
#[derive(Debug, Clone)]
pub struct ContentStep {
    /// What goes in.
    pub site: Site,
    /// The bucket.
    pub bucket: String,
    /// Where the object store's pods are.
    pub namespace: String,
    /// Their labels.
    pub selector: String,
    /// Their S3 port.
    pub port: u16,
    /// The access key that may write.
    pub key: String,
    /// Its secret.
    pub secret: Secret,
    /// What an earlier `up` wrote.
    pub before: Option<Filled>,
}

/// What was written to a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filled {
    /// The keys of the objects.
    pub keys: Vec<String>,
    /// [`Site::digest`] of them.
    pub digest: String,
}

/// A value that shows itself to nobody.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Why the bucket could not be filled just now.
enum Trouble {
    /// The server is not ready; asking again can help.
    NotYet(String),
    /// Asking again cannot help.
    Final(StepError),
}

impl ContentStep {
    pub(super) fn observe(&self, world: &World) -> Observed {
        self.expected(world.kube().is_ok())
    }

    /// What is to be done, by what is recorded and whether there is a cluster that may still have it.
    fn expected(&self, is_there: bool) -> Observed {
        let what = format!("bucket {}: {} objects, {} bytes", self.bucket, self.site.objects.len(), self.site.bytes());
        match &self.before {
            Some(before) if is_there => match before.digest == self.site.digest() {
                true => Observed::new(Action::Leave, what),
                false => Observed::new(Action::Repair, what).because("the files are not those that it was filled with"),
            },
            _ => Observed::new(Action::Create, what),
        }
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let patience = run.ctx.options.timeout.unwrap_or(Duration::from_secs(300));
        let began = Instant::now();
        let mut told = String::new();
        loop {
            let reason = match self.fill(run, id).await {
                Ok(changed) => {
                    let keys: Vec<String> = self.site.objects.iter().map(|object| object.key.clone()).collect();
                    let detail = format!("{} objects, {} bytes", keys.len(), self.site.bytes());
                    let filled = Filled { keys, digest: self.site.digest() };
                    // Of a devstack that was killed in between nothing is recorded.
                    let changed = changed || self.before.as_ref() != Some(&filled);
                    return Ok(Applied { detail, outputs: json!(filled), changed });
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::NotYet(reason)) => reason,
            };
            if began.elapsed() > patience {
                return Err(StepError::Wait { what: format!("bucket {}", self.bucket), reason, findings: Vec::new() });
            }
            if reason != told {
                run.waiting(id, reason.clone());
                told = reason;
            }
            run.ctx.clock.sleep(POLL).await;
        }
    }

    async fn fill(&self, run: &Run<'_>, id: &str) -> Result<bool, Trouble> {
        let pod = self.pod(run).await?;
        let kube = run.world.kube().map_err(not_yet)?;
        let stream = kube.port_forward(&self.namespace, &pod, self.port).await.map_err(not_yet)?;
        let host = format!("{pod}.{}:{}", self.namespace, self.port);
        let mut s3 = S3::connect(stream, &host, &self.bucket, &self.key, &self.secret.0)
            .await
            .map_err(|error| trouble(&error))?;
        let digest = self.site.digest();
        if s3.get(MARKER).await.map_err(|error| trouble(&error))?.as_deref() == Some(digest.as_bytes())
            && self.holds(&mut s3).await.map_err(|error| trouble(&error))?
        {
            return Ok(false);
        }
        if !s3.has_bucket().await.map_err(|error| trouble(&error))? {
            // MinIO removes a bucket that it could not make to the end, with everything in it. So nobody makes one while
            // somebody else may be at it.
            if self.is_set_up(run).await? {
                s3.create_bucket().await.map_err(|error| trouble(&error))?;
            } else {
                return Err(Trouble::NotYet("waits for its bucket".to_owned()));
            }
        }
        let done = Arc::new(AtomicU64::new(0));
        for object in &self.site.objects {
            let events = run.ctx.events.clone();
            let (step, detail, total, done) = (id.to_owned(), object.key.clone(), self.site.bytes(), Arc::clone(&done));
            let progress = move |bytes| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                events.emit(Event::StepProgress {
                    step: step.clone(),
                    done,
                    total: Some(total),
                    unit: "bytes",
                    detail: detail.clone(),
                });
            };
            s3.put(object, progress).await.map_err(|error| trouble(&error))?;
        }
        let before = self.before.iter().flat_map(|before| &before.keys);
        for key in before.filter(|key| self.site.objects.iter().all(|object| object.key != **key)) {
            s3.delete(key).await.map_err(|error| trouble(&error))?;
        }
        s3.put(&marker(&digest), |_| {}).await.map_err(|error| trouble(&error))?;
        if !self.holds(&mut s3).await.map_err(|error| trouble(&error))? {
            return Err(Trouble::NotYet("what was written is gone".to_owned()));
        }
        Ok(true)
    }

    /// Whether no Job of the object store is at work any more.
    async fn is_set_up(&self, run: &Run<'_>) -> Result<bool, Trouble> {
        let kube = run.world.kube().map_err(not_yet)?;
        let jobs = kube.list("batch/v1", "Job", Some(&self.namespace), "").await.map_err(not_yet)?;
        Ok(jobs.iter().all(has_ended))
    }

    async fn holds(&self, s3: &mut S3) -> Result<bool, S3Error> {
        if self.site.objects.len() > LOOK_AT {
            return Ok(true);
        }
        for object in &self.site.objects {
            if s3.head(&object.key).await? != Some((object.size, object.sha256.clone())) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn pod(&self, run: &Run<'_>) -> Result<String, Trouble> {
        let kube = run.world.kube().map_err(not_yet)?;
        let pods = kube.list("v1", "Pod", Some(&self.namespace), &self.selector).await.map_err(not_yet)?;
        let ready = pods.iter().find(|pod| serves(pod));
        let name = ready.and_then(|pod| pod.pointer("/metadata/name")?.as_str());
        name.map(str::to_owned).ok_or_else(|| Trouble::NotYet("waits for the object store".to_owned()))
    }
}

/// Whether a Job is over, well or not.
fn has_ended(job: &Value) -> bool {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|one| matches!(one["type"].as_str(), Some("Complete" | "Failed")) && one["status"] == "True")
}

fn marker(digest: &str) -> Object {
    Object {
        key: MARKER.to_owned(),
        body: Body::Bytes(Bytes::from(digest.to_owned())),
        size: digest.len() as u64,
        sha256: String::new(),
        media_type: "text/plain".to_owned(),
    }
}

fn not_yet(error: KubeError) -> Trouble {
    match error {
        KubeError::Config { .. } | KubeError::Proxy { .. } => Trouble::Final(error.into()),
        other => Trouble::NotYet(other.to_string()),
    }
}

fn trouble(error: &S3Error) -> Trouble {
    match error {
        S3Error::Connection(_) => Trouble::NotYet(error.to_string()),
        S3Error::Refused { status, .. } if status.is_server_error() => Trouble::NotYet(error.to_string()),
        S3Error::Refused { .. } | S3Error::Request(_) => Trouble::Final(StepError::message(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_told_before_they_are_brought() {
        let site = |text: &'static [u8]| Site::of_bytes("a.txt", text);
        let step = |before: Option<&Site>| ContentStep {
            site: site(b"new"),
            bucket: "site".to_owned(),
            namespace: String::new(),
            selector: String::new(),
            port: 0,
            key: String::new(),
            secret: Secret(String::new()),
            before: before.map(|site| Filled { keys: vec!["a.txt".to_owned()], digest: site.digest() }),
        };
        let expected = |before, is_there| step(before).expected(is_there);
        let (old, same) = (site(b"old"), site(b"new"));
        assert_eq!(expected(Some(&same), true).action, Action::Leave);
        assert_eq!(expected(Some(&old), true).action, Action::Repair);
        assert!(expected(Some(&old), true).why.is_some());
        assert_eq!(expected(Some(&same), false).action, Action::Create, "a cluster that has to be made has nothing");
        assert_eq!(expected(None, true).action, Action::Create);
    }
}
