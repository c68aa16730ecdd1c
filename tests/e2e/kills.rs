//! devstack killed, or interrupted, in the middle of `up`: a second `up` finishes, or `down` cleans to zero.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Phases, Running, World, full, tell};

/// A moment in an `up`.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The kill point of this number (see `src/kill.rs`), counted from the beginning.
    Point(usize),
    /// A line of the kill log that contains this, and so many milliseconds more.
    Passed(&'static str, u64),
    /// The first event of this type and step, and so many milliseconds more.
    Event(&'static str, &'static str, u64),
}

use Moment::{Event, Passed, Point};

/// Moments of a kill that are always tried.
const KILLS: [Moment; 5] = [
    Point(3),
    // kind outlives devstack, and works on.
    Event("step-waiting", "cluster", 1500),
    Passed("step.after nodes", 0),
    Passed("step.before minio", 300),
    Passed("step.before content.site", 0),
];

/// Moments of Ctrl-C.
const INTERRUPTS: [Moment; 12] = [
    Event("step-started", "network", 0),
    Event("step-waiting", "cluster", 4000),
    Event("step-started", "load", 300),
    Event("step-started", "traefik", 500),
    Event("step-started", "s3www.ready", 200),
    Event("plan", "", 0),
    Event("step-started", "node-image", 0),
    Event("step-started", "cluster", 100),
    Event("step-started", "nodes", 1500),
    Event("step-started", "kube-context", 0),
    Event("step-started", "minio.ready", 1000),
    Event("step-started", "verify", 0),
];

/// How many moments of a kill are tried; `scripts/test --full` asks for twelve.
fn wanted() -> usize {
    std::env::var("DEVSTACK_E2E_KILLS").ok().and_then(|wanted| wanted.parse().ok()).unwrap_or(KILLS.len())
}

#[test]
fn a_kill_at_any_moment_is_survived() {
    let world = World::new("kill");
    let mut moments: Vec<Moment> = KILLS.into_iter().take(wanted()).collect();
    moments.extend(appends(&world, wanted() - moments.len()).into_iter().map(Point));
    matrix("kill", &world, &moments, Signal::KILL);
}

#[test]
fn an_interruption_at_any_moment_is_survived() {
    let moments = if full() { &INTERRUPTS[..] } else { &INTERRUPTS[..5] };
    matrix("interrupt", &World::new("interrupt"), moments, Signal::INT);
}

/// The numbers of so many points before or after an append to the journal, spread over a whole `up`.
fn appends(world: &World, many: usize) -> Vec<usize> {
    if many == 0 {
        return Vec::new();
    }
    let log = world.aside.join("whole.log");
    let mut command = world.command(&["up"]);
    command.env("DEVSTACK_KILL_LOG", &log);
    let ended = Running::start(command).end().expect(0);
    world.serves_the_gif(&ended);
    world.down();
    let log = std::fs::read_to_string(log).unwrap();
    let points: Vec<usize> = log
        .lines()
        .filter(|line| line.contains(" journal."))
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    tell(&format!("matrix: an up has {} kill points, {} of them at the journal", log.lines().count(), points.len()));
    assert!(points.len() >= many, "{log}");
    // The last one follows the whole of an `up`; it ends before anybody could notice.
    (0..many).map(|number| points[number * (points.len() - 1) / many]).collect()
}

fn matrix(name: &'static str, world: &World, moments: &[Moment], signal: Signal) {
    let mut phases = Phases::of(name);
    let mut converged = 0;
    for (number, moment) in moments.iter().enumerate() {
        // Each moment is followed by the other way out in the full matrix of the other signal.
        let finish = (number % 2 == 0) == (signal == Signal::KILL);
        let survived = phases.run(&format!("{moment:?}, then {}", if finish { "up" } else { "down" }), || {
            stop_at(world, *moment, signal);
            if finish {
                let ended = world.up(&[]);
                world.serves_the_gif(&ended);
            }
            world.down();
        });
        converged += usize::from(survived.is_some());
        if survived.is_none() {
            // What a failure left must not spoil the next moment.
            let _ = world.command(&["down"]).output();
            let _ = std::fs::remove_dir_all(world.state());
        }
    }
    tell(&format!(
        "matrix: {name} on the engine: {} moments, {converged} of them converged with 0 leftovers",
        moments.len()
    ));
    phases.end();
}

fn stop_at(world: &World, moment: Moment, signal: Signal) {
    let log = world.aside.join("kill.log");
    let _ = std::fs::remove_file(&log);
    let mut command = world.command(&["up"]);
    command.env("DEVSTACK_KILL_LOG", &log);
    if let Point(number) = moment {
        command.env("DEVSTACK_KILL_AT", number.to_string());
    }
    let mut running = Running::start(command);
    let came = match moment {
        Point(_) => true,
        Passed(text, more) => {
            let began = Instant::now();
            let passed = || std::fs::read_to_string(&log).is_ok_and(|log| log.lines().any(|line| line.ends_with(text)));
            while !passed() && running.is_alive() && began.elapsed() < Duration::from_secs(300) {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(more));
            passed()
        }
        Event(kind, step, more) => {
            let wanted = |event: &Value| event["type"] == kind && (step.is_empty() || event["step"] == step);
            let came = running.until(wanted);
            std::thread::sleep(Duration::from_millis(more));
            came
        }
    };
    let alive = running.is_alive();
    if alive && !matches!(moment, Point(_)) {
        running.signal(signal);
    }
    let ended = running.end();
    assert!(came, "the moment never came: {}", ended.story());
    match signal {
        Signal::KILL => {
            let killed = std::os::unix::process::ExitStatusExt::signal(&ended.status);
            assert_eq!(killed, Some(9), "{}", ended.story());
        }
        _ => {
            assert!(alive, "it ended before the moment: {}", ended.story());
            assert!(ended.status.code() == Some(130), "{}", ended.story());
            let message = ended.last("error").to_string();
            assert!(message.contains("interrupted"), "{message}");
        }
    }
}
