//! `devstack bundle`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::session::Runtime;
use super::{Session, image_resolve};
use crate::build::Builder;
use crate::bundle::{self, BundleError, Manifest};
use crate::context::Context;
use crate::error::{Advise as _, ExitCode, Failure};
use crate::event::Event;
use crate::facts::CpuLevel;
use crate::image::{Choice, Images, KubeRange, Limits};
use crate::oci::{OciError, Platform, Store, StoredImage};
use crate::ports::docker::DockerEngine;
use crate::ports::runner::ProcessRunner;
use crate::ports::{Engine, Runner};
use crate::profile::{self, ProfileSource, Resolved};
use crate::ui::Question;
use crate::ui::steps::bytes;
use crate::ui::table::Table;
use crate::up;

/// The role of the node image.
const NODE: &str = "node";

/// The program that makes clusters.
const TOOL: &str = "kind";

/// The step under which progress is reported.
const STEP: &str = "bundle";

/// Bundles: everything a profile needs in one file, for a network without registries
#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Collect the images of a profile, the node image and kind in one file
    Create(Create),
    /// Show what is in a bundle
    Inspect {
        /// The bundle
        file: PathBuf,
    },
    /// Verify a bundle and take what is in it into the cache
    Load {
        /// The bundle
        file: PathBuf,
        /// The platform of the nodes that it is for; the engine's unless given
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<Platform>,
    },
}

/// Arguments of `devstack bundle create`.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// A built-in profile's name, a file or a directory
    #[arg(default_value = "s3www")]
    profile: String,
    /// The file to write; PROFILE.bundle.tar unless given
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The platform of the images; the engine's unless given
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// The nodes' CPU level, x86-64-v1 to x86-64-v4; the engine's unless given
    #[arg(long, value_name = "LEVEL")]
    cpu: Option<CpuLevel>,
    /// The nodes' Kubernetes version, such as 1.34 or 1.34.11; the profile's choice unless given
    #[arg(long, value_name = "VERSION", default_value = "auto")]
    kubernetes: KubeRange,
    /// Set a parameter of the profile, or COMPONENT.PARAMETER of a component, such as the images that you name
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = super::values::setting)]
    sets: Vec<(String, String)>,
    /// Ask no registry
    #[arg(long)]
    offline: bool,
}

impl BundleCommand {
    /// Whether the verb, as it was called, changes anything.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Inspect { .. })
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// Whatever it fails with.
    pub fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(args) => session
                .block_on(Runtime::Parallel, create(session, args))
                .map_err(|failure| kept(failure, "no bundle was written; what was fetched or built is in the cache")),
            Self::Inspect { file } => session.block_on(Runtime::Small, inspect(session, file)),
            Self::Load { file, platform } => session
                .block_on(Runtime::Parallel, load(session, file, platform.clone()))
                .map_err(|failure| kept(failure, "nothing was changed")),
        }
    }
}

/// Says what an interruption left.
fn kept(failure: Failure, what: &str) -> Failure {
    if failure.exit == ExitCode::Interrupted { failure.kept(what) } else { failure }
}

async fn inspect(session: &Session, file: &Path) -> Result<ExitCode, Failure> {
    let file = file.to_path_buf();
    let manifest = blocking(move || bundle::inspect(&file)).await?;
    session.ui.result(json!({ "bundle": manifest }), &text(&manifest))?;
    Ok(ExitCode::Done)
}

async fn load(session: &Session, file: &Path, platform: Option<Platform>) -> Result<ExitCode, Failure> {
    let ctx = &session.ctx;
    let platform = match platform {
        Some(platform) => platform,
        None => unless_interrupted(ctx, async { Ok(nodes_platform(ctx).await) }).await?,
    };
    let store = Store::open(&ctx.dirs.cache)?;
    let (file, cancel) = (file.to_path_buf(), ctx.cancel.clone());
    let (manifest, images) = blocking(move || bundle::load(&store, &file, &platform, &cancel)).await?;
    let note = format!("{} images verified and taken into the cache\n", images.len());
    session.ui.result(json!({ "bundle": manifest }), &format!("{}{note}", text(&manifest)))?;
    Ok(ExitCode::Done)
}

/// The platform that `create` and `up` take images for unless they are told.
async fn nodes_platform(ctx: &Context) -> Platform {
    let question = image_resolve::Args {
        roles: Vec::new(),
        platform: None,
        cpu: None,
        kubernetes: KubeRange::default(),
        images: Vec::new(),
        offline: true,
    };
    let (runner, engine) = (runner(ctx), engine(ctx));
    image_resolve::target(ctx, &question, engine.as_ref(), runner.as_ref()).await.0.platform
}

