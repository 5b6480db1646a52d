//! The consuming side: one member of the group.
//!
//! Nothing is stored or committed by the library itself. `done` says how far a partition is
//! safe; that is committed once a second, before a partition is given away, and at the end.
//! While the caller takes no records (`next(0)`) fetching pauses, but polling goes on, so that
//! the group's changes are answered at once.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use corecast_proto::ids::RoomId;
use futures::{FutureExt as _, Stream as _};
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::assignment::Assignment;
use super::producer::Delivered;
use super::{KafkaLog, PREFETCH_KBYTES, client_config, code, log_error, off_thread};
use crate::log::{Lag, LogConsumer, LogError, LogEvent, Record, Token};

/// Between commits.
const COMMIT: Duration = Duration::from_secs(1);
/// A caller that is full for this long is not fetched for any more. What was prefetched is
/// thrown away then, so a full moment shorter than that does not pause.
const FULL: Duration = Duration::from_millis(200);
/// The pause before a consumer that failed for good is replaced.
const REPLACE: Duration = Duration::from_secs(1);
/// Leaving the group may take this long; then the others wait for the session to end.
const CLOSE: Duration = Duration::from_secs(3);

/// See the module. Joins the group with the first [`next`](LogConsumer::next) and leaves it
/// when it is closed or dropped.
pub struct KafkaConsumer {
    log: KafkaLog,
    client: Option<Client>,
    /// Taken from the library and not handed out: what is left when a call is given up, and
    /// what came when none was wanted. At most one answer.
    held: VecDeque<Record>,
    /// Since when the caller takes no records.
    full_since: Option<Instant>,
    commit_at: Instant,
    /// No new client before this.
    join_at: Instant,
    /// Dead letters under way: who gave up waiting asks again for the same one.
    letters: BTreeMap<Token, Delivered>,
}

impl KafkaConsumer {
    pub(super) fn new(log: KafkaLog) -> Self {
        let now = Instant::now();
        Self {
            log,
            client: None,
            held: VecDeque::new(),
            full_since: None,
            commit_at: now + COMMIT,
            join_at: now,
            letters: BTreeMap::new(),
        }
    }

    /// Becomes a member of the group once the topics are there.
    async fn join(&mut self) -> Result<(), LogError> {
        if self.client.is_none() {
            sleep_until(self.join_at).await;
            self.log.shared.topics.ready().await;
            self.client = Some(Client::new(&self.log).map_err(|error| log_error(&error))?);
        }
        Ok(())
    }

    /// Gives a client up that failed for good. Its partitions are lost to us.
    fn handle_fatal(&mut self, reason: &str) -> LogEvent {
        tracing::error!(reason, "kafka consumer failed for good, making a new one");
        let lost = self.client.take().map(|client| client.context().lose_all());
        self.held.clear();
        self.join_at = Instant::now() + REPLACE;
        LogEvent::Revoked(lost.unwrap_or_default())
    }
}

impl LogConsumer for KafkaConsumer {
    async fn next(&mut self, max: usize) -> Result<LogEvent, LogError> {
        loop {
            self.join().await?;
            let Some(client) = &self.client else { continue };
            if let Some((_, reason)) = client.client().fatal_error() {
                return Ok(self.handle_fatal(&reason));
            }
            if let Some(partitions) = client.context().take_revoked() {
                self.held.retain(|record| !partitions.contains(&record.token.partition));
                return Ok(LogEvent::Revoked(partitions));
            }
            if max == 0 {
                let full_since = *self.full_since.get_or_insert_with(Instant::now);
                sleep_until(full_since + FULL).await;
                client.context().pause(&**client, true);
            } else {
                self.full_since = None;
                client.context().pause(&**client, false);
                gather(client, &mut self.held, max);
                // A revocation on the way: it is told first, and takes records along.
                if client.context().has_revoked() {
                    continue;
                }
                if !self.held.is_empty() {
                    let count = self.held.len().min(max);
                    return Ok(LogEvent::Records(self.held.drain(..count).collect()));
                }
            }
            tokio::select! {
                polled = poll(client) => match polled {
                    Polled::Record(record) => self.held.push_back(record),
                    Polled::Changed => {}
                    Polled::Error(error) => handle_error(client, &self.log, &error),
                },
                () = sleep_until(self.commit_at) => {
                    client.context().commit(&**client);
                    self.commit_at = Instant::now() + COMMIT;
                }
            }
        }
    }

