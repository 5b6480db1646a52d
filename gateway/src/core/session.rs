//! One connection: from the first byte to the last.
//!
//! ```text
//!  Head ──upgrade──▶ Upgraded ──Open──▶ Open ──┐
//!   │  └─/debug/echo─▶ Echo ───────────────────┼─close─▶ Closing ─▶ Free
//!   │  └─answered, refused─────────────────────┘            │
//!   └────plain HTTP──▶ Handing ─▶ Free (hyper owns it)      └ frame written, half closed,
//!                                                             the peer's close or the end
//! ```
//! This file knows one connection and nothing around it: what it takes part in is in
//! [`feeds`](super::feeds), all of them together are in [`connections`](super::connections).
//! Order of calls: `handle_incoming` with what arrives, then act on the [`Verdict`];
//! `deadline` after anything that changes phase or output, `due` when it has passed.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use corecast_proto::close::CloseCode;
use corecast_proto::ids::RoomId;

use super::command::{ConnId, Event, Session};
use super::counters::{Counters, Ended};
use super::held::HeldBySlot;
use super::outbox::{Kind, Outbox, Segment};
use super::wire::Wire;
use super::ws::{Incoming, Reader};
use crate::config::Limits;

/// State of one connection. An idle one is this and a seat in the feeds, nothing boxed.
pub(super) struct Connection {
    pub(super) generation: u32,
    /// When the phase began; while open, when it was pinged last.
    pub(super) since: Stamp,
    /// Last sign of life that counts: a byte its socket took while that is full or it closes,
    /// a byte heard otherwise.
    pub(super) alive: Stamp,
    /// Texts that control has not settled.
    pub(super) unsettled: u16,
    /// Offered `corecast.v1`.
    pub(super) v1: bool,
    /// Its socket is full.
    pub(super) blocked: bool,
    /// It is not read.
    pub(super) paused: bool,
    /// It stands in the list of those that want to send.
    pub(super) dirty: bool,
    /// It is in the batch that is being sent.
    pub(super) in_batch: bool,
    /// Neighbours among the connections of the same user.
    pub(super) user_next: u32,
    pub(super) user_prev: u32,
    pub(super) outbox: Outbox,
    pub(super) reader: Reader,
    pub(super) phase: Phase,
}

pub(super) enum Phase {
    /// Nobody.
    Free,
    /// Reading a request head.
    Head(Box<Head>),
    /// The 101 is on its way, control verifies.
    Upgraded,
    /// Has a session.
    Open(Arc<Session>),
    /// `/debug/echo`.
    Echo,
    /// Plain HTTP, given away as soon as earlier answers are written.
    Handing(Box<Head>),
    /// Ends.
    Closing(Box<Closing>),
}

/// What was read of a request head.
pub(super) struct Head {
    pub(super) read: Vec<u8>,
    pub(super) peer: Option<IpAddr>,
}

pub(super) struct Closing {
    pub(super) why: Ended,
    /// Whose it was, if it was open.
    pub(super) session: Option<Arc<Session>>,
    /// Control knows it: it is told the end.
    pub(super) known: bool,
    /// Rooms it was a member of.
    pub(super) rooms: Vec<RoomId>,
    /// The peer's close frame came.
    pub(super) peer_closed: bool,
    /// Everything is written and the stream ended.
    pub(super) shut: bool,
}

/// What follows from something a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It broke a rule.
    Close(CloseCode, &'static str),
    /// It closes.
    PeerClosed { code: Option<u16>, mid_message: bool },
}

/// A deadline that has passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The 101 has waited long enough for the hello.
    Answer,
    /// No request head in time.
    Handshake,
    /// No sign of life.
    Dead,
    /// No byte taken.
    Stalled,
    /// Time for a ping.
    Ping,
    /// The close took too long.
    Over,
}

/// Milliseconds modulo 2^32 (49 days): half the size of a full time, and every deadline is
/// far shorter than that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(u32);

