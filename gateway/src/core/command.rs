//! What crosses between control and a shard. Two closed enums: reading them tells
//! everything that can wake either side.
//!
//! # The rule of numbers
//! The control side owns each room's *line*; a shard owns the *memberships*. For a room,
//! commands reach a shard in one order, and after processing a prefix of them the shard's
//! number of the room is the `last` of the newest [`RoomFrame`] (or [`Command::Cut`]).
//! A membership that begins with a [`Joined`] stands exactly there: the control side put
//! everything up to the line's number into the reply. So nothing is buffered per
//! connection, and nothing is seen twice.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use corecast_proto::close::CloseCode;
use corecast_proto::ids::{Position, RoomId};

use super::wire::Wire;

/// A connection of this process. A late command for a slot that was used again does not
/// match its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    /// Which shard owns it.
    pub shard: u16,
    /// Place in the shard's slab.
    pub slot: u32,
    /// Which use of the slot.
    pub generation: u32,
}

/// Who is on a connection. There is one for each that is open, so it is kept small: a text
/// for each of its parts would be as much again.
pub struct Session {
    /// Session id, user id and user name behind each other.
    text: Box<str>,
    user_id_at: u32,
    username_at: u32,
}

impl Session {
    /// A session that was verified.
    ///
    /// # Panics
    /// The parts have 4 GiB.
    pub fn new(sid: &str, user_id: &str, username: &str) -> Self {
        let at = |bytes| u32::try_from(bytes).expect("names are short");
        Self {
            user_id_at: at(sid.len()),
            username_at: at(sid.len() + user_id.len()),
            text: [sid, user_id, username].concat().into(),
        }
    }

    /// The secret of the cookie. Never printed.
    pub fn sid(&self) -> &str {
        &self.text[..self.user_id_at as usize]
    }

    /// User id.
    pub fn user_id(&self) -> &str {
        &self.text[self.user_id_at as usize..self.username_at as usize]
    }

    /// Name when the session was verified.
    pub fn username(&self) -> &str {
        &self.text[self.username_at as usize..]
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("user_id", &self.user_id()).finish_non_exhaustive()
    }
}

/// A numbered frame of a room, in the order of its line. Never split.
#[derive(Clone, Debug)]
pub struct RoomFrame {
    /// Room; `global` for room creations.
    pub room_id: RoomId,
    /// Everybody on this gateway is a member (default rooms, `global`).
    pub everyone: bool,
    /// Line's epoch.
    pub epoch: u64,
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
    /// Encoded once.
    pub wire: Wire,
}

/// A membership that begins: the reply before it holds everything up to `at`.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Room, never a default one (those are a flag of every open connection).
    pub room_id: RoomId,
    /// The line's place when the command was queued, which is the shard's own.
    pub at: Position,
}

/// A part of what a demoted connection missed in one room.
#[derive(Clone, Debug)]
pub enum Page {
    /// Frames that follow what the connection has reached, each with its last number.
    Frames {
        /// In order; may be empty when the connection had everything.
        frames: Vec<(u64, Wire)>,
        /// Where the connection stands after them. Never above the shard's number.
        reached: u64,
    },
    /// Too far behind, or another epoch: this replaces what it holds. A connection without
    /// `corecast.v1` is closed with 1012 instead.
    Cut {
        /// Place after it. Never above the shard's number.
        at: Position,
        /// The `cut` frame.
        wire: Wire,
    },
    /// Logic could not be asked: ask again after a pause.
    TryLater,
}

/// Who gets an unnumbered push.
#[derive(Clone, Debug)]
pub enum Target {
    /// Members of a room here.
    Room(RoomId),
    /// Every connection of these users (ids).
    Users(Arc<[Arc<str>]>),
    /// Every open connection; per second at most, 0: as fast as possible.
    All {
        /// Connections per second of this shard.
        per_second: u32,
    },
}

