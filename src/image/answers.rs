//! What registries answered before, kept in the cache so that the same question is not asked again at once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::availability::Remote;
use super::reference::Reference;
use super::registry::RegistryError;
use crate::context::Context;
use crate::oci::Platform;

/// Seconds for which an image that was found is taken to be there; fetching it would show the opposite.
const FOUND: i64 = 3600;
/// Seconds for which an image that was not found is not asked for again.
const NOT_FOUND: i64 = 300;
/// Seconds for which a registry that limits its rate without saying for how long is left alone.
const RATE_LIMITED: i64 = 60;

/// Answers by question (`REFERENCE PLATFORM`).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answers(BTreeMap<String, Answer>);

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    /// Seconds since 1970.
    until: i64,
    #[serde(flatten)]
    what: What,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum What {
    Found(Remote),
    Failed(RegistryError),
}

impl Answers {
    /// The answers that still count; a file that cannot be read holds none.
    pub(super) fn load(ctx: &Context) -> Self {
        let bytes = ctx.fs.read(&file(ctx)).ok().flatten().unwrap_or_default();
        let mut answers: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        let now = ctx.clock.now().as_second();
        // A clock that was set back must not keep an answer for longer than it would have lived.
        answers.0.retain(|_, answer| answer.until > now && answer.until <= now + FOUND);
        answers
    }

    pub(super) fn get(&self, pull: &Reference, platform: &Platform) -> Option<Result<Remote, RegistryError>> {
        self.0.get(&key(pull, platform)).map(|answer| match &answer.what {
            What::Found(remote) => Ok(remote.clone()),
            What::Failed(error) => Err(error.clone()),
        })
    }

    /// Keeps an answer that is worth it: a host that cannot be reached may be reachable now, and a login may follow.
    pub(super) fn put(
        &mut self,
        ctx: &Context,
        pull: &Reference,
        platform: &Platform,
        answer: &Result<Remote, RegistryError>,
    ) {
        let (what, seconds) = match answer {
            Ok(remote) => (What::Found(remote.clone()), FOUND),
            Err(error @ (RegistryError::NotFound { .. } | RegistryError::WrongPlatform { .. })) => {
                (What::Failed(error.clone()), NOT_FOUND)
            }
            Err(error @ RegistryError::RateLimited { retry_after, .. }) => {
                let seconds = retry_after.and_then(|seconds| seconds.try_into().ok()).unwrap_or(RATE_LIMITED);
                (What::Failed(error.clone()), seconds.min(FOUND))
            }
            Err(_) => return,
        };
        self.0.insert(key(pull, platform), Answer { until: ctx.clock.now().as_second() + seconds, what });
    }

    /// Writes the answers. They only save time: what keeps them from being written is no failure.
    pub(super) fn save(&self, ctx: &Context) {
        if let Ok(bytes) = serde_json::to_vec(self) {
            let _ = ctx.fs.create_dir(&ctx.dirs.cache).and_then(|()| ctx.fs.write(&file(ctx), &bytes, 0o600));
        }
    }
}

fn key(pull: &Reference, platform: &Platform) -> String {
    format!("{pull} {platform}")
}

fn file(ctx: &Context) -> PathBuf {
    ctx.dirs.cache.join("registry-answers.json")
}
