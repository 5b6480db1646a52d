//! Rows in, rows out, errors.

use std::time::Duration;

use bytes::Bytes;
use corecast_proto::ids::{MessageId, Position, RoomId};

/// SHA-256 of a session id: the store never holds the id itself.
pub type SessionHash = [u8; 32];

/// An account to create.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// UUID, made by logic.
    pub user_id: String,
    /// As typed, NFC.
    pub username: String,
    /// NFC, Unicode lower case: unique.
    pub username_folded: String,
    /// As typed.
    pub email: String,
    /// Folded: unique.
    pub email_folded: String,
    /// PHC string of argon2id; contains parameters and salt.
    pub password_hash: String,
    /// The salt, also part of `password_hash`.
    pub salt: String,
    /// ms since 1970 UTC.
    pub now_ms: i64,
}

/// How a creation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateUser {
    /// Stored.
    Created,
    /// Somebody has this username.
    UsernameExists,
    /// Somebody has this email.
    EmailExists,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// UUID.
    pub user_id: String,
    /// As typed.
    pub username: String,
    /// As typed.
    pub email: String,
    /// PHC string.
    pub password_hash: String,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub user_id: String,
    /// Name and email at the time of reading.
    pub username: String,
    /// As typed.
    pub email: String,
    /// ms since 1970 UTC.
    pub expires_ms: i64,
}

/// Who is a member of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoomKind {
    /// Everybody.
    Default,
    /// Who opened it.
    Public,
    /// Members only; never on `global`.
    Private,
}

/// A room of the configuration.
#[derive(Clone, Debug)]
pub struct SeedRoom {
    /// Fixed id.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// First epoch: ms since 1970 UTC, so that a store made anew outranks a lost one.
    pub epoch: u64,
    /// ms since 1970 UTC.
    pub now_ms: i64,
}

/// A room to create.
#[derive(Clone)]
pub struct NewRoom {
    /// Made by logic.
    pub id: String,
    /// Unique, compared exactly.
    pub name: String,
    /// User id.
    pub creator_id: String,
    /// Name at the time.
    pub creator_username: String,
    /// Wanted kind.
    pub kind: RoomKind,
    /// Above this many default rooms…
    pub default_max: u32,
    /// …a default room becomes this kind.
    pub default_overflow: RoomKind,
    /// Made by the gateway; unique per creator.
    pub key: String,
    /// First epoch.
    pub epoch: u64,
    /// ms since 1970 UTC.
    pub now_ms: i64,
    /// Who relays the outbox row.
    pub owner: String,
    /// Makes the frame once the kind is known.
    pub frame: fn(&Room) -> Bytes,
}

/// How a room creation ended.
#[derive(Clone, Debug)]
pub enum CreateRoom {
    /// Stored, with its frame's number on `global` and its outbox row, if it has one.
    Created {
        /// The room.
        room: Room,
        /// The outbox row that was written, for the fast path.
        outbox: Option<OutboxRow>,
    },
    /// This key made this room before.
    Repeated(Room),
    /// Another room has this name.
    NameTaken,
}

/// A room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Id.
    pub id: RoomId,
    /// Unique.
    pub name: String,
    /// `""` for the rooms of the configuration.
    pub creator_id: String,
    /// Name of the creator at the time.
    pub creator_username: String,
    /// ms since 1970 UTC.
    pub create_time: i64,
    /// ms since 1970 UTC: the last message, or the creation.
    pub update_time: i64,
    /// Who is a member.
    pub kind: RoomKind,
    /// The line's head.
    pub head: Position,
    /// Its creation's number on `global`, where it has one.
    pub global_seq: Option<u64>,
}

/// A client frame to commit.
#[derive(Clone, Debug)]
pub struct CommitFrame {
    /// Room.
    pub room_id: RoomId,
    /// Author.
    pub user_id: String,
    /// Name at the time.
    pub username: String,
    /// At least one.
    pub messages: Vec<NewMessage>,
    /// Who relays the outbox row.
    pub owner: String,
}

/// One message of a frame.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// As it was sent.
    pub content: String,
    /// Unique per (room, user).
    pub key: String,
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub enum FrameOutcome {
    /// Durable.
    Stored {
        /// The room's epoch.
        epoch: u64,
        /// As many as the frame's messages, in order.
        messages: Vec<StoredMessage>,
        /// Outbox rows that end in this frame, for the fast path: a row may cover several
        /// frames of the batch and is reported once, with the last of them.
        outbox: Vec<OutboxRow>,
    },
    /// No such room.
    UnknownRoom,
    /// The store cannot hold it: a value is too long for its column. Says which, without the
    /// value. The frames beside it are stored.
    Refused(String),
}

