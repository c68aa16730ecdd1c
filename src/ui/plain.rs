//! Progress as plain lines: for logs, CI and pipes. Nothing is ever redrawn.

use std::time::Instant;

use super::steps::{self, Steps};
use super::style::Style;
use crate::event::Event;

/// Turns events into lines.
#[derive(Debug)]
pub struct Plain {
    pub(super) steps: Steps,
    style: Style,
    verbose: bool,
}

impl Plain {
    /// A renderer; `verbose` tells of steps that changed nothing and took no time as well.
    pub fn new(style: Style, verbose: bool) -> Self {
        Self { steps: Steps::default(), style, verbose }
    }

    /// The lines that an event gives, each ended; most give none.
    pub fn event(&mut self, now: Instant, event: &Event) -> String {
        match event {
            Event::StepStarted { step } => {
                self.steps.start(now, step);
                String::new()
            }
            Event::StepProgress { step, done, total, unit, detail } => {
                if let Some(active) = self.steps.get(step) {
                    active.detail = steps::progress(*done, *total, unit, detail);
                }
                String::new()
            }
            Event::StepWaiting { step, reason } => {
                if let Some(active) = self.steps.get(step) {
                    active.detail.clone_from(reason);
                    if active.shown {
                        return self.line("·", step, reason, None);
                    }
                }
                String::new()
            }
            Event::StepDone { step, detail, changed, seconds } => {
                let shown = self.steps.end(step).is_some_and(|active| active.shown);
                if *changed || shown || self.verbose {
                    painted(&self.line("✓", step, detail, Some(*seconds)), |symbol| self.style.good(symbol))
                } else {
                    String::new()
                }
            }
            Event::StepFailed { step, error, seconds } => {
                self.steps.end(step);
                painted(&self.line("✗", step, error, Some(*seconds)), |symbol| self.style.bad(symbol))
            }
            Event::Warning { message } => format!("{} {message}\n", self.style.warn("warning:")),
            Event::Note { message } => format!("{message}\n"),
            // Both are results and go to standard output.
            Event::Plan { .. } | Event::Result(_) => String::new(),
        }
    }

    /// The lines that the passing of time gives: steps that have run for a moment are announced.
    pub fn tick(&mut self, now: Instant) -> String {
        let due = self.steps.overdue(now);
        due.iter()
            .map(|active| {
                let text = if active.detail.is_empty() { "…" } else { &active.detail };
                self.line("·", &active.step, text, None)
            })
            .collect()
    }

    fn line(&self, symbol: &str, step: &str, text: &str, seconds: Option<f64>) -> String {
        let mut line = steps::line(symbol, step, text.lines().next().unwrap_or_default(), seconds, None);
        line.push('\n');
        line
    }
}

/// The line with its symbol, the first character, in colour.
pub fn painted(line: &str, paint: impl Fn(&str) -> String) -> String {
    let end = line.chars().next().map_or(0, char::len_utf8);
    let (symbol, rest) = line.split_at(end);
    format!("{}{rest}", paint(symbol))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_run_reads_as_one_line_per_thing_worth_telling() {
        let start = Instant::now();
        let mut plain = Plain::new(Style::PLAIN, false);
        let mut text = String::new();
        let step = |name: &str| Event::StepStarted { step: name.into() };
        let wait = |reason: &str| Event::StepWaiting { step: "minio".into(), reason: reason.into() };
        let done = |name: &str, detail: &str, changed, seconds| Event::StepDone {
            step: name.into(),
            detail: detail.into(),
            changed,
            seconds,
        };
        let mut feed = |millis, event: Option<Event>| {
            if let Some(event) = event {
                text.push_str(&plain.event(at(start, millis), &event));
            }
            text.push_str(&plain.tick(at(start, millis)));
        };
        feed(0, Some(step("network")));
        feed(100, Some(done("network", "there already", false, 0.1)));
        feed(100, Some(step("cluster")));
        feed(120, Some(step("minio")));
        feed(200, Some(done("cluster", "1/1 Ready", true, 0.1)));
        feed(210, Some(wait("image is pulled")));
        feed(380, None);
        feed(400, None);
        feed(900, Some(wait("readiness 503: normal while it starts")));
        feed(1000, Some(Event::Warning { message: "disk is getting full".into() }));
        feed(4000, Some(Event::StepFailed { step: "minio".into(), error: "crashed twice\nlog".into(), seconds: 3.9 }));
        insta::assert_snapshot!(text, @"
        ✓ cluster   1/1 Ready                                         0.1s
        · minio     image is pulled
        · minio     readiness 503: normal while it starts
        warning: disk is getting full
        ✗ minio     crashed twice                                     3.9s
        ");
    }

    #[test]
    fn a_step_without_news_is_announced_once() {
        let start = Instant::now();
        let mut plain = Plain::new(Style::PLAIN, false);
        plain.event(start, &Event::StepStarted { step: "cluster".into() });
        assert_eq!(plain.tick(at(start, 249)), "");
        assert_eq!(plain.tick(at(start, 250)), "· cluster   …\n");
        assert_eq!(plain.tick(at(start, 9000)), "");
    }
}
