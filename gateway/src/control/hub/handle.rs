//! What the rest of the control side calls.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use corecast_proto::frame::RoomCursor;
use corecast_proto::ids::{Position, RoomId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::InterestBoard;
use super::task::{self, Message};
use crate::config::Limits;
use crate::control::logic_client::LogicClient;
use crate::core::interest::InterestLimits;
use crate::core::lines::Counters;
use crate::core::{ConnId, Event, Session};
use crate::shard::mailbox::Mailbox;

/// A numbered frame as it comes from the bus or the push stream.
#[derive(Clone, Debug)]
pub struct NumberedFrame {
    /// Room, or `global`.
    pub room_id: RoomId,
    /// Line's epoch.
    pub epoch: u64,
    /// First number.
    pub first: u64,
    /// How many numbers, at least 1.
    pub count: u32,
    /// Operation.
    pub op: i32,
    /// The body.
    pub frame: Bytes,
}

/// What a join is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinReply {
    /// A `joined` frame.
    Joined,
    /// A `serverRoomHistory` frame with the newest messages.
    History {
        /// At most this many.
        count: u32,
    },
    /// Nothing: the caller answers by itself.
    Silent,
}

/// Why a connection could not be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// No such room for this user.
    #[error("unknown room")]
    UnknownRoom,
    /// It is in as many rooms as a connection may; leaving one helps.
    #[error("in too many rooms")]
    TooMany,
    /// Logic could not be asked; try again later.
    #[error("logic cannot be reached")]
    Unavailable,
    /// The core found no place for the command in time.
    #[error("core is overloaded")]
    Full,
}

/// The hub has ended: the process is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hub ended")]
pub struct HubGone;

/// What the hub needs.
pub struct HubParts {
    /// Ring sizes, times.
    pub limits: Limits,
    /// Where snapshots, heads and ranges are read.
    pub logic: LogicClient,
    /// One per shard, by shard number.
    pub mailboxes: Vec<Mailbox>,
    /// Rooms with members here, for the subscriptions of the fast path: (room, watch?).
    pub watches: mpsc::UnboundedSender<(RoomId, bool)>,
}

/// Handle of the hub. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    messages: mpsc::Sender<Message>,
    // Events are bounded by the connections they speak of and must not be dropped.
    events: mpsc::UnboundedSender<Event>,
    ready: watch::Receiver<bool>,
    counters: watch::Receiver<Counters>,
    defaults: watch::Receiver<HashSet<RoomId>>,
    interest: Arc<InterestBoard>,
}

impl Hub {
    /// Starts the task. It ends with `shutdown`.
    pub fn start(parts: HubParts, shutdown: CancellationToken) -> Self {
        let (messages, inbox) = mpsc::channel(1_024);
        let (events, event_inbox) = mpsc::unbounded_channel();
        let (ready_tx, ready) = watch::channel(false);
        let (counters_tx, counters) = watch::channel(Counters::default());
        let (defaults_tx, defaults) = watch::channel(HashSet::new());
        let told = task::Told { ready: ready_tx, counters: counters_tx, defaults: defaults_tx };
        let limits = InterestLimits { rooms: parts.limits.interest_rooms, ..InterestLimits::default() };
        let interest = Arc::new(InterestBoard::new(limits));
        tokio::spawn(task::run(parts, interest.clone(), inbox, event_inbox, told, shutdown));
        Self { messages, events, ready, counters, defaults, interest }
    }

    /// Frames of the fast path. Waits while the hub is busy: the bus drops meanwhile.
    pub async fn offer(&self, frames: Vec<NumberedFrame>) {
        // An ended hub needs no frames.
        let _ = self.messages.send(Message::Frames { frames, recorded: None }).await;
    }

    /// Frames of the push stream. Resolves once the gateway is responsible for them
    /// (DESIGN invariant 6): recorded, and delivered, held or readable from logic.
    ///
    /// # Cancel safety
    /// Dropped, the frames are still taken; only the answer is lost.
    ///
    /// # Errors
    /// The hub has ended: nothing may be acked.
    pub async fn take_over(&self, frames: Vec<NumberedFrame>) -> Result<(), HubGone> {
        let (recorded, done) = oneshot::channel();
        let message = Message::Frames { frames, recorded: Some(recorded) };
        self.messages.send(message).await.map_err(|_| HubGone)?;
        done.await.map_err(|_| HubGone)
    }

    /// How far job left frames of rooms out before it heard that they are wanted here.
    pub(in crate::control) async fn told_heads(&self, heads: Vec<(RoomId, Position)>) {
        let _ = self.messages.send(Message::ToldHeads(heads)).await;
    }

    /// Reads the hello and queues it with all memberships to the owner core.
    ///
    /// # Errors
    /// `Unavailable`: logic cannot be asked; `Full`: the core is overloaded.
    pub async fn open(
        &self,
        conn: ConnId,
        session: Arc<Session>,
        cursors: Vec<RoomCursor>,
    ) -> Result<(), JoinError> {
        let (done, answer) = oneshot::channel();
        let message = Message::Open { conn, session, cursors, done };
        self.messages.send(message).await.map_err(|_| JoinError::Unavailable)?;
        answer.await.unwrap_or(Err(JoinError::Unavailable))
    }

    /// Joins a room and answers with `reply`. A connection that is in the room already, or
    /// a default room, gets just the reply.
    ///
    /// # Errors
    /// See [`JoinError`].
    pub async fn join(
        &self,
        conn: ConnId,
        session: Arc<Session>,
        room_id: RoomId,
        position: Option<Position>,
        reply: JoinReply,
    ) -> Result<(), JoinError> {
        let (done, answer) = oneshot::channel();
        let message = Message::Join { conn, session, room_id, position, reply, done };
        self.messages.send(message).await.map_err(|_| JoinError::Unavailable)?;
        answer.await.unwrap_or(Err(JoinError::Unavailable))
    }

    /// Ends a membership.
    pub async fn leave(&self, conn: ConnId, room_id: RoomId) {
        let _ = self.messages.send(Message::Leave { conn, room_id }).await;
    }

    /// Lagging, Left, Stale and Closed of a shard. Never dropped.
    pub fn event(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// The fast path or a job stream broke: check all tails now.
    pub async fn interrupted(&self) {
        let _ = self.messages.send(Message::Interrupted).await;
    }

    /// Rooms with members here; default ones when anybody is connected.
    pub async fn rooms(&self) -> HashMap<String, bool> {
        let (done, answer) = oneshot::channel();
        let _ = self.messages.send(Message::Rooms { done }).await;
        answer.await.unwrap_or_default()
    }

    /// `true` once the default lines are open. Before that nobody can be placed.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Is everybody here a member of this room?
    pub fn is_default(&self, room_id: &RoomId) -> bool {
        self.defaults.borrow().contains(room_id)
    }

    /// Which rooms job has to send. Whole from the moment [`ready`](Self::ready) says so.
    pub(in crate::control) fn interest(&self) -> &InterestBoard {
        &self.interest
    }

    /// What the lines have counted, for the metrics page.
    pub fn counters(&self) -> Counters {
        *self.counters.borrow()
    }
}
