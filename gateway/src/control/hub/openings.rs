//! Connections on their way in. Each opening reads a snapshot, becomes a
//! [`Placement`], and ends when its command is queued or cannot be.
//!
//! A connect storm shares one hello: connections wait for a single read, and it stays in
//! use while every ring reaches back to its numbers. A connection with cursors is answered
//! from it too where the rings reach back to each of them: what it missed is taken from
//! there. Else it gets its own hello.

use std::collections::HashMap;
use std::sync::Arc;

use corecast_proto::frame::{self, RoomCursor, RoomObject};
use corecast_proto::ids::{Position, RoomId};
use corecast_proto::{limits, logic as pb};
use tokio::sync::oneshot;

use super::reads::{self, Reads};
use super::{InterestBoard, JoinError, JoinReply};
use crate::control::logic_client::LogicError;
use crate::core::lines::Lines;
use crate::core::lines::types::{Placed, Placement, PlacementKind, SnapshotRoom};
use crate::core::{ConnId, Session, Wire};

/// A snapshot may be overtaken this often before the connection is told to come back.
const ATTEMPTS_MAX: u32 = 5;
/// Messages of a page that joins, bytes: a reply, less what the frame takes beside them. A
/// page with an anchor keeps to the same.
const PAGE_BYTES: u32 = limits::REPLY_BYTES as u32 - 1024;

/// Bytes of frames that may follow a shared hello; then it is read again. A newcomer costs no
/// more than twice a hello, however long ago that was read.
const BEHIND_BYTES: usize = limits::HELLO_BYTES;

type Done = oneshot::Sender<Result<(), JoinError>>;

/// Connections on their way in.
pub(super) struct Openings {
    next_id: u64,
    openings: HashMap<u64, Opening>,
    shared: Option<SharedHello>,
    shared_in_flight: bool,
    waiting_for_shared: Vec<u64>,
    deadline_ms: u64,
    interest: Arc<InterestBoard>,
}

struct Opening {
    conn: ConnId,
    session: Arc<Session>,
    wants: Wants,
    attempts: u32,
    done: Done,
}

enum Wants {
    Hello { cursors: Vec<RoomCursor> },
    Room { room_id: RoomId, position: Option<Position>, reply: JoinReply },
}

struct SharedHello {
    global: Position,
    rooms: Vec<pb::RoomSnapshot>,
    listed: Vec<pb::RoomSnapshot>,
}

impl SharedHello {
    /// The hello of a connection with these cursors: the rooms' numbers and objects. `None`:
    /// a cursor names a room that is not in it, or the ring does not reach back to it.
    fn with(&self, cursors: &[RoomCursor], lines: &Lines) -> Option<(Vec<SnapshotRoom>, Vec<u8>)> {
        // By id: a list of a thousand rooms must not be walked for each of them.
        // The first mention counts, as in logic.
        let mut wanted: HashMap<&str, Position> = HashMap::new();
        for cursor in cursors {
            wanted.entry(&cursor.room_id).or_insert(cursor.position);
        }
        let mut rooms = Vec::with_capacity(self.rooms.len());
        let mut objects = Vec::new();
        for room in &self.rooms {
            let mut placed = reads::snapshot_room(room);
            let object = reads::room_object(room);
            if !objects.is_empty() {
                objects.push(b',');
            }
            if let Some(position) = wanted.remove(room.room_id.as_str()) {
                let (at, missed) = lines.since(&placed.room_id, position)?;
                let messages = joined_messages(&missed)?;
                placed.at = at;
                let has_more = position.seq > 0;
                frame::room_object(
                    &mut objects,
                    &RoomObject { messages: &messages, last: at, has_more, ..object },
                );
            } else {
                frame::room_object(&mut objects, &object);
            }
            rooms.push(placed);
        }
        if !wanted.is_empty() {
            return None;
        }
        for room in &self.listed {
            if !objects.is_empty() {
                objects.push(b',');
            }
            frame::room_object(&mut objects, &reads::room_object(room));
        }
        let fits = cursors.is_empty() || objects.len() <= limits::HELLO_BYTES;
        fits.then_some((rooms, objects))
    }
}

