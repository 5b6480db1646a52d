//! Server → client. Written by hand rather than derived: the order of the fields is part
//! of the vectors, and a part that is already JSON (a list of messages) is copied, not parsed.

use crate::ids::Position;
use crate::refusal::Code;

/// One message as every client sees it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `<ms>-<seq>`.
    pub id: &'a str,
    /// Any Unicode, as it was sent.
    pub content: &'a str,
    /// ms since 1970 UTC.
    pub timestamp: i64,
    /// Author.
    pub user_id: &'a str,
    /// The author's name at the time.
    pub username: &'a str,
    /// Number in the room, from 1.
    pub seq: u64,
}

/// A room of `hello` and `joined`.
#[derive(Clone, Copy, Debug)]
pub struct RoomObject<'a> {
    /// Room id.
    pub id: &'a str,
    /// Name.
    pub name: &'a str,
    /// `""` for the rooms of the configuration.
    pub creator_id: &'a str,
    /// Older messages exist.
    pub has_more: bool,
    /// JSON array, oldest first.
    pub messages: &'a [u8],
    /// Where the messages stop.
    pub last: Position,
    /// `default`, `public`, `private`.
    pub kind: &'a str,
    /// What the client held is void.
    pub cut: bool,
}

/// An `error` frame, to the asker alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorFrame<'a> {
    /// See [`Code`](crate::refusal::Code).
    pub code: &'a str,
    /// Names the field and the limit.
    pub message: &'a str,
    /// `type` of the frame that caused it; empty when it had none.
    pub request_type: &'a str,
    /// Room of the request, where it named one.
    pub room_id: Option<&'a str>,
    /// Key of the message, where it carried one.
    pub client_message_id: Option<&'a str>,
    /// A repeat may help after this many milliseconds; 0: it does not.
    pub retry_after_ms: u32,
}

