//! All connections of one shard: what happens to them and what they want sent.
//!
//! | file | what |
//! |---|---|
//! | here | the slab, a connection's begin and end |
//! | `reading` | bytes of peers: request heads, frames |
//! | `commands` | what control wants |
//! | `flush` | who sends what next |
//! | `deadlines` | pings, silence, stalls, closes that take too long |
//! | `sweeps` | walks over all connections: paced broadcast, sign-out, drain |
//!
//! Order of calls in a turn: [`Connections::handle_time`] first, then any `handle_*`, then
//! [`Connections::poll_transmit`] and [`Connections::handle_sent`] for each batch, and at
//! the end [`Connections::poll_action`] and [`Connections::poll_event`] until empty. A slot
//! is used again only after its [`Action::Close`] was taken, so a driver never sees two
//! sockets under one slot.
//!
//! | queue | bound | when full | counter |
//! |---|---|---|---|
//! | pushes of a connection | `push_soft_bytes`, `push_hard_bytes` | demoted | `demoted`, `dropped` |
//! | replies of a connection | `push_hard_bytes` and one reply, while its socket is full | closed with 1013 | `closed` |
//! | pongs of a connection | 64, then the newest one replaces the one before | – | `frames` |
//! | memberships of a connection | [`MEMBERSHIPS`](corecast_proto::limits::MEMBERSHIPS) (control) | the join is refused | `refused_frames` |
//! | unsettled texts | `requests_in_flight`, [`UNSETTLED_BYTES`] a shard | sockets are not read | `unread` |
//! | texts behind them | what one read and one message hold | the socket is not read | – |
//! | feeds | [`FEED_BYTES`] | commands wait in the mailbox | `held_back` |
//! | sweeps | [`SWEEPS_MAX`] of a kind | commands wait; a broadcast is not paced | `held_back` |

mod commands;
mod deadlines;
mod flush;
mod reading;
mod sweeps;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use corecast_proto::close::CloseCode;
use corecast_proto::ids::RoomId;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use self::sweeps::Sweeps;
use super::command::{ConnId, Event, UpgradeRequest};
use super::counters::{Counters, Ended};
use super::feeds::Feeds;
use super::handshake::Rules;
use super::held::HeldBySlot;
use super::outbox::Segment;
use super::session::{Closing, Connection, Head, NOBODY, Phase, Stamp};
use super::timers::Wheel;
use super::wire::Wire;
use crate::config::Limits;

pub use self::flush::{Batch, Outcome};

/// Names a connection of a shard: a slot and which use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Place in the slab.
    pub slot: u32,
    /// Which use.
    pub generation: u32,
}

/// What the shell does to a socket, in order, after it has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Close it.
    Close(Key),
    /// End the stream towards the peer.
    Shutdown(Key),
    /// Read it again.
    Resume(Key),
    /// Give it to the HTTP server.
    HandOver {
        /// Connection; over with this.
        key: Key,
        /// Bytes already read.
        read: Vec<u8>,
        /// Peer address.
        peer: Option<IpAddr>,
    },
    /// Stop accepting.
    StopAccept,
}

/// How many connections the process may still take. Shared by its shards.
#[derive(Clone, Debug)]
pub struct Places {
    used: Arc<AtomicUsize>,
    max: usize,
}

/// All connections of one shard.
pub struct Connections {
    shard: u16,
    limits: Limits,
    rules: Rules,
    places: Places,
    slots: Vec<Connection>,
    free: Vec<u32>,
    live: usize,
    open: usize,
    feeds: Feeds,
    /// First connection of each user. The id is its session's: 5 bytes a user, not 25.
    users: HashTable<u32>,
    users_hasher: RandomState,
    wheel: Wheel,
    fired: Vec<u32>,
    sweeps: Sweeps,
    /// Connections that want to send, or to be looked at after output went away.
    dirty: VecDeque<u32>,
    segments: Vec<Segment>,
    held: HeldBySlot,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
    unsettled_bytes: Arc<AtomicUsize>,
    counters: Counters,
    now_ms: u64,
    send_per_room: bool,
}

/// When does a connection that is closed say so?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Urgency {
    /// After what its feeds and its queue hold for it.
    Behind,
    /// After what its queue holds.
    Queued,
    /// After the frame that was begun.
    Next,
}

