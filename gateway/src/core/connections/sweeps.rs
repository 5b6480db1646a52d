//! Walks over all connections, a piece each turn: signing a session out, a broadcast at a
//! given speed, the drain.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use corecast_proto::close::CloseCode;

use super::{Action, Connections, SWEEPS_MAX, Urgency};
use crate::core::counters::Ended;
use crate::core::session::Phase;
use crate::core::wire::Wire;

#[derive(Default)]
pub(super) struct Sweeps {
    /// Sessions the walk looks for, and how far it is.
    signed_out: HashSet<Arc<str>>,
    cursor: usize,
    /// Sessions for the next walk: this one may have passed them.
    next_signed_out: HashSet<Arc<str>>,
    broadcasts: Vec<Broadcast>,
    drain: Option<Drain>,
}

/// A push to everybody at a given speed. Who opens behind its cursor meanwhile is passed.
struct Broadcast {
    wire: Wire,
    per_second: u32,
    began_ms: u64,
    sent: u64,
    cursor: usize,
}

struct Drain {
    began_ms: u64,
    within_ms: u64,
    cursor: usize,
    /// Slots behind the cursor that wait for answers, or for frames of a pass under way.
    waiting: Vec<u32>,
}

impl Sweeps {
    pub(super) fn is_full(&self) -> bool {
        self.next_signed_out.len() >= SWEEPS_MAX
    }
}

impl Broadcast {
    /// When the next connection gets it.
    fn due_ms(&self) -> u64 {
        self.began_ms + self.sent * 1_000 / u64::from(self.per_second)
    }
}

impl Drain {
    /// Slots that should be closed by now: all after the first part of the time, so that
    /// the last ones still have time to answer.
    fn target(&self, now_ms: u64, slots: usize) -> usize {
        let elapsed = now_ms - self.began_ms;
        let spread = self.within_ms * SPREAD_PERCENT / 100;
        if elapsed >= spread {
            return slots;
        }
        (slots as u64 * elapsed / spread) as usize
    }

    /// Answers are not waited for any longer: a close still needs time to be read.
    fn is_impatient(&self, now_ms: u64) -> bool {
        now_ms - self.began_ms >= self.within_ms * ANSWERS_PERCENT / 100
    }
}

impl Connections {
    pub(super) fn is_draining(&self) -> bool {
        self.sweeps.drain.is_some()
    }

    pub(super) fn sweep_session(&mut self, sid: Arc<str>) {
        let sweeps = &mut self.sweeps;
        if sweeps.signed_out.is_empty() {
            sweeps.cursor = 0;
            sweeps.signed_out.insert(sid);
        } else {
            sweeps.next_signed_out.insert(sid);
        }
        self.sweep_signed_out();
    }

    pub(super) fn sweep_broadcast(&mut self, wire: Wire, per_second: u32) {
        if self.sweeps.broadcasts.len() >= BROADCASTS_MAX {
            self.feeds.push_all(wire);
            return;
        }
        let began_ms = self.now_ms;
        self.sweeps.broadcasts.push(Broadcast { wire, per_second, began_ms, sent: 0, cursor: 0 });
    }

