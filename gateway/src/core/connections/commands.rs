//! What control wants.

use std::sync::Arc;

use corecast_proto::close::CloseCode;
use corecast_proto::ids::RoomId;

use super::{Connections, Key, Urgency};
use crate::core::command::{Command, ConnId, Event, Joined, Page, Session, Target};
use crate::core::feeds::Out;
use crate::core::outbox::{Kind, Segment};
use crate::core::session::{NOBODY, Phase};
use crate::core::wire::Wire;

impl Connections {
    /// One command. [`Command::Adopt`] carries a socket and is for the shell: see
    /// [`Connections::handle_adopted`].
    pub fn handle_command(&mut self, command: Command) {
        self.counters.commands += 1;
        match command {
            Command::Frames(frames) => frames.into_iter().for_each(|frame| self.feeds.push(frame)),
            Command::Cut { room_id, everyone, at, wire } => {
                self.feeds.push_cut(room_id, everyone, at, wire);
            }
            Command::Open { conn, session, frames, rooms } => self.open(conn, session, &frames, rooms),
            Command::Join { conn, frames, room } => self.join(conn, &frames, room),
            Command::Leave { conn, room_id } => self.leave(conn, room_id),
            Command::Reply { conn, frames, settled } => self.answer_requests(conn, &frames, settled),
            Command::Page { conn, room_id, page } => self.page(conn, &room_id, page),
            Command::Push { target, wire } => self.push(target, wire),
            Command::Close { conn, code, reason } => match self.find_conn(conn) {
                Some(slot) => self.close(slot, code, reason, Urgency::Behind),
                None => self.counters.stale += 1,
            },
            Command::CloseSession { sid } => self.sweep_session(sid),
            Command::Adopt { .. } => {}
            Command::Drain { within, notice } => self.drain(within, notice),
        }
    }

    fn open(&mut self, conn: ConnId, session: Arc<Session>, frames: &[Wire], rooms: Vec<Joined>) {
        let slot = self.find_conn(conn);
        let Some(slot) = slot.filter(|slot| matches!(self.slots[*slot as usize].phase, Phase::Upgraded))
        else {
            self.stale(conn, true, rooms.into_iter().map(|room| room.room_id).collect());
            return;
        };
        let state = &mut self.slots[slot as usize];
        state.phase = Phase::Open(session);
        self.open += 1;
        self.link_user(slot);
        self.feeds.open(slot);
        let mut refused = Vec::new();
        for room in rooms {
            let room_id = room.room_id.clone();
            if !self.feeds.join(slot, room) {
                refused.push(room_id);
            }
        }
        if !refused.is_empty() {
            self.stale(conn, false, refused);
        }
        frames.iter().for_each(|wire| self.reply(slot, wire));
    }

    fn join(&mut self, conn: ConnId, frames: &[Wire], room: Joined) {
        let Some(slot) = self.find_open(conn) else {
            self.stale(conn, false, vec![room.room_id]);
            return;
        };
        let room_id = room.room_id.clone();
        if self.feeds.is_member(slot, &room_id) {
            // The reply holds what its feed may still hold: that goes first.
            self.collect_behind(slot);
            self.stale(conn, false, vec![room_id]);
        } else {
            self.feeds.join(slot, room);
        }
        frames.iter().for_each(|wire| self.reply(slot, wire));
    }

    fn leave(&mut self, conn: ConnId, room_id: RoomId) {
        let Some(slot) = self.find_open(conn) else {
            self.counters.stale += 1;
            return;
        };
        if self.feeds.is_member(slot, &room_id) {
            // What came before the leave is still its own.
            if self.collect_behind(slot) {
                self.feeds.leave(slot, &room_id);
                self.events.push_back(Event::Left { shard: self.shard, room_id });
            }
        }
    }

    fn answer_requests(&mut self, conn: ConnId, frames: &[Wire], settled: u32) {
        let Some(slot) = self.find_conn(conn) else {
            self.counters.stale += 1;
            return;
        };
        if !self.slots[slot as usize].is_upgraded() {
            return;
        }
        frames.iter().for_each(|wire| self.reply(slot, wire));
        if settled > 0 {
            self.settle(slot, settled);
        }
    }

    fn page(&mut self, conn: ConnId, room_id: &RoomId, page: Page) {
        let Some(slot) = self.find_open(conn) else {
            self.counters.stale += 1;
            return;
        };
        let peer = self.peer(slot);
        let mut out = Out { segments: &mut self.segments, counters: &mut self.counters };
        let told = self.feeds.page(slot, room_id, page, peer, &mut out);
        self.queue_segments(slot);
        if !told {
            self.close(slot, CloseCode::Restart, "too far behind", Urgency::Behind);
        }
        self.mark(slot);
    }

    fn push(&mut self, target: Target, wire: Wire) {
        match target {
            Target::Room(room_id) => {
                self.feeds.push_unnumbered(&room_id, wire);
            }
            Target::Users(users) => {
                for user in users.iter() {
                    let mut next = self.first_of_user(user);
                    while let Some(slot) = next.filter(|slot| *slot != NOBODY) {
                        next = Some(self.slots[slot as usize].user_next);
                        self.push_to(slot, &wire);
                    }
                }
            }
            Target::All { per_second: 0 } => self.feeds.push_all(wire),
            Target::All { per_second } => self.sweep_broadcast(wire, per_second),
        }
    }

    /// An unnumbered push to one open connection, if its queue has room.
    pub(super) fn push_to(&mut self, slot: u32, wire: &Wire) {
        let conn = &mut self.slots[slot as usize];
        let queued = conn.outbox.push_bytes();
        if conn.blocked && queued > 0 && queued + wire.len() > self.limits.push_soft_bytes {
            self.counters.dropped += 1;
            return;
        }
        self.counters.frames += 1;
        self.counters.deliveries += 1;
        conn.outbox.push(Segment { bytes: wire.bytes().clone(), kind: Kind::Push });
        self.mark(slot);
    }

    fn stale(&mut self, conn: ConnId, opened: bool, rooms: Vec<RoomId>) {
        self.counters.stale += 1;
        self.events.push_back(Event::Stale { conn, opened, rooms });
    }

    fn find_open(&self, conn: ConnId) -> Option<u32> {
        let slot = self.find(Key { slot: conn.slot, generation: conn.generation })?;
        matches!(self.slots[slot as usize].phase, Phase::Open(_)).then_some(slot)
    }
}
