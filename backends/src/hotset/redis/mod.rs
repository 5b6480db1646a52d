//! The hot set on Redis 6 or later, one server or a cluster.
//!
//! Keys; `…` is the prefix of the URL (`corecast:`). What stands in braces decides the slot
//! in a cluster, so the keys of one room or user are always together.
//!
//! | key | type | holds | ends after |
//! |---|---|---|---|
//! | `…session:{HASH}` | string | `RUN JSON` of a session, or `revoked`; HASH: SHA-256 of the session id in hex | as filled; tombstone 60 s |
//! | `…{r:ROOM}:history:EPOCH` | stream | ids `SEQ-0`; fields `ms user name text` | 6 h after the last append |
//! | `…{r:ROOM}:rebuild` | string | somebody rebuilds the history | as asked, 10 s |
//! | `…{r:ROOM}:unknown` | string | the store does not know this room | 2 s |
//! | `…{u:USER}:routes` | hash | gateway id → incarnation | 7 days |
//! | `…{u:USER}:offline` | list | frames, the newest first | 7 days |
//!
//! Times to live are spread over 80–100 % of these (not the tombstone's nor the rebuild's).
//!
//! *Emptied or rolled back.* A server that starts again may hold an older state. A history
//! that misses messages does not reach the room's head and is not believed; the next append
//! deletes it. A session that was revoked meanwhile would be back: so an entry names the run
//! of the server that took it, and is ignored under another run.
//!
//! *Revoked while Redis is away.* The tombstone is kept here, bounded, answers for this node
//! and is written when Redis is back.

mod history;
mod revocations;
mod scripts;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use corecast_proto::ids::{Position, RoomId};
use rand::RngExt as _;
use redis::{FromRedisValue, Value, cmd};

use self::revocations::Revocations;
use self::scripts::Scripts;
use super::{CachedSession, GatewayRoute, HotSet, HotSetCounters, HotSetError, SessionEntry};
use crate::redis_nodes::{Answer, CallError, Nodes, RedisSettings};
use crate::store::{Message, SessionHash};

/// How long a revoked session is remembered: longer than any fill that began before.
const TOMBSTONE: Duration = Duration::from_secs(60);
/// How long an unknown room is remembered at most.
const UNKNOWN_ROOM: Duration = Duration::from_secs(2);
/// A list that nobody adds to.
const HISTORY: Duration = Duration::from_secs(6 * 3600);
/// Frames for a user who does not come back; the store still has what is numbered.
const OFFLINE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A route of a connection that never ended properly; gateways tell theirs every minute.
const ROUTE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Messages of one history list: two full pages and a half. Streams are trimmed by whole
/// nodes, so up to a hundred more stay.
const HISTORY_MESSAGES: usize = 512;

/// What a tombstone holds.
const REVOKED: &str = "revoked";

/// The hot set. Clones share its connections.
#[derive(Clone)]
pub struct RedisHotSet {
    shared: Arc<Shared>,
}

struct Shared {
    nodes: Nodes,
    prefix: String,
    scripts: Scripts,
    revocations: Arc<Revocations>,
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
}

