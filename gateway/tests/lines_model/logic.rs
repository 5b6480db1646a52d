//! Logic as the model has it: rooms with epoch, head and the rows of their outbox.

use std::collections::BTreeMap;
use std::sync::Arc;

use corecast_gateway::core::Wire;
use corecast_gateway::core::lines::types::{Arrival, CutAnswer, Head, RangeAnswer, SnapshotRoom};
use corecast_gateway::core::sequencer::{Ask, Creation, Frame};
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use rand::RngExt;
use rand::rngs::StdRng;

pub(crate) struct LogicRoom {
    pub(crate) at: Position,
    pub(crate) everyone: bool,
    // On `global`: the room each number created.
    pub(crate) creations: Vec<Creation>,
}

pub(crate) struct Logic {
    pub(crate) rooms: BTreeMap<RoomId, LogicRoom>,
}

impl Logic {
    pub(crate) fn new() -> Self {
        let mut rooms = BTreeMap::new();
        let mut add = |id: &str, everyone| {
            let at = Position { epoch: 10, seq: 0 };
            rooms.insert(RoomId::from(id), LogicRoom { at, everyone, creations: Vec::new() });
        };
        add(GLOBAL, true);
        add("d1", true);
        add("p1", false);
        add("p2", false);
        Self { rooms }
    }

    /// Commits messages and answers their frame.
    pub(crate) fn commit(&mut self, room_id: &RoomId, count: u64) -> Arrival {
        let room = self.rooms.get_mut(room_id).expect("known");
        let first = room.at.seq + 1;
        room.at.seq += count;
        arrival(room_id, room.at.epoch, first, room.at.seq, None)
    }

    /// Creates a room and answers its frame on `global`.
    pub(crate) fn create(&mut self, everyone: bool) -> Arrival {
        let room_id = RoomId::from(format!("{}-{}", if everyone { "d" } else { "p" }, self.rooms.len()));
        let global = self.rooms.get_mut(GLOBAL).expect("seeded");
        let creation = Creation { room_id: room_id.clone(), epoch: global.at.epoch, everyone };
        global.at.seq += 1;
        global.creations.push(creation.clone());
        let Position { epoch, seq } = global.at;
        let at = Position { epoch, seq: 0 };
        self.rooms.insert(room_id, LogicRoom { at, everyone, creations: Vec::new() });
        arrival(&RoomId::from(GLOBAL), epoch, seq, seq, Some(creation))
    }

    pub(crate) fn new_epoch(&mut self) {
        for room in self.rooms.values_mut() {
            room.at.epoch += 1;
        }
    }

    pub(crate) fn head(&self, room_id: &RoomId) -> Option<Head> {
        self.rooms.get(room_id).map(|room| Head {
            room_id: room_id.clone(),
            at: room.at,
            everyone: room.everyone,
        })
    }

    pub(crate) fn defaults(&self) -> Vec<Head> {
        self.rooms.iter().filter(|(_, room)| room.everyone).filter_map(|(id, _)| self.head(id)).collect()
    }

    pub(crate) fn snapshot(&self, room_id: &RoomId) -> SnapshotRoom {
        let room = &self.rooms[room_id];
        SnapshotRoom { room_id: room_id.clone(), everyone: room.everyone, at: room.at }
    }

    pub(crate) fn cut(&self, room_id: &RoomId) -> CutAnswer {
        let at = self.rooms[room_id].at;
        CutAnswer { at, wire: Wire::text(format!("cut {room_id} {} {}", at.epoch, at.seq).as_bytes()) }
    }

    /// Frames cut anew at random places, as a read of rows does.
    pub(crate) fn range(&self, room_id: &RoomId, ask: Ask, rng: &mut StdRng) -> RangeAnswer {
        let Some(room) = self.rooms.get(room_id) else {
            return RangeAnswer { at: None, frames: Vec::new() };
        };
        let up_to = ask.up_to.min(room.at.seq);
        let mut first = ask.after + 1;
        let mut frames = Vec::new();
        // A read is bounded: sometimes it answers only a part.
        let limit = rng.random_range(1..12);
        while first <= up_to && frames.len() < limit {
            let one_by_one = room_id.is_global();
            let last = if one_by_one { first } else { rng.random_range(first..=up_to.min(first + 5)) };
            let made = one_by_one.then(|| room.creations[first as usize - 1].clone());
            frames.push(arrival(room_id, room.at.epoch, first, last, made).frame);
            first = last + 1;
        }
        RangeAnswer { at: Some(room.at), frames }
    }
}

fn arrival(room_id: &RoomId, epoch: u64, first: u64, last: u64, creation: Option<Creation>) -> Arrival {
    let text = format!("frame {room_id} {epoch} {first} {last}");
    let frame = Frame { first, last, wire: Wire::text(text.as_bytes()), creates: creation.map(Arc::new) };
    Arrival { room_id: room_id.clone(), epoch, frame }
}
