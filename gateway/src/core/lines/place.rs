//! Hello, join and catch-up pages: putting a connection at the numbers of a snapshot.
//!
//! With the snapshot at N in hand, one step queues to the owner core `[reply, ring frames
//! N+1..last, membership]`. A line behind N catches up first; a ring that no longer
//! reaches N+1 makes the snapshot stale, and it is read again: a membership never starts
//! above a hole.

use corecast_proto::close::CloseCode;
use corecast_proto::ids::{Position, RoomId};

use super::cores::Fed;
use super::types::{
    Action, CutAnswer, Placed, Placement, PlacementKind, RangeAnswer, RangeFor, SnapshotFor, SnapshotRoom,
};
use super::{Lines, Room};
use crate::core::command::{Command, ConnId, Joined, Page};
use crate::core::sequencer::{Ask, Frame};
use crate::core::wire::Wire;

enum Try {
    Wait,
    Stale,
    Ready { frames: Vec<Wire>, joined: Vec<Joined> },
}

impl Lines {
    /// Queues the placement once it is possible. It ends as [`Action::Send`] with it, or as
    /// [`Action::Failed`].
    pub fn place(&mut self, placement: Placement, now_ms: u64) {
        self.waiting.push(placement);
        self.settle(now_ms);
    }

    /// Would a snapshot at these numbers still be usable, with at most `bytes_max` of frames
    /// behind it? For sharing one hello.
    pub fn covers(&self, global: Position, rooms: &[SnapshotRoom], bytes_max: usize) -> bool {
        let mut left = bytes_max;
        let mut reaches = |room_id: &RoomId, at: Position| {
            let Some(room) = self.rooms.get(room_id).filter(|room| room.reset.is_none()) else {
                return false;
            };
            let frames = room.line.frames_after(at.seq).filter(|_| room.line.at().epoch == at.epoch);
            let fits = |frame: &Frame| left.checked_sub(frame.wire.len()).map(|rest| left = rest).is_some();
            frames.is_some_and(|mut frames| frames.all(fits))
        };
        reaches(&self.global, global) && rooms.iter().all(|room| reaches(&room.room_id, room.at))
    }

    /// What a line has delivered after a place of its own epoch, and where it stands now.
    pub fn since(&self, room_id: &RoomId, place: Position) -> Option<(Position, Vec<&Wire>)> {
        let room = self.rooms.get(room_id).filter(|room| room.reset.is_none())?;
        let at = room.line.at();
        let frames = room.line.frames_after(place.seq).filter(|_| at.epoch == place.epoch)?;
        Some((at, frames.map(|frame| &frame.wire).collect()))
    }

    /// Rooms besides the default ones that a connection is in, or on its way into.
    pub fn membership_count(&self, conn: ConnId) -> usize {
        self.memberships.get(&conn).map_or(0, Vec::len)
    }

    /// Is the connection in this room, or on its way into it?
    pub fn is_member(&self, conn: ConnId, room_id: &RoomId) -> bool {
        self.rooms.get(room_id).is_some_and(|room| room.everyone)
            || self.memberships.get(&conn).is_some_and(|rooms| rooms.binary_search(room_id).is_ok())
    }

    /// Ends a membership.
    pub fn handle_leave(&mut self, conn: ConnId, room_id: &RoomId, now_ms: u64) {
        if self.forget_membership(conn, room_id, now_ms) {
            self.emit(
                usize::from(conn.shard),
                Command::Leave { conn, room_id: room_id.clone() },
                None,
                now_ms,
            );
        }
        self.settle(now_ms);
    }

