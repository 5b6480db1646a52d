//! Every way into a room: one consistent snapshot of the primary, cut to size.

use std::collections::HashSet;

use bytes::Bytes;
use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{self, SnapshotQuery, Store};
use corecast_proto::ids::{Position, RoomId};
use corecast_proto::limits;
use corecast_proto::logic::{self, Cursor, HelloReply, HelloRequest};
use corecast_proto::refusal::Code;

use super::Service;
use crate::domain::frames::Encoded;
use crate::domain::hello::{Share, Wish, share};
use crate::domain::room;
use crate::error::Failure;

/// What a room object of the frame takes beside its messages and names, bytes.
const ROOM_OBJECT_BYTES: usize = 160;
/// No message object is smaller: names of fields, punctuation and a few digits, bytes.
const MESSAGE_BYTES_MIN: usize = 80;
/// Messages never get less than this of a hello, however many rooms it lists, bytes.
const MESSAGES_BYTES_MIN: usize = limits::HELLO_BYTES / 4;
/// Public rooms listed in a hello at most: the newest. Each takes its object's bytes beside
/// the messages.
const LISTED_ROOMS: u32 = 128;
/// `max_bytes` of a request at most.
const MESSAGES_BYTES_MAX: usize = limits::REPLY_BYTES;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// `global`'s place, every default room if asked, and the rooms asked, each with its
    /// newest messages or with those after the place the client has reached. Contents stop at
    /// the room's number and reach it; trimming drops the oldest.
    ///
    /// # Errors
    /// `UNKNOWN_USER`, `BAD_INPUT`, `TOO_LARGE`; unavailable.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn hello(&self, request: HelloRequest) -> Result<HelloReply, Failure> {
        // Without a user it is the gateway that asks, for a hello it shares or a cut.
        if !request.user_id.is_empty() {
            self.username(&request.user_id).await?;
        }
        let count = newest_count(request.count)?;
        let cursors = distinct(request.rooms)?;
        let wanted_bytes = wanted_bytes(request.max_bytes);
        let snapshot = self
            .ask(self.store.snapshot(SnapshotQuery {
                defaults: request.defaults,
                rooms: cursors.iter().map(|(id, place)| (id.clone(), *place)).collect(),
                count,
                // More cannot fit: the store need not look at them.
                after_max: (wanted_bytes / MESSAGE_BYTES_MIN).min(limits::GAP_MESSAGES as usize) as u32,
                // Bytes of content, which is less than bytes of JSON: the rest is cut below.
                max_bytes: wanted_bytes,
                listed: if request.defaults { LISTED_ROOMS } else { 0 },
            }))
            .await?;

        let mut rooms = snapshot.rooms;
        rooms.retain(|shown| room::is_open(shown.room.kind));
        let shown: HashSet<&str> = rooms.iter().map(|shown| shown.room.id.as_str()).collect();
        let missing = cursors
            .iter()
            .filter(|(id, _)| !shown.contains(id.as_str()))
            .map(|(id, _)| id.to_string())
            .collect();

        let resumed: HashSet<&str> =
            cursors.iter().filter(|(_, place)| place.is_some()).map(|(id, _)| id.as_str()).collect();
        let encoded: Vec<Encoded> = rooms.iter().map(|shown| Encoded::of(&shown.messages)).collect();
        let wishes: Vec<Wish<'_>> = rooms
            .iter()
            .zip(&encoded)
            .map(|(shown, messages)| Wish {
                messages,
                resumed: resumed.contains(shown.room.id.as_str()) && !shown.cut,
                newest_max: count as usize,
            })
            .collect();
        let shares = share(&wishes, messages_bytes(request.max_bytes, &rooms));
        let rooms = rooms
            .iter()
            .zip(&encoded)
            .zip(shares)
            .map(|((shown, encoded), share)| room_snapshot(shown, encoded, share))
            .collect();
        let listed = snapshot.listed.iter().map(listed_room).collect();
        Ok(HelloReply { global: Some(position(snapshot.global)), rooms, missing, listed })
    }
}