impl RedisHotSet {
    /// Starts to connect and does not wait for it: while Redis is away every call fails at
    /// once. Must be called inside a tokio runtime.
    pub fn open(settings: &RedisSettings) -> Self {
        let nodes = Nodes::open(settings);
        let prefix = settings.prefix.clone();
        let revocations = Revocations::start(nodes.clone(), prefix.clone());
        let shared = Shared {
            nodes,
            prefix,
            scripts: Scripts::new(),
            revocations,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    fn room_key(&self, room_id: &str, what: &str) -> String {
        format!("{}{{r:{room_id}}}:{what}", self.shared.prefix)
    }

    fn user_key(&self, user_id: &str, what: &str) -> String {
        format!("{}{{u:{user_id}}}:{what}", self.shared.prefix)
    }

    fn found(&self, hit: bool) {
        let counter = if hit { &self.shared.hits } else { &self.shared.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a call that failed.
    fn noted(&self, result: Result<Answer, CallError>) -> Result<Answer, HotSetError> {
        result.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: impl std::fmt::Display) -> HotSetError {
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        HotSetError(error.to_string())
    }

    async fn call<T: FromRedisValue>(&self, key: &str, command: &redis::Cmd) -> Result<T, HotSetError> {
        let answer = self.noted(self.shared.nodes.call(key, command).await)?;
        self.read(answer.value)
    }

    fn read<T: FromRedisValue>(&self, value: Value) -> Result<T, HotSetError> {
        redis::from_redis_value(value).map_err(|error| self.failed(error))
    }
}

/// 80–100 % of it, in whole milliseconds, at least one.
fn spread(ttl: Duration) -> u64 {
    milliseconds(ttl.mul_f64(rand::rng().random_range(0.8..=1.0)))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX.unsigned_abs())
}

fn session_key(prefix: &str, hash: &SessionHash) -> String {
    use std::fmt::Write as _;
    let mut key = format!("{prefix}session:{{");
    for byte in hash {
        write!(key, "{byte:02x}").expect("writing to a string does not fail");
    }
    key.push('}');
    key
}

impl HotSet for RedisHotSet {
    async fn session(&self, hash: &SessionHash) -> Result<SessionEntry, HotSetError> {
        if self.shared.revocations.holds(hash) {
            return Ok(SessionEntry::Tombstone);
        }
        let key = session_key(&self.shared.prefix, hash);
        let answer = self.noted(self.shared.nodes.call(&key, cmd("GET").arg(&key)).await)?;
        let text: Option<String> = self.read(answer.value)?;
        let entry = match text.as_deref() {
            Some(REVOKED) => SessionEntry::Tombstone,
            // Another run, or another version's form: as good as none.
            Some(text) => text
                .split_once(' ')
                .filter(|(run_id, _)| **run_id == *answer.run_id)
                .and_then(|(_, json)| serde_json::from_str(json).ok())
                .map_or(SessionEntry::Absent, SessionEntry::Live),
            None => SessionEntry::Absent,
        };
        self.found(entry != SessionEntry::Absent);
        Ok(entry)
    }

    async fn fill_session(
        &self,
        hash: &SessionHash,
        session: CachedSession,
        ttl: Duration,
    ) -> Result<(), HotSetError> {
        let key = session_key(&self.shared.prefix, hash);
        let run_id = self.shared.nodes.run_id(&key).await;
        let run_id = run_id.ok_or_else(|| self.failed("redis is down"))?;
        let json = serde_json::to_string(&session).expect("a session is plain text and numbers");
        let (value, ttl) = (format!("{run_id} {json}"), spread(ttl));
        let filled = self
            .shared
            .nodes
            .run(&key, &self.shared.scripts.fill, |command| {
                command.arg(1).arg(&key).arg(&*run_id).arg(&value).arg(ttl);
            })
            .await;
        self.noted(filled).map(drop)
    }

    async fn revoke_session(&self, hash: &SessionHash) -> Result<(), HotSetError> {
        let key = session_key(&self.shared.prefix, hash);
        // Held here first: a call that is dropped half way is written later too.
        self.shared.revocations.hold(hash);
        match revocations::bury(&self.shared.nodes, &key).await {
            Ok(()) => {
                self.shared.revocations.written(hash);
                Ok(())
            }
            Err(error) => Err(self.failed(format!("tombstone is kept for later, {error}"))),
        }
    }

    async fn history(
        &self,
        room_id: &RoomId,
        epoch: u64,
        before: u64,
        count: u32,
    ) -> Result<Option<(u64, Vec<Message>)>, HotSetError> {
        let page = self.page(room_id, epoch, before, count).await?;
        self.found(page.is_some());
        Ok(page)
    }

    async fn append_history(
        &self,
        room_id: &RoomId,
        epoch: u64,
        messages: &[Message],
    ) -> Result<(), HotSetError> {
        self.append(room_id, epoch, messages).await
    }

    async fn begin_rebuild(&self, room_id: &RoomId, ttl: Duration) -> Result<bool, HotSetError> {
        let key = self.room_key(room_id.as_str(), "rebuild");
        let mut set = cmd("SET");
        set.arg(&key).arg(1).arg("NX").arg("PX").arg(milliseconds(ttl));
        let first: Option<String> = self.call(&key, &set).await?;
        Ok(first.is_some())
    }

    async fn rebuild_history(
        &self,
        room_id: &RoomId,
        head: Position,
        messages: &[Message],
    ) -> Result<(), HotSetError> {
        self.rebuild(room_id, head, messages).await
    }

    async fn is_unknown_room(&self, room_id: &str) -> Result<bool, HotSetError> {
        let key = self.room_key(room_id, "unknown");
        self.call(&key, cmd("EXISTS").arg(&key)).await
    }

    async fn mark_unknown_room(&self, room_id: &str) -> Result<(), HotSetError> {
        let key = self.room_key(room_id, "unknown");
        self.call(&key, cmd("SET").arg(&key).arg(1).arg("PX").arg(spread(UNKNOWN_ROOM))).await
    }

    async fn set_route(&self, user_id: &str, gateway: &GatewayRoute) -> Result<(), HotSetError> {
        let (key, ttl) = (self.user_key(user_id, "routes"), spread(ROUTE));
        let set = self
            .shared
            .nodes
            .run(&key, &self.shared.scripts.set_route, |command| {
                command.arg(1).arg(&key).arg(&gateway.gateway_id).arg(gateway.incarnation).arg(ttl);
            })
            .await;
        self.noted(set).map(drop)
    }

    async fn drop_route(&self, user_id: &str, gateway: &GatewayRoute) -> Result<(), HotSetError> {
        let key = self.user_key(user_id, "routes");
        let dropped = self
            .shared
            .nodes
            .run(&key, &self.shared.scripts.drop_route, |command| {
                command.arg(1).arg(&key).arg(&gateway.gateway_id).arg(gateway.incarnation);
            })
            .await;
        self.noted(dropped).map(drop)
    }

    async fn routes(&self, user_id: &str) -> Result<Vec<GatewayRoute>, HotSetError> {
        let key = self.user_key(user_id, "routes");
        let fields: Vec<(String, u64)> = self.call(&key, cmd("HGETALL").arg(&key)).await?;
        self.found(!fields.is_empty());
        let route = |(gateway_id, incarnation)| GatewayRoute { gateway_id, incarnation };
        Ok(fields.into_iter().map(route).collect())
    }

    async fn push_offline(&self, user_id: &str, frame: Bytes, max: usize) -> Result<(), HotSetError> {
        let (key, ttl) = (self.user_key(user_id, "offline"), spread(OFFLINE));
        let pushed = self
            .shared
            .nodes
            .run(&key, &self.shared.scripts.push_offline, |command| {
                command.arg(1).arg(&key).arg(&frame[..]).arg(max).arg(ttl);
            })
            .await;
        self.noted(pushed).map(drop)
    }

    async fn take_offline(&self, user_id: &str) -> Result<Vec<Bytes>, HotSetError> {
        let key = self.user_key(user_id, "offline");
        let run = self.shared.nodes.run(&key, &self.shared.scripts.take_offline, |command| {
            command.arg(1).arg(&key);
        });
        let answer = self.noted(run.await)?;
        let frames: Vec<Vec<u8>> = self.read(answer.value)?;
        Ok(frames.into_iter().rev().map(Bytes::from).collect())
    }

    fn counters(&self) -> HotSetCounters {
        HotSetCounters {
            hits: self.shared.hits.load(Ordering::Relaxed),
            misses: self.shared.misses.load(Ordering::Relaxed),
            errors: self.shared.errors.load(Ordering::Relaxed),
            revocations_held: self.shared.revocations.len() as u64,
        }
    }
}
