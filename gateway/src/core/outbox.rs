//! Bytes of one connection that wait for its socket. Empty it costs nothing: what the
//! socket takes at once never gets here.
//!
//! ```text
//!  front                                    back
//!  [ segment ······|written here| ··· ] [ segment ] [ segment ]
//!     one or more whole frames each, shared with other connections
//! ```
//! Only whole frames go in and a frame that was begun is always finished, so the peer's
//! stream never breaks inside one. The bound is kept by who queues: see
//! [`feeds`](super::feeds) for room frames, [`connections`](super::connections) for replies.

use std::collections::VecDeque;

use bytes::Bytes;
use corecast_proto::limits::OUTBOX_FRAME_BYTES;

use crate::config::Limits;

/// What a segment is: it decides which limit its bytes count against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Room frames and other pushes: the push budget.
    Push,
    /// Replies, control frames.
    Reply,
    /// An HTTP response: one unit, not frames.
    Http,
}

/// Whole frames, shared.
#[derive(Clone, Debug)]
pub struct Segment {
    /// At least one byte.
    pub bytes: Bytes,
    /// What it is.
    pub kind: Kind,
}

/// The queue of one connection, in order.
#[derive(Default)]
pub struct Outbox(Option<Box<Queue>>);

#[derive(Default)]
struct Queue {
    segments: VecDeque<Segment>,
    /// Bytes of the front segment that were written.
    written: usize,
    bytes: usize,
    push_bytes: usize,
    /// Segments of pushes.
    pushes: usize,
}

impl Outbox {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Bytes of pushes that wait.
    pub fn push_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.push_bytes)
    }

    /// What waits, with the memory that each segment takes beside its bytes.
    pub fn cost(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.bytes + queue.segments.len() * SEGMENT_BYTES)
    }

    /// The same of pushes alone.
    pub fn push_cost(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.push_bytes + queue.pushes * SEGMENT_BYTES)
    }

    /// Appends.
    pub fn push(&mut self, segment: Segment) {
        if segment.bytes.is_empty() {
            return;
        }
        let queue = self.0.get_or_insert_default();
        queue.bytes += segment.bytes.len();
        if segment.kind == Kind::Push {
            queue.push_bytes += segment.bytes.len();
            queue.pushes += 1;
        }
        queue.segments.push_back(segment);
    }

    /// Appends a pong. Where many segments wait already and the last of them is a pong too,
    /// it takes its place: the answer to the most recent ping is enough (RFC 6455 §5.5.3),
    /// and a flood of pings costs no memory.
    pub fn push_pong(&mut self, pong: Bytes) {
        if let Some(queue) = &mut self.0
            && queue.segments.len() >= PONGS
            && let Some(last) = queue.segments.back_mut()
            && last.kind == Kind::Reply
            && last.bytes[0] == pong[0]
        {
            queue.bytes = queue.bytes - last.bytes.len() + pong.len();
            last.bytes = pong;
            return;
        }
        self.push(Segment { bytes: pong, kind: Kind::Reply });
    }

    /// Moves at most `max` segments from the front to `out`; returns how many bytes of the
    /// first one were written already.
    pub fn take(&mut self, max: usize, out: &mut Vec<Segment>) -> usize {
        let Some(queue) = &mut self.0 else { return 0 };
        let written = std::mem::take(&mut queue.written);
        if queue.segments.len() <= max {
            out.extend(queue.segments.drain(..));
            self.0 = None;
            return written;
        }
        let mut skipped = written;
        for segment in queue.segments.drain(..max) {
            let left = segment.bytes.len() - std::mem::take(&mut skipped);
            queue.bytes -= left;
            if segment.kind == Kind::Push {
                queue.push_bytes -= left;
                queue.pushes -= 1;
            }
            out.push(segment);
        }
        written
    }

    /// The reverse of [`Outbox::take`]: `segments` go to the front, `written` bytes of them
    /// (counted from the start of the first) are done.
    pub fn put_back(&mut self, segments: &[Segment], written: usize) {
        let mut written = written;
        let mut done = 0;
        for segment in segments {
            if written < segment.bytes.len() {
                break;
            }
            written -= segment.bytes.len();
            done += 1;
        }
        let rest = &segments[done..];
        if rest.is_empty() {
            return;
        }
        let queue = self.0.get_or_insert_default();
        debug_assert_eq!(queue.written, 0, "a begun segment stays in front");
        let mut skipped = written;
        for segment in rest {
            let left = segment.bytes.len() - std::mem::take(&mut skipped);
            queue.bytes += left;
            if segment.kind == Kind::Push {
                queue.push_bytes += left;
                queue.pushes += 1;
            }
        }
        for segment in rest.iter().rev() {
            queue.segments.push_front(segment.clone());
        }
        queue.written = written;
    }

    /// Drops everything but the rest of the frame that was begun, if one was.
    pub fn keep_begun_frame(&mut self) {
        let Some(mut queue) = self.0.take() else { return };
        if queue.written == 0 {
            return;
        }
        let Some(front) = queue.segments.pop_front() else { return };
        let end = match front.kind {
            Kind::Http => front.bytes.len(),
            Kind::Push | Kind::Reply => frame_end(&front.bytes, queue.written),
        };
        if end > queue.written {
            let segment = Segment { bytes: front.bytes.slice(..end), kind: front.kind };
            self.put_back(&[segment], queue.written);
        }
    }
}

