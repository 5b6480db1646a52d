//! What the whole campaign counts: each message's offer and ack, deliveries per second, and
//! why connections ended. The judge of what each client saw is the checker beside it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use corecast_checker::Recorder;

/// The record of a campaign. Cheap to clone; every client writes into the same one.
#[derive(Clone)]
pub struct Ledger {
    /// Judges what each client saw.
    pub recorder: Recorder,
    /// Begins every content and every key: a system may hold those of earlier campaigns.
    pub run: Arc<str>,
    start: Instant,
    book: Arc<Mutex<Book>>,
}

/// What was written down.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// By number.
    pub messages: Vec<Message>,
    /// By second since the start.
    pub seconds: Vec<Second>,
    /// Connections that were opened, again ones included.
    pub connections: u64,
    /// Why connections ended or did not come about, and how often.
    pub ends: BTreeMap<String, u64>,
    /// Requests that were refused for now, by code.
    pub repeated: BTreeMap<String, u64>,
    /// Messages that were refused for good, by code.
    pub refused: BTreeMap<String, u64>,
    /// Requests that left again because no answer came.
    pub unanswered: u64,
    /// Messages not offered, because their client had too many waiting.
    pub skipped: u64,
    /// `cut` frames and rooms.
    pub cuts: u64,
    /// `lagging` frames.
    pub lagging: u64,
    /// Clients that were told to log in again.
    pub signed_out: u64,
    /// Frames that lack a field.
    pub unreadable: u64,
    /// Longest time by which a message was offered too late, in ms: this process was starved.
    pub late_ms: u64,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Index of the room.
    pub room: usize,
    /// ms since the start.
    pub offered_ms: u64,
    /// ms since the start.
    pub acked_ms: Option<u64>,
    /// Number in the room.
    pub seq: Option<u64>,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Messages offered.
    pub offered: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// (message, client) pairs delivered live.
    pub live: u64,
    /// Pairs that came by resume, `cut` or a page.
    pub resumed: u64,
}

impl Ledger {
    /// An empty one that starts now.
    pub fn new() -> Self {
        let run = format!("{:08x}", rand::random::<u32>()).into();
        Self { recorder: Recorder::new(), run, start: Instant::now(), book: Arc::default() }
    }

    /// ms since the start.
    pub fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The moment of `ms`.
    pub fn instant(&self, ms: u64) -> Instant {
        self.start + std::time::Duration::from_millis(ms)
    }

    /// A message that is offered now; answers its number.
    pub fn offer(&self, room: usize) -> u64 {
        let now = self.now_ms();
        let mut book = self.lock();
        book.second(now).offered += 1;
        book.messages.push(Message { room, offered_ms: now, acked_ms: None, seq: None });
        book.messages.len() as u64 - 1
    }

    /// A message became durable as `seq`.
    pub fn acked(&self, number: u64, seq: u64) {
        let now = self.now_ms();
        let mut book = self.lock();
        book.second(now).acked += 1;
        if let Some(message) = book.messages.get_mut(number as usize) {
            (message.acked_ms, message.seq) = (Some(now), Some(seq));
        }
    }

    /// Messages reached a client.
    pub fn delivered(&self, live: u64, resumed: u64) {
        let now = self.now_ms();
        let mut book = self.lock();
        let second = book.second(now);
        second.live += live;
        second.resumed += resumed;
    }

    /// A connection ended, or did not come about.
    pub fn ended(&self, why: &str) {
        *self.lock().ends.entry(why.to_owned()).or_default() += 1;
    }

    /// Writes anything else down.
    pub fn note(&self, write: impl FnOnce(&mut Book)) {
        write(&mut self.lock());
    }

    /// The message with this number.
    pub fn message(&self, number: u64) -> Option<Message> {
        self.lock().messages.get(number as usize).copied()
    }

    /// The highest acknowledged number of each room.
    pub fn heads(&self, rooms: usize) -> Vec<u64> {
        let mut heads = vec![0; rooms];
        for message in &self.lock().messages {
            if let Some(head) = heads.get_mut(message.room) {
                *head = message.seq.unwrap_or(0).max(*head);
            }
        }
        heads
    }

    /// Messages offered and acknowledged so far.
    pub fn totals(&self) -> (u64, u64) {
        let book = self.lock();
        let acked = book.messages.iter().filter(|message| message.acked_ms.is_some()).count();
        (book.messages.len() as u64, acked as u64)
    }

    /// A copy of all of it.
    pub fn book(&self) -> Book {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Book {
    /// Deliveries of the whole campaign: (live, by resume).
    pub fn deliveries(&self) -> (u64, u64) {
        self.seconds
            .iter()
            .fold((0, 0), |(live, resumed), second| (live + second.live, resumed + second.resumed))
    }

    fn second(&mut self, now_ms: u64) -> &mut Second {
        let index = (now_ms / 1000) as usize;
        if self.seconds.len() <= index {
            self.seconds.resize(index + 1, Second::default());
        }
        &mut self.seconds[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_of_acknowledged_messages_only() {
        let ledger = Ledger::new();
        let (first, second) = (ledger.offer(0), ledger.offer(1));
        assert_eq!((first, second), (0, 1));
        ledger.acked(first, 7);
        ledger.delivered(3, 1);
        assert_eq!(ledger.heads(2), [7, 0]);
        assert_eq!(ledger.totals(), (2, 1));
        assert_eq!(ledger.book().deliveries(), (3, 1));
    }
}
