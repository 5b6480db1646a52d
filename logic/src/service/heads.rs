//! Where the lines of rooms stand: what a gateway compares its own with every two seconds.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::Store;
use corecast_proto::ids::RoomId;
use corecast_proto::limits::HEADS_ROOMS;
use corecast_proto::logic::{Head, HeadsReply, HeadsRequest};
use corecast_proto::refusal::Code;

use super::Service;
use crate::domain::room;
use crate::error::Failure;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Epoch, last number and kind of these rooms, `global` allowed, in one snapshot of the
    /// primary; unknown ones are absent.
    ///
    /// # Errors
    /// `TOO_LARGE`; unavailable.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn heads(&self, request: HeadsRequest) -> Result<HeadsReply, Failure> {
        if request.room_ids.len() > HEADS_ROOMS {
            return Err(Code::TooLarge.with(format!("room_ids must hold at most {HEADS_ROOMS}")).into());
        }
        let room_ids: Vec<RoomId> = request.room_ids.into_iter().map(RoomId::from).collect();
        let heads = self.ask(self.store.heads(&room_ids, request.defaults)).await?;
        let heads = heads
            .into_iter()
            .map(|head| Head {
                room_id: head.room_id.to_string(),
                epoch: head.position.epoch,
                last_seq: head.position.seq,
                kind: room::kind_number(head.kind),
            })
            .collect();
        Ok(HeadsReply { heads })
    }
}
