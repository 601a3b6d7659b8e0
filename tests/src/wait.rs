//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long lies between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds, looking every 20 ms.
///
/// This waits for something that is certain to come in a healthy system, not for a time to pass: the deadline is how
/// long a broken one may keep the suite, so make it generous. A condition that hangs is cut off by it too.
///
/// # Panics
/// When `deadline` has passed, with `what` it was waiting for.
pub async fn wait_for(deadline: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    wait_for_some(deadline, what, async || condition().await.then_some(())).await;
}

/// Waits until `look` finds something, looking every 20 ms, and gives it back; else as [`wait_for`].
///
/// # Panics
/// When `deadline` has passed, with `what` it was waiting for.
pub async fn wait_for_some<T>(deadline: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    match tokio::time::timeout(deadline, looking).await {
        Ok(found) => found,
        Err(_) => panic!("waited {:.1} s in vain for: {what}", begun.elapsed().as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_wait_ends_with_the_condition_and_hands_back_what_was_found() {
        let mut looks = 0;
        let found = wait_for_some(Duration::from_secs(30), "three looks", async || {
            looks += 1;
            (looks == 3).then_some("it")
        })
        .await;
        assert_eq!((found, looks), ("it", 3));
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for: a miracle")]
    async fn a_condition_that_never_holds_fails_by_its_name() {
        wait_for(Duration::from_millis(50), "a miracle", async || false).await;
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for: an answer")]
    async fn a_condition_that_hangs_fails_by_its_name() {
        wait_for(Duration::from_millis(50), "an answer", async || std::future::pending().await).await;
    }
}
