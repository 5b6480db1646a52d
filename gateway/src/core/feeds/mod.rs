//! Memberships of one shard: who has reached what, who gets what next.
//!
//! A *feed* is a queue of frames with a serial of this shard; each member stands at a
//! serial and gets what lies above it. There is one feed for all default rooms and `global`
//! together, whose members are simply the open connections, and one per other room with
//! members here.
//!
//! ```text
//!  Seat (per slot)                       Room (per public room)
//!  ┌ at: serial in the everyone feed     ┌ queue: frames, who stands where
//!  ├ places ─▶ (room, member) ◀─────────▶└ members: (at, slot, place)
//!  └ lag: what it has missed
//! ```
//! Both ends of a membership know where the other one is, so it ends in O(1).
//!
//! # A pass
//! Frames make a feed *active*. [`Feeds::next_below`] walks its members in a circle and
//! names those below the head; [`Feeds::collect`] gives one connection everything it lacks
//! in all its feeds, so that it gets one write, and moves it up. The pass ends when nobody
//! is below the head. Joins (which begin at the head), leaves (which move the last member
//! to the free place, possibly behind the cursor) and frames that arrive meanwhile need
//! nothing else.
//!
//! # Bound
//! Frames stay until every live member has passed them. What a feed holds is bounded by
//! the shard, which takes no commands while [`Feeds::bytes`] is above its limit: a pass
//! needs none, so it always ends. What a connection holds is bounded by `take`.

mod catch_up;
mod lag;
mod queue;
mod seat;
mod take;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use corecast_proto::ids::{Position, RoomId};

use self::lag::Lag;
use self::queue::{Queue, What};
use self::seat::{ABSENT, Place, Seat};
use super::command::{Joined, RoomFrame};
use super::wire::Wire;

pub use self::lag::Question;
pub use self::take::{Out, Peer};

/// All memberships of a shard. Connections are slot numbers here.
pub struct Feeds {
    seats: Vec<Seat>,
    everyone: Queue,
    everyone_cursor: usize,
    everyone_active: bool,
    /// Shard's numbers of the default rooms and `global`.
    numbers: HashMap<RoomId, Position>,
    rooms: Vec<Room>,
    rooms_free: Vec<u32>,
    rooms_by_id: HashMap<RoomId, u32>,
    /// Feeds with somebody below the head; a room that ended meanwhile has another stamp.
    active: VecDeque<(u32, u32)>,
    /// Members the front feed may still name before the next feed's turn.
    turn_left: u32,
    stamp: u32,
    bytes: usize,
    memberships: usize,
    lagging: usize,
}

/// A room's end of a membership.
struct Member {
    at: u64,
    slot: u32,
    place: u32,
}

struct Room {
    id: RoomId,
    number: Position,
    queue: Queue,
    members: Vec<Member>,
    cursor: usize,
    active: bool,
    stamp: u32,
}

impl Feeds {
    /// No members, no rooms.
    pub fn new() -> Self {
        Self {
            seats: Vec::new(),
            everyone: Queue::new(),
            everyone_cursor: 0,
            everyone_active: false,
            numbers: HashMap::new(),
            rooms: Vec::new(),
            rooms_free: Vec::new(),
            rooms_by_id: HashMap::new(),
            active: VecDeque::new(),
            turn_left: TURN_MEMBERS,
            stamp: 0,
            bytes: 0,
            memberships: 0,
            lagging: 0,
        }
    }

    /// Bytes of frames that somebody still has to get.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memberships of rooms that are not default ones.
    pub fn memberships(&self) -> usize {
        self.memberships
    }

    /// Connections that have missed something.
    pub fn lagging(&self) -> usize {
        self.lagging
    }

