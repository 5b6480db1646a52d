//! Which rooms job has to send pushes of: those with a line here, and those somebody is on
//! the way into. Told on the back channel of each job stream, first all, then what changes.
//!
//! ```text
//!  lines, joins ──▶ rooms ──────▶ Teller of stream a: all in order of id, then changes
//!                     └▶ changes ▶ Teller of stream b: … a Teller that falls behind the
//!                        (bounded)    changes kept says "everything" and begins again
//! ```
//! A line lingers after its last member, and its room with it. A join counts from before its
//! snapshot is asked for: what job leaves out before it hears of the room is then mostly in
//! the snapshot, and for the rest job says how long the room is ([`Lines::handle_told_heads`]).
//! Default rooms have a line as long as the gateway is ready; `global` is never left out.
//!
//! [`Lines::handle_told_heads`]: super::lines::Lines::handle_told_heads

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use corecast_proto::ids::RoomId;
use corecast_proto::push;

/// Sizes.
#[derive(Clone, Copy, Debug)]
pub struct InterestLimits {
    /// Rooms told at most; with more, everything is wanted. 0: everything always.
    pub rooms: usize,
    /// Changes kept for tellers that are behind.
    pub changes: usize,
    /// Rooms in one message, at least 1.
    pub message_rooms: usize,
}

impl Default for InterestLimits {
    fn default() -> Self {
        Self { rooms: 262_144, changes: 16_384, message_rooms: 1_000 }
    }
}

/// What this gateway wants.
#[derive(Debug)]
pub struct Interest {
    limits: InterestLimits,
    // Ordered, so that a teller can go on where it was.
    rooms: BTreeMap<RoomId, Reasons>,
    changes: VecDeque<(RoomId, bool)>,
    // Changes that are no longer kept.
    dropped: u64,
}

// Why a room is wanted; without a reason it is not in the map.
#[derive(Debug, Default)]
struct Reasons {
    line: bool,
    joins: u32,
}

/// What one job stream was told.
#[derive(Debug, Default)]
pub struct Teller {
    stage: Stage,
    restarts: u64,
}

#[derive(Debug, Default)]
enum Stage {
    /// Nothing: everything is wanted.
    #[default]
    Everything,
    /// The rooms up to `after`, as they were at some moment since the change `since`.
    Rooms { after: Option<RoomId>, since: u64 },
    /// All rooms, and the changes before `since`.
    Changes { since: u64, complete: bool },
}

impl Interest {
    /// Nothing is wanted but what always is.
    pub fn new(limits: InterestLimits) -> Self {
        Self { limits, rooms: BTreeMap::new(), changes: VecDeque::new(), dropped: 0 }
    }

    /// A line opened or closed.
    pub fn handle_line(&mut self, room_id: &RoomId, open: bool) {
        self.change(room_id, |reasons| reasons.line = open);
    }

    /// Somebody is about to ask logic for this room.
    pub fn begin_join(&mut self, room_id: &RoomId) {
        self.change(room_id, |reasons| reasons.joins += 1);
    }

    /// That has ended, whatever came of it; once for each beginning.
    pub fn end_join(&mut self, room_id: &RoomId) {
        self.change(room_id, |reasons| {
            debug_assert!(reasons.joins > 0, "an end without a beginning");
            reasons.joins = reasons.joins.saturating_sub(1);
        });
    }

    /// Is it wanted?
    pub fn contains(&self, room_id: &RoomId) -> bool {
        self.rooms.contains_key(room_id)
    }

    /// Rooms wanted.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// How many changes there were.
    pub fn version(&self) -> u64 {
        self.dropped + self.changes.len() as u64
    }

    /// The next message to a stream. `None`: nothing to tell before the next change.
    pub fn poll_tell(&self, teller: &mut Teller) -> Option<push::Interest> {
        if !self.can_go_on(&teller.stage) {
            teller.stage = Stage::Everything;
            teller.restarts += 1;
            return Some(push::Interest { restart: true, ..Default::default() });
        }
        match &mut teller.stage {
            Stage::Everything => {
                // Somewhat below the limit, or a size that swings around it would be told
                // from the beginning each time.
                let most = self.limits.rooms - self.limits.rooms / 8;
                if self.limits.rooms == 0 || self.rooms.len() > most {
                    return None;
                }
                teller.stage = Stage::Rooms { after: None, since: self.version() };
                self.poll_tell(teller)
            }
            Stage::Rooms { after, since } => {
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let rooms = self.rooms.range::<RoomId, _>((from, Bound::Unbounded)).map(|(id, _)| id);
                let rooms: Vec<&RoomId> = rooms.take(self.limits.message_rooms).collect();
                let Some(last) = rooms.last().map(|last| (*last).clone()) else {
                    teller.stage = Stage::Changes { since: *since, complete: false };
                    return self.poll_tell(teller);
                };
                let rooms = rooms.into_iter().map(|id| id.as_str().to_owned()).collect();
                *after = Some(last);
                Some(push::Interest { rooms, ..Default::default() })
            }
            Stage::Changes { since, complete } => {
                let first = usize::try_from(*since - self.dropped).unwrap_or(usize::MAX);
                // Of a room that came and went only the last word counts.
                let mut last: HashMap<&RoomId, bool> = HashMap::new();
                for (room_id, on) in self.changes.iter().skip(first).take(self.limits.message_rooms) {
                    *since += 1;
                    last.insert(room_id, *on);
                }
                let finished = *since == self.version() && !*complete;
                if last.is_empty() && !finished {
                    return None;
                }
                *complete |= finished;
                let mut told = push::Interest { complete: finished, ..Default::default() };
                for (room_id, on) in last {
                    let list = if on { &mut told.rooms } else { &mut told.gone };
                    list.push(room_id.as_str().to_owned());
                }
                Some(told)
            }
        }
    }

    fn can_go_on(&self, stage: &Stage) -> bool {
        match stage {
            Stage::Everything => true,
            Stage::Rooms { since, .. } | Stage::Changes { since, .. } => {
                *since >= self.dropped && self.rooms.len() <= self.limits.rooms
            }
        }
    }

    fn change(&mut self, room_id: &RoomId, change: impl FnOnce(&mut Reasons)) {
        if let Some(reasons) = self.rooms.get_mut(room_id) {
            change(reasons);
            if !reasons.line && reasons.joins == 0 {
                self.rooms.remove(room_id);
                self.note(room_id, false);
            }
            return;
        }
        let mut reasons = Reasons::default();
        change(&mut reasons);
        if reasons.line || reasons.joins > 0 {
            self.rooms.insert(room_id.clone(), reasons);
            self.note(room_id, true);
        }
    }

    fn note(&mut self, room_id: &RoomId, on: bool) {
        if self.changes.len() >= self.limits.changes {
            self.changes.pop_front();
            self.dropped += 1;
        }
        self.changes.push_back((room_id.clone(), on));
    }
}

impl Teller {
    /// How often it said "everything" and began again.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }
}

#[cfg(test)]
mod tests;
