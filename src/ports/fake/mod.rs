//! Stateful fakes of the ports: a small world that can be broken at any point and used again afterwards.

mod clock;
mod engine;
mod fs;
mod kube;
mod runner;

pub use clock::FakeClock;
pub use engine::FakeEngine;
pub use fs::{FakeFs, Fault};
pub use kube::FakeKube;
pub use runner::FakeRunner;

use std::path::PathBuf;
use std::sync::Arc;

use crate::context::{Context, Dirs, Options, Vars};
use crate::event::EventSink;

/// A context on fakes: directories below `/fake`, no variables, nobody to ask, events dropped.
pub fn context(fs: &FakeFs, clock: &FakeClock) -> Context {
    let dirs = Dirs {
        state: PathBuf::from("/fake/state"),
        cache: PathBuf::from("/fake/cache"),
        home: PathBuf::from("/fake/home"),
    };
    let mut ctx = Context::real(dirs, Vars::default(), EventSink::null(), Options::default());
    ctx.fs = Arc::new(fs.clone());
    ctx.clock = Arc::new(clock.clone());
    ctx
}
