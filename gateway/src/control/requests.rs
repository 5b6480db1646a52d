//! What clients ask for, frame by frame and in order.
//!
//! | frame | what |
//! |---|---|
//! | `clientMessages` | [`forward`](super::forward): those that wait together travel together |
//! | `requestRoomHistory` | without anchor: a join that is answered with the page; with one: a page |
//! | `clientCreateRoom` | the key is made here; everybody hears of the room by the line of `global` |
//! | `join`, `leave`, `resume` | `corecast.v1` only |
//!
//! Every text is settled by exactly one [`Command::Reply`], whatever became of it.
//!
//! A message that is unavailable takes those of its room with it that its sender sent before
//! it could hear of it: stored now, they would come before the repeat.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use corecast_proto::close::CloseCode;
use corecast_proto::frame::{self, Anchor, ClientFrame, Content, ErrorFrame, FrameError};
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use corecast_proto::limits::MEMBERSHIPS;
use corecast_proto::logic as pb;
use corecast_proto::op;
use corecast_proto::refusal::Code;
use tokio::time::Instant;
use uuid::Uuid;

use super::hub::{JoinError, JoinReply, NumberedFrame};
use super::logic_client::LogicError;
use super::shared::Shared;
use crate::core::{Command, ConnId, Session, Wire};

/// Works on what one connection sent, until nothing waits.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) conn: ConnId,
    pub(super) session: Arc<Session>,
    pub(super) v1: bool,
}

/// A `clientMessages` frame.
pub(super) struct Post {
    pub(super) room_id: String,
    pub(super) messages: Vec<Content>,
}

/// Why a request has no answer but an error frame.
#[derive(Clone)]
pub(super) struct Refused {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) retry_after_ms: u32,
}

/// Rooms in which a message was unavailable, and with which words.
pub(super) type HeldUp = HashMap<String, Refused>;

