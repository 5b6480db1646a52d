//! Between Rust values and values of the server.

use corecast_proto::ids::{MessageId, Position, RoomId};
use mysql_async::prelude::FromValue;
use mysql_async::{Row, Value};

use super::fault::Fault;
use crate::store::{Message, Room, RoomKind};

/// Text or bytes as a parameter: the column decides how it is compared.
pub(super) fn bytes(text: impl AsRef<[u8]>) -> Value {
    Value::Bytes(text.as_ref().to_vec())
}

/// A number for a signed column; what is larger never occurs and compares like the largest.
pub(super) fn integer(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn take<T: FromValue>(row: &mut Row, index: usize) -> Result<T, Fault> {
    match row.take_opt(index) {
        Some(Ok(value)) => Ok(value),
        Some(Err(_)) | None => Err(broken(index)),
    }
}

/// A text from a text or binary column.
pub(super) fn text(row: &mut Row, index: usize) -> Result<String, Fault> {
    String::from_utf8(take(row, index)?).map_err(|_| broken(index))
}

/// A number that was stored as one of ours: never negative.
pub(super) fn unsigned(row: &mut Row, index: usize) -> Result<u64, Fault> {
    take(row, index)
}

/// A message id from a binary column.
pub(super) fn message_id(row: &mut Row, index: usize) -> Result<MessageId, Fault> {
    MessageId::parse(&text(row, index)?).ok_or_else(|| broken(index))
}

fn broken(index: usize) -> Fault {
    Fault::Fatal(format!("column {index} of an answer holds what was never stored"))
}

/// Columns of [`message`].
pub(super) const MESSAGE: &str = "id, user_id, username, content";

pub(super) fn message(mut row: Row) -> Result<Message, Fault> {
    Ok(Message {
        id: message_id(&mut row, 0)?,
        user_id: text(&mut row, 1)?,
        username: text(&mut row, 2)?,
        content: text(&mut row, 3)?,
    })
}

/// Columns of [`room`].
pub(super) const ROOM: &str = "id, name, creator_id, creator_username, create_time, update_time, kind, \
     epoch, last_seq, global_seq";

pub(super) fn room(mut row: Row) -> Result<Room, Fault> {
    let row = &mut row;
    Ok(Room {
        id: RoomId::from(text(row, 0)?),
        name: text(row, 1)?,
        creator_id: text(row, 2)?,
        creator_username: text(row, 3)?,
        create_time: take(row, 4)?,
        update_time: take(row, 5)?,
        kind: kind(row, 6)?,
        head: position(row, 7)?,
        global_seq: take(row, 9)?,
    })
}

/// `epoch, last_seq` from this column on.
pub(super) fn position(row: &mut Row, index: usize) -> Result<Position, Fault> {
    Ok(Position { epoch: unsigned(row, index)?, seq: unsigned(row, index + 1)? })
}

/// How a kind is stored.
pub(super) fn kind_number(kind: RoomKind) -> Value {
    Value::Int(match kind {
        RoomKind::Default => 0,
        RoomKind::Public => 1,
        RoomKind::Private => 2,
    })
}

pub(super) fn kind(row: &mut Row, index: usize) -> Result<RoomKind, Fault> {
    match take::<i64>(row, index)? {
        0 => Ok(RoomKind::Default),
        1 => Ok(RoomKind::Public),
        2 => Ok(RoomKind::Private),
        _ => Err(broken(index)),
    }
}
