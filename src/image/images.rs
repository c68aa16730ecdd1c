//! The edge between the resolver and the world: finds out what is where, and fetches what was chosen.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, stream};

use super::answers::Answers;
use super::availability::{Availability, InEngine, Place, RecipeState, Remote, Stored};
use super::candidate::{Candidate, Request, Unit, What, candidates, units};
use super::catalog::{Catalog, CatalogError};
use super::choice::Choice;
use super::mirror::{MirrorError, Mirrors};
use super::reference::Reference;
use super::registry::{Client, Credentials, Limits, RegistryError};
use super::resolve::{Unresolvable, keep_recorded, resolve};
use crate::build::{BuildError, Builder, Id};
use crate::context::Context;
use crate::error::{Advise, ExitCode};
use crate::oci::{Digest, OciError, Platform, Store};
use crate::ports::engine::Login;
use crate::ports::{Engine, Runner};

/// Questions to registries under way at a time; each host is asked for a handful at most.
const QUESTIONS: usize = 16;

/// Why images cannot be looked for.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The catalog is broken, or has no such role.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Nothing can be had for a role.
    #[error(transparent)]
    Unresolvable(#[from] Unresolvable),
    /// The user's mirrors cannot be read.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// devstack's store cannot be read.
    #[error(transparent)]
    Store(#[from] OciError),
    /// A recipe cannot be read.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The client cannot be set up.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Advise for ImageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Unresolvable(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::Build(error) => error.hint(),
            Self::Mirror(MirrorError::Yaml(error)) => error.hint(),
            Self::Mirror(_) | Self::Catalog(_) | Self::Registry(_) => None,
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Catalog(CatalogError::UnknownRole { .. })
            | Self::Unresolvable(Unresolvable::Catalog(CatalogError::UnknownRole { .. })) => ExitCode::Usage,
            _ => ExitCode::Failed,
        }
    }
}

