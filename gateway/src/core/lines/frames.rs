//! Frames from both paths, ranges read from logic, and rooms that nobody here knows.

use corecast_proto::ids::{Position, RoomId};

use super::Lines;
use super::types::{Action, Arrival, Head, HeadsFor, RangeAnswer, RangeFor, Ticket};
use crate::core::sequencer::{Ask, Creation, Frame, Offered};

// After logic could not be asked about rooms nobody here knows.
const ASK_AGAIN_MS: u64 = 200;

impl Lines {
    /// Frames of the fast path or of the push stream. With a ticket, [`Action::Recorded`]
    /// follows once the gateway is responsible for all of them: each line knows that its
    /// room is at least this long, and everything numbered is readable from logic.
    pub fn handle_frames(&mut self, arrivals: Vec<Arrival>, ticket: Option<Ticket>, now_ms: u64) {
        let mut unsettled = 0;
        for arrival in arrivals {
            if self.rooms.contains_key(&arrival.room_id) {
                self.handle_frame(arrival, now_ms);
            } else if let Some(seen) = self.elsewhere.get_mut(&arrival.room_id) {
                *seen = (*seen).max(Position { epoch: arrival.epoch, seq: arrival.frame.last });
            } else {
                // The payload is in logic; once the room is known its head asks for it.
                let unknown = self.unknown.entry(arrival.room_id).or_default();
                unknown.seen = unknown.seen.max(Position { epoch: arrival.epoch, seq: arrival.frame.last });
                if let Some(ticket) = ticket {
                    unknown.tickets.push(ticket);
                    unsettled += 1;
                }
            }
        }
        if let Some(ticket) = ticket {
            if unsettled == 0 {
                self.actions.push_back(Action::Recorded(ticket));
            } else {
                self.tickets.insert(ticket, unsettled);
            }
        }
        self.settle(now_ms);
    }

    /// Job left frames of these rooms out before it heard that they are wanted here, up to
    /// these places. What a line lacks is read at once.
    pub fn handle_told_heads(&mut self, heads: Vec<(RoomId, Position)>, now_ms: u64) {
        for (room_id, told) in heads {
            let Some(at) = self.rooms.get(&room_id).map(|room| room.line.at()) else {
                match self.elsewhere.get_mut(&room_id) {
                    Some(seen) => *seen = (*seen).max(told),
                    None => {
                        let unknown = self.unknown.entry(room_id).or_default();
                        unknown.seen = unknown.seen.max(told);
                    }
                }
                continue;
            };
            if told.epoch > at.epoch {
                self.reset(&room_id, now_ms);
            }
            let Some(room) = self.rooms.get_mut(&room_id) else { continue };
            if let Some(reset) = &mut room.reset {
                reset.seen = reset.seen.max(told);
            }
            if told.epoch == at.epoch {
                room.line.hurry(told.seq);
                self.restless.insert(room_id);
            }
        }
        self.settle(now_ms);
    }

    /// Would a frame with these numbers change nothing? Then it need not be encoded.
    pub fn is_settled(&mut self, room_id: &RoomId, epoch: u64, last: u64) -> bool {
        let Some(room) = self.rooms.get(room_id) else {
            let Some(seen) = self.elsewhere.get_mut(room_id) else { return false };
            *seen = (*seen).max(Position { epoch, seq: last });
            return true;
        };
        let at = room.line.at();
        let repeat = epoch == at.epoch && last <= at.seq;
        self.counters.repeats += u64::from(repeat);
        repeat
    }

    fn handle_frame(&mut self, arrival: Arrival, now_ms: u64) {
        let Arrival { room_id, epoch, frame } = arrival;
        let seen = Position { epoch, seq: frame.last };
        let Some(room) = self.rooms.get_mut(&room_id) else { return };
        let mut out = Vec::new();
        match room.line.offer(epoch, frame, now_ms, &mut out) {
            Offered::Repeat => self.counters.repeats += 1,
            Offered::Held => self.counters.held += 1,
            Offered::NewEpoch => self.reset(&room_id, now_ms),
            Offered::Delivered | Offered::OldEpoch => {}
        }
        if let Some(reset) = self.rooms.get_mut(&room_id).and_then(|room| room.reset.as_mut()) {
            reset.seen = reset.seen.max(seen);
        }
        self.deliver(&room_id, &out);
        self.give_birth(&out, now_ms);
        self.restless.insert(room_id);
    }

