//! Progress on a terminal: a moving line for each step that runs, and a line that stays for each that ended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plain::Plain;
use super::steps::Active;
use super::style::Style;
use crate::event::Event;
use crate::redact::Redactor;

/// How often a terminal is redrawn at most, per second.
const RATE: u8 = 20;

/// How often the spinner turns.
const TURN: Duration = Duration::from_millis(100);

/// Draws events on a terminal. Nothing else draws there while it lives; see [`Tty::suspend`].
pub struct Tty {
    plain: Plain,
    multi: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
    look: ProgressStyle,
    redactor: Redactor,
    turned: Option<Instant>,
}

impl Tty {
    /// A renderer on standard error.
    pub fn new(style: Style, verbose: bool, redactor: Redactor) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(RATE), style, verbose, redactor)
    }

    fn on(target: ProgressDrawTarget, style: Style, verbose: bool, redactor: Redactor) -> Self {
        // The time is ours: a bar begins later than its step.
        let look = ProgressStyle::with_template("{spinner} {prefix:<9} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ");
        Self {
            plain: Plain::new(style, verbose),
            multi: MultiProgress::with_draw_target(target),
            bars: BTreeMap::new(),
            look,
            redactor,
            turned: None,
        }
    }

    /// Draws an event.
    pub fn event(&mut self, now: Instant, event: &Event) {
        let text = self.plain.event(now, event);
        match event {
            Event::StepDone { step, .. } | Event::StepFailed { step, .. } => {
                if let Some(bar) = self.bars.remove(step) {
                    bar.finish_and_clear();
                    self.multi.remove(&bar);
                }
                self.print(&text);
            }
            // The moving line tells the reason; it needs no line of its own.
            Event::StepWaiting { .. } => {}
            _ => self.print(&text),
        }
        self.tick(now);
    }

    /// Lets time pass: steps that have run for a moment get their line, the others move on.
    pub fn tick(&mut self, now: Instant) {
        for active in self.plain.steps.overdue(now) {
            let bar = self.multi.add(ProgressBar::new_spinner());
            bar.set_style(self.look.clone());
            bar.set_prefix(active.step.clone());
            self.bars.insert(active.step, bar);
        }
        let turn = self.turned.is_none_or(|turned| now.duration_since(turned) >= TURN);
        if turn {
            self.turned = Some(now);
        }
        for active in self.plain.steps.iter() {
            let Some(bar) = self.bars.get(&active.step) else { continue };
            let text = self.redactor.apply(&message(active, now));
            if bar.message() != text {
                bar.set_message(text);
            }
            if turn {
                bar.tick();
            }
        }
    }

    /// Runs something that writes to the terminal itself.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.multi.suspend(write)
    }

    /// Takes all moving lines away, for good.
    pub fn finish(&mut self) {
        for bar in std::mem::take(&mut self.bars).into_values() {
            bar.finish_and_clear();
        }
    }

    fn print(&self, text: &str) {
        for line in text.lines() {
            // A terminal that went away is nothing to stop for.
            let _ = self.multi.println(self.redactor.apply(line));
        }
    }
}

/// The text of a moving line: seconds first, where a narrow terminal does not cut them off.
fn message(active: &Active, now: Instant) -> String {
    let seconds = now.duration_since(active.since).as_secs();
    let detail = active.detail.lines().next().unwrap_or_default();
    format!("{seconds}s  {detail}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_step_has_a_moving_line_while_it_runs_and_has_run_for_a_moment() {
        let start = Instant::now();
        let redactor = Redactor::default();
        redactor.register("hunter22");
        let mut tty = Tty::on(ProgressDrawTarget::hidden(), Style::PLAIN, false, redactor);
        tty.event(start, &Event::StepStarted { step: "minio".into() });
        tty.event(start, &Event::StepStarted { step: "quick".into() });
        let done =
            |step: &str| Event::StepDone { step: step.into(), detail: String::new(), changed: true, seconds: 0.1 };
        tty.event(at(start, 100), &done("quick"));
        assert!(tty.bars.is_empty());
        tty.tick(at(start, 300));
        assert_eq!(tty.bars.keys().collect::<Vec<_>>(), ["minio"]);
        let reason = "login with hunter22\nrefused".to_owned();
        tty.event(at(start, 4200), &Event::StepWaiting { step: "minio".into(), reason });
        assert_eq!(tty.bars["minio"].message(), "4s  login with <redacted>");
        tty.event(at(start, 5000), &done("minio"));
        assert!(tty.bars.is_empty());
    }
}
