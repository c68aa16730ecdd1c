//! When the process dies.

use std::io;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

/// A death that may come: at its point everything stops, and nothing is changed any more.
#[derive(Clone)]
pub struct Death {
    at: Option<usize>,
    passed: Arc<Mutex<Vec<String>>>,
    dead: CancellationToken,
}

impl Death {
    /// A process that lives.
    pub fn never() -> Self {
        Self { at: None, passed: Arc::default(), dead: CancellationToken::new() }
    }

    /// A process that dies at this point, counted from 1.
    pub fn at(point: usize) -> Self {
        Self { at: Some(point), ..Self::never() }
    }

    /// The points that were passed; the last one is where it died.
    pub fn passed(&self) -> Vec<String> {
        self.passed.lock().unwrap().clone()
    }

    /// Whether it came.
    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Passes a point; an error where the process is dead.
    pub fn pass(&self, what: &str) -> io::Result<()> {
        if !self.is_dead() {
            let mut passed = self.passed.lock().unwrap();
            passed.push(what.to_owned());
            if self.at == Some(passed.len()) {
                self.dead.cancel();
            }
        }
        if self.is_dead() { Err(io::Error::other("the process is dead")) } else { Ok(()) }
    }

    /// Passes a point, or stops for ever where the process is dead.
    pub async fn reach(&self, what: &str) {
        if self.pass(what).is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Goes on only where the process lives.
    pub async fn alive(&self) {
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs until the end, or until death: then there is no result.
    pub async fn outlive<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let result = tokio::select! {
            biased;
            () = self.dead.cancelled() => None,
            result = work => Some(result),
        };
        result.filter(|_| !self.is_dead())
    }
}
