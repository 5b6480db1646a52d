//! Connections on their way in. Each opening reads a snapshot, becomes a
//! [`Placement`], and ends when its command is queued or cannot be.
//!
//! A connect storm shares one hello: connections without cursors wait for a single read,
//! and it stays in use while every ring reaches back to its numbers.

use std::collections::HashMap;
use std::sync::Arc;

use corecast_proto::frame::{self, RoomCursor};
use corecast_proto::ids::{Position, RoomId};
use corecast_proto::logic as pb;
use tokio::sync::oneshot;

use super::reads::{self, Reads};
use super::{JoinError, JoinReply};
use crate::control::logic_client::LogicError;
use crate::core::lines::Lines;
use crate::core::lines::types::{Placed, Placement, PlacementKind, SnapshotRoom};
use crate::core::{ConnId, Session, Wire};

/// A snapshot may be overtaken this often before the connection is told to come back.
const ATTEMPTS_MAX: u32 = 5;

type Done = oneshot::Sender<Result<(), JoinError>>;

/// Connections on their way in.
pub(super) struct Openings {
    next_id: u64,
    openings: HashMap<u64, Opening>,
    shared: Option<SharedHello>,
    shared_in_flight: bool,
    waiting_for_shared: Vec<u64>,
    deadline_ms: u64,
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
    rooms: Vec<SnapshotRoom>,
    // Room objects, separated by commas.
    objects: Vec<u8>,
}

impl Openings {
    pub(super) fn new(deadline_ms: u64) -> Self {
        Self {
            next_id: 1,
            openings: HashMap::new(),
            shared: None,
            shared_in_flight: false,
            waiting_for_shared: Vec::new(),
            deadline_ms,
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
            Wants::Hello { cursors } if cursors.is_empty() => {
                let usable = self.shared.as_ref().filter(|shared| lines.covers(shared.global, &shared.rooms));
                if let Some(shared) = usable {
                    let (objects, global, rooms) =
                        (shared.objects.clone(), shared.global, shared.rooms.clone());
                    self.place_hello(id, &objects, global, rooms, lines, now_ms);
                } else {
                    self.waiting_for_shared.push(id);
                    if !self.shared_in_flight {
                        self.shared_in_flight = true;
                        reads.shared_hello();
                    }
                }
            }
            Wants::Hello { cursors } => {
                let rooms = cursors
                    .iter()
                    .map(|cursor| read_cursor(&cursor.room_id, Some(cursor.position)))
                    .collect();
                reads.hello(id, opening.request(true, rooms, 0));
            }
            Wants::Room { room_id, position, reply } => {
                let count = if let JoinReply::History { count } = reply { *count } else { 0 };
                let rooms = vec![read_cursor(room_id.as_str(), *position)];
                reads.hello(id, opening.request(false, rooms, count));
            }
        }
    }

    /// The shared hello came.
    pub(super) fn handle_shared(
        &mut self,
        answer: Result<pb::HelloReply, LogicError>,
        lines: &mut Lines,
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
                let shared = SharedHello {
                    global: global(&reply),
                    rooms: reply.rooms.iter().map(reads::snapshot_room).collect(),
                    objects: room_objects(&reply),
                };
                // Whoever waited takes it even when a line has not reached it yet.
                for id in &waiting {
                    self.place_hello(
                        *id,
                        &shared.objects,
                        shared.global,
                        shared.rooms.clone(),
                        lines,
                        now_ms,
                    );
                }
                self.shared = Some(shared);
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
        self.openings.insert(id, Opening { conn, session, wants, attempts: 0, done });
        id
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
        let hello = frame::hello(&session.user_id, &session.username, objects);
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
            // Nobody waits any more: the connection has left.
            let _ = opening.done.send(result);
        }
    }
}

impl Opening {
    fn request(&self, defaults: bool, rooms: Vec<pb::Cursor>, count: u32) -> pb::HelloRequest {
        pb::HelloRequest {
            user_id: self.session.user_id.to_string(),
            username: self.session.username.to_string(),
            defaults,
            rooms,
            count,
            max_bytes: 0,
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
    for (index, room) in reply.rooms.iter().enumerate() {
        if index > 0 {
            objects.push(b',');
        }
        frame::room_object(&mut objects, &reads::room_object(room));
    }
    objects
}
