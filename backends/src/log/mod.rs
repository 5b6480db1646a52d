//! The complete path: every push, kept until all gateways took it over.

pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
mod settings;

use std::future::Future;

use bytes::Bytes;
use corecast_proto::ids::RoomId;
#[cfg(feature = "kafka")]
use futures::future::Either;

pub use settings::{Inspection, Settings};

/// Where a record lies. Offsets of a partition grow; they may have gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Partition; embedded: 0.
    pub partition: i32,
    /// Offset; embedded: the outbox row's id.
    pub offset: i64,
}

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it lies.
    pub token: Token,
    /// Room id.
    pub key: RoomId,
    /// Encoded `ChatRoom.Job.PushMsg`.
    pub value: Bytes,
}

/// How far a consumer is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Partition.
    pub partition: i32,
    /// Records in it that are not done; a few seconds old.
    pub records: u64,
}

/// What a consumer sees next.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// Records, in order within each partition.
    Records(Vec<Record>),
    /// These partitions went to another consumer: finish or abandon, never commit them.
    Revoked(Vec<i32>),
}

/// Why the log could not serve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Try again; nothing is lost.
    #[error("log unavailable: {0}")]
    Unavailable(String),
    /// The record will never be taken: too large, malformed.
    #[error("record refused: {0}")]
    Refused(String),
}

/// The producing side.
///
/// # Contract
/// 1. Answered `Ok`: the record is durable and every consumer group will see it.
/// 2. Records of one key stay in the order of the calls of `enqueue`, and of those of `append`
///    that were not under way at the same time.
/// 3. A record may appear twice after an error or a call that was given up; it is never lost
///    after `Ok`.
/// 4. `Unavailable` concerns what was enqueued behind it as well, until its answer was seen:
///    whoever wants the order waits for all answers and goes on with the record that failed.
/// 5. A log that is away is waited for, for as long as it takes: a caller that does not want
///    that sets a deadline.
pub trait LogProducer: Clone + Send + Sync + 'static {
    /// Takes a place behind all that was enqueued before, at once; the future answers when the
    /// record is durable. Any number may be under way; every future must be polled or dropped.
    fn enqueue(
        &self,
        key: &RoomId,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send + use<Self>;

    /// Appends one record.
    fn append(&self, key: &RoomId, value: Bytes) -> impl Future<Output = Result<(), LogError>> + Send {
        self.enqueue(key, value)
    }

    /// Does a commit of the store already put its records on this log? Then no relay runs.
    fn is_outbox(&self) -> bool;
}

/// The consuming side.
///
/// # Contract
/// 1. Every record is seen at least once; what was not [`done`](LogConsumer::done) is seen
///    again after a restart.
/// 2. `done(token)` says: everything of this partition up to and including the offset needs
///    no further push. It may be recorded up to a second later. Of a partition that was
///    revoked, told or not, nothing is recorded any more.
/// 3. `next` waits; it answers at most `max` records, none of a partition that is revoked. A
///    `max` of 0 waits for changes of the assignment alone: who is full calls it all the
///    same, for as long as it is full. Dropping the future loses nothing.
/// 4. Back-pressure: nothing is handed out beyond one answer; what a library prefetches for
///    the next one is bounded.
/// 5. A log that is away is waited for, in `next`.
pub trait LogConsumer: Send + 'static {
    /// The next records, or a change of assignment.
    fn next(&mut self, max: usize) -> impl Future<Output = Result<LogEvent, LogError>> + Send;

    /// See the contract.
    fn done(&mut self, token: Token) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Puts a record that nobody can read aside, durably, before its offset is committed.
    /// Who gave up waiting asks again for the same record.
    fn dead_letter(
        &mut self,
        record: &Record,
        reason: &str,
    ) -> impl Future<Output = Result<(), LogError>> + Send;

    /// How far behind it is, by partition. Empty where nobody counts.
    fn lag(&self) -> Vec<Lag>;

    /// Does it take part: a member of its group, and the log can be reached?
    fn is_up(&self) -> bool;

    /// Records what is done and gives its partitions to others, within a few seconds. After
    /// that it must not be used. A consumer that is dropped does the same, unobserved.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

