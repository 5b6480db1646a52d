//! What the cases of several seams need.

use std::time::{Duration, Instant};

/// A condition that does not come true in this time never will.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `check` answers `true`.
pub(crate) async fn eventually(claim: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !check().await {
        assert!(Instant::now() < deadline, "never came true: {claim}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for an answer that must come.
pub(crate) async fn soon<T>(claim: &str, answer: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(answer) => answer,
        Err(_) => panic!("never answered: {claim}"),
    }
}

/// Polls an answer that must not come by itself. A short wait can only miss a fault, never
/// invent one.
pub(crate) async fn is_pending<T>(answer: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(50), answer).await.is_err()
}