    /// Somebody is below a head.
    pub fn is_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// A numbered frame. Nobody is in its room: its number is noted, nothing else.
    pub fn push(&mut self, frame: RoomFrame) {
        let number = Position { epoch: frame.epoch, seq: frame.last };
        let RoomFrame { room_id, everyone, epoch, first, wire, .. } = frame;
        if everyone {
            self.note_number(&room_id, number);
            self.push_everyone(What::Numbered { room_id, epoch, first, wire });
        } else if let Some(&room) = self.rooms_by_id.get(&room_id) {
            self.rooms[room as usize].number = number;
            self.push_room(room, What::Numbered { room_id, epoch, first, wire });
        }
    }

    /// What members hold of the room is void: `wire` replaces it.
    pub fn push_cut(&mut self, room_id: RoomId, everyone: bool, at: Position, wire: Option<Wire>) {
        if everyone {
            let before = self.note_number(&room_id, at).unwrap_or_default();
            self.push_everyone(What::Cut { room_id, before, wire });
        } else if let Some(&room) = self.rooms_by_id.get(&room_id) {
            let before = std::mem::replace(&mut self.rooms[room as usize].number, at);
            self.push_room(room, What::Cut { room_id, before, wire });
        }
    }

    /// A push without a number to a room: its members here, or everybody if frames of a
    /// default room by that name have passed. `false`: nobody is in it.
    pub fn push_unnumbered(&mut self, room_id: &RoomId, wire: Wire) -> bool {
        if let Some(&room) = self.rooms_by_id.get(room_id) {
            self.push_room(room, What::Unnumbered { wire });
            return true;
        }
        let known = self.numbers.contains_key(room_id);
        if known {
            self.push_everyone(What::Unnumbered { wire });
        }
        known
    }

    /// A push without a number to every open connection.
    pub fn push_all(&mut self, wire: Wire) {
        self.push_everyone(What::Unnumbered { wire });
    }

    /// A frame to every open connection with `corecast.v1`.
    pub fn push_notice(&mut self, wire: Wire) {
        self.push_everyone(What::Notice { wire });
    }

    /// The connection becomes a member of every default room, from here on.
    pub fn open(&mut self, slot: u32) {
        if self.seats.len() <= slot as usize {
            self.seats.resize_with(slot as usize + 1, Seat::absent);
        }
        debug_assert_eq!(self.seats[slot as usize].at, ABSENT);
        self.seats[slot as usize].at = self.everyone.enter();
    }

    /// The open connection becomes a member of one more room, from here on. `false`: it is
    /// one already, and stays where it is.
    pub fn join(&mut self, slot: u32, joined: Joined) -> bool {
        let room = match self.rooms_by_id.get(&joined.room_id) {
            Some(&room) => room,
            None => self.make_room(joined),
        };
        let seat = &mut self.seats[slot as usize];
        if seat.places().any(|place| place.room == room) {
            return false;
        }
        let Room { queue, members, .. } = &mut self.rooms[room as usize];
        members.push(Member { at: queue.enter(), slot, place: seat.place_count() as u32 });
        seat.push_place(Place { room, member: members.len() as u32 - 1 });
        self.memberships += 1;
        true
    }

    /// Is it a member of this room, which is not a default one?
    pub fn is_member(&self, slot: u32, room_id: &RoomId) -> bool {
        self.place(slot, room_id).is_some()
    }

    /// The membership ends. `false`: there was none.
    pub fn leave(&mut self, slot: u32, room_id: &RoomId) -> bool {
        let Some(place) = self.place(slot, room_id) else { return false };
        let seat = &mut self.seats[slot as usize];
        if let Some(lag) = seat.lag_mut() {
            lag.end(room_id);
        }
        self.remove(slot, place);
        self.drop_empty(slot);
        true
    }

    /// All memberships end. Returns the rooms, besides the default ones.
    pub fn close(&mut self, slot: u32) -> Vec<RoomId> {
        let Some(seat) = self.seats.get_mut(slot as usize) else { return Vec::new() };
        if seat.at == ABSENT {
            return Vec::new();
        }
        let at = std::mem::replace(&mut seat.at, ABSENT);
        let before = self.everyone.bytes();
        self.everyone.leave(at);
        self.bytes -= before - self.everyone.bytes();
        let mut rooms = Vec::new();
        while let Some(place) = self.last_place(slot) {
            rooms.push(self.remove(slot, place));
        }
        let seat = &mut self.seats[slot as usize];
        self.lagging -= usize::from(seat.take_lag().is_some());
        seat.shrink();
        rooms
    }

