//! The engine: which product it is, whether it shares the host's kernel, what its CPU and privileges allow.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::cpu::{CpuFacts, CpuLevel, level_of_cpuinfo};
use super::host::{CapSet, HostFacts, Wsl};
use crate::ports::Engine;
use crate::ports::engine::{ContainerSpec, EngineError, EngineInfo, OWNER_LABEL};

/// The product that an engine belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Docker Engine on Linux, a WSL distribution of its own included.
    #[default]
    DockerEngine,
    /// Docker Desktop on any system; its engine runs in a virtual machine.
    DockerDesktop,
    /// Rancher Desktop.
    RancherDesktop,
    /// OrbStack; the only one whose container addresses answer on macOS.
    OrbStack,
    /// Colima.
    Colima,
    /// Another Lima virtual machine.
    Lima,
    /// Podman's Docker-compatible API.
    Podman,
}

impl EngineKind {
    /// The product's name as its makers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DockerEngine => "Docker Engine",
            Self::DockerDesktop => "Docker Desktop",
            Self::RancherDesktop => "Rancher Desktop",
            Self::OrbStack => "OrbStack",
            Self::Colima => "Colima",
            Self::Lima => "Lima",
            Self::Podman => "Podman",
        }
    }

    /// The product by what the engine says of itself; the order matters (Rancher Desktop's machine is a Lima one).
    /// The rules are those that ddev ships (`pkg/dockerutil/providers.go`).
    pub fn of(info: &EngineInfo) -> Self {
        let system = info.operating_system.as_str();
        let name = info.name.as_str();
        if system.starts_with("Docker Desktop") || name.contains("docker-desktop") {
            Self::DockerDesktop
        } else if system.starts_with("Rancher Desktop") || name.contains("rancher-desktop") {
            Self::RancherDesktop
        } else if system.starts_with("OrbStack") || name.contains("orbstack") {
            Self::OrbStack
        } else if name.starts_with("colima") {
            Self::Colima
        } else if name.starts_with("lima") {
            Self::Lima
        } else if info.components.iter().any(|component| component.starts_with("Podman Engine")) {
            Self::Podman
        } else {
            Self::DockerEngine
        }
    }

    /// The command that starts it again, as a person types it.
    pub fn start_command(self, os: &str) -> &'static str {
        match (self, os) {
            (Self::Colima, _) => "colima start",
            (Self::Lima, _) => "limactl start",
            (Self::OrbStack, _) => "orb start",
            (Self::RancherDesktop, _) => "rdctl start",
            (Self::Podman, "linux") => "systemctl --user start podman.socket",
            (Self::Podman, _) => "podman machine start",
            (Self::DockerDesktop, "macos") => "open -a Docker",
            (Self::DockerDesktop, "linux") => "systemctl --user start docker-desktop",
            (Self::DockerEngine, "linux") => "sudo systemctl start docker",
            (Self::DockerDesktop | Self::DockerEngine, _) => "docker desktop start",
        }
    }
}

/// What was read about the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineFacts {
    /// The engine's own words.
    pub info: EngineInfo,
    /// The product.
    pub kind: EngineKind,
    /// Whether it runs without root.
    pub rootless: bool,
    /// Its containers' platform, such as `linux/amd64`.
    pub platform: String,
    /// Whether its containers run on this host's own kernel. `false` where that cannot be shown.
    pub shares_host_kernel: bool,
    /// Its CPUs; `None` until measured in a container (see [`measure_cpu`]).
    pub cpu: Option<CpuFacts>,
    /// Capabilities that `--privileged` asks for and the engine cannot give, such as `CAP_SYS_RESOURCE`. Empty where
    /// nothing is known to be missing.
    pub missing_capabilities: Vec<String>,
    /// Whether a container's address was dialled from the host, and with what result; `None` until tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_address_answers: Option<bool>,
}

impl EngineFacts {
    /// What `info` means on this host.
    pub fn of(info: EngineInfo, host: &HostFacts) -> Self {
        let kind = EngineKind::of(&info);
        let rootless = info.security_options.iter().any(|option| option.contains("name=rootless"));
        let shares_host_kernel = shares_kernel(&info, kind, host);
        let architecture = match info.architecture.as_str() {
            "x86_64" => "amd64",
            "aarch64" | "arm64v8" => "arm64",
            other => other,
        };
        let platform =
            if architecture.is_empty() { String::new() } else { format!("{}/{architecture}", os_type(&info)) };
        // A kernel of another architecture than the host's files describe would be a translated devstack.
        let cpu = (shares_host_kernel && host.cpu.architecture == architecture).then(|| host.cpu.clone());
        let mut missing_capabilities = Vec::new();
        if shares_host_kernel && let Some(set) = host.engine_capabilities.or(host.capabilities) {
            let needed = [
                (CapSet::SYS_RESOURCE, "CAP_SYS_RESOURCE"),
                (CapSet::SYS_ADMIN, "CAP_SYS_ADMIN"),
                (CapSet::NET_ADMIN, "CAP_NET_ADMIN"),
            ];
            let missing = needed.iter().filter(|(bit, _)| !set.has(*bit));
            missing_capabilities.extend(missing.map(|(_, name)| (*name).to_owned()));
        }
        Self {
            info,
            kind,
            rootless,
            platform,
            shares_host_kernel,
            cpu,
            missing_capabilities,
            container_address_answers: None,
        }
    }

