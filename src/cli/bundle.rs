//! `devstack bundle`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::session::Runtime;
use super::{Session, image_resolve};
use crate::build::{Builder, host_platform};
use crate::bundle::{self, Manifest};
use crate::error::{ExitCode, Failure};
use crate::event::Event;
use crate::image::{Images, Limits, Request};
use crate::oci::{Platform, Store};
use crate::ports::docker::DockerEngine;
use crate::ports::runner::ProcessRunner;
use crate::ports::{Engine, Runner};
use crate::profile::{self, ProfileSource};
use crate::ui::steps::bytes;
use crate::ui::table::Table;

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
    Create {
        /// A built-in profile's name, a file or a directory
        #[arg(default_value = "s3www")]
        profile: String,
        /// The file to write; PROFILE.bundle.tar unless given
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The platform of the images; the engine's unless given
        #[arg(long, value_name = "OS/ARCH")]
        platform: Option<Platform>,
        /// Ask no registry
        #[arg(long)]
        offline: bool,
    },
    /// Show what is in a bundle
    Inspect {
        /// The bundle
        file: PathBuf,
    },
    /// Verify a bundle and take what is in it into the cache
    Load {
        /// The bundle
        file: PathBuf,
    },
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
            Self::Create { profile, file, platform, offline } => {
                let file = file.clone();
                session.block_on(Runtime::Parallel, create(session, profile, file, platform.clone(), *offline))
            }
            Self::Inspect { file } => {
                let manifest = bundle::inspect(file)?;
                session.ui.result(json!({ "bundle": manifest }), &text(&manifest))?;
                Ok(ExitCode::Done)
            }
            Self::Load { file } => {
                let store = Store::open(&session.ctx.dirs.cache)?;
                let (manifest, images) = bundle::load(&store, file, &host_platform())?;
                let note = format!("{} images verified and taken into the cache\n", images.len());
                session.ui.result(json!({ "bundle": manifest }), &format!("{}{note}", text(&manifest)))?;
                Ok(ExitCode::Done)
            }
        }
    }
}

async fn create(
    session: &Session,
    name: &str,
    file: Option<PathBuf>,
    platform: Option<Platform>,
    offline: bool,
) -> Result<ExitCode, Failure> {
    let ctx = &session.ctx;
    let source = ProfileSource::of(name);
    let profile = profile::load(&profile::Request::of_files(&source))?;
    let mut roles = BTreeSet::from([NODE.to_owned()]);
    roles.extend(profile.components.iter().flat_map(|component| component.images.values().cloned()));

    let runner: Arc<dyn Runner> = Arc::new(ProcessRunner::new(ctx.cancel.clone(), "bundle-create"));
    let engine: Arc<dyn Engine> = Arc::new(DockerEngine::find(&ctx.vars, &ctx.dirs.home));
    let kubernetes = crate::up::kubernetes(&profile)?;
    let question =
        image_resolve::Args { roles: Vec::new(), platform, cpu: None, kubernetes, images: Vec::new(), offline };
    let (target, answers) = image_resolve::target(ctx, &question, engine.as_ref(), runner.as_ref()).await;
    let platform = target.platform.clone();
    let images = Images::open(ctx, answers.then_some(engine), Arc::clone(&runner), Limits::default())?;
    let request = Request { roles: roles.into_iter().collect(), target, named: BTreeMap::new(), recorded: Vec::new() };
    let choices = images.resolve(&request, &BTreeSet::new(), offline).await?;
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
    let builder = Builder::new(ctx, runner, platform.clone())?;
    match builder.tool_image(TOOL, STEP).await {
        Ok(tool) => stored.push(tool),
        Err(error) => ctx.events.warn(format!("{TOOL} is not in the bundle, install it where it is loaded: {error}")),
    }
    let file = file.unwrap_or_else(|| PathBuf::from(format!("{}.bundle.tar", profile.name)));
    let store = images.store().clone();
    let manifest = bundle::create(&store, &profile.name, &platform, &stored, &file)?;
    let size = std::fs::metadata(&file).map_or(0, |meta| meta.len());
    let note = format!("{} · {}\n", file.display(), bytes(size));
    let value = json!({ "bundle": manifest, "file": file, "bytes": size });
    session.ui.result(value, &format!("{}{note}", text(&manifest)))?;
    Ok(ExitCode::Done)
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
