//! The laptop: what its files and two small commands say.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::cpu::{CpuFacts, level_of_cpuinfo};
use super::machine::Machine;
use crate::ports::runner::Cmd;
use crate::ports::{HostFs, Runner};

/// What was read about the host that devstack runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostFacts {
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// The kernel's release.
    pub kernel: String,
    /// The host's name.
    pub hostname: String,
    /// Whether this Linux is a WSL distribution, and of which version.
    pub wsl: Wsl,
    /// WSL's networking mode as `wslinfo` says it: `nat`, `mirrored`, `virtioproxy`, `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wsl_networking: Option<String>,
    /// The user's name; empty where it cannot be read.
    pub user: String,
    /// Whether the effective user is root.
    pub root: bool,
    /// Whether the user may use a socket that belongs to group `docker`.
    pub docker_group: DockerGroup,
    /// Signs that this is a container or sandbox, such as `/.dockerenv`; empty on an ordinary machine.
    pub container: Vec<String>,
    /// The CPUs, by `/proc/cpuinfo` and CPUID.
    pub cpu: CpuFacts,
    /// Memory in bytes; 0 where it cannot be read.
    pub memory: u64,
    /// Memory in bytes that is free or can be freed; 0 where it cannot be read.
    pub memory_available: u64,
    /// Space, keyed by what the directory is for: `cache`, `state`.
    pub disks: BTreeMap<String, Disk>,
    /// The capabilities that no process started here can exceed; `None` off Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapSet>,
    /// The same for the local engine's process, where its pid file could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_capabilities: Option<CapSet>,
    /// The cgroup version, 1 or 2; `None` off Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u8>,
    /// The kernel's inotify limits; `None` off Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inotify: Option<Inotify>,
    /// IPv4 routes of the host in CIDR notation, without the default route and its halves.
    pub routes: Vec<String>,
}

/// Windows Subsystem for Linux.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wsl {
    /// Not WSL.
    #[default]
    #[serde(rename = "none")]
    None,
    /// Version 1: no Linux kernel, no containers.
    #[serde(rename = "1")]
    V1,
    /// Version 2: a real Linux kernel in a virtual machine.
    #[serde(rename = "2")]
    V2,
}

/// The user's membership of group `docker`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DockerGroup {
    /// There is no such group.
    #[default]
    Absent,
    /// The group exists; the user is not in it.
    Outside,
    /// The user was added, but this session began before that: a new login is needed.
    NextLogin,
    /// The process carries the group.
    Member,
}

/// Space on a disk, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The directory that was asked about.
    pub path: PathBuf,
    /// What an ordinary user may still write.
    pub free: u64,
    /// The size of the file system.
    pub total: u64,
}

/// The kernel's inotify limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inotify {
    /// `fs.inotify.max_user_instances`.
    pub instances: u64,
    /// `fs.inotify.max_user_watches`.
    pub watches: u64,
}

/// A set of Linux capabilities, written as the kernel writes it: sixteen hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// CAP_SYS_RESOURCE, which `--privileged` containers, `oomScoreAdj` and raised limits need (`capability.h`).
    pub const SYS_RESOURCE: u8 = 24;
    /// CAP_SYS_ADMIN: mounts, namespaces.
    pub const SYS_ADMIN: u8 = 21;
    /// CAP_NET_ADMIN: bridges, routes, netfilter.
    pub const NET_ADMIN: u8 = 12;

    /// The set with these bits.
    pub fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether the capability with this number is in the set.
    pub fn has(self, capability: u8) -> bool {
        self.0 & (1 << capability) != 0
    }

    /// The `CapBnd` line of a `/proc/PID/status`.
    fn bounding(status: &str) -> Option<Self> {
        let value = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
        u64::from_str_radix(value.trim(), 16).ok().map(Self)
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapSet({:016x})", self.0)
    }
}

impl Serialize for CapSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for CapSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16)
            .map(Self)
            .map_err(|_| de::Error::custom(format!("`{text}` is not a capability set in hexadecimal")))
    }
}

