//! The producing side: idempotent, `acks=all`, and as patient as it takes.
//!
//! A record has no time-out of its own. librdkafka sends it again, under the same number,
//! until the cluster took it, and the broker drops what it has: an outage of any length
//! neither fails nor doubles a record. What fails is the record itself (too large) or the
//! producer as a whole; then every record behind it fails too, a new producer takes the
//! place, and the caller sends again what it has no answer for, in order. Only that can put
//! a record into the log twice.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use corecast_proto::ids::RoomId;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer as Threaded,
};
use tokio::sync::oneshot;

use super::client::{Reachable, log_line};
use super::topics::Topics;
use super::{
    Counts, KafkaLog, PRODUCER_KBYTES, PRODUCER_RECORDS, client_config, code, log_error, off_thread,
};
use crate::log::{LogError, LogProducer};

/// Where a delivery report goes.
type Answer = oneshot::Sender<Result<(), LogError>>;
/// Comes with the delivery report.
pub(super) type Delivered = oneshot::Receiver<Result<(), LogError>>;

impl LogProducer for KafkaLog {
    fn enqueue(
        &self,
        key: &RoomId,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send + use<> {
        let delivered = self.shared.producer.send(&self.shared.settings.topic, key.as_str(), &value, None);
        async move { report(delivered).await }
    }

    fn is_outbox(&self) -> bool {
        false
    }
}

impl KafkaLog {
    /// Writes a dead letter; the record is told where it came from and why it is there.
    pub(super) fn send_dead_letter(&self, key: &str, value: &Bytes, origin: &str, reason: &str) -> Delivered {
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new().insert(header("origin", origin)).insert(header("reason", reason));
        self.shared.producer.send(&self.shared.dead_letters, key, value, Some(headers))
    }
}

/// Waits for the delivery report.
pub(super) async fn report(delivered: Delivered) -> Result<(), LogError> {
    delivered.await.unwrap_or_else(|_| Err(LogError::Unavailable("the producer ended".to_owned())))
}

/// The one producer of a process, made with the first record.
pub(super) struct Producer {
    brokers: String,
    linger_ms: u32,
    topics: Topics,
    counts: Arc<Counts>,
    client: Mutex<Option<Client>>,
}

impl Producer {
    pub(super) fn new(brokers: String, linger_ms: u32, topics: Topics, counts: Arc<Counts>) -> Self {
        Self { brokers, linger_ms, topics, counts, client: Mutex::new(None) }
    }

    /// Takes the record's place behind all earlier ones, at once.
    pub(super) fn send(
        &self,
        topic: &str,
        key: &str,
        value: &Bytes,
        headers: Option<OwnedHeaders>,
    ) -> Delivered {
        let (answer, delivered) = oneshot::channel();
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(answer)).key(key).payload(&value[..]);
        record.headers = headers;
        // Held while the record is queued: two senders keep the order they came in.
        let mut client = self.client.lock().expect("nothing panics under the lock");
        match self.current(&mut client) {
            Ok(client) => {
                if let Err((error, record)) = client.0.send(record) {
                    if code(&error) == RDKafkaErrorCode::QueueFull {
                        self.counts.full.fetch_add(1, Ordering::Relaxed);
                    }
                    let _ = record.delivery_opaque.send(Err(log_error(&error)));
                }
            }
            Err(error) => drop(record.delivery_opaque.send(Err(error))),
        }
        delivered
    }

    /// The producer that works, a new one where the last one failed for good.
    fn current<'a>(&self, client: &'a mut Option<Client>) -> Result<&'a Client, LogError> {
        if let Some((code, reason)) = client.as_ref().and_then(|client| client.0.client().fatal_error()) {
            tracing::error!(%code, reason, "kafka producer failed for good, making a new one");
            self.counts.recreated.fetch_add(1, Ordering::Relaxed);
            *client = None;
        }
        match client {
            Some(client) => Ok(client),
            None => {
                self.topics.start();
                let context = Reports { reachable: Reachable::new("producer"), topics: self.topics.clone() };
                let made = Threaded::from_config_and_context(&config(&self.brokers, self.linger_ms), context);
                Ok(client.insert(Client(Arc::new(made.map_err(|error| log_error(&error))?))))
            }
        }
    }
}

/// What [`config`] asks of the cluster, in words.
pub(super) const GUARANTEE: &str = "acks = all, enable.idempotence = true";

fn config(brokers: &str, linger_ms: u32) -> rdkafka::ClientConfig {
    let mut config = client_config(brokers);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Never: see the module.
        .set("message.timeout.ms", "0")
        // A broker that waits for its replicas says so before the socket's time is over.
        .set("request.timeout.ms", "8000")
        .set("compression.type", "lz4")
        // As the Java client does it: all producers agree where a room lies.
        .set("partitioner", "murmur2_random")
        // librdkafka asks a broker once for each partition and batch: without a wait that is a
        // request per record. Who listens live got the record from the bus long before.
        .set("linger.ms", linger_ms.to_string())
        // Far below a broker's limit for a batch: only a record that is too large by itself
        // is ever refused, and never the small ones beside it.
        .set("batch.size", "262144")
        .set("queue.buffering.max.messages", PRODUCER_RECORDS.to_string())
        .set("queue.buffering.max.kbytes", PRODUCER_KBYTES.to_string());
    config
}

/// A producer whose end nobody waits for: it fails what it still holds.
struct Client(Arc<Threaded<Reports>>);

impl Drop for Client {
    fn drop(&mut self) {
        let producer = self.0.clone();
        off_thread(move || drop(producer));
    }
}

/// Takes delivery reports to who waits for them.
struct Reports {
    reachable: Reachable,
    topics: Topics,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reachable.error(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Answer>;

    fn delivery(&self, report: &DeliveryResult<'_>, answer: Box<Answer>) {
        let result = match report {
            Ok(_) => {
                self.reachable.up();
                Ok(())
            }
            Err((error, _)) => {
                if topics_gone(error) {
                    self.topics.check();
                }
                Err(log_error(error))
            }
        };
        // Nobody waits any more: the record is durable all the same, or sent again.
        let _ = answer.send(result);
    }
}

fn topics_gone(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(code(error), UnknownTopic | UnknownPartition | UnknownTopicOrPartition)
}
