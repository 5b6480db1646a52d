//! Reads: rooms, heads, pages of messages, room creations.
//!
//! A page is read in two statements without a transaction: the head, then messages at or
//! below it. What is at or below a head that was seen is committed and never changes.

use std::collections::HashSet;

use corecast_proto::ids::{GLOBAL, Position, RoomId};
use mysql_async::{Row, Value};

use super::fault::Fault;
use super::rooms::missing;
use super::row::{MESSAGE, ROOM, bytes, integer, kind, kind_number, message, position, room, text};
use super::session::Session;
use super::statement::{ROWS, marks, padded};
use crate::store::{Head, Message, Page, Room, RoomKind};

/// Messages of one statement, so that a long range does not lie in memory twice.
const MESSAGES: u64 = 512;

pub(super) async fn one_room(session: &mut Session, room_id: &str) -> Result<Option<Room>, Fault> {
    if room_id == GLOBAL {
        return Ok(None);
    }
    let sql = format!("SELECT {ROOM} FROM rooms WHERE id = ?");
    session.row(&sql, vec![bytes(room_id)]).await?.map(room).transpose()
}

pub(super) async fn rooms(session: &mut Session) -> Result<Vec<Room>, Fault> {
    let sql = format!("SELECT {ROOM} FROM rooms WHERE id <> ? ORDER BY ordinal");
    list(session, &sql, vec![bytes(GLOBAL)]).await
}

pub(super) async fn default_rooms(session: &mut Session) -> Result<Vec<Room>, Fault> {
    let sql = format!("SELECT {ROOM} FROM rooms WHERE kind = 0 AND id <> ? ORDER BY ordinal");
    list(session, &sql, vec![bytes(GLOBAL)]).await
}

/// The newest public rooms.
pub(super) async fn public_rooms(session: &mut Session, limit: u32) -> Result<Vec<Room>, Fault> {
    let sql = format!("SELECT {ROOM} FROM rooms WHERE kind = ? ORDER BY ordinal DESC LIMIT ?");
    list(session, &sql, vec![kind_number(RoomKind::Public), Value::UInt(limit.into())]).await
}

/// These rooms, in no order; unknown ones and `global` are absent.
pub(super) async fn rooms_by_id(session: &mut Session, room_ids: &[&RoomId]) -> Result<Vec<Room>, Fault> {
    let asked: Vec<&RoomId> = room_ids.iter().copied().filter(|room_id| !room_id.is_global()).collect();
    let mut rooms = Vec::with_capacity(asked.len());
    for some in asked.chunks(ROWS) {
        let ids: Vec<Value> = padded(some).into_iter().map(|room_id| bytes(room_id.as_str())).collect();
        let sql = format!("SELECT {ROOM} FROM rooms WHERE id IN ({})", marks(ids.len()));
        rooms.extend(list(session, &sql, ids).await?);
    }
    Ok(rooms)
}

async fn list(session: &mut Session, sql: &str, params: Vec<Value>) -> Result<Vec<Room>, Fault> {
    session.rows(sql, params).await?.into_iter().map(room).collect()
}

async fn head_of(session: &mut Session, room_id: &str) -> Result<Option<Position>, Fault> {
    let row = session.row("SELECT epoch, last_seq FROM rooms WHERE id = ?", vec![bytes(room_id)]).await?;
    row.map(|mut row| position(&mut row, 0)).transpose()
}

/// The head of a room that is not `global`.
pub(super) async fn head_of_room(session: &mut Session, room_id: &str) -> Result<Option<Position>, Fault> {
    if room_id == GLOBAL {
        return Ok(None);
    }
    head_of(session, room_id).await
}

pub(super) async fn global(session: &mut Session) -> Result<Position, Fault> {
    head_of(session, GLOBAL).await?.ok_or_else(missing)
}

/// Do these heads need more than one statement, and so a snapshot?
pub(super) fn heads_need_snapshot(room_ids: &[RoomId], defaults: bool) -> bool {
    room_ids.len() > ROWS || defaults && !room_ids.is_empty()
}

