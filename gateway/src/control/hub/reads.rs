//! What is read from logic, off the loop: each read is a task that answers with one
//! [`Answer`]. How many run at once is bounded; the rest wait for a permit.

use std::sync::Arc;

use corecast_proto::frame::{self, RoomObject};
use corecast_proto::ids::{Position, RoomId};
use corecast_proto::limits::HEADS_ROOMS;
use corecast_proto::logic as pb;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use tracing::debug;

use crate::control::logic_client::{LogicClient, LogicError};
use crate::core::Wire;
use crate::core::lines::types::{
    CutAnswer, Head, HeadsFor, RangeAnswer, RangeFor, SnapshotFor, SnapshotRoom,
};
use crate::core::sequencer::{Ask, Creation, Frame};

/// Reads of logic under way at once. More wait; each has the client's deadline.
const READS_AT_ONCE: usize = 256;

/// Bytes of a catch-up page, like one from the ring.
const PAGE_BYTES: u32 = 64 << 10;

/// What came back.
pub(super) enum Answer {
    Range {
        room_id: RoomId,
        ask: Ask,
        why: RangeFor,
        answer: Option<RangeAnswer>,
    },
    Heads {
        rooms: Vec<RoomId>,
        why: HeadsFor,
        answer: Option<Vec<Head>>,
    },
    Defaults(Option<Vec<Head>>),
    Snapshot {
        room_id: RoomId,
        why: SnapshotFor,
        answer: Result<Option<CutAnswer>, ()>,
    },
    /// A hello for one connection.
    Hello {
        id: u64,
        answer: Result<pb::HelloReply, LogicError>,
    },
    /// The hello that connections without cursors share.
    Shared(Result<pb::HelloReply, LogicError>),
}

/// Starts reads.
#[derive(Clone)]
pub(super) struct Reads {
    logic: LogicClient,
    permits: Arc<Semaphore>,
    answers: mpsc::UnboundedSender<Answer>,
}

impl Reads {
    pub(super) fn new(logic: LogicClient, answers: mpsc::UnboundedSender<Answer>) -> Self {
        Self { logic, permits: Arc::new(Semaphore::new(READS_AT_ONCE)), answers }
    }

    pub(super) fn range(&self, room_id: RoomId, ask: Ask, why: RangeFor) {
        self.start(move |logic| async move {
            let request = pb::RangeRequest {
                room_id: room_id.as_str().to_owned(),
                after_seq: ask.after,
                up_to_seq: ask.up_to,
                // A page lies in the outbox of a peer that may not read it; a line or a core
                // takes what logic gives.
                max_bytes: if matches!(why, RangeFor::Page(_)) { PAGE_BYTES } else { 0 },
            };
            let answer = logic.range(request).await.ok().map(|reply| range_answer(&room_id, reply));
            Answer::Range { room_id, ask, why, answer }
        });
    }

    pub(super) fn heads(&self, rooms: Vec<RoomId>, why: HeadsFor) {
        self.start(move |logic| async move {
            let answer = all_heads(&logic, &rooms, matches!(why, HeadsFor::Tails(_))).await;
            if let Err(error) = &answer {
                debug!(rooms = rooms.len(), %error, "heads could not be read");
            }
            Answer::Heads { rooms, why, answer: answer.ok() }
        });
    }

    pub(super) fn defaults(&self) {
        self.start(|logic| async move {
            let reply = logic.heads(pb::HeadsRequest { room_ids: Vec::new(), defaults: true }).await;
            Answer::Defaults(reply.ok().map(heads))
        });
    }

    pub(super) fn snapshot(&self, room_id: RoomId, why: SnapshotFor) {
        self.start(move |logic| async move {
            let cursor = pb::Cursor { room_id: room_id.as_str().to_owned(), ..pb::Cursor::default() };
            let request = pb::HelloRequest { rooms: vec![cursor], ..pb::HelloRequest::default() };
            let answer = match logic.hello(request).await {
                Ok(reply) => Ok(reply.rooms.first().map(|room| CutAnswer {
                    at: place(room),
                    wire: Wire::text(&frame::cut(&room.room_id, place(room), room.has_more, &room.messages)),
                })),
                Err(_) => Err(()),
            };
            Answer::Snapshot { room_id, why, answer }
        });
    }

    pub(super) fn hello(&self, id: u64, request: pb::HelloRequest) {
        self.start(move |logic| async move { Answer::Hello { id, answer: logic.hello(request).await } });
    }

