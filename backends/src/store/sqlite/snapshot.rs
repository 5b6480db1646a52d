//! One consistent state of many rooms, within a budget of bytes.
//!
//! Sizes are read first and shared out ([`share`]), then only what is sent is read. All of
//! it happens in the caller's one read transaction, so contents reach exactly the heads.

use std::collections::HashSet;

use corecast_proto::ids::Position;
use rusqlite::Connection;

use super::read;
use super::row::{MESSAGE, bytes, integer, message, unsigned};
use crate::store::share::{Demand, fitting, share};
use crate::store::{Message, Room, RoomSnapshot, Snapshot, SnapshotQuery, StoreError};

/// A room and what it would send.
struct Candidate {
    room: Room,
    /// Everything after the given place, or the newest.
    resumed: bool,
    cut: bool,
    /// Bytes of each message, newest first; the first belongs to the head.
    sizes: Vec<usize>,
}

impl Candidate {
    fn demand(&self) -> Demand {
        Demand { newest: self.sizes.first().copied().unwrap_or(0), all: self.sizes.iter().sum() }
    }
}

pub(super) fn snapshot(conn: &Connection, query: &SnapshotQuery) -> Result<Snapshot, StoreError> {
    let global = read::global(conn)?;
    let mut candidates = Vec::new();
    for (room, place) in asked(conn, query)? {
        candidates.push(candidate(conn, query, room, place)?);
    }
    let demands = |candidates: &[Candidate]| candidates.iter().map(Candidate::demand).collect::<Vec<_>>();
    let first = share(&demands(&candidates), query.max_bytes);
    let mut any_cut = false;
    for (candidate, &bytes) in candidates.iter_mut().zip(&first) {
        if candidate.resumed && fitting(&candidate.sizes, bytes) < candidate.sizes.len() {
            candidate.resumed = false;
            candidate.cut = true;
            candidate.sizes = newest_sizes(conn, &candidate.room, query.count)?;
            any_cut = true;
        }
    }
    // A room that was cut may need less than before, never so much more that a room that
    // fitted does not fit any longer: an even share does not shrink.
    let given = if any_cut { share(&demands(&candidates), query.max_bytes) } else { first };
    let mut rooms = Vec::with_capacity(candidates.len());
    for (candidate, bytes) in candidates.into_iter().zip(given) {
        let sent = fitting(&candidate.sizes, bytes);
        let messages = newest(conn, &candidate.room, sent)?;
        rooms.push(RoomSnapshot { room: candidate.room, messages, cut: candidate.cut });
    }
    let listed = read::public_rooms(conn, query.listed, &rooms)?;
    Ok(Snapshot { global, rooms, listed })
}

/// Default rooms by creation, then the others as asked, each once, with the place given.
fn asked(conn: &Connection, query: &SnapshotQuery) -> Result<Vec<(Room, Option<Position>)>, StoreError> {
    let place_of = |room: &Room| {
        let asked = query.rooms.iter().find(|(room_id, _)| *room_id == room.id);
        asked.and_then(|(_, place)| *place)
    };
    let mut rooms = Vec::new();
    if query.defaults {
        for room in read::default_rooms(conn)? {
            let place = place_of(&room);
            rooms.push((room, place));
        }
    }
    let mut seen: HashSet<_> = rooms.iter().map(|(room, _)| room.id.clone()).collect();
    for (room_id, place) in &query.rooms {
        if seen.insert(room_id.clone())
            && let Some(room) = read::one_room(conn, room_id.as_str())?
        {
            rooms.push((room, *place));
        }
    }
    Ok(rooms)
}

fn candidate(
    conn: &Connection,
    query: &SnapshotQuery,
    room: Room,
    place: Option<Position>,
) -> Result<Candidate, StoreError> {
    let head = room.head;
    let resumable = place.is_some_and(|place| {
        place.epoch == head.epoch
            && place.seq <= head.seq
            && head.seq - place.seq <= u64::from(query.after_max)
    });
    let sizes = match place {
        Some(place) if resumable => sizes_after(conn, &room, place.seq)?,
        _ => newest_sizes(conn, &room, query.count)?,
    };
    Ok(Candidate { room, resumed: resumable, cut: place.is_some() && !resumable, sizes })
}

fn newest_sizes(conn: &Connection, room: &Room, count: u32) -> Result<Vec<usize>, StoreError> {
    sizes_after(conn, room, room.head.seq.saturating_sub(u64::from(count)))
}

fn sizes_after(conn: &Connection, room: &Room, after: u64) -> Result<Vec<usize>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT octet_length(content) FROM messages WHERE room_id = ?1 AND seq > ?2 ORDER BY seq DESC",
    )?;
    let sizes = statement
        .query_map((bytes(room.id.as_str()), integer(after)), |row| Ok(unsigned(row, 0)? as usize))?;
    Ok(sizes.collect::<Result<_, _>>()?)
}

/// The newest `count` messages, oldest first.
fn newest(conn: &Connection, room: &Room, count: usize) -> Result<Vec<Message>, StoreError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let after = room.head.seq.saturating_sub(count as u64);
    let sql = format!("SELECT {MESSAGE} FROM messages WHERE room_id = ?1 AND seq > ?2 ORDER BY seq");
    let mut statement = conn.prepare_cached(&sql)?;
    let messages = statement.query_map((bytes(room.id.as_str()), integer(after)), message)?;
    Ok(messages.collect::<Result<_, _>>()?)
}
