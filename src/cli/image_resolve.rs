//! `devstack image resolve`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::Session;
use super::session::Runtime;
use crate::context::Context;
use crate::error::{ExitCode, Failure};
use crate::facts::{CpuLevel, EngineFacts, HostFacts, Machine};
use crate::image::{Choice, ImageError, Images, KubeRange, Limits, Reference, Rejected, Request, Target, Unresolvable};
use crate::oci::Platform;
use crate::ports::docker::DockerEngine;
use crate::ports::runner::ProcessRunner;
use crate::ports::{Engine, Runner};
use crate::ui::steps::bytes;

/// Arguments of `devstack image resolve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Roles of the catalog, such as s3www; all of them unless given
    #[arg(value_name = "ROLE")]
    pub roles: Vec<String>,
    /// The nodes' platform; the engine's unless given
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<Platform>,
    /// The nodes' CPU level, x86-64-v1 to x86-64-v4; the engine's unless given
    #[arg(long, value_name = "LEVEL")]
    pub cpu: Option<CpuLevel>,
    /// The nodes' Kubernetes version, such as 1.34 or 1.34.11
    #[arg(long, value_name = "VERSION", default_value = "auto")]
    pub kubernetes: KubeRange,
    /// An image to take for a role, whatever the catalog says
    #[arg(long = "image", value_name = "ROLE=REFERENCE", value_parser = named)]
    pub images: Vec<(String, Reference)>,
    /// Ask no registry
    #[arg(long)]
    pub offline: bool,
}

fn named(text: &str) -> Result<(String, Reference), String> {
    let (role, reference) = text.split_once('=').ok_or("write ROLE=REFERENCE")?;
    let reference = reference.parse().map_err(|error: crate::image::NotAReference| error.to_string())?;
    Ok((role.to_owned(), reference))
}

/// Resolves and prints.
///
/// # Errors
/// A role that is not there, or for which nothing can be had.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    session.block_on(Runtime::Parallel, resolve(session, args))
}

async fn resolve(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let ctx = &session.ctx;
    let runner: Arc<dyn Runner> = Arc::new(ProcessRunner::new(ctx.cancel.clone(), "image-resolve"));
    let engine: Arc<dyn Engine> = Arc::new(DockerEngine::find(&ctx.vars, &ctx.dirs.home));
    let (target, engine_answers) = target(ctx, args, engine.as_ref(), runner.as_ref()).await;
    let images = Images::open(ctx, engine_answers.then_some(engine), runner, Limits::default())?;
    let roles = match args.roles.as_slice() {
        [] => images.catalog().roles().map(str::to_owned).collect(),
        roles => roles.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
    };
    let named: BTreeMap<String, Reference> = args.images.iter().cloned().collect();
    for role in named.keys() {
        images.catalog().entry(role).map_err(ImageError::from)?;
    }
    let request = Request { roles, target, named, recorded: Vec::new() };
    match images.resolve(&request, &BTreeSet::new(), args.offline).await {
        Ok(choices) => {
            session.ui.result(json!({ "target": describe(&request.target), "choices": choices }), &text(&choices))?;
            Ok(ExitCode::Done)
        }
        Err(ImageError::Unresolvable(Unresolvable::Roles(roles))) => {
            let proof: Vec<String> = roles.iter().flat_map(|role| role.rejected.iter().map(line)).collect();
            let mut failure = Failure::from(ImageError::Unresolvable(Unresolvable::Roles(roles)));
            failure.proof.extend(proof);
            Err(failure)
        }
        Err(error) => Err(error.into()),
    }
}

/// What the images are for, and whether an engine answers.
pub(super) async fn target(ctx: &Context, args: &Args, engine: &dyn Engine, runner: &dyn Runner) -> (Target, bool) {
    let host = HostFacts::read(Machine::ask(&[]), ctx.fs.as_ref(), runner).await;
    let facts = engine.info().await.ok().map(|info| EngineFacts::of(info, &host));
    let found = facts.as_ref().and_then(|facts| facts.platform.parse().ok());
    let platform = args.platform.clone().or(found).unwrap_or_else(|| Platform::linux(&host.architecture));
    let cgroup = facts.as_ref().map(EngineFacts::cgroup).filter(|version| *version > 0);
    let cpu = match &facts {
        Some(facts) => facts.level(),
        None => host.cpu.level,
    };
    let target = Target { platform, cpu: args.cpu.or(cpu), kubernetes: args.kubernetes, cgroup };
    (target, facts.is_some())
}

fn describe(target: &Target) -> serde_json::Value {
    json!({
        "platform": target.platform,
        "cpu": target.cpu,
        "kubernetes": target.kubernetes.to_string(),
        "cgroup": target.cgroup,
    })
}

fn text(choices: &[Choice]) -> String {
    let mut text = String::new();
    for choice in choices {
        let mut facts = vec![choice.source.word().to_owned()];
        facts.extend(choice.download_bytes.map(bytes));
        facts.extend(choice.expect_seconds.map(|seconds| format!("about {seconds} s on two cores")));
        if choice.substitute {
            facts.push("a substitute".to_owned());
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}\n  {}  ({})", choice.role, choice.reference, facts.join(", "));
        let _ = writeln!(text, "  because {}", choice.why);
        if let Some(note) = &choice.note {
            let _ = writeln!(text, "  note    {note}");
        }
        for rejected in &choice.rejected {
            let _ = writeln!(text, "  not     {}", line(rejected));
        }
    }
    text
}

fn line(rejected: &Rejected) -> String {
    format!("{}: {}", rejected.reference, rejected.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Obstacle, Source};

    #[test]
    fn a_choice_is_told_with_its_reasons() {
        let choice = Choice {
            role: "s3www".to_owned(),
            version: "compat-1".to_owned(),
            reference: "devstack.local/s3www-compat:compat-1-0123456789ab".to_owned(),
            digest: None,
            platform: Platform::linux("amd64"),
            cpu: CpuLevel::V1,
            source: Source::Build { recipe: "s3www-compat".to_owned() },
            manifests: None,
            why: "it can be built from source here".to_owned(),
            rejected: vec![Rejected {
                reference: "docker.io/y4m4/s3www:v1.0.0".to_owned(),
                version: "v1.0.0".to_owned(),
                kind: Obstacle::Unreachable,
                reason: "docker.io cannot be reached: no such host".to_owned(),
            }],
            substitute: true,
            named_by_user: false,
            note: Some("devstack's own server".to_owned()),
            download_bytes: None,
            expect_seconds: Some(20),
        };
        insta::assert_snapshot!(text(&[choice]), @"
        s3www
          devstack.local/s3www-compat:compat-1-0123456789ab  (build, about 20 s on two cores, a substitute)
          because it can be built from source here
          note    devstack's own server
          not     docker.io/y4m4/s3www:v1.0.0: docker.io cannot be reached: no such host
        ");
    }

    #[test]
    fn images_are_named_for_roles() {
        let (role, reference) = named("s3www=a/b:1").unwrap();
        assert_eq!((role.as_str(), reference.to_string().as_str()), ("s3www", "docker.io/a/b:1"));
        assert!(named("s3www").is_err() && named("s3www=A").is_err());
    }
}
