//! All lines of a gateway: what goes to which core, who may be placed where, what must be
//! read from logic.
//!
//! | module | what |
//! |---|---|
//! | [`types`] | what goes in and comes out |
//! | [`frames`](self) | frames from both paths, ranges, unknown rooms |
//! | [`tails`](self) | heads: start, tail check, resets, closing of lines |
//! | [`place`](self) | hello, join, catch-up pages |
//! | [`cores`](self) | what a core got, what it must still get |
//!
//! Calling order: any `handle_*`, then `poll_action` until it is empty; a command that
//! found no place in the core's mailbox goes back by `refused` before the next
//! `poll_action`. `poll_timeout` tells when `handle_timeout` is due.

mod cores;
mod frames;
mod place;
mod tails;
pub mod types;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};

use corecast_proto::ids::{GLOBAL, Position, RoomId};

use self::cores::{Core, Fed};
use self::types::{Action, LinesLimits, Placement, Ticket};
use super::command::ConnId;
use super::sequencer::Line;

// Hashed with fixed keys: the order of iteration is part of what a seed replays. The ids
// are made by logic, so nobody chooses them to collide.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;
type Set<K> = HashSet<K, BuildHasherDefault<DefaultHasher>>;

/// All lines of a gateway.
pub struct Lines {
    limits: LinesLimits,
    cores: Vec<Core>,
    rooms: Map<RoomId, Room>,
    global: RoomId,
    // Rooms beside the default ones that a connection is in (or will be, once its core has
    // taken the command): what `Closed` takes back. In order: a list of a thousand rooms must
    // not be walked for each of them.
    memberships: Map<ConnId, Vec<RoomId>>,
    // Rooms that are known to be no default rooms and have no line here: their frames are
    // acked and dropped without asking. Their heads are kept, for the line of a join whose
    // snapshot is older than what was acked.
    elsewhere: Map<RoomId, Position>,
    unknown: Map<RoomId, Unknown>,
    asking_unknown: bool,
    ask_unknown_at_ms: u64,
    tickets: Map<Ticket, usize>,
    waiting: Vec<Placement>,
    // Lines that may have something to read.
    restless: Set<RoomId>,
    resetting: Set<RoomId>,
    // Lines that are everybody's, `global` among them.
    everyone_lines: usize,
    closing: BTreeSet<(u64, RoomId)>,
    actions: VecDeque<Action>,
    next_tail_check_ms: u64,
    checking_tails: bool,
    opening: Opening,
    counters: Counters,
}

/// What is counted, for the metrics page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Frames that went to the cores.
    pub delivered: u64,
    /// Frames that had been delivered before: the slower path, or a repeat.
    pub repeats: u64,
    /// Frames that came behind a hole.
    pub held: u64,
    /// Reads of missing frames.
    pub ranges: u64,
    /// Lines reset to a snapshot: another epoch, too large a gap, or an alarm.
    pub resets: u64,
    /// Heads below what was seen in the same epoch. Never in a sound system.
    pub alarms: u64,
    /// Times a core had no place for frames and was fed from the ring later.
    pub behind: u64,
    /// Tail checks that found something missing.
    pub tails_behind: u64,
    /// Tail checks that logic did not answer.
    pub tails_failed: u64,
}

struct Room {
    line: Line,
    everyone: bool,
    // Per core; counted for rooms that are not everybody's.
    members: Vec<u32>,
    // Per core: what it got.
    fed: Vec<Fed>,
    // The line waits for a snapshot of this or a later epoch.
    reset: Option<Reset>,
    // Opened by its creation on `global`, at 0.
    born: bool,
}

struct Reset {
    // The highest number seen, under which epoch: what was acked meanwhile.
    seen: Position,
    in_flight: bool,
    retry_at_ms: u64,
}

// A room whose frames came before anybody knew what kind of room it is.
#[derive(Default)]
struct Unknown {
    seen: Position,
    tickets: Vec<Ticket>,
    // A default room at this place; `global` must reach `global_seq` first.
    default_at: Option<(Position, u64)>,
}

// The first look at `global` and the default rooms; again when `global` has a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Asking,
    RetryAt(u64),
    Open,
    // Open, but `global` is of a lower epoch than logic's.
    Again,
}

impl Lines {
    /// Nothing is open until `handle_defaults` answered the first action.
    pub fn new(cores: usize, limits: LinesLimits, now_ms: u64) -> Self {
        let mut lines = Self {
            cores: (0..cores).map(|_| Core::default()).collect(),
            rooms: Map::default(),
            global: RoomId::from(GLOBAL),
            memberships: Map::default(),
            elsewhere: Map::default(),
            unknown: Map::default(),
            asking_unknown: false,
            ask_unknown_at_ms: 0,
            tickets: Map::default(),
            waiting: Vec::new(),
            restless: Set::default(),
            resetting: Set::default(),
            everyone_lines: 0,
            closing: BTreeSet::new(),
            actions: VecDeque::new(),
            next_tail_check_ms: now_ms + limits.tail_check_ms,
            checking_tails: false,
            opening: Opening::Asking,
            counters: Counters::default(),
            limits,
        };
        lines.actions.push_back(Action::Defaults);
        lines
    }

