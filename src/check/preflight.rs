//! The checks over what probes read: a table with what each needs, so that one root cause is one red line.

use std::collections::BTreeMap;

use super::environment::ENVIRONMENT_CHECKS;
use super::inputs::Inputs;
use super::model::{Finding, Severity};
use super::{remote, rules, stale};
use crate::error::{ExitCode, Failure};

/// What a check says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All is well; a few words of detail.
    Pass(String),
    /// It found something.
    Found(Vec<Finding>),
    /// It does not apply, or a check that it needs did not pass.
    Skip(String),
    /// It could not look; other checks go on.
    Crash(String),
}

/// One check of the table.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Stable and public; also the id of its findings unless a signature knows better.
    pub id: &'static str,
    /// What it makes sure of, in a few words.
    pub title: &'static str,
    /// The checks that have to pass before this one makes sense.
    pub needs: &'static [&'static str],
    /// The rule.
    pub rule: fn(&Inputs) -> Outcome,
}

/// All checks over [`Inputs`], each after those that it needs.
pub const CHECKS: &[Check] = &[
    Check { id: "host.wsl1", title: "the system runs containers", needs: &[], rule: rules::wsl1 },
    Check { id: "engine.not-running", title: "an engine answers", needs: &["host.wsl1"], rule: rules::engine_answers },
    Check {
        id: "engine.socket-permission",
        title: "this account may use the engine",
        needs: &["engine.not-running"],
        rule: rules::engine_permission,
    },
    Check {
        id: "engine.windows-containers",
        title: "the engine runs Linux containers",
        needs: &["engine.socket-permission"],
        rule: rules::engine_os,
    },
    Check {
        id: "engine.remote",
        title: "the engine is on this machine",
        needs: &["engine.windows-containers"],
        rule: remote::engine_is_here,
    },
    Check {
        id: "engine.api-old",
        title: "the engine's API is new enough",
        needs: &["engine.socket-permission"],
        rule: rules::engine_api,
    },
    Check {
        id: "engine.capabilities",
        title: "the engine can give what nodes ask for",
        needs: &["engine.windows-containers"],
        rule: rules::capabilities,
    },
    Check {
        id: "host.cgroup-v1",
        title: "cgroups and Kubernetes fit together",
        needs: &["engine.windows-containers"],
        rule: rules::cgroup,
    },
    Check {
        id: "cpu.x86-64-level",
        title: "the CPU runs every chosen image",
        needs: &["engine.windows-containers"],
        rule: rules::cpu_level,
    },
    Check { id: "image.obtainable", title: "every image can be had", needs: &[], rule: rules::images },
    Check { id: "host.disk-full", title: "there is space on the disks", needs: &[], rule: rules::disk },
    Check { id: "host.memory", title: "there is memory", needs: &["engine.socket-permission"], rule: rules::memory },
    Check { id: "host.cpus", title: "there are CPUs", needs: &["engine.socket-permission"], rule: rules::cpus },
    Check { id: "host.inotify", title: "inotify limits are high enough", needs: &[], rule: rules::inotify },
    Check {
        id: "host.wsl-mirrored",
        title: "WSL's networking mode is known to work",
        needs: &[],
        rule: rules::mirrored,
    },
    Check { id: "port.in-use", title: "ports of the loopback address are free", needs: &[], rule: rules::ports },
    Check {
        id: "net.subnet-overlap",
        title: "the network overlaps no other",
        needs: &["engine.socket-permission"],
        rule: rules::subnets,
    },
    Check { id: "cluster.kind-missing", title: "kind is there or can be built", needs: &[], rule: rules::kind },
    Check {
        id: "cluster.context-stale",
        title: "kubeconfig contexts lead to living clusters",
        needs: &["engine.socket-permission"],
        rule: stale::contexts,
    },
    Check { id: "hosts.block-stale", title: "the hosts file is clean", needs: &[], rule: stale::hosts_blocks },
    Check { id: "state.locked", title: "no other devstack works on it", needs: &[], rule: rules::lock },
];

/// Runs every check, in the order of the table; `only` keeps one and those that it needs.
pub fn run(inputs: &Inputs, only: Option<&str>) -> Vec<(&'static Check, Outcome)> {
    let wanted = only.map(needed_for);
    let mut passed: BTreeMap<&str, bool> = BTreeMap::new();
    let mut outcomes = Vec::new();
    for check in CHECKS {
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&check.id)) {
            continue;
        }
        let missing = check.needs.iter().find(|need| passed.get(*need) == Some(&false));
        let outcome = match missing {
            Some(need) => Outcome::Skip(format!("needs {need}")),
            None => (check.rule)(inputs),
        };
        // A check that was skipped for want of another must hold back those that need it, one that only does not
        // apply must not.
        let holds = match &outcome {
            Outcome::Pass(_) => true,
            Outcome::Found(findings) => !findings.iter().any(Finding::is_problem),
            Outcome::Skip(_) => missing.is_none(),
            Outcome::Crash(_) => false,
        };
        passed.insert(check.id, holds);
        outcomes.push((check, outcome));
    }
    outcomes
}

/// A check and all that it needs, directly or not, of the machine and of an environment.
pub fn needed_for(id: &str) -> Vec<&'static str> {
    let machine = || CHECKS.iter().map(|check| (check.id, check.needs));
    let all = || machine().chain(ENVIRONMENT_CHECKS.iter().map(|check| (check.id, check.needs)));
    let mut wanted: Vec<&str> = all().filter(|(known, _)| *known == id).map(|(known, _)| known).collect();
    let mut next = 0;
    while let Some(id) = wanted.get(next).copied() {
        for need in all().filter(|(known, _)| *known == id).flat_map(|(_, needs)| needs) {
            if !wanted.contains(need) {
                wanted.push(need);
            }
        }
        next += 1;
    }
    wanted
}

/// What stands in the way of `up`, and what it should warn of; errors first. A check that could not look is no
/// obstacle.
pub fn preflight(inputs: &Inputs) -> Vec<Finding> {
    let mut findings: Vec<Finding> = run(inputs, None)
        .into_iter()
        .filter_map(|(_, outcome)| match outcome {
            Outcome::Found(findings) => Some(findings),
            Outcome::Pass(_) | Outcome::Skip(_) | Outcome::Crash(_) => None,
        })
        .flatten()
        .filter(|finding| finding.severity != Severity::Info)
        .collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// How `up` fails on what preflight found; `None` where nothing stands in the way. Exit code 5 where the engine
/// refuses this account, else 1.
pub fn refusal(findings: &[Finding]) -> Option<Failure> {
    let problems: Vec<&Finding> = findings.iter().filter(|finding| finding.is_problem()).collect();
    let first = problems.first()?;
    let exit = match first.id.as_str() {
        "engine.socket-permission" => ExitCode::Consent,
        _ => ExitCode::Failed,
    };
    let mut failure = Failure::new(exit, first.cause.clone()).check(first.id.clone()).kept("nothing was changed");
    if !first.evidence.is_empty() {
        failure = failure.proof(first.evidence.clone());
    }
    for remedy in &first.remedy {
        failure = failure.hint(remedy.clone());
    }
    for other in &problems[1..] {
        failure = failure.hint(format!("and then: {}  [{}]", other.cause, other.id));
    }
    Some(failure)
}

#[cfg(test)]
mod each;
#[cfg(test)]
mod tests;