/// As `corecast.logic.v1` spells it.
pub(super) fn position(position: Position) -> logic::Position {
    logic::Position { epoch: position.epoch, seq: position.seq }
}

fn newest_count(count: u32) -> Result<u32, Failure> {
    match count {
        0 => Ok(limits::HISTORY_COUNT_DEFAULT),
        1..=limits::HISTORY_COUNT_MAX => Ok(count),
        _ => {
            let max = limits::HISTORY_COUNT_MAX;
            Err(Code::BadInput.with(format!("count must be 1 to {max}")).into())
        }
    }
}

/// The rooms asked, each once: the first mention counts.
fn distinct(cursors: Vec<Cursor>) -> Result<Vec<(RoomId, Option<Position>)>, Failure> {
    if cursors.len() > limits::RESUME_ROOMS {
        let max = limits::RESUME_ROOMS;
        return Err(Code::TooLarge.with(format!("rooms must hold at most {max}")).into());
    }
    let mut seen = HashSet::new();
    let mut rooms = Vec::with_capacity(cursors.len());
    for cursor in cursors {
        let id = RoomId::from(cursor.room_id);
        if seen.insert(id.clone()) {
            let place = Position { epoch: cursor.epoch, seq: cursor.seq };
            rooms.push((id, cursor.has_position.then_some(place)));
        }
    }
    Ok(rooms)
}

fn wanted_bytes(max_bytes: u32) -> usize {
    match max_bytes {
        0 => limits::HELLO_BYTES,
        bytes => (bytes as usize).min(MESSAGES_BYTES_MAX),
    }
}

/// Where the caller leaves the size to us the whole frame keeps to it, so what the room
/// objects take is no longer there for messages.
fn messages_bytes(max_bytes: u32, rooms: &[store::RoomSnapshot]) -> usize {
    let wanted = wanted_bytes(max_bytes);
    if max_bytes != 0 {
        return wanted;
    }
    let objects: usize = rooms
        .iter()
        .map(|shown| {
            let room = &shown.room;
            ROOM_OBJECT_BYTES + room.id.as_str().len() + room.name.len() + room.creator_id.len()
        })
        .sum();
    wanted.saturating_sub(objects).max(MESSAGES_BYTES_MIN)
}

/// A room that can be joined by opening it: what to show of it before.
fn listed_room(room: &store::Room) -> logic::RoomSnapshot {
    describe(room, room.head.seq + 1, false, Bytes::from_static(b"[]"))
}

fn room_snapshot(shown: &store::RoomSnapshot, encoded: &Encoded, share: Share) -> logic::RoomSnapshot {
    let room = &shown.room;
    let first_seq = shown.messages.get(share.start).map_or(room.head.seq + 1, |message| message.id.seq);
    let messages = Bytes::from(encoded.array(share.start..encoded.len()));
    describe(room, first_seq, shown.cut || share.cut, messages)
}

fn describe(room: &store::Room, first_seq: u64, cut: bool, messages: Bytes) -> logic::RoomSnapshot {
    logic::RoomSnapshot {
        room_id: room.id.to_string(),
        name: room.name.clone(),
        creator_id: room.creator_id.clone(),
        kind: room::kind_number(room.kind),
        epoch: room.head.epoch,
        last_seq: room.head.seq,
        first_seq,
        has_more: first_seq > 1,
        cut,
        messages,
    }
}

#[cfg(test)]
mod tests {
    use corecast_backends::store::Message;
    use corecast_proto::ids::MessageId;

    use super::*;

    #[test]
    fn the_smallest_message_is_not_smaller_than_assumed() {
        let smallest = Message {
            id: MessageId { ms: 1_000_000_000_000, seq: 1 },
            user_id: String::new(),
            username: String::new(),
            content: String::new(),
        };
        assert!(Encoded::of(&[smallest]).array_bytes(0..1) - 2 >= MESSAGE_BYTES_MIN);
    }
}