impl Places {
    /// At most `max` connections, 0: as many as slots can be numbered.
    pub fn new(max: usize) -> Self {
        Self { used: Arc::default(), max: if max == 0 { SLOTS_MAX } else { max } }
    }

    fn take(&self) -> bool {
        let more = |used| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// No connections.
    pub fn new(shard: u16, limits: Limits, rules: Rules, places: Places, now_ms: u64) -> Self {
        Self {
            shard,
            limits,
            rules,
            places,
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            open: 0,
            feeds: Feeds::new(),
            users: HashTable::new(),
            users_hasher: RandomState::new(),
            wheel: Wheel::new(now_ms, WHEEL_TICK_MS, WHEEL_SLOTS),
            fired: Vec::new(),
            sweeps: Sweeps::default(),
            dirty: VecDeque::new(),
            segments: Vec::new(),
            held: HeldBySlot::new(),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            unsettled_bytes: Arc::default(),
            counters: Counters::default(),
            now_ms,
            send_per_room: false,
        }
    }

    /// One send for each feed and member instead of one for each member (`debug.send_per_room`).
    pub fn set_send_per_room(&mut self, on: bool) {
        self.send_per_room = on;
    }

    /// A peer connected. `None`: there is no place for it.
    pub fn handle_accepted(&mut self, peer: Option<IpAddr>) -> Option<Key> {
        let Some(slot) = self.take_slot() else {
            self.counters.refused += 1;
            return None;
        };
        self.counters.accepted += 1;
        Some(self.begin(slot, Phase::Head(Box::new(Head { read: Vec::new(), peer }))))
    }

    /// A socket whose upgrade was answered elsewhere. `None`: there is no place for it, or
    /// the shard drains.
    pub fn handle_adopted(&mut self, request: UpgradeRequest) -> Option<Key> {
        if self.is_draining() {
            return None;
        }
        let Some(slot) = self.take_slot() else {
            self.counters.refused += 1;
            return None;
        };
        let key = self.begin(slot, Phase::Upgraded);
        self.upgrade(slot, request);
        Some(key)
    }

    /// The peer sends nothing more.
    pub fn handle_ended(&mut self, key: Key) {
        let Some(slot) = self.find(key) else { return };
        // Plain HTTP may end its side and still wait for the answer.
        if !matches!(self.slots[slot as usize].phase, Phase::Handing(_)) {
            self.end(slot, Ended::Lost);
        }
    }

    /// Nothing can be read or written any more.
    pub fn handle_failed(&mut self, key: Key) {
        if let Some(slot) = self.find(key) {
            self.end(slot, Ended::Lost);
        }
    }

    /// What the shell has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front()?;
        if let Action::Close(key) | Action::HandOver { key, .. } = &action {
            self.free.push(key.slot);
        }
        Some(action)
    }

    /// What control has to know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// May sockets be read? Not while control holds too much text.
    pub fn may_read(&self) -> bool {
        self.unsettled_bytes.load(Ordering::Relaxed) < UNSETTLED_BYTES
    }

    /// May commands be taken? Not while the frames of earlier ones fill the memory.
    pub fn may_take_commands(&self) -> bool {
        self.feeds.bytes() < FEED_BYTES && !self.sweeps.is_full()
    }

    /// Drained, and nobody is left.
    pub fn is_drained(&self) -> bool {
        self.is_draining() && self.live == 0
    }

    /// The numbers, gauges included. Some are for the shell to count.
    pub fn counters(&mut self) -> &mut Counters {
        self.counters.connections = self.live as u64;
        self.counters.open = self.open as u64;
        self.counters.memberships = self.feeds.memberships() as u64;
        self.counters.lagging = self.feeds.lagging() as u64;
        self.counters.feed_bytes = self.feeds.bytes() as u64;
        self.counters.unsettled_bytes = self.unsettled_bytes.load(Ordering::Relaxed) as u64;
        &mut self.counters
    }

    fn take_slot(&mut self) -> Option<u32> {
        if !self.places.take() {
            return None;
        }
        Some(self.free.pop().unwrap_or_else(|| {
            self.slots.push(Connection::free());
            self.slots.len() as u32 - 1
        }))
    }

