//! What a demoted connection has missed: a place per room, and the one question that is
//! under way to fill the gap.
//!
//! A room is in the list from the first frame that was not queued until the connection has
//! reached the shard's number of the room again. Meanwhile the room's frames pass by, all
//! other rooms go on.

use std::collections::BTreeMap;
use std::ops::Bound;

use corecast_proto::ids::{Position, RoomId};
use corecast_proto::limits::BEHIND_MS;

#[derive(Default)]
pub(super) struct Lag {
    rooms: BTreeMap<RoomId, Behind>,
    /// The page that is under way, and since when.
    asked: Option<(RoomId, u64)>,
    /// Rooms take turns: the next one follows this.
    last: Option<RoomId>,
    /// No question before this time.
    retry_at: u64,
}

/// A room in which frames are missing.
#[derive(Clone, Copy)]
struct Behind {
    /// What the client has, under which epoch.
    reached: Position,
    /// Since when it has not been at the shard's number.
    since_ms: u64,
}

/// What a lagging connection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Room.
    pub room_id: RoomId,
    /// What it has, under which epoch.
    pub reached: Position,
    /// It is behind for [`BEHIND_MS`]: only a `cut` ends that.
    pub too_long: bool,
}

impl Lag {
    /// Nothing is missed and no answer is under way.
    pub(super) fn is_over(&self) -> bool {
        self.rooms.is_empty() && self.asked.is_none()
    }

    pub(super) fn contains(&self, room_id: &RoomId) -> bool {
        self.rooms.contains_key(room_id)
    }

    pub(super) fn reached(&self, room_id: &RoomId) -> Option<Position> {
        self.rooms.get(room_id).map(|behind| behind.reached)
    }

    /// The room's frames after `reached` are missed.
    pub(super) fn begin(&mut self, room_id: RoomId, reached: Position, now_ms: u64) {
        self.rooms.insert(room_id, Behind { reached, since_ms: now_ms });
    }

    pub(super) fn move_to(&mut self, room_id: &RoomId, reached: Position) {
        if let Some(behind) = self.rooms.get_mut(room_id) {
            behind.reached = reached;
        }
    }

    /// A `cut` put it at `reached`: what it lacks from here on is new.
    pub(super) fn restart(&mut self, room_id: &RoomId, reached: Position, now_ms: u64) {
        if let Some(behind) = self.rooms.get_mut(room_id) {
            *behind = Behind { reached, since_ms: now_ms };
        }
    }

    pub(super) fn end(&mut self, room_id: &RoomId) -> bool {
        self.rooms.remove(room_id).is_some()
    }

    /// A page of this room came.
    pub(super) fn answered(&mut self, room_id: &RoomId) {
        if self.asked.as_ref().is_some_and(|(asked, _)| asked == room_id) {
            self.asked = None;
        }
    }

    /// Ask nothing before `at_ms`.
    pub(super) fn pause_until(&mut self, at_ms: u64) {
        self.retry_at = at_ms;
    }

    /// When to look again if nothing else happens.
    pub(super) fn wake_at(&self) -> u64 {
        match &self.asked {
            Some((_, at)) => at + ANSWER_MS,
            None => self.retry_at,
        }
    }

    /// The room whose turn it is, unless a page is under way or a pause lasts.
    pub(super) fn candidate(&mut self, now_ms: u64) -> Option<Question> {
        if let Some((_, at)) = &self.asked {
            if now_ms < at + ANSWER_MS {
                return None;
            }
            self.asked = None;
        }
        if now_ms < self.retry_at {
            return None;
        }
        let next = match &self.last {
            Some(last) => {
                let behind = (Bound::Excluded(last.clone()), Bound::Unbounded);
                self.rooms.range(behind).next().or_else(|| self.rooms.iter().next())
            }
            None => self.rooms.iter().next(),
        };
        next.map(|(room_id, behind)| Question {
            room_id: room_id.clone(),
            reached: behind.reached,
            too_long: now_ms >= behind.since_ms + BEHIND_MS,
        })
    }

    /// A question for this room goes out.
    pub(super) fn ask(&mut self, room_id: RoomId, now_ms: u64) {
        self.last = Some(room_id.clone());
        self.asked = Some((room_id, now_ms));
    }
}

/// A question that got no answer for so long is asked again: far above what the control
/// side allows a call to logic. A late answer does no harm, its frames are known by number.
const ANSWER_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        Position { epoch: 1, seq }
    }

    #[test]
    fn rooms_take_turns_and_one_question_is_under_way() {
        let mut lag = Lag::default();
        lag.begin("a".into(), at(1), 0);
        lag.begin("b".into(), at(2), 0);
        let Question { room_id: first, reached, .. } = lag.candidate(0).unwrap();
        assert_eq!((first.as_str(), reached), ("a", at(1)));
        lag.ask(first.clone(), 0);
        assert!(lag.candidate(1).is_none());
        lag.answered(&"b".into());
        assert!(lag.candidate(1).is_none(), "that was not the question");
        lag.answered(&first);
        let second = lag.candidate(1).unwrap().room_id;
        assert_eq!(second.as_str(), "b");
        lag.ask(second.clone(), 1);
        lag.answered(&second);
        assert_eq!(lag.candidate(1).unwrap().room_id.as_str(), "a");
    }

    #[test]
    fn a_pause_and_a_lost_answer_end() {
        let mut lag = Lag::default();
        lag.begin("a".into(), at(1), 0);
        lag.pause_until(1_000);
        assert!(lag.candidate(999).is_none());
        assert_eq!(lag.wake_at(), 1_000);
        let room = lag.candidate(1_000).unwrap().room_id;
        lag.ask(room, 1_000);
        assert_eq!(lag.wake_at(), 1_000 + ANSWER_MS);
        assert!(lag.candidate(999 + ANSWER_MS).is_none());
        assert!(lag.candidate(1_000 + ANSWER_MS).is_some());
    }

    #[test]
    fn pages_do_not_stop_the_clock_and_a_cut_starts_it_again() {
        let mut lag = Lag::default();
        let room = RoomId::from("a");
        lag.begin(room.clone(), at(1), 10);
        lag.move_to(&room, at(2));
        assert!(!lag.candidate(9 + BEHIND_MS).unwrap().too_long);
        assert!(lag.candidate(10 + BEHIND_MS).unwrap().too_long);
        lag.restart(&room, at(90), 10 + BEHIND_MS);
        let question = lag.candidate(9 + 2 * BEHIND_MS).unwrap();
        assert_eq!((question.reached, question.too_long), (at(90), false));
        assert!(lag.candidate(10 + 2 * BEHIND_MS).unwrap().too_long);
    }
}
