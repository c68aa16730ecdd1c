//! The few facts that only system calls give; read once, at the edge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cpuid::{self, CpuId};
use super::host::Disk;

/// What system calls say about this machine; a value, so that tests can make one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// `amd64`, `arm64`, … of this binary.
    pub architecture: String,
    /// The kernel's release, such as `6.6.87.2-microsoft-standard-WSL2`.
    pub kernel: String,
    /// The host's name.
    pub hostname: String,
    /// The effective user id.
    pub uid: u32,
    /// Logical CPUs that this process may use.
    pub cpus: u32,
    /// What CPUID says of the flags that CPU levels are made of; empty on other architectures than x86-64.
    pub cpuid: CpuId,
    /// Free and total space, keyed by what the directory is for (`cache`, `state`).
    pub disks: BTreeMap<String, Disk>,
}

impl Machine {
    /// Asks the machine; `dirs` are the directories whose disks matter, with what they are for. A directory that does
    /// not exist yet is looked up at its nearest parent.
    pub fn ask(dirs: &[(&str, &Path)]) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut machine = Self {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            cpuid: cpuid::ask(),
            ..Self::default()
        };
        #[cfg(unix)]
        {
            let name = rustix::system::uname();
            machine.kernel = name.release().to_string_lossy().into_owned();
            machine.hostname = name.nodename().to_string_lossy().into_owned();
            machine.uid = rustix::process::geteuid().as_raw();
        }
        for (role, path) in dirs {
            if let Some(disk) = disk_of(path) {
                machine.disks.insert((*role).to_owned(), disk);
            }
        }
        machine
    }
}

/// The space on the disk that holds `path`, or will hold it once it exists.
fn disk_of(path: &Path) -> Option<Disk> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    space(existing).map(|(free, total)| Disk { path: PathBuf::from(path), free, total })
}

#[cfg(unix)]
fn space(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    // `f_bavail`: what an ordinary user may still write.
    Some((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

#[cfg(not(unix))]
fn space(_: &Path) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_to_come_has_its_parents_disk() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::ask(&[("cache", &dir.path().join("a/b/c"))]);
        let disk = &machine.disks["cache"];
        assert!(disk.total >= disk.free && disk.free > 0);
        assert!(disk.path.ends_with("a/b/c"));
        assert!(!machine.kernel.is_empty());
    }
}