    /// The engine's x86-64 level; `None` where it is unknown or the architecture has none.
    pub fn level(&self) -> Option<CpuLevel> {
        self.cpu.as_ref().and_then(|cpu| cpu.level)
    }

    /// Whether the level decides and is not known yet, so that it has to be measured in a container.
    pub fn needs_measuring(&self) -> bool {
        self.cpu.is_none() && self.platform == "linux/amd64"
    }

    /// The cgroup version; 0 where the engine does not tell.
    pub fn cgroup(&self) -> u8 {
        self.info.cgroup_version.parse().unwrap_or(0)
    }

    /// Whether nodes need kubelet's `KubeletInUserNamespace` gate and containerd's `restrict_oom_score_adj`: without
    /// CAP_SYS_RESOURCE neither may lower an OOM score or raise a limit, and rootless engines never may.
    pub fn needs_userns_adaptation(&self) -> bool {
        self.rootless || self.missing_capabilities.iter().any(|name| name == "CAP_SYS_RESOURCE")
    }

    /// The newest Kubernetes minor (of 1.x) whose kubelet starts here: 1.35 and later refuse cgroup v1. `None`: any.
    pub fn newest_kubernetes_minor(&self) -> Option<u32> {
        (self.cgroup() == 1).then_some(34)
    }
}

fn os_type(info: &EngineInfo) -> &str {
    if info.os_type.is_empty() { "linux" } else { &info.os_type }
}

fn shares_kernel(info: &EngineInfo, kind: EngineKind, host: &HostFacts) -> bool {
    if host.os != "linux" || info.kernel.is_empty() || info.kernel != host.kernel {
        return false;
    }
    match kind {
        // All distributions of one WSL, Docker Desktop's included, run on one kernel.
        EngineKind::DockerDesktop | EngineKind::RancherDesktop => host.wsl == Wsl::V2,
        EngineKind::DockerEngine | EngineKind::Podman => info.name == host.hostname,
        EngineKind::OrbStack | EngineKind::Colima | EngineKind::Lima => false,
    }
}

/// Whether the host can dial a container's address, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reachability {
    /// The answer.
    pub reachable: bool,
    /// The reason in one line.
    pub why: String,
}

/// Whether addresses of the engine's networks (nodes, MetalLB pools) answer on the host. A measurement decides where
/// there is one; else the product's known behaviour does.
pub fn reachable(host: &HostFacts, engine: &EngineFacts) -> Reachability {
    let name = engine.kind.name();
    let (reachable, why) = match (engine.container_address_answers, engine.kind) {
        (Some(true), _) => (true, "a container's address answered".to_owned()),
        (Some(false), _) => (false, "a container's address did not answer from here".to_owned()),
        (None, _) if engine.rootless => (false, format!("{name} runs rootless, in a network of its own")),
        (None, EngineKind::OrbStack) => (true, "OrbStack routes container addresses to the host".to_owned()),
        (None, EngineKind::DockerEngine | EngineKind::Podman) if engine.shares_host_kernel => {
            (true, format!("{name} runs on this host's kernel"))
        }
        (None, EngineKind::DockerEngine | EngineKind::Podman) if host.os == "linux" => {
            (false, format!("{name} is on another machine, or hidden behind one"))
        }
        (None, _) => (false, format!("{name} keeps its networks inside a virtual machine")),
    };
    Reachability { reachable, why }
}

/// Reads the engine's CPUs, and its networks' way to the host, in a container that lives for a moment. `image` needs a
/// `sleep` and a `cat`. The engine removes the container by itself after a minute where this process cannot; `environment`
/// labels it, so that `down` removes it earlier.
///
/// # Errors
/// What the engine answers; the container is removed in every case.
pub async fn measure_cpu(
    engine: &dyn Engine,
    image: &str,
    environment: &str,
) -> Result<(CpuFacts, Vec<IpAddr>), EngineError> {
    let spec = ContainerSpec {
        // Two commands may measure at a time.
        name: format!("devstack-{environment}-facts-{}", std::process::id()),
        auto_remove: true,
        image: image.to_owned(),
        entrypoint: vec!["sleep".to_owned()],
        command: vec!["60".to_owned()],
        labels: BTreeMap::from([(OWNER_LABEL.to_owned(), environment.to_owned())]),
        ..ContainerSpec::default()
    };
    let id = engine.create_container(&spec).await?;
    let measured = read_container(engine, &id).await;
    let removed = engine.remove_container(&id).await;
    let measured = measured?;
    removed?;
    Ok(measured)
}

