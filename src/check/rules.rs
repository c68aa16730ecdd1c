//! One pure rule per check.

use std::net::Ipv4Addr;

use super::inputs::{Asked, Inputs};
use super::model::Finding;
use super::preflight::Outcome;
use super::signature::Signatures;
use crate::facts::{EngineFacts, EngineKind, Inotify, Wsl, size};

/// The oldest API that everything devstack asks for exists in (Docker 20.10).
const OLDEST_API: (u32, u32) = (1, 41);
/// What kind's documentation asks for several nodes and many pods.
const INOTIFY_INSTANCES: u64 = 512;
/// As above.
const INOTIFY_WATCHES: u64 = 65_536;

pub(super) fn found(finding: Finding) -> Outcome {
    Outcome::Found(vec![finding])
}

pub(super) fn pass(detail: impl Into<String>) -> Outcome {
    Outcome::Pass(detail.into())
}

/// The engine's facts, or the outcome of a check that has none.
pub(super) fn engine(inputs: &Inputs) -> Result<&EngineFacts, Outcome> {
    match &inputs.engine {
        Some(Ok(engine)) => Ok(engine),
        Some(Err(_)) => Err(Outcome::Skip("no engine answers".to_owned())),
        None => Err(Outcome::Skip("no engine is needed".to_owned())),
    }
}

/// The answer of a probe, or the outcome of a check that has none.
pub(super) fn asked<T>(answer: &Asked<T>) -> Result<&T, Outcome> {
    match answer {
        Asked::Known(value) => Ok(value),
        Asked::No => Err(Outcome::Skip("not asked".to_owned())),
        Asked::Failed(reason) => Err(Outcome::Crash(reason.clone())),
    }
}

/// Turns `Err(outcome)` of the helpers above into the outcome.
pub(super) fn either(result: Result<Outcome, Outcome>) -> Outcome {
    result.unwrap_or_else(|outcome| outcome)
}

pub(super) fn wsl1(inputs: &Inputs) -> Outcome {
    if inputs.host.wsl != Wsl::V1 {
        return pass(format!("{} {}", inputs.host.os, inputs.host.architecture));
    }
    found(
        Finding::error("host.wsl1", "this is WSL 1, which has no Linux kernel and runs no containers")
            .remedy("wsl.exe --set-version DISTRIBUTION 2")
            .evidence(inputs.host.kernel.clone()),
    )
}

pub(super) fn engine_answers(inputs: &Inputs) -> Outcome {
    match &inputs.engine {
        None => Outcome::Skip("no engine is needed".to_owned()),
        Some(Ok(engine)) => pass(format!("{} {}", engine.kind.name(), engine.info.version)),
        Some(Err(trouble)) if trouble.permission => pass("it answers"),
        Some(Err(trouble)) => {
            let finding = Finding::error("engine.not-running", "no container engine answers");
            let finding = match (inputs.host.os.as_str(), inputs.host.wsl) {
                ("macos", _) => finding
                    .remedy(EngineKind::DockerDesktop.start_command("macos"))
                    .remedy(EngineKind::Colima.start_command("macos"))
                    .remedy("none installed? https://docs.docker.com/desktop/setup/install/mac-install/"),
                ("linux", Wsl::V2) => finding
                    .remedy("start Docker Desktop, with this distribution switched on under Resources, WSL integration")
                    .remedy("an engine inside the distribution: sudo service docker start"),
                ("linux", _) => finding
                    .remedy(EngineKind::DockerEngine.start_command("linux"))
                    .remedy("none installed? sudo apt-get install docker.io (Debian, Ubuntu)"),
                _ => finding.remedy("start Docker Desktop"),
            };
            found(finding.remedy("another engine than the default: docker context ls").evidence(trouble.error.clone()))
        }
    }
}

