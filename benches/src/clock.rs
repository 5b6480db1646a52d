//! One clock for schedules and latencies: nanoseconds since the process first asked.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Nanoseconds since the first call in this process.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Sleeps until that moment, which may be over.
pub fn sleep_until(at_ns: u64) {
    let wait = at_ns.saturating_sub(now_ns());
    if wait > 0 {
        std::thread::sleep(Duration::from_nanos(wait));
    }
}
