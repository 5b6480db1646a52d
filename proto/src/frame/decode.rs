//! Client → server. Unknown fields are ignored; known ones are checked.

use std::fmt::Display;

use serde::Deserialize;
use serde_json::Value;

use crate::ids::Position;
use crate::limits;
use crate::refusal::Code;

/// A frame a client may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFrame {
    /// Messages to a room, stored all or none.
    ClientMessages {
        /// Room.
        room_id: String,
        /// 1–64 messages.
        messages: Vec<Content>,
    },
    /// A page of history.
    RequestRoomHistory {
        /// Room.
        room_id: String,
        /// Where the page lies.
        anchor: Anchor,
        /// Messages at most, 1–200.
        count: u32,
    },
    /// A new room.
    ClientCreateRoom {
        /// 1–64 characters.
        room_name: String,
    },
    /// The first frame of a `corecast.v1` connection.
    Resume {
        /// Rooms the client holds, each with the number it has reached.
        rooms: Vec<ResumeCursor>,
    },
    /// Join a public room.
    Join {
        /// Room.
        room_id: String,
        /// What the client holds of it.
        position: Option<Position>,
    },
    /// Leave a room.
    Leave {
        /// Room.
        room_id: String,
    },
}

/// One message of `clientMessages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// 1–4,096 bytes of UTF-8.
    pub content: String,
    /// The client's idempotency key, 1–64 bytes.
    pub client_message_id: Option<String>,
}

/// Where a page of history lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The newest messages.
    Newest,
    /// The messages before this id.
    Before(String),
    /// The messages after this number.
    After(u64),
}

/// A room of `resume`.
pub type ResumeCursor = RoomCursor;

/// A room and the place the client has reached in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomCursor {
    /// Room.
    pub room_id: String,
    /// Reached place.
    pub position: Position,
}

/// Why a frame was refused. The connection lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// Stable code.
    pub code: Code,
    /// Names the field and the limit.
    pub message: String,
    /// `type` of the frame, empty when it had none.
    pub request_type: String,
    /// Room it named, where it did.
    pub room_id: Option<String>,
    /// Keys of the messages that are refused with it: whoever waits for one hears of it.
    /// At most 64, each of 1–64 bytes.
    pub client_message_ids: Vec<String>,
}

impl ClientFrame {
    /// Reads one text frame.
    ///
    /// # Errors
    /// `BAD_JSON`, `UNKNOWN_TYPE`, or `BAD_INPUT` with the field and its limit.
    pub fn decode(text: &[u8]) -> Result<Self, FrameError> {
        let refused = |code, why: &dyn Display| {
            FrameError::new(code, format!("frame must be {{\"type\",\"payload\"}}: {why}"))
        };
        let envelope: Envelope = serde_json::from_slice(text)
            .map_err(|error| refused(if error.is_data() { Code::BadInput } else { Code::BadJson }, &error))?;
        // The derived reader takes the fields from an array in their order too.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(refused(Code::BadInput, &"it is an array"));
        }
        let payload = Payload { frame: envelope.kind, value: envelope.payload };
        payload.decode()
    }

    /// The room it names.
    pub fn room_id(&self) -> Option<&str> {
        match self {
            Self::ClientMessages { room_id, .. }
            | Self::RequestRoomHistory { room_id, .. }
            | Self::Join { room_id, .. }
            | Self::Leave { room_id } => Some(room_id),
            Self::ClientCreateRoom { .. } | Self::Resume { .. } => None,
        }
    }

    /// Its `type` on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ClientMessages { .. } => "clientMessages",
            Self::RequestRoomHistory { .. } => "requestRoomHistory",
            Self::ClientCreateRoom { .. } => "clientCreateRoom",
            Self::Resume { .. } => "resume",
            Self::Join { .. } => "join",
            Self::Leave { .. } => "leave",
        }
    }
}

impl FrameError {
    fn new(code: Code, message: String) -> Self {
        Self { code, message, request_type: String::new(), room_id: None, client_message_ids: Vec::new() }
    }
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    payload: Value,
}

struct Payload {
    frame: String,
    value: Value,
}