    fn begin(&mut self, slot: u32, phase: Phase) -> Key {
        self.live += 1;
        self.slots[slot as usize].begin(phase, self.now_ms);
        self.wind(slot);
        self.key(slot)
    }

    /// The 101 is queued, or was sent by control.
    fn upgrade(&mut self, slot: u32, request: UpgradeRequest) {
        let conn = &mut self.slots[slot as usize];
        self.counters.handshakes += 1;
        conn.v1 = request.v1;
        conn.since = Stamp::at(self.now_ms);
        conn.alive = conn.since;
        conn.phase = if request.echo { Phase::Echo } else { Phase::Upgraded };
        if !request.echo {
            let conn = self.conn_id(slot);
            self.events.push_back(Event::Upgraded { conn, request });
        }
        if self.is_draining() {
            self.close(slot, CloseCode::GoingAway, "draining", Urgency::Behind);
        }
        self.wind(slot);
    }

    /// Closes with a code of ours. A request head is simply dropped.
    fn close(&mut self, slot: u32, code: CloseCode, reason: &'static str, urgency: Urgency) {
        match self.slots[slot as usize].phase {
            Phase::Upgraded | Phase::Open(_) | Phase::Echo => {
                self.begin_close(slot, Ended::By(code), urgency, &Wire::close(code, reason));
            }
            Phase::Head(_) | Phase::Handing(_) => self.end(slot, Ended::By(code)),
            Phase::Free | Phase::Closing(_) => {}
        }
    }

    /// Leaves everything and queues the close frame.
    fn begin_close(&mut self, slot: u32, why: Ended, urgency: Urgency, frame: &Wire) {
        if urgency == Urgency::Behind && !self.collect_behind(slot) {
            // What its feeds held closed it.
            return;
        }
        let rooms = self.leave_all(slot);
        let key = self.key(slot);
        let now = Stamp::at(self.now_ms);
        let conn = &mut self.slots[slot as usize];
        if urgency == Urgency::Next {
            conn.outbox.keep_begun_frame();
        }
        let known = matches!(conn.phase, Phase::Upgraded | Phase::Open(_));
        let session = conn.session().cloned();
        conn.reply(frame, &mut self.counters);
        conn.unsettled = 0;
        conn.since = now;
        conn.alive = now;
        let closing = Closing { why, session, known, rooms, peer_closed: false, shut: false };
        conn.phase = Phase::Closing(Box::new(closing));
        self.held.remove(&slot);
        if std::mem::take(&mut conn.paused) {
            self.actions.push_back(Action::Resume(key));
        }
        self.mark(slot);
        self.wind(slot);
    }

    /// The connection is gone, whatever its phase.
    fn end(&mut self, slot: u32, why: Ended) {
        let rooms = self.leave_all(slot);
        let conn_id = self.conn_id(slot);
        let conn = &mut self.slots[slot as usize];
        let phase = std::mem::replace(&mut conn.phase, Phase::Free);
        let (why, known, session, rooms) = match phase {
            Phase::Free => return,
            Phase::Closing(closing) => (closing.why, closing.known, closing.session, closing.rooms),
            Phase::Head(_) | Phase::Handing(_) | Phase::Echo => (why, false, None, rooms),
            Phase::Upgraded => (why, true, None, rooms),
            Phase::Open(session) => (why, true, Some(session), rooms),
        };
        self.held.remove(&slot);
        if known {
            self.events.push_back(Event::Closed { conn: conn_id, session, rooms });
        }
        self.counters.count_end(why);
        let key = self.give_up(slot);
        self.actions.push_back(Action::Close(key));
    }

    /// Empties the slot; the action that the caller queues frees it.
    fn give_up(&mut self, slot: u32) -> Key {
        let key = self.key(slot);
        let conn = &mut self.slots[slot as usize];
        // It may still stand in the list of those that want to send.
        let (generation, dirty) = (key.generation.wrapping_add(1), conn.dirty);
        *conn = Connection { generation, dirty, ..Connection::free() };
        self.wheel.remove(slot);
        self.live -= 1;
        self.places.give_back();
        key
    }

