//! Caches and routes. May be lost, emptied or unreachable at any time: everything stays
//! correct without it, only slower.

mod any;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use corecast_proto::ids::{Position, RoomId};
use futures::StreamExt as _;

use crate::store::{Message, SessionHash};

/// Sessions of one question that are asked for at the same time.
const SESSION_CALLS: usize = 64;

/// What a cached session says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CachedSession {
    /// Whose.
    pub user_id: String,
    /// Name when it was cached.
    pub username: String,
    /// As typed.
    pub email: String,
    /// End of the session, ms since 1970 UTC.
    pub expires_ms: i64,
}

/// What the cache knows of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEntry {
    /// Nothing: ask the store.
    Absent,
    /// Signed out a moment ago, whatever a fill says.
    Tombstone,
    /// As the store had it.
    Live(CachedSession),
}

/// The hot set could not be asked. Nobody's request fails for it: go to the store.
#[derive(Clone, Debug, thiserror::Error)]
#[error("hot set unavailable: {0}")]
pub struct HotSetError(pub String);

/// Caches and routes.
///
/// # Contract
/// 1. *May lose.* Any entry may vanish at any time; none is ever wrong for longer than the
///    rules below say.
/// 2. *Sessions.* [`fill_session`](HotSet::fill_session) sets an entry only where there is
///    none (`SET NX`), so it never replaces a tombstone; [`revoke_session`](HotSet::revoke_session)
///    replaces whatever is there by a tombstone for 60 s.
/// 3. *History.* The list of a (room, epoch) is contiguous. Only
///    [`rebuild_history`](HotSet::rebuild_history) creates it; [`append_history`](HotSet::append_history)
///    adds what begins at top + 1 and deletes the list otherwise (a repeat of its end is
///    ignored). It is trimmed from the oldest. Another epoch is another list.
/// 4. *One rebuild.* [`begin_rebuild`](HotSet::begin_rebuild) is true for one caller per
///    room until it ends or its time is over.
/// 5. *Unknown rooms* are remembered for at most 2 s.
/// 6. *Routes.* A route is removed only by the gateway incarnation that set it
///    (compare-and-delete).
/// 7. *Offline lists* keep the newest `max` entries, newest first out of `take_offline`
///    reversed: oldest first.
/// 8. *Cancel safety.* Every method may be dropped; its effect may then have happened.
pub trait HotSet: Clone + Send + Sync + 'static {
    /// What is known of a session.
    fn session(&self, hash: &SessionHash) -> impl Future<Output = Result<SessionEntry, HotSetError>> + Send;
    /// What is known of each of these sessions, in their order.
    fn sessions(
        &self,
        hashes: &[SessionHash],
    ) -> impl Future<Output = Vec<Result<SessionEntry, HotSetError>>> + Send {
        let asked = futures::stream::iter(hashes.to_vec());
        asked.map(async |hash| self.session(&hash).await).buffered(SESSION_CALLS).collect()
    }
    /// Caches what the store said, for at most `ttl`, unless there is an entry.
    fn fill_session(
        &self,
        hash: &SessionHash,
        session: CachedSession,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), HotSetError>> + Send;
    /// Leaves a tombstone.
    fn revoke_session(&self, hash: &SessionHash) -> impl Future<Output = Result<(), HotSetError>> + Send;

    /// The newest messages of a room up to (excluding) number `before` (`u64::MAX`: the
    /// newest), at most `count`, oldest first, with the list's top. `None`: no list of this
    /// epoch, or it does not hold `count` messages before there nor number 1.
    fn history(
        &self,
        room_id: &RoomId,
        epoch: u64,
        before: u64,
        count: u32,
    ) -> impl Future<Output = Result<Option<(u64, Vec<Message>)>, HotSetError>> + Send;
    /// Adds committed messages to the list of this epoch, if there is one.
    fn append_history(
        &self,
        room_id: &RoomId,
        epoch: u64,
        messages: &[Message],
    ) -> impl Future<Output = Result<(), HotSetError>> + Send;
    /// May this caller rebuild the list of the room now? Holds for at most `ttl`.
    fn begin_rebuild(
        &self,
        room_id: &RoomId,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, HotSetError>> + Send;
    /// Replaces the list; `messages` is contiguous and reaches `head` as it was read.
    fn rebuild_history(
        &self,
        room_id: &RoomId,
        head: Position,
        messages: &[Message],
    ) -> impl Future<Output = Result<(), HotSetError>> + Send;

    /// Was this room unknown a moment ago?
    fn is_unknown_room(&self, room_id: &str) -> impl Future<Output = Result<bool, HotSetError>> + Send;
    /// Remembers that the store does not know this room.
    fn mark_unknown_room(&self, room_id: &str) -> impl Future<Output = Result<(), HotSetError>> + Send;

    /// User → (gateway, incarnation).
    fn set_route(
        &self,
        user_id: &str,
        gateway: &GatewayRoute,
    ) -> impl Future<Output = Result<(), HotSetError>> + Send;
    /// Removes the route if this incarnation set it.
    fn drop_route(
        &self,
        user_id: &str,
        gateway: &GatewayRoute,
    ) -> impl Future<Output = Result<(), HotSetError>> + Send;
    /// The gateways where a user is connected.
    fn routes(&self, user_id: &str) -> impl Future<Output = Result<Vec<GatewayRoute>, HotSetError>> + Send;

    /// Keeps a frame for a user who is away; the newest `max` stay.
    fn push_offline(
        &self,
        user_id: &str,
        frame: Bytes,
        max: usize,
    ) -> impl Future<Output = Result<(), HotSetError>> + Send;
    /// Takes what was kept, oldest first.
    fn take_offline(&self, user_id: &str) -> impl Future<Output = Result<Vec<Bytes>, HotSetError>> + Send;

    /// What it counted; zeros where nothing is worth counting.
    fn counters(&self) -> HotSetCounters {
        HotSetCounters::default()
    }
}

/// What a hot set counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HotSetCounters {
    /// Sessions, history pages and routes that were there.
    pub hits: u64,
    /// Those that were not, or not all of them.
    pub misses: u64,
    /// Calls without an answer.
    pub errors: u64,
    /// Tombstones that wait for the hot set to be reachable, now.
    pub revocations_held: u64,
}

/// A gateway and its incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct GatewayRoute {
    /// `gateway.id`.
    pub gateway_id: String,
    /// Drawn at start and after a lost lease.
    pub incarnation: u64,
}

/// The hot set that was chosen at start.
#[derive(Clone)]
pub enum AnyHotSet {
    /// Embedded.
    Memory(memory::MemoryHotSet),
    /// Redis, one server or a cluster.
    #[cfg(feature = "redis")]
    Redis(redis::RedisHotSet),
}
