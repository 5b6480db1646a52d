//! The embedded store: one SQLite file, one thread that writes, a few that read.
//!
//! | module | what |
//! |---|---|
//! | `schema` | tables, versions, how a connection is set up |
//! | `writer` | the writer thread: group commit, held deletions, checkpoints |
//! | `readers` | connections for reads |
//! | `commit` | client frames → messages, numbers, outbox rows |
//! | `rooms` `accounts` `outbox` | the other writes, and reads that go with them |
//! | `read` `snapshot` | reads of rooms and messages |
//! | `row` `counters` | values, what is counted |
//!
//! WAL with `synchronous=FULL`: a commit is on the disk when it is answered. The folder is
//! locked, because a second writer would break the promise that rows become visible in the
//! order of their ids, on which the embedded log rests.

mod accounts;
mod commit;
mod counters;
mod outbox;
mod read;
mod readers;
mod rooms;
mod row;
mod schema;
mod snapshot;
mod writer;

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corecast_proto::ids::{Position, RoomId};
use tokio::sync::watch;

use self::counters::Counters;
use self::readers::Readers;
use self::writer::Writer;
use super::*;

pub use self::counters::SqliteCounters;
pub use self::schema::SCHEMA_VERSION;

/// Name of the lock file in the folder of the database.
pub const LOCK_FILE: &str = "corecast.lock";
/// How long a start waits for a predecessor that is closing its files.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The embedded store. Cheap to clone; see [`Store`] for the contract.
///
/// When the last handle is dropped the writer thread finishes what it was given and ends in
/// the background; [`close`](Self::close) waits for that.
pub struct SqliteStore {
    inner: Arc<Inner>,
    /// Version of the outbox this handle has been told of.
    told: AtomicU64,
}

struct Inner {
    writer: Writer,
    readers: Readers,
    counters: Arc<Counters>,
    outbox_version: watch::Receiver<u64>,
}

/// Told of no version yet: the first [`Store::outbox_changed`] of a handle answers at once,
/// since nobody knows what its owner read before.
const TOLD_NOTHING: u64 = u64::MAX;

impl Clone for SqliteStore {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), told: AtomicU64::new(TOLD_NOTHING) }
    }
}

impl SqliteStore {
    /// Opens the database file, creating it, its folder and its tables where needed.
    ///
    /// # Errors
    /// [`StoreError::Fatal`]: another process has the folder open, the file was written by a
    /// newer version or is no database, the folder cannot be written.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(&path));
        opening.await.unwrap_or_else(|error| Err(StoreError::Fatal(format!("store not opened: {error}"))))
    }

    fn open_blocking(path: &Path) -> Result<Self, StoreError> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let lock = lock_folder(&folder)?;
        let counters = Arc::new(Counters::default());
        let conn = schema::open_writer(path).map_err(|error| about(path, error))?;
        // The names of the files must survive a power failure as well as their contents.
        File::open(&folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| unusable(&folder, &error))?;
        let readers = Readers::open(path, Arc::clone(&counters))?;
        let (changed, outbox_version) = watch::channel(0);
        let writer = Writer::start(conn, lock, Arc::clone(&counters), changed)?;
        let inner = Inner { writer, readers, counters, outbox_version };
        Ok(Self { inner: Arc::new(inner), told: AtomicU64::new(TOLD_NOTHING) })
    }

    /// Finishes what was handed over, deletes what was held back, empties the log into the
    /// file and lets the folder go. Every handle answers [`StoreError::Unavailable`] from
    /// then on. Dropping the future ends the wait, not the closing.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    /// What it counted since it was opened.
    pub fn counters(&self) -> SqliteCounters {
        self.inner.counters.read()
    }
}

/// The library's words for a file that cannot be opened do not name it; ours do.
fn about(path: &Path, error: StoreError) -> StoreError {
    let name = path.display().to_string();
    match error {
        StoreError::Fatal(reason) if !reason.starts_with(&name) => {
            StoreError::Fatal(format!("{name}: {reason}"))
        }
        other => other,
    }
}

/// Takes the folder, or says who has it.
fn lock_folder(folder: &Path) -> Result<File, StoreError> {
    std::fs::create_dir_all(folder).map_err(|error| unusable(folder, &error))?;
    let path = folder.join(LOCK_FILE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| unusable(&path, &error))?;
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message; an unreadable file still means the folder is taken.
                let _ = file.read_to_string(&mut holder);
                return Err(StoreError::Fatal(format!(
                    "data folder {} is in use by another corecast (process {})",
                    folder.display(),
                    holder.trim()
                )));
            }
        }
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(|error| unusable(&path, &error))?;
    Ok(file)
}

fn unusable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Fatal(format!("{}: {error}", path.display()))
}

impl Store for SqliteStore {
    async fn create_user(&self, user: NewUser) -> Result<CreateUser, StoreError> {
        self.inner.writer.write(move |conn| accounts::create_user(conn, &user)).await
    }

    async fn user_by_email(&self, email_folded: &str) -> Result<Option<User>, StoreError> {
        let email = email_folded.to_owned();
        self.inner.readers.read(move |conn| accounts::user_by_email(conn, &email)).await
    }

    async fn user(&self, user_id: &str) -> Result<Option<User>, StoreError> {
        let user_id = user_id.to_owned();
        self.inner.readers.read(move |conn| accounts::user(conn, &user_id)).await
    }

