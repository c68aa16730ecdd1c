//! Every decision on machines that are not at hand, from the synthetic facts in `tests/facts/`.

use super::*;

fn fixture(name: &str) -> Facts {
    let path = format!("{}/tests/facts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
}

fn names() -> Vec<String> {
    let dir = format!("{}/tests/facts", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|file| file.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    names
}

#[test]
fn what_is_derived_agrees_with_what_is_recorded() {
    for name in names() {
        let facts = fixture(&name);
        let recorded = facts.engine.clone().unwrap();
        let derived = EngineFacts::of(recorded.info.clone(), &facts.host);
        let measured = !derived.shares_host_kernel && recorded.cpu.is_some();
        let derived = EngineFacts { cpu: if measured { recorded.cpu.clone() } else { derived.cpu.clone() }, ..derived };
        assert_eq!(derived, recorded, "{name}");
        assert!(facts.source.unwrap().starts_with("synthetic: "), "{name}");
    }
}

#[test]
fn facts_survive_being_written_and_read() {
    for name in names() {
        let facts = fixture(&name);
        assert_eq!(parse(&name, &serde_json::to_string(&facts).unwrap()).unwrap(), facts, "{name}");
    }
}

#[test]
fn decisions() {
    let mut table = String::new();
    for name in names() {
        let facts = fixture(&name);
        let engine = facts.engine.clone().unwrap();
        let level = match (engine.level(), engine.needs_measuring()) {
            (Some(level), _) => level.to_string(),
            (None, true) => "measure".to_owned(),
            (None, false) => "-".to_owned(),
        };
        let way = if facts.reachable().reachable { "reachable" } else { "ports" };
        let adapt = if engine.needs_userns_adaptation() { "userns" } else { "-" };
        let minor = engine.newest_kubernetes_minor().map_or("any".to_owned(), |minor| format!("1.{minor}"));
        let line = format!("{name:26} {:13} {level:10} {way:9} {adapt:6} {minor}", engine.platform);
        table.push_str(line.trim_end());
        table.push('\n');
    }
    insta::assert_snapshot!(table, @"
    linux-arm64                linux/arm64   -          reachable -      any
    linux-docker               linux/amd64   x86-64-v3  reachable -      any
    linux-docker-desktop       linux/amd64   measure    ports     -      any
    linux-podman               linux/amd64   x86-64-v3  reachable -      any
    linux-proxmox-kvm64        linux/amd64   x86-64-v1  reachable -      any
    linux-remote-engine        linux/amd64   measure    ports     -      any
    linux-rootless             linux/amd64   x86-64-v3  ports     userns any
    linux-sandbox              linux/amd64   x86-64-v3  reachable userns 1.34
    macos-colima-rosetta       linux/amd64   x86-64-v2  ports     -      any
    macos-docker-desktop-arm64 linux/arm64   -          ports     -      any
    macos-docker-desktop-intel linux/amd64   x86-64-v3  ports     -      any
    macos-orbstack             linux/arm64   -          reachable -      any
    macos-rancher-desktop      linux/amd64   measure    ports     -      any
    windows-containers         windows/amd64 -          ports     -      any
    wsl2-mirrored-docker-ce    linux/amd64   x86-64-v3  reachable -      any
    wsl2-nat-docker-desktop    linux/amd64   x86-64-v3  ports     -      any
    wsl2-rancher-desktop       linux/amd64   x86-64-v3  ports     -      any
    ");
}

#[test]
fn a_person_can_read_them() {
    insta::assert_snapshot!(fixture("linux-sandbox").lines().join("\n"), @"
    source  synthetic: sandboxed virtual machine without CAP_SYS_RESOURCE, cgroup v1
    host    linux amd64 · kernel 6.18.44
            2 CPUs, x86-64-v3 (AMD EPYC) · 24.0 GiB of memory, 9.0 GiB available
            cache disk 80.0 GiB free of 400.0 GiB (/home/anna/.cache/devstack)
            state disk 80.0 GiB free of 400.0 GiB (/home/anna/.local/state/devstack)
    engine  Docker Engine 20.10.24 · Debian GNU/Linux 12 (bookworm) · unix:///var/run/docker.sock
            linux/amd64 · 2 CPUs, x86-64-v3 · 24.0 GiB of memory · cgroup v1 · API 1.41 · overlay2
            cannot give CAP_SYS_RESOURCE
            container addresses are reachable: Docker Engine runs on this host's kernel
    ");
    insta::assert_snapshot!(fixture("macos-colima-rosetta").lines().join("\n"), @"
    source  synthetic: Apple silicon with an amd64 Colima profile; measured in a container
    host    macos arm64 · kernel 25.1.0
            10 CPUs, no x86-64 level · 16.0 GiB of memory
            cache disk 60.0 GiB free of 500.0 GiB (/Users/anna/Library/Caches/devstack)
            state disk 60.0 GiB free of 500.0 GiB (/Users/anna/Library/Application Support/devstack)
    engine  Colima 29.1.0 · Ubuntu 24.04.1 LTS · unix:///Users/anna/.colima/x86/docker.sock
            linux/amd64 · 2 CPUs, x86-64-v2 · 2.0 GiB of memory · cgroup v2 · API 1.52 · overlayfs
            container addresses are not reachable: Colima keeps its networks inside a virtual machine
    ");
    insta::assert_snapshot!(fixture("wsl2-mirrored-docker-ce").lines().join("\n"), @"
    source  synthetic: WSL2 in mirrored mode with Docker Engine inside the distribution
    host    linux amd64 · kernel 6.6.87.2-microsoft-standard-WSL2 · WSL 2, mirrored networking
            8 CPUs, x86-64-v3 (Intel(R) Core(TM) i7-1185G7 @ 3.00GHz) · 8.0 GiB of memory, 9.0 GiB available
            cache disk 80.0 GiB free of 400.0 GiB (/home/anna/.cache/devstack)
            state disk 80.0 GiB free of 400.0 GiB (/home/anna/.local/state/devstack)
    engine  Docker Engine 29.1.0 · Ubuntu 24.04.3 LTS · unix:///var/run/docker.sock
            linux/amd64 · 8 CPUs, x86-64-v3 · 8.0 GiB of memory · cgroup v2 · API 1.52 · overlayfs
            container addresses are reachable: Docker Engine runs on this host's kernel
    ");
}
