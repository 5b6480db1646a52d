//! Whether a backend answers: one log line when it stops and one when it is back, however
//! many requests meet it in between. A backend of several parts may lose one of them: as long
//! as any call fails now and then, it is not back.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So long no call may fail before it is back.
const QUIET: Duration = Duration::from_secs(3);

pub(super) struct Reach {
    what: &'static str,
    since: Instant,
    down: AtomicBool,
    /// When a call failed last, ms after `since`.
    failed_ms: AtomicU64,
}

impl Reach {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, since: Instant::now(), down: AtomicBool::new(false), failed_ms: AtomicU64::new(0) }
    }

    /// Notes how a call ended.
    pub(super) fn note(&self, error: Option<&impl Display>) {
        match error {
            Some(error) => {
                self.failed_ms.store(self.now_ms(), Ordering::Relaxed);
                if !self.down.swap(true, Ordering::Relaxed) {
                    tracing::warn!(backend = self.what, %error, "backend unreachable");
                }
            }
            None if !self.down.load(Ordering::Relaxed) || !self.is_quiet() => {}
            None => {
                if self.down.swap(false, Ordering::Relaxed) {
                    tracing::info!(backend = self.what, "backend answers again");
                }
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let quiet_ms = self.now_ms().saturating_sub(self.failed_ms.load(Ordering::Relaxed));
        u128::from(quiet_ms) >= QUIET.as_millis()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
