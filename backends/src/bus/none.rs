//! No fast path: the log alone delivers.

use corecast_proto::ids::RoomId;

use super::{BusEvent, Subscription};

/// A subscription to nothing: never sees an event, never ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSubscription;

impl Subscription for NoSubscription {
    async fn watch(&mut self, _room_ids: &[RoomId]) {}

    async fn unwatch(&mut self, _room_ids: &[RoomId]) {}

    async fn next(&mut self) -> Option<BusEvent> {
        std::future::pending().await
    }
}
