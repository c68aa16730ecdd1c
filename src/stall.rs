//! Work over a connection that may go silent without an end, as when the machine at its other side is frozen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Does work that counts in `moved` whatever moves; `None` where nothing has moved for `limit`, which is seen after twice
/// that time at the latest.
pub async fn unless_stalled<T>(limit: Duration, moved: &AtomicU64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut before = 0;
    loop {
        if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
            return Some(done);
        }
        let now = moved.load(Ordering::Relaxed);
        if now == before {
            return None;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_moves_may_take_longer() {
        let (limit, moved) = (Duration::from_secs(1), AtomicU64::new(0));
        let work = async {
            for _ in 0..150 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                moved.fetch_add(1, Ordering::Relaxed);
            }
            "done"
        };
        assert_eq!(unless_stalled(limit, &moved, work).await, Some("done"));
    }

    #[tokio::test]
    async fn work_on_which_nothing_moves_is_given_up() {
        let moved = AtomicU64::new(0);
        let work = async {
            moved.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        assert_eq!(unless_stalled(Duration::from_millis(5), &moved, work).await, None);
    }
}