    async fn done(&mut self, token: Token) -> Result<(), LogError> {
        let Some(client) = &self.client else { return Ok(()) };
        client.context().done(token);
        // Also for a caller that has no time to wait for records.
        if Instant::now() >= self.commit_at {
            client.context().commit(&**client);
            self.commit_at = Instant::now() + COMMIT;
        }
        Ok(())
    }

    async fn dead_letter(&mut self, record: &Record, reason: &str) -> Result<(), LogError> {
        let Token { partition, offset } = record.token;
        let delivered = self.letters.entry(record.token).or_insert_with(|| {
            let origin = format!("{}/{partition}/{offset}", self.log.shared.settings.topic);
            self.log.send_dead_letter(record.key.as_str(), &record.value, &origin, reason)
        });
        // By reference: who drops this future finds the same letter again.
        let result = (&mut *delivered).await;
        self.letters.remove(&record.token);
        result.unwrap_or_else(|_| Err(LogError::Unavailable("the producer ended".to_owned())))
    }

    fn lag(&self) -> Vec<Lag> {
        self.client.as_ref().map(|client| client.context().lag()).unwrap_or_default()
    }

    fn is_up(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.context().is_up())
    }

    async fn close(&mut self) {
        let Some(mut client) = self.client.take() else { return };
        let (ended, end) = oneshot::channel();
        client.ended = Some(ended);
        drop(client);
        if timeout(CLOSE, end).await.is_err() {
            tracing::warn!("kafka did not let a consumer go in time");
        }
    }
}

type Native = StreamConsumer<Assignment>;

/// A member of the group. Nobody waits for its end: that commits what is done and leaves.
struct Client {
    native: Option<Native>,
    ended: Option<oneshot::Sender<()>>,
}

impl Client {
    fn new(log: &KafkaLog) -> Result<Self, KafkaError> {
        let settings = &log.shared.settings;
        let mut config = client_config(&log.shared.brokers);
        config
            .set("group.id", &settings.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A consumer that vanished is replaced before a gateway has waited for ten
            // seconds; a broker allows no less by default.
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "1000")
            .set("max.poll.interval.ms", "60000")
            .set("queued.max.messages.kbytes", PREFETCH_KBYTES.to_string())
            .set("queued.min.messages", "1000")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.error.backoff.ms", "100")
            .set("statistics.interval.ms", "2000");
        let native = Native::from_config_and_context(&config, Assignment::new(settings.topic.clone()))?;
        native.subscribe(&[&settings.topic])?;
        Ok(Self { native: Some(native), ended: None })
    }
}

impl Deref for Client {
    type Target = Native;

    fn deref(&self) -> &Native {
        self.native.as_ref().expect("present until it is dropped")
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let (native, ended) = (self.native.take(), self.ended.take());
        off_thread(move || {
            // The revocation that comes with it commits.
            drop(native);
            if let Some(ended) = ended {
                let _ = ended.send(());
            }
        });
    }
}

/// What a poll brought.
enum Polled {
    Record(Record),
    /// Partitions were taken away.
    Changed,
    Error(KafkaError),
}

/// Waits for the next thing to happen. Cancel safe: what is taken is answered.
async fn poll(client: &Client) -> Polled {
    let mut messages = pin!(client.stream());
    std::future::poll_fn(|context| match messages.as_mut().poll_next(context) {
        Poll::Ready(Some(Ok(message))) => {
            client.context().reachable.up();
            Poll::Ready(Polled::Record(record(&message)))
        }
        Poll::Ready(Some(Err(error))) => Poll::Ready(Polled::Error(error)),
        Poll::Ready(None) => unreachable!("a stream of kafka has no end"),
        Poll::Pending if client.context().has_revoked() => Poll::Ready(Polled::Changed),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Takes what is there without waiting, up to `max` in all.
fn gather(client: &Client, held: &mut VecDeque<Record>, max: usize) {
    while held.len() < max
        && let Some(Polled::Record(record)) = poll(client).now_or_never()
    {
        held.push_back(record);
    }
}

/// Keys of other producers may be absent or no text; then nobody needs them.
fn record(message: &BorrowedMessage<'_>) -> Record {
    let key = message.key().map(String::from_utf8_lossy).unwrap_or_default();
    Record {
        token: Token { partition: message.partition(), offset: message.offset() },
        key: RoomId::from(key.as_ref()),
        value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
    }
}

/// What the library tells beside records; it mends most of it by itself.
fn handle_error(client: &Client, log: &KafkaLog, error: &KafkaError) {
    use RDKafkaErrorCode::{UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    match code(error) {
        UnknownTopicOrPartition | UnknownTopic | UnknownPartition => log.shared.topics.check(),
        _ => client.context().reachable.error(error, "while reading"),
    }
}
