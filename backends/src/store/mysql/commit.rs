//! The write path: client frames to messages, numbers and outbox rows.
//!
//! ```text
//! START TRANSACTION; SELECT … FROM rooms WHERE id IN (…) ORDER BY id FOR UPDATE
//!                                                           locks, by id; the time
//! INSERT INTO messages …; INSERT INTO outbox …;
//! UPDATE rooms …; COMMIT                                    the new heads
//! ```
//!
//! Two round trips, for one frame and for hundreds, as long as they lock no more than 256 rooms
//! and write no more than the texts of a round trip hold ([`super::statement`]): a commit's
//! room is locked for one of them, and on a busy machine each is two more changes of process.
//!
//! What is sent again violates the unique key of `messages`. Hardly anything is, so keys are
//! not looked up before the insert. Where it fails the transaction is rolled back, and its
//! next try, as everything within a while ([`Repeats`]), looks first. It does so under the
//! locks, since a key may be stored while they are waited for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use corecast_proto::ids::{GLOBAL, MessageId, RoomId};
use mysql_async::Value;

use super::fault::Fault;
use super::outbox;
use super::row::{bytes, message_id, take, text, unsigned};
use super::session::{NOW_MS, Session};
use super::statement::{Insert, Inserts, Literal, ROWS, literals, padded, tuples};
use crate::store::rows::{FinishedRow, NewMessages, RowBuilder};
use crate::store::{CommitFrame, FrameOutcome, OutboxRow, StoredMessage};

/// Rooms of one statement.
const ROOMS: usize = 256;

/// A room of the batch, as it will be when the batch is committed.
struct Line {
    ordinal: u64,
    epoch: u64,
    last_seq: u64,
    last_ms: i64,
    rows: RowBuilder,
}

/// After a key that was stored already, more are expected for so long: clients that came back
/// send what was not acknowledged. One who does nothing else costs others a look, not a
/// transaction.
const REPEATS: Duration = Duration::from_secs(10);

/// Whether keys are looked up before messages are inserted.
#[derive(Default)]
pub(super) struct Repeats {
    last: Mutex<Option<Instant>>,
}

impl Repeats {
    fn are_expected(&self) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < REPEATS)
    }

    fn note(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// (room, user, key) → where it is stored.
type Keys<'a> = HashMap<(&'a str, &'a str, &'a str), MessageId>;

/// Stores the frames inside the running transaction.
///
/// # Errors
/// [`Fault::Duplicate`] for what was stored already and was not looked up; the next try does.
pub(super) async fn commit(
    session: &mut Session,
    frames: &[CommitFrame],
    repeats: &Repeats,
) -> Result<Vec<FrameOutcome>, Fault> {
    let (mut lines, now) = lock(session, frames).await?;
    let mut keys = Keys::new();
    if repeats.are_expected() {
        keys = stored_keys(session, frames, &lines).await?;
    }
    if !keys.is_empty() {
        repeats.note();
    }
    let mut inserts = Inserts::new("messages (room_id, seq, id, user_id, username, content, message_key)");
    // Rows by first appearance: outbox ids follow the batch, whatever the map's order.
    let mut order: Vec<&RoomId> = Vec::new();
    let mut outcomes = Vec::with_capacity(frames.len());
    for (index, frame) in frames.iter().enumerate() {
        let Some(line) = lines.get_mut(frame.room_id.as_str()) else {
            outcomes.push(FrameOutcome::UnknownRoom);
            continue;
        };
        let first = line.last_seq;
        let messages = number(line, index, frame, now, &mut keys, &mut inserts);
        if line.last_seq > first && !order.contains(&&frame.room_id) {
            order.push(&frame.room_id);
        }
        outcomes.push(FrameOutcome::Stored { epoch: line.epoch, messages, outbox: Vec::new() });
    }
    if inserts.is_empty() {
        return Ok(outcomes);
    }
    let grown: Vec<Line> =
        order.into_iter().map(|room_id| lines.remove(room_id.as_str()).expect("it was numbered")).collect();
    let heads = move_heads(&grown);
    let rows: Vec<FinishedRow> = grown.into_iter().flat_map(|line| line.rows.finish()).collect();
    let outbox = outbox::inserts(rows.iter().map(|row| &row.record), now);
    let outbox_rows: Vec<usize> = outbox.iter().map(|insert| insert.rows).collect();
    let mut statements: Vec<String> = inserts.finish().into_iter().map(|insert| insert.sql).collect();
    let outbox_at = statements.len();
    statements.extend(outbox.into_iter().map(|Insert { sql, .. }| sql).chain(heads));
    let drawn = session.commit_with(&statements).await;
    if matches!(drawn, Err(Fault::Duplicate(_))) {
        repeats.note();
    }
    let drawn = drawn?;
    let ids = drawn[outbox_at..].iter().zip(outbox_rows).flat_map(|(&first, rows)| session.ids(first, rows));
    for (row, id) in rows.into_iter().zip(ids) {
        if let FrameOutcome::Stored { outbox, .. } = &mut outcomes[row.frame] {
            outbox.push(OutboxRow { id, room_id: row.record.room_id, value: row.record.value });
        }
    }
    Ok(outcomes)
}

