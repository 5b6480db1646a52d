//! Heads: the start, the tail check (DESIGN invariant 5), resets, and the closing of lines
//! that nobody needs. A hole shows only when something later comes; this is what makes a
//! line complete when nothing does.

use corecast_proto::ids::{Position, RoomId};

use super::cores::Fed;
use super::types::{Action, CutAnswer, Head, HeadsFor, SnapshotFor};
use super::{Lines, Opening, Reset};
use crate::core::command::Command;
use crate::core::sequencer::Line;
use crate::core::wire::Wire;

// After a failed read of heads or of a snapshot.
const RETRY_MS: u64 = 200;

impl Lines {
    /// `global` and every default room, read in one snapshot. `None`: logic could not be
    /// asked.
    pub fn handle_defaults(&mut self, answer: Option<Vec<Head>>, now_ms: u64) {
        let global = answer.as_ref().and_then(|heads| heads.iter().find(|head| head.room_id.is_global()));
        let (Some(heads), Some(global_at)) = (&answer, global.map(|head| head.at)) else {
            self.opening =
                if self.rooms.is_empty() { Opening::RetryAt(now_ms + RETRY_MS) } else { Opening::Open };
            return;
        };
        let again = !self.rooms.is_empty();
        let mut nobody_knows = false;
        for head in heads.iter().filter(|head| !head.room_id.is_global()) {
            match self.rooms.get(&head.room_id) {
                None => {
                    nobody_knows = true;
                    self.open_line(&head.room_id, head.at, true, false, now_ms);
                }
                Some(room) if room.line.at().epoch < head.at.epoch => self.reset(&head.room_id, now_ms),
                Some(_) => {}
            }
        }
        let global = self.global.clone();
        if !again {
            self.open_line(&global, global_at, true, false, now_ms);
        } else if let Some(room) = self.rooms.get_mut(&global)
            && room.line.at().epoch < global_at.epoch
        {
            let behind = room.fed.iter().any(|fed| *fed != Fed::UpToDate);
            let missed = nobody_knows || behind || room.line.at().seq != global_at.seq;
            room.line = Line::open(global_at, self.limits.line);
            if missed {
                // There are rooms no client has heard of: everybody needs a new hello.
                self.cut_cores(&global, global_at, None, now_ms);
            }
        }
        self.opening = Opening::Open;
        self.settle(now_ms);
    }

    /// The fast path, a job stream or the lease broke: check all tails now.
    pub fn handle_interrupted(&mut self, now_ms: u64) {
        self.next_tail_check_ms = now_ms;
        self.check_tails(now_ms);
    }

    /// The answer to [`Action::Heads`]; `None`: logic could not be asked.
    pub fn handle_heads(&mut self, asked: &[RoomId], why: HeadsFor, heads: Option<Vec<Head>>, now_ms: u64) {
        match why {
            HeadsFor::Unknown => self.handle_unknown_heads(heads.map(|heads| (asked, heads)), now_ms),
            HeadsFor::Tails(stood) => {
                self.checking_tails = false;
                match heads {
                    Some(heads) => self.handle_tails(&stood, &heads, now_ms),
                    None => self.counters.tails_failed += 1,
                }
            }
        }
        self.settle(now_ms);
    }

    fn handle_tails(&mut self, stood: &[(RoomId, Position)], heads: &[Head], now_ms: u64) {
        let found: std::collections::HashMap<&RoomId, Position> =
            heads.iter().map(|head| (&head.room_id, head.at)).collect();
        for (room_id, stood) in stood {
            let Some(room) = self.rooms.get_mut(room_id) else { continue };
            let Some(at) = found.get(room_id).copied() else {
                // The room is gone: a store from before its creation. The reset closes it.
                self.reset(room_id, now_ms);
                self.raise_alarm(room_id);
                continue;
            };
            let lower = at.epoch == stood.epoch && at.seq < stood.seq;
            if at.epoch > room.line.at().epoch || (lower && at.epoch == room.line.at().epoch) {
                self.reset(room_id, now_ms);
                if lower {
                    self.raise_alarm(room_id);
                }
            } else if at.epoch == room.line.at().epoch && at.seq > stood.seq && at.seq > room.line.at().seq {
                self.counters.tails_behind += 1;
                room.line.hurry(at.seq);
                self.restless.insert(room_id.clone());
            }
        }
        self.note_defaults(heads);
    }

    pub(super) fn check_tails(&mut self, now_ms: u64) {
        if self.checking_tails || now_ms < self.next_tail_check_ms {
            return;
        }
        self.next_tail_check_ms = now_ms + self.limits.tail_check_ms;
        if !self.is_ready() {
            return;
        }
        let stood: Vec<(RoomId, Position)> = self
            .rooms
            .iter()
            .filter(|(id, room)| id.is_global() || self.has_members(room))
            .map(|(id, room)| (id.clone(), room.line.at()))
            .collect();
        self.checking_tails = true;
        // `global` and the default rooms are in every such answer.
        let others = stood.iter().filter(|(id, _)| !self.rooms[id].everyone);
        let rooms = others.map(|(id, _)| id.clone()).collect();
        self.actions.push_back(Action::Heads { rooms, why: HeadsFor::Tails(stood) });
    }