/// Control → shard.
#[derive(Debug)]
pub enum Command {
    /// Numbered frames, possibly of many rooms: one wake, one pass.
    Frames(Vec<RoomFrame>),
    /// Every member of a room gets this in place of what it holds: another epoch, or a gap
    /// too large to read. Ordered like a frame; the shard's number becomes `at`. Clients
    /// without `corecast.v1` are closed with 1012.
    Cut {
        /// Room.
        room_id: RoomId,
        /// Default room or `global`.
        everyone: bool,
        /// New place of the line.
        at: Position,
        /// The `cut` frame. `None` on `global`, which no client holds: everybody is closed
        /// with 1012 to get a new hello.
        wire: Option<Wire>,
    },
    /// The session is verified and `frames` (hello and what follows it) begin the
    /// connection. From here on it is a member of every default room and of `rooms`.
    Open {
        /// Connection; a stale one is reported by [`Event::Stale`].
        conn: ConnId,
        /// Who.
        session: Arc<Session>,
        /// hello, then what came after its numbers.
        frames: Vec<Wire>,
        /// Other rooms of the resume list.
        rooms: Vec<Joined>,
    },
    /// A membership of one more room, after `frames`. A room it is in already: the frames
    /// are delivered, the membership stays as it is, reported by [`Event::Stale`].
    Join {
        /// Connection; a stale one is reported by [`Event::Stale`].
        conn: ConnId,
        /// `joined`, or the history page that joins.
        frames: Vec<Wire>,
        /// Room and place.
        room: Joined,
    },
    /// The membership ends; reported by [`Event::Left`]. Not a member: nothing.
    Leave {
        /// Connection.
        conn: ConnId,
        /// Room.
        room_id: RoomId,
    },
    /// Answers of requests, and how many [`Event::Text`] they settle.
    Reply {
        /// Connection; stale: dropped.
        conn: ConnId,
        /// Frames, in order.
        frames: Vec<Wire>,
        /// Settled requests: reading goes on.
        settled: u32,
    },
    /// A part of what a demoted connection asked for by [`Event::Lagging`].
    Page {
        /// Connection; stale: dropped.
        conn: ConnId,
        /// Room.
        room_id: RoomId,
        /// What it gets.
        page: Page,
    },
    /// An unnumbered push.
    Push {
        /// To whom.
        target: Target,
        /// What.
        wire: Wire,
    },
    /// Ends a connection after what is queued for it was written.
    Close {
        /// Connection.
        conn: ConnId,
        /// Why.
        code: CloseCode,
        /// For people.
        reason: &'static str,
    },
    /// Ends every connection of a session: 4501 with `corecast.v1`, 1008 without.
    CloseSession {
        /// The cookie's secret.
        sid: Arc<str>,
    },
    /// A socket whose upgrade was answered on the control side (a request on a kept-alive
    /// HTTP connection). The 101 was written.
    Adopt {
        /// Socket.
        fd: OwnedFd,
        /// What the client asked.
        request: UpgradeRequest,
        /// Bytes already read behind the request head.
        read: Bytes,
    },
    /// Stop accepting, send the notice, close everybody with 1001 within `within`.
    Drain {
        /// Closes are spread over this time.
        within: Duration,
        /// `draining`, for clients with `corecast.v1`.
        notice: Wire,
    },
}

/// An accepted upgrade.
#[derive(Clone, Debug)]
pub struct UpgradeRequest {
    /// `sid` of the cookie, if there was one.
    pub sid: Option<Box<str>>,
    /// The client offered `corecast.v1`.
    pub v1: bool,
    /// `/debug/echo`: no session, no control side.
    pub echo: bool,
    /// The client's address: the peer's, or what proxies that are trusted say.
    pub peer: Option<IpAddr>,
}

/// Shard → control. Every [`Event::Upgraded`] is followed by one [`Event::Closed`].
#[derive(Debug)]
pub enum Event {
    /// The 101 was sent: verify, then [`Command::Open`] or [`Command::Close`].
    Upgraded {
        /// Connection.
        conn: ConnId,
        /// What it asked.
        request: UpgradeRequest,
    },
    /// A text message. Unsettled ones per connection are bounded; then its socket is not
    /// read. A binary message never gets here: closed with 1003.
    Text {
        /// Connection.
        conn: ConnId,
        /// `None` until [`Command::Open`].
        session: Option<Arc<Session>>,
        /// Valid UTF-8.
        text: Bytes,
        /// The client speaks `corecast.v1`.
        v1: bool,
    },
    /// A demoted connection has drained and asks for what follows `reached` in this room.
    Lagging {
        /// Connection.
        conn: ConnId,
        /// Room.
        room_id: RoomId,
        /// What it has, under which epoch.
        reached: Position,
        /// It is behind for so long that only a [`Page::Cut`] ends it.
        too_long: bool,
    },
    /// A membership ended because the connection left.
    Left {
        /// Shard.
        shard: u16,
        /// Room.
        room_id: RoomId,
    },
    /// An Open or Join reached a connection that was gone (or was a member already): these
    /// memberships never began.
    Stale {
        /// Connection.
        conn: ConnId,
        /// It was an Open: the default rooms too.
        opened: bool,
        /// Rooms.
        rooms: Vec<RoomId>,
    },
    /// The connection is gone.
    Closed {
        /// Connection.
        conn: ConnId,
        /// Who, if it was open.
        session: Option<Arc<Session>>,
        /// Rooms it was a member of, besides the default ones.
        rooms: Vec<RoomId>,
    },
    /// Plain HTTP: hyper owns the socket from here on.
    Http {
        /// Socket, non-blocking.
        fd: OwnedFd,
        /// Bytes already read.
        read: Bytes,
        /// Peer address.
        peer: Option<IpAddr>,
    },
    /// A drained shard has closed its last connection.
    Drained {
        /// Shard.
        shard: u16,
    },
}
