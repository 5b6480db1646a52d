//! The hot set inside one process.
//!
//! One map under one lock: each call touches one entry for about a microsecond, and the
//! tiers that use it share a process with it. Bounded by entries and bytes
//! ([`MemoryHotSetConfig`]); over a bound the least recently used of a few random entries
//! goes, tombstones last, and is counted. Times to live are spread by ±10 % around nine
//! tenths of what was asked (so never above it): entries filled together do not end together.

mod entries;
mod history;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use corecast_proto::ids::{Position, RoomId};
use rand::RngExt as _;
use tokio::time::Instant;

use self::entries::{Entries, Key, Value};
use self::history::History;
use super::{CachedSession, GatewayRoute, HotSet, HotSetError, SessionEntry};
use crate::store::{Message, SessionHash};

/// How long a revoked session is remembered: longer than any fill that began before.
const TOMBSTONE: Duration = Duration::from_secs(60);
/// How long an unknown room is remembered at most.
const UNKNOWN_ROOM: Duration = Duration::from_secs(2);
/// A list that nobody reads or adds to.
const HISTORY: Duration = Duration::from_secs(6 * 3600);
/// Frames for a user who does not come back; the store still has what is numbered.
const OFFLINE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A route of a connection that never ended properly.
const ROUTE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bounds of a [`MemoryHotSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHotSetConfig {
    /// Entries at most, ≥ 1. Default 1,000,000.
    pub entries_max: usize,
    /// Bytes at most, roughly counted. Default 256 MiB.
    pub bytes_max: usize,
    /// Messages of one history list at most, ≥ 1. Default 512: two full pages and a half.
    pub history_messages_max: usize,
}

impl Default for MemoryHotSetConfig {
    fn default() -> Self {
        Self { entries_max: 1_000_000, bytes_max: 256 << 20, history_messages_max: 512 }
    }
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryHotSetCounters {
    /// Entries held now, those whose time is over included until they are touched.
    pub entries: usize,
    /// Bytes held now, roughly.
    pub bytes: usize,
    /// Entries that went because of a bound.
    pub evicted: u64,
}

/// The hot set. Clones share it.
#[derive(Clone)]
pub struct MemoryHotSet {
    entries: Arc<Mutex<Entries>>,
    history_messages_max: usize,
}

impl Default for MemoryHotSet {
    fn default() -> Self {
        Self::new(MemoryHotSetConfig::default())
    }
}

impl MemoryHotSet {
    /// An empty one with these bounds.
    pub fn new(config: MemoryHotSetConfig) -> Self {
        let entries = Entries::new(config.entries_max.max(1), config.bytes_max);
        Self {
            entries: Arc::new(Mutex::new(entries)),
            history_messages_max: config.history_messages_max.max(1),
        }
    }

    /// What it holds and counted.
    pub fn counters(&self) -> MemoryHotSetCounters {
        self.with(|entries, _| entries.counters())
    }

    /// Forgets everything: a test of what "may lose" means.
    pub fn clear(&self) {
        self.with(|entries, _| entries.clear());
    }

    fn with<T>(&self, work: impl FnOnce(&mut Entries, Instant) -> T) -> T {
        let now = Instant::now();
        // Nothing panics half way through a change, so a poisoned lock is as good as any.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut entries, now)
    }
}

/// 80–100 % of it.
fn spread(ttl: Duration) -> Duration {
    ttl.mul_f64(rand::rng().random_range(0.8..=1.0))
}

fn session(entries: &mut Entries, hash: &SessionHash, now: Instant) -> SessionEntry {
    match entries.touch(&Key::Session(*hash), now) {
        Some(Value::Session(session)) => SessionEntry::Live(session.clone()),
        Some(Value::Tombstone) => SessionEntry::Tombstone,
        _ => SessionEntry::Absent,
    }
}

impl HotSet for MemoryHotSet {
    async fn session(&self, hash: &SessionHash) -> Result<SessionEntry, HotSetError> {
        Ok(self.with(|entries, now| session(entries, hash, now)))
    }

    async fn sessions(&self, hashes: &[SessionHash]) -> Vec<Result<SessionEntry, HotSetError>> {
        self.with(|entries, now| hashes.iter().map(|hash| Ok(session(entries, hash, now))).collect())
    }

    async fn fill_session(
        &self,
        hash: &SessionHash,
        session: CachedSession,
        ttl: Duration,
    ) -> Result<(), HotSetError> {
        let key = Key::Session(*hash);
        self.with(|entries, now| {
            if entries.touch(&key, now).is_none() {
                entries.put(key, Value::Session(session), now, spread(ttl));
            }
        });
        Ok(())
    }

    async fn revoke_session(&self, hash: &SessionHash) -> Result<(), HotSetError> {
        self.with(|entries, now| entries.put(Key::Session(*hash), Value::Tombstone, now, TOMBSTONE));
        Ok(())
    }

    async fn history(
        &self,
        room_id: &RoomId,
        epoch: u64,
        before: u64,
        count: u32,
    ) -> Result<Option<(u64, Vec<Message>)>, HotSetError> {
        let key = Key::History(room_id.clone(), epoch);
        // Copied after the lock is let go: a page of full messages is most of a megabyte.
        let page = self.with(|entries, now| match entries.touch(&key, now) {
            Some(Value::History(list)) => list.page(before, count),
            _ => None,
        });
        Ok(page.map(|(top, page)| (top, page.iter().map(|message| (**message).clone()).collect())))
    }

    async fn append_history(
        &self,
        room_id: &RoomId,
        epoch: u64,
        messages: &[Message],
    ) -> Result<(), HotSetError> {
        let key = Key::History(room_id.clone(), epoch);
        self.with(|entries, now| {
            // Taken out and put back: its size changes and its time begins anew.
            let Some(Value::History(mut list)) = entries.take(&key, now) else { return };
            if list.append(messages, self.history_messages_max) {
                entries.put(key, Value::History(list), now, spread(HISTORY));
            }
        });
        Ok(())
    }

    async fn begin_rebuild(&self, room_id: &RoomId, ttl: Duration) -> Result<bool, HotSetError> {
        let key = Key::Rebuild(room_id.clone());
        let first = self.with(|entries, now| {
            let first = entries.touch(&key, now).is_none();
            if first {
                entries.put(key, Value::Mark, now, ttl);
            }
            first
        });
        Ok(first)
    }

    async fn rebuild_history(
        &self,
        room_id: &RoomId,
        head: Position,
        messages: &[Message],
    ) -> Result<(), HotSetError> {
        let list = History::new(head.seq, messages, self.history_messages_max);
        let key = Key::History(room_id.clone(), head.epoch);
        self.with(|entries, now| {
            entries.take(&Key::Rebuild(room_id.clone()), now);
            entries.take(&key, now);
            if let Some(list) = list {
                entries.put(key, Value::History(list), now, spread(HISTORY));
            }
        });
        Ok(())
    }

    async fn is_unknown_room(&self, room_id: &str) -> Result<bool, HotSetError> {
        let key = Key::UnknownRoom(room_id.into());
        Ok(self.with(|entries, now| entries.touch(&key, now).is_some()))
    }

    async fn mark_unknown_room(&self, room_id: &str) -> Result<(), HotSetError> {
        let key = Key::UnknownRoom(room_id.into());
        self.with(|entries, now| entries.put(key, Value::Mark, now, spread(UNKNOWN_ROOM)));
        Ok(())
    }

    async fn set_route(&self, user_id: &str, gateway: &GatewayRoute) -> Result<(), HotSetError> {
        let key = Key::Routes(user_id.into());
        self.with(|entries, now| {
            let mut routes = match entries.take(&key, now) {
                Some(Value::Routes(routes)) => routes,
                _ => Vec::new(),
            };
            // A newer incarnation of a gateway replaces the older one.
            routes.retain(|route| route.gateway_id != gateway.gateway_id);
            routes.push(gateway.clone());
            entries.put(key, Value::Routes(routes), now, spread(ROUTE));
        });
        Ok(())
    }

    async fn drop_route(&self, user_id: &str, gateway: &GatewayRoute) -> Result<(), HotSetError> {
        let key = Key::Routes(user_id.into());
        self.with(|entries, now| {
            let Some(Value::Routes(mut routes)) = entries.take(&key, now) else { return };
            routes.retain(|route| route != gateway);
            if !routes.is_empty() {
                entries.put(key, Value::Routes(routes), now, spread(ROUTE));
            }
        });
        Ok(())
    }

    async fn routes(&self, user_id: &str) -> Result<Vec<GatewayRoute>, HotSetError> {
        let key = Key::Routes(user_id.into());
        let routes = self.with(|entries, now| match entries.touch(&key, now) {
            Some(Value::Routes(routes)) => routes.clone(),
            _ => Vec::new(),
        });
        Ok(routes)
    }

    async fn push_offline(&self, user_id: &str, frame: Bytes, max: usize) -> Result<(), HotSetError> {
        let key = Key::Offline(user_id.into());
        self.with(|entries, now| {
            let mut frames = match entries.take(&key, now) {
                Some(Value::Offline(frames)) => frames,
                _ => Default::default(),
            };
            frames.push_back(frame);
            while frames.len() > max {
                frames.pop_front();
            }
            if !frames.is_empty() {
                entries.put(key, Value::Offline(frames), now, spread(OFFLINE));
            }
        });
        Ok(())
    }

    async fn take_offline(&self, user_id: &str) -> Result<Vec<Bytes>, HotSetError> {
        let key = Key::Offline(user_id.into());
        let frames = self.with(|entries, now| match entries.take(&key, now) {
            Some(Value::Offline(frames)) => frames.into(),
            _ => Vec::new(),
        });
        Ok(frames)
    }
}