pub(super) async fn heads(
    session: &mut Session,
    room_ids: &[RoomId],
    defaults: bool,
) -> Result<Vec<Head>, Fault> {
    const COLUMNS: &str = "id, epoch, last_seq, kind";
    if room_ids.is_empty() && !defaults {
        // Asked for nothing, it still tells whether there is somebody who answers.
        session.row("SELECT 1", Vec::new()).await?;
        return Ok(Vec::new());
    }
    let mut heads = Vec::with_capacity(room_ids.len());
    let mut seen: HashSet<RoomId> = HashSet::new();
    if defaults {
        // `global` is kept as a default room and is the oldest.
        let sql = format!("SELECT {COLUMNS} FROM rooms WHERE kind = 0 ORDER BY ordinal");
        for row in session.rows(&sql, Vec::new()).await? {
            let head = head(row)?;
            seen.insert(head.room_id.clone());
            heads.push(head);
        }
    }
    let rest: Vec<&RoomId> = room_ids.iter().filter(|room_id| seen.insert((*room_id).clone())).collect();
    for some in rest.chunks(ROWS) {
        let ids: Vec<Value> = padded(some).into_iter().map(|room_id| bytes(room_id.as_str())).collect();
        let sql = format!("SELECT {COLUMNS} FROM rooms WHERE id IN ({})", marks(ids.len()));
        for row in session.rows(&sql, ids).await? {
            heads.push(head(row)?);
        }
    }
    Ok(heads)
}

fn head(mut row: Row) -> Result<Head, Fault> {
    Ok(Head {
        room_id: RoomId::from(text(&mut row, 0)?),
        position: position(&mut row, 1)?,
        kind: kind(&mut row, 3)?,
    })
}

pub(super) async fn messages_before(
    session: &mut Session,
    room_id: &str,
    before: u64,
    count: u32,
) -> Result<Option<Page>, Fault> {
    let Some(head) = head_of_room(session, room_id).await? else { return Ok(None) };
    let (after, last) = bounds_before(head, before, count);
    let messages = range(session, room_id, after, last).await?;
    Ok(Some(Page { head, messages }))
}

pub(super) async fn messages_after(
    session: &mut Session,
    room_id: &str,
    after: u64,
    up_to: u64,
    count: u32,
    max_bytes: usize,
) -> Result<Option<Page>, Fault> {
    let Some(head) = head_of_room(session, room_id).await? else { return Ok(None) };
    let last = up_to.min(head.seq).min(after.saturating_add(count.into()));
    let messages = bounded_range(session, room_id, after, last, max_bytes).await?;
    Ok(Some(Page { head, messages }))
}

/// The page of `count` messages before number `before`, as a range: numbers have no gaps.
pub(super) fn bounds_before(head: Position, before: u64, count: u32) -> (u64, u64) {
    let last = before.saturating_sub(1).min(head.seq);
    (last.saturating_sub(count.into()), last)
}

/// Messages above `after` up to `last`, oldest first.
pub(super) async fn range(
    session: &mut Session,
    room_id: &str,
    after: u64,
    last: u64,
) -> Result<Vec<Message>, Fault> {
    bounded_range(session, room_id, after, last, usize::MAX).await
}

/// Messages above `after` up to `last`, oldest first, about `max_bytes` of content, at least
/// one. Stops at a hole, which only a replica can have.
async fn bounded_range(
    session: &mut Session,
    room_id: &str,
    after: u64,
    last: u64,
    max_bytes: usize,
) -> Result<Vec<Message>, Fault> {
    let sql =
        format!("SELECT {MESSAGE} FROM messages WHERE room_id = ? AND seq > ? AND seq <= ? ORDER BY seq");
    let mut messages: Vec<Message> = Vec::new();
    let mut content_bytes = 0;
    let mut reached = after;
    while reached < last {
        let end = last.min(reached + MESSAGES);
        let found = session.rows(&sql, vec![bytes(room_id), integer(reached), integer(end)]).await?;
        for row in found {
            let message = message(row)?;
            content_bytes += message.content.len();
            let full = !messages.is_empty() && content_bytes > max_bytes;
            if full || message.id.seq != reached + 1 {
                return Ok(messages);
            }
            reached = message.id.seq;
            messages.push(message);
        }
        if reached < end {
            break;
        }
    }
    Ok(messages)
}

pub(super) async fn creations_after(
    session: &mut Session,
    after: u64,
    up_to: u64,
    count: u32,
) -> Result<(Position, Vec<Room>), Fault> {
    let global = global(session).await?;
    // Above its number in the same snapshot there is nothing.
    let up_to = up_to.min(global.seq);
    let sql = format!(
        "SELECT {ROOM} FROM rooms WHERE global_seq > ? AND global_seq <= ? ORDER BY global_seq LIMIT ?"
    );
    let params = vec![integer(after), integer(up_to), Value::UInt(count.into())];
    Ok((global, list(session, &sql, params).await?))
}
