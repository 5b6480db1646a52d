//! [`AnyBus`] answers by asking the bus that was chosen at start.

use corecast_proto::ids::RoomId;

use super::memory::MemorySubscription;
use super::none::NoSubscription;
#[cfg(feature = "redis")]
use super::redis::RedisSubscription;
use super::{AnyBus, Bus, BusCounters, BusEvent, BusFrame, Subscription};

impl Bus for AnyBus {
    type Subscription = AnySubscription;

    async fn publish(&self, frame: BusFrame) {
        match self {
            Self::None => {}
            Self::Memory(bus) => bus.publish(frame).await,
            #[cfg(feature = "redis")]
            Self::Redis(bus) => bus.publish(frame).await,
        }
    }

    async fn subscribe(&self) -> AnySubscription {
        match self {
            Self::None => AnySubscription::None(NoSubscription),
            Self::Memory(bus) => AnySubscription::Memory(bus.subscribe().await),
            #[cfg(feature = "redis")]
            Self::Redis(bus) => AnySubscription::Redis(bus.subscribe().await),
        }
    }

    fn counters(&self) -> BusCounters {
        match self {
            Self::None => BusCounters::default(),
            Self::Memory(bus) => Bus::counters(bus),
            #[cfg(feature = "redis")]
            Self::Redis(bus) => bus.counters(),
        }
    }
}

/// The receiving end of [`AnyBus`].
pub enum AnySubscription {
    /// `none:`.
    None(NoSubscription),
    /// In process.
    Memory(MemorySubscription),
    /// Pub/sub of Redis.
    #[cfg(feature = "redis")]
    Redis(RedisSubscription),
}

impl Subscription for AnySubscription {
    async fn watch(&mut self, room_ids: &[RoomId]) {
        match self {
            Self::None(subscription) => subscription.watch(room_ids).await,
            Self::Memory(subscription) => subscription.watch(room_ids).await,
            #[cfg(feature = "redis")]
            Self::Redis(subscription) => subscription.watch(room_ids).await,
        }
    }

    async fn unwatch(&mut self, room_ids: &[RoomId]) {
        match self {
            Self::None(subscription) => subscription.unwatch(room_ids).await,
            Self::Memory(subscription) => subscription.unwatch(room_ids).await,
            #[cfg(feature = "redis")]
            Self::Redis(subscription) => subscription.unwatch(room_ids).await,
        }
    }

    async fn next(&mut self) -> Option<BusEvent> {
        match self {
            Self::None(subscription) => subscription.next().await,
            Self::Memory(subscription) => subscription.next().await,
            #[cfg(feature = "redis")]
            Self::Redis(subscription) => subscription.next().await,
        }
    }
}