/// Images and all the places they come from.
pub struct Images {
    pub(super) ctx: Context,
    pub(super) catalog: Catalog,
    pub(super) store: Store,
    pub(super) engine: Option<Arc<dyn Engine>>,
    pub(super) runner: Arc<dyn Runner>,
    pub(super) client: Client,
    pub(super) mirrors: Mirrors,
    /// One lock a blob, so that two images that share a layer fetch it once.
    blobs: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Opens the store and reads the catalog, the user's mirrors and docker's credentials; asks nobody.
    ///
    /// `engine` is `None` where none answers: then it has no images.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn open(
        ctx: &Context,
        engine: Option<Arc<dyn Engine>>,
        runner: Arc<dyn Runner>,
        limits: Limits,
    ) -> Result<Self, ImageError> {
        let mirrors = Mirrors::load(ctx)?;
        let credentials = Credentials::load(ctx);
        let clock = Arc::clone(&ctx.clock);
        Ok(Self {
            ctx: ctx.clone(),
            catalog: Catalog::builtin()?,
            store: Store::open(&ctx.dirs.cache)?,
            engine,
            client: Client::new(mirrors.clone(), credentials, Arc::clone(&runner), clock, limits)?,
            runner,
            mirrors,
            blobs: Mutex::default(),
        })
    }

    /// The catalog.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Chooses an image for each role.
    ///
    /// `nodes` holds the references that every node has. Where that covers what was recorded, nobody is asked;
    /// otherwise registries are asked only for what neither nodes, store nor engine have, and not at all when `offline`.
    ///
    /// # Errors
    /// [`ImageError::Unresolvable`] with every candidate and its reason, and what else keeps the question from being
    /// asked.
    pub async fn resolve(
        &self,
        request: &Request,
        nodes: &BTreeSet<String>,
        offline: bool,
    ) -> Result<Vec<Choice>, ImageError> {
        if let Some(kept) = keep_recorded(request, nodes) {
            return Ok(kept);
        }
        let availability = self.survey(request, nodes, offline).await?;
        Ok(resolve(&self.catalog, request, &availability)?)
    }

    /// Finds out where the candidates of a request are.
    ///
    /// # Errors
    /// An unknown role, or a store or recipe that cannot be read. What registries and the engine fail at is part of
    /// the answer.
    pub async fn survey(
        &self,
        request: &Request,
        nodes: &BTreeSet<String>,
        offline: bool,
    ) -> Result<Availability, ImageError> {
        let units = units(&self.catalog, request)?;
        let platform = &request.target.platform;
        let mut world =
            Availability { nodes: nodes.clone(), mirrors: self.mirrors.clone(), offline, ..Availability::default() };
        let offers: Vec<Offer> = units.iter().flat_map(|unit| offers(unit, request)).collect();
        let builder = Builder::new(&self.ctx, Arc::clone(&self.runner), platform.clone())?;
        for recipe in offers.iter().filter_map(|offer| offer.candidate.recipe()) {
            // A recipe that is not there is a reason of its candidate, not a failure.
            if let Ok(reference) = builder.recipes().reference(recipe, platform) {
                world.recipes.insert(recipe.to_owned(), RecipeState { reference, ..RecipeState::default() });
            }
        }
        self.look_around(&offers, platform, &mut world).await?;
        let needed = needed(&units, request, &offers, &world);
        self.look_at_recipes(&needed, &builder, &mut world).await?;
        if !offline {
            self.ask(&needed, platform, &mut world).await;
        }
        Ok(world)
    }

    /// Looks into the store and the engine.
    async fn look_around(
        &self,
        offers: &[Offer],
        platform: &Platform,
        world: &mut Availability,
    ) -> Result<(), ImageError> {
        let mut names: BTreeSet<String> = offers.iter().filter_map(|offer| offer.candidate.name(world)).collect();
        for name in &names {
            if let Some(image) = self.store.image(name, platform)? {
                let stored = Stored { digest: image.manifest.digest, pulled_by: image.pulled_by };
                world.store.insert(name.clone(), stored);
            }
        }
        names.extend(offers.iter().filter_map(|offer| offer.candidate.pinned()));
        let Some(engine) = &self.engine else { return Ok(()) };
        let look = |name: String| async move {
            // An engine that does not answer is a finding of the preflight checks.
            let image = engine.image(&name).await.ok().flatten()?;
            Some((name, InEngine::of(&image)))
        };
        let found: Vec<_> = stream::iter(names).map(look).buffer_unordered(8).collect().await;
        world.engine.extend(found.into_iter().flatten());
        Ok(())
    }

    /// Finds out what the builds that may be taken need.
    async fn look_at_recipes(
        &self,
        needed: &[&Offer],
        builder: &Builder,
        world: &mut Availability,
    ) -> Result<(), ImageError> {
        for recipe in needed.iter().filter_map(|offer| offer.candidate.recipe()) {
            let Some(state) = world.recipes.get_mut(recipe) else { continue };
            let target = [Id::image(recipe)];
            state.unmet = builder.needs(&target).await?.iter().map(ToString::to_string).collect();
            state.seconds = Some(builder.expected_seconds(&target)?);
        }
        Ok(())
    }

    /// Asks registries and mirrors, all at once; what they answered a short while ago is not asked again.
    async fn ask(&self, needed: &[&Offer], platform: &Platform, world: &mut Availability) {
        let mut answers = Answers::load(&self.ctx);
        let mut questions: BTreeSet<Reference> = BTreeSet::new();
        let places = needed.iter().flat_map(|offer| {
            let named = offer.candidate.named_by_user;
            offer.candidate.places(world).into_iter().map(move |place| (place, named))
        });
        let places: Vec<(Place, bool)> = places.collect();
        for (place, named) in places {
            match answers.get(&place.pull, platform) {
                // Whoever names an image may have pushed it since.
                Some(answer) if !named || !is_absence(&answer) => {
                    world.remote.insert(place.pull, answer);
                }
                _ => {
                    questions.insert(place.pull);
                }
            }
        }
        let ask = |pull: Reference| async move {
            let answer = self.client.inspect(&pull, platform).await;
            (pull, answer.map(|found| Remote { bytes: found.bytes(), digest: found.digest }))
        };
        let fresh: Vec<_> = stream::iter(questions).map(ask).buffer_unordered(QUESTIONS).collect().await;
        if fresh.is_empty() {
            return;
        }
        for (pull, answer) in fresh {
            answers.put(&self.ctx, &pull, platform, &answer);
            world.remote.insert(pull, answer);
        }
        answers.save(&self.ctx);
    }

    /// The user's login for a registry.
    pub async fn login(&self, host: &str) -> Option<Login> {
        self.client.login_for(host).await
    }

    /// The lock of a blob.
    pub(super) fn blob_lock(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(blobs.entry(digest.clone()).or_default())
    }
}

