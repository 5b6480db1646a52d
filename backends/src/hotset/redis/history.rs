//! Recent messages of a room as a stream whose ids are the numbers.

use corecast_proto::ids::{MessageId, Position, RoomId};
use redis::{Cmd, FromRedisValue, Value};

use super::{HISTORY, HISTORY_MESSAGES, RedisHotSet, spread};
use crate::hotset::HotSetError;
use crate::store::Message;

impl RedisHotSet {
    pub(super) async fn page(
        &self,
        room_id: &RoomId,
        epoch: u64,
        before: u64,
        count: u32,
    ) -> Result<Option<(u64, Vec<Message>)>, HotSetError> {
        let key = self.history_key(room_id, epoch);
        let last = match before {
            u64::MAX => "+".to_owned(),
            // Without the part after the dash it means every entry of that number.
            before => before.saturating_sub(1).to_string(),
        };
        let run = self.shared.nodes.run(&key, &self.shared.scripts.page, |command| {
            command.arg(1).arg(&key).arg(&last).arg(count.max(1));
        });
        let answer = self.noted(run.await)?;
        // What cannot be read was not written by this version.
        Ok(page(answer.value).and_then(|(top, messages)| complete(top, messages, before, count)))
    }

    pub(super) async fn append(
        &self,
        room_id: &RoomId,
        epoch: u64,
        messages: &[Message],
    ) -> Result<(), HotSetError> {
        let Some(first) = messages.first().map(|message| message.id.seq) else { return Ok(()) };
        if !numbered_from(first, messages) {
            // Not what the room's line can hold: the list would lie.
            let key = self.history_key(room_id, epoch);
            return self.call(&key, redis::cmd("DEL").arg(&key)).await;
        }
        let (key, ttl) = (self.history_key(room_id, epoch), spread(HISTORY));
        let run = self.shared.nodes.run(&key, &self.shared.scripts.append, |command| {
            command.arg(1).arg(&key).arg(first).arg(HISTORY_MESSAGES).arg(ttl);
            messages.iter().for_each(|message| add(command, message));
        });
        self.noted(run.await).map(drop)
    }

    pub(super) async fn rebuild(
        &self,
        room_id: &RoomId,
        head: Position,
        messages: &[Message],
    ) -> Result<(), HotSetError> {
        let reaches = (head.seq + 1).checked_sub(messages.len() as u64);
        let fits = reaches.is_some_and(|first| numbered_from(first, messages));
        let messages = if fits { messages } else { &[] };
        let messages = &messages[messages.len().saturating_sub(HISTORY_MESSAGES)..];
        let first = head.seq + 1 - messages.len() as u64;
        let keep_empty = u8::from(fits && head.seq == 0);
        let (key, ttl) = (self.history_key(room_id, head.epoch), spread(HISTORY));
        let rebuild = self.room_key(room_id.as_str(), "rebuild");
        let run = self.shared.nodes.run(&key, &self.shared.scripts.rebuild, |command| {
            command.arg(2).arg(&key).arg(&rebuild).arg(first).arg(keep_empty).arg(ttl);
            messages.iter().for_each(|message| add(command, message));
        });
        self.noted(run.await).map(drop)
    }

    fn history_key(&self, room_id: &RoomId, epoch: u64) -> String {
        self.room_key(room_id.as_str(), &format!("history:{epoch}"))
    }
}

fn add(command: &mut Cmd, message: &Message) {
    command.arg(message.id.ms).arg(&message.user_id).arg(&message.username).arg(&message.content);
}

fn numbered_from(first: u64, messages: &[Message]) -> bool {
    (first..).zip(messages).all(|(seq, message)| message.id.seq == seq)
}

/// Top and messages, oldest first. `None`: no list, or not of this form.
fn page(value: Value) -> Option<(u64, Vec<Message>)> {
    let Value::Array(parts) = value else { return None };
    let [last, Value::Array(entries)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let top = number(&text(last)?)?;
    let messages: Option<Vec<Message>> = entries.into_iter().rev().map(message).collect();
    Some((top, messages?))
}

fn message(entry: Value) -> Option<Message> {
    let Value::Array(parts) = entry else { return None };
    let [id, Value::Array(fields)] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let [_, ms, _, user_id, _, username, _, content] = <[Value; 8]>::try_from(fields).ok()?;
    Some(Message {
        id: MessageId { ms: text(ms)?.parse().ok()?, seq: number(&text(id)?)? },
        user_id: text(user_id)?,
        username: text(username)?,
        content: text(content)?,
    })
}

fn text(value: Value) -> Option<String> {
    String::from_redis_value(value).ok()
}

/// `7-0` → 7.
fn number(id: &str) -> Option<u64> {
    id.split_once('-')?.0.parse().ok()
}

/// The page, if it is all there: it ends below `before` or at the top, has no hole, and holds
/// `count` messages or number 1.
fn complete(top: u64, mut messages: Vec<Message>, before: u64, count: u32) -> Option<(u64, Vec<Message>)> {
    let end = before.clamp(1, top + 1);
    let surplus = messages.len().saturating_sub(count as usize);
    messages.drain(..surplus);
    let first = end.saturating_sub(u64::from(count)).max(1).min(end);
    let all = messages.len() as u64 == end - first && numbered_from(first, &messages);
    all.then_some((top, messages))
}