/// User memory of a peer that does not read, in bytes: what its outbox may hold and keep
/// from being freed, as a member of `rooms` rooms, with `replies` bytes of answers asked for.
///
/// ```text
///  one send, of which not the last byte was taken   push_hard_bytes
///  pushes behind it                                 push_hard_bytes
///  replies: the one begun, and those behind it      2 · replies
///  a notice and a place for each room it lags in    NOTICE_BYTES · rooms
///  the queue and the connection themselves          QUEUE_BYTES
/// ```
/// The hard limit bounds one send to a socket that takes bytes; once it is full only the soft
/// one and a page are added, which is less. A frame larger than that counts in its place.
/// What lies in the kernel is beside it: twice `socket_send_bytes` (socket(7): the kernel
/// doubles the value for its own bookkeeping) and one packet more.
pub fn stalled_bytes_max(limits: &Limits, rooms: usize, replies: usize) -> usize {
    2 * limits.push_hard_bytes + 2 * replies + NOTICE_BYTES * rooms + QUEUE_BYTES
}

/// End of the frame that holds the byte before `written`.
fn frame_end(frames: &[u8], written: usize) -> usize {
    let mut end = 0;
    while end < written {
        let Some(length) = frame_len(&frames[end..]) else { return frames.len() };
        end = (end + length).min(frames.len());
    }
    end
}

/// Length of the frame that begins here, header included; ours are never masked.
fn frame_len(frame: &[u8]) -> Option<usize> {
    Some(match *frame.get(1)? & 0x7F {
        126 => 4 + usize::from(u16::from_be_bytes(frame.get(2..4)?.try_into().ok()?)),
        127 => 10 + usize::try_from(u64::from_be_bytes(frame.get(2..10)?.try_into().ok()?)).ok()?,
        short => 2 + usize::from(short),
    })
}

/// Memory of a segment beside the bytes it shares: its place in the queue and, rounded up,
/// what an allocator takes for bytes that nobody else shares.
const SEGMENT_BYTES: usize = 64;
/// A `lagging` frame with a room id of the usual length, its segment, and the place in the
/// list of rooms that lag.
const NOTICE_BYTES: usize = 512;
/// The outbox itself with room for its segments.
const QUEUE_BYTES: usize = 64 << 10;
/// Segments behind which pongs replace each other. A peer that pings as it should never has
/// so many.
const PONGS: usize = 64;

