//! Reads: rooms, heads, pages of messages, room creations.

use corecast_proto::ids::{GLOBAL, Position, RoomId};
use rusqlite::{Connection, OptionalExtension, Row};

use super::row::{MESSAGE, ROOM, bytes, integer, kind, kind_number, message, room, text, unsigned};
use crate::store::{Head, Page, Room, RoomKind, RoomSnapshot, StoreError};

pub(super) fn one_room(conn: &Connection, room_id: &str) -> Result<Option<Room>, StoreError> {
    if room_id == GLOBAL {
        return Ok(None);
    }
    let sql = format!("SELECT {ROOM} FROM rooms WHERE id = ?1");
    Ok(conn.prepare_cached(&sql)?.query_row((bytes(room_id),), room).optional()?)
}

pub(super) fn rooms(conn: &Connection) -> Result<Vec<Room>, StoreError> {
    let sql = format!("SELECT {ROOM} FROM rooms WHERE id <> ?1 ORDER BY ordinal");
    let mut statement = conn.prepare_cached(&sql)?;
    let rooms = statement.query_map((bytes(GLOBAL),), room)?;
    Ok(rooms.collect::<Result<_, _>>()?)
}

pub(super) fn default_rooms(conn: &Connection) -> Result<Vec<Room>, StoreError> {
    let sql = format!("SELECT {ROOM} FROM rooms WHERE kind = 0 AND id <> ?1 ORDER BY ordinal");
    let mut statement = conn.prepare_cached(&sql)?;
    let rooms = statement.query_map((bytes(GLOBAL),), room)?;
    Ok(rooms.collect::<Result<_, _>>()?)
}

/// The newest public rooms beside those that are answered in full.
pub(super) fn public_rooms(
    conn: &Connection,
    limit: u32,
    answered: &[RoomSnapshot],
) -> Result<Vec<Room>, StoreError> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT {ROOM} FROM rooms WHERE kind = ?1 ORDER BY ordinal DESC LIMIT ?2");
    let mut statement = conn.prepare_cached(&sql)?;
    let found = statement.query_map((kind_number(RoomKind::Public), limit), room)?;
    let mut rooms: Vec<Room> = found.collect::<Result<_, _>>()?;
    rooms.retain(|room| answered.iter().all(|answered| answered.room.id != room.id));
    Ok(rooms)
}

pub(super) fn position(conn: &Connection, room_id: &str) -> Result<Option<Position>, StoreError> {
    let position = conn
        .prepare_cached("SELECT epoch, last_seq FROM rooms WHERE id = ?1")?
        .query_row((bytes(room_id),), |row| {
            Ok(Position { epoch: unsigned(row, 0)?, seq: unsigned(row, 1)? })
        });
    Ok(position.optional()?)
}

pub(super) fn global(conn: &Connection) -> Result<Position, StoreError> {
    position(conn, GLOBAL)?
        .ok_or_else(|| StoreError::Fatal("the reserved room `global` is missing".to_owned()))
}

pub(super) fn heads(conn: &Connection, room_ids: &[RoomId], defaults: bool) -> Result<Vec<Head>, StoreError> {
    const COLUMNS: &str = "id, epoch, last_seq, kind";
    let mut heads = Vec::with_capacity(room_ids.len());
    let mut seen = std::collections::HashSet::new();
    if defaults {
        // `global` is kept as a default room and is the oldest.
        let sql = format!("SELECT {COLUMNS} FROM rooms WHERE kind = 0 ORDER BY ordinal");
        for found in conn.prepare_cached(&sql)?.query_map((), head)? {
            let found = found?;
            seen.insert(found.room_id.clone());
            heads.push(found);
        }
    }
    let sql = format!("SELECT {COLUMNS} FROM rooms WHERE id = ?1");
    let mut statement = conn.prepare_cached(&sql)?;
    for room_id in room_ids {
        if seen.insert(room_id.clone()) {
            heads.extend(statement.query_row((bytes(room_id.as_str()),), head).optional()?);
        }
    }
    Ok(heads)
}

fn head(row: &Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        room_id: RoomId::from(text(row, 0)?),
        position: Position { epoch: unsigned(row, 1)?, seq: unsigned(row, 2)? },
        kind: kind(row, 3)?,
    })
}

pub(super) fn messages_before(
    conn: &Connection,
    room_id: &str,
    before: u64,
    count: u32,
) -> Result<Option<Page>, StoreError> {
    if room_id == GLOBAL {
        return Ok(None);
    }
    let Some(head) = position(conn, room_id)? else { return Ok(None) };
    let sql =
        format!("SELECT {MESSAGE} FROM messages WHERE room_id = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3");
    let mut statement = conn.prepare_cached(&sql)?;
    let found = statement.query_map((bytes(room_id), integer(before), count), message)?;
    let mut messages = found.collect::<Result<Vec<_>, _>>()?;
    messages.reverse();
    Ok(Some(Page { head, messages }))
}

pub(super) fn messages_after(
    conn: &Connection,
    room_id: &str,
    after: u64,
    up_to: u64,
    count: u32,
    max_bytes: usize,
) -> Result<Option<Page>, StoreError> {
    if room_id == GLOBAL {
        return Ok(None);
    }
    let Some(head) = position(conn, room_id)? else { return Ok(None) };
    let sql = format!(
        "SELECT {MESSAGE} FROM messages WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq LIMIT ?4"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let found = statement.query_map((bytes(room_id), integer(after), integer(up_to), count), message)?;
    let mut messages = Vec::new();
    let mut content_bytes = 0;
    for message in found {
        let message = message?;
        content_bytes += message.content.len();
        if !messages.is_empty() && content_bytes > max_bytes {
            break;
        }
        messages.push(message);
    }
    Ok(Some(Page { head, messages }))
}

pub(super) fn creations_after(
    conn: &Connection,
    after: u64,
    up_to: u64,
    count: u32,
) -> Result<(Position, Vec<Room>), StoreError> {
    let global = global(conn)?;
    let sql = format!(
        "SELECT {ROOM} FROM rooms WHERE global_seq > ?1 AND global_seq <= ?2 ORDER BY global_seq LIMIT ?3"
    );
    let mut statement = conn.prepare_cached(&sql)?;
    let rooms = statement.query_map((integer(after), integer(up_to), count), room)?;
    let rooms = rooms.collect::<Result<_, _>>()?;
    Ok((global, rooms))
}
