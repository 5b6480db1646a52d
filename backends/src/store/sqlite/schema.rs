//! Tables of the embedded store and how a connection is set up.
//!
//! The tables are those of `schema.sql`; the reasons for a column are written there. Ids,
//! keys and unique names are BLOB: SQLite compares a BLOB byte by byte, and never equal to
//! TEXT, so everything that touches such a column binds bytes ([`super::row::bytes`]).
//! What only people read is TEXT.

use std::path::Path;
use std::time::Duration;

use corecast_proto::ids::GLOBAL;
use rusqlite::{Connection, OpenFlags};

use super::row::{bytes, now_ms};
use crate::store::StoreError;

/// `user_version` of the file this build reads and writes.
pub const SCHEMA_VERSION: i64 = 1;

/// A lock that another connection holds for longer is an error. Only a checkpoint of
/// another program could do that: the folder lock keeps other corecasts out.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared per connection; there are fewer than this.
const STATEMENTS: usize = 64;

/// Opens the file for the writer, creating and migrating it where needed.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let mut conn = Connection::open(path)?;
    set_up(&conn)?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Fatal(format!(
            "{}: the file system allows no write-ahead log (journal mode stays {mode})",
            path.display()
        )));
    }
    // The writer decides when to copy the log back, see `writer`.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut conn, path)?;
    Ok(conn)
}

/// Opens one more connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    set_up(&conn)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

fn set_up(conn: &Connection) -> Result<(), StoreError> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}

fn migrate(conn: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        SCHEMA_VERSION => Ok(()),
        0 => {
            let transaction = conn.transaction()?;
            transaction.execute_batch(TABLES)?;
            let now = now_ms();
            transaction.execute(
                "INSERT INTO rooms (id, name, creator_id, creator_username, kind, create_time, \
                 update_time, epoch, last_seq, last_ms) VALUES (?1, x'', x'', '', 0, ?2, ?2, ?2, 0, 0)",
                (bytes(GLOBAL), now),
            )?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
            Ok(())
        }
        other => Err(StoreError::Fatal(format!(
            "{}: schema version {other} is unknown, this build knows up to {SCHEMA_VERSION}: \
             use the newer corecast that wrote it",
            path.display()
        ))),
    }
}

const TABLES: &str = "
CREATE TABLE user_infos (
    user_id          BLOB PRIMARY KEY,
    username         TEXT NOT NULL,
    username_folded  BLOB NOT NULL UNIQUE,
    email            TEXT NOT NULL,
    email_folded     BLOB NOT NULL UNIQUE,
    password_hash    TEXT NOT NULL,
    salt             TEXT NOT NULL,
    create_time      INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE sessions (
    hash             BLOB PRIMARY KEY,
    user_id          BLOB NOT NULL,
    expires_ms       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_by_expiry ON sessions (expires_ms);

CREATE TABLE rooms (
    ordinal          INTEGER PRIMARY KEY,
    id               BLOB NOT NULL UNIQUE,
    name             BLOB NOT NULL UNIQUE,
    creator_id       BLOB NOT NULL,
    creator_username TEXT NOT NULL,
    kind             INTEGER NOT NULL,
    create_time      INTEGER NOT NULL,
    update_time      INTEGER NOT NULL,
    epoch            INTEGER NOT NULL,
    last_seq         INTEGER NOT NULL,
    last_ms          INTEGER NOT NULL,
    global_seq       INTEGER UNIQUE,
    create_key       BLOB
);
CREATE INDEX rooms_by_kind ON rooms (kind, ordinal);
CREATE UNIQUE INDEX rooms_by_key ON rooms (creator_id, create_key) WHERE create_key IS NOT NULL;

CREATE TABLE messages (
    room_id          BLOB NOT NULL,
    seq              INTEGER NOT NULL,
    id               BLOB NOT NULL,
    user_id          BLOB NOT NULL,
    username         TEXT NOT NULL,
    content          TEXT NOT NULL,
    message_key      BLOB NOT NULL,
    PRIMARY KEY (room_id, seq),
    UNIQUE (room_id, user_id, message_key)
) WITHOUT ROWID;

CREATE TABLE outbox (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    owner            BLOB NOT NULL,
    room_id          BLOB NOT NULL,
    value            BLOB NOT NULL,
    create_time      INTEGER NOT NULL
);
CREATE INDEX outbox_by_owner ON outbox (owner, id);

CREATE TABLE dead_letters (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    room_id          BLOB NOT NULL,
    value            BLOB NOT NULL,
    reason           TEXT NOT NULL,
    create_time      INTEGER NOT NULL
);
";
