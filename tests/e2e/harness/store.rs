//! An engine of the test's own, whose images are in containerd's store: Docker 28, built from its module, in namespaces
//! of its own, so that the engine of the machine and its packet filter see nothing of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use super::tools::{lacks_sys_resource, sha256, tell, tool};

/// The version in `tests/e2e/dockerd/go.mod`.
const VERSION: &str = "28.5.2";

/// Says to this program that it runs beside the engine; holds the engine's directory.
const BESIDE: &str = "DEVSTACK_E2E_STORE";

/// How it is built; another way gives another directory.
const FLAGS: [&str; 6] = [
    "-mod=readonly",
    "-buildvcs=false",
    "-trimpath",
    // A module without a go.mod is compiled as Go 1.16, where all turns of a loop share their variables.
    "-gcflags=github.com/docker/docker/...=-lang=go1.24",
    "-tags=exclude_graphdriver_btrfs",
    "-ldflags=-s -w -X github.com/docker/docker/dockerversion.Version=28.5.2",
];

/// What such an engine needs, found or built.
pub struct StoreEngine {
    programs: PathBuf,
    containerd: PathBuf,
}

impl StoreEngine {
    /// Whether this program runs beside the engine.
    pub fn is_beside() -> bool {
        std::env::var_os(BESIDE).is_some()
    }

    /// Finds or builds the programs; the reason where this machine cannot.
    pub fn find() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may start an engine".to_owned());
        }
        for program in ["go", "unshare", "ip", "iptables", "runc", "docker"] {
            let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
            which::which_in(program, Some(path), "/").map_err(|_| format!("there is no {program}"))?;
        }
        Ok(Self { programs: programs()?, containerd: containerd()? })
    }

    /// Runs one test of this program beside the engine; panics where it fails.
    pub fn run(&self, test: &str) {
        let directory = tempfile::Builder::new().prefix("devstack-store-").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let containerd = format!(
            "version = 3\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n",
            at("containerd"),
            at("containerd-state"),
            at("containerd.sock"),
        );
        let mut daemon = json!({
            "features": {"containerd-snapshotter": true},
            "containerd": at("containerd.sock"),
            "data-root": at("data"),
            "exec-root": at("exec"),
            "pidfile": at("dockerd.pid"),
            "hosts": [format!("unix://{}", at("docker.sock"))],
            "userland-proxy-path": self.programs.join("docker-proxy"),
        });
        if lacks_sys_resource() {
            let wrapper = at("runtime");
            std::fs::copy(repository().join("scripts/engine-runtime"), &wrapper).unwrap();
            std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
            daemon["runtimes"] = json!({"devstack": {"path": wrapper}});
            daemon["default-runtime"] = json!("devstack");
        }
        std::fs::write(at("containerd.toml"), containerd).unwrap();
        std::fs::write(at("daemon.json"), daemon.to_string()).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}:/usr/sbin:/sbin", self.programs.display(), self.containerd.display());
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.arg(repository().join("tests/e2e/dockerd/run")).arg(directory.path());
        command.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture", "--test-threads=1"]);
        command.env("PATH", path).env("DOCKER_HOST", format!("unix://{}", at("docker.sock")));
        // Its own count of tests is not one of this run's.
        let status = command.env(BESIDE, directory.path()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "the test beside the engine ended with {status}");
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of dockerd and docker-proxy, in the cache under the name of what they are made of.
fn programs() -> Result<PathBuf, String> {
    let module = repository().join("tests/e2e/dockerd");
    let read = |name: &str| std::fs::read(module.join(name)).unwrap();
    let digest = sha256(&[read("go.mod"), read("go.sum"), FLAGS.concat().into_bytes()].concat());
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.ok_or("there is no home directory")?.join("devstack-dev");
    let directory = cache.join(format!("dockerd-{VERSION}-{}", &digest[..12]));
    for program in ["docker-proxy", "dockerd"] {
        let target = directory.join(program);
        if target.exists() {
            continue;
        }
        tell(&format!("builds {program} {VERSION} from its module, some minutes at the first time"));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let half = directory.join(format!("{program}.{}", std::process::id()));
        let mut build = Command::new("go");
        build.current_dir(&module).arg("build").args(FLAGS);
        build.arg("-o").arg(&half).arg(format!("github.com/docker/docker/cmd/{program}"));
        let done = build.env("CGO_ENABLED", "0").env_remove("GOFLAGS").output().map_err(|error| error.to_string())?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(format!("{program} cannot be built: {}", said.lines().last().unwrap_or_default()));
        }
        std::fs::rename(&half, &target).map_err(|error| error.to_string())?;
    }
    Ok(directory)
}

/// The directory of the containerd that goes into devstack's own nodes.
fn containerd() -> Result<PathBuf, String> {
    let program = tool("containerd").map_err(|error| format!("containerd cannot be built: {error}"))?;
    Ok(program.parent().unwrap().to_owned())
}