    /// The next connection that lacks something. `steps` bounds the search and is used up
    /// by it. Feeds take turns. A connection may be named again before it is served.
    pub fn next_below(&mut self, steps: &mut usize) -> Option<u32> {
        while let Some(&(feed, stamp)) = self.active.front() {
            if self.turn_left == 0 {
                self.next_feed();
                continue;
            }
            let found = if feed == EVERYONE {
                if self.everyone.below() == 0 {
                    self.everyone_active = false;
                    self.end_pass();
                    continue;
                }
                let head = self.everyone.head();
                let seats = &self.seats;
                walk(&mut self.everyone_cursor, seats.len(), steps, |at| {
                    (seats[at].at < head).then_some(at as u32)
                })
            } else {
                let room = &mut self.rooms[feed as usize];
                if room.stamp != stamp || room.queue.below() == 0 {
                    room.active &= room.stamp != stamp;
                    self.end_pass();
                    continue;
                }
                let head = room.queue.head();
                let members = &room.members;
                walk(&mut room.cursor, members.len(), steps, |at| {
                    (members[at].at < head).then_some(members[at].slot)
                })
            };
            if found.is_some() {
                self.turn_left -= 1;
                return found;
            }
            self.next_feed();
            if *steps == 0 {
                return None;
            }
        }
        None
    }

    /// The next feed's turn.
    pub fn next_feed(&mut self) {
        self.turn_left = TURN_MEMBERS;
        if let Some(front) = self.active.pop_front() {
            self.active.push_back(front);
        }
    }

    /// Gives an open connection what it lacks in all its feeds, as far as it takes it.
    /// `false`: what it holds is void and it cannot be told so; close it with 1012.
    pub fn collect(&mut self, slot: u32, mut peer: Peer, out: &mut Out<'_>) -> bool {
        let Self { seats, everyone, rooms, bytes, .. } = self;
        let seat = &mut seats[slot as usize];
        let mut lag = seat.take_lag();
        let lagged = lag.is_some();
        let (mut void, mut served) = (false, false);
        let one_feed = peer.one_feed;
        let mut serve = |queue: &mut Queue, at: &mut u64, lag: &mut Option<Box<Lag>>| {
            if *at < queue.head() && !(one_feed && served) {
                served = true;
                let before = queue.bytes();
                let taken = take::take(queue, *at, &mut peer, lag, out);
                queue.advance(*at, taken.to);
                *at = taken.to;
                *bytes -= before - queue.bytes();
                void |= taken.void;
            }
        };
        serve(everyone, &mut seat.at, &mut lag);
        for place in seat.places() {
            let room = &mut rooms[place.room as usize];
            serve(&mut room.queue, &mut room.members[place.member as usize].at, &mut lag);
        }
        if let Some(lag) = lag {
            self.lagging += usize::from(!lagged);
            seat.set_lag(lag);
        }
        !void
    }

    /// Is it below a head?
    pub fn lacks_something(&self, slot: u32) -> bool {
        let Some(seat) = self.seats.get(slot as usize) else { return false };
        seat.at < self.everyone.head()
            || seat.places().any(|place| {
                let room = &self.rooms[place.room as usize];
                room.members[place.member as usize].at < room.queue.head()
            })
    }

    fn push_everyone(&mut self, what: What) {
        let before = self.everyone.bytes();
        self.everyone.push(what);
        self.bytes += self.everyone.bytes() - before;
        if !self.everyone_active && self.everyone.below() > 0 {
            self.everyone_active = true;
            self.active.push_back((EVERYONE, 0));
        }
    }

