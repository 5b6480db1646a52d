//! A hashed timer wheel of connection slots: one coarse deadline per connection, twelve bytes
//! each. A timer per connection in a runtime costs 297 bytes and 12.8 µs instead.
//!
//! ```text
//!  tick      now+1   now+2   now+3  …  now+slots
//!  bucket    7 ⇄ 9     –       4    …  1 ⇄ 2 ⇄ 3     ← whatever lies further away waits here
//! ```
//!
//! A bucket is a list through the slots, so an entry can leave it: a connection that is gone
//! keeps nothing here, however many come and go while its deadline would have lasted.
//!
//! The wheel does not know deadlines, only when to look again: a slot that fires may be
//! early in the caller's sense (its deadline moved away, or lay beyond the wheel), so the
//! caller looks at the connection and sets it again. That makes moving a deadline away free,
//! which is what a connection does with every byte it receives.

/// The wheel. A slot fires once for each time it was set; never before its time, and at most
/// one tick after it.
pub struct Wheel {
    tick_ms: u64,
    /// Last tick that was polled; buckets hold `tick + 1 ..= tick + buckets.len()`.
    tick: u64,
    /// First slot of each bucket.
    buckets: Vec<u32>,
    /// One bit per bucket, so that looking for the next deadline reads a few words.
    occupied: Vec<u64>,
    /// By slot.
    entries: Vec<Entry>,
}

/// A slot's place in the wheel.
#[derive(Clone, Copy)]
struct Entry {
    /// [`NONE`]: it is in no bucket.
    bucket: u32,
    prev: u32,
    next: u32,
}

/// No slot, or no bucket.
const NONE: u32 = u32::MAX;

impl Wheel {
    /// An empty wheel of `slots` buckets (at least 2), each `slot_ms` milliseconds wide (at
    /// least 1). Times are milliseconds on any clock that does not run backwards.
    pub fn new(now_ms: u64, slot_ms: u64, slots: usize) -> Self {
        let tick_ms = slot_ms.max(1);
        let slots = slots.max(2);
        Self {
            tick_ms,
            tick: now_ms / tick_ms,
            buckets: vec![NONE; slots],
            occupied: vec![0; slots.div_ceil(64)],
            entries: Vec::new(),
        }
    }