    /// The answer to [`Action::Range`].
    pub fn handle_range(
        &mut self,
        room_id: &RoomId,
        why: RangeFor,
        ask: Ask,
        answer: RangeAnswer,
        now_ms: u64,
    ) {
        match why {
            RangeFor::Line => self.handle_line_range(room_id, ask, answer, now_ms),
            RangeFor::Core(core) => self.handle_core_range(core, room_id, Some(answer), now_ms),
            RangeFor::Page(conn) => self.handle_page_range(conn, room_id, ask, Some(answer), now_ms),
        }
        self.settle(now_ms);
    }

    /// Logic could not be asked for a range.
    pub fn handle_range_failed(&mut self, room_id: &RoomId, why: RangeFor, ask: Ask, now_ms: u64) {
        match why {
            RangeFor::Line => {
                if let Some(room) = self.rooms.get_mut(room_id) {
                    room.line.handle_range_failed(now_ms);
                }
            }
            RangeFor::Core(core) => self.handle_core_range(core, room_id, None, now_ms),
            RangeFor::Page(conn) => self.handle_page_range(conn, room_id, ask, None, now_ms),
        }
        self.settle(now_ms);
    }

    fn handle_line_range(&mut self, room_id: &RoomId, ask: Ask, answer: RangeAnswer, now_ms: u64) {
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        let Some(head) = answer.at else {
            room.line.handle_range_failed(now_ms);
            return;
        };
        let at = room.line.at();
        if head.epoch < at.epoch {
            // An answer from before a reset.
            room.line.handle_range_failed(now_ms);
            return;
        }
        if head.epoch > at.epoch || head.seq < ask.after {
            room.line.handle_range_failed(now_ms);
            self.reset(room_id, now_ms);
            if head.epoch == at.epoch {
                self.raise_alarm(room_id);
            }
            return;
        }
        let mut out = Vec::new();
        room.line.handle_range(head.seq, answer.frames, now_ms, &mut out);
        self.deliver(room_id, &out);
        self.give_birth(&out, now_ms);
        self.restless.insert(room_id.clone());
    }

    /// Asks for every hole whose pause is over.
    pub(super) fn ask_ranges(&mut self, now_ms: u64) {
        let mut too_far = Vec::new();
        let (rooms, actions, counters) = (&mut self.rooms, &mut self.actions, &mut self.counters);
        let gap = self.limits.gap_messages;
        self.restless.retain(|room_id| {
            let Some(room) = rooms.get_mut(room_id) else { return false };
            if room.reset.is_some() {
                return false;
            }
            if !room_id.is_global() && room.line.head() - room.line.at().seq > gap {
                too_far.push(room_id.clone());
                return false;
            }
            if let Some(ask) = room.line.poll_ask(now_ms) {
                counters.ranges += 1;
                actions.push_back(Action::Range { room_id: room_id.clone(), ask, why: RangeFor::Line });
            }
            room.line.head() > room.line.at().seq
        });
        for room_id in too_far {
            self.reset(&room_id, now_ms);
        }
    }

    /// Opens the lines of the rooms these frames of `global` create. Clients hear of a room
    /// before its messages, because the creation was queued a moment ago.
    fn give_birth(&mut self, frames: &[Frame], now_ms: u64) {
        for creation in frames.iter().filter_map(|frame| frame.creates.as_deref()) {
            let Creation { room_id, epoch, everyone } = creation;
            if self.rooms.contains_key(room_id) {
                continue;
            }
            if *everyone {
                self.open_line(room_id, Position { epoch: *epoch, seq: 0 }, true, true, now_ms);
            } else {
                self.remember_elsewhere(room_id, Position { epoch: *epoch, seq: 0 });
            }
        }
    }

    pub(super) fn remember_elsewhere(&mut self, room_id: &RoomId, seen: Position) {
        if self.elsewhere.len() >= self.limits.elsewhere_max {
            // Cheaper than an eviction order: what is still alive is asked for once more.
            self.elsewhere.clear();
        }
        self.elsewhere.insert(room_id.clone(), seen);
    }

