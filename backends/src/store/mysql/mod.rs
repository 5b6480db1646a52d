//! The store on MySQL 8.0 or later, or MariaDB 10.6 or later.
//!
//! | module | what |
//! |---|---|
//! | `target` `session` `pool` | the URL; a connection and its settings; so many of them |
//! | `tries` | how often work is tried, deadlocks, commits without an answer |
//! | `barrier` | what a read answers is on the disk |
//! | `fault` | the server's errors by what may be done about them |
//! | `statement` `row` | statements over many rows, values |
//! | `commit` | client frames → messages, numbers, outbox rows |
//! | `rooms` `accounts` `outbox` | the other writes, and reads that go with them |
//! | `read` `snapshot` `replica` | reads of rooms and messages |
//! | `schema` `counters` | tables and versions, what is counted |
//!
//! Nothing is opened before the first call: a server that is down at the start is a call that
//! answers [`StoreError::Unavailable`]. A schema that this build does not know is refused by
//! each connection, so by every call.
//!
//! *Outbox ids.* InnoDB draws them when a row is inserted and keeps the counter in its redo log
//! (MySQL 8.0, MariaDB 10.2.4 and later), so an id is never used again, after a crash neither.
//! Several transactions write at once: of two ids the lower may become visible later, see
//! [`Store::outbox`]. Within a room ids follow the numbers, because a room's row stays locked
//! from the numbering to the commit.

mod accounts;
mod barrier;
mod commit;
mod counters;
mod fault;
mod outbox;
mod pool;
mod read;
mod replica;
mod rooms;
mod row;
mod schema;
mod session;
mod snapshot;
mod statement;
mod target;
mod tries;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use corecast_proto::ids::{Position, RoomId};
use tokio::sync::watch;

use self::counters::{Counters, count};
use self::fault::Fault;
use self::pool::Pool;
use self::replica::Replica;
use self::target::Target;
use self::tries::{Kind, Tries, on};
use super::*;

pub use self::counters::MysqlCounters;
pub use self::schema::{SCHEMA_VERSION, inspect, migrate};

/// The store on a server. Cheap to clone; see [`Store`] for the contract.
pub struct MysqlStore {
    inner: Arc<Inner>,
    /// Version of the outbox this handle has been told of.
    told: AtomicU64,
}

struct Inner {
    pool: Pool,
    replica: Option<Replica>,
    counters: Arc<Counters>,
    outbox_version: watch::Sender<u64>,
    repeats: commit::Repeats,
}

/// Told of no version yet: the first [`Store::outbox_changed`] of a handle answers at once,
/// since nobody knows what its owner read before.
const TOLD_NOTHING: u64 = u64::MAX;

impl Clone for MysqlStore {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), told: AtomicU64::new(TOLD_NOTHING) }
    }
}

/// Reads the URLs as [`MysqlStore::new`] does, and opens nothing.
///
/// # Errors
/// What is wrong with a URL, without repeating it.
pub fn check(url: &str, options: &StoreOptions) -> Result<(), String> {
    targets(url, options).map(drop)
}

/// The primary, and the replica where there is one.
fn targets(url: &str, options: &StoreOptions) -> Result<(Target, Option<Target>), String> {
    let replica = options.replica_url.as_deref().map(Target::parse).transpose();
    let replica = replica.map_err(|reason| format!("replica_url: {reason}"))?;
    Ok((Target::parse(url)?, replica))
}

impl MysqlStore {
    /// A store at `mysql://user:password@host:port/database`. Opens no connection yet. Must
    /// be called inside a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with a URL, without repeating it.
    pub fn new(url: &str, options: &StoreOptions) -> Result<Self, String> {
        let counters = Arc::new(Counters::default());
        let (target, replica) = targets(url, options)?;
        let replica = replica.map(|target| Replica::new(target, options));
        let pool = Pool::new(target, options, Arc::clone(&counters));
        let inner = Inner {
            pool,
            replica,
            counters,
            outbox_version: watch::Sender::new(0),
            repeats: commit::Repeats::default(),
        };
        Ok(Self { inner: Arc::new(inner), told: AtomicU64::new(TOLD_NOTHING) })
    }

    /// Closes the connections. Every handle answers [`StoreError::Unavailable`] from then on.
    pub async fn close(&self) {
        self.inner.pool.close().await;
        if let Some(replica) = &self.inner.replica {
            replica.close().await;
        }
    }

    /// What it counted since it was opened.
    pub fn counters(&self) -> MysqlCounters {
        self.inner.counters.read()
    }

