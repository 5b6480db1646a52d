//! The list of rooms.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::Store;
use corecast_proto::logic::{Room, RoomsReply, RoomsRequest};

use super::Service;
use crate::domain::room;
use crate::error::Failure;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Every room that anybody may open, by creation.
    ///
    /// # Errors
    /// Unavailable.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn rooms(&self, _: RoomsRequest) -> Result<RoomsReply, Failure> {
        let rooms = self.ask(self.store.rooms()).await?;
        let rooms = rooms
            .into_iter()
            .filter(|found| room::is_open(found.kind))
            .map(|found| Room {
                id: found.id.to_string(),
                name: found.name,
                creator_id: found.creator_id,
                create_time: found.create_time,
                update_time: found.update_time,
                kind: room::kind_number(found.kind),
            })
            .collect();
        Ok(RoomsReply { rooms })
    }
}
