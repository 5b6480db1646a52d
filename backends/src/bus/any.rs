//! [`AnyBus`] answers by asking the bus that was chosen at start.

use corecast_proto::ids::RoomId;

use super::memory::MemorySubscription;
use super::none::NoSubscription;
use super::{AnyBus, Bus, BusEvent, BusFrame, Subscription};

impl Bus for AnyBus {
    type Subscription = AnySubscription;

    async fn publish(&self, frame: BusFrame) {
        match self {
            Self::None => {}
            Self::Memory(bus) => bus.publish(frame).await,
        }
    }

    async fn subscribe(&self) -> AnySubscription {
        match self {
            Self::None => AnySubscription::None(NoSubscription),
            Self::Memory(bus) => AnySubscription::Memory(bus.subscribe().await),
        }
    }
}

/// The receiving end of [`AnyBus`].
pub enum AnySubscription {
    /// `none:`.
    None(NoSubscription),
    /// In process.
    Memory(MemorySubscription),
}

impl Subscription for AnySubscription {
    async fn watch(&mut self, room_id: &RoomId) {
        match self {
            Self::None(subscription) => subscription.watch(room_id).await,
            Self::Memory(subscription) => subscription.watch(room_id).await,
        }
    }

    async fn unwatch(&mut self, room_id: &RoomId) {
        match self {
            Self::None(subscription) => subscription.unwatch(room_id).await,
            Self::Memory(subscription) => subscription.unwatch(room_id).await,
        }
    }

    async fn next(&mut self) -> Option<BusEvent> {
        match self {
            Self::None(subscription) => subscription.next().await,
            Self::Memory(subscription) => subscription.next().await,
        }
    }
}
