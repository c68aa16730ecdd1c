//! Parts of a long test: each is timed and judged for itself, so that one defect does not hide the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::tell;

/// The parts of one test.
pub struct Phases {
    test: &'static str,
    began: Instant,
    parts: usize,
    failed: Vec<String>,
}

impl Phases {
    /// Begins a test.
    pub fn of(test: &'static str) -> Self {
        Self { test, began: Instant::now(), parts: 0, failed: Vec::new() }
    }

    /// Runs a part; gives what it gave, or `None` where it failed.
    pub fn run<T>(&mut self, name: &str, part: impl FnOnce() -> T) -> Option<T> {
        self.parts += 1;
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(part));
        let seconds = began.elapsed().as_secs_f64();
        eprintln!("{} {seconds:6.1} s  {}: {name}", if result.is_ok() { "✓" } else { "✗" }, self.test);
        if result.is_err() {
            self.failed.push(name.to_owned());
        }
        result.ok()
    }

    /// Ends the test, and tells how long it took.
    pub fn end(self) {
        tell(&format!("measured: {} {:.0} s, {} parts", self.test, self.began.elapsed().as_secs_f64(), self.parts));
        assert!(self.failed.is_empty(), "{}: failed: {}", self.test, self.failed.join("; "));
    }
}