pub(super) fn engine_permission(inputs: &Inputs) -> Outcome {
    use crate::facts::DockerGroup;
    let Some(Err(trouble)) = &inputs.engine else {
        return match &inputs.engine {
            Some(Ok(engine)) => pass(engine.info.endpoint.clone()),
            _ => Outcome::Skip("no engine is needed".to_owned()),
        };
    };
    let user = if inputs.host.user.is_empty() { "\"$USER\"" } else { &inputs.host.user };
    let finding = Finding::error("engine.socket-permission", "this account may not use the engine");
    let finding = match inputs.host.docker_group {
        DockerGroup::NextLogin => Finding {
            cause: "this account is in group docker, but this session began before that".to_owned(),
            ..finding.remedy("log in again, or for this shell only: newgrp docker")
        },
        _ => finding
            .remedy(format!("sudo usermod -aG docker {user}"))
            .remedy("then log in again, or for this shell only: newgrp docker")
            .remedy("an engine without root: dockerd-rootless-setuptool.sh install"),
    };
    found(finding.evidence(trouble.error.clone()))
}

pub(super) fn engine_os(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        match engine.info.os_type.as_str() {
            "windows" => found(
                Finding::error("engine.windows-containers", "the engine runs Windows containers")
                    .remedy("in Docker Desktop's menu: Switch to Linux containers")
                    .evidence(format!("OSType {}", engine.info.os_type)),
            ),
            _ => pass(engine.platform.clone()),
        }
    }))
}

pub(super) fn engine_api(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        let version = engine.info.api_version.as_str();
        let parsed = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match parsed {
            Some(parsed) if parsed < OLDEST_API => {
                let (major, minor) = OLDEST_API;
                let cause = format!("the engine speaks API {version}; {major}.{minor} is the oldest that works");
                found(
                    Finding::error("engine.api-old", cause)
                        .remedy("upgrade the engine to Docker 20.10 or later")
                        .evidence(format!("{} {}", engine.kind.name(), engine.info.version)),
                )
            }
            Some(_) => pass(format!("API {version}")),
            None => Outcome::Skip("the engine does not tell its API version".to_owned()),
        }
    }))
}

pub(super) fn capabilities(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        let missing = &engine.missing_capabilities;
        match missing.as_slice() {
            [] => pass(if engine.rootless { "rootless" } else { "all" }),
            [only] if only == "CAP_SYS_RESOURCE" => found(
                Finding::warning(
                    "engine.capabilities",
                    "the engine lacks CAP_SYS_RESOURCE; nodes are adapted (KubeletInUserNamespace, restrict_oom_score_adj)",
                )
                .remedy("nothing, where containers with --privileged start (this project's scripts/engine sees to it)")
                .evidence(missing.join(", ")),
            ),
            _ => found(
                Finding::error("engine.capabilities", format!("the engine lacks {}", missing.join(", ")))
                    .remedy("run the engine on a machine or container with all capabilities (docker run --privileged)")
                    .evidence(missing.join(", ")),
            ),
        }
    }))
}

pub(super) fn cgroup(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        let newest = engine.newest_kubernetes_minor();
        match (newest, inputs.needs.kubernetes_minor) {
            (Some(newest), Some(wanted)) if wanted > newest => found(
                Finding::error(
                    "host.cgroup-v1",
                    format!("Kubernetes 1.{wanted} refuses cgroup v1, which this engine uses; 1.{newest} is the newest that starts"),
                )
                .remedy("leave the version to devstack: kubernetes: auto")
                .remedy("boot with systemd.unified_cgroup_hierarchy=1; in WSL: kernelCommandLine = cgroup_no_v1=all in .wslconfig")
                .evidence("cgroup v1"),
            ),
            (Some(newest), _) => pass(format!("cgroup v1, so Kubernetes up to 1.{newest}")),
            (None, _) if engine.cgroup() == 0 => pass("unknown"),
            (None, _) => pass(format!("cgroup v{}", engine.cgroup())),
        }
    }))
}

