//! Two nodes, content of the user's own, and a `down` that has lost its state.

use std::time::Instant;

use crate::harness::{Ended, Phases, World, docker, get, noise, sha256};

/// The most memory that `up` may use, in KiB.
const MEMORY: u64 = 60 * 1024;

/// Bytes of the large file.
const LARGE: usize = 100_000_000;

#[test]
fn two_nodes_serve_what_they_are_given() {
    let mut phases = Phases::of("nodes");
    let world = World::new("nodes");
    let site = world.aside.join("site");
    let files: [(&str, &[u8]); 4] = [
        ("index.html", b"<!doctype html><title>here</title>"),
        ("img/dot.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        ("with space.txt", b"a name with a space"),
        ("empty.txt", b""),
    ];
    std::fs::create_dir_all(site.join("img")).unwrap();
    for (name, bytes) in files {
        std::fs::write(site.join(name), bytes).unwrap();
    }
    let setting = |path: &std::path::Path| format!("site={}", path.display());
    let up = phases.run("up with a directory", || {
        let ended = world.up(&["s3www", "--nodes", "2", "--set", &setting(&site)]);
        let nodes = world.kubectl(&["get", "nodes", "-o", "name"]);
        assert_eq!(nodes.lines().count(), 2, "{nodes}");
        eprintln!("    up {:.1} s, at most {:.1} MiB", ended.seconds, ended.peak_kib as f64 / 1024.0);
        ended
    });
    if let Some(ended) = &up {
        phases.run("every file of the directory", || {
            for (name, bytes) in files {
                // A file server sends the index to the directory.
                let name = if name == "index.html" { "" } else { name };
                let page = get(&format!("{}/{}", base(ended), name.replace(' ', "%20")), &world.hosts()).unwrap();
                assert_eq!((page.status, page.sha256), (200, sha256(bytes)), "{name}");
            }
            let page = get(&format!("{}/nothing-of-the-kind", base(ended)), &world.hosts()).unwrap();
            assert_eq!(page.status, 404);
        });
        phases.run("a file of 100 MB instead, streamed", || large(&world));
        phases.run("what was asked for stays so, however often", || {
            for _ in 0..2 {
                world.up(&[]);
            }
            assert_eq!(world.dry_run(&[]), Vec::<String>::new());
            assert_eq!(world.kubectl(&["get", "nodes", "-o", "name"]).lines().count(), 2);
        });
        phases.run("images are on both nodes", || {
            let lists = [world.node(), format!("{}-worker", world.name())].map(|node| {
                let list = docker(&["exec", &node, "ctr", "-n", "k8s.io", "images", "ls", "-q"]);
                let mut list: Vec<String> =
                    list.lines().filter(|name| !name.starts_with("sha256:")).map(str::to_owned).collect();
                list.sort();
                list
            });
            assert!(lists[0].iter().any(|name| name.contains("s3www")), "{lists:?}");
            assert_eq!(lists[0], lists[1]);
        });
    }
    phases.run("labels that a profile has for nodes are made, and kept", || {
        let profile = world.aside.join("labelled.yaml");
        let text = "apiVersion: devstack/v1\nkind: Profile\nname: labelled\nextends: s3www\n\
                    cluster: {nodes: 2, nodeLabels: {1: {disk: fast}}}\n";
        std::fs::write(&profile, text).unwrap();
        let worker = format!("{}-worker", world.name());
        let label = || world.kubectl(&["get", "node", &worker, "-o=jsonpath={.metadata.labels.disk}"]);
        world.up(&[&profile.display().to_string(), "--set", &setting(&site)]);
        assert_eq!(label(), "fast");
        assert_eq!(world.dry_run(&[]), Vec::<String>::new());
        world.kubectl(&["label", "node", &worker, "disk-"]);
        let changes = world.dry_run(&[]);
        assert!(changes.len() == 1 && changes[0].starts_with("node-labels repair "), "{changes:?}");
        world.up(&[]);
        assert_eq!(label(), "fast");
    });
    phases.run("down without the state directory", || {
        std::fs::remove_dir_all(world.state()).unwrap();
        let ended = world.down();
        assert!(ended.last("result")["undone"].as_u64() > Some(0), "{}", ended.story());
    });
    phases.end();
}

/// The site's address without a path.
fn base(ended: &Ended) -> String {
    let url = ended.last("result")["endpoints"][0]["url"].as_str().unwrap();
    url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/")
}

fn large(world: &World) {
    let file = world.aside.join("large.bin");
    let digest = noise(&file, LARGE);
    let pods = || {
        world.kubectl(&[
            "get",
            "pods",
            "-A",
            "--field-selector=status.phase=Running",
            "-o=custom-columns=U:.metadata.uid",
        ])
    };
    let before = pods();
    let ended = world.up(&["s3www", "--nodes", "2", "--set", &format!("site={}", file.display())]);
    assert_eq!(ended.last("result")["endpoints"][0]["sha256"], digest.as_str(), "{}", ended.story());
    let began = Instant::now();
    let page = get(&format!("{}/large.bin", base(&ended)), &world.hosts()).unwrap();
    assert_eq!((page.status, page.length, page.sha256), (200, LARGE, digest));
    eprintln!(
        "    up {:.1} s, at most {:.1} MiB, fetched in {:.1} s",
        ended.seconds,
        ended.peak_kib as f64 / 1024.0,
        began.elapsed().as_secs_f64()
    );
    let gone = get(&format!("{}/img/dot.svg", base(&ended)), &world.hosts()).unwrap();
    assert_eq!(gone.status, 404, "a file of the old site is still served");
    assert_eq!(before, pods(), "pods were replaced for a change of content");
    assert!(ended.peak_kib <= MEMORY, "{} KiB, more than {MEMORY}", ended.peak_kib);
}
