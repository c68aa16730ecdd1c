//! `devstack doctor`.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::Session;
use super::session::Runtime;
use crate::access::limits::{self, Limit};
use crate::access::verify;
use crate::check::{self, Asked, EndpointSeen, EnvironmentView, Inputs, Needs, Orphan, Outcome, Signatures};
use crate::cluster::{Provider, guard};
use crate::doctor::cure::{self, Cure, Ended};
use crate::doctor::{self, Item, Report, Section};
use crate::error::{ExitCode, Failure, chain};
use crate::ports::docker::DockerEngine;
use crate::ports::engine::EngineError;
use crate::ports::runner::ProcessRunner;
use crate::ports::{Engine, Runner};
use crate::step::{StepError, World};
use crate::ui::{Question, Table};
use crate::up;
use crate::yaml::did_you_mean;

/// The longest log that is read, in bytes.
const LONGEST_LOG: u64 = 64 << 20;

/// Arguments of `devstack doctor`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Cure what certainly can be, after asking; record it, and run the checks again
    #[arg(long)]
    pub fix: bool,
    /// Run one check, and those that it needs
    #[arg(long, value_name = "ID")]
    pub only: Option<String>,
    /// Look for known failures in a file, or in standard input with `-`, instead of checking anything
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fix", "only", "list"])]
    pub log: Option<PathBuf>,
    /// List the checks
    #[arg(long, conflicts_with_all = ["fix", "only"])]
    pub list: bool,
    /// What sudo runs.
    #[command(subcommand)]
    pub helper: Option<Helper>,
}

/// What `--fix` has sudo run.
#[derive(Debug, clap::Subcommand)]
pub enum Helper {
    /// Set a limit of the kernel, after checking its name and value again
    #[command(hide = true)]
    SetLimit {
        /// Its name
        limit: Limit,
        /// Its value
        value: u64,
    },
}

/// Checks the machine and the environments, or reads a log.
///
/// # Errors
/// An unknown check, a log that cannot be read, an output that cannot be written. What is found is no error.
pub fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    if let Some(Helper::SetLimit { limit, value }) = &args.helper {
        limits::write_limit(&session.ctx, *limit, *value)?;
        return Ok(ExitCode::Done);
    }
    if args.list {
        return list(session);
    }
    if let Some(path) = &args.log {
        return read_log(session, path);
    }
    if let Some(id) = args.only.as_deref().filter(|id| !doctor::all_checks().iter().any(|(known, _)| known == id)) {
        let failure = Failure::usage(format!("there is no check {id}"));
        let near = did_you_mean(id, doctor::all_checks().into_iter().map(|(known, _)| known));
        return Err(match near {
            Some(near) => failure.hint(format!("did you mean {near}?")),
            None => failure.hint("devstack doctor --list"),
        });
    }
    session.block_on(Runtime::Small, check(session, args))
}

/// What was looked at, and what the checks say of it.
struct Look {
    inputs: Inputs,
    orphans: Asked<Vec<Orphan>>,
    report: Report,
}

async fn look(
    session: &Session,
    engine: &dyn Engine,
    runner: &dyn Runner,
    names: &[String],
    only: Option<&str>,
) -> Look {
    let ctx = &session.ctx;
    let needs = Needs { environment: names.first().cloned().unwrap_or_default(), ..Needs::small() };
    let mut inputs = check::gather(ctx, engine, runner, needs).await;
    let worlds: Vec<World> = names.iter().map(|name| World::real(ctx, name)).collect();
    let shared = |world: &World| world.provider != Provider::Kind;
    if !worlds.is_empty() && worlds.iter().all(shared) && !matches!(inputs.engine, Some(Ok(_))) {
        inputs.engine = None;
        (inputs.networks, inputs.clusters) = (Asked::No, Asked::No);
    }
    let mut report = Report { sections: vec![Report::machine(&inputs, only)] };
    let wanted = |id: &str| only.is_none_or(|only| only == id);
    let engine_answers = matches!(inputs.engine, Some(Ok(_)));
    for world in worlds.iter().filter(|world| engine_answers || shared(world)) {
        if check::ENVIRONMENT_CHECKS.iter().any(|check| wanted(check.id)) {
            report.sections.push(environment(session, world).await.keeping(only));
        }
    }
    let mut orphans = Asked::No;
    if engine_answers && wanted("env.leftovers") {
        orphans = match check::orphans(engine, &inputs.environments).await {
            Ok(found) => Asked::Known(found),
            Err(error) => Asked::Failed(error.to_string()),
        };
        let (id, title) = ("env.leftovers".to_owned(), "nothing is without an environment".to_owned());
        report.sections[0].items.push(Item { id, title, outcome: check::leftovers(&orphans) });
    }
    Look { inputs, orphans, report }
}

async fn check(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let ctx = &session.ctx;
    let engine: Arc<dyn Engine> = Arc::new(DockerEngine::find(&ctx.vars, &ctx.dirs.home));
    let runner: Arc<dyn Runner> = Arc::new(ProcessRunner::new(ctx.cancel.clone(), "doctor"));
    let known = session.environments()?;
    let names = session.global.env.clone().map_or_else(|| known.clone(), |name| vec![name]);
    let only = args.only.as_deref();
    let mut seen = look(session, &*engine, &*runner, &names, only).await;
    let mut ended = Vec::new();
    if args.fix {
        let books = match names.as_slice() {
            [name] if known.contains(name) => Some(name.as_str()),
            _ => None,
        };
        let found = cure::cures(ctx, &seen.inputs, &seen.orphans, books, only);
        ended = cure::treat(ctx, &engine, &runner, found, &|what, privilege| consent(session, what, privilege)).await?;
        if ended.iter().any(|(_, end)| !matches!(end, Ended::Left { .. })) {
            seen = look(session, &*engine, &*runner, &names, only).await;
            cure::verify(&mut ended, &cure::cures(ctx, &seen.inputs, &seen.orphans, books, only));
        }
    }
    tell(session, args, &seen.report, &ended)
}

