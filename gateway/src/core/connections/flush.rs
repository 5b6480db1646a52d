//! Who sends what next: connections with replies or room again first, then the passes of
//! the feeds, a slice at a time.

use corecast_proto::close::CloseCode;

use super::{Action, Connections, Key, Urgency};
use crate::core::command::Event;
use crate::core::counters::Ended;
use crate::core::feeds::{Out, Peer, Question};
use crate::core::outbox::Segment;
use crate::core::session::{Phase, Stamp};

/// Sends of one slice. At most one per connection.
#[derive(Default)]
pub struct Batch {
    jobs: Vec<Planned>,
    parts: Vec<Segment>,
}

#[derive(Clone, Copy)]
struct Planned {
    key: Key,
    start: usize,
    end: usize,
    /// Bytes of the first part that were written before.
    written: usize,
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every byte was taken.
    All,
    /// So many, possibly none.
    Part(usize),
    /// The connection is dead.
    Gone,
}

impl Batch {
    /// Number of sends.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Connection of a send and its bytes, in order.
    pub fn job(&self, index: usize) -> (Key, impl ExactSizeIterator<Item = &[u8]>) {
        let job = self.jobs[index];
        let mut skip = job.written;
        let parts = self.parts[job.start..job.end].iter();
        (job.key, parts.map(move |part| &part.bytes[std::mem::take(&mut skip)..]))
    }
}

impl Connections {
    /// Fills `batch` with the next slice of sends. `true`: look again, even if the batch is
    /// empty. Each batch must come back through [`Connections::handle_sent`] before
    /// anything else happens.
    pub fn poll_transmit(&mut self, batch: &mut Batch) -> bool {
        batch.jobs.clear();
        batch.parts.clear();
        let share = if self.feeds.is_active() { SLICE / 2 } else { SLICE };
        let mut visits = self.dirty.len().min(VISITS);
        while batch.len() < share && visits > 0 {
            visits -= 1;
            let Some(slot) = self.dirty.pop_front() else { break };
            self.slots[slot as usize].dirty = false;
            self.stage(slot, batch);
        }
        let (mut steps, mut visits) = (STEPS, VISITS);
        while batch.len() < SLICE && visits > 0 {
            visits -= 1;
            let Some(slot) = self.feeds.next_below(&mut steps) else { break };
            if self.slots[slot as usize].in_batch {
                // Its rest is for the next slice, and perhaps so is all of this feed.
                self.feeds.next_feed();
            } else {
                self.stage(slot, batch);
            }
        }
        self.has_output()
    }

    /// Somebody wants to send.
    pub fn has_output(&self) -> bool {
        !self.dirty.is_empty() || self.feeds.is_active()
    }

    /// Plans one send: what waits, then what its feeds hold for it.
    fn stage(&mut self, slot: u32, batch: &mut Batch) {
        let conn = &mut self.slots[slot as usize];
        if matches!(conn.phase, Phase::Free) || conn.in_batch {
            return;
        }
        if conn.blocked {
            if self.collect_behind(slot) {
                self.after_output(slot);
            }
            return;
        }
        let start = batch.parts.len();
        let written = conn.outbox.take(PARTS, &mut batch.parts);
        let whole = conn.outbox.is_empty();
        if whole && matches!(conn.phase, Phase::Open(_)) {
            let push_bytes = push_bytes(&batch.parts[start..]);
            let peer = Peer { push_bytes, one_feed: self.send_per_room, ..self.peer(slot) };
            let mut out = Out { segments: &mut batch.parts, counters: &mut self.counters };
            if !self.feeds.collect(slot, peer, &mut out) {
                self.slots[slot as usize].outbox.put_back(&batch.parts[start..], written);
                batch.parts.truncate(start);
                self.close(slot, CloseCode::Restart, "what you hold is void", Urgency::Queued);
                return;
            }
        }
        let end = batch.parts.len();
        if start == end {
            self.after_output(slot);
            return;
        }
        self.slots[slot as usize].in_batch = true;
        batch.jobs.push(Planned { key: self.key(slot), start, end, written });
    }

    /// The batch was sent. `failures` names, in order, the jobs that did not go out whole.
    pub fn handle_sent(&mut self, batch: &Batch, failures: &[(usize, Outcome)]) {
        if batch.is_empty() {
            return;
        }
        self.counters.slices += 1;
        let mut failures = failures.iter().copied().peekable();
        for (index, job) in batch.jobs.iter().enumerate() {
            let outcome = match failures.next_if(|(failed, _)| *failed == index) {
                Some((_, outcome)) => outcome,
                None => Outcome::All,
            };
            self.sent(job, &batch.parts[job.start..job.end], outcome);
        }
    }

    fn sent(&mut self, job: &Planned, parts: &[Segment], outcome: Outcome) {
        let slot = job.key.slot;
        let conn = &mut self.slots[slot as usize];
        conn.in_batch = false;
        if conn.generation != job.key.generation {
            return;
        }
        self.counters.writes += 1;
        let now = Stamp::at(self.now_ms);
        match outcome {
            Outcome::All => {
                let bytes: usize = parts.iter().map(|part| part.bytes.len()).sum();
                self.counters.bytes_written += (bytes - job.written) as u64;
                if matches!(conn.phase, Phase::Closing(_)) {
                    conn.alive = now;
                }
                if !conn.outbox.is_empty() {
                    self.mark(slot);
                }
                self.after_output(slot);
            }
            Outcome::Part(bytes) => {
                self.counters.bytes_written += bytes as u64;
                self.counters.writes_short += 1;
                conn.outbox.put_back(parts, job.written + bytes);
                // The stall begins with the first byte that waits; room again ends it.
                conn.alive = now;
                conn.blocked = true;
                self.wind(slot);
                self.after_output(slot);
            }
            Outcome::Gone => self.end(slot, Ended::Lost),
        }
    }