    /// No member of anything, no user's connection. Returns the rooms besides the default ones.
    fn leave_all(&mut self, slot: u32) -> Vec<RoomId> {
        if !matches!(self.slots[slot as usize].phase, Phase::Open(_)) {
            return Vec::new();
        }
        self.open -= 1;
        self.unlink_user(slot);
        self.feeds.close(slot)
    }

    /// Queues a frame beside the push budget, unless the connection closes already. A peer
    /// that does not take its replies is closed.
    fn reply(&mut self, slot: u32, wire: &Wire) {
        let conn = &mut self.slots[slot as usize];
        if !conn.is_upgraded() {
            return;
        }
        let most = self.limits.push_hard_bytes + corecast_proto::limits::REPLY_BYTES;
        if conn.blocked && conn.outbox.cost() + wire.len() > most {
            self.close(slot, CloseCode::TryLater, "replies are not read", Urgency::Next);
            return;
        }
        conn.reply(wire, &mut self.counters);
        self.mark(slot);
    }

    /// It wants to send, or to be looked at.
    fn mark(&mut self, slot: u32) {
        let conn = &mut self.slots[slot as usize];
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push_back(slot);
        }
    }

    fn link_user(&mut self, slot: u32) {
        let Self { slots, users, users_hasher, .. } = self;
        let user = user_of(slots, slot);
        let same = |other: &u32| user_of(slots, *other) == user;
        let hash = |other: &u32| users_hasher.hash_one(user_of(slots, *other));
        let first = match users.entry(users_hasher.hash_one(user), same, hash) {
            Entry::Occupied(mut first) => std::mem::replace(first.get_mut(), slot),
            Entry::Vacant(place) => {
                place.insert(slot);
                NOBODY
            }
        };
        slots[slot as usize].user_next = first;
        if first != NOBODY {
            slots[first as usize].user_prev = slot;
        }
    }

    fn unlink_user(&mut self, slot: u32) {
        let conn = &mut self.slots[slot as usize];
        let next = std::mem::replace(&mut conn.user_next, NOBODY);
        let prev = std::mem::replace(&mut conn.user_prev, NOBODY);
        if next != NOBODY {
            self.slots[next as usize].user_prev = prev;
        }
        if prev != NOBODY {
            self.slots[prev as usize].user_next = next;
            return;
        }
        let hash = self.users_hasher.hash_one(user_of(&self.slots, slot));
        let Ok(mut first) = self.users.find_entry(hash, |first| *first == slot) else { return };
        if next == NOBODY {
            first.remove();
        } else {
            *first.get_mut() = next;
        }
    }

    fn first_of_user(&self, user: &str) -> Option<u32> {
        let same = |slot: &u32| user_of(&self.slots, *slot) == user;
        self.users.find(self.users_hasher.hash_one(user), same).copied()
    }

    fn find(&self, key: Key) -> Option<u32> {
        let conn = self.slots.get(key.slot as usize)?;
        (conn.generation == key.generation && !matches!(conn.phase, Phase::Free)).then_some(key.slot)
    }

    fn find_conn(&self, conn: ConnId) -> Option<u32> {
        self.find(Key { slot: conn.slot, generation: conn.generation })
    }

    fn key(&self, slot: u32) -> Key {
        Key { slot, generation: self.slots[slot as usize].generation }
    }

    fn conn_id(&self, slot: u32) -> ConnId {
        ConnId { shard: self.shard, slot, generation: self.slots[slot as usize].generation }
    }
}

/// Whose connection an open one is.
fn user_of(slots: &[Connection], slot: u32) -> &str {
    slots[slot as usize].session().map_or("", |session| session.user_id())
}

/// Bytes of text that control may hold unsettled before a shard stops reading.
pub const UNSETTLED_BYTES: usize = 64 << 20;
/// Bytes of frames in feeds above which a shard takes no commands.
pub const FEED_BYTES: usize = 64 << 20;
/// Sweeps of a kind that may wait.
pub const SWEEPS_MAX: usize = 1_024;
/// A slot number must leave room for the marks in lists of slots.
const SLOTS_MAX: usize = u32::MAX as usize - 1;
/// Width of a bucket of the timer wheel: pings of many idle connections share a wake.
const WHEEL_TICK_MS: u64 = 128;
/// Buckets: 65 s ahead, so that a default ping fits without a second look.
const WHEEL_SLOTS: usize = 512;