    async fn put_session(&self, hash: SessionHash, user_id: &str, expires_ms: i64) -> Result<(), StoreError> {
        let user_id = user_id.to_owned();
        self.inner.writer.write(move |conn| accounts::put_session(conn, &hash, &user_id, expires_ms)).await
    }

    async fn sessions(
        &self,
        hashes: &[SessionHash],
        now_ms: i64,
    ) -> Result<Vec<Option<Session>>, StoreError> {
        let hashes = hashes.to_vec();
        self.inner.readers.read(move |conn| accounts::sessions(conn, &hashes, now_ms)).await
    }

    async fn extend_session(&self, hash: SessionHash, expires_ms: i64) -> Result<(), StoreError> {
        self.inner.writer.write(move |conn| accounts::extend_session(conn, &hash, expires_ms)).await
    }

    async fn delete_session(&self, hash: SessionHash) -> Result<(), StoreError> {
        self.inner.writer.write(move |conn| accounts::delete_session(conn, &hash)).await
    }

    async fn delete_expired_sessions(&self, now_ms: i64) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let deleted = self.inner.writer.write(move |conn| accounts::delete_expired(conn, now_ms)).await?;
            all += deleted;
            if deleted < u64::from(accounts::EXPIRED_PER_JOB) {
                return Ok(all);
            }
        }
    }

    async fn seed_rooms(&self, rooms: &[SeedRoom]) -> Result<(), StoreError> {
        let seeds = rooms.to_vec();
        self.inner.writer.write(move |conn| rooms::seed(conn, &seeds)).await
    }

    async fn create_room(&self, room: NewRoom) -> Result<CreateRoom, StoreError> {
        self.inner.writer.write(move |conn| rooms::create(conn, &room)).await
    }

    async fn room(&self, room_id: &str) -> Result<Option<Room>, StoreError> {
        let room_id = room_id.to_owned();
        self.inner.readers.read(move |conn| read::one_room(conn, &room_id)).await
    }

    async fn rooms(&self) -> Result<Vec<Room>, StoreError> {
        self.inner.readers.read(read::rooms).await
    }

    async fn commit(&self, frames: Vec<CommitFrame>) -> Result<Vec<FrameOutcome>, StoreError> {
        self.inner.writer.write(move |conn| commit::commit(conn, &frames)).await
    }

    async fn snapshot(&self, query: SnapshotQuery) -> Result<Snapshot, StoreError> {
        self.inner.readers.read(move |conn| snapshot::snapshot(conn, &query)).await
    }

    async fn heads(&self, room_ids: &[RoomId], defaults: bool) -> Result<Vec<Head>, StoreError> {
        let room_ids = room_ids.to_vec();
        self.inner.readers.read(move |conn| read::heads(conn, &room_ids, defaults)).await
    }

    async fn messages_before(
        &self,
        room_id: &str,
        before: u64,
        count: u32,
    ) -> Result<Option<Page>, StoreError> {
        let room_id = room_id.to_owned();
        self.inner.readers.read(move |conn| read::messages_before(conn, &room_id, before, count)).await
    }

    async fn messages_after(
        &self,
        room_id: &str,
        after: u64,
        up_to: u64,
        count: u32,
        max_bytes: usize,
    ) -> Result<Option<Page>, StoreError> {
        let room_id = room_id.to_owned();
        let work = move |conn: &_| read::messages_after(conn, &room_id, after, up_to, count, max_bytes);
        self.inner.readers.read(work).await
    }

    async fn creations_after(
        &self,
        after: u64,
        up_to: u64,
        count: u32,
    ) -> Result<(Position, Vec<Room>), StoreError> {
        self.inner.readers.read(move |conn| read::creations_after(conn, after, up_to, count)).await
    }

    async fn append_outbox(&self, record: OutboxRecord) -> Result<u64, StoreError> {
        self.inner.writer.write(move |conn| outbox::append(conn, &record)).await
    }

    async fn outbox(&self, owner: &str, after: u64, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let owner = owner.to_owned();
        self.inner.readers.read(move |conn| outbox::rows(conn, &owner, after, limit)).await
    }

    async fn outbox_changed(&self) {
        let mut version = self.inner.outbox_version.clone();
        loop {
            let current = *version.borrow_and_update();
            if self.told.swap(current, Ordering::Relaxed) != current {
                return;
            }
            if version.changed().await.is_err() {
                // The store is closed: nothing is ever added again.
                return std::future::pending().await;
            }
        }
    }

    async fn delete_outbox(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        self.inner.writer.delete_outbox(ids).await
    }

    async fn outbox_owners(&self) -> Result<Vec<OutboxOwner>, StoreError> {
        self.inner.readers.read(outbox::owners).await
    }

    async fn claim_outbox(&self, owner: &str, claimant: &str, limit: u32) -> Result<u64, StoreError> {
        let (owner, claimant) = (owner.to_owned(), claimant.to_owned());
        self.inner.writer.write(move |conn| outbox::claim(conn, &owner, &claimant, limit)).await
    }

    async fn put_dead_letter(&self, letter: DeadLetter) -> Result<(), StoreError> {
        self.inner.writer.write(move |conn| outbox::put_dead_letter(conn, &letter)).await
    }

    async fn dead_letters(&self, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        self.inner.readers.read(move |conn| outbox::dead_letters(conn, limit)).await
    }

    async fn new_epoch(&self, now_ms: u64) -> Result<u64, StoreError> {
        self.inner.writer.write(move |conn| rooms::new_epoch(conn, now_ms)).await
    }
}