    fn tries(&self, kind: Kind) -> Tries<'_> {
        Tries::new(&self.inner.pool, &self.inner.counters, kind)
    }

    fn outbox_grew(&self) {
        self.inner.outbox_version.send_modify(|version| *version += 1);
    }
}

impl Store for MysqlStore {
    async fn create_user(&self, user: NewUser) -> Result<CreateUser, StoreError> {
        // Done again it would find its own name taken.
        let tries = self.tries(Kind::Write).once();
        Ok(on!(tries, session => accounts::create_user(session, &user))?)
    }

    async fn user_by_email(&self, email_folded: &str) -> Result<Option<User>, StoreError> {
        Ok(on!(self.tries(Kind::Peek), session => accounts::user_by_email(session, email_folded))?)
    }

    async fn user(&self, user_id: &str) -> Result<Option<User>, StoreError> {
        Ok(on!(self.tries(Kind::Peek), session => accounts::user(session, user_id))?)
    }

    async fn put_session(&self, hash: SessionHash, user_id: &str, expires_ms: i64) -> Result<(), StoreError> {
        let tries = self.tries(Kind::Statement);
        Ok(on!(tries, session => accounts::put_session(session, &hash, user_id, expires_ms))?)
    }

    async fn sessions(
        &self,
        hashes: &[SessionHash],
        now_ms: i64,
    ) -> Result<Vec<Option<Session>>, StoreError> {
        Ok(on!(self.tries(Kind::Peek), session => accounts::sessions(session, hashes, now_ms))?)
    }

    async fn extend_session(&self, hash: SessionHash, expires_ms: i64) -> Result<(), StoreError> {
        let tries = self.tries(Kind::Statement);
        Ok(on!(tries, session => accounts::extend_session(session, &hash, expires_ms))?)
    }

    async fn delete_session(&self, hash: SessionHash) -> Result<(), StoreError> {
        Ok(on!(self.tries(Kind::Statement), session => accounts::delete_session(session, &hash))?)
    }