    /// Lets `slot` fire at the first tick at or after `at_ms`, unless it fires sooner anyway:
    /// a time that has passed fires with the next tick, one beyond the wheel with the last
    /// bucket.
    pub fn set(&mut self, slot: u32, at_ms: u64) {
        let last = self.tick + self.buckets.len() as u64;
        let tick = at_ms.div_ceil(self.tick_ms).clamp(self.tick + 1, last);
        let bucket = self.bucket(tick);
        let index = slot as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, Entry { bucket: NONE, prev: NONE, next: NONE });
        }
        let held = self.entries[index].bucket;
        if held != NONE {
            if self.ahead(held as usize) <= self.ahead(bucket) {
                return;
            }
            self.remove(slot);
        }
        let next = std::mem::replace(&mut self.buckets[bucket], slot);
        if next == NONE {
            self.occupied[bucket / 64] |= 1 << (bucket % 64);
        } else {
            self.entries[next as usize].prev = slot;
        }
        self.entries[index] = Entry { bucket: bucket as u32, prev: NONE, next };
    }

    /// Lets `slot` not fire, if it was to.
    pub fn remove(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        let Entry { bucket, prev, next } = *entry;
        if bucket == NONE {
            return;
        }
        entry.bucket = NONE;
        if next != NONE {
            self.entries[next as usize].prev = prev;
        }
        if prev != NONE {
            self.entries[prev as usize].next = next;
            return;
        }
        let bucket = bucket as usize;
        self.buckets[bucket] = next;
        if next == NONE {
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    /// Appends every slot whose time has come to `fired`, in the order of their ticks.
    /// A clock that stands still or steps back fires nothing.
    pub fn poll(&mut self, now_ms: u64, fired: &mut Vec<u32>) {
        let now = now_ms / self.tick_ms;
        if now <= self.tick {
            return;
        }
        // After a long pause each bucket is due once, not once per turn of the wheel.
        let due = (now - self.tick).min(self.buckets.len() as u64);
        for tick in self.tick + 1..=self.tick + due {
            let bucket = self.bucket(tick);
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            let mut slot = std::mem::replace(&mut self.buckets[bucket], NONE);
            while slot != NONE {
                fired.push(slot);
                let entry = &mut self.entries[slot as usize];
                entry.bucket = NONE;
                slot = entry.next;
            }
        }
        self.tick = now;
    }

    /// When to poll next, in milliseconds, not before `now_ms`. `None`: the wheel is empty.
    pub fn next(&self, now_ms: u64) -> Option<u64> {
        let start = self.bucket(self.tick + 1);
        let bucket =
            self.first_occupied(start, self.buckets.len()).or_else(|| self.first_occupied(0, start))?;
        Some(((self.tick + 1 + self.ahead(bucket)) * self.tick_ms).max(now_ms))
    }

    fn bucket(&self, tick: u64) -> usize {
        (tick % self.buckets.len() as u64) as usize
    }

    /// Ticks between the next one and this bucket's.
    fn ahead(&self, bucket: usize) -> u64 {
        let start = self.bucket(self.tick + 1);
        ((bucket + self.buckets.len() - start) % self.buckets.len()) as u64
    }

    /// First bucket of `from..to` that holds anything.
    fn first_occupied(&self, from: usize, to: usize) -> Option<usize> {
        let mut at = from;
        while at < to {
            let rest = self.occupied[at / 64] >> (at % 64);
            if rest == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            let found = at + rest.trailing_zeros() as usize;
            return (found < to).then_some(found);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn fired(wheel: &mut Wheel, now_ms: u64) -> Vec<u32> {
        let mut out = Vec::new();
        wheel.poll(now_ms, &mut out);
        out.sort_unstable();
        out
    }

    #[test]
    fn a_slot_fires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new(1_000, 100, 8);
        wheel.set(1, 1_250);
        assert_eq!(wheel.next(1_000), Some(1_300));
        assert!(fired(&mut wheel, 1_299).is_empty());
        assert_eq!(fired(&mut wheel, 1_300), [1]);
        assert!(fired(&mut wheel, 9_999).is_empty(), "it fires once");
        assert_eq!(wheel.next(9_999), None);
    }

    #[test]
    fn a_time_on_a_tick_is_not_rounded_up_further() {
        let mut wheel = Wheel::new(0, 100, 8);
        wheel.set(1, 200);
        assert!(fired(&mut wheel, 199).is_empty());
        assert_eq!(fired(&mut wheel, 200), [1]);
    }

    #[test]
    fn a_time_that_has_passed_fires_with_the_next_tick() {
        let mut wheel = Wheel::new(5_000, 100, 8);
        wheel.set(1, 0);
        wheel.set(2, 5_000);
        assert!(fired(&mut wheel, 5_099).is_empty());
        assert_eq!(fired(&mut wheel, 5_100), [1, 2]);
    }

    #[test]
    fn a_time_beyond_the_wheel_waits_in_the_last_bucket() {
        let mut wheel = Wheel::new(0, 100, 8);
        wheel.set(1, 1_000_000);
        assert_eq!(wheel.next(0), Some(800));
        assert!(fired(&mut wheel, 700).is_empty());
        assert_eq!(fired(&mut wheel, 800), [1], "early: the caller sets it again");
    }

    #[test]
    fn buckets_are_used_again_after_a_turn_of_the_wheel() {
        let mut wheel = Wheel::new(0, 10, 4);
        for round in 0..20u64 {
            let now = round * 10;
            wheel.set(round as u32, now + 30);
            let expected: Vec<u32> = if round >= 3 { vec![round as u32 - 3] } else { vec![] };
            assert_eq!(fired(&mut wheel, now), expected, "round {round}");
        }
    }

    #[test]
    fn a_long_pause_fires_everything_once() {
        let mut wheel = Wheel::new(0, 10, 100);
        for slot in 0..100 {
            wheel.set(slot, u64::from(slot) * 10);
        }
        assert_eq!(fired(&mut wheel, 1 << 40), (0..100).collect::<Vec<_>>());
        wheel.set(7, (1 << 40) + 50);
        assert_eq!(wheel.next(1 << 40), Some(((1u64 << 40) + 50).div_ceil(10) * 10));
        assert_eq!(fired(&mut wheel, (1 << 40) + 60), [7]);
    }

    #[test]
    fn a_clock_that_steps_back_fires_nothing_and_loses_nothing() {
        let mut wheel = Wheel::new(1_000, 10, 8);
        wheel.set(1, 1_020);
        assert!(fired(&mut wheel, 3).is_empty());
        assert_eq!(fired(&mut wheel, 1_020), [1]);
    }

    #[test]
    fn next_is_never_in_the_past() {
        let mut wheel = Wheel::new(0, 10, 8);
        wheel.set(1, 20);
        assert_eq!(wheel.next(500), Some(500));
    }

    #[test]
    fn a_deadline_that_comes_nearer_replaces_the_other_and_one_that_moves_away_does_not() {
        let mut wheel = Wheel::new(0, 100, 8);
        wheel.set(1, 500);
        wheel.set(1, 300);
        wheel.set(1, 700);
        assert!(fired(&mut wheel, 299).is_empty());
        assert_eq!(fired(&mut wheel, 300), [1]);
        assert!(fired(&mut wheel, 800).is_empty(), "once");
    }

    #[test]
    fn a_slot_that_was_removed_does_not_fire_and_its_neighbours_do() {
        for gone in 1..=3 {
            let mut wheel = Wheel::new(0, 100, 8);
            (1..=3).for_each(|slot| wheel.set(slot, 200));
            wheel.remove(gone);
            wheel.remove(gone);
            wheel.remove(99);
            let left: Vec<u32> = (1..=3).filter(|slot| *slot != gone).collect();
            assert_eq!(fired(&mut wheel, 200), left);
        }
        let mut wheel = Wheel::new(0, 100, 8);
        wheel.set(1, 200);
        wheel.remove(1);
        assert_eq!(wheel.next(0), None, "nothing to wake for");
    }

    /// Against a plain map of slots to due times: same slots, never early, next never late.
    #[test]
    fn it_agrees_with_a_plain_map() {
        for seed in 0..50u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let (tick_ms, slots) = (1 + random(50), 2 + random(200));
            let mut now = random(10_000);
            let mut wheel = Wheel::new(now, tick_ms, slots as usize);
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in 0..600u32 {
                let slot = random(60) as u32;
                match random(4) {
                    0 => {
                        now += random(tick_ms * slots / 2 + 1);
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, due)| **due <= now).map(|(slot, _)| *slot).collect();
                        model.retain(|_, due| *due > now);
                        assert_eq!(fired(&mut wheel, now), expected, "seed {seed} step {step}");
                    }
                    1 => {
                        wheel.remove(slot);
                        model.remove(&slot);
                    }
                    _ => {
                        let at = now + random(tick_ms * slots * 2);
                        wheel.set(slot, at);
                        // Clamped to the last bucket, as seen from the tick polled last.
                        let tick = at.div_ceil(tick_ms).clamp(wheel.tick + 1, wheel.tick + slots);
                        let due = model.entry(slot).or_insert(u64::MAX);
                        *due = (*due).min(tick * tick_ms);
                    }
                }
                let next = model.values().map(|due| (*due).max(now)).min();
                assert_eq!(wheel.next(now), next, "seed {seed} step {step}");
            }
        }
    }
}
