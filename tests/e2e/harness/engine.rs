//! The engine itself, where `scripts/engine` started it: only that one may be killed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::tools::output;

/// Where dockerd says which containerd is its own.
const CONTAINERD: &str = "/run/docker/containerd/containerd.pid";

/// An engine that `scripts/engine` started.
pub struct OwnEngine {
    script: PathBuf,
}

impl OwnEngine {
    /// It; the reason where the engine is somebody else's, or may not be killed.
    pub fn find() -> Result<Self, String> {
        let engine = Self { script: Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/engine") };
        engine.dockerd()?;
        if !rustix::process::geteuid().is_root() {
            return Err("only root may kill the engine".to_owned());
        }
        Ok(engine)
    }

    /// The process of the dockerd that the script started.
    fn dockerd(&self) -> Result<Pid, String> {
        let told = Command::new(&self.script).arg("status").output().map_err(|error| error.to_string())?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let number = told.split_once("started by this script (dockerd ").and_then(|(_, rest)| rest.split_once(','));
        let pid = number.and_then(|(number, _)| Pid::from_raw(number.parse().ok()?));
        pid.ok_or_else(|| "the engine is not one that scripts/engine started, and nobody else's is killed".to_owned())
    }

    /// Kills dockerd and its containerd. Containers stay without anybody who knows of them.
    pub fn kill(&self) {
        let dockerd = self.dockerd().unwrap();
        let containerd =
            std::fs::read_to_string(CONTAINERD).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        let containerd = containerd.filter(|pid| line_of(*pid).contains("/docker/containerd/"));
        for pid in std::iter::once(dockerd).chain(containerd) {
            kill_process(pid, Signal::KILL).unwrap();
            let began = Instant::now();
            // A process that nobody has waited for yet has no command line any more.
            while !line_of(pid).is_empty() {
                assert!(began.elapsed() < Duration::from_secs(10), "{pid:?} outlives SIGKILL");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Starts it again, and waits until it answers.
    pub fn start(&self) {
        output(Command::new(&self.script).args(["start", "--yes"]));
    }
}

impl Drop for OwnEngine {
    /// Whatever happened: later tests need an engine.
    fn drop(&mut self) {
        let _ = Command::new(&self.script).args(["start", "--yes"]).output();
    }
}

fn line_of(pid: Pid) -> String {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}