impl Payload {
    fn decode(&self) -> Result<ClientFrame, FrameError> {
        match self.frame.as_str() {
            "clientMessages" => {
                Ok(ClientFrame::ClientMessages { room_id: self.room_id()?, messages: self.messages()? })
            }
            "requestRoomHistory" => Ok(ClientFrame::RequestRoomHistory {
                room_id: self.room_id()?,
                anchor: self.anchor()?,
                count: self.count()?,
            }),
            "clientCreateRoom" => Ok(ClientFrame::ClientCreateRoom { room_name: self.room_name()? }),
            "resume" => Ok(ClientFrame::Resume { rooms: self.resume_rooms()? }),
            "join" => {
                Ok(ClientFrame::Join { room_id: self.room_id()?, position: self.position(&self.value)? })
            }
            "leave" => Ok(ClientFrame::Leave { room_id: self.room_id()? }),
            other => Err(FrameError {
                request_type: other.chars().take(64).collect(),
                ..FrameError::new(Code::UnknownType, format!("unknown frame type {:?}", clip(other)))
            }),
        }
    }

    fn room_id(&self) -> Result<String, FrameError> {
        self.required_text("roomId", limits::ROOM_ID_BYTES)
    }

    fn room_name(&self) -> Result<String, FrameError> {
        let Some(name) = self.value.get("roomName").and_then(Value::as_str) else {
            return Err(self.bad("roomName must be a string"));
        };
        let (max, chars) = (limits::ROOM_NAME_CHARS, name.chars().count());
        if chars == 0 || chars > max {
            return Err(self.bad(format!("roomName must have 1 to {max} characters, has {chars}")));
        }
        Ok(name.to_owned())
    }

    fn messages(&self) -> Result<Vec<Content>, FrameError> {
        let list = match self.value.get("messages") {
            Some(Value::Array(list)) => list.as_slice(),
            Some(Value::Null) | None if self.value.get("content").is_some() => {
                // An older client puts its one message straight into the payload.
                std::slice::from_ref(&self.value)
            }
            _ => return Err(self.bad("messages must be an array")),
        };
        let max = limits::MESSAGES_PER_FRAME;
        if list.is_empty() || list.len() > max {
            return Err(self.bad(format!("messages must hold 1 to {max}, has {}", list.len())));
        }
        list.iter().enumerate().map(|(index, item)| self.content(index, item)).collect()
    }

    fn content(&self, index: usize, item: &Value) -> Result<Content, FrameError> {
        let Some(content) = item.get("content").and_then(Value::as_str) else {
            return Err(self.bad(format!("messages[{index}].content must be a string")));
        };
        let max = limits::CONTENT_BYTES;
        if content.is_empty() || content.len() > max {
            return Err(self.bad(format!(
                "messages[{index}].content must have 1 to {max} bytes, has {}",
                content.len()
            )));
        }
        let client_message_id = match item.get("clientMessageId") {
            None | Some(Value::Null) => None,
            Some(Value::String(key)) if (1..=limits::CLIENT_MESSAGE_ID_BYTES).contains(&key.len()) => {
                Some(key.clone())
            }
            Some(_) => {
                return Err(self.bad(format!(
                    "messages[{index}].clientMessageId must be a string of 1 to {} bytes",
                    limits::CLIENT_MESSAGE_ID_BYTES
                )));
            }
        };
        Ok(Content { content: content.to_owned(), client_message_id })
    }

    fn anchor(&self) -> Result<Anchor, FrameError> {
        match (self.value.get("afterSeq"), self.value.get("firstMessageId")) {
            (None | Some(Value::Null), None | Some(Value::Null)) => Ok(Anchor::Newest),
            (None | Some(Value::Null), Some(Value::String(id))) if id.is_empty() => Ok(Anchor::Newest),
            (None | Some(Value::Null), Some(Value::String(id))) => Ok(Anchor::Before(id.clone())),
            (None | Some(Value::Null), Some(_)) => Err(self.bad("firstMessageId must be a string")),
            (Some(seq), _) => self.integer("afterSeq", seq).map(Anchor::After),
        }
    }

