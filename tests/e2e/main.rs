//! The end-to-end test: devstack's own binary on a real engine, seen from outside. It needs root or the right to use
//! the engine, and Linux.
//!
//! Tests share the engine, so they run one after the other (`--test-threads=1`). `DEVSTACK_E2E_FULL=1` adds the long
//! matrices. What a test needs and the machine lacks (root, sudo) is named and skipped.
//!
//! Nothing is proven by devstack's own means: pages are fetched by a client of the test's own, and the machine before
//! and after is compared by docker's CLI and `/proc`.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test program: it panics, prints, and starts what it tests"
)]

mod bad;
mod change;
mod engine;
mod existing;
mod full;
mod harness;
mod kills;
mod life;
mod nodes;
mod registry;
mod replaced;
mod sides;
mod store;
mod user;