/// What a connection needs from around it.
pub(super) struct Around<'a> {
    pub(super) conn: ConnId,
    pub(super) limits: &'a Limits,
    pub(super) held: &'a mut HeldBySlot,
    pub(super) unsettled_bytes: &'a Arc<AtomicUsize>,
    /// Texts are taken; not while the shard drains.
    pub(super) accepts: bool,
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) counters: &'a mut Counters,
}

impl Stamp {
    pub(super) fn at(ms: u64) -> Self {
        Self(ms as u32)
    }

    /// Milliseconds since then.
    pub(super) fn elapsed(self, now_ms: u64) -> u64 {
        u64::from((now_ms as u32).wrapping_sub(self.0))
    }
}

impl Connection {
    pub(super) fn free() -> Self {
        Self {
            generation: 0,
            since: Stamp::default(),
            alive: Stamp::default(),
            unsettled: 0,
            v1: false,
            blocked: false,
            paused: false,
            dirty: false,
            in_batch: false,
            user_next: NOBODY,
            user_prev: NOBODY,
            outbox: Outbox::default(),
            reader: Reader::default(),
            phase: Phase::Free,
        }
    }

    /// Begins a new life in this slot.
    pub(super) fn begin(&mut self, phase: Phase, now_ms: u64) {
        let now = Stamp::at(now_ms);
        *self = Self {
            generation: self.generation,
            // It may still stand in the list.
            dirty: self.dirty,
            since: now,
            alive: now,
            phase,
            ..Self::free()
        };
    }

    /// Takes part in the protocol: not free, not ending, not plain HTTP.
    pub(super) fn is_upgraded(&self) -> bool {
        matches!(self.phase, Phase::Upgraded | Phase::Open(_) | Phase::Echo)
    }

    /// Queues a frame beside the push budget.
    pub(super) fn reply(&mut self, wire: &Wire, counters: &mut Counters) {
        counters.frames += 1;
        self.outbox.push(Segment { bytes: wire.bytes().clone(), kind: Kind::Reply });
    }

    /// Must its socket rest? It has enough under way, or does not take what it gets.
    pub(super) fn must_pause(&self, limits: &Limits) -> bool {
        let full = match self.phase {
            // Small requests that are answered in place.
            Phase::Head(_) => false,
            _ if self.is_upgraded() => self.is_full(limits),
            _ => return false,
        };
        full || self.outbox.cost() > limits.push_soft_bytes
    }

    /// Control has as many of its texts as it may: more are held.
    fn is_full(&self, limits: &Limits) -> bool {
        u32::from(self.unsettled) >= limits.requests_in_flight
    }

    /// Largest message it may send.
    pub(super) fn message_max(&self, limits: &Limits) -> usize {
        if matches!(self.phase, Phase::Echo) { ECHO_BYTES } else { limits.client_frame_bytes }
    }

    /// A frame or message of the peer.
    pub(super) fn handle_incoming(
        &mut self,
        incoming: Incoming<'_>,
        around: &mut Around<'_>,
    ) -> Option<Verdict> {
        match (&self.phase, incoming) {
            (_, Incoming::Close { code, mid_message }) => {
                if let Some(held) = around.held.get_mut(&around.conn.slot) {
                    held.close = Some((code, mid_message));
                    return None;
                }
                return Some(Verdict::PeerClosed { code, mid_message });
            }
            (Phase::Echo, Incoming::Text(text)) => self.reply(&Wire::text(text), around.counters),
            (Phase::Echo, Incoming::Binary(bytes)) => self.reply(&Wire::binary(bytes), around.counters),
            // Nobody was promised anything for it: its sender says it again elsewhere.
            (Phase::Upgraded | Phase::Open(_), Incoming::Text(_)) if !around.accepts => {}
            (Phase::Upgraded | Phase::Open(_), Incoming::Text(text)) => {
                around.counters.texts += 1;
                if self.is_full(around.limits) {
                    around.held.entry(around.conn.slot).or_default().push(text);
                } else {
                    self.forward(text.into(), around);
                }
            }
            (Phase::Upgraded | Phase::Open(_), Incoming::Binary(_)) => {
                return Some(Verdict::Close(CloseCode::Unsupported, "binary messages are not accepted"));
            }
            (Phase::Upgraded | Phase::Open(_) | Phase::Echo, Incoming::Ping(payload)) => {
                around.counters.frames += 1;
                self.outbox.push_pong(Wire::pong(payload).bytes().clone());
            }
            // A pong is a sign of life, which every byte is; after a close nothing counts.
            _ => {}
        }
        None
    }