impl HostFacts {
    /// Reads the host. What cannot be read stays empty: a missing fact is a fact about the host, not an error.
    pub async fn read(machine: Machine, fs: &dyn HostFs, runner: &dyn Runner) -> Self {
        let Machine { os, architecture, kernel, hostname, uid, cpus, cpuid, disks } = machine;
        let mut facts = Self { os, architecture, kernel, hostname, disks, root: uid == 0, ..Self::default() };
        let text = |path: &str| match fs.read(Path::new(path)) {
            Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(None) | Err(_) => String::new(),
        };
        facts.user = user_name(&text("/etc/passwd"), uid);
        facts.cpu = level_of_cpuinfo(&text("/proc/cpuinfo"));
        if facts.cpu.cpus == 0 {
            facts.cpu = CpuFacts { architecture: facts.architecture.clone(), cpus, ..CpuFacts::default() };
        }
        facts.cpu = facts.cpu.corrected_by(&cpuid);
        match facts.os.as_str() {
            "linux" => {
                facts.wsl = wsl_of(&text("/proc/version"));
                if facts.wsl == Wsl::V2 {
                    facts.wsl_networking = word(runner, "wslinfo", &["--networking-mode"]).await;
                }
                let status = text("/proc/self/status");
                facts.docker_group = docker_group(&text("/etc/group"), &status, &facts.user);
                facts.container = container_signs(&text);
                facts.capabilities = CapSet::bounding(&status);
                facts.engine_capabilities =
                    engine_pid(&text).and_then(|pid| CapSet::bounding(&text(&format!("/proc/{pid}/status"))));
                let memory = text("/proc/meminfo");
                facts.memory = kib_line(&memory, "MemTotal").unwrap_or_default();
                facts.memory_available = kib_line(&memory, "MemAvailable").unwrap_or_default();
                let unified = !text("/sys/fs/cgroup/cgroup.controllers").is_empty();
                facts.cgroup = Some(if unified { 2 } else { 1 });
                facts.inotify = inotify(&text);
                facts.routes = routes(&text("/proc/net/route"));
            }
            "macos" => {
                let bytes = word(runner, "sysctl", &["-n", "hw.memsize"]).await;
                facts.memory = bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
                if let Some(user) = word(runner, "id", &["-un"]).await {
                    facts.user = user;
                }
            }
            _ => {}
        }
        facts
    }

    /// Whether this Linux lives in a container or sandbox by the signs read.
    pub fn is_container(&self) -> bool {
        !self.container.is_empty()
    }
}

/// The one word that a small command prints; `None` where it is not there or fails.
async fn word(runner: &dyn Runner, program: &str, args: &[&str]) -> Option<String> {
    let cmd = Cmd::new(program).args(args.iter().copied()).timeout(Duration::from_secs(3));
    let output = runner.run(&cmd).await.ok()?;
    let word = output.text().trim().to_owned();
    (!word.is_empty()).then_some(word)
}

fn wsl_of(version: &str) -> Wsl {
    let lower = version.to_lowercase();
    if !lower.contains("microsoft") {
        Wsl::None
    } else if lower.contains("wsl2") || lower.contains("microsoft-standard") {
        Wsl::V2
    } else {
        Wsl::V1
    }
}

fn user_name(passwd: &str, uid: u32) -> String {
    let uid = uid.to_string();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()))
        .and_then(|fields| fields.first().map(|name| (*name).to_owned()))
        .unwrap_or_default()
}

fn docker_group(groups: &str, status: &str, user: &str) -> DockerGroup {
    let Some(fields) = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f[0] == "docker") else {
        return DockerGroup::Absent;
    };
    let carried = status
        .lines()
        .filter_map(|line| line.strip_prefix("Groups:").or_else(|| line.strip_prefix("Gid:")))
        .flat_map(str::split_whitespace)
        .any(|gid| fields.get(2) == Some(&gid));
    let listed = fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user));
    match (carried, listed) {
        (true, _) => DockerGroup::Member,
        (false, true) => DockerGroup::NextLogin,
        (false, false) => DockerGroup::Outside,
    }
}

fn container_signs(text: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut signs = Vec::new();
    // Both marker files are often empty, so their mount lines are looked at as well.
    let mounts = text("/proc/self/mountinfo");
    let root = mounts.lines().find(|line| line.split_whitespace().nth(4) == Some("/")).unwrap_or_default();
    if root.contains(" overlay ") {
        signs.push("the root file system is an overlay".to_owned());
    }
    if !text("/run/.containerenv").is_empty() {
        signs.push("/run/.containerenv".to_owned());
    }
    let init = text("/proc/1/cgroup");
    for word in ["docker", "kubepods", "containerd", "libpod", "lxc"] {
        if init.contains(word) {
            signs.push(format!("{word} in /proc/1/cgroup"));
        }
    }
    if text("/proc/version").contains("gVisor") {
        signs.push("gVisor".to_owned());
    }
    signs
}

