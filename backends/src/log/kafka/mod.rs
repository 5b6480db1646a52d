//! The log on Kafka: one topic, the room id as key, one partition per room.
//!
//! | module | what |
//! |---|---|
//! | [`producer`] | idempotent, `acks=all`; a record's answer is its delivery report |
//! | [`consumer`] | one member of the group: records, revocations, commits |
//! | [`assignment`] | which partitions a consumer owns and how far each is done |
//! | [`topics`] | makes the topics where they are missing |
//!
//! librdkafka keeps trying by itself: an outage fails no record, it only delays the answers.
//! Nothing is sent again by us as long as its producer lives, so an outage doubles nothing.
//!
//! **Queues.** The producer holds at most [`PRODUCER_RECORDS`] records and
//! [`PRODUCER_KBYTES`]; one more is answered with [`LogError::Unavailable`] and counted
//! ([`Counts::full`]). A consumer prefetches at most [`PREFETCH_KBYTES`]; that is nobody's
//! until `next` hands it out, and fetched again by whoever owns the partition then.

mod assignment;
mod client;
pub mod consumer;
pub mod producer;
mod topics;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{Inspection, LogError, Settings};
use consumer::KafkaConsumer;
use producer::Producer;
use topics::Topics;

/// Records in the producer's queue at most.
pub const PRODUCER_RECORDS: u32 = 32_768;
/// Their bytes at most, in units of 1,024.
pub const PRODUCER_KBYTES: u32 = 65_536;
/// Bytes that one consumer prefetches at most, in units of 1,024.
pub const PREFETCH_KBYTES: u32 = 4_096;
/// Largest record: what a gateway takes in one push, and some.
pub const RECORD_BYTES: u32 = 4 << 20;

/// A Kafka cluster, our topic on it, and the producing side. Connects with the first use;
/// a cluster that is away is waited for. Cheap to clone.
#[derive(Clone)]
pub struct KafkaLog {
    shared: Arc<Shared>,
}

struct Shared {
    brokers: String,
    settings: Settings,
    dead_letters: String,
    topics: Topics,
    producer: Producer,
    counts: Arc<Counts>,
}

/// What happened to the producing side since the start.
#[derive(Debug, Default)]
pub struct Counts {
    full: AtomicU64,
    recreated: AtomicU64,
}

impl Counts {
    /// Records that found the queue full.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Producers that failed for good and were replaced.
    pub fn recreated(&self) -> u64 {
        self.recreated.load(Ordering::Relaxed)
    }
}

impl KafkaLog {
    /// Reads `//host:port,host:port`, what follows `kafka:` in a URL. Connects to nothing yet.
    ///
    /// # Errors
    /// What is wrong, as a sentence.
    pub fn parse(place: &str, settings: Settings) -> Result<Self, String> {
        let expected = || "expected kafka://host:port,host:port".to_owned();
        let brokers = place.strip_prefix("//").ok_or_else(expected)?.trim_end_matches('/');
        for broker in brokers.split(',') {
            let (host, port) = broker.rsplit_once(':').ok_or_else(expected)?;
            if host.is_empty() || host.contains(['/', '@']) || !port.parse::<u16>().is_ok_and(|port| port > 0)
            {
                return Err(expected());
            }
        }
        settings.validate()?;
        let brokers = brokers.to_owned();
        let dead_letters = settings.dead_letters();
        let topics = Topics::new(brokers.clone(), &settings);
        let counts = Arc::new(Counts::default());
        let producer = Producer::new(brokers.clone(), settings.linger_ms, topics.clone(), counts.clone());
        Ok(Self { shared: Arc::new(Shared { brokers, settings, dead_letters, topics, producer, counts }) })
    }

    /// A new member of the group. It joins with its first `next`.
    pub fn consumer(&self) -> KafkaConsumer {
        KafkaConsumer::new(self.clone())
    }

    /// Looks at the cluster and the topic; changes nothing.
    ///
    /// # Errors
    /// [`LogError::Unavailable`]: it does not answer within seconds.
    pub async fn inspect(&self) -> Result<Inspection, LogError> {
        topics::inspect(&self.shared.brokers, &self.shared.settings.topic)
            .await
            .map_err(LogError::Unavailable)
    }

    /// Counters of the producing side.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}

/// What every client of ours has in common.
fn client_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "corecast")
        .set("reconnect.backoff.ms", "100")
        // A cluster that comes back is found within a second.
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.connection.setup.timeout.ms", "5000")
        // A broker that took a request and froze: the request goes to the next leader.
        .set("socket.timeout.ms", "10000")
        .set("socket.keepalive.enable", "true")
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set("message.max.bytes", RECORD_BYTES.to_string())
        .set("allow.auto.create.topics", "false");
    config
}

/// Runs what blocks on a thread of its own: leaving a group or ending a client may take
/// seconds while the cluster is away, and nobody should wait for it who does not want to.
fn off_thread(work: impl FnOnce() + Send + 'static) {
    let spawned = std::thread::Builder::new().name("kafka-end".to_owned()).spawn(work);
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to end a kafka client on");
    }
}

fn code(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}

/// Is it the record that is wrong? Everything else may be better at the next try.
fn log_error(error: &KafkaError) -> LogError {
    use RDKafkaErrorCode::{InvalidMessageSize, InvalidRecord, MessageSizeTooLarge};
    match code(error) {
        MessageSizeTooLarge | InvalidMessageSize | InvalidRecord => LogError::Refused(error.to_string()),
        _ => LogError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_list_of_hosts_with_ports() {
        for place in ["//h:1", "//h:1,i:65535", "//[::1]:9092", "//h:1/"] {
            assert!(KafkaLog::parse(place, Settings::default()).is_ok(), "{place}");
        }
        for place in ["", "//", "h:1", "//h", "//h:0", "//h:65536", "//h:1,", "//u@h:1", "//h:1/topic"] {
            assert!(KafkaLog::parse(place, Settings::default()).is_err(), "{place}");
        }
    }

    #[test]
    fn only_what_is_wrong_with_the_record_itself_refuses_it() {
        let error = |code| log_error(&KafkaError::MessageProduction(code));
        assert!(matches!(error(RDKafkaErrorCode::MessageSizeTooLarge), LogError::Refused(_)));
        for code in [RDKafkaErrorCode::Fatal, RDKafkaErrorCode::QueueFull, RDKafkaErrorCode::PurgeQueue] {
            assert!(matches!(error(code), LogError::Unavailable(_)), "{code}");
        }
    }
}
