//! One room's line: deliver what begins at `last + 1`, drop what ends at or below `last`,
//! hold the rest, ask for what is missing.
//!
//! ```text
//!            ring (recent frames)        last      hole     held        head
//!   ─────[…][…][…][…][…][…][…][…][…][…]───┤ . . . . . . . [….][…] . . . ├──▶ seq
//!   1                                     └ everything up to here went to the cores
//! ```
//!
//! Calling order: `offer` frames as they come (two paths, in any order, repeated, with
//! losses) and take what became deliverable; `saw_head` when somebody says that the room
//! is longer; `poll_ask` for what to read from logic, then `handle_range` or
//! `handle_range_failed`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use corecast_proto::ids::{Position, RoomId};

use super::wire::Wire;

/// A frame of a line. Never split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
    /// Encoded once.
    pub wire: Wire,
    /// On `global`: the room it creates.
    pub creates: Option<Arc<Creation>>,
}

/// What a `serverCreateRoom` frame of `global` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// The new room.
    pub room_id: RoomId,
    /// Epoch its line begins with.
    pub epoch: u64,
    /// Everybody is a member.
    pub everyone: bool,
}

/// Sizes of a line's buffers.
#[derive(Clone, Copy, Debug)]
pub struct LineLimits {
    /// Frames in the ring.
    pub ring_frames: usize,
    /// Bytes in the ring.
    pub ring_bytes: usize,
    /// Frames held behind a hole; above it payloads are dropped and the head is kept.
    pub held_frames: usize,
    /// Bytes held behind a hole.
    pub held_bytes: usize,
    /// Milliseconds a hole may wait for its frame before it is read.
    pub hole_ms: u64,
}

/// What became of an offered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It, and perhaps held ones behind it, can be delivered.
    Delivered,
    /// Everything in it was delivered before.
    Repeat,
    /// Behind a hole: kept, or its payload dropped and its numbers remembered.
    Held,
    /// Of a lower epoch.
    OldEpoch,
    /// Of a higher epoch: the line must be reset from a snapshot.
    NewEpoch,
}

/// What to read from logic: the frames after `after`, up to `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Exclusive.
    pub after: u64,
    /// Inclusive.
    pub up_to: u64,
}

/// The line of one room.
#[derive(Debug)]
pub struct Line {
    at: Position,
    head: u64,
    held: BTreeMap<u64, Frame>,
    held_bytes: usize,
    ring: VecDeque<Frame>,
    ring_bytes: usize,
    // Where the ring begins: everything above this number up to `at.seq` is in it.
    ring_after: u64,
    hole_since: Option<u64>,
    ask: AskState,
    limits: LineLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskState {
    Idle,
    InFlight,
    // Not before this time: the last one failed.
    BackOff(u64),
}

// After a failed read; short, because members wait, and logic's client has its own breaker.
const ASK_BACK_OFF_MS: u64 = 200;

impl Line {
    /// Opens a line at a place: everything up to it is somebody else's.
    pub fn open(at: Position, limits: LineLimits) -> Self {
        Self {
            at,
            head: at.seq,
            held: BTreeMap::new(),
            held_bytes: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            ring_after: at.seq,
            hole_since: None,
            ask: AskState::Idle,
            limits,
        }
    }

    /// Epoch, and the last number that went to the cores.
    pub fn at(&self) -> Position {
        self.at
    }

    /// The highest number known to exist in this epoch.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Takes a frame; what became deliverable is appended to `out`, in order.
    pub fn offer(&mut self, epoch: u64, frame: Frame, now_ms: u64, out: &mut Vec<Frame>) -> Offered {
        if epoch < self.at.epoch {
            return Offered::OldEpoch;
        }
        if epoch > self.at.epoch {
            return Offered::NewEpoch;
        }
        self.head = self.head.max(frame.last);
        if frame.last <= self.at.seq {
            return Offered::Repeat;
        }
        if frame.first == self.at.seq + 1 {
            self.deliver(frame, out);
            self.release_held(now_ms, out);
            return Offered::Delivered;
        }
        if frame.first <= self.at.seq {
            // A partial overlap: a frame is never split, so the missing part is read.
            self.hole_since = Some(0);
        } else {
            self.hole_since.get_or_insert(now_ms);
            self.hold(frame);
        }
        Offered::Held
    }

    /// Somebody says the room is at least this long. The missing part is read at once.
    pub fn saw_head(&mut self, seq: u64) {
        if seq > self.head || (seq > self.at.seq && self.hole_since.is_none()) {
            self.head = self.head.max(seq);
            self.hole_since = Some(0);
        }
    }

