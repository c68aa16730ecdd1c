//! The log of a run: every event as a JSON line with its time, in `<state>/logs`.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::event::Event;

/// How many logs are kept.
const KEEP: usize = 20;

/// How many lines wait for the file before the first step begins.
const BUFFER: usize = 1000;

/// A log that comes into being with the first step, so that a command which changes nothing leaves no file.
#[derive(Debug)]
pub struct RunLog {
    path: PathBuf,
    waiting: Vec<String>,
    file: Option<File>,
    broken: bool,
}

impl RunLog {
    /// The log of a run that began at `now` in the process `pid`.
    pub fn new(dir: &Path, now: jiff::Timestamp, pid: u32) -> Self {
        let stamp = now.strftime("%Y%m%dT%H%M%SZ");
        Self { path: dir.join(format!("{stamp}-{pid}.jsonl")), waiting: Vec::new(), file: None, broken: false }
    }

    /// The file, where it exists.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|_| self.path.as_path())
    }

    /// Adds an event, whose JSON form is `line`. A log that cannot be written never stops a command.
    pub fn event(&mut self, now: jiff::Timestamp, event: &Event, line: &str) {
        if self.broken {
            return;
        }
        let line = stamped(now, line);
        if self.file.is_none() {
            if self.waiting.len() < BUFFER {
                self.waiting.push(line);
            }
            if matches!(event, Event::StepStarted { .. }) {
                self.broken = self.open().is_err();
            }
        } else {
            self.broken = self.write(&line).is_err();
        }
    }

    /// Adds a line of another kind, such as the final error, where the log exists.
    pub fn line(&mut self, now: jiff::Timestamp, line: &str) {
        if self.file.is_some() && !self.broken {
            self.broken = self.write(&stamped(now, line)).is_err();
        }
    }

    /// Ends the log and removes it with all earlier ones, and the directories above that are empty then: what a `down`
    /// that left nothing else behind does last.
    pub fn discard(&mut self) {
        self.file = None;
        self.waiting.clear();
        self.broken = true;
        let Some(logs) = self.path.parent() else { return };
        // What cannot be removed is a log that stays, and no reason to fail; a directory that holds anything stays too.
        for log in runs(logs).unwrap_or_default() {
            let _ = std::fs::remove_file(log);
        }
        let _ = std::fs::remove_dir(logs);
        if let Some(state) = logs.parent() {
            let _ = std::fs::remove_dir(state.join("environments"));
            let _ = std::fs::remove_dir(state);
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        make_private_dir(dir)?;
        prune(dir)?;
        let mut options = std::fs::OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        self.file = Some(options.open(&self.path)?);
        for line in std::mem::take(&mut self.waiting) {
            self.write(&line)?;
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| writeln!(file, "{line}"))
    }
}

/// The line with the time as its first member.
fn stamped(now: jiff::Timestamp, line: &str) -> String {
    let rest = line.strip_prefix('{').unwrap_or(line);
    format!("{{\"time\":\"{now:.3}\",{rest}")
}

fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(dir)
}

/// The logs of runs, oldest first. The directory is the user's choice, and whatever else is in it is not touched.
fn runs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let is_run = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(is_name);
    let mut logs: Vec<PathBuf> =
        std::fs::read_dir(dir)?.filter_map(|entry| Some(entry.ok()?.path())).filter(is_run).collect();
    logs.sort();
    Ok(logs)
}

/// Whether a name is of the form `20260102T030405Z-42.jsonl`.
fn is_name(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.strip_suffix(".jsonl").and_then(|name| name.split_once('-'));
    parts.is_some_and(|(stamp, pid)| {
        let time = stamp.strip_suffix('Z').and_then(|stamp| stamp.split_once('T'));
        digits(pid) && time.is_some_and(|(day, time)| (day.len(), time.len()) == (8, 6) && digits(day) && digits(time))
    })
}

/// Removes the oldest logs so that one more makes [`KEEP`].
fn prune(dir: &Path) -> io::Result<()> {
    let logs = runs(dir)?;
    let surplus = (logs.len() + 1).saturating_sub(KEEP);
    for path in &logs[..surplus] {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> jiff::Timestamp {
        "2026-01-02T03:04:05.678Z".parse().unwrap()
    }

    #[test]
    fn the_file_comes_with_the_first_step_and_holds_what_came_before() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("state/logs");
        let mut log = RunLog::new(&logs, time(), 42);
        log.event(time(), &Event::Note { message: "a".into() }, r#"{"type":"note","message":"a"}"#);
        log.line(time(), r#"{"type":"error"}"#);
        assert_eq!(log.path(), None);
        assert!(!logs.exists());
        log.event(time(), &Event::StepStarted { step: "s".into() }, r#"{"type":"step-started","step":"s"}"#);
        log.line(time(), r#"{"type":"error"}"#);
        assert_eq!(log.path(), Some(logs.join("20260102T030405Z-42.jsonl").as_path()));
        insta::assert_snapshot!(std::fs::read_to_string(log.path().unwrap()).unwrap(), @r#"
        {"time":"2026-01-02T03:04:05.678Z","type":"note","message":"a"}
        {"time":"2026-01-02T03:04:05.678Z","type":"step-started","step":"s"}
        {"time":"2026-01-02T03:04:05.678Z","type":"error"}
        "#);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(log.path().unwrap()), mode(&logs)), (0o600, 0o700));
        }
    }

    #[test]
    fn a_discarded_log_leaves_nothing_but_what_others_need() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let step = Event::StepStarted { step: "s".into() };
        let begin = || {
            let mut log = RunLog::new(&state.join("logs"), time(), 42);
            log.event(time(), &step, "{}");
            log
        };
        std::fs::create_dir_all(state.join("environments/other")).unwrap();
        // The state directory may be one that the user has other things in.
        std::fs::create_dir_all(state.join("logs/mine")).unwrap();
        std::fs::write(state.join("logs/app.jsonl"), "").unwrap();
        begin().discard();
        let mut left: Vec<_> =
            std::fs::read_dir(state.join("logs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["app.jsonl", "mine"]);
        std::fs::remove_dir_all(state.join("logs")).unwrap();
        begin().discard();
        assert!(state.join("environments/other").exists() && !state.join("logs").exists());
        std::fs::remove_dir(state.join("environments/other")).unwrap();
        let mut log = begin();
        log.discard();
        log.event(time(), &step, "{}");
        assert!(!state.exists());
    }

    #[test]
    fn twenty_logs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..25 {
            std::fs::write(dir.path().join(format!("2025010{}T000000Z-{index:02}.jsonl", index % 9)), "").unwrap();
        }
        std::fs::write(dir.path().join("2024-mine.jsonl"), "").unwrap();
        let mut log = RunLog::new(dir.path(), time(), 1);
        log.event(time(), &Event::StepStarted { step: "s".into() }, "{}");
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names.len(), KEEP + 1);
        assert_eq!(names[..2], ["2024-mine.jsonl", "20250102T000000Z-02.jsonl"]);
        assert_eq!(names[KEEP], "20260102T030405Z-1.jsonl");
    }
}
