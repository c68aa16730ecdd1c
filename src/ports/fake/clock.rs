//! Time that passes only when somebody sleeps.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ports::Clock;

/// A clock that a sleep moves on at once. Clones share the time.
#[derive(Debug, Clone)]
pub struct FakeClock(Arc<Mutex<jiff::Timestamp>>);

impl Default for FakeClock {
    fn default() -> Self {
        // 2026-01-01T00:00:00Z.
        Self(Arc::new(Mutex::new(jiff::Timestamp::constant(1_767_225_600, 0))))
    }
}

impl FakeClock {
    /// Moves the time; it may step back.
    pub fn shift(&self, by: jiff::SignedDuration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.checked_add(by).unwrap_or(*now);
    }
}

#[async_trait]
impl Clock for FakeClock {
    fn now(&self) -> jiff::Timestamp {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sleep(&self, duration: Duration) {
        self.shift(jiff::SignedDuration::try_from(duration).unwrap_or_default());
        // Other tasks get their turn, as during a real sleep.
        tokio::task::yield_now().await;
    }
}
