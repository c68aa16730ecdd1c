//! A running devstack, and one that has ended.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A devstack that runs with `-o json`.
pub struct Running {
    child: Child,
    line: String,
    began: Instant,
    events: Receiver<Value>,
    seen: Vec<Value>,
    stderr: JoinHandle<String>,
    peak: JoinHandle<u64>,
}

/// A devstack that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The command line.
    pub line: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote on standard output, line by line.
    pub lines: Vec<Value>,
    /// What it wrote on standard error.
    pub stderr: String,
    /// How long it took.
    pub seconds: f64,
    /// The most memory that it had in use, in KiB.
    pub peak_kib: u64,
}

impl Running {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let line = format!("{command:?}");
        let line = line.split("devstack\" ").last().unwrap_or_default().replace('"', "");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, events) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&line);
                let event = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut from = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = from.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let status = format!("/proc/{}/status", child.id());
        let peak = std::thread::spawn(move || {
            let mut peak = 0;
            while let Ok(text) = std::fs::read_to_string(&status) {
                // A process that has ended and was not waited for has no memory.
                let Some(now) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
                peak = now.trim().trim_end_matches(" kB").parse().unwrap_or(peak);
                std::thread::sleep(Duration::from_millis(10));
            }
            peak
        });
        Self { child, line, began: Instant::now(), events, seen: Vec::new(), stderr, peak }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event; `false` where it ended without one. Panics when nothing is heard for five minutes.
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> bool {
        loop {
            match self.events.recv_timeout(Duration::from_secs(300)) {
                Ok(event) => {
                    let found = wanted(&event);
                    self.seen.push(event);
                    if found {
                        return true;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("{}: nothing is heard any more", self.line),
            }
        }
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it stopped itself; `false` where it ended before.
    pub fn until_stopped(&mut self) -> bool {
        let stat = format!("/proc/{}/stat", self.child.id());
        // The state follows the command's name, which is in parentheses.
        let stopped = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        while !stopped() {
            if !self.is_alive() {
                return false;
            }
            assert!(self.began.elapsed() < Duration::from_secs(600), "{}: does not stop", self.line);
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    /// Sends a signal to it and to nobody else.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(pid, signal);
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        // Not until its streams close: a child that outlives it keeps them open, and is none of its end.
        let status = loop {
            while let Ok(event) = self.events.try_recv() {
                self.seen.push(event);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(self.began.elapsed() < Duration::from_secs(900), "{}: does not end", self.line);
            std::thread::sleep(Duration::from_millis(2));
        };
        let seconds = self.began.elapsed().as_secs_f64();
        while let Ok(event) = self.events.recv_timeout(Duration::from_millis(200)) {
            self.seen.push(event);
        }
        let stderr = if status.signal().is_some() { String::new() } else { self.stderr.join().unwrap() };
        let peak_kib = self.peak.join().unwrap();
        Ended { line: self.line, status, lines: self.seen, stderr, seconds, peak_kib }
    }
}

impl Ended {
    /// Panics unless it ended with this status; gives itself.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}", self.story());
        self
    }

    /// Everything that a person would want to know of a surprise.
    pub fn story(&self) -> String {
        let lines: Vec<String> = self
            .lines
            .iter()
            .filter(|line| line["type"] != "step-progress")
            .map(|line| line.as_str().map_or_else(|| line.to_string(), str::to_owned))
            .collect();
        let start = lines.len().saturating_sub(30);
        format!("{}: {}\n{}\n{}", self.line, self.status, lines[start..].join("\n"), self.stderr)
    }

    /// The last line of this type.
    #[track_caller]
    pub fn last(&self, kind: &str) -> &Value {
        let found = self.lines.iter().rev().find(|line| line["type"] == kind);
        found.unwrap_or_else(|| panic!("no line of type {kind}\n{}", self.story()))
    }

    /// The planned changes that are not to leave things as they are, as `STEP ACTION WHAT WHY`.
    #[track_caller]
    pub fn changes(&self) -> Vec<String> {
        let changes = self.last("plan")["changes"].as_array().unwrap();
        let text = |change: &Value, field: &str| change[field].as_str().unwrap_or_default().to_owned();
        changes
            .iter()
            .filter(|change| change["action"] != "leave")
            .map(|change| ["step", "action", "what", "why"].map(|field| text(change, field)).join(" "))
            .collect()
    }
}
