//! `clientMessages` to logic, and the answers back: an `ack` to `corecast.v1` for messages
//! that carry a key, an error frame for what was not stored.
//!
//! The keys make a repeat harmless: the client tries further after a lost answer, where
//! [`LogicClient::send`](super::logic_client::LogicClient::send) gives up.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use corecast_proto::frame::{self, Content};
use corecast_proto::logic as pb;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::hub::JoinReply;
use super::metrics::Forwards;
use super::requests::{HeldUp, Post, Refused, Worker, generated_key};
use crate::core::Wire;

/// Time between two log lines that sum up forwards.
const SUMMARY: Duration = Duration::from_secs(1);

/// Forwards since the last log line: one line a second, however many messages.
#[derive(Default)]
pub(super) struct ForwardLog {
    last: Mutex<Option<(Instant, u64, u64)>>,
}

impl Worker {
    /// Forwards frames and answers with what the client gets for them, in order. Those of
    /// rooms that are held up are refused with the same words, and rooms become held up.
    pub(super) async fn forward(&self, posts: Vec<Post>, held_up: &mut HeldUp) -> Vec<Wire> {
        let started = Instant::now();
        let mut membership: HashMap<&str, Option<Refused>> = HashMap::new();
        for post in &posts {
            if !membership.contains_key(post.room_id.as_str()) {
                let refused = match held_up.get(&post.room_id) {
                    Some(refused) => Some(refused.clone()),
                    None => self.join(&post.room_id, None, JoinReply::Silent).await.err(),
                };
                membership.insert(&post.room_id, refused);
            }
        }
        let admitted = |post: &&Post| membership[post.room_id.as_str()].is_none();
        let frames: Vec<_> = posts.iter().filter(admitted).map(|post| self.client_frame(post)).collect();
        let mut results = self.stored(frames).await.into_iter();
        let mut answers = Vec::new();
        for post in &posts {
            let result = match &membership[post.room_id.as_str()] {
                Some(refused) => Err(refused.clone()),
                None => results.next().expect("one result for each admitted frame"),
            };
            match result {
                Ok(stored) => answers.extend(self.ack(post, &stored)),
                Err(refused) => {
                    self.refuse_post(post, &refused, &mut answers).await;
                    if refused.is_for_now() && !held_up.contains_key(&post.room_id) {
                        held_up.insert(post.room_id.clone(), refused);
                    }
                }
            }
        }
        self.shared.metrics.forward_seconds.observe(started.elapsed().as_secs_f64());
        self.shared.forward_log.note(&self.shared.metrics.forwards, Instant::now());
        answers
    }

    fn client_frame(&self, post: &Post) -> pb::ClientFrame {
        pb::ClientFrame {
            room_id: post.room_id.clone(),
            user_id: self.session.user_id().to_owned(),
            username: self.session.username().to_owned(),
            messages: post.messages.iter().map(new_message).collect(),
        }
    }

    /// One result for each frame, in order.
    async fn stored(&self, frames: Vec<pb::ClientFrame>) -> Vec<Result<Vec<pb::StoredMessage>, Refused>> {
        if frames.is_empty() {
            return Vec::new();
        }
        let asked: Vec<usize> = frames.iter().map(|frame| frame.messages.len()).collect();
        let reply = match self.shared.logic.send(pb::SendRequest { frames }).await {
            Ok(reply) => reply,
            Err(error) => {
                warn!(call = "logic_forward", path = "/logic/send", frames = asked.len(), %error, "forward failed");
                return asked.iter().map(|_| Err(Refused::from(error.clone()))).collect();
            }
        };
        debug!(call = "logic_forward", path = "/logic/send", frames = asked.len(), "forwarded");
        let mut results = reply.results.into_iter();
        asked.iter().map(|messages| outcome(results.next(), *messages)).collect()
    }

    fn ack(&self, post: &Post, stored: &[pb::StoredMessage]) -> Option<Wire> {
        self.shared.metrics.forwards.count(true);
        let keyed: Vec<_> = post
            .messages
            .iter()
            .zip(stored)
            .filter_map(|(message, stored)| Some((message.client_message_id.as_deref()?, stored)))
            .map(|(key, stored)| (key, stored.id.as_str(), stored.seq, stored.timestamp))
            .collect();
        (self.v1 && !keyed.is_empty()).then(|| Wire::text(&frame::ack(&post.room_id, keyed)))
    }

    /// One error frame for each message that carries a key, one without where none does:
    /// whoever waits for a message by its key hears of it.
    async fn refuse_post(&self, post: &Post, refused: &Refused, answers: &mut Vec<Wire>) {
        self.shared.metrics.forwards.count(false);
        let mut keys = post.messages.iter().filter_map(|message| message.client_message_id.as_deref());
        let (kind, room_id) = ("clientMessages", Some(post.room_id.as_str()));
        // Counted once: it was one frame that was refused.
        answers.push(self.refuse(refused, kind, room_id, keys.next()).await);
        answers.extend(keys.map(|key| refused.wire(kind, room_id, Some(key))));
    }
}

impl ForwardLog {
    /// Writes a line if the last one is a second ago and something was forwarded since.
    fn note(&self, forwards: &Forwards, now: Instant) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (stored, failed) = forwards.totals();
        let (stored_before, failed_before) = match *last {
            Some((at, _, _)) if now < at + SUMMARY => return,
            Some((_, stored, failed)) => (stored, failed),
            None => (0, 0),
        };
        *last = Some((now, stored, failed));
        drop(last);
        let (stored, failed) = (stored - stored_before, failed - failed_before);
        info!(call = "logic_forward", path = "/logic/send", stored, failed, "forwards since the last line");
    }
}

fn new_message(message: &Content) -> pb::NewMessage {
    let key = match &message.client_message_id {
        Some(key) => format!("c:{key}"),
        None => generated_key(),
    };
    pb::NewMessage { content: message.content.clone(), key }
}

/// A result that does not match its frame is a defect of logic: the outcome is unknown.
fn outcome(result: Option<pb::FrameResult>, messages: usize) -> Result<Vec<pb::StoredMessage>, Refused> {
    match result {
        Some(pb::FrameResult { refusal: Some(refusal), .. }) => Err(refusal.into()),
        Some(result) if result.messages.len() == messages => Ok(result.messages),
        _ => {
            Err(Refused::new(corecast_proto::refusal::Code::Internal, "logic gave no answer for this frame"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_keys_and_generated_keys_never_meet() {
        let with = Content { content: "a".into(), client_message_id: Some("g:1".into()) };
        let without = Content { content: "a".into(), client_message_id: None };
        assert_eq!(new_message(&with).key, "c:g:1");
        assert!(new_message(&without).key.starts_with("g:"));
        assert_ne!(new_message(&without).key, new_message(&without).key);
    }

    #[test]
    fn a_missing_or_short_result_is_an_error_of_ours() {
        let stored = |count| pb::FrameResult {
            messages: vec![pb::StoredMessage::default(); count],
            ..pb::FrameResult::default()
        };
        assert!(outcome(Some(stored(2)), 2).is_ok());
        for result in [None, Some(stored(1)), Some(stored(3))] {
            assert_eq!(outcome(result, 2).err().map(|refused| refused.code).as_deref(), Some("INTERNAL"));
        }
    }
}
