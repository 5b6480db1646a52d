//! Between Rust values and SQLite values.

use std::time::{SystemTime, UNIX_EPOCH};

use corecast_proto::ids::{MessageId, Position, RoomId};
use rusqlite::types::{FromSqlError, Type};
use rusqlite::{ErrorCode, Row};

use crate::store::{Message, Room, RoomKind, StoreError};

/// The bytes of a text, for a BLOB column.
pub(super) fn bytes(text: &str) -> &[u8] {
    text.as_bytes()
}

/// A number for SQLite, which has no unsigned integers; what is larger never occurs and
/// compares like the largest.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was stored as one of ours: never negative.
pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, number))
}

/// A text from a TEXT or BLOB column.
pub(super) fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    borrowed_text(row, index).map(str::to_owned)
}

fn borrowed_text<'a>(row: &'a Row<'_>, index: usize) -> rusqlite::Result<&'a str> {
    let bytes = row.get_ref(index)?.as_bytes().map_err(|error| broken(index, error))?;
    std::str::from_utf8(bytes).map_err(|error| broken(index, FromSqlError::other(error)))
}

fn broken(index: usize, error: FromSqlError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Blob, Box::new(error))
}

/// A message id from a BLOB column.
pub(super) fn message_id(row: &Row<'_>, index: usize) -> rusqlite::Result<MessageId> {
    MessageId::parse(borrowed_text(row, index)?).ok_or_else(|| broken(index, FromSqlError::InvalidType))
}

/// Columns of [`message`].
pub(super) const MESSAGE: &str = "id, user_id, username, content";

pub(super) fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: message_id(row, 0)?,
        user_id: text(row, 1)?,
        username: text(row, 2)?,
        content: text(row, 3)?,
    })
}

/// Columns of [`room`].
pub(super) const ROOM: &str = "id, name, creator_id, creator_username, create_time, update_time, kind, \
     epoch, last_seq, global_seq";

pub(super) fn room(row: &Row<'_>) -> rusqlite::Result<Room> {
    let global_seq: Option<i64> = row.get(9)?;
    Ok(Room {
        id: RoomId::from(borrowed_text(row, 0)?),
        name: text(row, 1)?,
        creator_id: text(row, 2)?,
        creator_username: text(row, 3)?,
        create_time: row.get(4)?,
        update_time: row.get(5)?,
        kind: kind(row, 6)?,
        head: Position { epoch: unsigned(row, 7)?, seq: unsigned(row, 8)? },
        global_seq: global_seq.map(|_| unsigned(row, 9)).transpose()?,
    })
}

/// How a kind is stored.
pub(super) fn kind_number(kind: RoomKind) -> i64 {
    match kind {
        RoomKind::Default => 0,
        RoomKind::Public => 1,
        RoomKind::Private => 2,
    }
}

pub(super) fn kind(row: &Row<'_>, index: usize) -> rusqlite::Result<RoomKind> {
    match row.get(index)? {
        0 => Ok(RoomKind::Default),
        1 => Ok(RoomKind::Public),
        2 => Ok(RoomKind::Private),
        other => Err(rusqlite::Error::IntegralValueOutOfRange(index, other)),
    }
}

/// The clock of the database: the embedded one is this machine's.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl From<rusqlite::Error> for StoreError {
    /// An error before the commit: the transaction is rolled back, so nothing happened.
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::OperationAborted,
            ) => Self::Unavailable(text),
            _ => Self::Fatal(text),
        }
    }
}
