//! The engine killed, and started again: in the middle of an `up`, and under an environment that is ready.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Ended, OwnEngine, Phases, World, full, get, gif, sha256, tell};

/// Moments of an `up` at which the engine is killed: an event of this type and step, and so many milliseconds more.
const MOMENTS: [(&str, &str, u64); 2] = [("step-waiting", "cluster", 4000), ("step-started", "s3www.ready", 0)];

#[test]
fn an_engine_that_is_killed_and_started_again_is_survived() {
    if !full() {
        return tell("skipped: the engine killed under devstack (only in the full set)");
    }
    let engine = match OwnEngine::find() {
        Ok(engine) => engine,
        Err(reason) => return tell(&format!("skipped: the engine killed under devstack ({reason})")),
    };
    let mut phases = Phases::of("engine");
    let world = World::new("engine");
    let mut survived = 0;
    for (number, moment) in MOMENTS.into_iter().enumerate() {
        let way = if number == 0 { "up, down" } else { "down" };
        let part = phases.run(&format!("killed at {moment:?} of an up, then {way}"), || {
            under_up(&world, &engine, moment);
            if number == 0 {
                let ended = world.up(&[]);
                world.serves_the_gif(&ended);
            }
            world.down();
        });
        survived += usize::from(part.is_some());
        if part.is_none() {
            engine.start();
            let _ = world.command(&["down"]).output();
        }
    }
    let up = phases.run("up of two nodes", || world.up(&["s3www", "--nodes", "2"]));
    if let Some(ended) = up {
        let part = phases.run("killed under a ready environment", || under_ready(&world, &engine, &ended));
        survived += usize::from(part.is_some());
    }
    let down = phases.run("down leaves nothing", || world.down());
    tell(&format!(
        "matrix: engine killed and started: {} moments, {survived} of them converged, {}",
        MOMENTS.len() + 1,
        if down.is_some() { "0 leftovers" } else { "with leftovers" }
    ));
    phases.end();
}

/// The engine is killed and started under an `up`, which ends well, or says clearly that it did not.
fn under_up(world: &World, engine: &OwnEngine, (kind, step, more): (&str, &str, u64)) {
    let mut running = world.start(&["up"]);
    let came = running.until(|event| event["type"] == kind && event["step"] == step);
    std::thread::sleep(Duration::from_millis(more));
    let alive = running.is_alive();
    engine.kill();
    engine.start();
    let ended = running.end();
    assert!(came && alive, "the moment never came: {}", ended.story());
    if ended.status.success() {
        world.check(&ended);
        world.serves_the_gif(&ended);
        return eprintln!("    it went on, and ended well after {:.1} s", ended.seconds);
    }
    assert_eq!(ended.status.code(), Some(1), "{}", ended.story());
    let error = ended.last("error");
    assert!(error["hints"].as_array().is_some_and(|hints| !hints.is_empty()), "no next command: {}", ended.story());
    eprintln!("    it ended after {:.1} s: {error}", ended.seconds);
}

/// Whether every endpoint of a ready environment serves the GIF now.
fn serves(world: &World, endpoints: &[Value]) -> bool {
    let wanted = sha256(&gif());
    let right = |url: &str| get(url, &world.hosts()).is_ok_and(|page| page.status == 200 && page.sha256 == wanted);
    endpoints.iter().all(|endpoint| endpoint["url"].as_str().is_some_and(right))
}

/// Nobody says that it is ready before the right bytes came back, and `up` brings them back.
fn under_ready(world: &World, engine: &OwnEngine, before: &Ended) {
    let endpoints = before.last("result")["endpoints"].as_array().unwrap().clone();
    assert!(serves(world, &endpoints));
    engine.kill();
    let status = world.run(&["status"]);
    assert_ne!(status.status.code(), Some(0), "ready without an engine: {}", status.story());
    engine.start();
    let began = Instant::now();
    let status = world.run(&["status"]);
    let state = status.lines.iter().rev().find_map(|line| line["state"].as_str()).unwrap_or("unknown").to_owned();
    if state == "ready" {
        // What it said was true a moment later at the latest.
        assert!(serves(world, &endpoints), "ready, but the site is not there: {}", status.story());
    }
    let ended = world.up(&["s3www", "--nodes", "2"]);
    assert!(serves(world, &endpoints), "the same URLs do not serve: {}", ended.story());
    tell(&format!(
        "matrix: engine restarted under two nodes: {state} at first, every URL right after {:.1} s, up {:.1} s",
        began.elapsed().as_secs_f64(),
        ended.seconds
    ));
    let settled = settles(world);
    assert!(serves(world, &endpoints), "the URLs stopped to serve");
    tell(&format!("matrix: engine restarted under two nodes: every pod ready {settled:.1} s after up"));
}

/// How many seconds it takes until `status` says ready: a pod that served before `up` ended can be started once more,
/// by a node agent that is late to notice.
fn settles(world: &World) -> f64 {
    let began = Instant::now();
    loop {
        let status = world.run(&["status"]);
        if status.last("status")["state"] == "ready" {
            return began.elapsed().as_secs_f64();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it does not settle: {}", status.story());
        std::thread::sleep(Duration::from_secs(1));
    }
}
