//! `devstack image build`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::Session;
use super::session::Runtime;
use crate::build::{BuildError, Builder, Built, Gives, Id, Output, Unmet, host_platform};
use crate::error::{ExitCode, Failure};
use crate::image::{Catalog, ImageError};
use crate::oci::archive::{ArchiveFormat, export};
use crate::ports::Engine as _;
use crate::ports::docker::DockerEngine;
use crate::ports::runner::ProcessRunner;
use crate::ui::confirm::Question;
use crate::ui::steps::{bytes, duration};
use crate::ui::table::Table;

/// The step under which progress is reported.
const STEP: &str = "build";

/// A build that is expected to take longer than this many seconds is asked about first.
const ASKED_ABOVE: u64 = 60;

/// Arguments of `devstack image build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images to build, such as minio or node; those of the catalog unless given
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Build every image that there is a recipe for
    #[arg(long, conflicts_with = "images")]
    pub all: bool,
    /// Show what can be built, and what this machine lacks for it; build nothing
    #[arg(long)]
    pub list: bool,
    /// Load what was built into the engine as well
    #[arg(long, conflicts_with = "list")]
    pub load: bool,
}

/// Builds, and prints what came of it.
///
/// # Errors
/// An unknown image, something that this machine lacks, no consent, or a failed build.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    session.block_on(Runtime::Parallel, async {
        let ctx = &session.ctx;
        let runner = Arc::new(ProcessRunner::new(ctx.cancel.clone(), "image-build"));
        let builder = Builder::new(ctx, runner, host_platform())?;
        let targets = targets(&builder, args)?;
        if args.list { list(session, &builder, &targets).await } else { build(session, &builder, &targets, args).await }
    })
}

fn targets(builder: &Builder, args: &Args) -> Result<Vec<Id>, Failure> {
    if !args.images.is_empty() {
        let names: BTreeSet<&String> = args.images.iter().collect();
        return Ok(names.into_iter().map(|name| Id::image(name)).collect());
    }
    if args.all || args.list {
        let images = builder.recipes().all().filter(|recipe| recipe.id.gives == Gives::Image);
        return Ok(images.map(|recipe| recipe.id.clone()).collect());
    }
    let catalog = Catalog::builtin().map_err(ImageError::from)?;
    let recipes: BTreeSet<&str> = catalog
        .roles()
        .filter_map(|role| catalog.entry(role).ok())
        .flat_map(|entry| &entry.releases)
        .filter_map(|release| release.build.as_ref())
        .map(|build| build.recipe.as_str())
        .collect();
    Ok(recipes.into_iter().map(Id::image).collect())
}

async fn list(session: &Session, builder: &Builder, targets: &[Id]) -> Result<ExitCode, Failure> {
    let mut table = Table::new(["IMAGE", "VERSION", "STATE", "REFERENCE"]);
    let mut rows = Vec::new();
    for id in targets {
        let target = std::slice::from_ref(id);
        let recipe = builder.recipes().get(id)?;
        let reference = builder.recipes().reference(&id.name, &host_platform())?;
        let missing = builder.missing(target)?;
        let unmet = builder.needs(target).await?;
        let seconds = builder.expected_seconds(target)?;
        let state = if missing.is_empty() {
            "built".to_owned()
        } else if unmet.is_empty() {
            format!("takes about {}", duration(seconds_f64(seconds)))
        } else {
            unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        table.row([id.name.clone(), recipe.version.clone(), state, reference.clone()]);
        rows.push(json!({
            "image": id.name, "version": recipe.version, "license": recipe.license, "reference": reference,
            "built": missing.is_empty(), "expected_seconds": seconds,
            "unmet": unmet.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "cures": unmet.iter().map(Unmet::cure).collect::<Vec<_>>(),
        }));
    }
    session.ui.result(json!({ "images": rows }), &table.render())?;
    Ok(ExitCode::Done)
}

async fn build(session: &Session, builder: &Builder, targets: &[Id], args: &Args) -> Result<ExitCode, Failure> {
    let expected = builder.expected_seconds(targets)?;
    if expected > ASKED_ABOVE {
        let missing = builder.missing(targets)?;
        session.ui.confirm(&Question {
            what: vec![format!(
                "{} recipes, about {} when nothing is cached",
                missing.len(),
                duration(seconds_f64(expected))
            )],
            ask: "Build from source".to_owned(),
            explain:
                "Sources come from Go's module proxy and Debian, verified by go.sum and apt's signatures. What is \
                      built stays in the cache; the time is that of two cores."
                    .to_owned(),
            privilege: false,
        })?;
    }
    let started = std::time::Instant::now();
    let built = builder.build(targets, STEP).await?;
    if args.load {
        let engine = DockerEngine::find(&session.ctx.vars, &session.ctx.dirs.home);
        for result in targets.iter().filter_map(|id| built.get(id)) {
            if let Output::Image(image) = &result.output {
                let archive = export(builder.store(), &[image.as_ref().clone()], ArchiveFormat::Docker);
                let reference = image.reference.clone();
                engine.load_image(archive).await.map_err(|source| BuildError::Engine { reference, source })?;
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    report(session, targets, &built, seconds)
}

fn report(
    session: &Session,
    targets: &[Id],
    built: &std::collections::BTreeMap<Id, Built>,
    seconds: f64,
) -> Result<ExitCode, Failure> {
    let mut table = Table::new(["IMAGE", "SIZE", "TIME", "REFERENCE"]);
    let mut rows = Vec::new();
    for (id, result) in targets.iter().filter_map(|id| Some((id, built.get(id)?))) {
        let Output::Image(image) = &result.output else { continue };
        let time = if result.seconds > 0.0 { duration(result.seconds) } else { "was there".to_owned() };
        table.row([id.name.clone(), bytes(image.size), time, image.reference.clone()]);
        rows.push(json!({
            "image": id.name, "reference": image.reference, "platform": image.platform, "bytes": image.size,
            "digest": image.manifest.digest, "built": result.seconds > 0.0, "seconds": result.seconds,
        }));
    }
    let recipes: Vec<_> = built
        .iter()
        .filter(|(_, result)| result.seconds > 0.0)
        .map(|(id, result)| json!({ "recipe": id.to_string(), "seconds": result.seconds }))
        .collect();
    let mut text = table.render();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} recipes built in {}", recipes.len(), duration(seconds));
    session.ui.result(json!({ "images": rows, "recipes": recipes, "seconds": seconds }), &text)?;
    Ok(ExitCode::Done)
}

/// Whole seconds for display.
fn seconds_f64(seconds: u64) -> f64 {
    std::time::Duration::from_secs(seconds).as_secs_f64()
}
