//! Parts of a long test: each is timed and judged for itself, so that one defect does not hide the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// The parts of one test.
pub struct Phases {
    test: &'static str,
    failed: Vec<String>,
}

impl Phases {
    /// Begins a test.
    pub fn of(test: &'static str) -> Self {
        Self { test, failed: Vec::new() }
    }

    /// Runs a part; gives what it gave, or `None` where it failed.
    pub fn run<T>(&mut self, name: &str, part: impl FnOnce() -> T) -> Option<T> {
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(part));
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{} {seconds:6.1} s  {}: {name}", if result.is_ok() { "✓" } else { "✗" }, self.test);
        if result.is_err() {
            self.failed.push(name.to_owned());
        }
        result.ok()
    }

    /// Ends the test.
    pub fn end(self) {
        assert!(self.failed.is_empty(), "{}: failed: {}", self.test, self.failed.join("; "));
    }
}