    /// Is something missing up to `seq`? Then it is read at once, not after the pause.
    pub fn hurry(&mut self, seq: u64) {
        if self.at.seq < seq {
            self.head = self.head.max(seq);
            self.hole_since = Some(0);
        }
    }

    /// What to read from logic now. At most one read is on its way.
    pub fn poll_ask(&mut self, now_ms: u64) -> Option<Ask> {
        if self.poll_timeout()? > now_ms {
            return None;
        }
        self.ask = AskState::InFlight;
        let first_held = self.held.keys().next().copied().unwrap_or(u64::MAX);
        Some(Ask { after: self.at.seq, up_to: self.head.min(first_held - 1) })
    }

    /// When `poll_ask` has something to say.
    pub fn poll_timeout(&self) -> Option<u64> {
        let due = match self.hole_since {
            Some(0) => 0,
            Some(since) => since + self.limits.hole_ms,
            None => return None,
        };
        match self.ask {
            AskState::Idle => Some(due),
            AskState::BackOff(until) => Some(due.max(until)),
            AskState::InFlight => None,
        }
    }

    /// The answer to `poll_ask`, of the line's own epoch (another one is a reset).
    pub fn handle_range(&mut self, head: u64, frames: Vec<Frame>, now_ms: u64, out: &mut Vec<Frame>) {
        self.ask = AskState::Idle;
        let before = self.at.seq;
        for frame in frames {
            self.offer(self.at.epoch, frame, now_ms, out);
        }
        self.head = self.head.max(head);
        if self.at.seq >= self.head {
            self.hole_since = None;
        } else if self.at.seq > before {
            // Went on, but more is there: read on without a pause.
            self.hole_since = Some(0);
        } else {
            self.ask = AskState::BackOff(now_ms + ASK_BACK_OFF_MS);
        }
    }

    /// Logic could not be asked.
    pub fn handle_range_failed(&mut self, now_ms: u64) {
        self.ask = AskState::BackOff(now_ms + ASK_BACK_OFF_MS);
    }

    /// The frames after `seq` up to the line's place, if the ring reaches back to it and a
    /// frame ends there.
    pub fn frames_after(&self, seq: u64) -> Option<impl Iterator<Item = &Frame>> {
        if seq > self.at.seq || seq < self.ring_after {
            return None;
        }
        let from = self.ring.partition_point(|frame| frame.last <= seq);
        let at_frame_end = self.ring.get(from).is_none_or(|frame| frame.first == seq + 1);
        at_frame_end.then(|| self.ring.range(from..))
    }

    fn deliver(&mut self, frame: Frame, out: &mut Vec<Frame>) {
        self.at.seq = frame.last;
        self.ring_bytes += frame.wire.len();
        self.ring.push_back(frame.clone());
        while self.ring.len() > self.limits.ring_frames || self.ring_bytes > self.limits.ring_bytes {
            // A frame larger than the ring leaves it empty: then nobody is served from it.
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.wire.len();
            self.ring_after = oldest.last;
        }
        out.push(frame);
    }

    fn release_held(&mut self, now_ms: u64, out: &mut Vec<Frame>) {
        let mut overlap = false;
        while let Some((&first, _)) = self.held.first_key_value() {
            if first > self.at.seq + 1 {
                break;
            }
            let (_, frame) = self.held.pop_first().expect("it was there a line ago");
            self.held_bytes -= frame.wire.len();
            if first == self.at.seq + 1 {
                self.deliver(frame, out);
            } else if frame.last > self.at.seq {
                overlap = true;
            }
        }
        self.hole_since = if self.at.seq >= self.head {
            None
        } else if overlap {
            Some(0)
        } else {
            Some(now_ms)
        };
    }