    fn push_room(&mut self, index: u32, what: What) {
        let room = &mut self.rooms[index as usize];
        let before = room.queue.bytes();
        room.queue.push(what);
        self.bytes += room.queue.bytes() - before;
        if !room.active {
            room.active = true;
            self.active.push_back((index, room.stamp));
        }
    }

    /// Returns the number before.
    fn note_number(&mut self, room_id: &RoomId, number: Position) -> Option<Position> {
        match self.numbers.get_mut(room_id) {
            Some(known) => Some(std::mem::replace(known, number)),
            None => self.numbers.insert(room_id.clone(), number),
        }
    }

    fn place(&self, slot: u32, room_id: &RoomId) -> Option<usize> {
        let room = *self.rooms_by_id.get(room_id)?;
        self.seats.get(slot as usize)?.places().position(|place| place.room == room)
    }

    fn last_place(&self, slot: u32) -> Option<usize> {
        self.seats[slot as usize].place_count().checked_sub(1)
    }

    fn make_room(&mut self, joined: Joined) -> u32 {
        self.stamp = self.stamp.wrapping_add(1);
        let room = Room {
            id: joined.room_id.clone(),
            number: joined.at,
            queue: Queue::new(),
            members: Vec::new(),
            cursor: 0,
            active: false,
            stamp: self.stamp,
        };
        let index = match self.rooms_free.pop() {
            Some(index) => {
                self.rooms[index as usize] = room;
                index
            }
            None => {
                self.rooms.push(room);
                self.rooms.len() as u32 - 1
            }
        };
        self.rooms_by_id.insert(joined.room_id, index);
        index
    }

    /// Ends the membership at `place`, and the room with its last member.
    fn remove(&mut self, slot: u32, place: usize) -> RoomId {
        let seat = &mut self.seats[slot as usize];
        let gone = seat.swap_remove_place(place).expect("the caller found it there");
        let Place { room: index, member } = gone;
        if let Some(moved) = seat.place_mut(place) {
            self.rooms[moved.room as usize].members[moved.member as usize].place = place as u32;
        }
        let room = &mut self.rooms[index as usize];
        let before = room.queue.bytes();
        let gone = room.members.swap_remove(member as usize);
        room.queue.leave(gone.at);
        self.memberships -= 1;
        self.bytes -= before - room.queue.bytes();
        let id = room.id.clone();
        if let Some(moved) = room.members.get(member as usize) {
            let (slot, place) = (moved.slot as usize, moved.place as usize);
            let place = self.seats[slot].place_mut(place).expect("a member has a place");
            place.member = member;
        }
        if room.members.is_empty() {
            room.members = Vec::new();
            // A pass that still names it finds another stamp.
            room.stamp = room.stamp.wrapping_sub(1);
            self.rooms_by_id.remove(&id);
            self.rooms_free.push(index);
        }
        id
    }

    /// Frees what a seat no longer needs.
    fn drop_empty(&mut self, slot: u32) {
        let seat = &mut self.seats[slot as usize];
        if seat.lag().is_some_and(Lag::is_over) {
            seat.take_lag();
            self.lagging -= 1;
        }
        seat.shrink();
    }

    fn end_pass(&mut self) {
        self.active.pop_front();
        self.turn_left = TURN_MEMBERS;
    }
}

impl Default for Feeds {
    fn default() -> Self {
        Self::new()
    }
}

/// Walks in a circle from `cursor`, at most once around and at most `steps`.
fn walk(
    cursor: &mut usize,
    length: usize,
    steps: &mut usize,
    wanted: impl Fn(usize) -> Option<u32>,
) -> Option<u32> {
    for _ in 0..length.min(*steps) {
        if *cursor >= length {
            *cursor = 0;
        }
        let found = wanted(*cursor);
        *cursor += 1;
        *steps -= 1;
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The everyone feed among room indices.
const EVERYONE: u32 = u32::MAX;
/// Members one feed names before the next one's turn: a wide room does not delay a narrow one.
const TURN_MEMBERS: u32 = 16;

const _: () = assert!(size_of::<Place>() + size_of::<Member>() <= 24);
