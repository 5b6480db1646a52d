//! What librdkafka says, in our words: down and up once per change, the rest for who looks.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Is the cluster there? Logged once per change.
#[derive(Debug)]
pub(super) struct Reachable {
    who: &'static str,
    down: AtomicBool,
}

impl Reachable {
    pub(super) fn new(who: &'static str) -> Self {
        Self { who, down: AtomicBool::new(false) }
    }

    pub(super) fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    /// Something came from the cluster.
    pub(super) fn up(&self) {
        // Looked at first: this is called for every record, and a load is shared.
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            tracing::info!(who = self.who, "kafka is back");
        }
    }

    /// An error that belongs to no record.
    pub(super) fn error(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            if !self.down.swap(true, Ordering::Relaxed) {
                tracing::warn!(who = self.who, reason, "kafka is away, waiting for it");
            }
        } else {
            tracing::debug!(who = self.who, %error, reason, "kafka");
        }
    }
}

/// A log line of librdkafka. It tells each lost connection several times over, which is what
/// [`Reachable`] says once; whoever wants all of it sets the level.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "kafka: {line}");
        }
        _ => tracing::debug!(facility, "kafka: {line}"),
    }
}
