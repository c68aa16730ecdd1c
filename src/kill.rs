//! Kill points for the crash matrix. Without the feature `kill-points` they compile to nothing.

/// Ends the process as SIGKILL would where `DEVSTACK_KILL_AT` counts down to this point.
#[cfg(not(feature = "kill-points"))]
#[inline]
pub fn point(_place: &str, _what: &str) {}

/// Ends the process as SIGKILL would at the N-th point, N given by `DEVSTACK_KILL_AT`; with
/// `DEVSTACK_KILL_LOG` each point passed is appended to that file. Stops it, as SIGSTOP does, before the N-th line is
/// appended to the journal where `DEVSTACK_STOP_APPEND` says so, for somebody to change the world and send SIGCONT.
#[cfg(feature = "kill-points")]
#[expect(clippy::disallowed_methods, reason = "a test's switch must not travel through the product's context")]
pub fn point(place: &str, what: &str) {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    static PASSED: AtomicUsize = AtomicUsize::new(0);
    static APPENDS: AtomicUsize = AtomicUsize::new(0);
    let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if let Ok(path) = std::env::var("DEVSTACK_KILL_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "{number} {place} {what}");
    }
    let at = std::env::var("DEVSTACK_KILL_AT").ok().and_then(|at| at.parse::<usize>().ok());
    if at == Some(number) {
        let _ = kill_process(getpid(), Signal::KILL);
    }
    if place == "journal.before" {
        let number = APPENDS.fetch_add(1, Ordering::SeqCst) + 1;
        if std::env::var("DEVSTACK_STOP_APPEND").is_ok_and(|at| at.parse() == Ok(number)) {
            let _ = kill_process(getpid(), Signal::STOP);
            // Another thread may take the signal first; this one must not reach the append before it is stopped.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }
}
