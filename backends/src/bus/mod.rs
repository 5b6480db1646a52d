//! The fast path: logic tells the gateways what it just committed. Quick; may lose,
//! repeat and reorder. The sequencer of the gateway makes it right.

mod any;
pub mod faults;
mod inbox;
pub mod memory;
pub mod none;
#[cfg(feature = "redis")]
pub mod redis;

use std::future::Future;

use bytes::Bytes;
use corecast_proto::ids::RoomId;

pub use any::AnySubscription;
pub use inbox::{QUEUE_BYTES, QUEUE_FRAMES};

/// A committed frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusFrame {
    /// Room, or `global`.
    pub room_id: RoomId,
    /// The line's epoch.
    pub epoch: u64,
    /// Number of the first message.
    pub first_seq: u64,
    /// How many.
    pub count: u32,
    /// Operation.
    pub op: i32,
    /// The frame, encoded once by logic.
    pub frame: Bytes,
}

/// What a subscriber sees.
#[derive(Clone, Debug)]
pub enum BusEvent {
    /// A frame.
    Frame(BusFrame),
    /// The subscription was interrupted or overran: frames are missing, check the tails.
    Interrupted,
}

/// The fast path.
///
/// # Contract
/// 1. `publish` never waits for a subscriber and reports no failure: a frame that cannot be
///    handed over is dropped and counted.
/// 2. A subscriber sees frames of rooms it watches (and of `global`), each at most once in
///    undisturbed operation, whole or not at all.
/// 3. Where frames were dropped for a subscriber because it was slow or the link broke,
///    it sees [`BusEvent::Interrupted`] once, after the last frame before the gap.
/// 4. `next` loses nothing when dropped.
/// 5. When [`watch`](Subscription::watch) returns the rooms are watched, or the link is down
///    and [`BusEvent::Interrupted`] follows when it is not any more.
pub trait Bus: Clone + Send + Sync + 'static {
    /// The receiving end.
    type Subscription: Subscription;

    /// Tells whoever watches.
    fn publish(&self, frame: BusFrame) -> impl Future<Output = ()> + Send;

    /// A new subscription that watches `global` only.
    fn subscribe(&self) -> impl Future<Output = Self::Subscription> + Send;

    /// What it counted; zeros where nothing is worth counting.
    fn counters(&self) -> BusCounters {
        BusCounters::default()
    }
}

/// What a bus counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounters {
    /// Frames handed over by publishers.
    pub published: u64,
    /// Of these, dropped because the way out was down, full or broke.
    pub dropped: u64,
    /// Frames dropped because a subscriber was slow, once per subscriber.
    pub overflowed: u64,
}

/// The receiving end of a [`Bus`].
pub trait Subscription: Send + 'static {
    /// Also frames of these rooms. Waits for a round trip at most, and not at all while the
    /// link is down.
    fn watch(&mut self, room_ids: &[RoomId]) -> impl Future<Output = ()> + Send;
    /// No more frames of these rooms, at once.
    fn unwatch(&mut self, room_ids: &[RoomId]) -> impl Future<Output = ()> + Send;
    /// The next event; never ends while the bus lives.
    fn next(&mut self) -> impl Future<Output = Option<BusEvent>> + Send;
}

/// The bus that was chosen at start.
#[derive(Clone)]
pub enum AnyBus {
    /// `none:`: no fast path, the log alone delivers.
    None,
    /// In process.
    Memory(memory::MemoryBus),
    /// Pub/sub of Redis, one server or a cluster.
    #[cfg(feature = "redis")]
    Redis(redis::RedisBus),
}