/// Appends one message object.
pub fn message(out: &mut Vec<u8>, m: &Message<'_>) {
    raw(out, r#"{"id":"#);
    text(out, m.id);
    raw(out, r#","content":"#);
    text(out, m.content);
    raw(out, r#","timestamp":"#);
    number(out, m.timestamp);
    raw(out, r#","user":{"id":"#);
    text(out, m.user_id);
    raw(out, r#","username":"#);
    text(out, m.username);
    raw(out, r#"},"seq":"#);
    number(out, m.seq);
    raw(out, "}");
}

/// Appends a JSON array of things that each append themselves.
pub fn array<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut each: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        each(out, item);
    }
    out.push(b']');
}

/// `serverMessages`; `messages` is a JSON array.
pub fn server_messages(room_id: &str, messages: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(messages.len() + room_id.len() + 64);
    raw(&mut out, r#"{"type":"serverMessages","payload":{"roomId":"#);
    text(&mut out, room_id);
    raw(&mut out, r#","messages":"#);
    out.extend_from_slice(messages);
    raw(&mut out, "}}");
    out
}

/// The messages of a [`server_messages`] frame, without the brackets around them. `None`:
/// it is not one of ours.
pub fn messages_of(server_messages: &[u8]) -> Option<&[u8]> {
    let rest = server_messages.strip_prefix(br#"{"type":"serverMessages","payload":{"roomId":"#)?;
    // A JSON string ends at the first quote that no backslash precedes; an id of ours has
    // no backslash.
    let end = rest.iter().skip(1).position(|byte| *byte == b'"')? + 2;
    rest[end..].strip_prefix(br#","messages":["#)?.strip_suffix(b"]}}")
}

/// Appends a room object of `hello` and `joined`.
pub fn room_object(out: &mut Vec<u8>, room: &RoomObject<'_>) {
    raw(out, r#"{"id":"#);
    text(out, room.id);
    raw(out, r#","name":"#);
    text(out, room.name);
    raw(out, r#","creator_id":"#);
    text(out, room.creator_id);
    raw(out, r#","hasMoreMessages":"#);
    boolean(out, room.has_more);
    raw(out, r#","messages":"#);
    out.extend_from_slice(room.messages);
    raw(out, r#","epoch":"#);
    number(out, room.last.epoch);
    raw(out, r#","lastSeq":"#);
    number(out, room.last.seq);
    raw(out, r#","kind":"#);
    text(out, room.kind);
    if room.cut {
        raw(out, r#","cut":true"#);
    }
    raw(out, "}");
}

/// The beginning of `hello`, up to the first room object.
pub fn hello_head(user_id: &str, username: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    raw(&mut out, r#"{"type":"hello","payload":{"me":{"id":"#);
    text(&mut out, user_id);
    raw(&mut out, r#","username":"#);
    text(&mut out, username);
    raw(&mut out, r#"},"rooms":["#);
    out
}

/// What follows the last room object of `hello`.
pub fn hello_tail() -> &'static [u8] {
    b"]}}"
}

/// The whole `hello`; `rooms` are the room objects, separated by commas.
pub fn hello(user_id: &str, username: &str, rooms: &[u8]) -> Vec<u8> {
    let mut out = hello_head(user_id, username);
    out.extend_from_slice(rooms);
    out.extend_from_slice(hello_tail());
    out
}

/// `joined`; the payload is a room object.
pub fn joined(room: &RoomObject<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(room.messages.len() + 256);
    raw(&mut out, r#"{"type":"joined","payload":"#);
    room_object(&mut out, room);
    raw(&mut out, "}");
    out
}

/// `serverRoomHistory`; `messages` is a JSON array, oldest first.
pub fn room_history(room_id: &str, name: &str, has_more: bool, messages: &[u8], epoch: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(messages.len() + 160);
    raw(&mut out, r#"{"type":"serverRoomHistory","payload":{"roomId":"#);
    text(&mut out, room_id);
    raw(&mut out, r#","name":"#);
    text(&mut out, name);
    raw(&mut out, r#","hasMoreMessages":"#);
    boolean(&mut out, has_more);
    raw(&mut out, r#","messages":"#);
    out.extend_from_slice(messages);
    raw(&mut out, r#","epoch":"#);
    number(&mut out, epoch);
    raw(&mut out, "}}");
    out
}

/// `serverCreateRoom` of a room that now exists. `kind` and `epoch` are our additions: a
/// client learns whether it is a member already or has to join, and under which epoch the
/// room's numbers begin, so that it can resume.
pub fn room_created(
    room_id: &str,
    room_name: &str,
    creator_id: &str,
    creator_username: &str,
    kind: &str,
    epoch: u64,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    raw(&mut out, r#"{"type":"serverCreateRoom","payload":{"roomId":"#);
    text(&mut out, room_id);
    raw(&mut out, r#","roomName":"#);
    text(&mut out, room_name);
    raw(&mut out, r#","creatorId":"#);
    text(&mut out, creator_id);
    raw(&mut out, r#","creatorUsername":"#);
    text(&mut out, creator_username);
    raw(&mut out, r#","kind":"#);
    text(&mut out, kind);
    raw(&mut out, r#","epoch":"#);
    number(&mut out, epoch);
    raw(&mut out, "}}");
    out
}

/// `serverCreateRoom` with four empty strings: that name is taken.
pub fn create_room_taken() -> &'static [u8] {
    br#"{"type":"serverCreateRoom","payload":{"roomId":"","roomName":"","creatorId":"","creatorUsername":""}}"#
}

/// `ack`: (clientMessageId, id, seq, timestamp) of each message that carried a key.
pub fn ack<'a>(room_id: &str, messages: impl IntoIterator<Item = (&'a str, &'a str, u64, i64)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    raw(&mut out, r#"{"type":"ack","payload":{"roomId":"#);
    text(&mut out, room_id);
    raw(&mut out, r#","messages":"#);
    array(&mut out, messages, |out, (key, id, seq, timestamp)| {
        raw(out, r#"{"clientMessageId":"#);
        text(out, key);
        raw(out, r#","id":"#);
        text(out, id);
        raw(out, r#","seq":"#);
        number(out, seq);
        raw(out, r#","timestamp":"#);
        number(out, timestamp);
        raw(out, "}");
    });
    raw(&mut out, "}}");
    out
}

/// `error`, to the asker alone; old clients get it too.
pub fn error(frame: &ErrorFrame<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    raw(&mut out, r#"{"type":"error","payload":{"code":"#);
    text(&mut out, frame.code);
    raw(&mut out, r#","message":"#);
    text(&mut out, frame.message);
    raw(&mut out, r#","requestType":"#);
    text(&mut out, frame.request_type);
    if let Some(room_id) = frame.room_id {
        raw(&mut out, r#","roomId":"#);
        text(&mut out, room_id);
    }
    if let Some(key) = frame.client_message_id {
        raw(&mut out, r#","clientMessageId":"#);
        text(&mut out, key);
    }
    if frame.retry_after_ms > 0 {
        raw(&mut out, r#","retryAfterMs":"#);
        number(&mut out, frame.retry_after_ms);
    }
    raw(&mut out, "}}");
    out
}

/// `lagging`: frames of this room are held back; `seq` is the number the client has reached.
pub fn lagging(room_id: &str, seq: u64) -> Vec<u8> {
    room_and_seq("lagging", room_id, seq)
}

/// `caughtUp`: the client has everything of the room up to `seq` and is live again.
pub fn caught_up(room_id: &str, seq: u64) -> Vec<u8> {
    room_and_seq("caughtUp", room_id, seq)
}

/// `cut`: replaces all the client holds of the room.
pub fn cut(room_id: &str, last: Position, has_more: bool, messages: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(messages.len() + 128);
    raw(&mut out, r#"{"type":"cut","payload":{"roomId":"#);
    text(&mut out, room_id);
    raw(&mut out, r#","epoch":"#);
    number(&mut out, last.epoch);
    raw(&mut out, r#","lastSeq":"#);
    number(&mut out, last.seq);
    raw(&mut out, r#","hasMoreMessages":"#);
    boolean(&mut out, has_more);
    raw(&mut out, r#","messages":"#);
    out.extend_from_slice(messages);
    raw(&mut out, "}}");
    out
}

/// `draining`: reconnect after a random time inside the window.
pub fn draining(reconnect_min_ms: u64, reconnect_max_ms: u64) -> Vec<u8> {
    format!(
        r#"{{"type":"draining","payload":{{"reconnectMinMs":{reconnect_min_ms},"reconnectMaxMs":{reconnect_max_ms}}}}}"#
    )
    .into_bytes()
}

impl<'a> ErrorFrame<'a> {
    /// An error frame with the code's own retry hint.
    pub fn new(code: Code, message: &'a str, request_type: &'a str) -> Self {
        Self {
            code: code.as_str(),
            message,
            request_type,
            retry_after_ms: code.retry_after_ms(),
            ..Self::default()
        }
    }
}

fn room_and_seq(kind: &str, room_id: &str, seq: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    raw(&mut out, r#"{"type":""#);
    raw(&mut out, kind);
    raw(&mut out, r#"","payload":{"roomId":"#);
    text(&mut out, room_id);
    raw(&mut out, r#","seq":"#);
    number(&mut out, seq);
    raw(&mut out, "}}");
    out
}

fn raw(out: &mut Vec<u8>, json: &str) {
    out.extend_from_slice(json.as_bytes());
}

fn text(out: &mut Vec<u8>, value: &str) {
    serde_json::to_writer(&mut *out, value).expect("a str always serialises into a Vec");
}

fn number(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    use std::io::Write;
    write!(out, "{value}").expect("a Vec takes every byte");
}

fn boolean(out: &mut Vec<u8>, value: bool) {
    raw(out, if value { "true" } else { "false" });
}
