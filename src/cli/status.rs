//! `devstack status`.

use std::fmt::Write as _;

use super::Session;
use super::session::Runtime;
use crate::error::{ExitCode, Failure};
use crate::status::{self, State, Status};

/// Arguments of `devstack status`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints how the environment is; 1 where it does not keep its promises.
///
/// # Errors
/// Where it cannot be looked at.
pub fn run(session: &Session, _args: &Args) -> Result<ExitCode, Failure> {
    session.block_on(Runtime::Small, async {
        let status = match session.environments()?.as_slice() {
            [] if session.global.env.is_none() => {
                let absent = serde_json::json!({"environment": null, "state": "absent", "nodes": [], "components": [],
                    "endpoints": [], "forwards": [], "drift": []});
                session.ui.object("status", absent, "no environment\nnext   devstack up\n")?;
                return Ok(ExitCode::Done);
            }
            _ => status::status(&session.ctx, &session.environment()?).await?,
        };
        let value = serde_json::to_value(&status).unwrap_or_default();
        session.ui.object("status", value, &text(&status))?;
        let fine = matches!(status.state, State::Ready | State::Absent | State::Paused);
        Ok(if fine { ExitCode::Done } else { ExitCode::Failed })
    })
}

fn text(status: &Status) -> String {
    let mut text = format!("{} · {}\n", status.environment, status.state.as_str());
    for node in &status.nodes {
        let ready = match node.ready {
            Some(true) => "Ready",
            Some(false) => "not Ready",
            None => "unknown",
        };
        let _ = writeln!(text, "node   {:<34} {:<9} {ready}", node.name, node.state);
    }
    for component in &status.components {
        let _ = writeln!(text, "pods   {:<34} {}/{} ready", component.name, component.ready, component.pods);
    }
    for endpoint in &status.endpoints {
        let verdict = match (&endpoint.reason, endpoint.http_status) {
            (None, Some(code)) => format!("GET {code}"),
            (None, None) => "not asked".to_owned(),
            (Some(reason), _) => reason.clone(),
        };
        let _ = writeln!(text, "url    {:<50} {verdict}", endpoint.url);
    }
    for line in &status.drift {
        let _ = writeln!(text, "drift  {line}");
    }
    if !status.drift.is_empty() {
        let _ = writeln!(text, "next   devstack up --env {}", status.environment);
    }
    text
}
