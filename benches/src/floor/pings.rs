//! Who is pinged when: each connection once a period, in the slot in which it came. Nothing
//! moves: the slots are walked in a circle.

use std::time::{Duration, Instant};

pub(super) struct Pings {
    slots: Vec<Vec<usize>>,
    start: Instant,
    /// Slots walked since the start.
    walked: u64,
}

impl Pings {
    pub(super) fn new(period_ms: u64) -> Self {
        let slots = period_ms.div_ceil(SLOT_MS).max(1) as usize;
        Self { slots: vec![Vec::new(); slots], start: Instant::now(), walked: 0 }
    }

    /// `peer` is pinged a period from now.
    pub(super) fn insert(&mut self, peer: usize) {
        let slot = self.slot(self.walked);
        self.slots[slot].push(peer);
    }

    /// The peers of the next slot whose time has come; `None`: none has.
    pub(super) fn take_due(&mut self) -> Option<&[usize]> {
        if self.walked >= self.now() {
            return None;
        }
        self.walked += 1;
        Some(&self.slots[self.slot(self.walked)])
    }

    /// Time until the next slot that has peers; `None`: nobody is there.
    pub(super) fn wait(&self) -> Option<Duration> {
        let next = (1..=self.slots.len() as u64)
            .map(|ahead| self.walked + ahead)
            .find(|tick| !self.slots[self.slot(*tick)].is_empty())?;
        // A millisecond more: a wait is cut to whole ones.
        let at = Duration::from_millis(next * SLOT_MS + 1);
        Some(at.saturating_sub(self.start.elapsed()))
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 / SLOT_MS
    }

    fn slot(&self, tick: u64) -> usize {
        (tick % self.slots.len() as u64) as usize
    }
}

/// Width of a slot.
const SLOT_MS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_due_once_a_period() {
        let mut pings = Pings::new(300);
        pings.insert(7);
        let begin = Instant::now();
        let mut due = Vec::new();
        while due.len() < 2 {
            std::thread::sleep(pings.wait().unwrap());
            while let Some(peers) = pings.take_due() {
                due.extend(peers.iter().map(|peer| (*peer, begin.elapsed().as_millis())));
            }
        }
        assert_eq!((due[0].0, due[1].0), (7, 7));
        assert!(due[0].1 >= 299 && due[1].1 >= 599, "{due:?}");
        assert!(Pings::new(300).wait().is_none());
    }
}