fn engine_pid(text: &dyn Fn(&str) -> String) -> Option<u32> {
    ["/var/run/docker.pid", "/run/docker.pid"].into_iter().find_map(|path| text(path).trim().parse().ok())
}

/// A line such as `MemTotal:  24689424 kB`, in bytes.
pub(super) fn kib_line(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn inotify(text: &dyn Fn(&str) -> String) -> Option<Inotify> {
    Some(Inotify {
        instances: text("/proc/sys/fs/inotify/max_user_instances").trim().parse().ok()?,
        watches: text("/proc/sys/fs/inotify/max_user_watches").trim().parse().ok()?,
    })
}

/// The table of `/proc/net/route`: little-endian hexadecimal destination (field 2) and mask (field 8). A VPN that takes
/// everything adds both halves of the default route, which lead nowhere in particular either.
fn routes(table: &str) -> Vec<String> {
    let mut routes: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let destination = u32::from_str_radix(fields.get(1)?, 16).ok()?.swap_bytes();
            let mask = u32::from_str_radix(fields.get(7)?, 16).ok()?.swap_bytes();
            let bits = mask.count_ones();
            (bits > 1).then(|| format!("{}/{bits}", std::net::Ipv4Addr::from(destination)))
        })
        .collect();
    routes.sort();
    routes.dedup();
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wsl_by_the_kernels_own_words() {
        let table = [
            ("Linux version 6.12.0-amd64 (debian-kernel@lists.debian.org)", Wsl::None),
            ("Linux version 6.6.87.2-microsoft-standard-WSL2 (root@x)", Wsl::V2),
            ("Linux version 4.19.104-microsoft-standard (oe-user@oe-host)", Wsl::V2),
            ("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)", Wsl::V1),
            ("", Wsl::None),
        ];
        for (text, wsl) in table {
            assert_eq!(wsl_of(text), wsl, "{text}");
        }
    }

    #[test]
    fn group_docker_counts_when_the_process_carries_it() {
        let groups = "root:x:0:\ndocker:x:998:anna,ben\n";
        let table = [
            ("root:x:0:\n", "Groups:\t998\n", "anna", DockerGroup::Absent),
            (groups, "Gid:\t1000\t1000\t1000\t1000\nGroups:\t27 998 \n", "anna", DockerGroup::Member),
            (groups, "Gid:\t1000\t1000\t1000\t1000\nGroups:\t27 1998\n", "ben", DockerGroup::NextLogin),
            (groups, "Gid:\t998\t998\t998\t998\nGroups:\t\n", "carl", DockerGroup::Member),
            (groups, "Groups:\t27\n", "carl", DockerGroup::Outside),
        ];
        for (groups, status, user, expected) in table {
            assert_eq!(docker_group(groups, status, user), expected, "{user} {status}");
        }
    }

    #[test]
    fn capabilities_as_the_kernel_writes_them() {
        let set = CapSet::bounding("CapEff:\t0\nCapBnd:\t000001fffeffffff\n").unwrap();
        assert!(!set.has(CapSet::SYS_RESOURCE));
        assert!(set.has(CapSet::SYS_ADMIN));
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(text, "\"000001fffeffffff\"");
        assert_eq!(serde_json::from_str::<CapSet>(&text).unwrap(), set);
        assert!(serde_json::from_str::<CapSet>("\"all\"").is_err());
    }

    #[test]
    fn routes_without_the_default_one() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            tun0\t00000000\t0108080A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n\
            tun0\t00000080\t0108080A\t0003\t0\t0\t0\t00000080\t0\t0\t0\n\
            eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            tun0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        assert_eq!(routes(table), ["172.18.0.0/16", "192.168.0.0/24"]);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(kib_line("MemTotal:       24689424 kB\nMemFree: 1 kB\n", "MemTotal"), Some(24_689_424 * 1024));
        assert_eq!(kib_line("MemTotalX: 1 kB\n", "MemTotal"), None);
    }

    #[test]
    fn users_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nanna:x:1000:1000::/home/anna:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000), "anna");
        assert_eq!(user_name(passwd, 1001), "");
    }
}
