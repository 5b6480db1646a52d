//! Pings, silence, stalls, closes that take too long.
//!
//! Each connection has one entry in the wheel. It is not moved when a deadline moves away:
//! when it fires, the connection is looked at and the entry made again. Only a deadline that
//! comes nearer moves it.

use corecast_proto::close::CloseCode;

use super::{Connections, Urgency, WHEEL_SLOTS, WHEEL_TICK_MS};
use crate::core::counters::Ended;
use crate::core::session::{Due, Phase, Stamp};
use crate::core::wire::Wire;

impl Connections {
    /// The time is `now_ms`: acts on every deadline that has passed. Everything that
    /// follows in this turn happens at this time. It never runs backwards.
    pub fn handle_time(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.poll(self.now_ms, &mut fired);
        for slot in fired.drain(..) {
            self.look_at(slot);
            self.wind(slot);
        }
        self.fired = fired;
        self.sweep();
    }

    /// When to call [`Connections::handle_time`] if nothing else happens.
    pub fn poll_timeout(&self) -> Option<u64> {
        let wheel = self.wheel.next(self.now_ms);
        [wheel, self.sweeps_wake_at()].into_iter().flatten().min()
    }

    /// Makes sure that the wheel fires in time for this connection's next deadline.
    pub(super) fn wind(&mut self, slot: u32) {
        let conn = &self.slots[slot as usize];
        let Some(mut left) = conn.deadline(&self.limits, self.now_ms) else { return };
        if let (Phase::Open(_), Some(wake_at)) = (&conn.phase, self.feeds.wake_at(slot))
            && wake_at > self.now_ms
        {
            left = left.min(wake_at - self.now_ms);
        }
        self.wheel.set(slot, self.now_ms + left.min(HORIZON_MS));
    }

    fn look_at(&mut self, slot: u32) {
        let may_read = self.may_read();
        let conn = &mut self.slots[slot as usize];
        match conn.due(&self.limits, self.now_ms) {
            // The silence is ours.
            Some(Due::Dead) if !may_read => conn.alive = Stamp::at(self.now_ms),
            Some(Due::Answer) => self.mark(slot),
            Some(Due::Handshake) => self.end(slot, Ended::Handshake),
            Some(Due::Dead) => self.end(slot, Ended::Dead),
            Some(Due::Over) => self.end(slot, Ended::Lost),
            Some(Due::Stalled) => {
                self.close(slot, CloseCode::TryLater, "no byte taken for too long", Urgency::Next);
            }
            Some(Due::Ping) => {
                conn.since = Stamp::at(self.now_ms);
                // Behind unsent output it would say nothing about the peer.
                if conn.outbox.is_empty() {
                    self.counters.pings += 1;
                    self.reply(slot, &Wire::ping());
                }
            }
            None => {}
        }
        if matches!(self.slots[slot as usize].phase, Phase::Open(_)) {
            self.ask_for_page(slot);
        }
    }
}

/// The wheel reaches so far ahead; what lies beyond is looked at on the way.
const HORIZON_MS: u64 = (WHEEL_SLOTS as u64 - 1) * WHEEL_TICK_MS;