    async fn delete_expired_sessions(&self, now_ms: i64) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let tries = self.tries(Kind::Statement);
            let deleted = on!(tries, session => accounts::delete_expired(session, now_ms))?;
            all += deleted;
            if deleted < accounts::EXPIRED_PER_STATEMENT {
                return Ok(all);
            }
        }
    }

    async fn seed_rooms(&self, rooms: &[SeedRoom]) -> Result<(), StoreError> {
        Ok(on!(self.tries(Kind::Write), session => rooms::seed(session, rooms))?)
    }

    async fn create_room(&self, room: NewRoom) -> Result<CreateRoom, StoreError> {
        let created = on!(self.tries(Kind::Write), session => rooms::create(session, &room))?;
        if matches!(created, CreateRoom::Created { outbox: Some(_), .. }) {
            self.outbox_grew();
        }
        Ok(created)
    }

    async fn room(&self, room_id: &str) -> Result<Option<Room>, StoreError> {
        Ok(on!(self.tries(Kind::Read), session => read::one_room(session, room_id))?)
    }

    async fn rooms(&self) -> Result<Vec<Room>, StoreError> {
        Ok(on!(self.tries(Kind::Read), session => read::rooms(session))?)
    }

    async fn commit(&self, frames: Vec<CommitFrame>) -> Result<Vec<FrameOutcome>, StoreError> {
        let mut outcomes = Vec::with_capacity(frames.len());
        // What is still to be committed, in order from the end.
        let mut parts = vec![&frames[..]];
        while let Some(part) = parts.pop() {
            let tries = self.tries(Kind::Write);
            let fault = match on!(tries, session => commit::commit(session, part, &self.inner.repeats)) {
                Ok(stored) => {
                    outcomes.extend(stored);
                    continue;
                }
                Err(fault) => fault,
            };
            match fault {
                Fault::Data(reason) if part.len() == 1 => {
                    count(&self.inner.counters.refused_frames);
                    outcomes.push(FrameOutcome::Refused(reason));
                }
                // One frame is at fault; its neighbours are not.
                Fault::Data(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                // A part may be stored already.
                fault if outcomes.iter().any(|outcome| matches!(outcome, FrameOutcome::Stored { .. })) => {
                    return Err(StoreError::Unknown(fault.to_string()));
                }
                fault => return Err(fault.into()),
            }
        }
        let grew = |outcome: &FrameOutcome| matches!(outcome, FrameOutcome::Stored { outbox, .. } if !outbox.is_empty());
        if outcomes.iter().any(grew) {
            self.outbox_grew();
        }
        Ok(outcomes)
    }

    async fn snapshot(&self, query: SnapshotQuery) -> Result<Snapshot, StoreError> {
        Ok(on!(self.tries(Kind::Snapshot), session => snapshot::snapshot(session, &query))?)
    }

    async fn heads(&self, room_ids: &[RoomId], defaults: bool) -> Result<Vec<Head>, StoreError> {
        // One statement is a snapshot by itself.
        let kind = if read::heads_need_snapshot(room_ids, defaults) { Kind::Snapshot } else { Kind::Read };
        Ok(on!(self.tries(kind), session => read::heads(session, room_ids, defaults))?)
    }

    async fn messages_before(
        &self,
        room_id: &str,
        before: u64,
        count: u32,
    ) -> Result<Option<Page>, StoreError> {
        let Some(replica) = &self.inner.replica else {
            let tries = self.tries(Kind::Read);
            return Ok(on!(tries, session => read::messages_before(session, room_id, before, count))?);
        };
        let head = on!(self.tries(Kind::Read), session => read::head_of_room(session, room_id))?;
        let Some(head) = head else { return Ok(None) };
        let (after, last) = read::bounds_before(head, before, count);
        if let Some(messages) = replica.range(&self.inner.counters, room_id, head.epoch, after, last).await {
            return Ok(Some(Page { head, messages }));
        }
        let messages = on!(self.tries(Kind::Read), session => read::range(session, room_id, after, last))?;
        Ok(Some(Page { head, messages }))
    }

    async fn messages_after(
        &self,
        room_id: &str,
        after: u64,
        up_to: u64,
        count: u32,
        max_bytes: usize,
    ) -> Result<Option<Page>, StoreError> {
        let tries = self.tries(Kind::Read);
        Ok(on!(tries, session => read::messages_after(session, room_id, after, up_to, count, max_bytes))?)
    }

    async fn creations_after(
        &self,
        after: u64,
        up_to: u64,
        count: u32,
    ) -> Result<(Position, Vec<Room>), StoreError> {
        let tries = self.tries(Kind::Snapshot);
        Ok(on!(tries, session => read::creations_after(session, after, up_to, count))?)
    }

    async fn append_outbox(&self, record: OutboxRecord) -> Result<u64, StoreError> {
        let id = on!(self.tries(Kind::Statement), session => outbox::append(session, &record))?;
        self.outbox_grew();
        Ok(id)
    }

    async fn outbox(&self, owner: &str, after: u64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        Ok(on!(self.tries(Kind::Read), session => outbox::rows(session, owner, after, limit))?)
    }

    async fn outbox_changed(&self) {
        let mut version = self.inner.outbox_version.subscribe();
        loop {
            let current = *version.borrow_and_update();
            if self.told.swap(current, Ordering::Relaxed) != current {
                return;
            }
            if version.changed().await.is_err() {
                // Cannot be: this handle holds the sender.
                return std::future::pending().await;
            }
        }
    }

    async fn delete_outbox(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        for run in outbox::runs(&ids) {
            on!(self.tries(Kind::Statement), session => outbox::delete(session, &run))?;
        }
        Ok(())
    }

    async fn outbox_owners(&self) -> Result<Vec<OutboxOwner>, StoreError> {
        Ok(on!(self.tries(Kind::Peek), session => outbox::owners(session))?)
    }

    async fn claim_outbox(&self, owner: &str, claimant: &str, limit: u32) -> Result<u64, StoreError> {
        // Done again it would take more.
        let tries = self.tries(Kind::Write).once();
        let claimed = on!(tries, session => outbox::claim(session, owner, claimant, limit))?;
        if claimed > 0 {
            self.outbox_grew();
        }
        Ok(claimed)
    }

    async fn put_dead_letter(&self, letter: DeadLetter) -> Result<(), StoreError> {
        Ok(on!(self.tries(Kind::Statement), session => outbox::put_dead_letter(session, &letter))?)
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        Ok(on!(self.tries(Kind::Peek), session => outbox::dead_letters(session, limit))?)
    }

    async fn new_epoch(&self, now_ms: u64) -> Result<u64, StoreError> {
        Ok(on!(self.tries(Kind::Statement), session => rooms::new_epoch(session, now_ms))?)
    }

    fn pool(&self) -> Option<PoolUse> {
        Some(self.inner.pool.usage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_down_is_unavailable_and_not_an_error_of_opening() {
        // Port 1 refuses on every machine that runs tests.
        let store = MysqlStore::new("mysql://root@127.0.0.1:1/db", &StoreOptions::default()).expect("opens");
        assert!(matches!(store.rooms().await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.new_epoch(1).await, Err(StoreError::Unavailable(_))));
        let sent = store.commit(Vec::new()).await;
        assert!(matches!(sent, Err(StoreError::Unavailable(_))));
    }
}
