//! Time.

use std::time::Duration;

use async_trait::async_trait;

/// The clock and the way to wait.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Wall-clock time, for records that people read. It may step back; nothing is ordered by it.
    fn now(&self) -> jiff::Timestamp;
    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// The machine's own clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