    /// Control settled `count` texts: held ones follow.
    pub(super) fn settle(&mut self, count: u32, around: &mut Around<'_>) -> Option<Verdict> {
        self.unsettled = self.unsettled.saturating_sub(u16::try_from(count).unwrap_or(u16::MAX));
        let mut held = around.held.remove(&around.conn.slot)?;
        while around.accepts && !self.is_full(around.limits) {
            match held.pop() {
                Some(text) => self.forward(text, around),
                None => {
                    let (code, mid_message) = held.close?;
                    return Some(Verdict::PeerClosed { code, mid_message });
                }
            }
        }
        if around.accepts {
            around.held.insert(around.conn.slot, held);
        }
        None
    }

    fn forward(&mut self, text: Box<[u8]>, around: &mut Around<'_>) {
        self.unsettled += 1;
        around.events.push_back(Event::Text {
            conn: around.conn,
            session: self.session().cloned(),
            text: counted(text, around.unsettled_bytes.clone()),
            v1: self.v1,
        });
    }

    /// Milliseconds until something is due; `None`: nothing ever.
    pub(super) fn deadline(&self, limits: &Limits, now_ms: u64) -> Option<u64> {
        let left = |stamp: Stamp, limit: u64| limit.saturating_sub(stamp.elapsed(now_ms));
        match &self.phase {
            Phase::Free => None,
            Phase::Head(_) | Phase::Handing(_) => Some(left(self.since, limits.handshake_ms)),
            Phase::Upgraded if self.answer_waits() => Some(left(self.since, ANSWER_WAIT_MS)),
            Phase::Upgraded | Phase::Open(_) | Phase::Echo => {
                let ping = left(self.since, limits.ping_ms);
                let other = if self.has_unsent() {
                    left(self.alive, limits.stalled_ms)
                } else if self.paused {
                    ping
                } else {
                    left(self.alive, limits.dead_ms)
                };
                Some(ping.min(other))
            }
            Phase::Closing(closing) if closing.shut => Some(left(self.since, CLOSE_WAIT_MS)),
            Phase::Closing(_) => Some(left(self.alive, CLOSE_STALL_MS).min(left(self.since, CLOSE_MAX_MS))),
        }
    }

    /// What is due now, the gravest first.
    pub(super) fn due(&self, limits: &Limits, now_ms: u64) -> Option<Due> {
        let passed = |stamp: Stamp, limit: u64| stamp.elapsed(now_ms) >= limit;
        match &self.phase {
            Phase::Free => None,
            Phase::Head(_) | Phase::Handing(_) => {
                passed(self.since, limits.handshake_ms).then_some(Due::Handshake)
            }
            Phase::Upgraded if self.answer_waits() => {
                passed(self.since, ANSWER_WAIT_MS).then_some(Due::Answer)
            }
            Phase::Upgraded | Phase::Open(_) | Phase::Echo => {
                if self.has_unsent() {
                    // Its pongs may sit behind what it does not read: only this counts.
                    if passed(self.alive, limits.stalled_ms) {
                        return Some(Due::Stalled);
                    }
                } else if !self.paused && passed(self.alive, limits.dead_ms) {
                    return Some(Due::Dead);
                }
                passed(self.since, limits.ping_ms).then_some(Due::Ping)
            }
            Phase::Closing(closing) => {
                let over = if closing.shut {
                    passed(self.since, CLOSE_WAIT_MS)
                } else {
                    passed(self.alive, CLOSE_STALL_MS) || passed(self.since, CLOSE_MAX_MS)
                };
                over.then_some(Due::Over)
            }
        }
    }

