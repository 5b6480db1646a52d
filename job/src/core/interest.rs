//! Which pushes a gateway wants, as it told on the back channel of its stream.
//!
//! ```text
//!   stream begins ──▶ everything ──complete──▶ only the rooms told
//!                       ▲   ▲ restart, or too many rooms │
//!                       │   └────────────────────────────┤
//!                       └──────────── stream ends ───────┘
//! ```
//! An optimisation: only numbered pushes to rooms are ever left out, because a gateway that
//! misses one of those finds it by its tail check. What was left out shortly before a gateway
//! asked for the room is known by its number ([`Heads`]), so that the gateway need not wait
//! for that check.

use std::collections::{HashMap, HashSet};

use corecast_proto::ids::Position;
use corecast_proto::push::{self, Push, push::Target};

/// Rooms kept per gateway. Gateways tell fewer; one that tells more gets everything.
pub const ROOMS_MAX: usize = 1 << 20;
/// Rooms whose numbers are kept. Full: all are forgotten, and tail checks find what these
/// would have told.
pub const HEADS_MAX: usize = 1 << 16;

/// What one gateway wants.
#[derive(Debug, Default)]
pub struct Interest {
    rooms: HashSet<String>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Everything: not told, or not to its end.
    #[default]
    Telling,
    /// The rooms told.
    Complete,
    /// Everything, until the gateway begins again.
    TooMany,
}

impl Interest {
    /// Nothing is known any more: everything is wanted.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Does the gateway want this push?
    pub fn wants(&self, push: &Push) -> bool {
        match &push.target {
            Some(Target::Room(room)) if self.state == State::Complete && push.count > 0 => {
                self.rooms.contains(&room.room_id)
            }
            _ => true,
        }
    }

    /// Is something left out?
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Rooms told.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// A message of the gateway. Answers the rooms of which pushes may have been left out
    /// until now.
    pub fn handle(&mut self, told: push::Interest) -> Vec<String> {
        if told.restart {
            self.forget();
        }
        if self.state == State::TooMany {
            return Vec::new();
        }
        let complete = self.is_complete();
        let mut late = Vec::new();
        for room in told.rooms {
            if complete && !self.rooms.contains(&room) {
                late.push(room.clone());
            }
            self.rooms.insert(room);
        }
        for room in &told.gone {
            self.rooms.remove(room);
        }
        if self.rooms.len() > ROOMS_MAX {
            self.rooms = HashSet::new();
            self.state = State::TooMany;
        } else if told.complete {
            self.state = State::Complete;
        }
        late
    }
}

/// The highest numbers of rooms whose pushes were left out somewhere.
#[derive(Debug, Default)]
pub struct Heads {
    rooms: HashMap<String, Position>,
}

impl Heads {
    /// A push was left out.
    pub fn note(&mut self, push: &Push) {
        let Some(Target::Room(room)) = &push.target else { return };
        let seq = push.first_seq + u64::from(push.count.max(1)) - 1;
        let at = Position { epoch: push.epoch, seq };
        if let Some(head) = self.rooms.get_mut(&room.room_id) {
            *head = (*head).max(at);
            return;
        }
        if self.rooms.len() >= HEADS_MAX {
            self.rooms.clear();
        }
        self.rooms.insert(room.room_id.clone(), at);
    }

    /// How far the room went, if something of it was left out.
    pub fn get(&self, room: &str) -> Option<Position> {
        self.rooms.get(room).copied()
    }
}

#[cfg(test)]
mod tests {
    use corecast_proto::push::{AllPush, RoomPush, UserPush};

    use super::*;

    fn told(rooms: &[&str], gone: &[&str], complete: bool) -> push::Interest {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        push::Interest { restart: false, rooms: list(rooms), gone: list(gone), complete }
    }

    fn numbered(room: &str, first_seq: u64, count: u32) -> Push {
        let target = Some(Target::Room(RoomPush { room_id: room.into() }));
        Push { target, epoch: 7, first_seq, count, ..Default::default() }
    }

    #[test]
    fn everything_is_wanted_until_the_gateway_has_told_all() {
        let mut interest = Interest::default();
        assert!(interest.wants(&numbered("a", 1, 1)));
        assert!(interest.handle(told(&["b"], &[], false)).is_empty());
        assert!(interest.wants(&numbered("a", 1, 1)));
        assert!(interest.handle(told(&["c"], &[], true)).is_empty(), "nothing was left out before");
        assert!(!interest.wants(&numbered("a", 1, 1)));
        assert!(interest.wants(&numbered("b", 1, 1)) && interest.wants(&numbered("c", 1, 1)));
        assert_eq!(interest.handle(told(&["a", "b"], &["c"], false)), ["a"], "b was there");
        assert!(interest.wants(&numbered("a", 1, 1)) && !interest.wants(&numbered("c", 1, 1)));
    }

    #[test]
    fn restart_and_the_end_of_a_stream_want_everything_again() {
        for restart in [true, false] {
            let mut interest = Interest::default();
            interest.handle(told(&["b"], &[], true));
            assert!(!interest.wants(&numbered("a", 1, 1)));
            match restart {
                true => drop(interest.handle(push::Interest { restart, ..Default::default() })),
                false => interest.forget(),
            }
            assert!(interest.wants(&numbered("a", 1, 1)));
            interest.handle(told(&[], &[], true));
            assert!(!interest.wants(&numbered("b", 1, 1)), "what was told before counts no more");
        }
    }

    #[test]
    fn only_numbered_pushes_to_rooms_are_left_out() {
        let mut interest = Interest::default();
        interest.handle(told(&[], &[], true));
        assert!(!interest.wants(&numbered("a", 1, 1)));
        assert!(interest.wants(&numbered("a", 0, 0)), "without numbers no tail check finds it");
        let with = |target| Push { target: Some(target), ..numbered("a", 1, 1) };
        assert!(interest.wants(&with(Target::All(AllPush { per_second: 0 }))));
        assert!(interest.wants(&with(Target::User(UserPush { user_ids: vec!["u".into()] }))));
    }

    #[test]
    fn gateway_with_too_many_rooms_gets_everything_until_it_begins_again() {
        let mut interest = Interest::default();
        let many = (0..=ROOMS_MAX).map(|number| number.to_string()).collect();
        interest.handle(push::Interest { rooms: many, complete: true, ..Default::default() });
        assert!(interest.wants(&numbered("a", 1, 1)) && !interest.is_complete());
        interest.handle(told(&["b"], &[], true));
        assert!(interest.wants(&numbered("a", 1, 1)), "the set is not whole");
        interest.handle(push::Interest { restart: true, ..told(&["b"], &[], true) });
        assert!(!interest.wants(&numbered("a", 1, 1)));
    }

    #[test]
    fn heads_keep_the_highest_number_and_are_bounded() {
        let mut heads = Heads::default();
        heads.note(&numbered("a", 5, 3));
        heads.note(&numbered("a", 1, 1));
        assert_eq!(heads.get("a"), Some(Position { epoch: 7, seq: 7 }));
        assert_eq!(heads.get("b"), None);
        (0..HEADS_MAX).for_each(|number| heads.note(&numbered(&number.to_string(), 1, 1)));
        assert!(heads.rooms.len() <= HEADS_MAX);
    }
}
