//! Sessions that ended a moment ago. A connection on its way in when its session ends is
//! not open yet, so the command that closes the session's sockets passes it by; it looks
//! here once it is open.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longer than a connection can take from verify to open: the waits for `resume`, logic
/// and the core together.
const KEPT: Duration = Duration::from_secs(60);

/// Sessions that ended a moment ago, by the cookie's secret. Bounded by the logouts of a
/// minute, each of which cost a call to logic.
#[derive(Default)]
pub(super) struct RecentLogouts {
    ended: Mutex<HashMap<Box<str>, Instant>>,
}

impl RecentLogouts {
    pub(super) fn remember(&self, sid: &str) {
        let now = Instant::now();
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|_, at| now.duration_since(*at) < KEPT);
        ended.insert(sid.into(), now);
    }

    pub(super) fn contains(&self, sid: &str) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).contains_key(sid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_ended_session_is_remembered_for_a_minute() {
        let logouts = RecentLogouts::default();
        logouts.remember("a");
        tokio::time::advance(KEPT / 2).await;
        logouts.remember("b");
        assert!(logouts.contains("a") && logouts.contains("b"));
        tokio::time::advance(KEPT / 2).await;
        logouts.remember("c");
        assert!(!logouts.contains("a") && logouts.contains("b"));
    }
}
