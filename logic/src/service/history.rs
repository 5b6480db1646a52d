//! Pages of history: from the hot set where it has them, else from the store and back into
//! the hot set, one rebuild at a time.
//!
//! The head is read from the primary first. It is one row, and it tells what a cached page
//! must reach: a list that missed an append, or is of another epoch, is never believed.

use std::time::Duration;

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{Message, Store};
use corecast_proto::frame;
use corecast_proto::ids::{MessageId, Position, RoomId};
use corecast_proto::limits;
use corecast_proto::logic::{HistoryReply, HistoryRequest, Refusal};
use corecast_proto::refusal::Code;

use super::Service;
use crate::domain::frames::Encoded;
use crate::domain::{page, room};
use crate::error::Failure;
use crate::metrics::Source;

/// Messages that a rebuild puts into the hot set: a full page, with its anchor.
const REBUILD_MESSAGES: u32 = limits::HISTORY_COUNT_MAX + 1;
/// A rebuild is one read and one write; another may try when it has not ended by then.
const REBUILD_TTL: Duration = Duration::from_secs(10);
/// What the frame takes beside its messages: a room id whose every byte is escaped, and names.
const FRAME_BYTES: usize = 1024;

const _: () = assert!(6 * limits::ROOM_ID_BYTES + 128 <= FRAME_BYTES);

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// A page: the newest messages, those before a message, or those after a number; oldest
    /// first, at most 1 MiB.
    ///
    /// # Errors
    /// `UNKNOWN_ROOM`, `UNKNOWN_MESSAGE` for an anchor that is not an id of this room,
    /// `UNKNOWN_USER`, `BAD_INPUT`; unavailable.
    ///
    /// # Cancel safety
    /// A read; a rebuild of the cache may be left to the next reader.
    pub async fn history(&self, request: HistoryRequest) -> Result<HistoryReply, Failure> {
        room::check_room_id(&request.room_id)?;
        let count = page_count(request.count)?;
        if !request.user_id.is_empty() {
            self.username(&request.user_id).await?;
        }
        let room_id = RoomId::from(request.room_id);
        let frame = if request.has_after_seq {
            self.page_after(&room_id, request.after_seq, count).await?
        } else {
            self.page_before(&room_id, &request.first_message_id, count).await?
        };
        Ok(HistoryReply { refusal: None, frame: frame.into() })
    }

    async fn page_after(&self, room_id: &RoomId, after: u64, count: u32) -> Result<Vec<u8>, Failure> {
        if !self.kind(room_id.as_str()).await?.is_some_and(room::is_open) {
            return Err(room::unknown().into());
        }
        let read = self.store.messages_after(room_id.as_str(), after, u64::MAX, count, limits::REPLY_BYTES);
        let Some(found) = self.ask(read).await? else {
            return Err(room::unknown().into());
        };
        if !page::follows(&found.messages, after) {
            return Err(Failure::Unavailable("the store answered a page with a hole"));
        }
        self.metrics.history_page(Source::Store);
        let encoded = Encoded::of(&found.messages);
        let end = encoded.oldest_within(0, limits::REPLY_BYTES - FRAME_BYTES);
        let reached = if end == 0 { after } else { found.messages[end - 1].id.seq };
        let has_more = reached < found.head.seq;
        Ok(frame::room_history(room_id.as_str(), "", has_more, &encoded.array(0..end), found.head.epoch))
    }

    async fn page_before(&self, room_id: &RoomId, anchor: &str, count: u32) -> Result<Vec<u8>, Failure> {
        let head = self.head_of_open_room(room_id).await?;
        let anchor = match anchor {
            "" => None,
            text => {
                Some(MessageId::parse(text).filter(|id| id.seq <= head.seq).ok_or_else(not_of_this_room)?)
            }
        };
        // The anchor itself is read too: only equal to the stored id it is an anchor.
        let (before, wanted) = match anchor {
            Some(id) => (id.seq + 1, count + 1),
            None => (head.seq + 1, count),
        };
        let mut messages = self.messages_before(room_id, head, before, wanted).await?;
        if let Some(anchor) = anchor {
            let stored = messages.pop();
            if stored.is_none_or(|stored| stored.id != anchor) {
                return Err(not_of_this_room().into());
            }
        }
        let encoded = Encoded::of(&messages);
        let start = encoded.newest_within(limits::REPLY_BYTES - FRAME_BYTES);
        let has_more = messages.get(start).is_some_and(|first| first.id.seq > 1);
        let array = encoded.array(start..encoded.len());
        Ok(frame::room_history(room_id.as_str(), "", has_more, &array, head.epoch))
    }

    /// The head on the primary. Rooms that do not exist are remembered for a moment, so that
    /// asking for one again and again costs the store nothing.
    async fn head_of_open_room(&self, room_id: &RoomId) -> Result<Position, Failure> {
        if self.hot(self.hotset.is_unknown_room(room_id.as_str())).await == Some(true) {
            return Err(room::unknown().into());
        }
        let heads = self.ask(self.store.heads(std::slice::from_ref(room_id), false)).await?;
        let Some(head) = heads.into_iter().find(|head| head.room_id == *room_id) else {
            self.hot(self.hotset.mark_unknown_room(room_id.as_str())).await;
            return Err(room::unknown().into());
        };
        if !room::is_open(head.kind) {
            return Err(room::unknown().into());
        }
        Ok(head.position)
    }

    /// At most `count` messages before number `before`, which is at most one above the head.
    async fn messages_before(
        &self,
        room_id: &RoomId,
        head: Position,
        before: u64,
        count: u32,
    ) -> Result<Vec<Message>, Failure> {
        if before <= 1 {
            return Ok(Vec::new());
        }
        let cached = self.hot(self.hotset.history(room_id, head.epoch, before, count)).await.flatten();
        if let Some((_, messages)) = cached
            && page::is_complete(&messages, before, count)
        {
            self.metrics.history_page(Source::Cache);
            return Ok(messages);
        }
        // Only a page that should have been cached, the newest one, is worth a rebuild. The
        // rebuild reads more than the page, so one read serves both.
        let rebuilds = before == head.seq + 1
            && self.hot(self.hotset.begin_rebuild(room_id, REBUILD_TTL)).await == Some(true);
        let read_count = if rebuilds { count.max(REBUILD_MESSAGES) } else { count };
        let read = self.store.messages_before(room_id.as_str(), before, read_count);
        let Some(found) = self.ask(read).await? else {
            return Err(room::unknown().into());
        };
        if !page::is_complete(&found.messages, before, read_count) {
            return Err(Failure::Unavailable("the store answered a page with a hole"));
        }
        self.metrics.history_page(Source::Store);
        let mut messages = found.messages;
        if rebuilds && found.head.epoch == head.epoch {
            self.hot(self.hotset.rebuild_history(room_id, head, &messages)).await;
        }
        let surplus = messages.len().saturating_sub(count as usize);
        messages.drain(..surplus);
        Ok(messages)
    }
}

fn page_count(count: u32) -> Result<u32, Refusal> {
    let max = limits::HISTORY_COUNT_MAX;
    match count {
        0 => Ok(limits::HISTORY_COUNT_DEFAULT),
        count if count <= max => Ok(count),
        _ => Err(Code::BadInput.with(format!("count must be 1 to {max}"))),
    }
}

fn not_of_this_room() -> Refusal {
    Code::UnknownMessage.with("firstMessageId is not the id of a message of this room")
}