/// A run of frames that are answered together.
enum Group {
    Posts(Vec<Post>),
    One(Result<ClientFrame, FrameError>),
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, conn: ConnId, session: Arc<Session>, v1: bool) -> Self {
        Self { shared, conn, session, v1 }
    }

    /// Ends when nothing waits; the next text starts another worker.
    pub(super) async fn run(self) {
        while let Some(texts) = self.shared.connections.take(self.conn) {
            let mut waiting = VecDeque::from(grouped(texts));
            let mut held_up = HeldUp::new();
            while let Some(group) = waiting.pop_front() {
                let known = held_up.len();
                self.answer(group, &mut held_up).await;
                if held_up.len() > known {
                    waiting.extend(grouped(self.shared.connections.take_more(self.conn)));
                }
            }
        }
    }

    async fn answer(&self, group: Group, held_up: &mut HeldUp) {
        let (frames, settled) = match group {
            Group::Posts(posts) => {
                let settled = u32::try_from(posts.len()).expect("unsettled texts are bounded");
                (self.forward(posts, held_up).await, settled)
            }
            Group::One(Ok(frame)) => (self.answer_one(frame).await.into_iter().collect(), 1),
            Group::One(Err(error)) => (self.refuse_frame(&error).await, 1),
        };
        let reply = Command::Reply { conn: self.conn, frames, settled };
        self.shared.cores.queue(self.conn.shard, reply).await;
    }

    /// The frame to answer with, where it is not the hub that answers.
    async fn answer_one(&self, frame: ClientFrame) -> Option<Wire> {
        let kind = frame.kind();
        let room_id = frame.room_id().map(str::to_owned);
        match self.serve(frame).await {
            Ok(wire) => wire,
            Err(refused) => Some(self.refuse(&refused, kind, room_id.as_deref(), None).await),
        }
    }

    async fn serve(&self, frame: ClientFrame) -> Result<Option<Wire>, Refused> {
        match frame {
            ClientFrame::RequestRoomHistory { room_id, anchor, count } => {
                self.history(room_id, anchor, count).await
            }
            ClientFrame::ClientCreateRoom { room_name } => self.create_room(room_name).await,
            ClientFrame::Join { room_id, position } if self.v1 => {
                self.join(&room_id, position, JoinReply::Joined).await.map(|()| None)
            }
            ClientFrame::Leave { room_id } if self.v1 => {
                self.shared.hub.leave(self.conn, room_id.into()).await;
                Ok(None)
            }
            ClientFrame::Resume { .. } if self.v1 => {
                Err(Refused::new(Code::Conflict, "resume must be the first frame, within 2 s, once"))
            }
            ClientFrame::Join { .. } | ClientFrame::Leave { .. } | ClientFrame::Resume { .. } => {
                Err(Refused::new(Code::UnknownType, format!("unknown frame type {:?}", frame.kind())))
            }
            ClientFrame::ClientMessages { room_id, messages } => {
                // Grouping leaves none here; one that came would be forwarded all the same.
                let posts = vec![Post { room_id, messages }];
                Ok(self.forward(posts, &mut HeldUp::new()).await.into_iter().next())
            }
        }
    }

    async fn history(&self, room_id: String, anchor: Anchor, count: u32) -> Result<Option<Wire>, Refused> {
        let mut request = pb::HistoryRequest { count, ..pb::HistoryRequest::default() };
        match anchor {
            Anchor::Newest => {
                return self.join(&room_id, None, JoinReply::History { count }).await.map(|()| None);
            }
            Anchor::Before(id) => request.first_message_id = id,
            Anchor::After(seq) => (request.has_after_seq, request.after_seq) = (true, seq),
        }
        if room_id == GLOBAL {
            return Err(Refused::unknown_room());
        }
        request.room_id = room_id;
        request.user_id = self.session.user_id().to_owned();
        let reply = self.shared.logic.history(request).await?;
        match reply.refusal {
            Some(refusal) => Err(refusal.into()),
            None => Ok(Some(Wire::text(&reply.frame))),
        }
    }

    async fn create_room(&self, room_name: String) -> Result<Option<Wire>, Refused> {
        let request = pb::CreateRoomRequest {
            room_name,
            creator_id: self.session.user_id().to_owned(),
            creator_username: self.session.username().to_owned(),
            key: generated_key(),
        };
        let reply = self.shared.logic.create_room(request).await?;
        if let Some(refusal) = reply.refusal {
            return Err(refusal.into());
        }
        if reply.name_taken {
            return Ok(Some(Wire::text(frame::create_room_taken())));
        }
        let kind = reply.kind();
        if let Some(at) = reply.global {
            // What the fast path brings too; the line takes whichever is first.
            let created = NumberedFrame {
                room_id: GLOBAL.into(),
                epoch: at.epoch,
                first: at.seq,
                count: 1,
                op: op::ROOM_CREATED,
                frame: reply.frame,
            };
            self.shared.hub.offer(vec![created]).await;
        }
        if kind == pb::RoomKind::Public {
            // The room exists whatever becomes of this: a failed join is made up for by the
            // first message or page the creator asks for there.
            let _ = self.join(&reply.room_id, None, JoinReply::Silent).await;
        }
        Ok(None)
    }

    /// Makes the connection a member where it is not one yet.
    pub(super) async fn join(
        &self,
        room_id: &str,
        position: Option<Position>,
        reply: JoinReply,
    ) -> Result<(), Refused> {
        if room_id == GLOBAL {
            return Err(Refused::unknown_room());
        }
        let room_id = RoomId::from(room_id);
        match self.shared.hub.join(self.conn, self.session.clone(), room_id, position, reply).await {
            Ok(()) => Ok(()),
            Err(JoinError::UnknownRoom) => Err(Refused::unknown_room()),
            Err(JoinError::TooMany) => {
                let message = format!("a connection may be in {MEMBERSHIPS} rooms: leave one first");
                Err(Refused::new(Code::TooMany, message))
            }
            Err(JoinError::Unavailable) => Err(LogicError::Unreachable.into()),
            Err(JoinError::Full) => {
                self.shared.close(self.conn, CloseCode::TryLater, "core is overloaded").await;
                Err(Refused::new(Code::Unavailable, "core is overloaded"))
            }
        }
    }

    /// One error frame for each message that carries a key, one without where none does.
    async fn refuse_frame(&self, error: &FrameError) -> Vec<Wire> {
        let refused = Refused::new(error.code, error.message.clone());
        let (kind, room_id) = (error.request_type.as_str(), error.room_id.as_deref());
        let mut keys = error.client_message_ids.iter().map(String::as_str);
        let mut answers = vec![self.refuse(&refused, kind, room_id, keys.next()).await];
        answers.extend(keys.map(|key| refused.wire(kind, room_id, Some(key))));
        answers
    }

    /// The error frame; a connection that has caused too many of them is closed.
    pub(super) async fn refuse(
        &self,
        refused: &Refused,
        request_type: &str,
        room_id: Option<&str>,
        client_message_id: Option<&str>,
    ) -> Wire {
        let shared = &self.shared;
        shared.metrics.refused_frames.with_label_values(&[refused.code.as_str()]).inc();
        let over = refused.is_of_the_client()
            && shared.connections.refused(self.conn, Instant::now(), shared.limits.refused_frames);
        if over {
            shared.close(self.conn, CloseCode::TooMany, "too many refused frames").await;
        }
        refused.wire(request_type, room_id, client_message_id)
    }
}

