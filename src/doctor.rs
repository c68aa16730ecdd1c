//! `devstack doctor`: runs the checks, says what was found, and cures what can be cured.

pub mod cure;

use serde_json::{Value, json};

use crate::check::{self, Finding, Inputs, Outcome, Severity};
use crate::error::ExitCode;
use crate::ui::Style;

/// One check that was run.
#[derive(Debug, Clone)]
pub struct Item {
    /// The check's id.
    pub id: String,
    /// What it makes sure of.
    pub title: String,
    /// What it says.
    pub outcome: Outcome,
}

/// Checks under one heading.
#[derive(Debug, Clone)]
pub struct Section {
    /// `machine`, `environment NAME`.
    pub title: String,
    /// The checks, in order.
    pub items: Vec<Item>,
}

/// What doctor found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The sections, the machine first.
    pub sections: Vec<Section>,
}

impl Section {
    /// Keeps one check and those that it needs; all, where `only` names none.
    #[must_use]
    pub fn keeping(mut self, only: Option<&str>) -> Self {
        if let Some(only) = only {
            let needed = check::needed_for(only);
            self.items.retain(|item| needed.contains(&&*item.id));
        }
        self
    }
}

impl Report {
    /// The machine's section, from what probes read.
    pub fn machine(inputs: &Inputs, only: Option<&str>) -> Section {
        let items = check::run(inputs, only)
            .into_iter()
            .map(|(check, outcome)| Item { id: check.id.to_owned(), title: check.title.to_owned(), outcome })
            .collect();
        Section { title: "machine".to_owned(), items }
    }

    /// Checks that looked: all but the skipped ones.
    pub fn checked(&self) -> usize {
        self.items().filter(|item| !matches!(item.outcome, Outcome::Skip(_))).count()
    }

    /// Everything found, errors first.
    pub fn findings(&self) -> Vec<&Finding> {
        let mut findings: Vec<&Finding> = self
            .items()
            .filter_map(|item| match &item.outcome {
                Outcome::Found(findings) => Some(findings),
                Outcome::Pass(_) | Outcome::Skip(_) | Outcome::Crash(_) => None,
            })
            .flatten()
            .collect();
        findings.sort_by_key(|finding| finding.severity);
        findings
    }

    /// 3 where there is a problem, else 0; warnings change nothing.
    pub fn exit(&self) -> ExitCode {
        exit_of(self.findings())
    }

    /// The last line of `-o json`.
    pub fn to_value(&self) -> Value {
        json!({ "checked": self.checked(), "findings": self.findings() })
    }

    /// What a person reads. Skipped checks are shown with `verbose` only.
    pub fn render(&self, style: Style, verbose: bool) -> String {
        let mut text = String::new();
        for section in &self.sections {
            let shown = |item: &&Item| verbose || !matches!(item.outcome, Outcome::Skip(_));
            text.push_str(&format!("{}\n", style.strong(&section.title)));
            for item in section.items.iter().filter(shown) {
                text.push_str(&render_item(item, style));
            }
        }
        let findings = self.findings();
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        let (problems, warnings) = (count(Severity::Error), count(Severity::Warning));
        let summary = format!("{} checked, {problems} problems, {warnings} warnings", self.checked());
        text.push_str(&format!("{}\n", if problems > 0 { style.bad(&summary) } else { style.good(&summary) }));
        text
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.sections.iter().flat_map(|section| &section.items)
    }
}

/// The exit code of findings: 3 where one is a problem.
pub fn exit_of<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> ExitCode {
    if findings.into_iter().any(Finding::is_problem) { ExitCode::Findings } else { ExitCode::Done }
}

fn render_item(item: &Item, style: Style) -> String {
    let line =
        |mark: &str, detail: &str| format!("  {mark} {:<44} {detail}\n", item.title).trim_end().to_owned() + "\n";
    match &item.outcome {
        Outcome::Pass(detail) => line(&style.good("✓"), &style.faint(detail)),
        Outcome::Skip(reason) => line(&style.faint("-"), &style.faint(reason)),
        Outcome::Crash(reason) => line(&style.warn("?"), &format!("could not look: {reason}")),
        Outcome::Found(findings) => findings.iter().map(|finding| render_finding(finding, style)).collect(),
    }
}

/// A finding as a person reads it: one line that says it, then proof and cures.
pub fn render_finding(finding: &Finding, style: Style) -> String {
    let mark = match finding.severity {
        Severity::Error => style.bad("✗"),
        Severity::Warning => style.warn("!"),
        Severity::Info => style.faint("·"),
    };
    let object = finding.object.as_ref().map_or(String::new(), |object| format!("{object}: "));
    let mut text = format!("  {mark} {object}{}  {}\n", finding.cause, style.faint(&format!("[{}]", finding.id)));
    if let Some(reason) = &finding.waiting {
        text.push_str(&format!("      state  {reason}\n"));
    }
    for line in finding.evidence.lines().filter(|line| !line.is_empty()) {
        text.push_str(&format!("      proof  {line}\n"));
    }
    if finding.fixable {
        text.push_str("      cure   devstack doctor --fix\n");
    }
    for remedy in &finding.remedy {
        text.push_str(&format!("      cure   {remedy}\n"));
    }
    text
}

