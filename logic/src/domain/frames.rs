//! Rows to browser frames. Messages are encoded once into one buffer; every cut to size is
//! arithmetic on where each one ends.

use std::ops::Range;

use bytes::Bytes;
use corecast_backends::store::{Message, Room};
use corecast_proto::frame;

use super::room::kind_name;

/// Messages of a room as JSON objects, oldest first.
pub struct Encoded {
    json: Vec<u8>,
    ends: Vec<usize>,
}

impl Encoded {
    /// Encodes them all.
    pub fn of(messages: &[Message]) -> Self {
        let mut json = Vec::with_capacity(messages.iter().map(|m| m.content.len() + 192).sum());
        let mut ends = Vec::with_capacity(messages.len());
        for m in messages {
            let id = m.id.to_string();
            let message = frame::Message {
                id: &id,
                content: &m.content,
                timestamp: m.id.ms,
                user_id: &m.user_id,
                username: &m.username,
                seq: m.id.seq,
            };
            frame::message(&mut json, &message);
            ends.push(json.len());
        }
        Self { json, ends }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of [`array`](Self::array) of the same range.
    pub fn array_bytes(&self, range: Range<usize>) -> usize {
        if range.is_empty() {
            return 2;
        }
        let objects = self.ends[range.end - 1] - self.start(range.start);
        objects + (range.len() - 1) + 2
    }

    /// These messages as a JSON array.
    pub fn array(&self, range: Range<usize>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.array_bytes(range.clone()));
        frame::array(&mut out, range, |out, index| {
            out.extend_from_slice(&self.json[self.start(index)..self.ends[index]]);
        });
        out
    }

    /// The first of the newest messages whose array has at most `bytes_max`; `len()` when not
    /// even one fits.
    pub fn newest_within(&self, bytes_max: usize) -> usize {
        let mut start = self.len();
        while start > 0 && self.array_bytes(start - 1..self.len()) <= bytes_max {
            start -= 1;
        }
        start
    }

    /// One past the last of the messages from `from` on whose array has at most `bytes_max`;
    /// `from` when not even one fits.
    pub fn oldest_within(&self, from: usize, bytes_max: usize) -> usize {
        let mut end = from;
        while end < self.len() && self.array_bytes(from..end + 1) <= bytes_max {
            end += 1;
        }
        end
    }

    fn start(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] }
    }
}

/// The `serverCreateRoom` frame of a room that now exists.
pub fn room_created(room: &Room) -> Bytes {
    frame::room_created(
        room.id.as_str(),
        &room.name,
        &room.creator_id,
        &room.creator_username,
        kind_name(room.kind),
        room.head.epoch,
    )
    .into()
}

#[cfg(test)]
mod tests {
    use corecast_proto::ids::MessageId;

    use super::*;

    fn messages_of(count: u64) -> Vec<Message> {
        (1..=count)
            .map(|seq| Message {
                id: MessageId { ms: 1_690_000_000_000, seq },
                user_id: "7".into(),
                username: "ann".into(),
                content: "x".repeat(seq as usize),
            })
            .collect()
    }

    #[test]
    fn an_array_has_exactly_the_bytes_it_is_said_to_have() {
        let encoded = Encoded::of(&messages_of(9));
        for start in 0..=9 {
            for end in start..=9 {
                assert_eq!(encoded.array(start..end).len(), encoded.array_bytes(start..end));
            }
        }
        assert_eq!(encoded.array(4..4), b"[]");
    }

    #[test]
    fn a_cut_takes_as_many_as_fit_and_not_one_more() {
        let encoded = Encoded::of(&messages_of(9));
        for bytes_max in 0..=encoded.array_bytes(0..9) + 1 {
            let start = encoded.newest_within(bytes_max);
            assert!(start == 9 || encoded.array_bytes(start..9) <= bytes_max);
            assert!(start == 0 || encoded.array_bytes(start - 1..9) > bytes_max);
            let end = encoded.oldest_within(2, bytes_max);
            assert!(end == 2 || encoded.array_bytes(2..end) <= bytes_max);
            assert!(end == 9 || encoded.array_bytes(2..end + 1) > bytes_max);
        }
    }

    #[test]
    fn an_encoded_array_is_json_with_every_field() {
        let encoded = Encoded::of(&messages_of(2));
        let json: serde_json::Value = serde_json::from_slice(&encoded.array(0..2)).unwrap();
        assert_eq!(json[1]["id"], "1690000000000-2");
        assert_eq!(json[1]["content"], "xx");
        assert_eq!(json[1]["timestamp"], 1_690_000_000_000i64);
        assert_eq!(json[1]["user"]["username"], "ann");
        assert_eq!(json[1]["seq"], 2);
    }
}