impl Refused {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code: code.as_str().to_owned(),
            message: message.into(),
            retry_after_ms: code.retry_after_ms(),
        }
    }

    fn unknown_room() -> Self {
        Self::new(Code::UnknownRoom, "no such room")
    }

    /// The same may be sent again.
    pub(super) fn is_for_now(&self) -> bool {
        self.code == Code::Unavailable.as_str()
    }

    /// Caused by what the client sent, not by a part of ours that is away.
    fn is_of_the_client(&self) -> bool {
        self.code != Code::Unavailable.as_str() && self.code != Code::Internal.as_str()
    }

    pub(super) fn wire(
        &self,
        request_type: &str,
        room_id: Option<&str>,
        client_message_id: Option<&str>,
    ) -> Wire {
        Wire::text(&frame::error(&ErrorFrame {
            code: &self.code,
            message: &self.message,
            request_type,
            room_id,
            client_message_id,
            retry_after_ms: self.retry_after_ms,
        }))
    }
}

impl From<pb::Refusal> for Refused {
    fn from(refusal: pb::Refusal) -> Self {
        Self { code: refusal.code, message: refusal.message, retry_after_ms: refusal.retry_after_ms }
    }
}

impl From<LogicError> for Refused {
    fn from(error: LogicError) -> Self {
        match error {
            LogicError::Unreachable | LogicError::Deadline => Self::new(Code::Unavailable, error.to_string()),
            // What the node said is for our log, not for a browser.
            LogicError::Refused { .. } => Self::new(Code::Internal, "the request failed on our side"),
        }
    }
}

/// A key for what the client gave none.
pub(super) fn generated_key() -> String {
    format!("g:{}", Uuid::new_v4())
}

/// Bytes of the texts of one group: it becomes one message to logic, which has a limit.
const GROUP_BYTES_MAX: usize = 1 << 20;

/// Consecutive `clientMessages` become one group; order is kept.
fn grouped(texts: impl IntoIterator<Item = Bytes>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut bytes = 0;
    for text in texts {
        match ClientFrame::decode(&text) {
            Ok(ClientFrame::ClientMessages { room_id, messages }) => {
                let post = Post { room_id, messages };
                bytes += text.len();
                match groups.last_mut() {
                    Some(Group::Posts(posts)) if bytes <= GROUP_BYTES_MAX => posts.push(post),
                    _ => {
                        bytes = text.len();
                        groups.push(Group::Posts(vec![post]));
                    }
                }
            }
            other => groups.push(Group::One(other)),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(room: &str) -> Bytes {
        format!(r#"{{"type":"clientMessages","payload":{{"roomId":"{room}","content":"hi"}}}}"#).into()
    }

    fn history(room: &str) -> Bytes {
        format!(r#"{{"type":"requestRoomHistory","payload":{{"roomId":"{room}"}}}}"#).into()
    }

    #[test]
    fn consecutive_messages_travel_together_and_nothing_overtakes() {
        let texts = [message("a"), message("b"), history("a"), "{".into(), message("a"), message("a")];
        let shape: Vec<String> = grouped(texts)
            .iter()
            .map(|group| match group {
                Group::Posts(posts) => {
                    posts.iter().map(|post| post.room_id.as_str()).collect::<Vec<_>>().join("+")
                }
                Group::One(Ok(frame)) => frame.kind().to_owned(),
                Group::One(Err(error)) => error.code.as_str().to_owned(),
            })
            .collect();
        assert_eq!(shape, ["a+b", "requestRoomHistory", "BAD_JSON", "a+a"]);
    }

    #[test]
    fn a_group_fits_one_message_to_logic() {
        let content = "x".repeat(4_096);
        let list = vec![format!(r#"{{"content":"{content}"}}"#); 15].join(",");
        let text = format!(r#"{{"type":"clientMessages","payload":{{"roomId":"a","messages":[{list}]}}}}"#);
        let per_group = GROUP_BYTES_MAX / text.len();
        let sizes: Vec<usize> = grouped(vec![Bytes::from(text); per_group + 1])
            .iter()
            .map(|group| if let Group::Posts(posts) = group { posts.len() } else { 0 })
            .collect();
        assert_eq!(sizes, [per_group, 1]);
    }

    #[test]
    fn an_outage_is_not_counted_against_the_client() {
        assert!(!Refused::from(LogicError::Unreachable).is_of_the_client());
        assert!(!Refused::from(LogicError::Deadline).is_of_the_client());
        assert!(Refused::unknown_room().is_of_the_client());
    }

    #[test]
    fn logic_away_is_unavailable_with_a_time_to_come_back() {
        let wire =
            Refused::from(LogicError::Unreachable).wire("clientMessages", Some("room-001"), Some("k1"));
        let expected = Wire::text(
            br#"{"type":"error","payload":{"code":"UNAVAILABLE","message":"logic cannot be reached","requestType":"clientMessages","roomId":"room-001","clientMessageId":"k1","retryAfterMs":1000}}"#,
        );
        assert_eq!(wire, expected);
    }
}