    pub(super) fn shared_hello(&self) {
        let request = pb::HelloRequest { defaults: true, ..pb::HelloRequest::default() };
        self.start(|logic| async move { Answer::Shared(logic.hello(request).await) });
    }

    fn start<F, R>(&self, read: F)
    where
        F: FnOnce(LogicClient) -> R + Send + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let Self { logic, permits, answers } = self.clone();
        tokio::spawn(async move {
            let _permit = permits.acquire_owned().await;
            // An ended hub needs no answer.
            let _ = answers.send(read(logic).await);
        });
    }
}

/// As many requests as logic's limit makes it. What a later one tells is only newer.
async fn all_heads(logic: &LogicClient, rooms: &[RoomId], defaults: bool) -> Result<Vec<Head>, LogicError> {
    let mut found = Vec::with_capacity(rooms.len());
    let mut defaults = defaults;
    let mut rest = rooms;
    loop {
        let (some, more) = rest.split_at(rest.len().min(HEADS_ROOMS));
        let room_ids = some.iter().map(|id| id.as_str().to_owned()).collect();
        found.extend(heads(logic.heads(pb::HeadsRequest { room_ids, defaults }).await?));
        if more.is_empty() {
            return Ok(found);
        }
        (rest, defaults) = (more, false);
    }
}

/// Where a snapshot of a room stands.
pub(super) fn place(room: &pb::RoomSnapshot) -> Position {
    Position { epoch: room.epoch, seq: room.last_seq }
}

/// The room as the lines see it.
pub(super) fn snapshot_room(room: &pb::RoomSnapshot) -> SnapshotRoom {
    SnapshotRoom {
        room_id: RoomId::from(room.room_id.as_str()),
        everyone: room.kind() == pb::RoomKind::Default,
        at: place(room),
    }
}

/// The room as a client sees it.
pub(super) fn room_object(room: &pb::RoomSnapshot) -> RoomObject<'_> {
    RoomObject {
        id: &room.room_id,
        name: &room.name,
        creator_id: &room.creator_id,
        has_more: room.has_more,
        messages: &room.messages,
        last: place(room),
        kind: match room.kind() {
            pb::RoomKind::Public => "public",
            pb::RoomKind::Private => "private",
            pb::RoomKind::Default | pb::RoomKind::Unspecified => "default",
        },
        cut: room.cut,
    }
}

/// A frame of a room's line, encoded for the wire.
pub(super) fn frame_of(room_id: &RoomId, first: u64, last: u64, body: &[u8]) -> Frame {
    let creates = if room_id.is_global() { creation(body).map(Arc::new) } else { None };
    Frame { first, last, wire: Wire::of_body(body), creates }
}

// What a `serverCreateRoom` frame of the line of `global` creates.
fn creation(frame: &[u8]) -> Option<Creation> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        payload: Payload<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload<'a> {
        room_id: &'a str,
        kind: &'a str,
        epoch: u64,
    }
    let Envelope { payload } = serde_json::from_slice(frame).ok()?;
    Some(Creation {
        room_id: RoomId::from(payload.room_id),
        epoch: payload.epoch,
        everyone: payload.kind == "default",
    })
}

fn range_answer(room_id: &RoomId, reply: pb::RangeReply) -> RangeAnswer {
    let frames = reply.frames.iter().map(|frame| {
        let last = frame.first_seq + u64::from(frame.count.max(1)) - 1;
        frame_of(room_id, frame.first_seq, last, &frame.frame)
    });
    let at = reply.found.then_some(Position { epoch: reply.epoch, seq: reply.last_seq });
    RangeAnswer { at, frames: frames.collect() }
}

fn heads(reply: pb::HeadsReply) -> Vec<Head> {
    let heads = reply.heads.into_iter().map(|head| Head {
        at: Position { epoch: head.epoch, seq: head.last_seq },
        everyone: head.kind() == pb::RoomKind::Default,
        room_id: RoomId::from(head.room_id),
    });
    heads.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_tells_the_room_its_epoch_and_who_is_in_it() {
        let made = creation(&frame::room_created("r-1", "dpdk", "u", "ann", "default", 7));
        assert_eq!(made, Some(Creation { room_id: RoomId::from("r-1"), epoch: 7, everyone: true }));
        let made = creation(&frame::room_created("r-2", "x", "u", "ann", "public", 8));
        assert_eq!(made.map(|made| made.everyone), Some(false));
        assert_eq!(creation(b"{}"), None);
    }
}