/// The producer that was chosen at start.
#[derive(Clone)]
pub enum AnyProducer {
    /// The store's outbox.
    Embedded(embedded::EmbeddedLog),
    /// A Kafka cluster.
    #[cfg(feature = "kafka")]
    Kafka(kafka::KafkaLog),
}

/// The consumer that was chosen at start.
pub enum AnyConsumer {
    /// The store's outbox.
    Embedded(embedded::EmbeddedConsumer),
    /// A member of a group on a Kafka cluster.
    #[cfg(feature = "kafka")]
    Kafka(kafka::consumer::KafkaConsumer),
}

impl AnyProducer {
    /// Who owns the outbox rows that logic writes: the embedded log knows one owner only,
    /// any other log is fed by the relay of the logic node with this id.
    #[cfg_attr(not(feature = "kafka"), allow(unused_variables, reason = "there is one owner"))]
    pub fn outbox_owner<'a>(&self, logic_id: &'a str) -> &'a str {
        match self {
            Self::Embedded(_) => embedded::OWNER,
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => logic_id,
        }
    }

    /// Looks at the server; changes nothing. `None`: there is none.
    ///
    /// # Errors
    /// It does not answer within seconds.
    pub async fn inspect(&self) -> Result<Option<Inspection>, LogError> {
        match self {
            Self::Embedded(_) => Ok(None),
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.inspect().await.map(Some),
        }
    }

    /// Another consumer of this log. The embedded one serves one at a time.
    pub fn consumer(&self) -> AnyConsumer {
        match self {
            Self::Embedded(log) => AnyConsumer::Embedded(log.consumer()),
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => AnyConsumer::Kafka(log.consumer()),
        }
    }
}

impl LogProducer for AnyProducer {
    #[cfg(feature = "kafka")]
    fn enqueue(
        &self,
        key: &RoomId,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send + use<> {
        match self {
            Self::Embedded(log) => Either::Left(log.enqueue(key, value)),
            Self::Kafka(log) => Either::Right(log.enqueue(key, value)),
        }
    }

    #[cfg(not(feature = "kafka"))]
    fn enqueue(
        &self,
        key: &RoomId,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send + use<> {
        let Self::Embedded(log) = self;
        log.enqueue(key, value)
    }

    async fn append(&self, key: &RoomId, value: Bytes) -> Result<(), LogError> {
        match self {
            Self::Embedded(log) => log.append(key, value).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.append(key, value).await,
        }
    }

    fn is_outbox(&self) -> bool {
        match self {
            Self::Embedded(log) => log.is_outbox(),
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.is_outbox(),
        }
    }
}

/// The same method of whichever consumer it is.
macro_rules! each {
    ($any:expr, $consumer:ident => $call:expr) => {
        match $any {
            AnyConsumer::Embedded($consumer) => $call,
            #[cfg(feature = "kafka")]
            AnyConsumer::Kafka($consumer) => $call,
        }
    };
}

impl LogConsumer for AnyConsumer {
    async fn next(&mut self, max: usize) -> Result<LogEvent, LogError> {
        each!(self, consumer => consumer.next(max).await)
    }

    async fn done(&mut self, token: Token) -> Result<(), LogError> {
        each!(self, consumer => consumer.done(token).await)
    }

    async fn dead_letter(&mut self, record: &Record, reason: &str) -> Result<(), LogError> {
        each!(self, consumer => consumer.dead_letter(record, reason).await)
    }

    fn lag(&self) -> Vec<Lag> {
        each!(self, consumer => consumer.lag())
    }

    fn is_up(&self) -> bool {
        each!(self, consumer => consumer.is_up())
    }

    async fn close(&mut self) {
        each!(self, consumer => consumer.close().await)
    }
}