    /// Bytes of the peer arrived: a sign of life, unless only those it takes count.
    pub(super) fn heard(&mut self, now_ms: u64) {
        if !self.blocked && self.is_upgraded() {
            self.alive = Stamp::at(now_ms);
        }
    }

    /// Who is on it, while it is open.
    pub(super) fn session(&self) -> Option<&Arc<Session>> {
        match &self.phase {
            Phase::Open(session) => Some(session),
            _ => None,
        }
    }

    /// Its 101 is queued and nothing is on the way to send it.
    fn answer_waits(&self) -> bool {
        !self.dirty && !self.blocked && !self.outbox.is_empty()
    }

    fn has_unsent(&self) -> bool {
        self.blocked && !self.outbox.is_empty()
    }
}

/// A text that counts as unsettled until control drops it.
fn counted(text: Box<[u8]>, bytes: Arc<AtomicUsize>) -> Bytes {
    struct Counted {
        text: Box<[u8]>,
        bytes: Arc<AtomicUsize>,
    }
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.text
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            self.bytes.fetch_sub(self.text.len(), Ordering::Relaxed);
        }
    }
    bytes.fetch_add(text.len(), Ordering::Relaxed);
    Bytes::from_owner(Counted { text, bytes })
}

/// No connection, where a slot is expected.
pub(super) const NOBODY: u32 = u32::MAX;
/// Largest message of `/debug/echo`.
const ECHO_BYTES: usize = 16 << 20;
/// How long a 101 waits for the hello that follows it: far above what a healthy logic node
/// takes for both, far below what anybody calls slow. The wheel's tick comes on top.
const ANSWER_WAIT_MS: u64 = 50;
/// A closing peer takes no byte for so long: cut.
const CLOSE_STALL_MS: u64 = 5_000;
/// Everything queued before a close must be taken within this.
const CLOSE_MAX_MS: u64 = 30_000;
/// Time for the peer's close after ours was written.
const CLOSE_WAIT_MS: u64 = 2_000;

