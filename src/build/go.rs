//! Go recipes: binaries from a module, verified against the `go.sum` beside the recipe.

use std::fs;

use super::builder::{Builder, Output};
use super::error::BuildError;
use super::needs;
use super::recipe::{GoRecipe, Recipe};
use crate::ports::runner::{Cmd, RunError};

/// Builds every binary of a recipe.
///
/// The flags are those of a reproducible build. They are also what Go's own build cache is keyed by, so that a second
/// build of the same packages, wherever it came from, takes seconds.
pub(super) async fn build(builder: &Builder, recipe: &Recipe, go: &GoRecipe) -> Result<Output, BuildError> {
    let place = builder.place(recipe)?;
    let scratch = builder.scratch(recipe)?;
    let source = scratch.write("source", &recipe.files)?;
    let result = scratch.dir("result")?;
    let bin = scratch.dir("result/bin")?;
    for (binary, package) in &go.binaries {
        let cmd = command(builder, go).arg("build").arg("-trimpath").arg("-buildvcs=false");
        let cmd = if go.tags.is_empty() { cmd } else { cmd.arg("-tags").arg(go.tags.join(",")) };
        let cmd = cmd.arg("-ldflags").arg(go.ldflags.join(" ")).arg("-o").arg(bin.join(binary)).arg(package);
        builder.runner.run(&cmd.cwd(&source)).await.map_err(tool(recipe))?;
        if !bin.join(binary).is_file() {
            return Err(BuildError::Result {
                recipe: recipe.id.to_string(),
                reason: format!("go build ended well and wrote no {binary}"),
            });
        }
    }
    let version = builder.runner.run(&command(builder, go).arg("version")).await.map_err(tool(recipe))?;
    let note = result.join("toolchain");
    fs::write(&note, version.stdout).map_err(BuildError::io("write", &note))?;
    scratch.keep("result", &place)?;
    Ok(Output::Binaries(place.join("bin")))
}

/// The directory of a module of the recipe in Go's module cache, downloaded and verified where it is not there.
pub(super) async fn module_dir(
    builder: &Builder,
    recipe: &Recipe,
    module: &str,
) -> Result<std::path::PathBuf, BuildError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Download {
        dir: std::path::PathBuf,
    }
    let scratch = builder.scratch(recipe)?;
    let source = scratch.write("source", &recipe.files)?;
    let cmd = Cmd::new(needs::go_program(&builder.ctx)).args(["mod", "download", "-json", module]);
    let output = builder.runner.run(&environment(cmd).cwd(&source)).await.map_err(tool(recipe))?;
    let download: Download = serde_json::from_slice(&output.stdout).map_err(|error| BuildError::Result {
        recipe: recipe.id.to_string(),
        reason: format!("go mod download does not say where {module} is: {error}"),
    })?;
    Ok(download.dir)
}

fn command(builder: &Builder, go: &GoRecipe) -> Cmd {
    environment(Cmd::new(needs::go_program(&builder.ctx))).env("CGO_ENABLED", if go.cgo { "1" } else { "0" })
}

fn environment(cmd: Cmd) -> Cmd {
    cmd.env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local").env("GOWORK", "off")
}

/// Wraps the error of a tool.
pub(super) fn tool(recipe: &Recipe) -> impl Fn(RunError) -> BuildError {
    let recipe = recipe.id.to_string();
    move |source| match source {
        RunError::Cancelled { .. } => BuildError::Cancelled,
        source => BuildError::Tool { recipe: recipe.clone(), source },
    }
}
