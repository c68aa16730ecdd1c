//! The CPU level of the machine that devstack runs on, told by devstack's own binary on CPUs that QEMU emulates.
//!
//! The C library's loader judges the same CPU in the same emulator and has to agree. It needs `qemu-x86_64`
//! (`qemu-user-static` in Debian) on an x86-64 Linux; elsewhere the test says that it is skipped, and in CI it fails.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test program: it panics, and starts what it tests"
)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use devstack::facts::{CpuLevel, level_of_cpuinfo};

/// glibc's loader; since 2.33 it tells the levels that it would load libraries for.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// QEMU's models, and the level of what QEMU 7.2 gives each of them. TCG has no AVX-512, so that a server's model ends
/// at v3. A model with one flag taken away is what a virtual machine with a hand-picked CPU looks like.
const MODELS: [(&str, CpuLevel); 36] = [
    ("qemu64", CpuLevel::V1),
    ("kvm64", CpuLevel::V1),
    ("phenom", CpuLevel::V1),
    ("core2duo", CpuLevel::V1),
    ("Conroe", CpuLevel::V1),
    ("Penryn", CpuLevel::V1),
    ("Opteron_G1", CpuLevel::V1),
    ("Opteron_G2", CpuLevel::V1),
    ("Opteron_G3", CpuLevel::V1),
    ("Nehalem,-lahf-lm", CpuLevel::V1),
    ("Nehalem,-popcnt", CpuLevel::V1),
    ("Nehalem,-cx16", CpuLevel::V1),
    ("Haswell,-sse4.2", CpuLevel::V1),
    ("Nehalem", CpuLevel::V2),
    ("Westmere", CpuLevel::V2),
    ("SandyBridge", CpuLevel::V2),
    ("IvyBridge", CpuLevel::V2),
    ("Opteron_G4", CpuLevel::V2),
    ("Opteron_G5", CpuLevel::V2),
    ("Denverton", CpuLevel::V2),
    ("Snowridge", CpuLevel::V2),
    ("Haswell,-movbe", CpuLevel::V2),
    ("EPYC,-bmi2", CpuLevel::V2),
    ("Haswell", CpuLevel::V3),
    ("Broadwell", CpuLevel::V3),
    ("Skylake-Client", CpuLevel::V3),
    ("Skylake-Server", CpuLevel::V3),
    ("Cascadelake-Server", CpuLevel::V3),
    ("Cooperlake", CpuLevel::V3),
    ("Icelake-Server", CpuLevel::V3),
    ("KnightsMill", CpuLevel::V3),
    ("EPYC", CpuLevel::V3),
    ("EPYC-Rome", CpuLevel::V3),
    ("EPYC-Milan", CpuLevel::V3),
    ("Dhyana", CpuLevel::V3),
    ("max", CpuLevel::V3),
];

fn qemu() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["qemu-x86_64-static", "qemu-x86_64"];
    std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|program| program.is_file())
}

/// What devstack says of the CPU that `qemu` emulates.
fn told(qemu: &Path, model: &str, home: &Path) -> CpuLevel {
    let mut command = Command::new(qemu);
    command.args(["-cpu", model, env!("CARGO_BIN_EXE_devstack"), "facts", "-o", "json"]);
    // No engine is asked: its CPU is not the emulated one.
    command.env_clear().env("HOME", home).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let done = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{model}: {}\n{out}{err}", done.status);
    let facts: serde_json::Value = serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap();
    facts["host"]["cpu"]["level"].as_str().unwrap_or_else(|| panic!("{model}: {facts}")).parse().unwrap()
}

/// What glibc says of it; `None` where there is no glibc, or it tells no levels.
fn glibc(qemu: &Path, model: &str) -> Option<CpuLevel> {
    let done = Command::new(qemu).args(["-cpu", model, LOADER, "--help"]).output().ok()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let lines = || text.lines().filter_map(|line| line.trim().split_once(' ').or(Some((line.trim(), ""))));
    lines().find(|(name, _)| *name == "x86-64-v2")?;
    let supported = lines().filter(|(_, verdict)| verdict.contains("supported"));
    Some(supported.filter_map(|(name, _)| name.parse().ok()).max().unwrap_or(CpuLevel::V1))
}

#[test]
fn the_own_level_is_that_of_the_cpu_below() {
    let Some(qemu) = qemu() else {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "CI needs qemu-x86_64: qemu-user-static");
        // Past the test harness, which keeps what a passing test prints to itself.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "skipped: CPU levels under emulation, for want of qemu-x86_64 (qemu-user-static)").unwrap();
        return;
    };
    let home = tempfile::tempdir().unwrap();
    // The kernel's list is the real CPU's, and devstack never says more than it.
    let real = level_of_cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").unwrap()).level.unwrap();
    let mut seen = BTreeSet::new();
    for (model, level) in MODELS {
        // An older QEMU leaves out more.
        let given = glibc(&qemu, model).map_or(level, |judged| judged.min(level));
        assert_eq!(told(&qemu, model, home.path()), given.min(real), "{model}");
        seen.insert(given);
    }
    assert!(seen.len() > 1, "every model gave {seen:?}: nothing was shown");
}
