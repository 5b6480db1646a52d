//! Sessions that ended a moment ago. A connection on its way in when its session ends is
//! not open yet, so the command that closes the session's sockets passes it by; it looks
//! here once it is open.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Longer than a connection can take from verify to open: the waits for `resume`, logic
/// and the core together.
const KEPT: Duration = Duration::from_secs(60);

/// Time between two looks for what is forgotten: each goes over everything.
const SWEEP: Duration = Duration::from_secs(1);

/// Sessions that ended a moment ago, by the cookie's secret. Bounded by the logouts of a
/// minute, each of which cost a call to logic.
#[derive(Default)]
pub(super) struct RecentLogouts {
    ended: Mutex<Ended>,
}

#[derive(Default)]
struct Ended {
    at: HashMap<Box<str>, Instant>,
    swept: Option<Instant>,
}

impl RecentLogouts {
    pub(super) fn remember(&self, sid: &str) {
        let now = Instant::now();
        let mut ended = self.lock();
        if ended.swept.is_none_or(|swept| now >= swept + SWEEP) {
            ended.at.retain(|_, at| is_recent(*at, now));
            ended.swept = Some(now);
        }
        ended.at.insert(sid.into(), now);
    }

    pub(super) fn contains(&self, sid: &str) -> bool {
        self.lock().at.get(sid).is_some_and(|at| is_recent(*at, Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.duration_since(at) < KEPT
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
        assert!(!logouts.contains("a") && logouts.contains("b"));
        logouts.remember("c");
        assert_eq!(logouts.lock().at.len(), 2, "and forgotten with the next one");
    }
}