/// Where a message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Id, number and timestamp.
    pub id: MessageId,
    /// Was stored before, under the same key.
    pub repeated: bool,
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Id, number and timestamp.
    pub id: MessageId,
    /// Author.
    pub user_id: String,
    /// Name at the time.
    pub username: String,
    /// As it was sent.
    pub content: String,
}

/// Messages of a room, oldest first, without holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Room's head in the same snapshot.
    pub head: Position,
    /// Contiguous.
    pub messages: Vec<Message>,
}

/// What to read in one snapshot.
#[derive(Clone, Debug, Default)]
pub struct SnapshotQuery {
    /// Every default room.
    pub defaults: bool,
    /// These too, each with the place the client has reached.
    pub rooms: Vec<(RoomId, Option<Position>)>,
    /// Newest messages per room at most.
    pub count: u32,
    /// Messages after a given place at most; more is a cut.
    pub after_max: u32,
    /// Bytes of content of all rooms together at most. Trimming drops the oldest.
    pub max_bytes: usize,
    /// Public rooms to list beside them, the newest first, at most.
    pub listed: u32,
}

/// One consistent state.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The line of room creations.
    pub global: Position,
    /// Default rooms by creation, then the others as asked; unknown ones are absent.
    pub rooms: Vec<RoomSnapshot>,
    /// Public rooms that are not among `rooms`, the newest first.
    pub listed: Vec<Room>,
}

/// A room of a snapshot.
#[derive(Clone, Debug)]
pub struct RoomSnapshot {
    /// The room; `head` is N, where the messages stop.
    pub room: Room,
    /// Contiguous, reaching N; empty only when nothing was asked, fits, or exists.
    pub messages: Vec<Message>,
    /// A place was given and what follows it does not fit, its epoch is another, or it lies
    /// above the head: the messages are the newest instead.
    pub cut: bool,
}

/// (epoch, head, kind) of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Room, or `global`.
    pub room_id: RoomId,
    /// Epoch and last number.
    pub position: Position,
    /// `Default` for `global`: everybody is a member.
    pub kind: RoomKind,
}

/// What the log carries, before it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRecord {
    /// Key of the record: the room id.
    pub room_id: RoomId,
    /// Who relays it.
    pub owner: String,
    /// The encoded `ChatRoom.Job.PushMsg`.
    pub value: Bytes,
}

/// A row of the outbox: one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Grows, never used again.
    pub id: u64,
    /// Key of the record: the room id.
    pub room_id: RoomId,
    /// The encoded `ChatRoom.Job.PushMsg`.
    pub value: Bytes,
}

/// Somebody who owns outbox rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxOwner {
    /// The `logic.id` in the rows.
    pub owner: String,
    /// Milliseconds since the row with the lowest id was written, by the database's clock.
    pub oldest_age_ms: u64,
}

/// A record that was put aside because nobody can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Key of the record: the room id.
    pub room_id: RoomId,
    /// What could not be read.
    pub value: Bytes,
    /// Why, for the operator.
    pub reason: String,
}

/// How a store on a server is used. A file needs none of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// Where pages of history are read, if not on the primary: a server that follows it.
    pub replica_url: Option<String>,
    /// Connections at most, to each server. Each costs the server a thread and memory.
    pub pool_max: u32,
    /// How long a call waits for a free connection before it is unavailable.
    pub pool_wait: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { replica_url: None, pool_max: 16, pool_wait: Duration::from_secs(3) }
    }
}

/// The connections of a store to its server: now, and counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolUse {
    /// Connections allowed.
    pub max: u32,
    /// In use, or being opened.
    pub in_use: u32,
    /// Open and free.
    pub idle: u32,
    /// Calls that wait for one.
    pub waiting: u32,
    /// Calls that had to wait.
    pub waits: u64,
    /// How long they waited, all together.
    pub wait_time: Duration,
    /// Calls that waited in vain.
    pub wait_timeouts: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections that broke or did not answer.
    pub lost: u64,
}

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened; try again later.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// A write may or may not have happened; the same keys make a repeat safe.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The store refuses for good: wrong schema, disk full, broken file, a seed's name taken.
    #[error("store failed: {0}")]
    Fatal(String),
}
