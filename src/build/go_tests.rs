use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::super::recipe::Id;
use super::super::recipes::Recipes;
use super::*;
use crate::context::{Context, Dirs, Options, Vars};
use crate::event::EventSink;
use crate::ports::Runner;
use crate::ports::runner::{OnLine, Output as Ran, ProcessRunner};

/// A process in whose environment somebody has set a few things.
struct Caller {
    runner: ProcessRunner,
    environment: Vec<(String, OsString)>,
}

#[async_trait]
impl Runner for Caller {
    async fn stream(&self, cmd: &Cmd, on_line: OnLine<'_>) -> Result<Ran, RunError> {
        let mut cmd = cmd.clone();
        // What the command sets itself comes after it, and counts.
        cmd.env.splice(0..0, self.environment.iter().cloned());
        self.runner.stream(&cmd, on_line).await
    }
}

fn recipes() -> Recipes {
    let recipe = "apiVersion: devstack/v1\nkind: Recipe\nname: tiny\nversion: v1\nlicense: MIT\n\
                  go: {toolchain: '1.21', ldflags: [-s, -w], binaries: {tiny: example.org/tiny}}\n";
    let files = [
        ("recipe.yaml", recipe),
        ("go.mod", "module example.org/tiny\n\ngo 1.21\n"),
        ("go.sum", ""),
        (
            "main.go",
            "package main\n\nimport \"math/bits\"\n\nvar v uint64 = 7\n\nfunc main() { print(bits.OnesCount64(v)) }\n",
        ),
    ];
    let mut recipes = Recipes::default();
    let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
    recipes.insert("tiny", files.into()).unwrap();
    recipes
}

fn builder(dir: &Path, environment: &[(&str, &str)]) -> Builder {
    let dirs = Dirs { state: dir.join("state"), cache: dir.join("cache"), home: dir.join("home") };
    let ctx = Context::real(dirs, Vars::of_process(), EventSink::null(), Options::default());
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
    let runner = Caller { runner: ProcessRunner::new(ctx.cancel.clone(), "test"), environment };
    Builder::with_recipes(&ctx, Arc::new(runner), needs::host_platform(), recipes()).unwrap()
}

#[tokio::test]
async fn the_same_recipe_gives_the_same_bytes_whatever_its_caller_has_set() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = [Id::parts("tiny")];
    let plain = builder(here.path(), &[]);
    let unmet = plain.needs(&id).await.unwrap();
    if !unmet.is_empty() {
        assert!(plain.ctx.vars.get("CI").is_none(), "CI needs Go: {unmet:?}");
        // Past the test harness, which keeps what a passing test prints to itself.
        writeln!(std::io::stderr(), "skipped: equal bytes of two builds: {unmet:?}").unwrap();
        return;
    }
    let settings = there.path().join("goenv");
    fs::write(&settings, "GOAMD64=v3\nGOOS=windows\nGOFIPS140=latest\n").unwrap();
    let set = builder(
        there.path(),
        &[
            ("GOENV", settings.to_str().unwrap()),
            ("GOAMD64", "v3"),
            ("GOARM64", "v9.0"),
            ("GOOS", "plan9"),
            ("GOARCH", "386"),
            ("GOEXPERIMENT", "fieldtrack"),
            ("GOFIPS140", "latest"),
            ("GOFLAGS", "-tags=x"),
        ],
    );
    let mut programs = Vec::new();
    for builder in [plain, set] {
        let Some(Output::Binaries(dir)) =
            builder.build(&id, "test").await.unwrap().remove(&id[0]).map(|built| built.output)
        else {
            panic!("it gives binaries")
        };
        programs.push(fs::read(dir.join("tiny")).unwrap());
    }
    assert!(programs[0] == programs[1], "{} and {} bytes that differ", programs[0].len(), programs[1].len());
}
