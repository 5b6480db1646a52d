//! From committed frames to outbox rows. Pure; every store writes the same rows.
//!
//! One row carries one `serverMessages` frame. Frames of a room that are committed together
//! share a row as long as it stays within [`OUTBOX_FRAME_BYTES`]; a client frame is never
//! split, so one that is larger alone gets a row of its own.
//!
//! ```text
//! client frames of room r     [1 2 3] [4] [5 6]      [7 … 20]
//! outbox rows                 └─ first 1, count 6 ─┘ └─ first 7, count 14 ─┘
//! ```

use bytes::Bytes;
use corecast_proto::frame;
use corecast_proto::ids::{MessageId, RoomId};
use corecast_proto::job::{PushMsg, push_msg::Type};
use corecast_proto::limits::OUTBOX_FRAME_BYTES;
use corecast_proto::op;
use prost::Message as _;

use super::OutboxRecord;

/// A row that is complete, and the frame of the batch it is reported with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FinishedRow {
    /// Index of the last client frame it covers.
    pub(crate) frame: usize,
    pub(crate) record: OutboxRecord,
}

/// Builds the rows of one room of a batch.
#[derive(Debug)]
pub(crate) struct RowBuilder {
    room_id: RoomId,
    epoch: u64,
    /// Bytes of a frame without messages.
    empty_bytes: usize,
    open: Option<OpenRow>,
    finished: Vec<FinishedRow>,
}

#[derive(Debug)]
struct OpenRow {
    owner: String,
    first_seq: u64,
    count: u32,
    frame: usize,
    /// `[` and the messages so far, separated by commas.
    json: Vec<u8>,
}

/// The new messages of one client frame, encoded.
#[derive(Debug, Default)]
pub(crate) struct NewMessages {
    first_seq: u64,
    count: u32,
    json: Vec<u8>,
}

impl NewMessages {
    /// Adds the next message; its number follows that of the one before.
    pub(crate) fn push(&mut self, id: MessageId, user_id: &str, username: &str, content: &str) {
        if self.count == 0 {
            self.first_seq = id.seq;
        } else {
            self.json.push(b',');
        }
        self.count += 1;
        let text = id.to_string();
        frame::message(
            &mut self.json,
            &frame::Message { id: &text, content, timestamp: id.ms, user_id, username, seq: id.seq },
        );
    }
}

impl RowBuilder {
    pub(crate) fn new(room_id: RoomId, epoch: u64) -> Self {
        let empty_bytes = frame::server_messages(room_id.as_str(), b"[]").len();
        Self { room_id, epoch, empty_bytes, open: None, finished: Vec::new() }
    }

    /// Adds what is new of client frame number `frame`; a frame of repeats only adds nothing.
    pub(crate) fn push(&mut self, frame: usize, owner: &str, new: NewMessages) {
        if new.count == 0 {
            return;
        }
        let fits = self.open.as_ref().is_some_and(|row| {
            // The row's `[` pairs with the `]` counted in the empty frame; `,` joins the two.
            let bytes = self.empty_bytes + row.json.len() + new.json.len();
            row.owner == owner && bytes <= OUTBOX_FRAME_BYTES
        });
        if !fits {
            self.close();
        }
        match &mut self.open {
            Some(row) => {
                row.json.push(b',');
                row.json.extend_from_slice(&new.json);
                row.count += new.count;
                row.frame = frame;
            }
            None => {
                let mut json = Vec::with_capacity(new.json.len() + 2);
                json.push(b'[');
                json.extend_from_slice(&new.json);
                self.open = Some(OpenRow {
                    owner: owner.to_owned(),
                    first_seq: new.first_seq,
                    count: new.count,
                    frame,
                    json,
                });
            }
        }
    }

    /// All rows, by number.
    pub(crate) fn finish(mut self) -> Vec<FinishedRow> {
        self.close();
        self.finished
    }

