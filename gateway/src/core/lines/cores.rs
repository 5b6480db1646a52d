//! What a core got, and what it must still get. A core that has no place is *behind*: the
//! line keeps a number for it and feeds it from the ring once there is place again.

use std::collections::VecDeque;

use corecast_proto::ids::RoomId;

use super::types::{Action, Placement, RangeAnswer, RangeFor};
use super::{Lines, Room};
use crate::core::command::{Command, Page, RoomFrame};
use crate::core::sequencer::{Ask, Frame};

/// One core as the lines see it.
#[derive(Default)]
pub(super) struct Core {
    /// Open connections, counted when the Open is queued.
    pub open: u32,
    /// Commands that must not be lost and found no place, in order.
    stuck: VecDeque<Command>,
    /// Frames of this event, for one command.
    batch: Vec<RoomFrame>,
    /// Rooms it is behind in.
    behind: Vec<RoomId>,
    /// Full until then.
    pub retry_at_ms: Option<u64>,
}

/// What a core has of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// Everything up to the line's number.
    UpToDate,
    /// Everything up to this number; `asking`: the next frames are being read.
    Behind { seq: u64, asking: bool },
}

impl Lines {
    /// The core had no place for this command: it and everything behind it for the same
    /// core waits, in order.
    pub fn refused(&mut self, core: usize, command: Command, placement: Option<Box<Placement>>, now_ms: u64) {
        self.refuse(core, command, placement, now_ms);
        let actions = std::mem::take(&mut self.actions);
        for action in actions {
            match action {
                Action::Send { core: other, command, placement } if other == core => {
                    self.refuse(core, command, placement, now_ms);
                }
                other => self.actions.push_back(other),
            }
        }
    }

    /// Queues a command behind everything queued for the core so far.
    pub(super) fn emit(
        &mut self,
        core: usize,
        command: Command,
        placement: Option<Box<Placement>>,
        now_ms: u64,
    ) {
        self.flush_batch(core, now_ms);
        if self.cores[core].retry_at_ms.is_some() {
            self.refuse(core, command, placement, now_ms);
        } else {
            self.actions.push_back(Action::Send { core, command, placement });
        }
    }

    /// Gives a frame to every core with members. Cores that are behind get it from the ring.
    pub(super) fn deliver(&mut self, room_id: &RoomId, frames: &[Frame]) {
        let Some(room) = self.rooms.get(room_id) else { return };
        self.counters.delivered += frames.len() as u64;
        let epoch = room.line.at().epoch;
        for (index, core) in self.cores.iter_mut().enumerate() {
            let members = if room.everyone { core.open } else { room.members[index] };
            if members == 0 || room.fed[index] != Fed::UpToDate {
                continue;
            }
            core.batch.extend(frames.iter().map(|frame| room_frame(room_id, room, epoch, frame)));
        }
    }

    pub(super) fn flush_batches(&mut self, now_ms: u64) {
        for core in 0..self.cores.len() {
            self.flush_batch(core, now_ms);
        }
    }

    pub(super) fn retry_cores(&mut self, now_ms: u64) {
        for core in 0..self.cores.len() {
            if self.cores[core].retry_at_ms.is_some_and(|at| at <= now_ms) {
                self.cores[core].retry_at_ms = None;
                self.flush_batch(core, now_ms);
                for command in std::mem::take(&mut self.cores[core].stuck) {
                    self.emit(core, command, None, now_ms);
                }
                for room_id in std::mem::take(&mut self.cores[core].behind) {
                    self.feed(core, &room_id, now_ms);
                }
            }
        }
    }

    /// The frames a core missed, from the ring, or else from logic.
    fn feed(&mut self, core: usize, room_id: &RoomId, now_ms: u64) {
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        let Fed::Behind { seq, asking: false } = room.fed[core] else { return };
        if room.reset.is_some() {
            // The cut at its end replaces everything.
            self.cores[core].behind.push(room_id.clone());
            return;
        }
        let at = room.line.at();
        let in_ring: Option<Vec<Frame>> = room.line.frames_after(seq).map(|frames| frames.cloned().collect());
        if let Some(frames) = in_ring {
            room.fed[core] = Fed::UpToDate;
            let room = &self.rooms[room_id];
            let list: Vec<RoomFrame> =
                frames.iter().map(|frame| room_frame(room_id, room, at.epoch, frame)).collect();
            if !list.is_empty() && self.members_on(room, core) > 0 {
                self.emit(core, Command::Frames(list), None, now_ms);
            }
        } else if at.seq - seq > self.limits.gap_messages {
            self.reset(room_id, now_ms);
        } else {
            room.fed[core] = Fed::Behind { seq, asking: true };
            let ask = Ask { after: seq, up_to: at.seq };
            self.actions.push_back(Action::Range {
                room_id: room_id.clone(),
                ask,
                why: RangeFor::Core(core),
            });
        }
    }