pub(super) fn cpu_level(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        let Some(cpu) = &engine.cpu else {
            return if engine.needs_measuring() {
                pass("unknown before a container runs; images for x86-64-v1 are chosen")
            } else {
                pass(format!("{} has no levels", engine.platform))
            };
        };
        let Some(own) = cpu.level else { return pass(format!("{} has no levels", engine.platform)) };
        let findings: Vec<Finding> = inputs
            .needs
            .images
            .iter()
            .filter_map(|image| Some((image, image.level.filter(|level| *level > own)?)))
            .map(|(image, level)| {
                let finding = Finding::error(
                    "cpu.x86-64-level",
                    format!("{} needs {level}, the engine's CPU has {own}", image.reference),
                )
                .remedy(format!("devstack image resolve {}", image.role))
                .evidence(format!("missing: {}", cpu.missing_for(level).join(" ")));
                if cpu.hypervisor {
                    finding.remedy("the virtual machine hides the CPU's flags: give it CPU type `host`")
                } else {
                    finding
                }
            })
            .collect();
        if findings.is_empty() { pass(own.as_str()) } else { Outcome::Found(findings) }
    }))
}

pub(super) fn images(inputs: &Inputs) -> Outcome {
    let images = &inputs.needs.images;
    if images.is_empty() {
        return Outcome::Skip("nothing was chosen yet".to_owned());
    }
    let findings: Vec<Finding> = images
        .iter()
        .filter_map(|image| Some((image, image.missing.as_deref()?)))
        .map(|(image, reason)| {
            let known =
                Signatures::builtin().ok().and_then(|signatures| signatures.diagnose(reason).into_iter().next());
            let name = if image.reference.is_empty() { &image.role } else { &image.reference };
            match known {
                Some(found) => Finding { cause: format!("{name}: {}", found.cause), ..found.finding() },
                None => Finding::error("image.obtainable", format!("{name} cannot be had: {reason}"))
                    .remedy(format!("devstack image resolve {}", image.role))
                    .remedy("carry the images in: devstack bundle load FILE")
                    .evidence(reason),
            }
        })
        .collect();
    if findings.is_empty() { pass(format!("{0}/{0}", images.len())) } else { Outcome::Found(findings) }
}

pub(super) fn disk(inputs: &Inputs) -> Outcome {
    let needs = &inputs.needs;
    let wanted = [("cache", needs.cache_disk), ("state", 16 << 20), ("engine", needs.engine_disk)];
    let mut details = Vec::new();
    let mut findings = Vec::new();
    for (role, needed) in wanted {
        let Some(disk) = inputs.host.disks.get(role) else { continue };
        details.push(format!("{role} {}", size(disk.free)));
        if disk.free < needed {
            let (free, path) = (size(disk.free), disk.path.display());
            let cause = format!("the {role} disk has {free} free, this needs {}", size(needed));
            let finding = Finding::error("host.disk-full", cause).evidence(format!("{path}"));
            findings.push(match role {
                // What prunes more than these takes stopped nodes, and the data of their pods.
                "engine" => {
                    finding.remedy("docker system df").remedy("docker image prune").remedy("docker builder prune")
                }
                // Images are elsewhere, and pruning them may give nothing back here.
                "state" => finding
                    .remedy(format!("make room: df -h {path}"))
                    .remedy("move the state to another disk: DEVSTACK_HOME=DIR"),
                _ => finding.remedy("devstack image prune").remedy("use another disk: DEVSTACK_CACHE=DIR"),
            });
        }
    }
    match (findings.is_empty(), details.is_empty()) {
        (false, _) => Outcome::Found(findings),
        (true, false) => pass(format!("free: {}", details.join(", "))),
        (true, true) => Outcome::Skip("no disk could be read".to_owned()),
    }
}

