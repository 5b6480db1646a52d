//! The way back of a demoted connection: questions, pages, and live again.
//!
//! ```text
//!  drained ─▶ next_question ─▶ Event::Lagging ─▶ … ─▶ Command::Page ─▶ page ─┐
//!                 ▲   └ reached the shard's number: caughtUp, live           │
//!                 └──────────────────────────────────────────────────────────┘
//! ```
//! A page never reaches beyond the shard's number, because the control side makes it after
//! it queued everything up to there. Frames of the room that it held may still lie in the
//! feed; the room is live again only once they have passed by.

use corecast_proto::frame;
use corecast_proto::ids::{Position, RoomId};

use super::lag::{Lag, Question};
use super::{Feeds, Out, Peer, Place};
use crate::core::command::Page;
use crate::core::wire::Wire;

impl Feeds {
    /// A page for a lagging connection. Call [`Feeds::collect`] first, so that it stands at
    /// the head. `false`: what it holds is void and it cannot be told so; close it with 1012.
    pub fn page(
        &mut self,
        slot: u32,
        room_id: &RoomId,
        page: Page,
        mut peer: Peer,
        out: &mut Out<'_>,
    ) -> bool {
        let number = self.number(room_id);
        let Some(lag) = self.lag_mut(slot) else { return true };
        // The question is answered even if the room was left meanwhile.
        lag.answered(room_id);
        let Some(reached) = lag.reached(room_id) else {
            self.drop_empty(slot);
            return true;
        };
        out.counters.pages += 1;
        match page {
            Page::Frames { frames, reached: to } => {
                // An answer to an older question may begin below the place.
                for (_, wire) in frames.iter().filter(|(last, _)| *last > reached.seq) {
                    peer.queue(wire, out);
                    out.counters.deliveries += 1;
                }
                let to = Position { epoch: reached.epoch, seq: to.max(reached.seq) };
                lag.move_to(room_id, to);
                if to == reached && Some(to) != number {
                    // No progress: do not spin.
                    lag.pause_until(peer.now_ms + RETRY_MS);
                }
            }
            Page::Cut { .. } if !peer.v1 => return false,
            Page::Cut { at, wire } => {
                peer.queue(&wire, out);
                out.counters.cuts += 1;
                lag.restart(room_id, at, peer.now_ms);
            }
            Page::TryLater => lag.pause_until(peer.now_ms + RETRY_MS),
        }
        true
    }

    /// What a lagging connection whose outbox has drained asks for next. Rooms in which it
    /// has reached the shard's number are live again, and it is told.
    pub fn next_question(&mut self, slot: u32, v1: bool, now_ms: u64, out: &mut Out<'_>) -> Option<Question> {
        loop {
            let Some(question) = self.lag_mut(slot)?.candidate(now_ms) else {
                self.drop_empty(slot);
                return None;
            };
            let room_id = &question.room_id;
            let behind = self.number(room_id).is_some_and(|number| question.reached < number);
            if !behind && !self.at_head(slot, room_id) {
                // Frames of the room that the page held are still above it in the feed:
                // they pass by at the next collect.
                return None;
            }
            let lag = self.lag_mut(slot)?;
            if behind {
                lag.ask(room_id.clone(), now_ms);
                return Some(question);
            }
            lag.end(room_id);
            out.counters.caught_up += 1;
            if v1 && !room_id.is_global() {
                out.reply(&Wire::text(&frame::caught_up(room_id.as_str(), question.reached.seq)));
            }
        }
    }

    /// When a lagging connection has to be looked at again.
    pub fn wake_at(&self, slot: u32) -> Option<u64> {
        self.seats.get(slot as usize)?.lag().map(Lag::wake_at)
    }

    /// Does it lag in any room?
    pub fn is_lagging(&self, slot: u32) -> bool {
        self.wake_at(slot).is_some()
    }

    fn number(&self, room_id: &RoomId) -> Option<Position> {
        match self.rooms_by_id.get(room_id) {
            Some(&room) => Some(self.rooms[room as usize].number),
            None => self.numbers.get(room_id).copied(),
        }
    }

    fn at_head(&self, slot: u32, room_id: &RoomId) -> bool {
        match self.place(slot, room_id) {
            Some(place) => {
                let Some(place) = self.seats[slot as usize].places().nth(place) else { return true };
                let Place { room, member } = place;
                let room = &self.rooms[room as usize];
                room.members[member as usize].at == room.queue.head()
            }
            None => self.seats[slot as usize].at == self.everyone.head(),
        }
    }

    fn lag_mut(&mut self, slot: u32) -> Option<&mut Lag> {
        self.seats.get_mut(slot as usize)?.lag_mut()
    }
}

/// Pause before a page is asked for again that could not be had.
pub(super) const RETRY_MS: u64 = 1_000;