// An idle connection: this, 24 bytes in the feeds, 12 in the driver, 12 in the wheel, its
// share of the user index and of the session. 400 bytes in all is the aim.
const _: () = assert!(size_of::<Connection>() <= 64);

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        conn: Connection,
        limits: Limits,
        held: HeldBySlot,
        unsettled: Arc<AtomicUsize>,
        events: VecDeque<Event>,
        counters: Counters,
    }

    impl World {
        fn open(limits: Limits) -> Self {
            let mut conn = Connection::free();
            let session = Session::new("s", "u", "ann");
            conn.begin(Phase::Open(Arc::new(session)), 0);
            let (unsettled, events) = (Arc::default(), VecDeque::new());
            Self { conn, limits, held: HeldBySlot::new(), unsettled, events, counters: Counters::default() }
        }

        fn around(&mut self) -> (&mut Connection, Around<'_>) {
            let around = Around {
                conn: ConnId { shard: 0, slot: 0, generation: 0 },
                limits: &self.limits,
                held: &mut self.held,
                unsettled_bytes: &self.unsettled,
                accepts: true,
                events: &mut self.events,
                counters: &mut self.counters,
            };
            (&mut self.conn, around)
        }

        fn incoming(&mut self, incoming: Incoming<'_>) -> Option<Verdict> {
            let (conn, mut around) = self.around();
            conn.handle_incoming(incoming, &mut around)
        }

        fn texts(&mut self) -> Vec<Vec<u8>> {
            let text = |event| match event {
                Event::Text { text, .. } => text.to_vec(),
                other => panic!("{other:?}"),
            };
            self.events.drain(..).map(text).collect()
        }
    }

    #[test]
    fn texts_beyond_the_limit_and_a_close_behind_them_wait_for_answers() {
        let mut world = World::open(Limits { requests_in_flight: 2, ..Limits::default() });
        for text in [b"1", b"2", b"3", b"4"] {
            assert_eq!(world.incoming(Incoming::Text(text)), None);
        }
        assert_eq!(world.incoming(Incoming::Close { code: Some(1000), mid_message: false }), None);
        assert_eq!(world.texts(), [b"1", b"2"]);
        assert!(world.conn.must_pause(&world.limits));
        let (conn, mut around) = world.around();
        assert_eq!(conn.settle(1, &mut around), None);
        assert_eq!(world.texts(), [b"3"]);
        let (conn, mut around) = world.around();
        let verdict = conn.settle(2, &mut around);
        assert_eq!(verdict, Some(Verdict::PeerClosed { code: Some(1000), mid_message: false }));
        assert_eq!(world.texts(), [b"4"]);
    }

    #[test]
    fn a_drain_takes_no_text_any_more() {
        let mut world = World::open(Limits { requests_in_flight: 1, ..Limits::default() });
        for text in [b"1", b"2"] {
            assert_eq!(world.incoming(Incoming::Text(text)), None);
        }
        for text in [b"3", b"4"] {
            let (conn, mut around) = world.around();
            around.accepts = false;
            assert_eq!(conn.handle_incoming(Incoming::Text(text), &mut around), None);
        }
        let (conn, mut around) = world.around();
        around.accepts = false;
        assert_eq!(conn.settle(1, &mut around), None);
        assert_eq!(world.texts(), [b"1"]);
        assert!(world.held.is_empty());
    }

    #[test]
    fn text_counts_as_unsettled_until_it_is_dropped() {
        let mut world = World::open(Limits::default());
        world.incoming(Incoming::Text(b"hello"));
        assert_eq!(world.unsettled.load(Ordering::Relaxed), 5);
        world.events.clear();
        assert_eq!(world.unsettled.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn binary_is_refused_except_on_the_echo_path() {
        let mut world = World::open(Limits::default());
        let refused = world.incoming(Incoming::Binary(b"x"));
        assert!(matches!(refused, Some(Verdict::Close(CloseCode::Unsupported, _))));
        world.conn.phase = Phase::Echo;
        assert_eq!(world.incoming(Incoming::Binary(b"x")), None);
        assert_eq!(world.conn.outbox.bytes(), 3);
    }

    #[test]
    fn silence_kills_only_a_peer_that_is_read_and_has_no_unsent_output() {
        let limits = Limits { ping_ms: 100, dead_ms: 300, stalled_ms: 1_000, ..Limits::default() };
        let mut world = World::open(limits.clone());
        assert_eq!(world.conn.due(&limits, 99), None);
        assert_eq!(world.conn.due(&limits, 100), Some(Due::Ping));
        world.conn.since = Stamp::at(250);
        assert_eq!(world.conn.due(&limits, 299), None);
        assert_eq!(world.conn.due(&limits, 300), Some(Due::Dead));
        world.conn.paused = true;
        assert_eq!(world.conn.due(&limits, 300), None);
        world.conn.paused = false;
        world.conn.outbox.push(Segment { bytes: Bytes::from_static(b"x"), kind: Kind::Push });
        world.conn.blocked = true;
        assert_eq!(world.conn.due(&limits, 300), None);
        world.conn.since = Stamp::at(950);
        assert_eq!(world.conn.due(&limits, 999), None);
        assert_eq!(world.conn.due(&limits, 1_000), Some(Due::Stalled));
    }

    #[test]
    fn a_deadline_is_never_after_what_is_due() {
        let limits = Limits { ping_ms: 100, dead_ms: 300, ..Limits::default() };
        let world = World::open(limits.clone());
        for now in [0, 50, 99, 100, 299, 300] {
            let left = world.conn.deadline(&limits, now).unwrap();
            assert_eq!(left == 0, world.conn.due(&limits, now).is_some(), "{now}");
        }
    }

    #[test]
    fn stamps_survive_the_wrap() {
        let before = (1u64 << 32) - 10;
        let stamp = Stamp::at(before);
        assert_eq!(stamp.elapsed(before + 25), 25);
    }
}