// What is added behind a full socket: the soft limit, a page of twice that at most, and a
// frame of each kind. All of it fits the hard limit of the defaults.
const _: () = assert!(3 * (64 << 10) + OUTBOX_FRAME_BYTES <= 256 << 10);
const _: () = assert!(size_of::<Segment>() + size_of::<usize>() <= SEGMENT_BYTES);
const _: () = assert!(size_of::<Outbox>() == 8);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Wire;

    fn segment(frames: &[usize]) -> Segment {
        let mut bytes = Vec::new();
        for (index, length) in frames.iter().enumerate() {
            bytes.extend_from_slice(Wire::text(&vec![b'a' + index as u8; *length]).bytes());
        }
        Segment { bytes: bytes.into(), kind: Kind::Push }
    }

    fn all(mut outbox: Outbox) -> Vec<u8> {
        let mut out = Vec::new();
        let written = outbox.take(usize::MAX, &mut out);
        let bytes: Vec<u8> = out.iter().flat_map(|s| s.bytes.iter().copied()).collect();
        bytes[written..].to_vec()
    }

    #[test]
    fn what_was_not_written_comes_back_in_order() {
        let parts = [segment(&[3, 5]), segment(&[7]), segment(&[1])];
        let whole: Vec<u8> = parts.iter().flat_map(|s| s.bytes.iter().copied()).collect();
        for written in 0..=whole.len() {
            let mut outbox = Outbox::default();
            outbox.push(segment(&[9]));
            let behind = all({
                let mut copy = Outbox::default();
                copy.push(segment(&[9]));
                copy
            });
            outbox.put_back(&parts, written);
            let expected = [&whole[written..], &behind[..]].concat();
            assert_eq!(outbox.bytes(), expected.len(), "{written}");
            assert_eq!(outbox.push_bytes(), expected.len());
            assert_eq!(all(outbox), expected);
        }
    }

    #[test]
    fn a_bounded_take_leaves_the_rest_counted() {
        let mut outbox = Outbox::default();
        outbox.put_back(&[segment(&[4]), segment(&[4]), segment(&[4])], 2);
        assert_eq!(outbox.bytes(), 16);
        let mut out = Vec::new();
        assert_eq!(outbox.take(2, &mut out), 2);
        assert_eq!((out.len(), outbox.bytes(), outbox.push_bytes()), (2, 6, 6));
        outbox.put_back(&out, 3);
        assert_eq!((outbox.bytes(), outbox.is_empty()), (15, false));
        out.clear();
        assert_eq!(outbox.take(3, &mut out), 3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn only_the_begun_frame_survives_a_stall() {
        let parts = [segment(&[3, 200, 4]), segment(&[7])];
        // Frame ends: 5, 209 (a long header), 215.
        for (written, left) in
            [(0, 0), (1, 4), (4, 1), (5, 0), (6, 203), (208, 1), (209, 0), (210, 5), (215, 0)]
        {
            let mut outbox = Outbox::default();
            outbox.put_back(&parts, written);
            outbox.keep_begun_frame();
            assert_eq!(outbox.bytes(), left, "{written}");
            assert_eq!(outbox.is_empty(), left == 0);
        }
    }

    #[test]
    fn a_flood_of_pings_is_answered_by_its_last_one() {
        let mut outbox = Outbox::default();
        for number in 0..10_000u32 {
            outbox.push_pong(Wire::pong(&number.to_be_bytes()).bytes().clone());
        }
        assert_eq!(outbox.bytes(), PONGS * 6);
        assert_eq!(outbox.cost(), PONGS * (6 + SEGMENT_BYTES));
        let sent = all(outbox);
        assert_eq!(sent[..6], *Wire::pong(&0u32.to_be_bytes()).bytes());
        assert_eq!(sent[sent.len() - 6..], *Wire::pong(&9_999u32.to_be_bytes()).bytes());
    }

    #[test]
    fn a_pong_takes_the_place_of_a_pong_only() {
        let mut outbox = Outbox::default();
        (0..PONGS).for_each(|_| outbox.push(Segment { kind: Kind::Reply, ..segment(&[1]) }));
        outbox.push_pong(Wire::pong(b"a").bytes().clone());
        outbox.push_pong(Wire::pong(b"b").bytes().clone());
        outbox.push(Segment { kind: Kind::Reply, ..segment(&[1]) });
        outbox.push_pong(Wire::pong(b"c").bytes().clone());
        assert_eq!(outbox.bytes(), (PONGS + 3) * 3);
    }

    #[test]
    fn the_cost_of_many_small_segments_is_seen() {
        let mut outbox = Outbox::default();
        (0..10).for_each(|_| outbox.push(segment(&[1])));
        assert_eq!((outbox.push_bytes(), outbox.push_cost()), (30, 30 + 10 * SEGMENT_BYTES));
        let mut out = Vec::new();
        let written = outbox.take(4, &mut out);
        assert_eq!(outbox.push_cost(), 18 + 6 * SEGMENT_BYTES);
        outbox.put_back(&out, written + 4);
        assert_eq!(outbox.push_cost(), 26 + 9 * SEGMENT_BYTES);
    }

    #[test]
    fn replies_do_not_count_against_the_push_budget() {
        let mut outbox = Outbox::default();
        outbox.push(Segment { kind: Kind::Reply, ..segment(&[4]) });
        outbox.push(segment(&[1]));
        assert_eq!((outbox.bytes(), outbox.push_bytes()), (9, 3));
    }
}
