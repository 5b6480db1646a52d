//! What one gateway is owed.
//!
//! ```text
//!             first send + 10 s, or three sends
//!      ┌─────▶ Owed ───────────────────────────▶ Lapsed ◀─────────────┐
//!      │        ▲ │ stream lost: unacked again    │ │                 │ stream lost,
//!      │        └─┘ on the next one               │ │ same            │ or no ack in time
//!      │ new incarnation                          │ │ incarnation     │
//!      └──────────────────────────────────────────┘ └──▶ Probation ───┘
//!                              Probation ── first ack ──▶ Owed
//! ```
//! * *Owed*: every push is kept until it is acked and its record is held meanwhile.
//! * *Lapsed*: the gateway did not take a push in time. Nothing is kept for it and nobody
//!   waits for it: it checks its tails when its stream was lost, every 2 s, and at start.
//! * *Probation*: the incarnation that let us wait is back. It gets pushes, but nobody waits
//!   for them until it acks one: a gateway that answers and then takes nothing costs the
//!   others one duty time, and not one for each reconnect.
//!
//! A registry may be wrong: flap, be emptied, lose a lease of a gateway that lives. So a gateway
//! that left it is served and waited for as before while its stream lives; without a stream
//! it is offered nothing more, and owed what it was offered.
//!
//! What a gateway does not want ([`interest`](super::interest)) it is not owed.
//!
//! A push to users and any other unnumbered one has no tail: a gateway that lapsed has lost
//! those, as if it had been disconnected at that moment.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use corecast_proto::ids::Position;
use corecast_proto::push::{self, HeadPush, Push, push::Target};
use prost::Message;

use super::Time;
use super::interest::{Heads, Interest};
use super::window::Ticket;

/// A push is sent on at most this many streams, then the duty ends: a push that breaks the
/// stream each time must not hold the others for the whole duty time.
pub const SENDS_MAX: u8 = 3;

/// Times and bounds of a duty.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the first send of the oldest unacked push to the end of waiting.
    pub duty: Duration,
    /// From the send of a batch to its ack; then the stream is given up.
    pub deadline: Duration,
    /// Pushes in a batch, at least 1.
    pub batch_pushes: usize,
    /// Encoded bytes of a batch; a larger push travels alone.
    pub batch_bytes: usize,
    /// Unacked pushes of a gateway. Full: reading the log stops, at most until the duty ends.
    pub lane_pushes: usize,
    /// Unacked bytes of a gateway, likewise.
    pub lane_bytes: usize,
}

/// A push and its encoded size, shared by all lanes.
#[derive(Debug)]
pub struct Planned {
    /// What travels.
    pub push: Push,
    /// Encoded size.
    pub bytes: usize,
}

/// A batch to send.
#[derive(Debug)]
pub struct Transmit {
    /// 1, 2, 3 … within one stream.
    pub id: u64,
    /// In the order of their offers.
    pub pushes: Vec<Arc<Planned>>,
    /// How many of them were sent on an earlier stream.
    pub again: usize,
}

/// What the gateway took over.
#[derive(Debug, Default)]
pub struct Taken {
    /// These records are held by one duty less.
    pub released: Vec<Ticket>,
    /// For each push, how long it took from its first send.
    pub waits: Vec<Duration>,
}

/// The gateway acked a batch that was never sent on this stream.
#[derive(Debug, PartialEq, Eq)]
pub struct AckBeyond(pub u64);

/// What to do about the stream now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is due.
    Keep,
    /// A batch passed its deadline: give the stream up, connect again.
    Reconnect,
    /// The duty ended: give the stream up, so that the gateway checks its tails.
    Lapsed,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Waited for.
    Owed,
    /// Served, not waited for.
    Probation,
    /// Neither.
    Lapsed,
}

/// The lane and the duty to one gateway.
///
/// Order of calls: [`handle_welcome`](Self::handle_welcome) begins a stream, then
/// [`poll_transmit`](Self::poll_transmit) as often as the stream takes a batch (the clock of
/// a push starts there) and [`handle_ack`](Self::handle_ack) for what comes back, until
/// [`handle_stream_lost`](Self::handle_stream_lost). [`offer`](Self::offer) and
/// [`handle_timeout`](Self::handle_timeout) at any time; after a verdict other than `Keep`
/// the stream must be given up.
#[derive(Debug)]
pub struct Lane {
    limits: Limits,
    standing: Standing,
    incarnation: Option<u64>,
    streaming: bool,
    leaving: bool,
    items: VecDeque<Item>,
    bytes: usize,
    /// How many of `items`, from the front, were sent on this stream.
    sent: usize,
    batches: VecDeque<Sent>,
    next_batch: u64,
    skipped: u64,
    interest: Interest,
    unwanted: u64,
}