    /// The connection is gone. `opened`: its Open had been carried out.
    pub fn handle_closed(&mut self, conn: ConnId, opened: bool, now_ms: u64) {
        for room_id in self.memberships.remove(&conn).unwrap_or_default() {
            self.one_member_less(conn, &room_id, now_ms);
        }
        if opened {
            self.one_less_open(usize::from(conn.shard));
        }
        let (gone, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(|p| p.conn == conn);
        self.waiting = waiting;
        let gone: Vec<Placement> = gone;
        for placement in gone.into_iter().filter(|p| !matches!(p.kind, PlacementKind::Cut)) {
            self.actions.push_back(Action::Failed { placement: Box::new(placement), outcome: Placed::Gone });
        }
        self.settle(now_ms);
    }

    /// An Open or Join reached a connection that was gone, or was a member already.
    pub fn handle_stale(&mut self, conn: ConnId, opened: bool, rooms: &[RoomId], now_ms: u64) {
        for room_id in rooms {
            self.forget_membership(conn, room_id, now_ms);
        }
        if opened {
            self.one_less_open(usize::from(conn.shard));
        }
        self.settle(now_ms);
    }

    /// A demoted connection has drained and asks for what follows `reached`; `too_long`: it
    /// tried to catch up for so long that it gets the newest messages instead.
    pub fn handle_lagging(
        &mut self,
        conn: ConnId,
        room_id: &RoomId,
        reached: Position,
        too_long: bool,
        now_ms: u64,
    ) {
        let core = usize::from(conn.shard);
        let Some(room) = self.rooms.get(room_id) else {
            self.emit_page(conn, room_id, Page::TryLater, now_ms);
            return self.settle(now_ms);
        };
        let at = room.line.at();
        // The shard cannot stand above what it was given.
        let given = match room.fed[core] {
            Fed::UpToDate => at.seq,
            Fed::Behind { seq, .. } => seq,
        };
        let too_far = given.saturating_sub(reached.seq) > self.limits.gap_messages;
        if room.reset.is_some() {
            // The cut of the reset is on its way to every member.
            self.emit_page(conn, room_id, Page::TryLater, now_ms);
        } else if too_long || reached.epoch != at.epoch || too_far {
            if room_id.is_global() {
                // No client holds `global`: a new hello is what replaces it.
                let close = Command::Close { conn, code: CloseCode::Restart, reason: "too far behind" };
                self.emit(core, close, None, now_ms);
                return self.settle(now_ms);
            }
            let why = SnapshotFor::Page { conn };
            self.actions.push_back(Action::Snapshot { room_id: room_id.clone(), why });
        } else if reached.seq >= given {
            // It stands where the core stands.
            let page = Page::Frames { frames: Vec::new(), reached: reached.seq };
            self.emit_page(conn, room_id, page, now_ms);
        } else if let Some(page) = self.page_from_ring(room, reached.seq, given) {
            self.emit_page(conn, room_id, page, now_ms);
        } else {
            let ask = Ask { after: reached.seq, up_to: given };
            self.actions.push_back(Action::Range {
                room_id: room_id.clone(),
                ask,
                why: RangeFor::Page(conn),
            });
        }
        self.settle(now_ms);
    }

    fn page_from_ring(&self, room: &Room, after: u64, given: u64) -> Option<Page> {
        let mut reached = after;
        let mut bytes = 0;
        let mut frames = Vec::new();
        for frame in room.line.frames_after(after)? {
            let full = !frames.is_empty() && bytes + frame.wire.len() > self.limits.page_bytes;
            if frame.last > given || full {
                break;
            }
            bytes += frame.wire.len();
            reached = frame.last;
            frames.push((frame.last, frame.wire.clone()));
        }
        Some(Page::Frames { frames, reached })
    }

    /// The answer for a page; `None`: logic could not be asked.
    pub(super) fn handle_page_range(
        &mut self,
        conn: ConnId,
        room_id: &RoomId,
        ask: Ask,
        answer: Option<RangeAnswer>,
        now_ms: u64,
    ) {
        let at = self.rooms.get(room_id).map(|room| room.line.at());
        let page = match (answer, at) {
            (Some(RangeAnswer { at: Some(head), frames }), Some(at)) if head.epoch == at.epoch => {
                let mut reached = ask.after;
                let mut list = Vec::new();
                for frame in frames {
                    // The shard's number only grows, so what was within it still is.
                    if frame.first == reached + 1 && frame.last <= ask.up_to {
                        reached = frame.last;
                        list.push((frame.last, frame.wire));
                    }
                }
                if list.is_empty() { Page::TryLater } else { Page::Frames { frames: list, reached } }
            }
            _ => Page::TryLater,
        };
        self.emit_page(conn, room_id, page, now_ms);
    }

    /// The answer for a connection that gets a `cut` of its own.
    pub(super) fn handle_page_cut(
        &mut self,
        conn: ConnId,
        room_id: &RoomId,
        answer: Result<Option<CutAnswer>, ()>,
        now_ms: u64,
    ) {
        let Ok(Some(cut)) = answer else {
            return self.emit_page(conn, room_id, Page::TryLater, now_ms);
        };
        let everyone = self.rooms.get(room_id).is_some_and(|room| room.everyone);
        self.waiting.push(Placement {
            // Nobody waits for it but the shard, which hears of it by a page in any case.
            id: 0,
            conn,
            reply: vec![cut.wire],
            kind: PlacementKind::Cut,
            rooms: vec![SnapshotRoom { room_id: room_id.clone(), everyone, at: cut.at }],
            deadline_ms: now_ms + CUT_DEADLINE_MS,
        });
    }

    fn emit_page(&mut self, conn: ConnId, room_id: &RoomId, page: Page, now_ms: u64) {
        self.emit(
            usize::from(conn.shard),
            Command::Page { conn, room_id: room_id.clone(), page },
            None,
            now_ms,
        );
    }

    pub(super) fn place_waiting(&mut self, now_ms: u64) {
        if self.waiting.is_empty() {
            return;
        }
        for placement in std::mem::take(&mut self.waiting) {
            let tried = if now_ms >= placement.deadline_ms {
                self.fail(placement, Placed::TimedOut, now_ms);
                continue;
            } else {
                self.try_place(&placement, now_ms)
            };
            match tried {
                Try::Wait => self.waiting.push(placement),
                Try::Stale => self.fail(placement, Placed::Stale, now_ms),
                Try::Ready { frames, joined } => self.queue(placement, frames, joined, now_ms),
            }
        }
        self.ask_ranges(now_ms);
    }

    fn fail(&mut self, placement: Placement, outcome: Placed, now_ms: u64) {
        if let (PlacementKind::Cut, Some(room)) = (&placement.kind, placement.rooms.first()) {
            // The shard asks again.
            self.emit_page(placement.conn, &room.room_id.clone(), Page::TryLater, now_ms);
        } else {
            self.actions.push_back(Action::Failed { placement: Box::new(placement), outcome });
        }
    }

    fn try_place(&mut self, placement: &Placement, now_ms: u64) -> Try {
        let core = usize::from(placement.conn.shard);
        if !self.is_ready() || self.cores[core].retry_at_ms.is_some() {
            return Try::Wait;
        }
        let mut frames = placement.reply.clone();
        let mut joined = Vec::new();
        if let PlacementKind::Open { global, .. } = placement.kind {
            let global_room = self.global.clone();
            // Creations first: a client hears of a room before its messages come.
            match self.after(&global_room, global, core, now_ms) {
                Ok(more) => frames.extend(more),
                Err(tried) => return tried,
            }
        }
        for room in &placement.rooms {
            if !self.rooms.contains_key(&room.room_id) {
                // A default room that no creation announced, or the first join of another.
                self.open_line(&room.room_id, room.at, room.everyone, false, now_ms);
            }
            match self.after(&room.room_id, room.at, core, now_ms) {
                Ok(more) => frames.extend(more),
                Err(tried) => return tried,
            }
            if !room.everyone {
                let at = self.rooms[&room.room_id].line.at();
                joined.push(Joined { room_id: room.room_id.clone(), at });
            }
        }
        if matches!(placement.kind, PlacementKind::Open { .. }) {
            match self.born_since(placement, core, now_ms) {
                Ok(more) => frames.extend(more),
                Err(tried) => return tried,
            }
        }
        Try::Ready { frames, joined }
    }

    // The frames of a line after a snapshot's number.
    fn after(&mut self, room_id: &RoomId, at: Position, core: usize, now_ms: u64) -> Result<Vec<Wire>, Try> {
        let Some(room) = self.rooms.get(room_id) else { return Err(Try::Stale) };
        let here = room.line.at();
        if room.reset.is_some() {
            return Err(Try::Wait);
        }
        if at.epoch > here.epoch {
            self.reset(room_id, now_ms);
            return Err(Try::Wait);
        }
        if at.epoch < here.epoch {
            return Err(Try::Stale);
        }
        if at.seq > here.seq {
            if let Some(room) = self.rooms.get_mut(room_id) {
                room.line.hurry(at.seq);
            }
            self.restless.insert(room_id.clone());
            return Err(Try::Wait);
        }
        if self.members_on(room, core) > 0 && room.fed[core] != Fed::UpToDate {
            return Err(Try::Wait);
        }
        let room = &self.rooms[room_id];
        room.line
            .frames_after(at.seq)
            .map(|list| list.map(|frame| frame.wire.clone()).collect())
            .ok_or(Try::Stale)
    }

    // Default rooms that were created after the snapshot: they count as N = 0.
    fn born_since(&mut self, placement: &Placement, core: usize, now_ms: u64) -> Result<Vec<Wire>, Try> {
        let defaults = placement.rooms.iter().filter(|room| room.everyone).count();
        if defaults + 1 == self.everyone_lines {
            return Ok(Vec::new());
        }
        let born: Vec<(RoomId, u64)> = self
            .rooms
            .iter()
            .filter(|(id, room)| room.everyone && room.born && !placement.names(id))
            .map(|(id, room)| (id.clone(), room.line.at().epoch))
            .collect();
        let mut frames = Vec::new();
        for (room_id, epoch) in born {
            frames.extend(self.after(&room_id, Position { epoch, seq: 0 }, core, now_ms)?);
        }
        Ok(frames)
    }

    fn queue(&mut self, placement: Placement, frames: Vec<Wire>, joined: Vec<Joined>, now_ms: u64) {
        let conn = placement.conn;
        let core = usize::from(conn.shard);
        // A core without members has nothing to catch up with.
        for room in &placement.rooms {
            if let Some(room) = self.rooms.get_mut(&room.room_id) {
                let members = if room.everyone { self.cores[core].open } else { room.members[core] };
                if members == 0 {
                    room.fed[core] = Fed::UpToDate;
                }
            }
        }
        let command = match &placement.kind {
            PlacementKind::Open { session, .. } => {
                if self.cores[core].open == 0 {
                    for room in self.rooms.values_mut().filter(|room| room.everyone) {
                        room.fed[core] = Fed::UpToDate;
                    }
                }
                // What waits in the batch lies in `frames` already; it was counted before.
                Command::Open { conn, session: session.clone(), frames, rooms: joined.clone() }
            }
            PlacementKind::Join => match joined.first().filter(|room| !self.is_member(conn, &room.room_id)) {
                Some(room) => Command::Join { conn, frames, room: room.clone() },
                None => Command::Reply { conn, frames: placement.reply.clone(), settled: 0 },
            },
            PlacementKind::Cut => {
                let room = &placement.rooms[0];
                let wire = placement.reply[0].clone();
                let page = Page::Cut { at: room.at, wire };
                return self.emit_page(conn, &room.room_id.clone(), page, now_ms);
            }
        };
        // The batch goes first: the members of before get it, the new one has it in `frames`.
        self.flush_batches(now_ms);
        for room in &joined {
            self.add_membership(conn, &room.room_id);
        }
        if matches!(placement.kind, PlacementKind::Open { .. }) {
            self.cores[core].open += 1;
        }
        self.emit(core, command, Some(Box::new(placement)), now_ms);
    }

    /// A placement's command found no place: as if it had not been queued.
    pub(super) fn take_back(&mut self, core: usize, placement: &Placement, now_ms: u64) {
        for room in placement.rooms.iter().filter(|room| !room.everyone) {
            self.forget_membership(placement.conn, &room.room_id, now_ms);
        }
        if matches!(placement.kind, PlacementKind::Open { .. }) {
            self.one_less_open(core);
        }
    }

    fn one_less_open(&mut self, core: usize) {
        let open = &mut self.cores[core].open;
        debug_assert!(*open > 0, "an end without a beginning");
        *open = open.saturating_sub(1);
    }

    fn add_membership(&mut self, conn: ConnId, room_id: &RoomId) {
        let rooms = self.memberships.entry(conn).or_default();
        if let Err(place) = rooms.binary_search(room_id) {
            rooms.insert(place, room_id.clone());
            if let Some(room) = self.rooms.get_mut(room_id) {
                room.members[usize::from(conn.shard)] += 1;
            }
        }
    }

    fn forget_membership(&mut self, conn: ConnId, room_id: &RoomId, now_ms: u64) -> bool {
        let Some(rooms) = self.memberships.get_mut(&conn) else { return false };
        let Ok(place) = rooms.binary_search(room_id) else { return false };
        rooms.remove(place);
        if rooms.is_empty() {
            self.memberships.remove(&conn);
        }
        self.one_member_less(conn, room_id, now_ms);
        true
    }

    fn one_member_less(&mut self, conn: ConnId, room_id: &RoomId, now_ms: u64) {
        if let Some(room) = self.rooms.get_mut(room_id) {
            let core = usize::from(conn.shard);
            room.members[core] -= 1;
            if room.members[core] == 0 {
                room.fed[core] = Fed::UpToDate;
            }
            if room.is_empty() {
                self.closing.insert((now_ms + self.limits.close_after_ms, room_id.clone()));
            }
        }
    }
}

// A cut waits for its line and its core no longer than this; then the shard asks again.
const CUT_DEADLINE_MS: u64 = 5_000;

impl Placement {
    pub(super) fn names(&self, room_id: &RoomId) -> bool {
        self.rooms.iter().any(|room| room.room_id == *room_id)
    }
}
