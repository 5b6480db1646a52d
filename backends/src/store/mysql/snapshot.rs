//! One consistent state of many rooms, within a budget of bytes.
//!
//! Sizes are read first and shared out ([`share`]), then only what is sent is read; both for
//! many rooms at once. All of it happens in one snapshot, so contents reach exactly the heads.

use std::collections::{HashMap, HashSet};

use corecast_proto::ids::{Position, RoomId};
use mysql_async::Value;

use super::fault::Fault;
use super::read;
use super::row::{MESSAGE, bytes, integer, message, text, unsigned};
use super::session::Session;
use super::statement::{padded, repeated};
use crate::store::share::{Demand, fitting, share};
use crate::store::{Message, Room, RoomSnapshot, Snapshot, SnapshotQuery};

/// Rooms of one statement.
const ROOMS: usize = 64;

/// A room and what it would send.
struct Candidate {
    room: Room,
    /// Everything after the given place, or the newest.
    resumed: bool,
    cut: bool,
    /// Number before the first message it would send.
    after: u64,
    /// Bytes of each message, newest first; the first belongs to the head.
    sizes: Vec<usize>,
}

impl Candidate {
    fn new(room: Room, place: Option<Position>, query: &SnapshotQuery) -> Self {
        let head = room.head;
        let resumable = place.filter(|place| {
            place.epoch == head.epoch
                && place.seq <= head.seq
                && head.seq - place.seq <= u64::from(query.after_max)
        });
        let after = resumable.map_or_else(|| before_newest(&room, query.count.into()), |place| place.seq);
        let cut = place.is_some() && resumable.is_none();
        Self { room, resumed: resumable.is_some(), cut, after, sizes: Vec::new() }
    }

    fn demand(&self) -> Demand {
        Demand { newest: self.sizes.first().copied().unwrap_or(0), all: self.sizes.iter().sum() }
    }
}

/// The number before the newest `count` messages.
fn before_newest(room: &Room, count: u64) -> u64 {
    room.head.seq.saturating_sub(count)
}

pub(super) async fn snapshot(session: &mut Session, query: &SnapshotQuery) -> Result<Snapshot, Fault> {
    let global = read::global(session).await?;
    let asked = asked(session, query).await?;
    let mut candidates: Vec<Candidate> =
        asked.into_iter().map(|(room, place)| Candidate::new(room, place, query)).collect();
    let all: Vec<usize> = (0..candidates.len()).collect();
    read_sizes(session, &mut candidates, &all).await?;
    let demands = |candidates: &[Candidate]| candidates.iter().map(Candidate::demand).collect::<Vec<_>>();
    let first = share(&demands(&candidates), query.max_bytes);
    let mut cut = Vec::new();
    for (index, (candidate, &bytes)) in candidates.iter_mut().zip(&first).enumerate() {
        if candidate.resumed && fitting(&candidate.sizes, bytes) < candidate.sizes.len() {
            candidate.resumed = false;
            candidate.cut = true;
            candidate.after = before_newest(&candidate.room, query.count.into());
            cut.push(index);
        }
    }
    // A room that was cut may need less than before, never so much more that a room that
    // fitted does not fit any longer: an even share does not shrink.
    let given = if cut.is_empty() {
        first
    } else {
        read_sizes(session, &mut candidates, &cut).await?;
        share(&demands(&candidates), query.max_bytes)
    };
    for (candidate, bytes) in candidates.iter_mut().zip(given) {
        let sent = fitting(&candidate.sizes, bytes);
        candidate.after = before_newest(&candidate.room, sent as u64);
    }
    let mut contents = read_contents(session, &candidates).await?;
    let rooms: Vec<RoomSnapshot> = candidates
        .into_iter()
        .map(|candidate| RoomSnapshot {
            messages: contents.remove(&candidate.room.id).unwrap_or_default(),
            room: candidate.room,
            cut: candidate.cut,
        })
        .collect();
    let mut listed = match query.listed {
        0 => Vec::new(),
        limit => read::public_rooms(session, limit).await?,
    };
    listed.retain(|room| rooms.iter().all(|answered| answered.room.id != room.id));
    Ok(Snapshot { global, rooms, listed })
}

