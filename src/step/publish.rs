//! Images for nodes that devstack cannot send them to: into a registry that they pull from.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::access::tunnel::Tunnel;
use crate::cluster::registry;
use crate::event::Action;
use crate::executor::Run;
use crate::image::{Choice, Images, Publish, Reference};
use crate::step::images::obtain;
use crate::step::{Applied, Observed, StepError, World};

/// Pushes at a time: all of them share one connection to the API server's host.
const PARALLEL: usize = 3;

/// How often an image is sent whose push breaks off, and after which time.
const ATTEMPTS: u32 = 4;
const AGAIN: Duration = Duration::from_secs(1);

/// Pushes images to a registry.
#[derive(Debug, Clone)]
pub struct PublishStep {
    /// The images.
    pub choices: Vec<Choice>,
    /// The user's registry; the environment's own where there is none.
    pub registry: Option<Publish>,
    /// What it gave when it last ran.
    pub before: Value,
}

/// A registry that is open for pushes, as long as this is kept.
struct Open {
    publish: Publish,
    _tunnel: Option<Tunnel>,
}

impl PublishStep {
    async fn open(&self, world: &World) -> Result<Option<Open>, StepError> {
        if let Some(publish) = &self.registry {
            return Ok(Some(Open { publish: publish.clone(), _tunnel: None }));
        }
        let Ok(kube) = world.kube() else { return Ok(None) };
        let Some(running) = registry::find(&*kube, &world.environment).await? else { return Ok(None) };
        let namespace = registry::namespace(&world.environment);
        let tunnel = Tunnel::open(kube, &namespace, &running.pod, registry::PORT).await;
        let tunnel =
            tunnel.map_err(|error| StepError::message(format!("cannot listen on a loopback port: {error}")))?;
        let publish = Publish::new(tunnel.address().to_string(), format!("localhost:{}", running.node_port));
        Ok(Some(Open { publish, _tunnel: Some(tunnel) }))
    }

    /// Where an image goes, and its name there as nodes say it.
    fn places(publish: &Publish, choice: &Choice) -> Result<(Reference, Reference), StepError> {
        Images::published_as(publish, choice).map_err(|error| StepError::message(error.to_string()))
    }

    pub(super) async fn observe(&self, world: &World) -> Result<Observed, StepError> {
        let place = self.registry.as_ref().map_or("the environment's own registry", Publish::pull);
        let what = format!("{} images in {place}", self.choices.len());
        let Some(open) = self.open(world).await? else { return Ok(Observed::new(Action::Create, what)) };
        let places = world.images()?;
        let mut missing = Vec::new();
        for choice in &self.choices {
            let (to, _) = Self::places(&open.publish, choice)?;
            if !places.is_published(choice, &to).await {
                missing.push(choice.role.as_str());
            }
        }
        Ok(match missing.as_slice() {
            [] => Observed::new(Action::Leave, what),
            missing => Observed::new(Action::Create, what).because(format!("not there: {}", missing.join(", "))),
        })
    }

    pub(super) async fn apply(&self, run: &Run<'_>, id: &str) -> Result<Applied, StepError> {
        let open = self.open(run.world).await?;
        let open = open.ok_or_else(|| StepError::message("the environment's own registry does not run"))?;
        let mut names = BTreeMap::new();
        let mut changed = 0;
        for some in self.choices.chunks(PARALLEL) {
            let pushed = some.iter().map(|choice| push(run, id, choice, &open.publish));
            for (role, name, new) in try_join_all(pushed).await? {
                names.insert(role, name);
                changed += usize::from(new);
            }
        }
        let detail = match changed {
            0 => format!("{0}/{0}", self.choices.len()),
            changed => format!("{changed} of {} pushed", self.choices.len()),
        };
        let outputs = json!({"images": names});
        // The registry's port is another one where its Service was made anew.
        let changed = changed > 0 || outputs != self.before;
        Ok(Applied { detail, outputs, changed })
    }
}

/// Pushes an image that is not there yet; gives its role, its name for nodes, and whether it was pushed.
async fn push(run: &Run<'_>, id: &str, choice: &Choice, publish: &Publish) -> Result<(String, Value, bool), StepError> {
    let places = run.world.images()?;
    let (to, pull) = PublishStep::places(publish, choice)?;
    let stored = obtain(run, choice, id).await?;
    let new = !places.is_published(choice, &to).await;
    if new {
        run.waiting(id, format!("pushing {} ({} MB)", choice.reference, stored.size / 1_000_000));
        let mut attempts = 1;
        while let Err(error) = places.publish(&stored, &to).await {
            // What has arrived stays there; a connection through the API server can break off at any time.
            if attempts == ATTEMPTS || !error.is_transient() {
                return Err(StepError::of(&error));
            }
            attempts += 1;
            run.waiting(id, format!("{} broke off, {} is sent again", to.registry(), choice.role));
            run.ctx.clock.sleep(AGAIN).await;
        }
        // Never believe: what was pushed is asked for again.
        if !places.is_published(choice, &to).await {
            return Err(StepError::message(format!("{} took {to}, but does not have it", to.registry())));
        }
    }
    Ok((choice.role.clone(), format!("{pull}@{}", stored.manifest.digest).into(), new))
}
