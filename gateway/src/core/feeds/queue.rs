//! Frames of one feed that not everybody has got yet.
//!
//! ```text
//!  serial   base            base+1          base+2 = head
//!            │── frame ──────│── frame ──────│
//!  standing  3               0               997        members at each serial
//! ```
//! Every live member stands at a serial; what lies above it is what it still gets. How many
//! stand at each serial is counted exactly, so "nobody is below the head" and "everybody
//! has passed this frame" are looked up, not searched.

use std::collections::VecDeque;

use bytes::Bytes;
use corecast_proto::ids::{Position, RoomId};

use crate::core::Wire;

/// One frame and what it means.
pub(super) struct Frame {
    pub(super) what: What,
    /// Bytes of all frames up to the end of this one since the feed began.
    end_bytes: u64,
}

/// Kinds of frames.
pub(super) enum What {
    /// Numbers `first..` of a room's line.
    Numbered { room_id: RoomId, epoch: u64, first: u64, wire: Wire },
    /// A push without a number.
    Unnumbered { wire: Wire },
    /// Replaces what members hold of the room; `before` is the shard's number before it.
    Cut { room_id: RoomId, before: Position, wire: Option<Wire> },
    /// For clients with `corecast.v1` only.
    Notice { wire: Wire },
}

/// Frames that go out as one piece, `from..to`.
struct Batch {
    from: u64,
    to: u64,
    bytes: Bytes,
}

pub(super) struct Queue {
    frames: VecDeque<Frame>,
    /// Serial below the first frame.
    base: u64,
    /// Members at `base + i`; always one longer than `frames`.
    standing: VecDeque<u32>,
    live: u32,
    /// Serial of the newest frame that is not the same bytes for everybody.
    special: u64,
    /// Bytes of all frames that were ever pushed.
    pushed_bytes: u64,
    /// Members that stand at the same serial, which is nearly all of them, share one copy.
    batch: Option<Batch>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            base: 0,
            standing: VecDeque::from([0]),
            live: 0,
            special: 0,
            pushed_bytes: 0,
            batch: None,
        }
    }

    /// Serial of the newest frame.
    pub(super) fn head(&self) -> u64 {
        self.base + self.frames.len() as u64
    }

    /// Members that have not got everything.
    pub(super) fn below(&self) -> u32 {
        self.live - self.standing.back().copied().unwrap_or(0)
    }

    /// Bytes of the frames that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.frames.front().map_or(0, |front| (self.pushed_bytes - front.start_bytes()) as usize)
    }

    pub(super) fn push(&mut self, what: What) {
        self.pushed_bytes += what.wire().map_or(0, |wire| wire.len() as u64);
        if self.live == 0 {
            self.base += 1;
            return;
        }
        if !matches!(what, What::Numbered { .. } | What::Unnumbered { .. }) {
            self.special = self.head() + 1;
        }
        self.frames.push_back(Frame { what, end_bytes: self.pushed_bytes });
        self.standing.push_back(0);
    }

    /// A member begins at the head.
    pub(super) fn enter(&mut self) -> u64 {
        self.live += 1;
        if let Some(last) = self.standing.back_mut() {
            *last += 1;
        }
        self.head()
    }

    /// A member that stands at `at` ends.
    pub(super) fn leave(&mut self, at: u64) {
        self.live -= 1;
        *self.standing_at(at) -= 1;
        self.trim();
    }

    /// A member moves up.
    pub(super) fn advance(&mut self, from: u64, to: u64) {
        if from == to {
            return;
        }
        debug_assert!(from < to && to <= self.head());
        *self.standing_at(from) -= 1;
        *self.standing_at(to) += 1;
        self.trim();
    }

    /// Frames above `at`, with their serials.
    pub(super) fn above(&self, at: u64) -> impl Iterator<Item = (u64, &Frame)> {
        let skip = (at - self.base) as usize;
        self.frames.iter().skip(skip).zip(at + 1..).map(|(frame, serial)| (serial, frame))
    }

    /// Bytes of all frames above `at`.
    pub(super) fn bytes_above(&self, at: u64) -> usize {
        let skip = (at - self.base) as usize;
        self.frames.get(skip).map_or(0, |frame| (self.pushed_bytes - frame.start_bytes()) as usize)
    }

    /// Is a frame above `at` not the same bytes for everybody?
    pub(super) fn special_above(&self, at: u64) -> bool {
        self.special > at
    }

    /// The frames above `at` in one piece: at least one, and no more than `bytes_max` bytes
    /// beyond that. None of them may be special. Returns the serial it ends at.
    pub(super) fn piece(&mut self, at: u64, bytes_max: usize) -> (Bytes, u64) {
        debug_assert!(at < self.head() && !self.special_above(at));
        let skip = (at - self.base) as usize;
        let start = self.frames[skip].start_bytes();
        let fits = |frame: &Frame| frame.end_bytes - start <= bytes_max as u64;
        let count = if self.frames.back().is_some_and(fits) {
            self.frames.len() - skip
        } else {
            self.frames.iter().skip(skip).take_while(|frame| fits(frame)).count().max(1)
        };
        let to = at + count as u64;
        if let Some(batch) = &self.batch
            && (batch.from, batch.to) == (at, to)
        {
            return (batch.bytes.clone(), to);
        }
        let mut wires = self.frames.range(skip..skip + count).filter_map(|frame| frame.what.wire());
        let bytes = if count == 1 {
            wires.next().map_or_else(Bytes::new, |wire| wire.bytes().clone())
        } else {
            let length = (self.frames[skip + count - 1].end_bytes - start) as usize;
            let mut bytes = Vec::with_capacity(length);
            wires.for_each(|wire| bytes.extend_from_slice(wire.bytes()));
            Bytes::from(bytes)
        };
        self.batch = Some(Batch { from: at, to, bytes: bytes.clone() });
        (bytes, to)
    }

    fn standing_at(&mut self, at: u64) -> &mut u32 {
        &mut self.standing[(at - self.base) as usize]
    }

    /// Forgets frames that every live member has passed.
    fn trim(&mut self) {
        while self.standing.len() > 1 && self.standing[0] == 0 {
            self.standing.pop_front();
            self.frames.pop_front();
            self.base += 1;
        }
        if self.frames.is_empty() {
            self.batch = None;
            // A burst is over: an idle room keeps no memory of it.
            if self.frames.capacity() > IDLE_FRAMES {
                self.frames.shrink_to(IDLE_FRAMES);
                self.standing.shrink_to(IDLE_FRAMES);
            }
        }
    }
}

