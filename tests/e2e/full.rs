//! The disk that holds devstack's state is full: refused up front where it is so from the start, survived where it
//! becomes so.

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Ended, Phases, Running, SmallDisk, World, full, tell};

/// The lines of the journal before which the disk becomes full: the standard ones come first.
const APPENDS: [usize; 6] = [2, 9, 1, 5, 7, 12];

#[test]
fn a_full_disk_is_refused_up_front_and_survived_later() {
    let mut phases = Phases::of("full");
    let world = World::new("full");
    let disk = match SmallDisk::mount(&world) {
        Ok(disk) => disk,
        Err(reason) => return tell(&format!("skipped: a full disk under an up ({reason})")),
    };
    phases.run("full from the start", || {
        let ended = refused(&world, &disk, SmallDisk::fill);
        let error = ended.last("error");
        assert_eq!(error["check"], "host.disk-full", "{}", ended.story());
        assert!(error["hints"].to_string().contains("DEVSTACK_HOME=DIR"), "{}", ended.story());
    });
    phases.run("no more files from the start", || is_clear(&refused(&world, &disk, SmallDisk::fill_with_files)));
    let points = if full() { &APPENDS[..] } else { &APPENDS[..2] };
    let mut survived = 0;
    for (number, nth) in points.iter().enumerate() {
        let up = number % 2 == 0;
        let way = if up { "room, up, down" } else { "down while it is full" };
        let part = phases.run(&format!("full at append {nth}, then {way}"), || {
            fills_at(&world, &disk, *nth);
            if up {
                disk.free();
                let ended = world.up(&[]);
                world.serves_the_gif(&ended);
                world.down();
            } else {
                let ended = world.run(&["down"]).expect(0);
                assert_eq!(ended.last("result")["leftovers"], serde_json::json!([]), "{}", ended.story());
                disk.free();
                world.is_clean();
            }
        });
        match part {
            Some(()) => survived += 1,
            None => {
                // What a failure left must not spoil the next one.
                disk.free();
                let _ = world.command(&["down"]).output();
            }
        }
    }
    tell(&format!(
        "matrix: disk full on the engine: {} appends, {survived} of them converged with 0 leftovers",
        points.len()
    ));
    phases.end();
}

/// Whether the failure says what is the matter, and what to do.
#[track_caller]
fn is_clear(ended: &Ended) {
    let error = ended.last("error");
    let texts =
        |field: &str| error[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(texts("causes").iter().any(|cause| cause.contains("No space left on device")), "{}", ended.story());
    assert!(texts("hints").iter().any(|hint| hint.starts_with("make room (df -h ")), "{}", ended.story());
}

/// An `up` on a disk that is full in some way: nothing is begun, nothing changed.
fn refused(world: &World, disk: &SmallDisk, fill: fn(&SmallDisk)) -> Ended {
    disk.free();
    fill(disk);
    let before = world.look();
    let ended = world.run(&["up"]).expect(1);
    assert!(!ended.lines.iter().any(|line| line["type"] == "step-started"), "{}", ended.story());
    let difference = world.difference(&before);
    assert!(difference.is_empty(), "a refused up changed something: {difference:#?}");
    disk.free();
    world.is_clean();
    ended
}

/// An `up` under which the disk becomes full before the `nth` line of the journal.
fn fills_at(world: &World, disk: &SmallDisk, nth: usize) {
    disk.free();
    let mut command = world.command(&["up"]);
    command.env("DEVSTACK_STOP_APPEND", nth.to_string());
    let mut running = Running::start(command);
    let stopped = running.until_stopped();
    if stopped {
        disk.fill();
        running.signal(Signal::CONT);
    }
    let ended = running.end();
    assert!(stopped, "there is no append {nth}: {}", ended.story());
    let ended = ended.expect(1);
    is_clear(&ended);
    eprintln!("    failed after {:.1} s: {}", ended.seconds, ended.last("error")["message"]);
}
