//! Go recipes: binaries from a module, verified against the `go.sum` beside the recipe.

use std::fs;

use super::builder::{Builder, Output, has_content};
use super::error::BuildError;
use super::needs;
use super::recipe::{GoRecipe, Recipe};
use crate::ports::runner::{Cmd, RunError};

/// What a caller may have set and no recipe wants, with the values that Go has by itself. They are not part of what
/// identifies a result.
const FIXED: [(&str, &str); 3] = [("GOAMD64", "v1"), ("GOARM64", "v8.0"), ("GOFIPS140", "off")];

/// As [`FIXED`], for the part in C: nothing of the caller's environment. Go records these in what it builds, where a
/// value that changes nothing would make other bytes.
const EMPTY: [&str; 5] = ["CGO_CFLAGS", "CGO_CPPFLAGS", "CGO_CXXFLAGS", "CGO_LDFLAGS", "GO_EXTLINK_ENABLED"];

/// Which experimental parts of Go are used.
const EXPERIMENTS: &str = "GOEXPERIMENT";

/// None beyond Go's own: a list of nothing, since an empty variable leaves what `go env -w` says.
const NO_EXPERIMENTS: &str = ",";

/// Builds every binary of a recipe.
///
/// The flags are those of a reproducible build. They are also what Go's own build cache is keyed by, so that a second
/// build of the same packages, wherever it came from, takes seconds.
pub(super) async fn build(builder: &Builder, recipe: &Recipe, go: &GoRecipe) -> Result<Output, BuildError> {
    let scratch = builder.scratch(recipe)?;
    let source = scratch.write("source", &recipe.files)?;
    let result = scratch.dir("result")?;
    let bin = scratch.dir("result/bin")?;
    let experiments = experiments(builder).await;
    for (binary, package) in &go.binaries {
        let cmd =
            command(builder, go).env(EXPERIMENTS, experiments).arg("build").arg("-trimpath").arg("-buildvcs=false");
        let cmd = if go.tags.is_empty() { cmd } else { cmd.arg("-tags").arg(go.tags.join(",")) };
        let cmd = cmd.arg("-ldflags").arg(go.ldflags.join(" ")).arg("-o").arg(bin.join(binary)).arg(package);
        builder.runner.run(&cmd.cwd(&source)).await.map_err(tool(recipe))?;
        if !has_content(&bin.join(binary)) {
            return Err(BuildError::Result {
                recipe: recipe.id.to_string(),
                reason: format!("go build ended well and wrote no {binary}"),
            });
        }
    }
    let version = builder.runner.run(&command(builder, go).arg("version")).await.map_err(tool(recipe))?;
    let note = result.join("toolchain");
    fs::write(&note, version.stdout).map_err(BuildError::io("write", &note))?;
    let place = builder.keep(recipe, &scratch).await?;
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
    let output = builder.runner.run(&environment(builder, cmd).cwd(&source)).await.map_err(tool(recipe))?;
    let download: Download = serde_json::from_slice(&output.stdout).map_err(|error| BuildError::Result {
        recipe: recipe.id.to_string(),
        reason: format!("go mod download does not say where {module} is: {error}"),
    })?;
    Ok(download.dir)
}

fn command(builder: &Builder, go: &GoRecipe) -> Cmd {
    let cmd = environment(builder, Cmd::new(needs::go_program(&builder.ctx)));
    cmd.env("CGO_ENABLED", if go.cgo { "1" } else { "0" })
}

/// Sets what decides what is built. Where modules come from and what is cached remains the caller's: proxies, checksum
/// databases, and the file of `go env -w`, whose other values a variable overrides unless it is empty.
fn environment(builder: &Builder, cmd: Cmd) -> Cmd {
    let platform = &builder.platform;
    let cmd = cmd.env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    let cmd = cmd.env("GOOS", &platform.os).env("GOARCH", &platform.architecture).env(EXPERIMENTS, NO_EXPERIMENTS);
    let cmd = FIXED.iter().fold(cmd, |cmd, (name, value)| cmd.env(name, value));
    EMPTY.iter().fold(cmd, |cmd, name| cmd.env(name, ""))
}

/// The value of [`EXPERIMENTS`] to build with: [`NO_EXPERIMENTS`] where the file of `go env -w` has some, else an empty
/// one, which leaves no trace in what is built.
async fn experiments(builder: &Builder) -> &'static str {
    let cmd = environment(builder, Cmd::new(needs::go_program(&builder.ctx))).args(["env", EXPERIMENTS]);
    match builder.runner.run(&cmd.env(EXPERIMENTS, "")).await {
        Ok(output) if output.text().trim().is_empty() => "",
        // Go also fails where it does not know the experiment.
        _ => NO_EXPERIMENTS,
    }
}

/// Wraps the error of a tool.
pub(super) fn tool(recipe: &Recipe) -> impl Fn(RunError) -> BuildError {
    let recipe = recipe.id.to_string();
    move |source| match source {
        RunError::Cancelled { .. } => BuildError::Cancelled,
        source => BuildError::Tool { recipe: recipe.clone(), source },
    }
}

#[cfg(test)]
#[path = "go_tests.rs"]
mod tests;
