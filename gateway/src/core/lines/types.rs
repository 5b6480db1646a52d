//! What goes into [`Lines`](super::Lines) and comes out.

use std::sync::Arc;

use corecast_proto::ids::{Position, RoomId};

use crate::core::command::{Command, ConnId, Session};
use crate::core::sequencer::{Ask, Frame, LineLimits};
use crate::core::wire::Wire;

/// Sizes and times.
#[derive(Clone, Copy, Debug)]
pub struct LinesLimits {
    /// Of each line.
    pub line: LineLimits,
    /// Milliseconds between tail checks.
    pub tail_check_ms: u64,
    /// A line without members closes after this many milliseconds.
    pub close_after_ms: u64,
    /// Milliseconds after which a full core is tried again.
    pub core_retry_ms: u64,
    /// Milliseconds between looks at placements that wait.
    pub place_retry_ms: u64,
    /// A gap of more messages is not read: `cut`.
    pub gap_messages: u64,
    /// Bytes of one catch-up page.
    pub page_bytes: usize,
    /// Rooms remembered as having no line here.
    pub elsewhere_max: usize,
}

impl Default for LinesLimits {
    fn default() -> Self {
        Self {
            line: LineLimits {
                ring_frames: 512,
                ring_bytes: 1 << 20,
                held_frames: 1_024,
                held_bytes: 4 << 20,
                hole_ms: 500,
            },
            tail_check_ms: 2_000,
            close_after_ms: 30_000,
            core_retry_ms: 5,
            place_retry_ms: 20,
            gap_messages: corecast_proto::limits::GAP_MESSAGES,
            page_bytes: 64 << 10,
            elsewhere_max: 65_536,
        }
    }
}

/// A frame from the bus or the push stream.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Room, or `global`.
    pub room_id: RoomId,
    /// Its epoch.
    pub epoch: u64,
    /// Its numbers and bytes.
    pub frame: Frame,
}

/// Names a batch whose recording somebody waits for.
pub type Ticket = u64;

/// A room as a snapshot has it.
#[derive(Clone, Debug)]
pub struct SnapshotRoom {
    /// Room.
    pub room_id: RoomId,
    /// A default room.
    pub everyone: bool,
    /// N: where the contents stop.
    pub at: Position,
}

/// Puts a connection at the numbers of a snapshot.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Names it for the answer.
    pub id: u64,
    /// Connection.
    pub conn: ConnId,
    /// What the snapshot looked like on the wire: `hello`, `joined`, a history page, `cut`.
    pub reply: Vec<Wire>,
    /// What kind of placement.
    pub kind: PlacementKind,
    /// The rooms of the snapshot.
    pub rooms: Vec<SnapshotRoom>,
    /// Gives up at this time.
    pub deadline_ms: u64,
}

/// What kind of placement.
#[derive(Clone, Debug)]
pub enum PlacementKind {
    /// A hello: the default rooms, `global`, and the rooms of a resume list.
    Open {
        /// Who.
        session: Arc<Session>,
        /// `global` in the same snapshot.
        global: Position,
    },
    /// One more room.
    Join,
    /// A `cut` for a connection that is too far behind.
    Cut,
}

/// How a placement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// Queued to the core.
    Queued,
    /// The ring no longer reaches the snapshot's numbers: read it again.
    Stale,
    /// Its deadline passed.
    TimedOut,
    /// The connection has left.
    Gone,
}

/// Why a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeFor {
    /// A hole in the line.
    Line,
    /// A core that is behind what the ring holds.
    Core(usize),
    /// A page for a demoted connection.
    Page(ConnId),
}

/// Why heads are read.
#[derive(Clone, Debug)]
pub enum HeadsFor {
    /// Tail check: where each line stood when the question was sent. The answer holds
    /// `global` and all default rooms, known here or not: job does not send what it was not
    /// asked for, so no frame would tell of a default room that nobody here knows.
    Tails(Vec<(RoomId, Position)>),
    /// Rooms that nobody here knows.
    Unknown,
}

/// Why a snapshot of one room is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotFor {
    /// Its line is reset.
    Reset,
    /// A connection is too far behind.
    Page {
        /// Connection.
        conn: ConnId,
    },
}

/// What the shell does next.
#[derive(Debug)]
pub enum Action {
    /// Offer a command to a core; refused: give it back at once.
    Send {
        /// Core.
        core: usize,
        /// Command.
        command: Command,
        /// The placement it carries out, if any: `placed` it when taken.
        placement: Option<Box<Placement>>,
    },
    /// Read frames; answer by `handle_range` or `handle_range_failed`.
    Range {
        /// Room.
        room_id: RoomId,
        /// Between which numbers.
        ask: Ask,
        /// Why.
        why: RangeFor,
    },
    /// Read heads; answer by `handle_heads` or `handle_heads_failed`.
    Heads {
        /// Rooms; for [`HeadsFor::Unknown`] `global` is among them.
        rooms: Vec<RoomId>,
        /// Why.
        why: HeadsFor,
    },
    /// Read `global` and all default heads in one snapshot; answer by `handle_defaults`.
    Defaults,
    /// Read the newest messages of a room; answer by `handle_snapshot`.
    Snapshot {
        /// Room.
        room_id: RoomId,
        /// Why.
        why: SnapshotFor,
    },
    /// All frames of the batch are recorded.
    Recorded(Ticket),
    /// A placement ended without its command being sent.
    Failed {
        /// The placement.
        placement: Box<Placement>,
        /// How.
        outcome: Placed,
    },
    /// Tell the fast path, and job, which rooms have members here.
    Watch {
        /// Room.
        room_id: RoomId,
        /// Begin or end.
        on: bool,
    },
}

/// (epoch, head, kind) of a room, from logic.
#[derive(Clone, Debug)]
pub struct Head {
    /// Room.
    pub room_id: RoomId,
    /// Epoch and last number.
    pub at: Position,
    /// A default room (or `global`).
    pub everyone: bool,
}

/// Frames read from logic.
#[derive(Clone, Debug)]
pub struct RangeAnswer {
    /// Room's epoch and head in the same snapshot; `None`: no such room.
    pub at: Option<Position>,
    /// Contiguous.
    pub frames: Vec<Frame>,
}

/// The newest messages of a room, as a `cut` frame.
#[derive(Clone, Debug)]
pub struct CutAnswer {
    /// Room's epoch and head.
    pub at: Position,
    /// The `cut` frame.
    pub wire: Wire,
}
