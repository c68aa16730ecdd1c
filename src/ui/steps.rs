//! What is known of the steps that run, and how one line about a step looks. Shared by the plain and tty renderers.

use std::time::{Duration, Instant};

use super::style::{Style, columns};
use crate::event::{Action, Change, Setting};

/// A step that ends sooner is not announced.
pub const QUIET: Duration = Duration::from_millis(250);

/// The narrowest column of step names.
const NAME_COLUMN: usize = 9;

/// The column at which the seconds end.
const TIME_COLUMN: usize = 66;

/// A step that runs.
#[derive(Debug, Clone)]
pub struct Active {
    /// Its id.
    pub step: String,
    /// When it began.
    pub since: Instant,
    /// What it does or waits for; empty as long as nothing is known.
    pub detail: String,
    /// Whether a person has been told of it.
    pub shown: bool,
}

/// The steps that run, in the order in which they began.
#[derive(Debug, Default)]
pub struct Steps(Vec<Active>);

impl Steps {
    /// A step began.
    pub fn start(&mut self, now: Instant, step: &str) {
        self.end(step);
        self.0.push(Active { step: step.to_owned(), since: now, detail: String::new(), shown: false });
    }

    /// A step that runs.
    pub fn get(&mut self, step: &str) -> Option<&mut Active> {
        self.0.iter_mut().find(|active| active.step == step)
    }

    /// A step ended; it is given back.
    pub fn end(&mut self, step: &str) -> Option<Active> {
        let index = self.0.iter().position(|active| active.step == step)?;
        Some(self.0.remove(index))
    }

    /// The steps that have run for [`QUIET`] and that nobody was told of; they count as told afterwards.
    pub fn overdue(&mut self, now: Instant) -> Vec<Active> {
        let due = |active: &&mut Active| !active.shown && now.duration_since(active.since) >= QUIET;
        self.0
            .iter_mut()
            .filter(due)
            .map(|active| {
                active.shown = true;
                active.clone()
            })
            .collect()
    }

    /// Every step that runs.
    pub fn iter(&self) -> impl Iterator<Item = &Active> {
        self.0.iter()
    }
}

/// One line about a step: symbol, name, text, and the seconds at the right where given.
///
/// `width` is the terminal's; the text is cut so that the line fits. `None` leaves it whole.
pub fn line(symbol: &str, step: &str, text: &str, seconds: Option<f64>, width: Option<usize>) -> String {
    let mut line = format!("{symbol} {step}");
    pad(&mut line, NAME_COLUMN + 2);
    line.push(' ');
    let time = seconds.map(duration).unwrap_or_default();
    let room = width.map(|width| width.saturating_sub(columns(&line) + columns(&time) + 2));
    line.push_str(&room.map_or_else(|| text.to_owned(), |room| cut(text, room)));
    if !time.is_empty() {
        let column = width.map_or(TIME_COLUMN, |width| TIME_COLUMN.min(width.saturating_sub(1)));
        line.push(' ');
        pad(&mut line, column.saturating_sub(columns(&time)));
        line.push_str(&time);
    }
    line.trim_end().to_owned()
}

fn pad(line: &mut String, width: usize) {
    line.extend(std::iter::repeat_n(' ', width.saturating_sub(columns(line))));
}

/// The text in at most `room` columns and one line, with an ellipsis where something is left out.
pub fn cut(text: &str, room: usize) -> String {
    let text = text.lines().next().unwrap_or_default();
    if columns(text) <= room {
        return text.to_owned();
    }
    let mut short = String::new();
    for character in text.chars() {
        if columns(&short) + 2 > room {
            break;
        }
        short.push(character);
    }
    if room > 0 {
        short.push('…');
    }
    short
}

/// Seconds as a person reads them: `0.4s`, `19s`, `2m05s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a step's seconds are small and positive"
    )]
    let whole = seconds.round() as u64;
    if whole < 60 { format!("{whole}s") } else { format!("{}m{:02}s", whole / 60, whole % 60) }
}

/// A number of bytes as a person reads it: `812 B`, `1.5 MB`, `1.4 GB` (powers of 1000, as docker prints them).
#[expect(clippy::cast_precision_loss, reason = "one decimal is printed")]
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    if count < 1000 {
        return format!("{count} B");
    }
    let mut unit = "B";
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A step's progress in words.
pub fn progress(done: u64, total: Option<u64>, unit: &str, detail: &str) -> String {
    let amount = match (unit, total) {
        ("bytes", Some(total)) => format!("{} of {}", bytes(done), bytes(total)),
        ("bytes", None) => bytes(done),
        (_, Some(total)) => format!("{done}/{total} {unit}"),
        (_, None) => format!("{done} {unit}"),
    };
    if detail.is_empty() { amount } else { format!("{amount} · {detail}") }
}