async fn read_container(engine: &dyn Engine, id: &str) -> Result<(CpuFacts, Vec<IpAddr>), EngineError> {
    engine.start_container(id).await?;
    let output = engine.exec(id, &["cat", "/proc/cpuinfo"], None).await?;
    let containers = engine.containers(Some(OWNER_LABEL)).await?;
    let addresses =
        containers.into_iter().find(|container| container.id == id).map(|c| c.addresses.into_values().collect());
    Ok((level_of_cpuinfo(&output.text()), addresses.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(system: &str, name: &str) -> EngineInfo {
        EngineInfo {
            operating_system: system.to_owned(),
            name: name.to_owned(),
            os_type: "linux".to_owned(),
            architecture: "x86_64".to_owned(),
            kernel: "6.12.0".to_owned(),
            ..EngineInfo::default()
        }
    }

    #[test]
    fn products_by_their_own_words() {
        let table = [
            (info("Docker Desktop", "docker-desktop"), EngineKind::DockerDesktop),
            (info("Alpine Linux v3.22", "linuxkit-docker-desktop"), EngineKind::DockerDesktop),
            (info("Rancher Desktop WSL Distribution", "winbox"), EngineKind::RancherDesktop),
            (info("Alpine Linux v3.21", "lima-rancher-desktop"), EngineKind::RancherDesktop),
            (info("OrbStack", "orbstack"), EngineKind::OrbStack),
            (info("Ubuntu 24.04.1 LTS", "colima"), EngineKind::Colima),
            (info("Ubuntu 24.04.1 LTS", "colima-work"), EngineKind::Colima),
            (info("Ubuntu 24.04.1 LTS", "lima-default"), EngineKind::Lima),
            (info("Debian GNU/Linux 12 (bookworm)", "vm"), EngineKind::DockerEngine),
            (EngineInfo { components: vec!["Podman Engine".to_owned()], ..info("fedora", "box") }, EngineKind::Podman),
        ];
        for (info, kind) in table {
            assert_eq!(EngineKind::of(&info), kind, "{} / {}", info.operating_system, info.name);
        }
    }

    #[test]
    fn the_kernel_is_shared_only_where_that_is_certain() {
        let host = HostFacts {
            os: "linux".to_owned(),
            kernel: "6.12.0".to_owned(),
            hostname: "vm".to_owned(),
            ..HostFacts::default()
        };
        let shares = |info: EngineInfo, host: &HostFacts| EngineFacts::of(info, host).shares_host_kernel;
        assert!(shares(info("Debian GNU/Linux 12 (bookworm)", "vm"), &host));
        assert!(!shares(info("Debian GNU/Linux 12 (bookworm)", "other"), &host), "a remote engine on the same kernel");
        let other = EngineInfo { kernel: "6.1.0".to_owned(), ..info("Debian GNU/Linux 12 (bookworm)", "vm") };
        assert!(!shares(other, &host));
        assert!(!shares(info("Docker Desktop", "docker-desktop"), &host));
        assert!(shares(info("Docker Desktop", "docker-desktop"), &HostFacts { wsl: Wsl::V2, ..host.clone() }));
        assert!(!shares(info("Debian", "vm"), &HostFacts { os: "macos".to_owned(), ..host }));
    }

    #[test]
    fn a_missing_capability_asks_for_the_adaptation() {
        let host = |bits| HostFacts {
            os: "linux".to_owned(),
            kernel: "6.12.0".to_owned(),
            hostname: "vm".to_owned(),
            capabilities: Some(CapSet::new(bits)),
            ..HostFacts::default()
        };
        let facts = EngineFacts::of(info("Debian", "vm"), &host(0x1ff_feff_ffff));
        assert_eq!(facts.missing_capabilities, ["CAP_SYS_RESOURCE"]);
        assert!(facts.needs_userns_adaptation());
        assert!(!EngineFacts::of(info("Debian", "vm"), &host(0x1ff_ffff_ffff)).needs_userns_adaptation());
        // The engine's own process knows better than this one.
        let known = HostFacts { engine_capabilities: Some(CapSet::new(u64::MAX)), ..host(0) };
        assert!(EngineFacts::of(info("Debian", "vm"), &known).missing_capabilities.is_empty());
        // Nothing is known of another machine's.
        assert!(EngineFacts::of(info("Docker Desktop", "x"), &host(0)).missing_capabilities.is_empty());
    }

    #[test]
    fn a_measurement_beats_the_rule() {
        let host = HostFacts { os: "macos".to_owned(), ..HostFacts::default() };
        let mut facts = EngineFacts::of(info("OrbStack", "orbstack"), &host);
        assert!(reachable(&host, &facts).reachable);
        facts.container_address_answers = Some(false);
        assert!(!reachable(&host, &facts).reachable);
    }

    #[test]
    fn kubernetes_under_cgroup_v1_ends_at_1_34() {
        let of = |version: &str| {
            let info = EngineInfo { cgroup_version: version.to_owned(), ..info("Debian", "vm") };
            EngineFacts::of(info, &HostFacts::default()).newest_kubernetes_minor()
        };
        assert_eq!((of("1"), of("2"), of("")), (Some(34), None, None));
    }
}