    /// Asks what kind of rooms the unknown ones are, and settles those whose `global`
    /// number the line has passed.
    pub(super) fn resolve_unknown(&mut self, now_ms: u64) {
        if self.unknown.is_empty() || !self.is_ready() {
            return;
        }
        let global_seq = self.rooms[&self.global].line.at().seq;
        let settled: Vec<RoomId> = self
            .unknown
            .iter()
            .filter(|(id, unknown)| {
                self.rooms.contains_key(*id)
                    || unknown.default_at.is_some_and(|(_, global)| global <= global_seq)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for room_id in settled {
            let Some(unknown) = self.unknown.remove(&room_id) else { continue };
            if !self.rooms.contains_key(&room_id)
                && let Some((at, _)) = unknown.default_at
            {
                // A default room that no creation on `global` announced: the configuration
                // gained it. It begins here.
                self.open_line(&room_id, at, true, false, now_ms);
            }
            if let Some(room) = self.rooms.get_mut(&room_id)
                && room.line.at().epoch == unknown.seen.epoch
            {
                room.line.saw_head(unknown.seen.seq);
                self.restless.insert(room_id);
            }
            self.release(unknown.tickets);
        }
        let open: Vec<RoomId> = self
            .unknown
            .iter()
            .filter(|(_, unknown)| unknown.default_at.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        if !self.asking_unknown && now_ms >= self.ask_unknown_at_ms && !open.is_empty() {
            self.asking_unknown = true;
            let mut rooms = open;
            rooms.push(self.global.clone());
            self.actions.push_back(Action::Heads { rooms, why: HeadsFor::Unknown });
        }
    }

    /// Default rooms that nobody here has heard of: the configuration gained them, or their
    /// creation is on its way. Like rooms whose frames came, they wait for `global`.
    pub(super) fn note_defaults(&mut self, heads: &[Head]) {
        let global = heads.iter().find(|head| head.room_id.is_global()).map(|head| head.at);
        let Some((at, room)) = global.zip(self.rooms.get_mut(&self.global)) else { return };
        if at.epoch != room.line.at().epoch {
            // The reset of `global` opens them.
            return;
        }
        let known = &self.rooms;
        let news = heads.iter().filter(|head| head.everyone && !known.contains_key(&head.room_id));
        let mut found = false;
        for head in news {
            self.unknown.entry(head.room_id.clone()).or_default().default_at = Some((head.at, at.seq));
            found = true;
        }
        if found && let Some(room) = self.rooms.get_mut(&self.global) {
            room.line.hurry(at.seq);
            self.restless.insert(self.global.clone());
        }
    }

    /// The answer for unknown rooms; `None`: logic could not be asked.
    pub(super) fn handle_unknown_heads(&mut self, asked: Option<(&[RoomId], Vec<Head>)>, now_ms: u64) {
        self.asking_unknown = false;
        let Some((asked, heads)) = asked else {
            self.ask_unknown_at_ms = now_ms + ASK_AGAIN_MS;
            return;
        };
        let global = heads.iter().find(|head| head.room_id.is_global()).map(|head| head.at);
        // A join may have opened the line meanwhile: then that is what settles it.
        let open = |id: &RoomId| id.is_global() || self.rooms.contains_key(id);
        let asked: Vec<&RoomId> = asked.iter().filter(|id| !open(id)).collect();
        for room_id in asked {
            match heads.iter().find(|head| head.room_id == *room_id) {
                Some(head) if head.everyone => {
                    if let (Some(unknown), Some(global)) = (self.unknown.get_mut(room_id), global) {
                        unknown.default_at = Some((head.at, global.seq));
                    }
                }
                known => {
                    let unknown = self.unknown.remove(room_id);
                    if let Some(head) = known {
                        let seen = unknown.as_ref().map_or(head.at, |unknown| unknown.seen.max(head.at));
                        self.remember_elsewhere(room_id, seen);
                    }
                    if let Some(unknown) = unknown {
                        self.release(unknown.tickets);
                    }
                }
            }
        }
        if let (Some(at), Some(room)) = (global, self.rooms.get_mut(&self.global))
            && at.epoch == room.line.at().epoch
        {
            room.line.hurry(at.seq);
            self.restless.insert(self.global.clone());
        }
    }

    fn release(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            if let Some(unsettled) = self.tickets.get_mut(&ticket) {
                *unsettled -= 1;
                if *unsettled == 0 {
                    self.tickets.remove(&ticket);
                    self.actions.push_back(Action::Recorded(ticket));
                }
            }
        }
    }
}
