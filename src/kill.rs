//! Kill points for the crash matrix. Without the feature `kill-points` they compile to nothing.

/// Ends the process as SIGKILL would where `DEVSTACK_KILL_AT` counts down to this point.
#[cfg(not(feature = "kill-points"))]
#[inline]
pub fn point(_place: &str, _what: &str) {}

/// Ends the process as SIGKILL would at the N-th point, N given by `DEVSTACK_KILL_AT`; with
/// `DEVSTACK_KILL_LOG` each point passed is appended to that file.
#[cfg(feature = "kill-points")]
#[expect(clippy::disallowed_methods, reason = "a test's switch must not travel through the product's context")]
pub fn point(place: &str, what: &str) {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if let Ok(path) = std::env::var("DEVSTACK_KILL_LOG")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "{number} {place} {what}");
    }
    let at = std::env::var("DEVSTACK_KILL_AT").ok().and_then(|at| at.parse::<usize>().ok());
    if at == Some(number) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