    /// The socket takes bytes again.
    pub fn handle_writable(&mut self, key: Key) {
        let Some(slot) = self.find(key) else { return };
        let conn = &mut self.slots[slot as usize];
        if std::mem::take(&mut conn.blocked) {
            // Silence while our output was in the way is not judged.
            conn.alive = Stamp::at(self.now_ms);
            self.mark(slot);
        }
    }

    /// Output went away, or there was none: what waited for that?
    fn after_output(&mut self, slot: u32) {
        let key = self.key(slot);
        let conn = &mut self.slots[slot as usize];
        let empty = conn.outbox.is_empty();
        match &mut conn.phase {
            Phase::Open(_) => self.ask_for_page(slot),
            Phase::Handing(_) if empty => {
                let phase = std::mem::replace(&mut conn.phase, Phase::Free);
                if let Phase::Handing(head) = phase {
                    self.counters.handed_over += 1;
                    let key = self.give_up(slot);
                    self.actions.push_back(Action::HandOver { key, read: head.read, peer: head.peer });
                }
                return;
            }
            Phase::Closing(closing) if empty && closing.peer_closed => {
                self.end(slot, Ended::Peer);
                return;
            }
            Phase::Closing(closing) if empty && !closing.shut => {
                closing.shut = true;
                conn.since = Stamp::at(self.now_ms);
                self.actions.push_back(Action::Shutdown(key));
                self.wind(slot);
            }
            _ => {}
        }
        self.resume(slot);
    }

    /// A lagging connection that has drained asks for what it missed.
    pub(super) fn ask_for_page(&mut self, slot: u32) {
        let conn = &self.slots[slot as usize];
        if !self.feeds.is_lagging(slot) || conn.outbox.push_bytes() >= self.limits.push_soft_bytes / 2 {
            return;
        }
        let v1 = conn.v1;
        let mut out = Out { segments: &mut self.segments, counters: &mut self.counters };
        let question = self.feeds.next_question(slot, v1, self.now_ms, &mut out);
        if !self.segments.is_empty() {
            self.queue_segments(slot);
            self.mark(slot);
        }
        if let Some(Question { room_id, reached, too_long }) = question {
            let conn = self.conn_id(slot);
            self.events.push_back(Event::Lagging { conn, room_id, reached, too_long });
        }
        self.wind(slot);
    }

    /// Moves what an open connection's feeds hold for it behind what is queued already.
    /// `false`: what it holds is void, it closes.
    pub(super) fn collect_behind(&mut self, slot: u32) -> bool {
        if !matches!(self.slots[slot as usize].phase, Phase::Open(_)) || !self.feeds.lacks_something(slot) {
            return true;
        }
        // In one go: what follows must not overtake anything. What is too much is missed, as
        // if its socket were full: nobody may collect without limit by asking for it.
        let peer = self.peer(slot);
        let soft = if peer.blocked { peer.soft } else { peer.hard };
        let peer = Peer { blocked: true, soft, ..peer };
        let mut out = Out { segments: &mut self.segments, counters: &mut self.counters };
        let told = self.feeds.collect(slot, peer, &mut out);
        self.queue_segments(slot);
        if told {
            self.mark(slot);
        } else {
            self.close(slot, CloseCode::Restart, "what you hold is void", Urgency::Queued);
        }
        told
    }

    pub(super) fn queue_segments(&mut self, slot: u32) {
        let conn = &mut self.slots[slot as usize];
        self.segments.drain(..).for_each(|segment| conn.outbox.push(segment));
    }

    pub(super) fn peer(&self, slot: u32) -> Peer {
        let conn = &self.slots[slot as usize];
        Peer {
            v1: conn.v1,
            blocked: conn.blocked,
            push_bytes: conn.outbox.push_cost(),
            soft: self.limits.push_soft_bytes,
            hard: self.limits.push_hard_bytes,
            now_ms: self.now_ms,
            one_feed: false,
        }
    }
}

fn push_bytes(parts: &[Segment]) -> usize {
    let pushes = parts.iter().filter(|part| part.kind == crate::core::outbox::Kind::Push);
    pushes.map(|part| part.bytes.len()).sum()
}

/// Sends in a slice. Whoever wants something meanwhile waits for it: at 4 to 8 µs a send 0.1
/// to 0.2 ms. With 48 that is twice as much; with 16 a delivery in small rooms costs 5 % more.
const SLICE: usize = 24;
/// Connections looked at in a slice, sent to or not.
const VISITS: usize = 8 * SLICE;
/// Members passed over in a slice; one costs about a nanosecond.
const STEPS: usize = 8_192;
/// Parts of one send: far below what sendmsg(2) takes (1,024).
const PARTS: usize = 64;