pub(super) fn memory(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        let (has, needed) = (engine.info.memory, inputs.needs.memory);
        if has == 0 || has >= needed {
            // What other programs hold now can be given back; only a warning is honest.
            let available = inputs.host.memory_available;
            if engine.shares_host_kernel && available > 0 && available < needed {
                let cause = format!("{} of memory is available now, this needs {}", size(available), size(needed));
                return found(Finding::warning("host.memory", cause).remedy("close what is not needed"));
            }
            return pass(size(has));
        }
        let cause = format!("the engine has {} of memory, this needs {}", size(has), size(needed));
        found(
            Finding::error("host.memory", cause)
                .remedy(more(engine.kind, "memory"))
                .remedy("use fewer components or replicas"),
        )
    }))
}

pub(super) fn cpus(inputs: &Inputs) -> Outcome {
    either(engine(inputs).map(|engine| {
        let (has, needed) = (engine.info.cpus, inputs.needs.cpus);
        if has == 0 || has >= needed {
            return pass(format!("{has}"));
        }
        let cause = format!("the engine has {has} CPU, Kubernetes wants {needed}; it will be slow");
        found(Finding::warning("host.cpus", cause).remedy(more(engine.kind, "CPUs")))
    }))
}

/// Where a product's virtual machine gets more of something.
fn more(kind: EngineKind, what: &str) -> String {
    match kind {
        EngineKind::DockerDesktop => format!("Docker Desktop, Settings, Resources: more {what}"),
        EngineKind::RancherDesktop => format!("Rancher Desktop, Preferences, Virtual Machine: more {what}"),
        EngineKind::OrbStack => format!("OrbStack, Settings, System: more {what}"),
        EngineKind::Colima if what == "CPUs" => "colima stop && colima start --cpu 4".to_owned(),
        EngineKind::Colima => "colima stop && colima start --memory 8".to_owned(),
        EngineKind::Lima => format!("limactl edit: more {what}"),
        EngineKind::Podman | EngineKind::DockerEngine => format!("a machine with more {what}"),
    }
}

/// Whether inotify limits are so low that several nodes or many pods use them up.
pub fn inotify_is_low(limits: Inotify) -> bool {
    limits.instances < INOTIFY_INSTANCES || limits.watches < INOTIFY_WATCHES
}

pub(super) fn inotify(inputs: &Inputs) -> Outcome {
    let Some(limits) = inputs.host.inotify else { return Outcome::Skip("not on this system".to_owned()) };
    let evidence = format!("max_user_instances {}, max_user_watches {}", limits.instances, limits.watches);
    if !inotify_is_low(limits) {
        return pass(evidence);
    }
    found(
        Finding::warning("host.inotify", "inotify limits are low; several nodes or many pods will use them up")
            .remedy("sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512")
            .evidence(evidence)
            .fixable(),
    )
}

pub(super) fn mirrored(inputs: &Inputs) -> Outcome {
    match (inputs.host.wsl, inputs.host.wsl_networking.as_deref()) {
        (Wsl::V2, Some("mirrored")) => found(
            Finding::warning(
                "host.wsl-mirrored",
                "WSL's mirrored networking is known to lose published ports between Windows and Linux",
            )
            .remedy(
                "where a URL does not answer: networkingMode=nat in %UserProfile%\\.wslconfig, then wsl.exe --shutdown",
            )
            .evidence("networkingMode mirrored"),
        ),
        (Wsl::V2, Some(mode)) => pass(mode),
        _ => Outcome::Skip("not WSL".to_owned()),
    }
}

pub(super) fn ports(inputs: &Inputs) -> Outcome {
    let needed = &inputs.needs.ports;
    if needed.is_empty() {
        return Outcome::Skip("no port is asked for".to_owned());
    }
    let findings: Vec<Finding> = needed
        .iter()
        .filter_map(|port| Some((port, inputs.busy_ports.get(port)?)))
        .map(|(port, holder)| {
            Finding::error("port.in-use", format!("port {port} of 127.0.0.1 is taken"))
                .remedy(format!("see who: ss -ltnp 'sport = :{port}' (Linux), lsof -iTCP:{port} -sTCP:LISTEN (macOS)"))
                .remedy("stop it, then devstack up")
                .evidence(holder.clone())
        })
        .collect();
    if findings.is_empty() {
        let list: Vec<String> = needed.iter().map(ToString::to_string).collect();
        return pass(list.join(", "));
    }
    Outcome::Found(findings)
}