impl Frame {
    fn start_bytes(&self) -> u64 {
        self.end_bytes - self.what.wire().map_or(0, |wire| wire.len() as u64)
    }
}

impl What {
    fn wire(&self) -> Option<&Wire> {
        match self {
            Self::Numbered { wire, .. } | Self::Unnumbered { wire } | Self::Notice { wire } => Some(wire),
            Self::Cut { wire, .. } => wire.as_ref(),
        }
    }
}

/// Frames an idle feed keeps room for.
const IDLE_FRAMES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> What {
        What::Unnumbered { wire: Wire::binary(&vec![7; bytes]) }
    }

    #[test]
    fn a_frame_is_forgotten_when_the_last_live_member_passed_it() {
        let mut queue = Queue::new();
        queue.push(frame(8));
        assert_eq!((queue.head(), queue.bytes()), (1, 0), "nobody is there to get it");
        let (a, b) = (queue.enter(), queue.enter());
        queue.push(frame(8));
        queue.push(frame(8));
        assert_eq!((queue.below(), queue.bytes()), (2, 20));
        queue.advance(a, 3);
        assert_eq!((queue.below(), queue.bytes()), (1, 20));
        queue.advance(b, 2);
        assert_eq!(queue.bytes(), 10);
        queue.leave(2);
        assert_eq!((queue.below(), queue.bytes()), (0, 0));
    }

    #[test]
    fn members_at_the_same_serial_share_one_piece() {
        let mut queue = Queue::new();
        let at = queue.enter();
        queue.enter();
        queue.push(frame(8));
        queue.push(frame(9));
        let (first, to) = queue.piece(at, usize::MAX);
        let (second, _) = queue.piece(at, usize::MAX);
        assert_eq!((first.len(), to), (21, 2));
        assert_eq!(first.as_ptr(), second.as_ptr());
        queue.push(frame(1));
        assert_eq!(queue.piece(at, usize::MAX).0.len(), 24);
        assert_eq!(queue.piece(1, usize::MAX).0.len(), 14);
    }

    #[test]
    fn a_piece_is_cut_at_a_frame_but_never_empty() {
        let mut queue = Queue::new();
        let at = queue.enter();
        for _ in 0..3 {
            queue.push(frame(8));
        }
        for (max, to) in [(0, 1), (9, 1), (10, 1), (19, 1), (20, 2), (29, 2), (30, 3)] {
            assert_eq!(queue.piece(at, max).1, to, "{max}");
        }
    }

    #[test]
    fn special_frames_are_seen_from_below_only() {
        let mut queue = Queue::new();
        queue.enter();
        queue.push(frame(1));
        queue.push(What::Notice { wire: Wire::text(b"n") });
        queue.push(frame(1));
        assert!(queue.special_above(0) && queue.special_above(1));
        assert!(!queue.special_above(2));
    }
}
