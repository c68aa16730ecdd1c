//! minikube: its calls, the events that it tells of them, and what it knows of its profiles.
//!
//! Written against recordings of minikube v1.38.1 (`tests/minikube/recordings`). With `-o json` it writes CloudEvents,
//! one a line, numbers as text; not all of them are errors that are called so, advice may hold templates that were never
//! filled in, and an exit status of 0 does not mean that there was any JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::error::ExitCode;
use crate::ports::runner::Cmd;
use crate::step::StepError;

/// What the types of its events begin with.
const EVENT: &str = "io.k8s.sigs.minikube.";

/// How long it may take to make a cluster, which may mean to download one.
const START: Duration = Duration::from_secs(1800);

/// How long everything else may take.
const ASK: Duration = Duration::from_secs(300);

/// What minikube is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinikubeSpec {
    /// The program.
    pub program: PathBuf,
    /// The profile's reserved name.
    pub name: String,
    /// The number of nodes.
    pub nodes: u8,
    /// The driver; minikube's own choice where absent.
    pub driver: Option<String>,
    /// `auto` or a version such as `1.34`.
    pub kubernetes: String,
}

impl MinikubeSpec {
    fn call(&self, verb: &[&str], kubeconfig: Option<&Path>) -> Cmd {
        let cmd = Cmd::new(&self.program).args(verb).args(["--profile", &self.name]).timeout(ASK);
        match kubeconfig {
            Some(file) => cmd.env("KUBECONFIG", file.as_os_str()),
            None => cmd,
        }
    }

    /// The call that makes or starts the cluster. No addon is asked for: its MetalLB is years old. The context goes to
    /// `kubeconfig`; the user's own file is not touched.
    pub fn start(&self, kubeconfig: &Path) -> Cmd {
        let mut cmd = self
            .call(&["start", "--output", "json", "--interactive=false", "--keep-context"], Some(kubeconfig))
            .args(["--nodes", &self.nodes.to_string()]);
        if let Some(driver) = &self.driver {
            cmd = cmd.args(["--driver", driver]);
        }
        if self.kubernetes != "auto" {
            cmd = cmd.args(["--kubernetes-version", &format!("v{}", self.kubernetes)]);
        }
        cmd.timeout(START)
    }

    /// The call that removes it. It is no failure where there is nothing.
    pub fn delete(&self, kubeconfig: &Path) -> Cmd {
        self.call(&["delete", "--output", "json"], Some(kubeconfig))
    }

    /// The call that brings the images of an archive to every node.
    pub fn load(&self, archive: &Path) -> Cmd {
        self.call(&["image", "load"], None).arg(archive).timeout(START)
    }

    /// The call that names the images of the nodes.
    pub fn images(&self) -> Cmd {
        self.call(&["image", "ls", "--format", "short"], None)
    }

    /// The call that tells of all profiles.
    pub fn profiles(&self) -> Cmd {
        Cmd::new(&self.program).args(["profile", "list", "--output", "json"]).timeout(ASK)
    }
}

/// The name that minikube gives to a profile's node of this number; 0 is the control plane.
pub fn node_name(profile: &str, number: u8) -> String {
    if number == 0 { profile.to_owned() } else { format!("{profile}-m{:02}", u16::from(number) + 1) }
}

/// The minikube on `PATH`.
pub fn on_path(path: Option<&str>) -> Option<PathBuf> {
    which::which_in("minikube", path, Path::new("/")).ok()
}

/// Something that minikube tells while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A step began.
    Step {
        /// Its number.
        current: u32,
        /// How many there are.
        total: u32,
        /// Its stable name, such as `Selecting Driver`.
        name: String,
        /// What is done, for people.
        message: String,
    },
    /// Something to know.
    Info(String),
    /// Something to beware of.
    Warning(String),
    /// Something that went wrong, or more words on that.
    Error(Reason),
}

/// Why minikube failed, as far as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// Its stable id, such as `DRV_AS_ROOT`; absent of words that only explain.
    pub id: Option<String>,
    /// The exit status that belongs to it.
    pub exit: Option<i32>,
    /// What happened, for people.
    pub message: String,
    /// What to do.
    pub advice: Option<String>,
    /// Where more is said.
    pub url: Option<String>,
}

