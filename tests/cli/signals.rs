//! Interruptions, while an engine does not answer.
#![allow(clippy::print_stderr, reason = "what the machine cannot run is told")]

use std::io::Read as _;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::SilentEngine;
use crate::environment::TestEnvironment;

const DEVSTACK: &str = env!("CARGO_BIN_EXE_devstack");

/// Less than any engine is waited for.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Starts a program that gets as far as the engine.
fn started(program: &str, args: &[&str]) -> (TestEnvironment, SilentEngine, Child) {
    let engine = SilentEngine::start();
    let mut environment = TestEnvironment::new();
    environment.set("DOCKER_HOST", engine.host());
    let child = environment.child(program, args).spawn().unwrap();
    (environment, engine, child)
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// How a child ends, and what it wrote on standard error.
fn end(mut child: Child) -> (ExitStatus, String) {
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > AT_ONCE {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status, text)
}

/// Whether this process was told to ignore SIGHUP (`nohup cargo test`), which its children are told as well.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

#[test]
fn whoever_is_stopped_before_a_change_stops_at_once_and_changes_nothing() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        if signal == Signal::HUP && ignores_hangup() {
            eprintln!("- a closed terminal: the tests run under nohup");
            continue;
        }
        let (environment, engine, child) = started(DEVSTACK, &["up", "--yes", "--provider", "kind"]);
        let open = engine.asked();
        send(&child, signal);
        let (status, text) = end(child);
        drop(open);
        assert_eq!(status.code(), Some(130), "{signal:?}: {text}");
        assert!(text.contains("interrupted") && text.contains("nothing was changed"), "{signal:?}: {text}");
        let state: Vec<String> =
            environment.files().into_iter().filter(|file| file.contains("/environments")).collect();
        assert_eq!(state, Vec::<String>::new(), "{signal:?}");
    }
}

#[test]
fn the_second_interruption_ends_what_does_not_end_by_itself() {
    let (_environment, engine, child) = started(DEVSTACK, &["doctor", "--fix", "--yes"]);
    let open = engine.asked();
    send(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    send(&child, Signal::INT);
    let (status, text) = end(child);
    drop(open);
    assert_eq!(status.code(), Some(130), "{text}");
}

#[test]
fn under_nohup_a_closed_terminal_is_no_reason_to_stop() {
    let nohup = "/usr/bin/nohup";
    if !std::path::Path::new(nohup).exists() {
        eprintln!("- nohup: it is not installed");
        return;
    }
    let (_environment, engine, mut child) = started(nohup, &[DEVSTACK, "up", "--yes", "--provider", "kind"]);
    let open = engine.asked();
    send(&child, Signal::HUP);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None);
    send(&child, Signal::TERM);
    assert_eq!(end(child).0.code(), Some(130));
    drop(open);
}
