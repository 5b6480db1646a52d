//! The store's outbox table is the log: one partition, offset = row id.
//!
//! A commit of the store puts its records here in the same transaction, so there is no
//! relay and no second write. The consumer reads rows by id and deletes them when they are
//! done. One writer gives the ids, so rows become visible in their order: reading on from
//! the last id never skips one.
//!
//! Nothing is queued here: an answer of `next` holds at most `max` records, and the ids
//! handed out and not done yet (8 bytes each) are bounded by the window of the caller.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use corecast_proto::ids::RoomId;
use tokio::sync::oneshot;

use super::{Lag, LogConsumer, LogError, LogEvent, LogProducer, Record, Token};
use crate::store::{AnyStore, DeadLetter, OutboxRecord, Store, StoreError};

/// Owner of every row of an embedded log, whatever `logic.id` says: there is one data folder
/// and one consumer, and a renamed node must not orphan rows.
pub const OWNER: &str = "embedded";

/// The only partition.
pub const PARTITION: i32 = 0;

/// The producing side.
#[derive(Clone)]
pub struct EmbeddedLog {
    store: AnyStore,
    /// Ends with the record that was enqueued last.
    last: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
}

impl EmbeddedLog {
    /// The log that lies in this store.
    pub fn new(store: AnyStore) -> Self {
        Self { store, last: Arc::default() }
    }

    /// The consuming side. One at a time: two would both see every record.
    pub fn consumer(&self) -> EmbeddedConsumer {
        EmbeddedConsumer { store: self.store.clone(), after: 0, handed: VecDeque::new() }
    }
}

impl LogProducer for EmbeddedLog {
    fn enqueue(
        &self,
        key: &RoomId,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send + use<> {
        let (log, key) = (self.clone(), key.clone());
        // Dropped at the end of the future, or with it when it is given up.
        let (turn, next) = oneshot::channel();
        let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(next);
        async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let appended = log.append(&key, value).await;
            drop(turn);
            appended
        }
    }

    /// Not behind what was enqueued: side by side, so that several share a commit.
    async fn append(&self, key: &RoomId, value: Bytes) -> Result<(), LogError> {
        let record = OutboxRecord { room_id: key.clone(), owner: OWNER.to_owned(), value };
        self.store.append_outbox(record).await?;
        Ok(())
    }

    fn is_outbox(&self) -> bool {
        true
    }
}

/// The consuming side. Begins with the oldest row that is left.
pub struct EmbeddedConsumer {
    store: AnyStore,
    /// Last id handed out.
    after: u64,
    /// Ids handed out and not done, in order.
    handed: VecDeque<u64>,
}

impl LogConsumer for EmbeddedConsumer {
    async fn next(&mut self, max: usize) -> Result<LogEvent, LogError> {
        if max == 0 {
            // There is one consumer: its assignment never changes.
            return std::future::pending().await;
        }
        let limit = u32::try_from(max).unwrap_or(u32::MAX);
        loop {
            // State changes only after the last await: a dropped future loses nothing.
            let rows = self.store.outbox(OWNER, self.after, limit).await?;
            let Some(last) = rows.last() else {
                self.store.outbox_changed().await;
                continue;
            };
            self.after = last.id;
            self.handed.extend(rows.iter().map(|row| row.id));
            let record = |row: crate::store::OutboxRow| Record {
                token: Token { partition: PARTITION, offset: offset(row.id) },
                key: row.room_id,
                value: row.value,
            };
            return Ok(LogEvent::Records(rows.into_iter().map(record).collect()));
        }
    }

    async fn done(&mut self, token: Token) -> Result<(), LogError> {
        let done = self.handed.partition_point(|&id| offset(id) <= token.offset);
        let ids = self.handed.iter().take(done).copied().collect();
        self.store.delete_outbox(ids).await?;
        self.handed.drain(..done);
        Ok(())
    }

    async fn dead_letter(&mut self, record: &Record, reason: &str) -> Result<(), LogError> {
        let letter = DeadLetter {
            room_id: record.key.clone(),
            value: record.value.clone(),
            reason: reason.to_owned(),
        };
        self.store.put_dead_letter(letter).await?;
        Ok(())
    }

    /// The outbox is not counted.
    fn lag(&self) -> Vec<Lag> {
        Vec::new()
    }

    fn is_up(&self) -> bool {
        true
    }

    async fn close(&mut self) {}
}

fn offset(id: u64) -> i64 {
    i64::try_from(id).expect("the store gives ids below 2^63")
}

impl From<StoreError> for LogError {
    /// Even an unknown outcome is `Unavailable`: a record may appear twice after an error.
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
