//! What cannot work is said clearly, and nothing is changed.

use std::net::TcpListener;

use crate::harness::{Ended, Phases, World};

/// Runs something that must fail with `code`, say all of `words`, advise, and change nothing but the logs.
#[track_caller]
fn refused(world: &World, code: i32, words: &[&str], run: impl FnOnce() -> Ended) {
    let before = world.look();
    let ended = run().expect(code);
    let error = ended.last("error").to_string();
    for word in words {
        assert!(error.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in {error}");
    }
    let hints = ended.last("error")["hints"].as_array().is_some_and(|hints| !hints.is_empty());
    assert!(hints, "no next command: {error}");
    let difference = world.difference(&before);
    assert!(difference.is_empty(), "something was changed: {difference:#?}");
}

#[test]
fn bad_input_changes_nothing() {
    let mut phases = Phases::of("bad");
    let world = World::new("bad");
    let files: [(&str, &[u8]); 5] = [
        ("empty.yaml", b""),
        ("binary.yaml", b"\x00\x01\xff\xfe\x80"),
        ("torn.yaml", b"apiVersion: devstack/v1\nkind: Profile\nname: [x\n"),
        ("key.yaml", b"apiVersion: devstack/v1\nkind: Profile\nname: x\ncomponent: []\n"),
        (
            "component.yaml",
            b"apiVersion: devstack/v1\nkind: Profile\nname: x\nsummary: y\ncomponents:\n  - use: nonsuch\n",
        ),
    ];
    for (name, bytes) in files {
        std::fs::write(world.root.join(name), bytes).unwrap();
    }
    let cases: [(&[&str], &[&str]); 14] = [
        (&["upp"], &["upp"]),
        (&["up", "nonsuch"], &["nonsuch", "s3www"]),
        (&["up", "./nonsuch.yaml"], &["nonsuch.yaml"]),
        (&["up", "s3www", "--set", "colour=red"], &["colour"]),
        (&["up", "s3www", "--set", "nodes=many"], &["nodes", "many"]),
        (&["up", "s3www", "--set", "site=/no/such/file"], &["/no/such/file"]),
        (&["up", "s3www", "--set", "host=not a name"], &["host"]),
        (&["up", "s3www", "--nodes", "0"], &["0"]),
        (&["up", "s3www", "--nodes", "10"], &["10"]),
        (&["up", "./empty.yaml"], &["empty.yaml"]),
        (&["up", "./binary.yaml"], &["binary.yaml"]),
        (&["up", "./torn.yaml"], &["torn.yaml:"]),
        (&["up", "./key.yaml"], &["key.yaml:4", "components"]),
        (&["up", "./component.yaml"], &["component.yaml:6", "nonsuch"]),
    ];
    for (args, words) in cases {
        phases.run(&args.join(" "), || refused(&world, 2, words, || world.run(args)));
    }
    phases.run("a name that cannot be one", || {
        refused(&world, 2, &["Not/A/Name"], || {
            let mut command = world.bare(&["up", "-o", "json", "--yes", "--env", "Not/A/Name"]);
            command.stdin(std::process::Stdio::null());
            crate::harness::Running::start(command).end()
        });
    });
    for verb in ["up", "down", "status"] {
        phases.run(&format!("{verb} without an engine"), || {
            let socket = world.aside.join("no-engine.sock");
            let run = || {
                let mut command = world.command(&[verb]);
                command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
                crate::harness::Running::start(command).end()
            };
            refused(&world, 1, &["engine", "no-engine.sock"], run);
        });
    }
    phases.run("an engine that is none", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            use std::io::Write as _;
            // Says hello in another protocol to whoever asks, until the test is over.
            while let Ok((mut stream, _)) = listener.accept() {
                if stream.write_all(b"220 mail.example.com ESMTP\r\n").is_err() {
                    return;
                }
            }
        });
        refused(&world, 1, &[&address.to_string()], || {
            let mut command = world.command(&["up"]);
            command.env("DOCKER_HOST", format!("tcp://{address}"));
            crate::harness::Running::start(command).end()
        });
        drop(thread);
    });
    phases.run("down and status where nothing is", || {
        let before = world.look();
        let down = world.run(&["down"]).expect(0);
        assert_eq!(down.last("result")["undone"], 0, "{}", down.story());
        let status = world.run(&["status"]).expect(0);
        assert_eq!(status.last("status")["state"], "absent");
        let difference = world.difference(&before);
        assert!(difference.is_empty(), "{difference:#?}");
    });
    phases.end();
}