    fn count(&self) -> Result<u32, FrameError> {
        let max = limits::HISTORY_COUNT_MAX;
        match self.value.get("count") {
            None | Some(Value::Null) => Ok(limits::HISTORY_COUNT_DEFAULT),
            Some(value) => match value.as_u64() {
                Some(count) if (1..=u64::from(max)).contains(&count) => Ok(count as u32),
                _ => Err(self.bad(format!("count must be 1 to {max}"))),
            },
        }
    }

    fn resume_rooms(&self) -> Result<Vec<RoomCursor>, FrameError> {
        let list = match self.value.get("rooms") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.bad("rooms must be an array")),
        };
        let max = limits::RESUME_ROOMS;
        if list.len() > max {
            return Err(self.bad(format!("rooms must hold at most {max}, has {}", list.len())));
        }
        list.iter()
            .map(|item| {
                let room_id = self.text_of(item, "roomId", limits::ROOM_ID_BYTES)?;
                let position = self
                    .position(item)?
                    .ok_or_else(|| self.bad("rooms[].epoch and rooms[].seq are required"))?;
                Ok(RoomCursor { room_id, position })
            })
            .collect()
    }

    fn position(&self, item: &Value) -> Result<Option<Position>, FrameError> {
        match (item.get("epoch"), item.get("seq")) {
            (None | Some(Value::Null), None | Some(Value::Null)) => Ok(None),
            (Some(epoch), Some(seq)) => {
                Ok(Some(Position { epoch: self.integer("epoch", epoch)?, seq: self.integer("seq", seq)? }))
            }
            _ => Err(self.bad("epoch and seq come together")),
        }
    }

    fn integer(&self, field: &str, value: &Value) -> Result<u64, FrameError> {
        value
            .as_u64()
            .filter(|number| *number < limits::JSON_INTEGER)
            .ok_or_else(|| self.bad(format!("{field} must be an integer from 0 below 2^53")))
    }

    fn required_text(&self, field: &str, max_bytes: usize) -> Result<String, FrameError> {
        self.text_of(&self.value, field, max_bytes)
    }

    fn text_of(&self, item: &Value, field: &str, max_bytes: usize) -> Result<String, FrameError> {
        match item.get(field).and_then(Value::as_str) {
            Some(text) if (1..=max_bytes).contains(&text.len()) => Ok(text.to_owned()),
            Some(text) => {
                Err(self.bad(format!("{field} must have 1 to {max_bytes} bytes, has {}", text.len())))
            }
            None => Err(self.bad(format!("{field} must be a string"))),
        }
    }

    fn bad(&self, message: impl Into<String>) -> FrameError {
        FrameError {
            code: Code::BadInput,
            message: message.into(),
            request_type: self.frame.clone(),
            room_id: self.value.get("roomId").and_then(Value::as_str).map(|id| clip(id).to_owned()),
            client_message_ids: self.keys(),
        }
    }

    /// The keys of its messages. None of a frame with more messages than allowed: an answer
    /// for each would be larger than the frame.
    fn keys(&self) -> Vec<String> {
        let list = match self.value.get("messages") {
            Some(Value::Array(list)) if list.len() <= limits::MESSAGES_PER_FRAME => list.as_slice(),
            _ => return Vec::new(),
        };
        let keys = list.iter().filter_map(|item| item.get("clientMessageId")?.as_str());
        let fits = |key: &&str| (1..=limits::CLIENT_MESSAGE_ID_BYTES).contains(&key.len());
        keys.filter(fits).map(str::to_owned).collect()
    }
}

