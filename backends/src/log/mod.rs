//! The complete path: every push, kept until all gateways took it over.

pub mod embedded;

use std::future::Future;

use bytes::Bytes;
use corecast_proto::ids::RoomId;

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
/// 1. `append` answered `Ok`: the record is durable and every consumer group will see it.
/// 2. Records of one key stay in the order of their `append` calls.
/// 3. A record may appear twice after an error; it is never lost after `Ok`.
pub trait LogProducer: Clone + Send + Sync + 'static {
    /// Appends one record.
    fn append(&self, key: &RoomId, value: Bytes) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Does a commit of the store already put its records on this log? Then no relay runs.
    fn is_outbox(&self) -> bool;
}

/// The consuming side.
///
/// # Contract
/// 1. Every record is seen at least once; what was not [`done`](LogConsumer::done) is seen
///    again after a restart.
/// 2. `done(token)` says: everything of this partition up to and including the offset needs
///    no further push. It may be recorded up to a second later.
/// 3. `next` waits; it answers at most `max` records. Dropping the future loses nothing.
/// 4. Back-pressure: nothing is read ahead beyond one answer.
pub trait LogConsumer: Send + 'static {
    /// The next records, or a change of assignment.
    fn next(&mut self, max: usize) -> impl Future<Output = Result<LogEvent, LogError>> + Send;

    /// See the contract.
    fn done(&mut self, token: Token) -> impl Future<Output = Result<(), LogError>> + Send;

    /// Puts a record that nobody can read aside, durably, before its offset is committed.
    fn dead_letter(
        &mut self,
        record: &Record,
        reason: &str,
    ) -> impl Future<Output = Result<(), LogError>> + Send;
}

/// The producer that was chosen at start.
#[derive(Clone)]
pub enum AnyProducer {
    /// The store's outbox.
    Embedded(embedded::EmbeddedLog),
}

/// The consumer that was chosen at start.
pub enum AnyConsumer {
    /// The store's outbox.
    Embedded(embedded::EmbeddedConsumer),
}

impl AnyProducer {
    /// Who owns the outbox rows that logic writes: the embedded log knows one owner only,
    /// any other log is fed by the relay of the logic node with this id.
    pub fn outbox_owner<'a>(&self, _logic_id: &'a str) -> &'a str {
        match self {
            Self::Embedded(_) => embedded::OWNER,
        }
    }
}

impl LogProducer for AnyProducer {
    async fn append(&self, key: &RoomId, value: Bytes) -> Result<(), LogError> {
        match self {
            Self::Embedded(log) => log.append(key, value).await,
        }
    }

    fn is_outbox(&self) -> bool {
        match self {
            Self::Embedded(log) => log.is_outbox(),
        }
    }
}

impl LogConsumer for AnyConsumer {
    async fn next(&mut self, max: usize) -> Result<LogEvent, LogError> {
        match self {
            Self::Embedded(consumer) => consumer.next(max).await,
        }
    }

    async fn done(&mut self, token: Token) -> Result<(), LogError> {
        match self {
            Self::Embedded(consumer) => consumer.done(token).await,
        }
    }

    async fn dead_letter(&mut self, record: &Record, reason: &str) -> Result<(), LogError> {
        match self {
            Self::Embedded(consumer) => consumer.dead_letter(record, reason).await,
        }
    }
}