    /// The line must begin again from a snapshot: another epoch, a gap too large to read,
    /// or a head below what was seen.
    pub(super) fn reset(&mut self, room_id: &RoomId, now_ms: u64) {
        if room_id.is_global() {
            if self.opening == Opening::Open {
                self.counters.resets += 1;
                self.opening = Opening::Again;
                self.actions.push_back(Action::Defaults);
            }
            return;
        }
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        if room.reset.is_some() {
            return;
        }
        self.counters.resets += 1;
        let seen = Position { seq: room.line.head(), ..room.line.at() };
        room.reset = Some(Reset { seen, in_flight: true, retry_at_ms: now_ms });
        self.resetting.insert(room_id.clone());
        self.actions.push_back(Action::Snapshot { room_id: room_id.clone(), why: SnapshotFor::Reset });
    }

    /// A head below what was seen in the same epoch: what was seen means nothing any more.
    pub(super) fn raise_alarm(&mut self, room_id: &RoomId) {
        self.counters.alarms += 1;
        if let Some(reset) = self.rooms.get_mut(room_id).and_then(|room| room.reset.as_mut()) {
            reset.seen = Position::default();
        }
    }

    /// The newest messages of a room whose line is reset, or for one connection that is too
    /// far behind. `Err`: logic could not be asked; `Ok(None)`: the room is gone.
    pub fn handle_snapshot(
        &mut self,
        room_id: &RoomId,
        why: SnapshotFor,
        answer: Result<Option<CutAnswer>, ()>,
        now_ms: u64,
    ) {
        match why {
            SnapshotFor::Reset => self.handle_reset(room_id, answer, now_ms),
            SnapshotFor::Page { conn } => self.handle_page_cut(conn, room_id, answer, now_ms),
        }
        self.settle(now_ms);
    }

    fn handle_reset(&mut self, room_id: &RoomId, answer: Result<Option<CutAnswer>, ()>, now_ms: u64) {
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        if answer.is_ok() {
            self.resetting.remove(room_id);
        }
        match answer {
            Err(()) => {
                if let Some(reset) = &mut room.reset {
                    reset.in_flight = false;
                    reset.retry_at_ms = now_ms + RETRY_MS;
                }
            }
            Ok(Some(cut)) if cut.at.epoch >= room.line.at().epoch => {
                let seen = room.reset.take().map(|reset| reset.seen);
                room.line = Line::open(cut.at, self.limits.line);
                if let Some(seen) = seen.filter(|seen| seen.epoch == cut.at.epoch) {
                    room.line.saw_head(seen.seq);
                    self.restless.insert(room_id.clone());
                }
                room.born = false;
                self.cut_cores(room_id, cut.at, Some(cut.wire), now_ms);
            }
            Ok(Some(_)) => room.reset = None,
            Ok(None) => {
                // Nobody can be placed in it again; its members get a new hello.
                let at = room.line.at();
                self.cut_cores(room_id, at, None, now_ms);
                self.drop_line(room_id);
                self.actions.push_back(Action::Watch { room_id: room_id.clone(), on: false });
            }
        }
    }

    fn cut_cores(&mut self, room_id: &RoomId, at: Position, wire: Option<Wire>, now_ms: u64) {
        if let Some(room) = self.rooms.get_mut(room_id) {
            room.fed.fill(Fed::UpToDate);
        }
        for core in 0..self.cores.len() {
            let room = &self.rooms[room_id];
            if self.members_on(room, core) > 0 {
                let command = Command::Cut {
                    room_id: room_id.clone(),
                    everyone: room.everyone,
                    at,
                    wire: wire.clone(),
                };
                self.emit(core, command, None, now_ms);
            }
        }
    }

    pub(super) fn retry_opening(&mut self, now_ms: u64) {
        if let Opening::RetryAt(at) = self.opening
            && at <= now_ms
        {
            self.opening = Opening::Asking;
            self.actions.push_back(Action::Defaults);
        }
        for room_id in &self.resetting {
            if let Some(reset) = self.rooms.get_mut(room_id).and_then(|room| room.reset.as_mut())
                && !reset.in_flight
                && reset.retry_at_ms <= now_ms
            {
                reset.in_flight = true;
                let action = Action::Snapshot { room_id: room_id.clone(), why: SnapshotFor::Reset };
                self.actions.push_back(action);
            }
        }
    }

    fn drop_line(&mut self, room_id: &RoomId) {
        if self.rooms.remove(room_id).is_some_and(|room| room.everyone) {
            self.everyone_lines -= 1;
        }
        self.resetting.remove(room_id);
    }

    /// Closes lines whose last member left a while ago.
    pub(super) fn close_lines(&mut self, now_ms: u64) {
        while let Some((due, _)) = self.closing.first()
            && *due <= now_ms
        {
            let Some((_, room_id)) = self.closing.pop_first() else { break };
            if self.rooms.get(&room_id).is_some_and(|room| room.is_empty())
                && !self.waiting.iter().any(|placement| placement.names(&room_id))
            {
                let line = &self.rooms[&room_id].line;
                let seen = Position { seq: line.head(), ..line.at() };
                self.drop_line(&room_id);
                self.remember_elsewhere(&room_id, seen);
                self.actions.push_back(Action::Watch { room_id, on: false });
            }
        }
    }
}
