//! Circuit breaker of one logic node: after a few failures in a row nobody waits for the
//! node any more; after a pause one call probes it.
//!
//! ```text
//!  closed ──3 failures──▶ open ──pause over──▶ probing ──success──▶ closed
//!                           ▲                     │
//!                           └────── failure ──────┘ (the pause doubles, at most 2 s)
//! ```
//!
//! Time is an argument, so the rules are tested without waiting.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 3;
/// First pause.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A probe whose caller went away without a word no longer counts after this time.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// Whether a node is worth asking.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    Probing { since: Instant, pause: Duration },
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self { state: State::Closed { failures: 0 } }
    }

    /// May a call be made now? After a pause one caller gets `true` and is the probe.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, pause } if now >= until => {
                self.state = State::Probing { since: now, pause };
                true
            }
            State::Probing { since, pause } if now >= since + PROBE_MAX => {
                self.state = State::Probing { since: now, pause };
                true
            }
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// The node answered.
    pub(super) fn succeeded(&mut self) {
        self.state = State::Closed { failures: 0 };
    }

    /// The node could not be reached or did not answer in time.
    pub(super) fn failed(&mut self, now: Instant) {
        self.state = match self.state {
            State::Closed { failures } if failures + 1 < FAILURES_MAX => {
                State::Closed { failures: failures + 1 }
            }
            State::Closed { .. } => State::Open { until: now + PAUSE_MIN, pause: PAUSE_MIN },
            State::Probing { pause, .. } => {
                let pause = (pause * 2).min(PAUSE_MAX);
                State::Open { until: now + pause, pause }
            }
            // Calls that were under way when it opened: they tell nothing new.
            State::Open { until, pause } => State::Open { until, pause },
        };
    }

    /// Closed: calls are made.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new();
        for _ in 0..FAILURES_MAX {
            assert!(breaker.admit(now));
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let now = Instant::now();
        assert!(!opened(now).admit(now));
        let mut breaker = Breaker::new();
        for _ in 0..10 {
            breaker.failed(now);
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(breaker.admit(now));
    }

    #[test]
    fn after_the_pause_exactly_one_caller_probes() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + PAUSE_MIN;
        assert!(!breaker.admit(later - Duration::from_millis(1)));
        assert!(breaker.admit(later));
        assert!(!breaker.admit(later));
        breaker.succeeded();
        assert!(breaker.admit(later));
    }

    #[test]
    fn a_failed_probe_doubles_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for expected_ms in [250, 500, 1000, 2000, 2000] {
            assert!(!breaker.admit(now + Duration::from_millis(expected_ms - 1)), "{expected_ms}");
            now += Duration::from_millis(expected_ms);
            assert!(breaker.admit(now), "{expected_ms}");
            breaker.failed(now);
        }
    }

    #[test]
    fn a_probe_that_never_ends_does_not_close_the_node_out_for_ever() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.admit(now + PAUSE_MIN));
        assert!(!breaker.admit(now + PAUSE_MIN + PROBE_MAX - Duration::from_millis(1)));
        assert!(breaker.admit(now + PAUSE_MIN + PROBE_MAX));
    }
}
