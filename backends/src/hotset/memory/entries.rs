//! A bounded map whose entries end by themselves.
//!
//! Keys lie in a vector too, so that a random one is found at once: over a bound a few
//! random entries are looked at and the one used longest ago goes. That needs no list
//! through all entries and comes close to true LRU.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use corecast_proto::ids::RoomId;
use rand::RngExt as _;
use tokio::time::Instant;

use super::MemoryHotSetCounters;
use super::history::History;
use crate::hotset::{CachedSession, GatewayRoute};
use crate::store::SessionHash;

/// Entries looked at for one eviction.
const SAMPLE: usize = 5;
/// What an entry costs beside its contents: key twice, map and vector slots.
const OVERHEAD: usize = 192;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Session(SessionHash),
    History(RoomId, u64),
    Rebuild(RoomId),
    UnknownRoom(RoomId),
    Routes(Box<str>),
    Offline(Box<str>),
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Session(CachedSession),
    Tombstone,
    History(History),
    Mark,
    Routes(Vec<GatewayRoute>),
    Offline(VecDeque<Bytes>),
}

impl Value {
    fn bytes(&self) -> usize {
        match self {
            Self::Session(session) => session.user_id.len() + session.username.len() + session.email.len(),
            Self::Tombstone | Self::Mark => 0,
            Self::History(list) => list.bytes(),
            Self::Routes(routes) => routes.iter().map(|route| 48 + route.gateway_id.len()).sum(),
            Self::Offline(frames) => frames.iter().map(|frame| 64 + frame.len()).sum(),
        }
    }
}

#[derive(Debug)]
struct Entry {
    value: Value,
    bytes: usize,
    ends: Instant,
    used: Instant,
    /// Where its key lies in `keys`.
    slot: usize,
}

#[derive(Debug)]
pub(super) struct Entries {
    map: HashMap<Key, Entry>,
    keys: Vec<Key>,
    bytes: usize,
    entries_max: usize,
    bytes_max: usize,
    evicted: u64,
}

impl Entries {
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { map: HashMap::new(), keys: Vec::new(), bytes: 0, entries_max, bytes_max, evicted: 0 }
    }

    /// Reads an entry and marks it used.
    pub(super) fn touch(&mut self, key: &Key, now: Instant) -> Option<&Value> {
        if self.map.get(key)?.ends <= now {
            self.remove(key);
            return None;
        }
        let entry = self.map.get_mut(key)?;
        entry.used = now;
        Some(&entry.value)
    }

    /// Removes an entry and answers it.
    pub(super) fn take(&mut self, key: &Key, now: Instant) -> Option<Value> {
        self.remove(key).filter(|entry| entry.ends > now).map(|entry| entry.value)
    }

    /// Sets an entry, then makes room if a bound is passed. What is larger than the whole
    /// set is not kept.
    pub(super) fn put(&mut self, key: Key, value: Value, now: Instant, ttl: Duration) {
        self.remove(&key);
        let bytes = OVERHEAD + value.bytes();
        if bytes > self.bytes_max {
            self.evicted += 1;
            return;
        }
        while self.map.len() >= self.entries_max || self.bytes + bytes > self.bytes_max {
            self.evict(now);
        }
        self.bytes += bytes;
        let entry = Entry { value, bytes, ends: now + ttl, used: now, slot: self.keys.len() };
        self.keys.push(key.clone());
        self.map.insert(key, entry);
    }

    pub(super) fn clear(&mut self) {
        self.map.clear();
        self.keys.clear();
        self.bytes = 0;
    }

    pub(super) fn counters(&self) -> MemoryHotSetCounters {
        MemoryHotSetCounters { entries: self.map.len(), bytes: self.bytes, evicted: self.evicted }
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.map.remove(key)?;
        self.bytes -= entry.bytes;
        self.keys.swap_remove(entry.slot);
        if let Some(moved) = self.keys.get(entry.slot)
            && let Some(moved) = self.map.get_mut(moved)
        {
            moved.slot = entry.slot;
        }
        Some(entry)
    }

    /// Removes the best of a few random entries: one whose time is over, else the one used
    /// longest ago; a tombstone only among tombstones, since losing one early lets a slow
    /// fill bring a revoked session back.
    fn evict(&mut self, now: Instant) {
        let mut random = rand::rng();
        let sampled = (0..SAMPLE).map(|_| &self.keys[random.random_range(0..self.keys.len())]);
        let victim = sampled.min_by_key(|key| {
            let entry = &self.map[*key];
            (entry.ends > now, matches!(entry.value, Value::Tombstone), entry.used)
        });
        let Some(victim) = victim.cloned() else { return };
        if self.remove(&victim).is_some_and(|entry| entry.ends > now) {
            self.evicted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn room(number: usize) -> Key {
        Key::UnknownRoom(RoomId::from(number.to_string()))
    }

    #[test]
    fn entries_stay_within_the_bound_and_what_goes_is_counted() {
        let now = Instant::now();
        let mut entries = Entries::new(10, 1 << 20);
        for number in 0..25 {
            entries.put(room(number), Value::Mark, now, LONG);
            assert!(entries.touch(&room(number), now).is_some(), "the newest is there");
        }
        let counters = entries.counters();
        assert_eq!((counters.entries, counters.evicted), (10, 15));
    }

    #[test]
    fn bytes_stay_within_the_bound() {
        let now = Instant::now();
        let mut entries = Entries::new(1000, 10_000);
        for number in 0..50 {
            let frames = VecDeque::from([Bytes::from(vec![0; 1000])]);
            entries.put(Key::Offline(number.to_string().into()), Value::Offline(frames), now, LONG);
            assert!(entries.counters().bytes <= 10_000);
        }
        assert!(entries.counters().entries >= 7, "the bound is used");
    }

    #[test]
    fn a_value_larger_than_the_bound_is_not_kept_and_evicts_nobody() {
        let now = Instant::now();
        let mut entries = Entries::new(1000, 10_000);
        entries.put(room(1), Value::Mark, now, LONG);
        let frames = VecDeque::from([Bytes::from(vec![0; 10_000])]);
        entries.put(Key::Offline("u".into()), Value::Offline(frames), now, LONG);
        assert!(entries.touch(&room(1), now).is_some());
        assert!(entries.touch(&Key::Offline("u".into()), now).is_none());
    }

    #[test]
    fn tombstones_outlive_what_can_be_filled_again() {
        let now = Instant::now();
        let mut entries = Entries::new(100, 1 << 20);
        for number in 0..50 {
            entries.put(Key::Session([number; 32]), Value::Tombstone, now, LONG);
        }
        for number in 0..1000 {
            entries.put(room(number), Value::Mark, now + Duration::from_millis(1), LONG);
        }
        let kept = (0..50).filter(|&n| entries.touch(&Key::Session([n; 32]), now).is_some()).count();
        // A sample of five can hold tombstones only (one in 32), so a few go.
        assert!(kept >= 10, "{kept} of 50 tombstones are left");
    }

    #[test]
    fn an_entry_ends_at_its_time_and_not_before() {
        let now = Instant::now();
        let mut entries = Entries::new(10, 1 << 20);
        entries.put(room(1), Value::Mark, now, LONG);
        assert!(entries.touch(&room(1), now + LONG - Duration::from_millis(1)).is_some());
        assert!(entries.touch(&room(1), now + LONG).is_none());
        assert_eq!(entries.counters().entries, 0);
        assert_eq!(entries.counters().bytes, 0);
    }
}
