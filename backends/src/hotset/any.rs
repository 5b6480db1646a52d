//! [`AnyHotSet`] answers by asking the hot set that was chosen at start.

use std::time::Duration;

use bytes::Bytes;
use corecast_proto::ids::{Position, RoomId};

use super::*;

macro_rules! delegate {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl HotSet for AnyHotSet {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer, HotSetError> {
                match self {
                    Self::Memory(hot_set) => hot_set.$name($($argument),*).await,
                    #[cfg(feature = "redis")]
                    Self::Redis(hot_set) => hot_set.$name($($argument),*).await,
                }
            })*

            async fn sessions(&self, hashes: &[SessionHash]) -> Vec<Result<SessionEntry, HotSetError>> {
                match self {
                    Self::Memory(hot_set) => hot_set.sessions(hashes).await,
                    #[cfg(feature = "redis")]
                    Self::Redis(hot_set) => hot_set.sessions(hashes).await,
                }
            }

            fn counters(&self) -> HotSetCounters {
                match self {
                    Self::Memory(hot_set) => HotSet::counters(hot_set),
                    #[cfg(feature = "redis")]
                    Self::Redis(hot_set) => hot_set.counters(),
                }
            }
        }
    };
}

delegate! {
    fn session(hash: &SessionHash) -> SessionEntry;
    fn fill_session(hash: &SessionHash, session: CachedSession, ttl: Duration) -> ();
    fn revoke_session(hash: &SessionHash) -> ();
    fn history(room_id: &RoomId, epoch: u64, before: u64, count: u32) -> Option<(u64, Vec<Message>)>;
    fn append_history(room_id: &RoomId, epoch: u64, messages: &[Message]) -> ();
    fn begin_rebuild(room_id: &RoomId, ttl: Duration) -> bool;
    fn rebuild_history(room_id: &RoomId, head: Position, messages: &[Message]) -> ();
    fn is_unknown_room(room_id: &str) -> bool;
    fn mark_unknown_room(room_id: &str) -> ();
    fn set_route(user_id: &str, gateway: &GatewayRoute) -> ();
    fn drop_route(user_id: &str, gateway: &GatewayRoute) -> ();
    fn routes(user_id: &str) -> Vec<GatewayRoute>;
    fn push_offline(user_id: &str, frame: Bytes, max: usize) -> ();
    fn take_offline(user_id: &str) -> Vec<Bytes>;
}
