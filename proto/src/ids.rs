//! Ids and positions.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The reserved room that numbers room creations. In no hello; a client that names it
/// names an unknown room.
pub const GLOBAL: &str = "global";

/// A room id. Cheap to clone: every shard, line and membership shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RoomId(Arc<str>);

impl RoomId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is it the reserved line of room creations?
    pub fn is_global(&self) -> bool {
        &*self.0 == GLOBAL
    }
}

impl From<&str> for RoomId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for RoomId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Borrow<str> for RoomId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place on the number line of a room. Epochs are ordered: within one, `seq` runs
/// 1, 2, 3 … without gaps; a higher epoch voids what a client holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Generation of the line, below 2^53.
    pub epoch: u64,
    /// Number of the last message at or before this place; 0 before the first.
    pub seq: u64,
}

/// `<ms>-<seq>`: unique within its room, never running backwards. Order compares `seq` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    /// Milliseconds since 1970 UTC, the message's timestamp.
    pub ms: i64,
    /// Number in the room, from 1.
    pub seq: u64,
}

impl MessageId {
    /// Reads `<ms>-<seq>`: two decimal numbers without sign or leading zero.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        let canonical = |digits: &str| {
            digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'))
        };
        if !canonical(ms) || !canonical(seq) {
            return None;
        }
        let id = Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? };
        (id.seq > 0).then_some(id)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_id_round_trips() {
        let id = MessageId { ms: 1_690_000_000_000, seq: 7 };
        assert_eq!(MessageId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn text_that_is_not_a_message_id_is_refused() {
        for text in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "1-0",
            "01-1",
            "1-01",
            "+1-1",
            "1--1",
            "1-1 ",
            "a-1",
            "99999999999999999999-1",
        ] {
            assert_eq!(MessageId::parse(text), None, "{text:?}");
        }
    }
}