/// Whether a registry answered that it does not have the image, or not for the platform.
fn is_absence(answer: &Result<Remote, RegistryError>) -> bool {
    matches!(answer, Err(RegistryError::NotFound { .. } | RegistryError::WrongPlatform { .. }))
}

/// A candidate and where in the request it stands.
struct Offer {
    role: String,
    candidate: Candidate,
}

fn offers(unit: &Unit<'_>, request: &Request) -> Vec<Offer> {
    let versions = unit.versions(request);
    let of = |(entry, version): (&&super::catalog::Entry, &String)| {
        let found = candidates(entry, version, request, &request.target.kubernetes);
        let role = entry.role.clone();
        found.into_iter().filter(|c| c.obstacle.is_none()).map(move |candidate| Offer { role: role.clone(), candidate })
    };
    versions.iter().flat_map(|version| unit.entries.iter().map(move |entry| (entry, version))).flat_map(of).collect()
}

/// The offers that registries and builds have to be asked for: in each unit those before the first version that is here
/// already for every role, for then nothing after it is taken.
fn needed<'a>(units: &[Unit<'_>], request: &Request, offers: &'a [Offer], world: &Availability) -> Vec<&'a Offer> {
    let platform = &request.target.platform;
    let is_here = |offer: &Offer| match offer.candidate.name(world) {
        Some(name) => matches!(world.locally(&name, offer.candidate.digest(), platform), Ok(Some(_))),
        None => false,
    };
    let mut needed = Vec::new();
    for unit in units {
        let of_unit = |offer: &&Offer| unit.entries.iter().any(|entry| entry.role == offer.role);
        for version in unit.versions(request) {
            let mut complete = true;
            for entry in &unit.entries {
                let same = |offer: &&Offer| offer.role == entry.role && offer.candidate.of_release(&version);
                let of_role: Vec<&Offer> = offers.iter().filter(of_unit).filter(same).collect();
                let here = of_role.iter().position(|offer| is_here(offer));
                complete &= here.is_some();
                needed.extend(&of_role[..here.unwrap_or(of_role.len())]);
            }
            let sure = unit.entries.iter().all(|entry| entry.release(&version).is_some_and(|r| r.kubernetes.is_none()));
            if complete && sure {
                break;
            }
        }
    }
    needed
}

impl Candidate {
    fn recipe(&self) -> Option<&str> {
        match &self.what {
            What::Recipe(recipe) => Some(recipe),
            What::Image { .. } => None,
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match &self.what {
            What::Image { digest, .. } => digest.as_ref(),
            What::Recipe(_) => None,
        }
    }

    /// The name of the image, which for a recipe is known once it was looked at.
    fn name(&self, world: &Availability) -> Option<String> {
        match &self.what {
            What::Image { reference, .. } => Some(reference.to_string()),
            What::Recipe(recipe) => world.recipes.get(recipe).map(|state| state.reference.clone()),
        }
    }

    /// The name of a pinned image by its digest.
    fn pinned(&self) -> Option<String> {
        match &self.what {
            What::Image { reference, digest: Some(digest) } => Some(reference.by_digest(digest).to_string()),
            _ => None,
        }
    }

    fn places(&self, world: &Availability) -> Vec<Place> {
        match &self.what {
            What::Image { reference, digest } => world.places(reference, digest.as_ref(), self.mirror_only),
            What::Recipe(_) => Vec::new(),
        }
    }

    /// Whether it is offered for a release; what the user named is for every one.
    fn of_release(&self, version: &str) -> bool {
        self.named_by_user || self.version == version
    }
}
