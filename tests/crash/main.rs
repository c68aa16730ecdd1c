//! The crash matrix: devstack is killed at every point of an `up` of the profile s3www, and of the `down` after it, on
//! a world of fakes that stays as the dead process left it. Then a fresh `up` must converge, or a fresh `down` leave
//! nothing.
//!
//! A point is the moment before or after anything that changes the world: a file written, a line appended to the
//! journal (or half of one), a network made, a node made, an object applied or deleted, an image sent, an object put.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test program: it panics and tells what it did"
)]

mod cluster;
mod death;
mod http;
mod mortal;
mod run;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use death::Death;
use run::Fakes;

/// Fewer points than this would not be the whole of it.
const FEWEST: usize = 60;

/// An `up` that appends less often than this would not record all that it changes.
const FEWEST_APPENDS: usize = 16;

/// What is run after a kill, and its name.
type WayOut<'a> = (&'a str, &'a dyn Fn(&Fakes));

/// Tells a person how much was tried. Not by `eprintln!`, which a test that passes swallows.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Kills at each point and survives it; gives how many points there were.
fn matrix(name: &str, first: impl Fn(&Fakes, &Death), then: &[WayOut<'_>], prepare: impl Fn(&Fakes)) -> usize {
    let began = Instant::now();
    let whole = Death::never();
    let fakes = Fakes::new();
    prepare(&fakes);
    first(&fakes, &whole);
    let points = whole.passed();
    drop(fakes);
    let mut failed = Vec::new();
    for point in 1..=points.len() {
        for (way, survive) in then {
            let fakes = Fakes::new();
            prepare(&fakes);
            let death = Death::at(point);
            first(&fakes, &death);
            // Steps run side by side, but always in the same order on fakes.
            let place = death.passed().last().cloned().unwrap_or_default();
            let survived = catch_unwind(AssertUnwindSafe(|| {
                assert!(death.is_dead(), "it ended before point {point}");
                survive(&fakes);
            }));
            if survived.is_err() {
                eprintln!("✗ {name}: killed at point {point}, {place}, then {way}");
                failed.push(format!("{point} {place}, then {way}"));
            }
        }
    }
    tell(&format!(
        "matrix: killed in {name}: {} points, {} ways out of each, {} failed, {:.1} s",
        points.len(),
        then.len(),
        failed.len(),
        began.elapsed().as_secs_f64()
    ));
    assert!(failed.is_empty(), "{name}: {} failed:\n{}", failed.len(), failed.join("\n"));
    points.len()
}

#[test]
fn a_kill_at_any_point_of_up_is_survived() {
    let up = |fakes: &Fakes| {
        fakes.up().unwrap();
        fakes.is_whole();
        fakes.is_recorded();
    };
    let down = |fakes: &Fakes| {
        fakes.down().unwrap();
        fakes.is_clean();
    };
    let first = |fakes: &Fakes, death: &Death| {
        let ended = fakes.up_until(death);
        assert!(death.is_dead() || ended.is_some_and(|ended| ended.is_ok()));
    };
    let points = matrix("up", first, &[("up", &up), ("down", &down)], |_| {});
    assert!(points >= FEWEST, "only {points} points");
}

#[test]
fn a_kill_at_any_point_of_down_is_survived() {
    let down = |fakes: &Fakes| {
        fakes.down().unwrap();
        fakes.is_clean();
    };
    let up = |fakes: &Fakes| {
        fakes.up().unwrap();
        fakes.is_whole();
        fakes.is_recorded();
    };
    let first = |fakes: &Fakes, death: &Death| {
        let ended = fakes.down_until(death);
        assert!(death.is_dead() || ended.is_some_and(|ended| ended.is_ok()));
    };
    let prepare = |fakes: &Fakes| drop(fakes.up().unwrap());
    matrix("down", first, &[("down", &down), ("up", &up)], prepare);
}

#[test]
fn a_hosts_file_that_cannot_be_changed_after_all_fails_no_up() {
    let fakes = Fakes::new();
    let before = fakes.refuse_hosts();
    let names: Vec<String> = fakes.up().unwrap().into_iter().map(|endpoint| endpoint.url).collect();
    assert!(!names.is_empty() && names.iter().all(|name| name.contains(".localhost")), "{names:?}");
    fakes.down().unwrap();
    assert_eq!(fakes.hosts(), before);
}

#[test]
fn a_second_up_on_fakes_changes_nothing() {
    let fakes = Fakes::new();
    fakes.up().unwrap();
    fakes.is_whole();
    let whole = Death::never();
    fakes.up_until(&whole).unwrap().unwrap();
    let changes = whole.passed();
    assert!(changes.is_empty(), "{changes:#?}");
}

#[test]
fn nodes_that_were_started_again_are_not_believed_before_they_have_looked() {
    let fakes = Fakes::new();
    fakes.up().unwrap();
    fakes.restart_nodes("2026-11-21T12:00:00Z");
    let failure = fakes.up().unwrap_err();
    assert!(format!("{failure:?}").contains("minio"), "{failure:?}");
    fakes.start_pods("2026-11-21T11:59:59Z");
    assert!(fakes.up().is_err(), "the pod's container is from before");
    fakes.start_pods("2026-11-21T12:00:02Z");
    fakes.up().unwrap();
    fakes.is_whole();
}

#[test]
fn a_job_that_gave_up_is_done_over() {
    let fakes = Fakes::new();
    fakes.up().unwrap();
    fakes.fail_jobs();
    fakes.up().unwrap();
    fakes.is_whole();
}

#[test]
fn a_clock_that_steps_back_changes_nothing() {
    let mut fakes = Fakes::new();
    fakes.up().unwrap();
    fakes.turn_clock_back();
    // Between runs.
    let whole = Death::never();
    fakes.up_until(&whole).unwrap().unwrap();
    let changes: Vec<String> = whole.passed().into_iter().filter(|point| point.contains("append")).collect();
    assert!(changes.is_empty(), "{changes:#?}");
    fakes.down().unwrap();
    fakes.is_clean();
    // During a run that makes everything, and one that resumes it.
    let death = Death::at(FEWEST);
    fakes.up_until(&death);
    fakes.up().unwrap();
    fakes.is_whole();
    fakes.is_recorded();
    fakes.down().unwrap();
    fakes.is_clean();
}

#[test]
fn a_torn_journal_is_survived() {
    let began = Instant::now();
    let fakes = Fakes::new();
    fakes.up().unwrap();
    let journal = fakes.journal();
    drop(fakes);
    let mut cuts = 0;
    // The ends of all lines, and places in the last two; the journal's own tests cut at every byte.
    let ends: Vec<usize> =
        journal.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let tail = ends[ends.len() - 3];
    for cut in ends.iter().copied().filter(|end| *end < tail).chain((tail..=journal.len()).step_by(9)) {
        let fakes = Fakes::new();
        fakes.up().unwrap();
        fakes.set_journal(&fakes.journal()[..cut.min(fakes.journal().len())]);
        fakes.up().unwrap_or_else(|failure| panic!("cut at {cut}: {failure:?}"));
        fakes.is_whole();
        fakes.set_journal(&fakes.journal()[..cut.min(fakes.journal().len())]);
        fakes.down().unwrap_or_else(|failure| panic!("cut at {cut}: {failure:?}"));
        fakes.is_clean();
        cuts += 1;
    }
    tell(&format!("matrix: torn journal: {cuts} cuts, {:.1} s", began.elapsed().as_secs_f64()));
}

#[test]
fn a_disk_that_is_full_at_any_change_is_survived() {
    let whole = Death::never();
    let fakes = Fakes::new();
    fakes.up_until(&whole).unwrap().unwrap();
    let writes = fakes.writes();
    drop(fakes);
    let mut failed = Vec::new();
    for nth in 0..writes {
        let survived = catch_unwind(AssertUnwindSafe(|| {
            let fakes = Fakes::new();
            fakes.fill_disk_at(nth);
            assert!(fakes.up().is_err(), "a full disk was not noticed at change {nth} of {writes}");
            fakes.repair_disk();
            fakes.up().unwrap();
            fakes.is_whole();
            fakes.down().unwrap();
            fakes.is_clean();
        }));
        if survived.is_err() {
            failed.push(nth);
        }
    }
    let fakes = Fakes::new();
    fakes.up().unwrap();
    fakes.fill_disk_at(0);
    assert!(fakes.down().is_err(), "the kubeconfig cannot be written");
    fakes.repair_disk();
    fakes.down().unwrap();
    fakes.is_clean();
    tell(&format!("matrix: disk full: {writes} changes, {} failed", failed.len()));
    assert!(failed.is_empty(), "full at {failed:?} of {writes}");
}

#[test]
fn a_disk_that_is_full_at_any_append_is_survived() {
    let fakes = Fakes::new();
    fakes.up().unwrap();
    let appends = fakes.appends();
    drop(fakes);
    let up = |fakes: &Fakes| {
        fakes.repair_disk();
        fakes.up().unwrap();
        fakes.is_whole();
        fakes.is_recorded();
        fakes.down().unwrap();
    };
    let down = |fakes: &Fakes| {
        fakes.repair_disk();
        fakes.down().unwrap();
    };
    // What cannot be recorded as taken back is taken back all the same, and frees the disk.
    let down_on_full = |fakes: &Fakes| drop(fakes.down().unwrap());
    let ways: [WayOut<'_>; 3] = [("up", &up), ("down", &down), ("down on the full disk", &down_on_full)];
    let mut failed = Vec::new();
    for nth in 0..appends {
        for (way, survive) in ways {
            let survived = catch_unwind(AssertUnwindSafe(|| {
                let fakes = Fakes::new();
                fakes.fill_state_at_append(nth);
                let failure = fakes.up().unwrap_err();
                assert_eq!(failure.exit.code(), 1, "{failure:?}");
                assert!(failure.hints.iter().any(|hint| hint.starts_with("make room (df -h ")), "{failure:?}");
                survive(&fakes);
                fakes.is_clean();
            }));
            if survived.is_err() {
                failed.push(format!("{nth}, then {way}"));
            }
        }
    }
    tell(&format!("matrix: disk full: {appends} appends, {} ways out of each, {} failed", ways.len(), failed.len()));
    assert!(failed.is_empty(), "full at {failed:#?} of {appends}");
    assert!(appends >= FEWEST_APPENDS, "only {appends} appends");
}

#[test]
fn a_state_directory_that_somebody_removes_is_survived() {
    // What a lost journal held is known by label and name: not everything is recorded again, and everything goes.
    let up = |fakes: &Fakes| {
        fakes.up().unwrap();
        fakes.is_whole();
        fakes.down().unwrap();
        fakes.is_clean();
    };
    let down = |fakes: &Fakes| {
        fakes.down().unwrap();
        fakes.is_clean();
    };
    let ways: [WayOut<'_>; 2] = [("up", &up), ("down", &down)];
    for (_, survive) in ways {
        let fakes = Fakes::new();
        fakes.up().unwrap();
        fakes.remove_state();
        survive(&fakes);
    }
    let first = |fakes: &Fakes, death: &Death| {
        drop(fakes.up_until(death));
        fakes.remove_state();
    };
    matrix("up, then the state directory removed", first, &ways, |_| {});
}

#[test]
fn no_verb_touches_another_cluster_than_the_environments_own() {
    let fakes = Fakes::new();
    fakes.up().unwrap();
    fakes.replace_cluster();
    let before = fakes.everything();
    for failure in [fakes.up().unwrap_err(), fakes.down().unwrap_err()] {
        assert_eq!(failure.exit.code(), 1);
        assert!(failure.message.starts_with("another cluster answers than the environment's own"), "{failure:?}");
        assert_eq!(fakes.everything(), before);
    }
}