/// Reads a line of `-o json`; `None` for one that is no event.
pub fn told(line: &str) -> Option<Told> {
    let event: Value = serde_json::from_str(line).ok()?;
    let kind = event["type"].as_str()?.strip_prefix(EVENT)?;
    let data = &event["data"];
    let text = |member: &str| data[member].as_str().unwrap_or_default().trim().to_owned();
    // A text that is empty, or a template that nobody filled in, says nothing.
    let said = |member: &str| Some(text(member)).filter(|text| !text.is_empty() && !text.contains("{{"));
    Some(match kind {
        "step" => Told::Step {
            current: text("currentstep").parse().ok()?,
            total: text("totalsteps").parse().ok()?,
            name: text("name"),
            message: text("message"),
        },
        "info" => Told::Info(text("message")),
        "warning" => Told::Warning(text("message")),
        "error" => Told::Error(Reason {
            id: said("name"),
            exit: text("exitcode").parse().ok(),
            message: text("message"),
            advice: said("advice"),
            url: said("url"),
        }),
        _ => return None,
    })
}

/// Why a call ended with `status`: the reason that belongs to it, else the last that has an id, else what it wrote where
/// no JSON is expected.
pub fn reason(status: Option<i32>, stdout: &str, stderr: &str) -> Reason {
    let errors: Vec<Reason> = stdout
        .lines()
        .filter_map(told)
        .filter_map(|told| match told {
            Told::Error(reason) => Some(reason),
            _ => None,
        })
        .collect();
    let named = |reason: &&Reason| reason.id.is_some();
    let own = errors.iter().rev().filter(named).find(|reason| reason.exit.is_some() && reason.exit == status);
    if let Some(reason) = own.or_else(|| errors.iter().rev().find(named)).or_else(|| errors.last()) {
        return reason.clone();
    }
    let line = |text: &str| text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned);
    let message = line(stderr).or_else(|| line(stdout)).unwrap_or_else(|| "it said nothing".to_owned());
    let message = message.strip_prefix("Error: ").map_or(message.clone(), str::to_owned);
    Reason { exit: status, message, ..Reason::default() }
}

impl Reason {
    /// As a step fails with it.
    pub fn into_error(self) -> StepError {
        let id = self.id.as_ref().map(|id| format!(" [{id}]")).unwrap_or_default();
        // The first line says it; the rest repeats what other programs wrote.
        let message = self.message.lines().next().unwrap_or_default();
        let hint = match (self.id.as_deref(), self.advice, self.url) {
            (Some("DRV_AS_ROOT"), ..) => {
                Some("run devstack as an account that is not root, or choose another --driver".to_owned())
            }
            (_, Some(advice), Some(url)) => Some(format!("{advice} ({url})")),
            (_, Some(advice), None) => Some(advice),
            (_, None, url) => url,
        };
        StepError::Other { message: format!("minikube: {message}{id}"), hint, exit: ExitCode::Failed }
    }
}

/// A profile as minikube knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Whether every part of it runs.
    pub running: bool,
    /// Its nodes.
    pub nodes: usize,
    /// The Kubernetes version that it was made with, such as `v1.34.4`.
    pub kubernetes: Option<String>,
}

/// What `profile list -o json` tells of a profile; `None` where there is none, or nothing was told. What it writes on
/// standard error beside an exit status of 0 says only that a part could not be looked at.
pub fn known(stdout: &str, name: &str) -> Option<Known> {
    let told: Value = serde_json::from_str(stdout).ok()?;
    let lists = ["valid", "invalid"].iter().filter_map(|list| told[*list].as_array()).flatten();
    let found = lists.into_iter().find(|profile| profile["Name"] == name)?;
    Some(Known {
        running: matches!(found["Status"].as_str(), Some("Running" | "OK")),
        nodes: found.pointer("/Config/Nodes").and_then(Value::as_array).map_or(0, Vec::len),
        kubernetes: found
            .pointer("/Config/KubernetesConfig/KubernetesVersion")
            .and_then(Value::as_str)
            .filter(|version| !version.is_empty())
            .map(str::to_owned),
    })
}
