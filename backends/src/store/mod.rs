//! Accounts, sessions, rooms, messages and the outbox: the truth.
//!
//! | module | what |
//! |---|---|
//! | [`types`] | rows in, rows out, errors |
//! | [`sqlite`] | embedded: one file, one writer thread, group commit |
//! | `mysql` | a server: MySQL or MariaDB; feature `mysql` |
//! | [`server`] | what can be told about such a server |

mod any;
#[cfg(feature = "mysql")]
pub mod mysql;
mod rows;
pub mod server;
mod share;
pub mod sqlite;
pub mod types;

use std::future::Future;
use std::time::Duration;

use corecast_proto::ids::{Position, RoomId};

pub use types::*;

/// A row of the outbox becomes visible at most this long after a row of its owner with a
/// higher id: no transaction lives longer. See [`Store::outbox`].
pub const OUTBOX_LATE: Duration = Duration::from_secs(30);

/// The truth. All text is stored and compared as bytes: no collation decides equality;
/// caseless uniqueness uses the folded forms the caller passes.
///
/// # Contract
/// 1. *Durable.* A write that answered `Ok` survives a power failure, and so does what a read of
///    rooms, messages or the outbox answered: nobody is told what a crash takes back.
/// 2. *All or none.* A method is one transaction; a frame of [`commit`](Store::commit) is
///    stored whole or not at all, and a refused frame never fails its neighbours.
/// 3. *One number line per room.* `seq` is given inside the committing transaction: 1, 2,
///    3 … without gaps; timestamps and ids of a room never run backwards (ms = max(the
///    room's last ms, database time)).
/// 4. *Keys.* A (room, user, key) is stored once; the same key again, in the same frame,
///    batch or any later one, answers with the first one's id, seq and timestamp, and
///    writes nothing. Content is not compared.
/// 5. *Outbox with the message.* The outbox rows of a commit are written by its
///    transaction: one row is one frame (≤ 64 KiB unless one client frame alone is
///    larger), rows of a room cover its numbers without gap or overlap. Ids grow and are
///    never used again.
/// 6. *One snapshot.* [`snapshot`](Store::snapshot) and [`heads`](Store::heads) read one
///    consistent state of the primary.
/// 7. *Unknown outcome.* [`StoreError::Unknown`] means the write may or may not have
///    happened; sending it again with the same keys is safe.
/// 8. *Cancel safety.* A dropped future of a write may still write. Reads have no effect.
/// 9. *Not found* is `None` or absence from the list, never an error.
/// 10. *`global` is no room.* Only [`heads`](Store::heads) answers for it by id; everywhere
///     else it is not found, and a commit to it is an unknown room.
pub trait Store: Clone + Send + Sync + 'static {
    /// Creates the account. Uniqueness by `username_folded` and `email_folded`; when both
    /// are taken the username is reported.
    fn create_user(&self, user: NewUser) -> impl Future<Output = Result<CreateUser, StoreError>> + Send;

    /// The account with this folded email, with its password hash.
    fn user_by_email(
        &self,
        email_folded: &str,
    ) -> impl Future<Output = Result<Option<User>, StoreError>> + Send;

    /// The account with this id.
    fn user(&self, user_id: &str) -> impl Future<Output = Result<Option<User>, StoreError>> + Send;

    /// Stores a session. The same hash again replaces it.
    fn put_session(
        &self,
        hash: SessionHash,
        user_id: &str,
        expires_ms: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The live sessions among these, in the order asked. Expired ones are `None`.
    fn sessions(
        &self,
        hashes: &[SessionHash],
        now_ms: i64,
    ) -> impl Future<Output = Result<Vec<Option<Session>>, StoreError>> + Send;

    /// Moves the expiry of a session that exists. Never shortens it, never brings a deleted
    /// one back.
    fn extend_session(
        &self,
        hash: SessionHash,
        expires_ms: i64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes a session; deleting an absent one is `Ok`.
    fn delete_session(&self, hash: SessionHash) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Deletes sessions that expired before `now_ms`; answers how many.
    fn delete_expired_sessions(&self, now_ms: i64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Creates the rooms of the configuration that do not exist (by id), with their own
    /// line at 0, without a number on `global`. A name that another room has is an error.
    fn seed_rooms(&self, rooms: &[SeedRoom]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Creates a room. Not for `private` ones, it takes the next number of `global` and
    /// writes an outbox row with [`NewRoom::frame`]. The same `key` again answers the
    /// first room. The kind becomes `default_overflow` when `default_max` default rooms exist.
    fn create_room(&self, room: NewRoom) -> impl Future<Output = Result<CreateRoom, StoreError>> + Send;

    /// One room.
    fn room(&self, room_id: &str) -> impl Future<Output = Result<Option<Room>, StoreError>> + Send;

    /// All rooms but `global`, by creation.
    fn rooms(&self) -> impl Future<Output = Result<Vec<Room>, StoreError>> + Send;

    /// Commits client frames, in this order, in one transaction; answers one result per
    /// frame, in the same order. `user_id` is not checked here.
    fn commit(
        &self,
        frames: Vec<CommitFrame>,
    ) -> impl Future<Output = Result<Vec<FrameOutcome>, StoreError>> + Send;

    /// `global`'s place and, in the same snapshot, heads with messages of the rooms asked.
    fn snapshot(&self, query: SnapshotQuery) -> impl Future<Output = Result<Snapshot, StoreError>> + Send;

    /// (epoch, head, kind) of these rooms, `global` allowed; with `defaults` `global` and
    /// every default room too (each once). Unknown rooms are absent.
    fn heads(
        &self,
        room_ids: &[RoomId],
        defaults: bool,
    ) -> impl Future<Output = Result<Vec<Head>, StoreError>> + Send;

    /// The room's head, and at most `count` messages before number `before` (exclusive;
    /// `u64::MAX`: the newest), oldest first. `None`: no such room.
    fn messages_before(
        &self,
        room_id: &str,
        before: u64,
        count: u32,
    ) -> impl Future<Output = Result<Option<Page>, StoreError>> + Send;

    /// The room's head, and messages with a number above `after` up to `up_to` (inclusive),
    /// oldest first, at most `count` and about `max_bytes` of content (at least one).
    fn messages_after(
        &self,
        room_id: &str,
        after: u64,
        up_to: u64,
        count: u32,
        max_bytes: usize,
    ) -> impl Future<Output = Result<Option<Page>, StoreError>> + Send;

    /// Room creations with a number of `global` above `after` up to `up_to`, in order, at
    /// most `count`, and `global`'s place in the same snapshot.
    fn creations_after(
        &self,
        after: u64,
        up_to: u64,
        count: u32,
    ) -> impl Future<Output = Result<(Position, Vec<Room>), StoreError>> + Send;

    /// Appends an outbox row that belongs to no commit: an unnumbered record.
    fn append_outbox(&self, record: OutboxRecord) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Outbox rows of `owner` with an id above `after`, by id, at most `limit`.
    ///
    /// A row may appear *below* one that was read before: several transactions write at once,
    /// each draws its ids before it commits, and [`claim_outbox`](Self::claim_outbox) brings
    /// rows that are older than the claimant's own. So nobody may read on from the highest id
    /// seen: `after` is the last id below which every row has been deleted for
    /// [`OUTBOX_LATE`], rows read before and not deleted yet are read again, and after a claim
    /// reading begins at 0. Rows of one room appear in the order of their ids, except claimed
    /// ones.
    fn outbox(
        &self,
        owner: &str,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, StoreError>> + Send;

    /// Resolves when outbox rows may have been added since the last call on this handle;
    /// may wake for nothing, never misses a local commit.
    fn outbox_changed(&self) -> impl Future<Output = ()> + Send;

    /// Deletes outbox rows by id. Absent ones are ignored. Deletions may be held back for
    /// up to a second and ride on another transaction: a crash may bring rows back.
    fn delete_outbox(&self, ids: Vec<u64>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Who owns outbox rows, by name, each with the age of the oldest one by the database's
    /// clock. Costs a few index reads per owner, whatever the number of rows.
    fn outbox_owners(&self) -> impl Future<Output = Result<Vec<OutboxOwner>, StoreError>> + Send;

    /// Gives outbox rows of `owner` to `claimant`, at most `limit`; answers how many.
    fn claim_outbox(
        &self,
        owner: &str,
        claimant: &str,
        limit: u32,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Puts a record aside that nobody can read. It stays until an operator removes it.
    fn put_dead_letter(&self, letter: DeadLetter) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What was put aside, oldest first, at most `limit`.
    fn dead_letters(&self, limit: u32) -> impl Future<Output = Result<Vec<DeadLetter>, StoreError>> + Send;

    /// Sets each room's epoch, `global` too, to max(old + 1, `now_ms`); rows stay and
    /// numbering goes on. Answers how many rooms. Logic must be stopped.
    fn new_epoch(&self, now_ms: u64) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Use of its connections; `None`: it has none, or does not tell.
    fn pool(&self) -> Option<PoolUse> {
        None
    }
}

/// The store that was chosen at start.
#[derive(Clone)]
pub enum AnyStore {
    /// Embedded.
    Sqlite(sqlite::SqliteStore),
    /// On a server.
    #[cfg(feature = "mysql")]
    Mysql(mysql::MysqlStore),
}