pub(super) fn subnets(inputs: &Inputs) -> Outcome {
    either(asked(&inputs.networks).map(|networks| {
        let own: Vec<(&str, Option<&str>)> = match inputs.needs.subnets.as_slice() {
            // Without a plan every network that devstack made is looked at.
            [] => networks
                .iter()
                .filter(|network| network.name.starts_with("devstack-"))
                .flat_map(|network| network.subnets.iter().map(|subnet| (subnet.as_str(), Some(network.name.as_str()))))
                .collect(),
            planned => planned.iter().map(|subnet| (subnet.as_str(), None)).collect(),
        };
        if own.is_empty() {
            return Outcome::Skip("there is no network yet".to_owned());
        }
        let mut findings = Vec::new();
        for (subnet, name) in &own {
            // The engine's own bridges are routes of the host as well; those are the same network.
            let bridges: Vec<&str> =
                networks.iter().flat_map(|network| &network.subnets).map(String::as_str).collect();
            let routes = inputs.host.routes.iter().map(String::as_str).filter(|route| !bridges.contains(route));
            for route in routes.filter(|route| overlap(subnet, route)) {
                let name = name.map_or("the environment's network", |name| name);
                let cause = format!("{name} ({subnet}) overlaps the host's route {route}, such as a VPN's");
                findings.push(
                    Finding::error("net.subnet-overlap", cause)
                        .remedy("disconnect the VPN, or choose another range for the engine in /etc/docker/daemon.json: {\"default-address-pools\": [{\"base\": \"10.201.0.0/16\", \"size\": 24}]}")
                        .evidence(format!("ip route: {route}")),
                );
            }
        }
        let list: Vec<&str> = own.iter().map(|(subnet, _)| *subnet).collect();
        if findings.is_empty() { pass(list.join(", ")) } else { Outcome::Found(findings) }
    }))
}

/// Whether two IPv4 networks in CIDR notation share an address; others never do.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    let parse = |text: &str| {
        let (address, bits) = text.split_once('/')?;
        let (address, bits): (Ipv4Addr, u32) = (address.parse().ok()?, bits.parse().ok()?);
        (bits <= 32).then(|| (u32::from(address), bits))
    };
    match (parse(a), parse(b)) {
        (Some((a, a_bits)), Some((b, b_bits))) => {
            let bits = a_bits.min(b_bits);
            let mask = if bits == 0 { 0 } else { u32::MAX << (32 - bits) };
            a & mask == b & mask
        }
        _ => false,
    }
}

pub(super) fn kind(inputs: &Inputs) -> Outcome {
    match &inputs.kind {
        Asked::Known(how) => pass(how.clone()),
        Asked::No => Outcome::Skip("not asked".to_owned()),
        Asked::Failed(reason) => found(
            Finding::error("cluster.kind-missing", "kind is not on PATH and cannot be built")
                .remedy("install Go (https://go.dev/dl/), and devstack builds kind itself")
                .remedy("or install kind: https://kind.sigs.k8s.io/docs/user/quick-start/")
                .evidence(reason.clone()),
        ),
    }
}

pub(super) fn lock(inputs: &Inputs) -> Outcome {
    match &inputs.lock_holder {
        None => pass("free"),
        Some(holder) => found(
            Finding::error("state.locked", "another devstack works on this environment")
                .remedy("wait until it ends, or stop it with Ctrl-C where it runs")
                .evidence(holder.clone()),
        ),
    }
}