/// Default rooms by creation, then the others as asked, each once, with the place given.
async fn asked(session: &mut Session, query: &SnapshotQuery) -> Result<Vec<(Room, Option<Position>)>, Fault> {
    let mut places: HashMap<&RoomId, Option<Position>> = HashMap::new();
    let mut order: Vec<&RoomId> = Vec::new();
    for (room_id, place) in &query.rooms {
        // The first place given counts.
        places.entry(room_id).or_insert_with(|| {
            order.push(room_id);
            *place
        });
    }
    let mut rooms = Vec::new();
    if query.defaults {
        for room in read::default_rooms(session).await? {
            let place = places.get(&room.id).copied().flatten();
            rooms.push((room, place));
        }
    }
    let seen: HashSet<RoomId> = rooms.iter().map(|(room, _)| room.id.clone()).collect();
    order.retain(|room_id| !seen.contains(*room_id));
    let found = read::rooms_by_id(session, &order).await?;
    let mut found: HashMap<RoomId, Room> = found.into_iter().map(|room| (room.id.clone(), room)).collect();
    for room_id in order {
        if let Some(room) = found.remove(room_id) {
            rooms.push((room, places[room_id]));
        }
    }
    Ok(rooms)
}

/// A condition on the messages of so many rooms, two parameters each: a range of the primary
/// key for each.
fn ranges(rooms: usize) -> String {
    repeated("(room_id = ? AND seq > ?)", " OR ", rooms)
}

/// Parameters of [`ranges`].
fn places(candidates: &[&Candidate]) -> Vec<Value> {
    let place = |candidate: &Candidate| [bytes(candidate.room.id.as_str()), integer(candidate.after)];
    padded(candidates).into_iter().flat_map(place).collect()
}

/// Reads the sizes of what these candidates would send.
async fn read_sizes(
    session: &mut Session,
    candidates: &mut [Candidate],
    which: &[usize],
) -> Result<(), Fault> {
    let wanted: Vec<usize> = which
        .iter()
        .copied()
        .filter(|&index| candidates[index].after < candidates[index].room.head.seq)
        .collect();
    for &index in which {
        candidates[index].sizes.clear();
    }
    for some in wanted.chunks(ROOMS) {
        let mut by_room: HashMap<String, (usize, Vec<(u64, usize)>)> =
            some.iter().map(|&index| (candidates[index].room.id.to_string(), (index, Vec::new()))).collect();
        let params = places(&some.iter().map(|&index| &candidates[index]).collect::<Vec<_>>());
        let sql = format!(
            "SELECT room_id, seq, OCTET_LENGTH(content) FROM messages FORCE INDEX (PRIMARY) WHERE {}",
            ranges(params.len() / 2)
        );
        for mut row in session.rows(&sql, params).await? {
            if let Some((_, sizes)) = by_room.get_mut(&text(&mut row, 0)?) {
                sizes.push((unsigned(&mut row, 1)?, unsigned(&mut row, 2)? as usize));
            }
        }
        for (index, mut sizes) in by_room.into_values() {
            sizes.sort_unstable_by_key(|&(seq, _)| std::cmp::Reverse(seq));
            candidates[index].sizes = sizes.into_iter().map(|(_, size)| size).collect();
        }
    }
    Ok(())
}

/// Reads what each candidate sends, oldest first.
async fn read_contents(
    session: &mut Session,
    candidates: &[Candidate],
) -> Result<HashMap<RoomId, Vec<Message>>, Fault> {
    let wanted: Vec<&Candidate> =
        candidates.iter().filter(|candidate| candidate.after < candidate.room.head.seq).collect();
    let mut contents: HashMap<RoomId, Vec<Message>> =
        wanted.iter().map(|candidate| (candidate.room.id.clone(), Vec::new())).collect();
    for some in wanted.chunks(ROOMS) {
        let params = places(some);
        let sql = format!(
            "SELECT {MESSAGE}, room_id FROM messages FORCE INDEX (PRIMARY) WHERE {}",
            ranges(params.len() / 2)
        );
        for mut row in session.rows(&sql, params).await? {
            let room_id = text(&mut row, 4)?;
            if let Some(messages) = contents.get_mut(room_id.as_str()) {
                messages.push(message(row)?);
            }
        }
    }
    for messages in contents.values_mut() {
        messages.sort_unstable_by_key(|message| message.id.seq);
    }
    Ok(contents)
}
