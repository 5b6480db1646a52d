//! Settings of job.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::duty::Limits;
use crate::core::plan::PUSH_BYTES_MAX;

/// Settings of job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `host:port` of health and metrics; port 0: any. Default `127.0.0.1:8091`. Trusts its
    /// callers: a wider bind logs a warning.
    pub http_addr: String,
    /// Consumers of the log in this process, 1–64, default 4. The embedded log has one
    /// partition and uses one.
    pub consumers: usize,
    /// Milliseconds from the send of a batch to its ack, also for connecting and for a
    /// gateway's welcome; 100–60,000, default 5,000. Then the stream is given up.
    pub push_deadline_ms: u64,
    /// Milliseconds from the first send of the oldest unacked push until nobody waits for
    /// that gateway any more, `push_deadline_ms`–600,000, default 10,000. Higher: a slow
    /// gateway holds the commit for longer.
    pub duty_ms: u64,
    /// Records in flight per consumer, 1–1,000,000, default 8,192. Higher costs memory and
    /// a longer replay after a crash.
    pub in_flight_records: usize,
    /// Bytes of records in flight per consumer, 65,536–1,073,741,824, default 33,554,432.
    pub in_flight_bytes: usize,
    /// Pushes in one batch, 1–10,000, default 512.
    pub batch_pushes: usize,
    /// Encoded bytes of one batch, 1,024–3,145,728, default 262,144. A larger push travels
    /// alone.
    pub batch_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http_addr: "127.0.0.1:8091".into(),
            consumers: 4,
            push_deadline_ms: 5_000,
            duty_ms: 10_000,
            in_flight_records: 8_192,
            in_flight_bytes: 32 << 20,
            batch_pushes: 512,
            batch_bytes: 256 << 10,
        }
    }
}

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// Key, value and allowed range, as text.
    pub fn validate(&self) -> Result<(), String> {
        if !self.http_addr.contains(':') {
            return Err(format!("job.http_addr = {:?}: must be host:port", self.http_addr));
        }
        let deadline = self.push_deadline_ms;
        let ranges = [
            ("consumers", self.consumers as u64, 1, 64),
            ("push_deadline_ms", deadline, 100, 60_000),
            ("duty_ms", self.duty_ms, deadline, 600_000),
            ("in_flight_records", self.in_flight_records as u64, 1, 1_000_000),
            ("in_flight_bytes", self.in_flight_bytes as u64, 64 << 10, 1 << 30),
            ("batch_pushes", self.batch_pushes as u64, 1, 10_000),
            ("batch_bytes", self.batch_bytes as u64, 1 << 10, PUSH_BYTES_MAX as u64),
        ];
        for (key, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(format!("job.{key} = {value}: must be {least} to {most}"));
            }
        }
        Ok(())
    }

    /// Time from sending a batch to giving its stream up.
    pub fn push_deadline(&self) -> Duration {
        Duration::from_millis(self.push_deadline_ms)
    }

    /// The core's view. A lane holds what is in flight of all consumers, so that in normal
    /// operation the windows are the bound and a lane's own bound only meets leftovers of
    /// revoked partitions.
    pub(crate) fn limits(&self, consumers: usize) -> Limits {
        Limits {
            duty: Duration::from_millis(self.duty_ms),
            deadline: self.push_deadline(),
            batch_pushes: self.batch_pushes,
            batch_bytes: self.batch_bytes,
            lane_pushes: self.in_flight_records.saturating_mul(consumers),
            lane_bytes: self.in_flight_bytes.saturating_mul(consumers),
        }
    }
}

// A batch and its envelope stay below the 4 MiB that a gRPC decoder takes.
const _: () = assert!(PUSH_BYTES_MAX + (64 << 10) < 4 << 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_a_bad_value_names_key_value_and_range() {
        assert_eq!(Config::default().validate(), Ok(()));
        let bad = Config { consumers: 0, ..Config::default() };
        assert_eq!(bad.validate(), Err("job.consumers = 0: must be 1 to 64".into()));
        let bad = Config { duty_ms: 4_999, ..Config::default() };
        assert_eq!(bad.validate(), Err("job.duty_ms = 4999: must be 5000 to 600000".into()));
        assert!(Config { duty_ms: 5_000, ..Config::default() }.validate().is_ok());
        assert!(Config { http_addr: "8091".into(), ..Config::default() }.validate().is_err());
    }
}