async fn create(session: &Session, args: &Create) -> Result<ExitCode, Failure> {
    let ctx = &session.ctx;
    let source = ProfileSource::of(&args.profile);
    let request = profile::Request { settings: &args.sets, ..profile::Request::of_files(&source) };
    let profile = profile::load(&request)?;
    let (platform, images, choices) = unless_interrupted(ctx, choose(ctx, args, &profile)).await?;
    ask(session, &choices)?;
    let stored = collect(ctx, &platform, &images, &choices).await?;

    let file = args.file.clone().unwrap_or_else(|| PathBuf::from(format!("{}.bundle.tar", profile.name)));
    let (store, path, cancel) = (images.store().clone(), file.clone(), ctx.cancel.clone());
    let write = move || bundle::create(&store, &profile.name, &platform, &stored, &path, &cancel);
    let manifest = blocking(write).await?;
    let size = std::fs::metadata(&file).map_or(0, |meta| meta.len());
    let note = format!("{} · {}\n", file.display(), bytes(size));
    let value = json!({ "bundle": manifest, "file": file, "bytes": size });
    session.ui.result(value, &format!("{}{note}", text(&manifest)))?;
    Ok(ExitCode::Done)
}

/// Chooses an image for every role of the profile, and for the nodes.
async fn choose(ctx: &Context, args: &Create, profile: &Resolved) -> Result<(Platform, Images, Vec<Choice>), Failure> {
    let question = image_resolve::Args {
        roles: Vec::new(),
        platform: args.platform.clone(),
        cpu: args.cpu,
        kubernetes: kubernetes(args.kubernetes, profile)?,
        images: Vec::new(),
        offline: args.offline,
    };
    let (runner, engine) = (runner(ctx), engine(ctx));
    let (target, answers) = image_resolve::target(ctx, &question, engine.as_ref(), runner.as_ref()).await;
    let platform = target.platform.clone();
    let images = Images::open(ctx, answers.then_some(engine), runner, Limits::default())?;
    let request = up::images_wanted(profile, &[NODE], target, Vec::new())?;
    let choices = images.resolve(&request, &BTreeSet::new(), args.offline).await?;
    Ok((platform, images, choices))
}

/// The Kubernetes versions that will do: what was asked for, where the profile works with it.
fn kubernetes(asked: KubeRange, profile: &Resolved) -> Result<KubeRange, Failure> {
    let wanted = up::kubernetes(profile)?;
    if asked == KubeRange::default() {
        return Ok(wanted);
    }
    if !asked.meets(&wanted) {
        let message = format!("{} works with Kubernetes {wanted}, not with {asked}", profile.name);
        return Err(Failure::usage(message).kept("nothing was changed"));
    }
    Ok(asked)
}

/// Asks for what `up` asks for as well.
fn ask(session: &Session, choices: &[Choice]) -> Result<(), Failure> {
    let mut what = up::substitutes(choices.iter());
    what.extend(up::long_build(choices.iter()));
    if what.is_empty() {
        return Ok(());
    }
    session.ui.confirm(&Question {
        what,
        ask: "Go on".to_owned(),
        explain: "Substitutes and source builds stand in for images that cannot be had here. Nothing is fetched or \
                  built before you say yes."
            .to_owned(),
        privilege: false,
    })
}

/// Brings every image into the store, and kind as one.
async fn collect(
    ctx: &Context,
    platform: &Platform,
    images: &Images,
    choices: &[Choice],
) -> Result<Vec<StoredImage>, Failure> {
    let mut stored = Vec::with_capacity(choices.len() + 1);
    for (done, choice) in choices.iter().enumerate() {
        ctx.events.emit(Event::StepProgress {
            step: STEP.to_owned(),
            done: done as u64,
            total: Some(choices.len() as u64),
            unit: "images",
            detail: choice.reference.clone(),
        });
        stored.push(images.obtain(choice, STEP, &|_, _| {}).await?);
    }
    match Builder::new(ctx, runner(ctx), platform.clone())?.tool_image(TOOL, STEP).await {
        Ok(tool) => stored.push(tool),
        Err(error) if error.exit() == ExitCode::Interrupted => return Err(error.into()),
        Err(error) => ctx.events.warn(format!("{TOOL} is not in the bundle, install it where it is loaded: {error}")),
    }
    Ok(stored)
}

fn runner(ctx: &Context) -> Arc<dyn Runner> {
    Arc::new(ProcessRunner::new(ctx.cancel.clone(), "bundle"))
}

fn engine(ctx: &Context) -> Arc<dyn Engine> {
    Arc::new(DockerEngine::find(&ctx.vars, &ctx.dirs.home))
}

/// Work that leaves nothing behind where it is dropped.
async fn unless_interrupted<T>(ctx: &Context, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = ctx.cancel.cancelled() => Err(Failure::interrupted(false)),
    }
}

/// Reads or writes a bundle on a thread of its own. What may not be dropped ends by itself where it is interrupted.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, Failure> {
    let ended = tokio::task::spawn_blocking(work).await;
    Ok(ended.map_err(|_| OciError::Interrupted { what: "reading or writing the bundle" })??)
}

fn text(manifest: &Manifest) -> String {
    let mut text = format!("{} · {} · devstack {}\n", manifest.profile, manifest.platform, manifest.devstack);
    let mut table = Table::new(["IMAGE", "SIZE", "DIGEST"]);
    for item in &manifest.images {
        table.row([item.reference.clone(), bytes(item.bytes), format!("sha256:{}", item.digest.short())]);
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", table.render());
    text
}
