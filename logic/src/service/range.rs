//! What a gateway missed: the frames of a room between two numbers, from the primary.

use bytes::Bytes;
use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{Message, Store};
use corecast_proto::frame;
use corecast_proto::ids::GLOBAL;
use corecast_proto::limits;
use corecast_proto::logic::{Frame, RangeReply, RangeRequest};

use super::Service;
use crate::domain::frames::{self, Encoded};
use crate::domain::page;
use crate::error::Failure;

/// Bytes of frames in one answer unless the caller says otherwise, and at most.
const ANSWER_BYTES: usize = 1 << 20;
const ANSWER_BYTES_MAX: usize = 3 << 20;
/// Room creations in one answer.
const CREATIONS_MAX: u32 = 1024;
/// What a frame takes beside its messages, for a room id whose every byte is escaped.
const ENVELOPE_BYTES: usize = 6 * limits::ROOM_ID_BYTES + 64;

// One message of the worst kind fits a frame.
const _: () = assert!(6 * limits::CONTENT_BYTES + 1024 + ENVELOPE_BYTES <= limits::OUTBOX_FRAME_BYTES);

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Frames that cover the numbers after `after_seq` up to `up_to_seq` (0: the head)
    /// without a hole, as many as fit, at least one where there is any. They hold the same
    /// messages as the frames sent at first, not the same cuts between them.
    ///
    /// # Errors
    /// Unavailable. An unknown room is an answer, not an error.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeReply, Failure> {
        let up_to = if request.up_to_seq == 0 { u64::MAX } else { request.up_to_seq };
        let bytes_max = match request.max_bytes as usize {
            0 => ANSWER_BYTES,
            bytes => bytes.min(ANSWER_BYTES_MAX),
        };
        if request.room_id == GLOBAL {
            return self.creations(request.after_seq, up_to, bytes_max).await;
        }
        let read = self.store.messages_after(
            &request.room_id,
            request.after_seq,
            up_to,
            limits::GAP_MESSAGES as u32,
            bytes_max,
        );
        let Some(found) = self.ask(read).await? else {
            return Ok(RangeReply::default());
        };
        if !page::follows(&found.messages, request.after_seq) {
            return Err(Failure::Unavailable("the store answered a range with a hole"));
        }
        Ok(RangeReply {
            found: true,
            epoch: found.head.epoch,
            last_seq: found.head.seq,
            frames: message_frames(&request.room_id, &found.messages, bytes_max),
        })
    }

    async fn creations(&self, after: u64, up_to: u64, bytes_max: usize) -> Result<RangeReply, Failure> {
        let (head, rooms) = self.ask(self.store.creations_after(after, up_to, CREATIONS_MAX)).await?;
        let mut frames = Vec::with_capacity(rooms.len());
        let mut bytes = 0;
        for (room, seq) in rooms.iter().zip(after + 1..) {
            if room.global_seq != Some(seq) {
                return Err(Failure::Unavailable("the store answered a range with a hole"));
            }
            let frame = frames::room_created(room);
            bytes += frame.len();
            if bytes > bytes_max && !frames.is_empty() {
                break;
            }
            frames.push(Frame { first_seq: seq, count: 1, frame });
        }
        Ok(RangeReply { found: true, epoch: head.epoch, last_seq: head.seq, frames })
    }
}

fn message_frames(room_id: &str, messages: &[Message], bytes_max: usize) -> Vec<Frame> {
    let encoded = Encoded::of(messages);
    let mut frames: Vec<Frame> = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    while start < encoded.len() {
        // At least one message a frame: a frame without any would never end.
        let end = encoded.oldest_within(start, limits::OUTBOX_FRAME_BYTES - ENVELOPE_BYTES).max(start + 1);
        let frame = frame::server_messages(room_id, &encoded.array(start..end));
        bytes += frame.len();
        if bytes > bytes_max && !frames.is_empty() {
            break;
        }
        frames.push(Frame {
            first_seq: messages[start].id.seq,
            count: (end - start) as u32,
            frame: Bytes::from(frame),
        });
        start = end;
    }
    frames
}