    /// The answer for a core that was behind what the ring held. `None`: logic failed.
    pub(super) fn handle_core_range(
        &mut self,
        core: usize,
        room_id: &RoomId,
        answer: Option<RangeAnswer>,
        now_ms: u64,
    ) {
        let Some(room) = self.rooms.get_mut(room_id) else { return };
        let Fed::Behind { mut seq, asking: true } = room.fed[core] else { return };
        let at = room.line.at();
        let mut list = Vec::new();
        if let Some(answer) = answer.filter(|answer| answer.at.is_some_and(|head| head.epoch == at.epoch)) {
            for frame in answer.frames {
                if frame.first == seq + 1 && frame.last <= at.seq {
                    seq = frame.last;
                    list.push(room_frame(room_id, room, at.epoch, &frame));
                }
            }
        }
        room.fed[core] = Fed::Behind { seq, asking: false };
        if !list.is_empty() {
            // Refused, it moves the number back again.
            self.emit(core, Command::Frames(list), None, now_ms);
        }
        self.remember_behind(core, room_id, now_ms);
    }

    fn flush_batch(&mut self, core: usize, now_ms: u64) {
        if self.cores[core].batch.is_empty() {
            return;
        }
        let command = Command::Frames(std::mem::take(&mut self.cores[core].batch));
        if self.cores[core].retry_at_ms.is_some() {
            self.refuse(core, command, None, now_ms);
        } else {
            self.actions.push_back(Action::Send { core, command, placement: None });
        }
    }

    fn refuse(&mut self, core: usize, command: Command, placement: Option<Box<Placement>>, now_ms: u64) {
        self.cores[core].retry_at_ms.get_or_insert(now_ms + self.limits.core_retry_ms);
        if let Some(placement) = placement {
            // A Reply changed nothing: the connection was in the room before.
            if matches!(command, Command::Open { .. } | Command::Join { .. }) {
                self.take_back(core, &placement, now_ms);
            }
            self.waiting.push(*placement);
            return;
        }
        match command {
            Command::Frames(frames) => {
                for frame in frames {
                    self.fall_behind(core, &frame, now_ms);
                }
            }
            // It may speak of numbers the core gets only after what it missed.
            Command::Page { conn, room_id, .. } => {
                self.cores[core].stuck.push_back(Command::Page { conn, room_id, page: Page::TryLater });
            }
            command => self.cores[core].stuck.push_back(command),
        }
    }

    fn fall_behind(&mut self, core: usize, frame: &RoomFrame, now_ms: u64) {
        let Some(room) = self.rooms.get_mut(&frame.room_id) else { return };
        if room.line.at().epoch != frame.epoch {
            // A cut of the new epoch follows it.
            return;
        }
        let reached = frame.first - 1;
        match &mut room.fed[core] {
            Fed::Behind { seq, .. } => *seq = (*seq).min(reached),
            fed => {
                *fed = Fed::Behind { seq: reached, asking: false };
                self.counters.behind += 1;
            }
        }
        self.remember_behind(core, &frame.room_id, now_ms);
    }

    fn remember_behind(&mut self, core: usize, room_id: &RoomId, now_ms: u64) {
        let state = &mut self.cores[core];
        if !state.behind.contains(room_id) {
            state.behind.push(room_id.clone());
        }
        state.retry_at_ms.get_or_insert(now_ms + self.limits.core_retry_ms);
    }
}

fn room_frame(room_id: &RoomId, room: &Room, epoch: u64, frame: &Frame) -> RoomFrame {
    RoomFrame {
        room_id: room_id.clone(),
        everyone: room.everyone,
        epoch,
        first: frame.first,
        last: frame.last,
        wire: frame.wire.clone(),
    }
}