    fn hold(&mut self, frame: Frame) {
        let full = self.held.len() >= self.limits.held_frames
            || self.held_bytes + frame.wire.len() > self.limits.held_bytes;
        if full {
            // The payload is in logic; the head says that it is missing.
            return;
        }
        let length = frame.wire.len();
        let longer_known = self.held.get(&frame.first).is_some_and(|known| known.last >= frame.last);
        if !longer_known {
            self.held_bytes += length;
            if let Some(shorter) = self.held.insert(frame.first, frame) {
                self.held_bytes -= shorter.wire.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LineLimits =
        LineLimits { ring_frames: 4, ring_bytes: 1 << 20, held_frames: 3, held_bytes: 1 << 20, hole_ms: 500 };

    fn line() -> Line {
        Line::open(Position { epoch: 7, seq: 10 }, LIMITS)
    }

    fn frame(first: u64, last: u64) -> Frame {
        Frame { first, last, wire: Wire::text(format!("{first}-{last}").as_bytes()), creates: None }
    }

    fn offer(line: &mut Line, first: u64, last: u64, now: u64) -> (Offered, Vec<u64>) {
        let mut out = Vec::new();
        let offered = line.offer(7, frame(first, last), now, &mut out);
        (offered, out.iter().map(|frame| frame.last).collect())
    }

    #[test]
    fn what_begins_at_last_plus_one_is_delivered() {
        assert_eq!(offer(&mut line(), 11, 12, 0), (Offered::Delivered, vec![12]));
    }

    #[test]
    fn what_ends_at_last_is_a_repeat() {
        assert_eq!(offer(&mut line(), 9, 10, 0), (Offered::Repeat, vec![]));
    }

    #[test]
    fn held_frames_follow_the_one_that_closes_the_hole() {
        let mut line = line();
        assert_eq!(offer(&mut line, 13, 13, 0), (Offered::Held, vec![]));
        assert_eq!(offer(&mut line, 12, 12, 0), (Offered::Held, vec![]));
        assert_eq!(offer(&mut line, 11, 11, 0), (Offered::Delivered, vec![11, 12, 13]));
        assert_eq!(line.poll_timeout(), None);
    }

    #[test]
    fn a_hole_is_read_after_its_pause_and_only_once() {
        let mut line = line();
        offer(&mut line, 13, 13, 1_000);
        assert_eq!(line.poll_ask(1_499), None);
        assert_eq!(line.poll_ask(1_500), Some(Ask { after: 10, up_to: 12 }));
        assert_eq!(line.poll_ask(9_999), None);
        let mut out = Vec::new();
        line.handle_range(13, vec![frame(11, 12)], 1_600, &mut out);
        assert_eq!(out.iter().map(|frame| frame.last).collect::<Vec<_>>(), [12, 13]);
    }

    #[test]
    fn a_partial_overlap_is_read_at_once() {
        let mut line = line();
        assert_eq!(offer(&mut line, 9, 12, 1_000).0, Offered::Held);
        assert_eq!(line.poll_ask(1_000), Some(Ask { after: 10, up_to: 12 }));
    }

    #[test]
    fn overflow_drops_payloads_and_keeps_the_head() {
        let mut line = line();
        for seq in 12..=20 {
            offer(&mut line, seq, seq, 1_000);
        }
        assert_eq!(line.head(), 20);
        assert_eq!(line.poll_ask(1_500), Some(Ask { after: 10, up_to: 11 }));
        let mut out = Vec::new();
        line.handle_range(20, vec![frame(11, 11)], 1_500, &mut out);
        assert_eq!(line.at().seq, 14);
        assert_eq!(line.poll_ask(1_500), Some(Ask { after: 14, up_to: 20 }));
    }

    #[test]
    fn epochs_are_ordered() {
        let mut line = line();
        let mut out = Vec::new();
        assert_eq!(line.offer(6, frame(11, 11), 0, &mut out), Offered::OldEpoch);
        assert_eq!(line.offer(8, frame(1, 1), 0, &mut out), Offered::NewEpoch);
        assert!(out.is_empty());
    }

    #[test]
    fn the_ring_answers_only_where_it_reaches_and_a_frame_ends() {
        let mut line = line();
        for seq in (11..=19).step_by(2) {
            offer(&mut line, seq, seq + 1, 0);
        }
        let after = |line: &Line, seq| {
            line.frames_after(seq).map(|frames| frames.map(|frame| frame.last).collect::<Vec<_>>())
        };
        assert_eq!(after(&line, 11), None, "trimmed");
        assert_eq!(after(&line, 12), Some(vec![14, 16, 18, 20]));
        assert_eq!(after(&line, 15), None, "inside a frame");
        assert_eq!(after(&line, 20), Some(vec![]));
        assert_eq!(after(&line, 21), None, "above the line");
    }

    #[test]
    fn a_failed_read_is_repeated_after_a_pause() {
        let mut line = line();
        line.saw_head(12);
        assert!(line.poll_ask(1_000).is_some());
        line.handle_range_failed(1_000);
        assert_eq!(line.poll_ask(1_199), None);
        assert!(line.poll_ask(1_200).is_some());
    }
}