fn consent(session: &Session, what: Vec<String>, privilege: bool) -> Result<(), Failure> {
    let (ask, explain) = if privilege {
        (
            "Cure these with sudo",
            "Only root may write this. devstack runs itself with sudo for each of these changes and checks every value \
             again before it writes.",
        )
    } else {
        (
            "Cure these",
            "Each is recorded before it begins, and its check is run again when it is done. Nothing that may hold data is \
             touched.",
        )
    };
    session.ui.confirm(&Question { what, ask: ask.to_owned(), explain: explain.to_owned(), privilege })
}

fn tell(session: &Session, args: &Args, report: &Report, ended: &[(Cure, Ended)]) -> Result<ExitCode, Failure> {
    for item in report.sections.iter().flat_map(|section| &section.items) {
        let (outcome, detail) = match &item.outcome {
            Outcome::Pass(detail) => ("pass", detail.clone()),
            Outcome::Found(findings) => ("found", findings.len().to_string()),
            Outcome::Skip(reason) => ("skip", reason.clone()),
            Outcome::Crash(reason) => ("crash", reason.clone()),
        };
        let line = json!({ "id": item.id, "title": item.title, "outcome": outcome, "detail": detail });
        session.ui.object("check", line, "")?;
    }
    let style = session.ui.style();
    let mut text = report.render(style, session.global.verbose);
    let mut value = report.to_value();
    if args.fix {
        value["cures"] = ended.iter().map(|(cure, end)| cure::to_value(cure, end)).collect();
        text.extend(ended.iter().map(|(cure, end)| cure::render(cure, end, style)));
        if ended.is_empty() {
            text.push_str("nothing here can be cured without you; follow the lines that begin with `cure`\n");
        }
    }
    session.ui.result(value, &text)?;
    Ok(cure::exit(report.exit(), ended))
}

async fn environment(session: &Session, world: &World) -> Section {
    let ctx = &session.ctx;
    let name = &world.environment;
    let met = guard::meet(world).await;
    let elsewhere = match &met {
        Err(StepError::Engine(error @ EngineError::Another { .. })) => Some(error),
        _ => None,
    };
    let kube = match &met {
        // Why there is no connection, the attempt tells.
        Ok(()) if world.kube().is_err() => {
            world.reconnect().await.and_then(|()| world.kube()).map_err(|e| e.to_string())
        }
        Ok(()) => world.kube().map_err(|error| error.to_string()),
        Err(error) => Err(chain(error)),
    };
    let promises = verify::recorded(ctx, &world.dir);
    let shown = promises.iter().filter(|promise| promise.shown);
    let seen = futures::future::join_all(shown.map(|promise| verify::fetch(ctx, kube.as_deref().ok(), promise))).await;
    let endpoints = seen.into_iter().map(|seen| EndpointSeen { url: seen.url, broken: seen.reason }).collect();
    let view = EnvironmentView {
        name,
        engine: &*world.engine,
        elsewhere,
        kube: kube.as_deref().map_err(Clone::clone),
        endpoints: Asked::Known(endpoints),
        drift: match up::drift(ctx, name).await {
            Ok(changes) => Asked::Known(changes.iter().map(up::told).collect()),
            Err(failure) => Asked::Failed(failure.message.clone()),
        },
        now: ctx.clock.now(),
        shared: world.provider != Provider::Kind,
    };
    let items = view
        .check()
        .await
        .into_iter()
        .map(|(id, title, outcome)| Item { id: id.to_owned(), title: title.to_owned(), outcome })
        .collect();
    Section { title: format!("environment {name}"), items }
}

fn list(session: &Session) -> Result<ExitCode, Failure> {
    let mut table = Table::new(["ID", "MAKES SURE THAT"]);
    for (id, title) in doctor::all_checks() {
        table.row([id, title]);
    }
    let checks: Vec<_> =
        doctor::all_checks().into_iter().map(|(id, title)| json!({ "id": id, "title": title })).collect();
    session.ui.result(json!({ "checks": checks }), &table.render())?;
    Ok(ExitCode::Done)
}

fn read_log(session: &Session, path: &Path) -> Result<ExitCode, Failure> {
    let refused =
        |error: std::io::Error| Failure::usage(format!("cannot read {}", path.display())).cause(error.to_string());
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(LONGEST_LOG).read_to_end(&mut bytes).map_err(refused)?;
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST_LOG).read_to_end(&mut bytes)).map_err(refused)?;
    }
    let text = String::from_utf8_lossy(&bytes);
    let signatures = Signatures::builtin().map_err(|error| {
        Failure::new(ExitCode::Failed, "the known failures cannot be read").cause(error.to_string())
    })?;
    let findings = signatures.findings(&text);
    let style = session.ui.style();
    let shown: String = match findings.as_slice() {
        [] => format!("nothing known in {} lines\n", text.lines().count()),
        findings => findings.iter().map(|finding| doctor::render_finding(finding, style)).collect(),
    };
    session.ui.result(json!({ "checked": signatures.iter().count(), "findings": findings }), &shown)?;
    Ok(doctor::exit_of(&findings))
}