/// At most 128 bytes of what a peer sent, for an answer that quotes it.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(128);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> FrameError {
        ClientFrame::decode(json.as_bytes()).expect_err(json)
    }

    #[test]
    fn limits_are_inclusive() {
        for (length, accepted) in [(0, false), (1, true), (4095, true), (4096, true), (4097, false)] {
            let json = format!(
                r#"{{"type":"clientMessages","payload":{{"roomId":"r","messages":[{{"content":"{}"}}]}}}}"#,
                "x".repeat(length)
            );
            assert_eq!(ClientFrame::decode(json.as_bytes()).is_ok(), accepted, "{length}");
        }
        for (count, accepted) in [(0, false), (1, true), (200, true), (201, false), (-1, false)] {
            let json =
                format!(r#"{{"type":"requestRoomHistory","payload":{{"roomId":"r","count":{count}}}}}"#);
            assert_eq!(ClientFrame::decode(json.as_bytes()).is_ok(), accepted, "{count}");
        }
        for (messages, accepted) in [(0, false), (64, true), (65, false)] {
            let list = vec![r#"{"content":"x"}"#; messages].join(",");
            let json =
                format!(r#"{{"type":"clientMessages","payload":{{"roomId":"r","messages":[{list}]}}}}"#);
            assert_eq!(ClientFrame::decode(json.as_bytes()).is_ok(), accepted, "{messages}");
        }
        for (length, accepted) in [(0, false), (1, true), (64, true), (65, false)] {
            let name = "\u{1F600}".repeat(length);
            let json = format!(r#"{{"type":"clientCreateRoom","payload":{{"roomName":"{name}"}}}}"#);
            assert_eq!(ClientFrame::decode(json.as_bytes()).is_ok(), accepted, "{length}");
        }
        for (length, accepted) in [(0, false), (64, true), (65, false)] {
            let key = "k".repeat(length);
            let json = format!(
                r#"{{"type":"clientMessages","payload":{{"roomId":"r","messages":[{{"content":"x","clientMessageId":"{key}"}}]}}}}"#
            );
            assert_eq!(ClientFrame::decode(json.as_bytes()).is_ok(), accepted, "{length}");
        }
    }

    #[test]
    fn errors_name_code_field_and_request() {
        assert_eq!(refused("{").code, Code::BadJson);
        for other in ["[]", "null", "7", r#""x""#, r#" ["leave",{"roomId":"r"}]"#] {
            let error = refused(other);
            assert_eq!(error.code, Code::BadInput, "{other}");
            assert!(!error.message.contains("Envelope"), "{}", error.message);
        }
        assert_eq!(refused(r#"{"payload":{}}"#).code, Code::BadInput);
        let unknown = refused(r#"{"type":"nope"}"#);
        assert_eq!((unknown.code, unknown.request_type.as_str()), (Code::UnknownType, "nope"));
        let bad = refused(r#"{"type":"join","payload":{"roomId":"r","epoch":1}}"#);
        assert_eq!(bad.room_id.as_deref(), Some("r"));
        assert!(
            refused(r#"{"type":"join","payload":{"roomId":"r","epoch":9007199254740992,"seq":0}}"#)
                .message
                .contains("epoch")
        );
        assert!(refused(r#"{"type":"clientCreateRoom"}"#).message.contains("roomName"));
        let long = format!(r#"{{"type":"clientCreateRoom","payload":{{"roomName":"{}"}}}}"#, "x".repeat(300));
        assert!(refused(&long).message.contains("1 to 64 characters"));
    }

    #[test]
    fn every_key_of_a_refused_frame_is_told() {
        let frame = |messages: &str| {
            format!(r#"{{"type":"clientMessages","payload":{{"roomId":"r","messages":[{messages}]}}}}"#)
        };
        let message = |key: usize| format!(r#"{{"content":"","clientMessageId":"{key}"}}"#);
        let mixed =
            format!(r#"{},null,{{"content":"x"}},{{"clientMessageId":7}},{}"#, message(1), message(2));
        assert_eq!(refused(&frame(&mixed)).client_message_ids, ["1", "2"]);
        let many: Vec<String> = (0..65).map(message).collect();
        assert_eq!(refused(&frame(&many.join(","))).client_message_ids, [""; 0]);
        assert_eq!(refused(&frame(&many[..64].join(","))).client_message_ids.len(), 64);
    }

    #[test]
    fn an_older_client_sends_content_in_the_payload() {
        let frame =
            ClientFrame::decode(br#"{"type":"clientMessages","payload":{"roomId":"r","content":"hi"}}"#)
                .expect("ok");
        let ClientFrame::ClientMessages { messages, .. } = frame else { panic!("{frame:?}") };
        assert_eq!(messages[0].content, "hi");
    }
}
