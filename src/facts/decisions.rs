//! The synthetic facts in `tests/facts/` are such as devstack would have read them; what follows from them is in the plans
//! beside them.

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
fn a_person_can_read_them() {
    let nodes = fixture("nodes-mixed-levels").lines();
    let nodes = nodes.iter().skip_while(|line| !line.starts_with("node")).cloned().collect::<Vec<_>>();
    insta::assert_snapshot!(nodes.join("\n"), @"
    node    big-1 · amd64 · x86-64-v3 · 8.0 GiB of memory · 40.0 GiB free · cgroup v2 · containerd v2.2.3
            kernel 6.12.48+deb13-amd64 · network calico · NetworkPolicies have an effect
    node    old-1 · amd64 · x86-64-v1 · 8.0 GiB of memory · 40.0 GiB free · cgroup v2 · containerd v2.2.3
            kernel 6.12.48+deb13-amd64 · network calico · NetworkPolicies have an effect
    node    big-2 · amd64 · x86-64-v3 · 8.0 GiB of memory · 40.0 GiB free · cgroup v2 · containerd v2.2.3
            kernel 6.12.48+deb13-amd64 · network calico · NetworkPolicies have an effect
            the lowest of 3 nodes decides: old-1
    ");
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