/// Locks the rooms of the batch in the order of their ids; answers those that exist, and the
/// database's time.
async fn lock<'a>(
    session: &mut Session,
    frames: &'a [CommitFrame],
) -> Result<(HashMap<&'a str, Line>, i64), Fault> {
    let rooms: BTreeSet<&RoomId> =
        frames.iter().map(|frame| &frame.room_id).filter(|room_id| room_id.as_str() != GLOBAL).collect();
    let rooms: Vec<&RoomId> = rooms.into_iter().collect();
    let mut lines = HashMap::with_capacity(rooms.len());
    let mut now = 0;
    for rooms in rooms.chunks(ROOMS) {
        // Without the hint a small table is scanned, which locks rooms of others, in any order.
        let sql = format!(
            "SELECT id, ordinal, epoch, last_seq, last_ms, {NOW_MS} FROM rooms FORCE INDEX (rooms_by_id) \
             WHERE id IN ({}) ORDER BY id FOR UPDATE",
            literals(rooms.iter().map(|room_id| room_id.as_str()))
        );
        for mut row in session.text_rows(&sql).await? {
            let id: Vec<u8> = take(&mut row, 0)?;
            let Ok(place) = rooms.binary_search_by(|room_id| room_id.as_str().as_bytes().cmp(&id)) else {
                continue;
            };
            let room_id = rooms[place];
            let epoch = unsigned(&mut row, 2)?;
            now = now.max(take(&mut row, 5)?);
            let line = Line {
                ordinal: unsigned(&mut row, 1)?,
                epoch,
                last_seq: unsigned(&mut row, 3)?,
                last_ms: take(&mut row, 4)?,
                rows: RowBuilder::new(room_id.clone(), epoch),
            };
            lines.insert(room_id.as_str(), line);
        }
    }
    Ok((lines, now))
}

/// The keys of the batch that are stored already.
async fn stored_keys<'a>(
    session: &mut Session,
    frames: &'a [CommitFrame],
    lines: &HashMap<&str, Line>,
) -> Result<Keys<'a>, Fault> {
    let mut asked: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for frame in frames.iter().filter(|frame| lines.contains_key(frame.room_id.as_str())) {
        let (room_id, user_id) = (frame.room_id.as_str(), frame.user_id.as_str());
        asked.extend(frame.messages.iter().map(|message| (room_id, user_id, message.key.as_str())));
    }
    let mut keys = Keys::new();
    let asked: Vec<_> = asked.into_iter().collect();
    for some in asked.chunks(ROWS) {
        let params: Vec<Value> = padded(some)
            .into_iter()
            .flat_map(|(room, user, key)| [bytes(room), bytes(user), bytes(key)])
            .collect();
        let sql = format!(
            "SELECT room_id, user_id, message_key, id FROM messages FORCE INDEX (messages_by_key) \
             WHERE (room_id, user_id, message_key) IN ({})",
            tuples(params.len() / 3, 3)
        );
        for mut row in session.rows(&sql, params).await? {
            let found = (text(&mut row, 0)?, text(&mut row, 1)?, text(&mut row, 2)?);
            if let Ok(place) = some.binary_search(&(&*found.0, &*found.1, &*found.2)) {
                keys.insert(some[place], message_id(&mut row, 3)?);
            }
        }
    }
    Ok(keys)
}

/// Numbers what is new of a frame; the rest answers with where it lies.
fn number<'a>(
    line: &mut Line,
    index: usize,
    frame: &'a CommitFrame,
    now: i64,
    keys: &mut Keys<'a>,
    inserts: &mut Inserts,
) -> Vec<StoredMessage> {
    let (room_id, user_id) = (frame.room_id.as_str(), frame.user_id.as_str());
    let mut stored = Vec::with_capacity(frame.messages.len());
    let mut new = NewMessages::default();
    for message in &frame.messages {
        let key = (room_id, user_id, message.key.as_str());
        if let Some(&id) = keys.get(&key) {
            stored.push(StoredMessage { id, repeated: true });
            continue;
        }
        let id = MessageId { ms: line.last_ms.max(now), seq: line.last_seq + 1 };
        line.last_seq = id.seq;
        line.last_ms = id.ms;
        keys.insert(key, id);
        new.push(id, user_id, &frame.username, &message.content);
        stored.push(StoredMessage { id, repeated: false });
        inserts.push(&[
            Literal::text(room_id),
            Literal::Number(i64::try_from(id.seq).unwrap_or(i64::MAX)),
            Literal::text(&id.to_string()),
            Literal::text(user_id),
            Literal::text(&frame.username),
            Literal::text(&message.content),
            Literal::text(&message.key),
        ]);
    }
    line.rows.push(index, &frame.owner, new);
    stored
}

/// Writes the heads of rooms that grew; their rows are locked.
fn move_heads(lines: &[Line]) -> Vec<String> {
    let text = |lines: &[Line]| {
        let (mut seqs, mut times, mut ordinals) = (String::new(), String::new(), String::new());
        for Line { ordinal, last_seq, last_ms, .. } in lines {
            seqs += &format!(" WHEN {ordinal} THEN {last_seq}");
            times += &format!(" WHEN {ordinal} THEN {last_ms}");
            ordinals += &format!("{}{ordinal}", if ordinals.is_empty() { "" } else { "," });
        }
        // Assignments run from left to right: `update_time` takes the new `last_ms`.
        format!(
            "UPDATE rooms FORCE INDEX (PRIMARY) SET last_seq = CASE ordinal{seqs} END, \
             last_ms = CASE ordinal{times} END, update_time = last_ms WHERE ordinal IN ({ordinals})"
        )
    };
    lines.chunks(ROOMS).map(text).collect()
}
