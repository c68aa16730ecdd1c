//! The machine as far as devstack could change it. What belongs to other environments on the same engine is left out,
//! so that two people can test at a time.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::tools::{docker, sha256};

/// A look at the machine: what there is, by a name that says what it is, and its content where that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine(BTreeMap<String, String>);

impl Machine {
    /// Looks at the engine, at processes that work for `env` or below `root`, at every file below `root`, and at the
    /// system's hosts file.
    pub fn look(root: &Path, env: &str) -> Self {
        let mut all = BTreeMap::new();
        engine(&mut all, env);
        processes(&mut all, root, env);
        files(&mut all, root, root);
        all.insert("system's hosts file".to_owned(), sha256(&std::fs::read("/etc/hosts").unwrap_or_default()));
        Self(all)
    }

    /// Without the logs of runs, which stay by design.
    #[must_use]
    pub fn without_logs(mut self) -> Self {
        self.0.retain(|name, _| !name.starts_with("file state/logs"));
        // The directory above them is there because of them.
        if !self.0.keys().any(|name| name.starts_with("file state/")) {
            self.0.remove("file state");
        }
        self
    }

    /// Ports that something listens on, on the loopback address or on every one.
    pub fn listening() -> Vec<u16> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        lines
            .filter_map(|line| {
                let mut words = line.split_whitespace().skip(1);
                let (local, _, state) = (words.next()?, words.next()?, words.next()?);
                let (address, port) = local.split_once(':')?;
                let near = address == "0100007F" || address.bytes().all(|digit| digit == b'0');
                let port = u16::from_str_radix(port, 16).ok()?;
                (state == "0A" && near).then_some(port)
            })
            .collect()
    }

    /// What is different now, one line each.
    pub fn difference(&self, now: &Self) -> Vec<String> {
        let names = self.0.keys().chain(now.0.keys().filter(|name| !self.0.contains_key(*name)));
        names
            .filter_map(|name| match (self.0.get(name), now.0.get(name)) {
                (Some(before), Some(after)) if before == after => None,
                (Some(_), Some(_)) => Some(format!("changed: {name}")),
                // A volume without a name went with its container, which is somebody else's: ours are made later.
                (Some(_), None) if is_anonymous(name) => None,
                (Some(_), None) => Some(format!("gone: {name}")),
                (None, _) => Some(format!("left: {name}")),
            })
            .collect()
    }
}

/// Whether this is a volume that an engine named.
fn is_anonymous(name: &str) -> bool {
    let name = name.strip_prefix("volume ").unwrap_or_default();
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether something of the engine belongs to another environment.
fn foreign(env: &str, name: &str, cluster: &str, owner: &str) -> bool {
    let own = format!("devstack-{env}");
    (!cluster.is_empty() && cluster != own)
        || (!owner.is_empty() && owner != env)
        || (name.starts_with("devstack-") && !name.starts_with(&own))
        // Clusters by hand, which scripts/bench measures against.
        || name.starts_with("bench-")
}

fn rows(args: &[&str]) -> Vec<[String; 5]> {
    let text = docker(args);
    let row = |line: &str| {
        let mut words = line.split('\t').map(str::to_owned);
        std::array::from_fn(|_| words.next().unwrap_or_default())
    };
    text.lines().map(row).collect()
}

fn engine(all: &mut BTreeMap<String, String>, env: &str) {
    let labels = "{{.Label \"io.x-k8s.kind.cluster\"}}\t{{.Label \"dev.devstack.environment\"}}";
    let format = format!("{{{{.ID}}}}\t{{{{.Names}}}}\t{labels}\t{{{{.Image}}}}");
    let containers = rows(&["ps", "-a", "--no-trunc", "--format", &format]);
    for [id, name, cluster, owner, image] in &containers {
        if !foreign(env, name, cluster, owner) {
            all.insert(format!("container {name} of {image}"), id.clone());
        }
    }
    let format = "{{.ID}}\t{{.Name}}\t\t{{.Label \"dev.devstack.environment\"}}";
    for [id, name, cluster, owner, _] in rows(&["network", "ls", "--no-trunc", "--format", format]) {
        if !foreign(env, &name, &cluster, &owner) {
            // An engine makes its own network anew whenever it starts.
            let id = if name == "bridge" { String::new() } else { id };
            all.insert(format!("network {name}"), id);
        }
    }
    let mut theirs = String::new();
    for [id, name, cluster, owner, _] in &containers {
        if foreign(env, name, cluster, owner) {
            // It may be gone by now.
            let mounts = std::process::Command::new("docker").args(["inspect", "-f", "{{json .Mounts}}", id]).output();
            theirs.push_str(
                &mounts.map(|mounts| String::from_utf8_lossy(&mounts.stdout).into_owned()).unwrap_or_default(),
            );
        }
    }
    for [name, ..] in rows(&["volume", "ls", "--format", "{{.Name}}"]) {
        if !theirs.contains(&name) {
            all.insert(format!("volume {name}"), String::new());
        }
    }
}

fn processes(all: &mut BTreeMap<String, String>, root: &Path, env: &str) {
    let (mark, root) = (format!("DEVSTACK_OWNER={env}"), root.to_str().unwrap().as_bytes().to_vec());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
        let ours = environ.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
            || environ.windows(root.len()).any(|window| window == root);
        if ours && pid != std::process::id() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            all.insert(format!("process {pid}: {}", line.trim()), String::new());
        }
    }
}

fn files(all: &mut BTreeMap<String, String>, root: &Path, dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let mode = metadata.permissions().mode();
        let name = format!("file {}", path.strip_prefix(root).unwrap().display());
        if metadata.is_dir() {
            all.insert(name, format!("{mode:o}"));
            files(all, root, &path);
        } else {
            // Image layers are named by their own digest, and are hundreds of megabytes.
            let is_layer = name.contains("/blobs/");
            let content =
                if metadata.is_file() && !is_layer { std::fs::read(&path).unwrap_or_default() } else { Vec::new() };
            let told = if is_layer { format!("{} bytes", metadata.len()) } else { sha256(&content) };
            all.insert(name, format!("{mode:o} {told}"));
        }
    }
}