// The messages of several `serverMessages` frames, as one JSON array.
fn joined_messages(frames: &[&Wire]) -> Option<Vec<u8>> {
    let mut messages = vec![b'['];
    for wire in frames {
        if messages.len() > 1 {
            messages.push(b',');
        }
        messages.extend_from_slice(frame::messages_of(wire.payload())?);
    }
    messages.push(b']');
    Some(messages)
}

impl Openings {
    pub(super) fn new(deadline_ms: u64, interest: Arc<InterestBoard>) -> Self {
        Self {
            next_id: 1,
            openings: HashMap::new(),
            shared: None,
            shared_in_flight: false,
            waiting_for_shared: Vec::new(),
            deadline_ms,
            interest,
        }
    }

    pub(super) fn hello(
        &mut self,
        conn: ConnId,
        session: Arc<Session>,
        cursors: Vec<RoomCursor>,
        done: Done,
    ) -> u64 {
        self.add(conn, session, Wants::Hello { cursors }, done)
    }

    pub(super) fn join(
        &mut self,
        conn: ConnId,
        session: Arc<Session>,
        room_id: RoomId,
        position: Option<Position>,
        reply: JoinReply,
        done: Done,
    ) -> u64 {
        self.add(conn, session, Wants::Room { room_id, position, reply }, done)
    }

    /// Reads what the opening needs, or places it from what is at hand.
    pub(super) fn start(&mut self, id: u64, lines: &mut Lines, reads: &Reads, now_ms: u64) {
        let Some(opening) = self.openings.get(&id) else { return };
        match &opening.wants {
            Wants::Hello { cursors } => {
                // One that was overtaken asks for itself the next time.
                let usable = self.shared.as_ref().filter(|_| opening.attempts == 0 || cursors.is_empty());
                let at_hand = usable.and_then(|shared| {
                    let (rooms, objects) = shared.with(cursors, lines)?;
                    lines.covers(shared.global, &rooms, BEHIND_BYTES).then_some((
                        shared.global,
                        rooms,
                        objects,
                    ))
                });
                if let Some((global, rooms, objects)) = at_hand {
                    self.place_hello(id, &objects, global, rooms, lines, now_ms);
                } else if cursors.is_empty() || self.shared.is_none() {
                    self.waiting_for_shared.push(id);
                    if !self.shared_in_flight {
                        self.shared_in_flight = true;
                        reads.shared_hello();
                    }
                } else {
                    let rooms = cursors
                        .iter()
                        .map(|cursor| read_cursor(&cursor.room_id, Some(cursor.position)))
                        .collect();
                    reads.hello(id, opening.request(true, rooms, 0, 0));
                }
            }
            Wants::Room { room_id, position, reply } => {
                let (count, bytes) = match reply {
                    JoinReply::History { count } => (*count, PAGE_BYTES),
                    JoinReply::Joined | JoinReply::Silent => (0, 0),
                };
                let rooms = vec![read_cursor(room_id.as_str(), *position)];
                reads.hello(id, opening.request(false, rooms, count, bytes));
            }
        }
    }

    /// The shared hello came.
    pub(super) fn handle_shared(
        &mut self,
        answer: Result<pb::HelloReply, LogicError>,
        lines: &mut Lines,
        reads: &Reads,
        now_ms: u64,
    ) {
        self.shared_in_flight = false;
        let waiting = std::mem::take(&mut self.waiting_for_shared);
        match answer {
            Err(_) => {
                for id in waiting {
                    self.finish(id, Err(JoinError::Unavailable));
                }
            }
            Ok(reply) => {
                let shared = SharedHello { global: global(&reply), rooms: reply.rooms, listed: reply.listed };
                let newcomer = shared.with(&[], lines);
                let at = shared.global;
                self.shared = Some(shared);
                for id in waiting {
                    match (&newcomer, self.has_cursors(id)) {
                        // It is taken even when a line has not reached it yet.
                        (Some((rooms, objects)), false) => {
                            self.place_hello(id, objects, at, rooms.clone(), lines, now_ms);
                        }
                        _ => self.start(id, lines, reads, now_ms),
                    }
                }
            }
        }
    }