    fn close(&mut self) {
        let Some(mut row) = self.open.take() else { return };
        row.json.push(b']');
        let push = PushMsg {
            r#type: Type::Room.into(),
            operation: op::ROOM_MESSAGE,
            room: self.room_id.as_str().to_owned(),
            msg: frame::server_messages(self.room_id.as_str(), &row.json).into(),
            epoch: i64::try_from(self.epoch).expect("epochs stay below 2^53"),
            first_seq: i64::try_from(row.first_seq).expect("numbers stay below 2^63"),
            count: i32::try_from(row.count).expect("a frame of 64 KiB holds few messages"),
            ..PushMsg::default()
        };
        let value = Bytes::from(push.encode_to_vec());
        let record = OutboxRecord { room_id: self.room_id.clone(), owner: row.owner, value };
        self.finished.push(FinishedRow { frame: row.frame, record });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(first_seq: u64, contents: &[&str]) -> NewMessages {
        let mut new = NewMessages::default();
        for (seq, content) in (first_seq..).zip(contents) {
            new.push(MessageId { ms: 1_000, seq }, "u", "ann", content);
        }
        new
    }

    fn decoded(row: &FinishedRow) -> PushMsg {
        PushMsg::decode(&row.record.value[..]).expect("own encoding")
    }

    /// A content that makes the frame of room `r` with the one message `seq` this long.
    fn content_for(frame_bytes: usize, seq: u64) -> String {
        let mut rows = RowBuilder::new(RoomId::from("r"), 1);
        rows.push(0, "o", messages(seq, &[""]));
        let empty = decoded(&rows.finish()[0]).msg.len();
        "x".repeat(frame_bytes - empty)
    }

    #[test]
    fn frames_share_a_row_and_the_last_one_reports_it() {
        let mut rows = RowBuilder::new(RoomId::from("r"), 7);
        rows.push(0, "o", messages(5, &["a", "b"]));
        rows.push(3, "o", messages(7, &["c"]));
        let rows = rows.finish();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].frame, 3);
        let push = decoded(&rows[0]);
        assert_eq!((push.epoch, push.first_seq, push.count), (7, 5, 3));
        assert_eq!((push.operation, push.r#type()), (op::ROOM_MESSAGE, Type::Room));
        let json: serde_json::Value = serde_json::from_slice(&push.msg).expect("JSON");
        let seqs: Vec<_> = json["payload"]["messages"]
            .as_array()
            .expect("array")
            .iter()
            .map(|m| m["seq"].as_u64().expect("number"))
            .collect();
        assert_eq!(seqs, [5, 6, 7]);
    }

    #[test]
    fn a_row_is_filled_to_the_last_byte_and_not_beyond() {
        for (over, rows_expected) in [(0, 1), (1, 2)] {
            let first = messages(1, &["a"]);
            let base = {
                let mut rows = RowBuilder::new(RoomId::from("r"), 1);
                rows.push(0, "o", messages(1, &["a"]));
                rows.push(1, "o", messages(2, &[""]));
                decoded(&rows.finish()[0]).msg.len()
            };
            let content = "x".repeat(OUTBOX_FRAME_BYTES - base + over);
            let mut rows = RowBuilder::new(RoomId::from("r"), 1);
            rows.push(0, "o", first);
            rows.push(1, "o", messages(2, &[&content]));
            let rows = rows.finish();
            assert_eq!(rows.len(), rows_expected, "{over} bytes over");
            assert!(rows.iter().all(|row| decoded(row).msg.len() <= OUTBOX_FRAME_BYTES));
        }
    }

    #[test]
    fn a_client_frame_larger_than_a_row_is_not_split() {
        let big = content_for(OUTBOX_FRAME_BYTES + 1, 2);
        let mut rows = RowBuilder::new(RoomId::from("r"), 1);
        rows.push(0, "o", messages(1, &["a"]));
        rows.push(1, "o", messages(2, &[&big]));
        rows.push(2, "o", messages(3, &["b"]));
        let rows = rows.finish();
        let places: Vec<_> = rows.iter().map(|row| (decoded(row).first_seq, decoded(row).count)).collect();
        assert_eq!(places, [(1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn a_frame_of_repeats_makes_no_row() {
        let mut rows = RowBuilder::new(RoomId::from("r"), 1);
        rows.push(0, "o", NewMessages::default());
        assert_eq!(rows.finish(), []);
    }

    #[test]
    fn another_owner_gets_another_row() {
        let mut rows = RowBuilder::new(RoomId::from("r"), 1);
        rows.push(0, "one", messages(1, &["a"]));
        rows.push(1, "two", messages(2, &["b"]));
        let owners: Vec<_> = rows.finish().into_iter().map(|row| row.record.owner).collect();
        assert_eq!(owners, ["one", "two"]);
    }
}
