//! The write path: client frames to messages, numbers and outbox rows.

use std::collections::HashMap;

use corecast_proto::ids::{GLOBAL, MessageId, RoomId};
use rusqlite::{Connection, OptionalExtension};

use super::outbox;
use super::row::{bytes, integer, message_id, now_ms, unsigned};
use crate::store::rows::{NewMessages, RowBuilder};
use crate::store::{CommitFrame, FrameOutcome, OutboxRow, StoreError, StoredMessage};

/// A room of the batch, as it will be when the batch is committed.
struct Line {
    epoch: u64,
    last_seq: u64,
    last_ms: i64,
    rows: RowBuilder,
}

/// Stores the frames inside the running savepoint.
pub(super) fn commit(conn: &Connection, frames: &[CommitFrame]) -> Result<Vec<FrameOutcome>, StoreError> {
    let now = now_ms();
    let mut lines: HashMap<RoomId, Option<Line>> = HashMap::new();
    // Rooms by first appearance: outbox ids follow the batch, whatever the map's order.
    let mut order = Vec::new();
    let mut outcomes = Vec::with_capacity(frames.len());
    for (index, frame) in frames.iter().enumerate() {
        if !lines.contains_key(&frame.room_id) {
            lines.insert(frame.room_id.clone(), line(conn, &frame.room_id)?);
            order.push(frame.room_id.clone());
        }
        let outcome = match lines.get_mut(&frame.room_id) {
            Some(Some(line)) => {
                let messages = store(conn, line, index, frame, now)?;
                FrameOutcome::Stored { epoch: line.epoch, messages, outbox: Vec::new() }
            }
            _ => FrameOutcome::UnknownRoom,
        };
        outcomes.push(outcome);
    }
    for room_id in order {
        if let Some(Some(line)) = lines.remove(&room_id) {
            finish(conn, &room_id, line, &mut outcomes)?;
        }
    }
    Ok(outcomes)
}

fn line(conn: &Connection, room_id: &RoomId) -> Result<Option<Line>, StoreError> {
    if room_id.as_str() == GLOBAL {
        return Ok(None);
    }
    let line = conn.prepare_cached("SELECT epoch, last_seq, last_ms FROM rooms WHERE id = ?1")?.query_row(
        (bytes(room_id.as_str()),),
        |row| {
            let epoch = unsigned(row, 0)?;
            Ok(Line {
                epoch,
                last_seq: unsigned(row, 1)?,
                last_ms: row.get(2)?,
                rows: RowBuilder::new(room_id.clone(), epoch),
            })
        },
    );
    Ok(line.optional()?)
}

/// Stores what is new of a frame; the rest answers with where it lies.
fn store(
    conn: &Connection,
    line: &mut Line,
    index: usize,
    frame: &CommitFrame,
    now: i64,
) -> Result<Vec<StoredMessage>, StoreError> {
    // Inserting asks the unique index anyway: a lookup before would only repeat the work.
    let mut insert = conn.prepare_cached(
        "INSERT INTO messages (room_id, seq, id, user_id, username, content, message_key) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (room_id, user_id, message_key) DO NOTHING",
    )?;
    let mut find = conn
        .prepare_cached("SELECT id FROM messages WHERE room_id = ?1 AND user_id = ?2 AND message_key = ?3")?;
    let room_id = bytes(frame.room_id.as_str());
    let user_id = bytes(&frame.user_id);
    let mut stored = Vec::with_capacity(frame.messages.len());
    let mut new = NewMessages::default();
    for message in &frame.messages {
        let id = MessageId { ms: line.last_ms.max(now), seq: line.last_seq + 1 };
        let inserted = insert.execute((
            room_id,
            integer(id.seq),
            id.to_string().as_bytes(),
            user_id,
            &frame.username,
            &message.content,
            bytes(&message.key),
        ))?;
        if inserted == 1 {
            line.last_seq = id.seq;
            line.last_ms = id.ms;
            new.push(id, &frame.user_id, &frame.username, &message.content);
            stored.push(StoredMessage { id, repeated: false });
        } else {
            let id = find.query_row((room_id, user_id, bytes(&message.key)), |row| message_id(row, 0))?;
            stored.push(StoredMessage { id, repeated: true });
        }
    }
    line.rows.push(index, &frame.owner, new);
    Ok(stored)
}

/// Writes the room's new head and outbox rows, where it has any.
fn finish(
    conn: &Connection,
    room_id: &RoomId,
    line: Line,
    outcomes: &mut [FrameOutcome],
) -> Result<(), StoreError> {
    let rows = line.rows.finish();
    if rows.is_empty() {
        return Ok(());
    }
    conn.prepare_cached("UPDATE rooms SET last_seq = ?2, last_ms = ?3, update_time = ?3 WHERE id = ?1")?
        .execute((bytes(room_id.as_str()), integer(line.last_seq), line.last_ms))?;
    for row in rows {
        let id = outbox::append(conn, &row.record)?;
        if let FrameOutcome::Stored { outbox, .. } = &mut outcomes[row.frame] {
            outbox.push(OutboxRow { id, room_id: room_id.clone(), value: row.record.value });
        }
    }
    Ok(())
}