    /// Are the default lines open?
    pub fn is_ready(&self) -> bool {
        matches!(self.opening, Opening::Open | Opening::Again)
    }

    /// What is counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Lines held open.
    pub fn open_lines(&self) -> usize {
        self.rooms.len()
    }

    /// A line's place and the highest number it knows of.
    pub fn line(&self, room_id: &RoomId) -> Option<(Position, u64)> {
        self.rooms.get(room_id).map(|room| (room.line.at(), room.line.head()))
    }

    /// Placements that wait for their line or their core.
    pub fn waiting_placements(&self) -> usize {
        self.waiting.len()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Rooms with members here; default ones count when anybody is connected.
    pub fn rooms_with_members(&self) -> impl Iterator<Item = &RoomId> {
        self.rooms.iter().filter(|(id, room)| !id.is_global() && self.has_members(room)).map(|(id, _)| id)
    }

    /// Default rooms: everybody here is in them. With `global` counted in, how many there are.
    pub fn everyone_lines(&self) -> usize {
        self.everyone_lines
    }

    /// The default rooms.
    pub fn default_rooms(&self) -> impl Iterator<Item = &RoomId> {
        self.rooms.iter().filter(|(id, room)| room.everyone && !id.is_global()).map(|(id, _)| id)
    }

    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self, now_ms: u64) -> u64 {
        let mut at = self.next_tail_check_ms;
        for id in &self.restless {
            if let Some(due) = self.rooms.get(id).and_then(|room| room.line.poll_timeout()) {
                at = at.min(due);
            }
        }
        for core in &self.cores {
            at = at.min(core.retry_at_ms.unwrap_or(u64::MAX));
        }
        if let Opening::RetryAt(retry) = self.opening {
            at = at.min(retry);
        }
        for reset in self.resetting.iter().filter_map(|id| self.rooms.get(id)?.reset.as_ref()) {
            if !reset.in_flight {
                at = at.min(reset.retry_at_ms);
            }
        }
        if !self.unknown.is_empty() && !self.asking_unknown {
            at = at.min(self.ask_unknown_at_ms);
        }
        if !self.waiting.is_empty() {
            at = at.min(now_ms + self.limits.place_retry_ms);
        }
        if let Some((due, _)) = self.closing.first() {
            at = at.min(*due);
        }
        at.max(now_ms)
    }

    /// Time went on.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.retry_cores(now_ms);
        self.retry_opening(now_ms);
        self.check_tails(now_ms);
        self.close_lines(now_ms);
        self.settle(now_ms);
    }

    // What every event ends with: reads that are due, placements that became possible,
    // frames that wait in a batch.
    fn settle(&mut self, now_ms: u64) {
        self.ask_ranges(now_ms);
        self.resolve_unknown(now_ms);
        self.place_waiting(now_ms);
        self.flush_batches(now_ms);
    }

    fn has_members(&self, room: &Room) -> bool {
        (0..self.cores.len()).any(|core| self.members_on(room, core) > 0)
    }

    fn members_on(&self, room: &Room, core: usize) -> u32 {
        if room.everyone { self.cores[core].open } else { room.members[core] }
    }

    fn open_line(&mut self, room_id: &RoomId, at: Position, everyone: bool, born: bool, now_ms: u64) {
        let cores = self.cores.len();
        let mut line = Line::open(at, self.limits.line);
        if let Some(seen) = self.elsewhere.remove(room_id).filter(|seen| seen.epoch == at.epoch) {
            line.saw_head(seen.seq);
            self.restless.insert(room_id.clone());
        }
        let room = Room {
            line,
            everyone,
            members: vec![0; cores],
            fed: vec![Fed::UpToDate; cores],
            reset: None,
            born,
        };
        if everyone {
            self.everyone_lines += 1;
        } else {
            // Until somebody is in it.
            self.closing.insert((now_ms + self.limits.close_after_ms, room_id.clone()));
        }
        self.rooms.insert(room_id.clone(), room);
        if !room_id.is_global() {
            self.actions.push_back(Action::Watch { room_id: room_id.clone(), on: true });
        }
    }
}

impl Room {
    fn is_empty(&self) -> bool {
        !self.everyone && self.members.iter().all(|count| *count == 0)
    }
}