    /// A snapshot for one connection came.
    pub(super) fn handle_hello(
        &mut self,
        id: u64,
        answer: Result<pb::HelloReply, LogicError>,
        lines: &mut Lines,
        now_ms: u64,
    ) {
        let Some(opening) = self.openings.get(&id) else { return };
        let reply = match answer {
            Ok(reply) => reply,
            Err(_) => return self.finish(id, Err(JoinError::Unavailable)),
        };
        let Wants::Room { reply: style, .. } = &opening.wants else {
            let objects = room_objects(&reply);
            let rooms = reply.rooms.iter().map(reads::snapshot_room).collect();
            return self.place_hello(id, &objects, global(&reply), rooms, lines, now_ms);
        };
        let Some(room) = reply.rooms.first() else {
            return self.finish(id, Err(JoinError::UnknownRoom));
        };
        let answer = match style {
            JoinReply::Joined => vec![Wire::text(&frame::joined(&reads::room_object(room)))],
            JoinReply::History { .. } => vec![Wire::text(&frame::room_history(
                &room.room_id,
                "",
                room.has_more,
                &room.messages,
                room.epoch,
            ))],
            JoinReply::Silent => Vec::new(),
        };
        let placement = Placement {
            id,
            conn: opening.conn,
            reply: answer,
            kind: PlacementKind::Join,
            rooms: vec![reads::snapshot_room(room)],
            deadline_ms: now_ms + self.deadline_ms,
        };
        lines.place(placement, now_ms);
    }

    /// The command was taken by the core.
    pub(super) fn placed(&mut self, id: u64) {
        self.finish(id, Ok(()));
    }

    /// The placement ended without it.
    pub(super) fn failed(&mut self, id: u64, outcome: Placed, lines: &mut Lines, reads: &Reads, now_ms: u64) {
        match outcome {
            Placed::Stale => {
                let Some(opening) = self.openings.get_mut(&id) else { return };
                opening.attempts += 1;
                if opening.attempts >= ATTEMPTS_MAX {
                    self.finish(id, Err(JoinError::Full));
                } else {
                    self.start(id, lines, reads, now_ms);
                }
            }
            Placed::TimedOut => self.finish(id, Err(JoinError::Full)),
            Placed::Gone | Placed::Queued => self.finish(id, Err(JoinError::Unavailable)),
        }
    }

    fn add(&mut self, conn: ConnId, session: Arc<Session>, wants: Wants, done: Done) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        // Before the snapshot is asked for: of what is committed after it, job then leaves
        // out next to nothing.
        let rooms = wants.rooms();
        self.interest.change(|interest| rooms.iter().for_each(|room_id| interest.begin_join(room_id)));
        self.openings.insert(id, Opening { conn, session, wants, attempts: 0, done });
        id
    }

    fn has_cursors(&self, id: u64) -> bool {
        self.openings
            .get(&id)
            .is_some_and(|opening| matches!(&opening.wants, Wants::Hello { cursors } if !cursors.is_empty()))
    }

    fn place_hello(
        &mut self,
        id: u64,
        objects: &[u8],
        global: Position,
        rooms: Vec<SnapshotRoom>,
        lines: &mut Lines,
        now_ms: u64,
    ) {
        let Some(opening) = self.openings.get(&id) else { return };
        let session = opening.session.clone();
        let hello = frame::hello(session.user_id(), session.username(), objects);
        let placement = Placement {
            id,
            conn: opening.conn,
            reply: vec![Wire::text(&hello)],
            kind: PlacementKind::Open { session, global },
            rooms,
            deadline_ms: now_ms + self.deadline_ms,
        };
        lines.place(placement, now_ms);
    }

    fn finish(&mut self, id: u64, result: Result<(), JoinError>) {
        if let Some(opening) = self.openings.remove(&id) {
            // Where it was placed, the line is open by now.
            let rooms = opening.wants.rooms();
            self.interest.change(|interest| rooms.iter().for_each(|room_id| interest.end_join(room_id)));
            // Nobody waits any more: the connection has left.
            let _ = opening.done.send(result);
        }
    }
}

impl Wants {
    // The rooms it names.
    fn rooms(&self) -> Vec<RoomId> {
        match self {
            Self::Hello { cursors } => {
                cursors.iter().map(|cursor| RoomId::from(cursor.room_id.as_str())).collect()
            }
            Self::Room { room_id, .. } => vec![room_id.clone()],
        }
    }
}

