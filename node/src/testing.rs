//! What the tests of several modules wait with.

use std::time::Duration;

/// How long anything may take that is certain to come.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for what is certain to come.
///
/// # Panics
/// When it does not come within a minute.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("no {what} within {DEADLINE:?}"))
}

/// Waits for a state that no event tells of, by looking again and again; what was found.
///
/// # Panics
/// When it does not come within a minute.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
