//! When to knock again: 100 ms × attempt, at most a second, for as long as the gateway is
//! in the registry. How often a *push* is sent is bounded elsewhere ([`super::duty`]).

use std::time::Duration;

use super::Time;

/// Pause after the first failed attempt; the n-th waits n times as long.
pub const BACKOFF: Duration = Duration::from_millis(100);
/// No pause is longer: a gateway that came back is found within this time.
pub const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A stream that lived at least this long was a success: the next pause is short again. A
/// gateway that welcomes and breaks at once is not.
pub const STEADY: Duration = Duration::from_secs(1);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retry {
    attempts: u32,
    up_since: Option<Time>,
}

impl Retry {
    /// The stream is up.
    pub fn handle_up(&mut self, now: Time) {
        self.up_since = Some(now);
    }

    /// The stream took an ack: whatever comes next is a new trouble.
    pub fn handle_progress(&mut self) {
        self.attempts = 0;
    }

    /// An attempt failed or a stream ended. Answers how long to wait before the next.
    pub fn handle_failure(&mut self, now: Time) -> Duration {
        if self.up_since.take().is_some_and(|since| now.saturating_sub(since) >= STEADY) {
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        BACKOFF.saturating_mul(self.attempts).min(BACKOFF_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn pause_grows_by_100_ms_up_to_a_second() {
        let mut retry = Retry::default();
        let pauses: Vec<_> = (0..12).map(|_| retry.handle_failure(MS(0))).collect();
        assert_eq!(pauses[..3], [MS(100), MS(200), MS(300)]);
        assert_eq!(pauses[9..], [MS(1000); 3]);
    }

    #[test]
    fn progress_or_a_steady_stream_starts_over_a_short_one_does_not() {
        let mut retry = Retry::default();
        retry.handle_failure(MS(0));
        retry.handle_up(MS(1_000));
        assert_eq!(retry.handle_failure(MS(1_999)), MS(200));
        retry.handle_up(MS(3_000));
        assert_eq!(retry.handle_failure(MS(4_000)), MS(100));
        retry.handle_up(MS(5_000));
        retry.handle_progress();
        assert_eq!(retry.handle_failure(MS(5_001)), MS(100));
    }
}
