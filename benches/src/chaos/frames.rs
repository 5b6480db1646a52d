//! Frames of `corecast.v1` as a client reads and writes them, written from the contract and
//! not from the product's own code.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A frame from the server, as far as a client acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The answer to `resume`: every room with a place in it.
    Hello(Vec<Room>),
    /// The answer to `join`.
    Joined(Room),
    /// What the client holds of this room is replaced.
    Cut(Room),
    /// Live messages of a room: their numbers, rising.
    Messages {
        /// Room id.
        room: String,
        /// Numbers.
        numbers: Vec<u64>,
    },
    /// A page of history.
    Page {
        /// Room id.
        room: String,
        /// The line's epoch.
        epoch: u64,
        /// Numbers, rising.
        numbers: Vec<u64>,
        /// More lie beyond.
        more: bool,
    },
    /// Messages of ours that are durable: (key, number).
    Ack(Vec<(String, u64)>),
    /// A request was refused.
    Error(Refused),
    /// Frames of a room are held back, or flow again.
    Lagging {
        /// Room id.
        room: String,
        /// False: caught up.
        begins: bool,
    },
    /// A room was created: (id, name, kind).
    Created(String, String, String),
    /// The gateway drains: reconnect after a time in this window, in ms.
    Draining(u64, u64),
    /// Something a client passes over.
    Other,
}

/// A room object of `hello`, `joined` or `cut`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Room id.
    pub id: String,
    /// `default`, `public`; empty in a `cut`.
    pub kind: String,
    /// The line's epoch.
    pub epoch: u64,
    /// Where the messages end.
    pub last: u64,
    /// What was held is void.
    pub cut: bool,
    /// Numbers of its messages, rising.
    pub numbers: Vec<u64>,
}

/// An `error` frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Refused {
    /// Stable code.
    pub code: String,
    /// Type of the request.
    pub request_type: String,
    /// Room of the request.
    pub room_id: Option<String>,
    /// Key of the message.
    pub client_message_id: Option<String>,
    /// A repeat may help after this; absent: it does not.
    pub retry_after_ms: Option<u64>,
}

impl Frame {
    /// Reads a text frame. `None`: a frame of the contract that lacks a field.
    pub fn read(text: &str) -> Option<Self> {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else { return Some(Self::Other) };
        let payload = envelope.payload.get();
        Some(match envelope.kind.as_ref() {
            "hello" => {
                Self::Hello(parse::<HelloPayload>(payload)?.rooms.into_iter().map(Room::from).collect())
            }
            "joined" => Self::Joined(parse::<RoomPayload>(payload)?.into()),
            "cut" => Self::Cut(Room { cut: true, ..parse::<RoomPayload>(payload)?.into() }),
            "serverMessages" => {
                let list = parse::<ListPayload>(payload)?;
                Self::Messages { room: list.room_id, numbers: numbers(list.messages) }
            }
            "serverRoomHistory" => {
                let list = parse::<ListPayload>(payload)?;
                let (epoch, more) = (list.epoch?, list.has_more_messages?);
                Self::Page { room: list.room_id, epoch, numbers: numbers(list.messages), more }
            }
            "ack" => {
                let acked = parse::<AckPayload>(payload)?.messages.into_iter();
                Self::Ack(acked.map(|one| (one.client_message_id, one.seq)).collect())
            }
            "error" => Self::Error(parse(payload)?),
            "lagging" | "caughtUp" => {
                let room = parse::<Named>(payload)?.room_id;
                Self::Lagging { room, begins: envelope.kind == "lagging" }
            }
            "serverCreateRoom" => {
                let created = parse::<CreatedPayload>(payload)?;
                Self::Created(created.room_id, created.room_name, created.kind)
            }
            "draining" => {
                let window = parse::<DrainingPayload>(payload)?;
                Self::Draining(window.reconnect_min_ms, window.reconnect_max_ms)
            }
            _ => Self::Other,
        })
    }
}

/// `resume` with (room, epoch, number).
pub fn resume<'a>(cursors: impl IntoIterator<Item = (&'a str, u64, u64)>) -> String {
    let cursors = cursors.into_iter();
    let rooms: Vec<Value> = cursors.map(|(room, epoch, seq)| cursor(room, Some((epoch, seq)))).collect();
    frame("resume", json!({ "rooms": rooms }))
}