impl Opening {
    fn request(
        &self,
        defaults: bool,
        rooms: Vec<pb::Cursor>,
        count: u32,
        max_bytes: u32,
    ) -> pb::HelloRequest {
        pb::HelloRequest {
            user_id: self.session.user_id().to_owned(),
            username: self.session.username().to_owned(),
            defaults,
            rooms,
            count,
            max_bytes,
        }
    }
}

fn read_cursor(room_id: &str, position: Option<Position>) -> pb::Cursor {
    let Position { epoch, seq } = position.unwrap_or_default();
    pb::Cursor { room_id: room_id.to_owned(), epoch, seq, has_position: position.is_some() }
}

fn global(reply: &pb::HelloReply) -> Position {
    let global = reply.global.unwrap_or_default();
    Position { epoch: global.epoch, seq: global.seq }
}

// Room objects of a hello, separated by commas.
fn room_objects(reply: &pb::HelloReply) -> Vec<u8> {
    let mut objects = Vec::new();
    for (index, room) in reply.rooms.iter().chain(&reply.listed).enumerate() {
        if index > 0 {
            objects.push(b',');
        }
        frame::room_object(&mut objects, &reads::room_object(room));
    }
    objects
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use corecast_proto::ids::GLOBAL;

    use super::*;
    use crate::core::lines::types::{Head, LinesLimits};

    const AT: Position = Position { epoch: 7, seq: 0 };

    /// A hello of so many default rooms, and their lines.
    fn hello_of(rooms: usize) -> (SharedHello, Lines) {
        let names: Vec<String> = (0..rooms).map(|number| format!("default room {number}")).collect();
        let head = |room: &str| Head { room_id: room.into(), at: AT, everyone: true };
        let mut lines = Lines::new(1, LinesLimits::default(), 0);
        let heads = names.iter().map(|name| head(name)).chain([head(GLOBAL)]);
        lines.handle_defaults(Some(heads.collect()), 0);
        let snapshot = |room: &String| pb::RoomSnapshot {
            room_id: room.clone(),
            kind: pb::RoomKind::Default.into(),
            epoch: AT.epoch,
            messages: "[]".into(),
            ..pb::RoomSnapshot::default()
        };
        let shared =
            SharedHello { global: AT, rooms: names.iter().map(snapshot).collect(), listed: Vec::new() };
        (shared, lines)
    }

    fn cursors(hello: &SharedHello) -> Vec<RoomCursor> {
        let cursor = |room: &pb::RoomSnapshot| RoomCursor { room_id: room.room_id.clone(), position: AT };
        // Last first: no list may be walked for its end.
        hello.rooms.iter().rev().map(cursor).collect()
    }

    /// What it costs to match so many cursors with as many rooms, so many times.
    fn cost(count: usize, times: usize) -> Duration {
        let (hello, lines) = hello_of(count);
        let cursors = cursors(&hello);
        let begin = Instant::now();
        for _ in 0..times {
            // More than a hello holds is matched, and then read from logic.
            let _ = hello.with(&cursors, &lines);
        }
        begin.elapsed()
    }

    #[test]
    fn matching_cursors_costs_what_their_number_costs_and_not_its_square() {
        const TIMES: usize = 64;
        // The least of some tries, since others use this machine too.
        let tries: Vec<_> = (0..3).map(|_| (cost(128, TIMES), cost(128 * TIMES, 1))).collect();
        let few = tries.iter().map(|(few, _)| *few).min().expect("tries");
        let many = tries.iter().map(|(_, many)| *many).min().expect("tries");
        println!("{TIMES} resumes of 128 rooms take {few:?}, one of {TIMES} times as many {many:?}");
        assert!(many < few * 12, "{tries:?}");
    }

    #[test]
    fn every_cursor_is_answered_from_the_shared_hello_or_none_is() {
        let (hello, lines) = hello_of(200);
        let mut cursors = cursors(&hello);
        let (rooms, _) = hello.with(&cursors, &lines).expect("the rings reach back");
        assert_eq!(rooms.len(), 200);
        let elsewhere = RoomCursor { room_id: "a public room".to_owned(), position: AT };
        cursors.push(elsewhere);
        assert!(hello.with(&cursors, &lines).is_none(), "one room is not in it");
        cursors.pop();
        cursors[7].position.epoch += 1;
        assert!(hello.with(&cursors, &lines).is_none(), "one is of another epoch");
    }
}
