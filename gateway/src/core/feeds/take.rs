//! What one connection gets of one feed, and what it misses.
//!
//! | the socket | a frame is queued when | otherwise |
//! |---|---|---|
//! | takes bytes | nothing is queued, or it fits under the hard limit | it stays in the feed; the pass comes by again |
//! | is full | nothing is queued, or it fits under the soft limit | it is missed: the room is entered in the [`Lag`] |
//!
//! "Queued" counts pushes only; replies have their own limit. A connection without a lag,
//! which is nearly every one, gets all its frames as one shared piece. One with a lag is
//! served frame by frame: frames of the rooms it lags in pass by, the others are its own.

use corecast_proto::frame;
use corecast_proto::ids::{Position, RoomId};

use super::lag::Lag;
use super::queue::{Queue, What};
use crate::core::Wire;
use crate::core::counters::Counters;
use crate::core::outbox::{Kind, Segment};

/// What must be known of a connection to serve it.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Speaks `corecast.v1`.
    pub v1: bool,
    /// Its socket is full.
    pub blocked: bool,
    /// Bytes of pushes queued for it.
    pub push_bytes: usize,
    /// Limit while the socket is full.
    pub soft: usize,
    /// Limit of one send otherwise.
    pub hard: usize,
    /// Milliseconds on the shard's clock.
    pub now_ms: u64,
    /// It gets what one feed holds; the pass of the next one comes by for the rest.
    pub one_feed: bool,
}

/// Where a connection stands after a take.
pub(super) struct Taken {
    /// Serial it has reached.
    pub(super) to: u64,
    /// What it holds is void and it cannot be told: close it.
    pub(super) void: bool,
}

/// Where frames go.
pub struct Out<'a> {
    /// To the end of this.
    pub segments: &'a mut Vec<Segment>,
    /// Counted here.
    pub counters: &'a mut Counters,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    Yes,
    Later,
    Missed,
}

impl Peer {
    fn fits(&self, bytes: usize) -> Fit {
        let limit = if self.blocked { self.soft } else { self.hard };
        if self.push_bytes == 0 || self.push_bytes + bytes <= limit {
            Fit::Yes
        } else if self.blocked {
            Fit::Missed
        } else {
            Fit::Later
        }
    }

    pub(super) fn queue(&mut self, wire: &Wire, out: &mut Out<'_>) {
        self.push_bytes += wire.len();
        out.counters.frames += 1;
        out.segments.push(Segment { bytes: wire.bytes().clone(), kind: Kind::Push });
    }
}

impl Out<'_> {
    /// A frame beside the push budget.
    pub(super) fn reply(&mut self, wire: &Wire) {
        self.counters.frames += 1;
        self.segments.push(Segment { bytes: wire.bytes().clone(), kind: Kind::Reply });
    }
}

/// Gives `peer`, who stands at `at`, what it can take.
pub(super) fn take(
    queue: &mut Queue,
    at: u64,
    peer: &mut Peer,
    lag: &mut Option<Box<Lag>>,
    out: &mut Out<'_>,
) -> Taken {
    if lag.is_none()
        && !queue.special_above(at)
        && let Some(taken) = take_piece(queue, at, peer, out)
    {
        return taken;
    }
    take_frames(queue, at, peer, lag, out)
}

/// Everything in one piece, or as much as one send may carry. `None`: some of it would be
/// missed, which must be seen frame by frame.
fn take_piece(queue: &mut Queue, at: u64, peer: &mut Peer, out: &mut Out<'_>) -> Option<Taken> {
    let bytes = queue.bytes_above(at);
    let limit = if peer.blocked { peer.soft } else { peer.hard };
    let budget = limit.saturating_sub(peer.push_bytes);
    if bytes > budget && (peer.blocked || peer.push_bytes > 0) {
        return None;
    }
    let (piece, to) = queue.piece(at, budget);
    peer.push_bytes += piece.len();
    out.counters.frames += to - at;
    out.counters.deliveries += to - at;
    out.segments.push(Segment { bytes: piece, kind: Kind::Push });
    Some(Taken { to, void: false })
}

fn take_frames(
    queue: &Queue,
    at: u64,
    peer: &mut Peer,
    lag: &mut Option<Box<Lag>>,
    out: &mut Out<'_>,
) -> Taken {
    let mut to = at;
    for (serial, frame) in queue.above(at) {
        match &frame.what {
            What::Numbered { room_id, .. } if lags_in(lag, room_id) => out.counters.skipped += 1,
            What::Numbered { room_id, epoch, first, wire } => match peer.fits(wire.len()) {
                Fit::Yes => {
                    peer.queue(wire, out);
                    out.counters.deliveries += 1;
                }
                Fit::Later => break,
                Fit::Missed => {
                    out.counters.skipped += 1;
                    let reached = Position { epoch: *epoch, seq: first.saturating_sub(1) };
                    demote(lag, room_id, reached, peer, out);
                }
            },
            What::Unnumbered { wire } => match peer.fits(wire.len()) {
                Fit::Yes => {
                    peer.queue(wire, out);
                    out.counters.deliveries += 1;
                }
                Fit::Later => break,
                Fit::Missed => out.counters.dropped += 1,
            },
            What::Cut { wire: Some(wire), room_id, before } if peer.v1 => {
                if lags_in(lag, room_id) {
                    // Its place is of an older epoch, or too low: the page it asks for says so.
                    out.counters.skipped += 1;
                } else {
                    match peer.fits(wire.len()) {
                        Fit::Yes => {
                            peer.queue(wire, out);
                            out.counters.cuts += 1;
                        }
                        Fit::Later => break,
                        Fit::Missed => demote(lag, room_id, *before, peer, out),
                    }
                }
            }
            What::Cut { .. } => return Taken { to: serial, void: true },
            What::Notice { wire } if peer.v1 => match peer.fits(wire.len()) {
                Fit::Yes => peer.queue(wire, out),
                Fit::Later => break,
                Fit::Missed => out.counters.dropped += 1,
            },
            What::Notice { .. } => {}
        }
        to = serial;
    }
    Taken { to, void: false }
}

fn lags_in(lag: &Option<Box<Lag>>, room_id: &RoomId) -> bool {
    lag.as_ref().is_some_and(|lag| lag.contains(room_id))
}

fn demote(lag: &mut Option<Box<Lag>>, room_id: &RoomId, reached: Position, peer: &Peer, out: &mut Out<'_>) {
    lag.get_or_insert_default().begin(room_id.clone(), reached, peer.now_ms);
    out.counters.demoted += 1;
    // No client holds anything of `global`.
    if peer.v1 && !room_id.is_global() {
        out.reply(&Wire::text(&frame::lagging(room_id.as_str(), reached.seq)));
    }
}
