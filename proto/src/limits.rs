//! Limits that more than one tier checks, with their defaults.

/// A frame from a client, payload bytes. Over it: closed with 1009.
pub const CLIENT_FRAME_BYTES: usize = 64 << 10;
/// `content` of one message, bytes of UTF-8, at least 1.
pub const CONTENT_BYTES: usize = 4 << 10;
/// Messages in one `clientMessages` frame, at least 1.
pub const MESSAGES_PER_FRAME: usize = 64;
/// `clientMessageId`, bytes of UTF-8, at least 1.
pub const CLIENT_MESSAGE_ID_BYTES: usize = 64;
/// `count` of a history request when it is absent.
pub const HISTORY_COUNT_DEFAULT: u32 = 30;
/// `count` of a history request at most.
pub const HISTORY_COUNT_MAX: u32 = 200;
/// A room name, Unicode scalar values, at least 1.
pub const ROOM_NAME_CHARS: usize = 64;
/// A username, Unicode scalar values, at least 1.
pub const USERNAME_CHARS: usize = 32;
/// An email, bytes (RFC 5321 §4.5.3.1.3).
pub const EMAIL_BYTES: usize = 254;
/// A password as the client sends it, bytes; argon2 reads all of it.
pub const PASSWORD_BYTES: usize = 1024;
/// A room id, bytes.
pub const ROOM_ID_BYTES: usize = 128;
/// Message bytes in one hello, all rooms together.
pub const HELLO_BYTES: usize = 128 << 10;
/// A frame that carries an outbox row, unless one client frame alone is larger.
pub const OUTBOX_FRAME_BYTES: usize = 64 << 10;
/// A reply to one connection (history page), bytes.
pub const REPLY_BYTES: usize = 1 << 20;
/// Rooms in one `resume` frame.
pub const RESUME_ROOMS: usize = 680;
/// Rooms besides the default ones that one connection may join: with as many default rooms
/// as a system has unless it is told otherwise, 256, it can resume all of them.
pub const MEMBERSHIPS: usize = RESUME_ROOMS - 256;
/// Rooms of one `heads` request.
pub const HEADS_ROOMS: usize = 65_536;
/// A gap larger than this is not read: the client gets `cut`.
pub const GAP_MESSAGES: u64 = 10_000;
/// A connection that is behind in a room for this many milliseconds gets `cut`.
pub const BEHIND_MS: u64 = 120_000;
/// `epoch` and `seq` stay exact in a JavaScript number below this.
pub const JSON_INTEGER: u64 = 1 << 53;

// A full page of the largest messages must fit a reply: JSON escapes a byte to six at
// worst, but a frame that large is cut by the server by bytes, so only one message has to.
const _: () = assert!(6 * CONTENT_BYTES + 1024 <= REPLY_BYTES);
const _: () = assert!(CONTENT_BYTES + 1024 <= CLIENT_FRAME_BYTES);
// A cursor of a room of ours (`room-` and a UUID, an epoch of 13 digits) has 96 bytes at most.
const _: () = assert!(RESUME_ROOMS * 96 <= CLIENT_FRAME_BYTES);