#[derive(Debug)]
struct Item {
    push: Arc<Planned>,
    /// Present while a record is held for it.
    ticket: Option<Ticket>,
    /// First send, or first moment at which it would have been sent had there been a stream.
    since: Option<Time>,
    sends: u8,
}

#[derive(Debug)]
struct Sent {
    id: u64,
    pushes: usize,
    at: Time,
}

impl Lane {
    /// A gateway that just appeared in the registry: owed from now on.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            standing: Standing::Owed,
            incarnation: None,
            streaming: false,
            leaving: false,
            items: VecDeque::new(),
            bytes: 0,
            sent: 0,
            batches: VecDeque::new(),
            next_batch: 1,
            skipped: 0,
            interest: Interest::default(),
            unwanted: 0,
        }
    }

    /// Where the gateway stands.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Unacked pushes.
    pub fn unacked(&self) -> usize {
        self.items.len()
    }

    /// Pushes that were not kept for the gateway, because it lapsed or is on probation with
    /// a full lane. Its tail check finds the numbered ones.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Pushes that were left out because the gateway has nobody in their rooms.
    pub fn unwanted(&self) -> u64 {
        self.unwanted
    }

    /// What the gateway told of its rooms on this stream.
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Must reading the log stop for this gateway?
    pub fn is_full(&self) -> bool {
        self.standing == Standing::Owed && !self.is_away() && self.is_at_bound()
    }

    /// Left the registry and its stream, and nothing is owed any more.
    pub fn is_over(&self) -> bool {
        self.is_away() && self.items.is_empty()
    }

    /// The registry lists the gateway, or not any more. What it was offered before stays
    /// owed: a registry may be wrong, an unacked push is not.
    pub fn handle_listed(&mut self, listed: bool) {
        self.leaving = !listed;
    }

    /// Asked before [`offer`](Self::offer). False: the push is left out, and nothing is owed.
    pub fn wants(&mut self, push: &Push) -> bool {
        let wants = self.interest.wants(push);
        self.unwanted += u64::from(!wants);
        wants
    }

    /// The gateway tells its interest. Of rooms it asks for only now it gets the number that
    /// pushes were left out up to; with a full lane it has to find that by its tail check.
    pub fn handle_interest(&mut self, told: push::Interest, heads: &Heads) {
        if !self.streaming || self.standing == Standing::Lapsed {
            return;
        }
        for room_id in self.interest.handle(told) {
            let Some(Position { epoch, seq }) = heads.get(&room_id) else { continue };
            if self.is_at_bound() {
                self.skipped += 1;
                continue;
            }
            let target = Some(Target::Head(HeadPush { room_id }));
            let push = Push { target, epoch, first_seq: seq, ..Default::default() };
            let bytes = push.encoded_len();
            self.bytes += bytes;
            let push = Arc::new(Planned { push, bytes });
            self.items.push_back(Item { push, ticket: None, since: None, sends: 0 });
        }
    }

    /// A push was planned. True: it is owed, its record is to be held until the ticket comes
    /// back.
    pub fn offer(&mut self, push: &Arc<Planned>, ticket: Ticket, now: Time) -> bool {
        if self.is_away() {
            return false;
        }
        let full = self.standing == Standing::Probation && self.is_at_bound();
        if full || self.standing == Standing::Lapsed {
            self.skipped += 1;
            return false;
        }
        let owed = self.standing == Standing::Owed;
        self.bytes += push.bytes;
        self.items.push_back(Item {
            push: push.clone(),
            ticket: owed.then_some(ticket),
            // Without a stream the shell is trying to connect at this very moment: a
            // gateway that cannot be reached at all is let go after the same time.
            since: (!self.streaming).then_some(now),
            sends: 0,
        });
        owed
    }

    /// A stream is up and said who answers. Unacked pushes go to the same incarnation again;
    /// another one starts with nothing, because it checks its tails itself.
    pub fn handle_welcome(&mut self, incarnation: u64) -> Vec<Ticket> {
        let before = self.incarnation.replace(incarnation);
        let released = match before {
            Some(before) if before != incarnation => {
                self.standing = Standing::Owed;
                self.clear()
            }
            _ => Vec::new(),
        };
        if self.standing == Standing::Lapsed {
            // Never seen before: what lapsed was the wait for its first stream.
            self.standing = if before.is_none() { Standing::Owed } else { Standing::Probation };
        }
        self.streaming = true;
        self.next_batch = 1;
        self.interest.forget();
        released
    }

    /// The next batch to send on the stream.
    pub fn poll_transmit(&mut self, now: Time) -> Option<Transmit> {
        if !self.streaming {
            return None;
        }
        let (mut pushes, mut again, mut bytes) = (Vec::new(), 0, 0);
        for item in self.items.iter_mut().skip(self.sent).take(self.limits.batch_pushes) {
            if bytes > 0 && bytes + item.push.bytes > self.limits.batch_bytes {
                break;
            }
            bytes += item.push.bytes;
            again += usize::from(item.sends > 0);
            item.sends = item.sends.saturating_add(1);
            item.since.get_or_insert(now);
            pushes.push(item.push.clone());
        }
        if pushes.is_empty() {
            return None;
        }
        let id = self.next_batch;
        self.next_batch += 1;
        self.sent += pushes.len();
        self.batches.push_back(Sent { id, pushes: pushes.len(), at: now });
        Some(Transmit { id, pushes, again })
    }

    /// Every batch with an id ≤ this one is taken over.
    ///
    /// # Errors
    /// [`AckBeyond`]: no such batch was sent; give the stream up.
    pub fn handle_ack(&mut self, id: u64, now: Time) -> Result<Taken, AckBeyond> {
        if id >= self.next_batch {
            return Err(AckBeyond(id));
        }
        let mut taken = Taken::default();
        while self.batches.front().is_some_and(|batch| batch.id <= id) {
            let Some(batch) = self.batches.pop_front() else { break };
            for item in self.items.drain(..batch.pushes) {
                self.bytes -= item.push.bytes;
                taken.released.extend(item.ticket);
                taken.waits.push(now.saturating_sub(item.since.unwrap_or(now)));
            }
            self.sent -= batch.pushes;
        }
        if self.standing == Standing::Probation && !taken.waits.is_empty() {
            self.standing = Standing::Owed;
        }
        Ok(taken)
    }

    /// The stream ended, for whatever reason. Answers the tickets of a duty that ends here,
    /// and whether one did.
    pub fn handle_stream_lost(&mut self, now: Time) -> (Vec<Ticket>, bool) {
        self.streaming = false;
        self.interest.forget();
        self.sent = 0;
        self.batches.clear();
        if self.standing == Standing::Probation {
            self.standing = Standing::Lapsed;
            return (self.clear(), false);
        }
        if self.items.front().is_some_and(|item| item.sends >= SENDS_MAX) {
            return (self.lapse(), true);
        }
        for item in &mut self.items {
            item.since.get_or_insert(now);
        }
        (Vec::new(), false)
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let duty = self.duty_end();
        let batch = self.batches.front().map(|batch| batch.at + self.limits.deadline);
        duty.into_iter().chain(batch).min()
    }

    /// Time has passed. With `Lapsed` come the tickets of the duty that ended.
    pub fn handle_timeout(&mut self, now: Time) -> (Vec<Ticket>, Verdict) {
        if self.duty_end().is_some_and(|end| now >= end) {
            return (self.lapse(), Verdict::Lapsed);
        }
        let late = self.batches.front().is_some_and(|batch| now >= batch.at + self.limits.deadline);
        (Vec::new(), if late { Verdict::Reconnect } else { Verdict::Keep })
    }

    fn duty_end(&self) -> Option<Time> {
        if self.standing != Standing::Owed {
            return None;
        }
        Some(self.items.front()?.since? + self.limits.duty)
    }

    /// Neither the registry nor a stream says that it is there.
    fn is_away(&self) -> bool {
        self.leaving && !self.streaming
    }

    fn is_at_bound(&self) -> bool {
        self.items.len() >= self.limits.lane_pushes || self.bytes >= self.limits.lane_bytes
    }

    fn lapse(&mut self) -> Vec<Ticket> {
        self.standing = Standing::Lapsed;
        self.clear()
    }

    fn clear(&mut self) -> Vec<Ticket> {
        self.bytes = 0;
        self.sent = 0;
        self.batches.clear();
        self.items.drain(..).filter_map(|item| item.ticket).collect()
    }
}

#[cfg(test)]
#[path = "duty_test.rs"]
mod tests;