/// A plan as a person reads it: the summary, then each change. What stays as it is, is told when `all`.
pub fn plan(summary: &str, settings: &[Setting], changes: &[Change], all: bool, style: Style) -> String {
    let mut text = format!("{}   {summary}\n", style.strong("plan"));
    for Setting { name, before, after } in settings {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "as the profile says".to_owned());
        text.push_str(&format!("  setting {name}: {} → {}\n", value(before), value(after)));
    }
    let name = changes.iter().map(|change| columns(&change.step)).max().unwrap_or_default();
    for change in changes.iter().filter(|change| all || change.action != Action::Leave) {
        let symbol = match change.action {
            Action::Create => style.good("+"),
            Action::Repair => style.warn("~"),
            Action::Remove => style.bad("-"),
            Action::Adopt => style.strong("="),
            Action::Leave => style.faint(" "),
            Action::Later => style.faint("?"),
        };
        let mut line = format!("  {symbol} {}", change.step);
        line.extend(std::iter::repeat_n(' ', name - columns(&change.step) + 2));
        line.push_str(&change.what);
        if change.action == Action::Later {
            line.push_str(" (known after cluster)");
        }
        if let Some(why) = &change.why {
            line.push_str(&style.faint(&format!("  # {why}")));
        }
        text.push_str(line.trim_end());
        text.push('\n');
        for lost in &change.loses {
            text.push_str(&format!("      {} {lost}\n", style.bad("lost:")));
        }
    }
    let left = changes.iter().filter(|change| change.action == Action::Leave).count();
    if left > 0 && !all {
        text.push_str(&format!("  {left} unchanged\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_cut_to_the_terminal() {
        let lines = [
            line("✓", "images", "6/6", Some(41.2), None),
            line("✓", "a-rather-long-step", "1/1 Ready", Some(0.44), None),
            line("⠸", "minio", "readiness 503: normal while it starts", Some(125.0), Some(40)),
            line("·", "minio", "", None, None),
        ];
        insta::assert_snapshot!(lines.join("\n"), @"
        ✓ images    6/6                                                41s
        ✓ a-rather-long-step 1/1 Ready                                0.4s
        ⠸ minio     readiness 503: norma… 2m05s
        · minio
        ");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [0, 999, 1000, 1_500_000, 999_600, 1_400_000_000].map(bytes).join(" "),
            "0 B 999 B 1.0 kB 1.5 MB 1.0 MB 1.4 GB"
        );
        assert_eq!([0.04, 9.96, 59.4, 59.6, 3600.0].map(duration).join(" "), "0.0s 10s 59s 1m00s 60m00s");
        assert_eq!(progress(3, Some(6), "images", "docker.io/x"), "3/6 images · docker.io/x");
        assert_eq!(progress(1500, None, "bytes", ""), "1.5 kB");
    }

    #[test]
    fn a_plan_tells_changes_and_counts_the_rest() {
        let change = |step: &str, action, what: &str, why: Option<&str>| Change {
            step: step.into(),
            action,
            what: what.into(),
            why: why.map(Into::into),
            loses: Vec::new(),
        };
        let changes = [
            change("network", Action::Leave, "network devstack-s3www", None),
            change("cluster", Action::Create, "kind cluster, 1 node", None),
            change("hosts", Action::Repair, "s3www.test → 127.0.0.1", Some("somebody edited it")),
            change("metallb", Action::Later, "address pool", None),
            Change {
                loses: vec!["volume db/data-db-0 (1Gi)".to_owned()],
                ..change("prune", Action::Remove, "component db, 4 objects", Some("the profile has it no more"))
            },
        ];
        let settings = [
            Setting { name: "replicas".to_owned(), before: None, after: Some("2".to_owned()) },
            Setting { name: "--nodes".to_owned(), before: Some("2".to_owned()), after: Some("1".to_owned()) },
        ];
        insta::assert_snapshot!(plan("s3www · kind · 1 node", &settings, &changes, false, Style::PLAIN), @"
        plan   s3www · kind · 1 node
          setting replicas: as the profile says → 2
          setting --nodes: 2 → 1
          + cluster  kind cluster, 1 node
          ~ hosts    s3www.test → 127.0.0.1  # somebody edited it
          ? metallb  address pool (known after cluster)
          - prune    component db, 4 objects  # the profile has it no more
              lost: volume db/data-db-0 (1Gi)
          1 unchanged
        ");
        assert!(plan("s", &[], &changes, true, Style::PLAIN).contains("    network  network devstack-s3www\n"));
    }
}