    pub(super) fn drain(&mut self, within: Duration, notice: Wire) {
        if self.is_draining() {
            return;
        }
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX / 100).min(u64::MAX / 100);
        self.sweeps.drain = Some(Drain { began_ms: self.now_ms, within_ms, cursor: 0, waiting: Vec::new() });
        self.actions.push_back(Action::StopAccept);
        self.feeds.push_notice(notice);
    }

    /// A piece of each walk.
    pub(super) fn sweep(&mut self) {
        self.sweep_signed_out();
        self.sweep_broadcasts();
        self.sweep_drain();
    }

    /// When the next piece is due.
    pub(super) fn sweeps_wake_at(&self) -> Option<u64> {
        if !self.sweeps.signed_out.is_empty() {
            return Some(self.now_ms);
        }
        let broadcasts = self.sweeps.broadcasts.iter().map(Broadcast::due_ms).min();
        let drain = self.sweeps.drain.as_ref().filter(|_| self.live > 0).map(|_| self.now_ms + DRAIN_TICK_MS);
        [broadcasts, drain].into_iter().flatten().min()
    }

    fn sweep_signed_out(&mut self) {
        if self.sweeps.signed_out.is_empty() {
            return;
        }
        let end = self.slots.len().min(self.sweeps.cursor + SWEEP_SLOTS);
        for slot in self.sweeps.cursor..end {
            let conn = &self.slots[slot];
            let signed_out =
                conn.session().is_some_and(|session| self.sweeps.signed_out.contains(session.sid()));
            if signed_out {
                let code = if conn.v1 { CloseCode::SignedOut } else { CloseCode::Unauthenticated };
                self.close(slot as u32, code, "signed out", Urgency::Behind);
            }
        }
        self.sweeps.cursor = end;
        if end == self.slots.len() {
            self.sweeps.signed_out = std::mem::take(&mut self.sweeps.next_signed_out);
            self.sweeps.cursor = 0;
        }
    }

    fn sweep_broadcasts(&mut self) {
        let mut broadcasts = std::mem::take(&mut self.sweeps.broadcasts);
        broadcasts.retain_mut(|broadcast| {
            let end = self.slots.len().min(broadcast.cursor + SWEEP_SLOTS);
            while broadcast.cursor < end && broadcast.due_ms() <= self.now_ms {
                let slot = broadcast.cursor;
                broadcast.cursor += 1;
                if matches!(self.slots[slot].phase, Phase::Open(_)) {
                    self.push_to(slot as u32, &broadcast.wire);
                    broadcast.sent += 1;
                }
            }
            broadcast.cursor < self.slots.len()
        });
        self.sweeps.broadcasts = broadcasts;
    }

    /// Closes who is due. Whoever waits for answers, or has not got what a pass holds for it,
    /// gets that first, while there is time. New texts are not taken meanwhile, so nobody
    /// holds the drain up by talking.
    fn sweep_drain(&mut self) {
        let Some(drain) = &mut self.sweeps.drain else { return };
        let over = self.now_ms >= drain.began_ms + drain.within_ms;
        let impatient = drain.is_impatient(self.now_ms);
        let from = drain.cursor;
        let to = drain.target(self.now_ms, self.slots.len()).clamp(from, from + SWEEP_SLOTS);
        drain.cursor = to;
        let mut waiting = std::mem::take(&mut drain.waiting);
        waiting.extend(from as u32..to as u32);
        waiting.retain(|slot| {
            let conn = &self.slots[*slot as usize];
            let lacks = !conn.blocked && self.feeds.lacks_something(*slot);
            let waits = conn.is_upgraded() && (conn.unsettled > 0 || lacks) && !impatient;
            if !waits && !matches!(conn.phase, Phase::Handing(_)) {
                self.close(*slot, CloseCode::GoingAway, "draining", Urgency::Behind);
            }
            waits
        });
        if let Some(drain) = &mut self.sweeps.drain {
            drain.waiting = waiting;
        }
        if over && to == self.slots.len() {
            for slot in 0..self.slots.len() as u32 {
                self.end(slot, Ended::By(CloseCode::GoingAway));
            }
        }
    }
}

/// Slots of a walk in one turn.
const SWEEP_SLOTS: usize = 1_024;
/// Broadcasts that may be paced at the same time; one more goes as fast as possible.
const BROADCASTS_MAX: usize = 64;
/// Closes of a drain are spread over this part of its time.
const SPREAD_PERCENT: u64 = 60;
/// Answers to requests under way are waited for during this part of it.
const ANSWERS_PERCENT: u64 = 80;
/// How often a drain goes on.
const DRAIN_TICK_MS: u64 = 10;