/// `join`, from a place or without one.
pub fn join(room: &str, place: Option<(u64, u64)>) -> String {
    frame("join", cursor(room, place))
}

/// `clientMessages` with one message.
pub fn message(room: &str, key: &str, content: &str) -> String {
    let messages = json!([{"content": content, "clientMessageId": key}]);
    frame("clientMessages", json!({"roomId": room, "messages": messages}))
}

/// `requestRoomHistory` forward from a number.
pub fn page(room: &str, after: u64) -> String {
    frame("requestRoomHistory", json!({"roomId": room, "afterSeq": after, "count": PAGE_MESSAGES}))
}

/// `clientCreateRoom`.
pub fn create_room(name: &str) -> String {
    frame("clientCreateRoom", json!({ "roomName": name }))
}

fn frame(kind: &str, payload: Value) -> String {
    json!({"type": kind, "payload": payload}).to_string()
}

fn cursor(room: &str, place: Option<(u64, u64)>) -> Value {
    match place {
        None => json!({ "roomId": room }),
        Some((epoch, seq)) => json!({"roomId": room, "epoch": epoch, "seq": seq}),
    }
}

fn parse<'a, T: Deserialize<'a>>(payload: &'a str) -> Option<T> {
    serde_json::from_str(payload).ok()
}

fn numbers(messages: Vec<Shown>) -> Vec<u64> {
    messages.into_iter().map(|message| message.seq).collect()
}

impl From<RoomPayload> for Room {
    fn from(room: RoomPayload) -> Self {
        Self {
            id: room.id,
            kind: room.kind,
            epoch: room.epoch,
            last: room.last_seq,
            cut: room.cut,
            numbers: numbers(room.messages),
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct HelloPayload {
    rooms: Vec<RoomPayload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RoomPayload {
    #[serde(alias = "roomId")]
    id: String,
    #[serde(default)]
    kind: String,
    epoch: u64,
    last_seq: u64,
    #[serde(default)]
    cut: bool,
    messages: Vec<Shown>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListPayload {
    room_id: String,
    epoch: Option<u64>,
    has_more_messages: Option<bool>,
    messages: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    seq: u64,
}

#[derive(Deserialize)]
struct AckPayload {
    messages: Vec<Acked>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Acked {
    client_message_id: String,
    seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    room_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreatedPayload {
    room_id: String,
    room_name: String,
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DrainingPayload {
    reconnect_min_ms: u64,
    reconnect_max_ms: u64,
}

/// Messages a page asks for: the most the contract allows.
const PAGE_MESSAGES: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_the_contract_are_read() {
        let text = r#"{"type":"cut","payload":{"roomId":"r","epoch":2,"lastSeq":9,"hasMoreMessages":true,
            "messages":[{"id":"1-9","content":"x","timestamp":1,"user":{"id":"u","username":"n"},"seq":9}]}}"#;
        let room = Room { id: "r".into(), epoch: 2, last: 9, cut: true, numbers: vec![9], ..Room::default() };
        assert_eq!(Frame::read(text), Some(Frame::Cut(room)));
        let text = r#"{"type":"error","payload":{"code":"UNAVAILABLE","message":"m","requestType":"join","roomId":"r","retryAfterMs":1000}}"#;
        let Some(Frame::Error(refused)) = Frame::read(text) else { panic!("an error frame") };
        assert_eq!((refused.code.as_str(), refused.retry_after_ms), ("UNAVAILABLE", Some(1000)));
        assert_eq!(Frame::read(r#"{"type":"typing","payload":{}}"#), Some(Frame::Other));
        assert_eq!(Frame::read("not JSON"), Some(Frame::Other));
    }

    #[test]
    fn a_frame_without_its_fields_is_told_apart() {
        assert_eq!(Frame::read(r#"{"type":"ack","payload":{"roomId":"r"}}"#), None);
        assert_eq!(Frame::read(r#"{"type":"hello","payload":{"rooms":[{"id":"r"}]}}"#), None);
    }
}