/// Every check that `--only` accepts, with what it makes sure of.
pub fn all_checks() -> Vec<(&'static str, &'static str)> {
    let machine = check::CHECKS.iter().map(|check| (check.id, check.title));
    machine.chain(check::ENVIRONMENT_CHECKS.iter().map(|check| (check.id, check.title))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::check::Needs;

    fn report(name: &str) -> Report {
        let path = format!("{}/tests/facts/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let facts = crate::facts::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap();
        let mut inputs =
            Inputs { host: facts.host, engine: facts.engine.map(Ok), needs: Needs::small(), ..Inputs::default() };
        inputs.needs.ports = vec![8080];
        inputs.busy_ports.insert(8080, "container web".to_owned());
        inputs.networks = check::Asked::Failed("the engine did not answer within 10 s".to_owned());
        Report { sections: vec![Report::machine(&inputs, None)] }
    }

    #[test]
    fn what_a_person_reads() {
        let report = report("linux-sandbox");
        assert_eq!(report.exit(), ExitCode::Findings);
        insta::assert_snapshot!(report.render(Style::PLAIN, false), @"
        machine
          ✓ the system runs containers                   linux amd64
          ✓ an engine answers                            Docker Engine 20.10.24
          ✓ this account may use the engine              unix:///var/run/docker.sock
          ✓ the engine runs Linux containers             linux/amd64
          ✓ the engine is on this machine                vm
          ✓ the engine's API is new enough               API 1.41
          ! the engine lacks CAP_SYS_RESOURCE; nodes are adapted (KubeletInUserNamespace, restrict_oom_score_adj)  [engine.capabilities]
              proof  CAP_SYS_RESOURCE
              cure   nothing, where containers with --privileged start (this project's scripts/engine sees to it)
          ✓ cgroups and Kubernetes fit together          cgroup v1, so Kubernetes up to 1.34
          ✓ the CPU runs every chosen image              x86-64-v3
          ✓ there is space on the disks                  free: cache 80.0 GiB, state 80.0 GiB
          ✓ there is memory                              24.0 GiB
          ✓ there are CPUs                               2
          ! inotify limits are low; several nodes or many pods will use them up  [host.inotify]
              proof  max_user_instances 128, max_user_watches 65536
              cure   devstack doctor --fix
              cure   sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512
          ✗ port 8080 of 127.0.0.1 is taken  [port.in-use]
              proof  container web
              cure   see who: ss -ltnp 'sport = :8080' (Linux), lsof -iTCP:8080 -sTCP:LISTEN (macOS)
              cure   stop it, then devstack up
          ? the network overlaps no other                could not look: the engine did not answer within 10 s
          ✓ no other devstack works on it                free
        16 checked, 1 problems, 2 warnings
        ");
    }

    #[test]
    fn the_json_result_keeps_the_contract() {
        let value = report("linux-docker").to_value();
        assert!(value["checked"].as_u64().unwrap() > 10);
        let finding = &value["findings"][0];
        assert_eq!(finding["id"], "port.in-use");
        assert_eq!(finding["severity"], "error");
        assert_eq!(finding["fixable"], false);
        assert_eq!(finding["evidence"], "container web");
        assert!(finding["cause"].is_string() && finding["remedy"].as_array().unwrap().len() == 2);
    }

    #[test]
    fn what_a_check_needs_is_kept_with_it() {
        let item = |id: &str, outcome: Outcome| Item { id: id.to_owned(), title: String::new(), outcome };
        let gone = Outcome::Found(vec![Finding::error("env.nodes", "the cluster is gone")]);
        let skip = || Outcome::Skip("needs env.nodes".to_owned());
        let items = vec![item("env.nodes", gone), item("env.api", skip()), item("time.clock-skew", skip())];
        let section = Section { title: String::new(), items };
        let kept = |only| {
            let section = section.clone().keeping(only);
            let ids: Vec<String> = section.items.iter().map(|item| item.id.clone()).collect();
            (ids.join(" "), Report { sections: vec![section] }.exit())
        };
        assert_eq!(kept(Some("env.api")), ("env.nodes env.api".to_owned(), ExitCode::Findings));
        assert_eq!(kept(Some("env.leftovers")), (String::new(), ExitCode::Done));
        assert_eq!(kept(None), ("env.nodes env.api time.clock-skew".to_owned(), ExitCode::Findings));
    }

    #[test]
    fn warnings_are_no_problem() {
        let findings = [Finding::warning("a.b", "c")];
        assert_eq!(exit_of(&findings), ExitCode::Done);
        assert_eq!(exit_of([]), ExitCode::Done);
    }

    #[test]
    fn ids_are_unique() {
        let ids: BTreeSet<&str> = all_checks().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), all_checks().len());
    }
}
