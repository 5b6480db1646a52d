//! `ChatRoom.Comet.Comet`: pushes of other systems, unnumbered. Delivered at most once to
//! who is connected now; every mailbox takes the push or none does.

use std::collections::BTreeSet;
use std::sync::Arc;

use corecast_proto::comet::comet_server::Comet;
use corecast_proto::comet::{
    BroadcastReply, BroadcastReq, BroadcastRoomReply, BroadcastRoomReq, PushMsgReply, PushMsgReq, RoomsReply,
    RoomsReq,
};
use corecast_proto::protocol::Proto;
use tonic::{Request, Response, Status};

use super::shared::Shared;
use crate::core::{Command, Target, Wire};

/// The service.
pub(super) struct CometService {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Comet for CometService {
    async fn push_msg(&self, request: Request<PushMsgReq>) -> Result<Response<PushMsgReply>, Status> {
        let PushMsgReq { keys, proto, .. } = request.into_inner();
        let users = users_of(keys);
        let empty = users.is_empty();
        let wire = wire_of(proto)?;
        self.push("push_msg", empty, Target::Users(users), wire)?;
        Ok(Response::new(PushMsgReply {}))
    }

    async fn broadcast(&self, request: Request<BroadcastReq>) -> Result<Response<BroadcastReply>, Status> {
        let BroadcastReq { proto, speed, .. } = request.into_inner();
        let speed = u32::try_from(speed).map_err(|_| Status::invalid_argument("speed must be at least 0"))?;
        let wire = wire_of(proto)?;
        let per_second = per_shard(speed, self.shared.cores.count());
        self.push("broadcast", false, Target::All { per_second }, wire)?;
        Ok(Response::new(BroadcastReply {}))
    }

    async fn broadcast_room(
        &self,
        request: Request<BroadcastRoomReq>,
    ) -> Result<Response<BroadcastRoomReply>, Status> {
        let BroadcastRoomReq { room_id, proto } = request.into_inner();
        let wire = wire_of(proto)?;
        let empty = room_id.is_empty();
        self.push("broadcast_room", empty, self.shared.room_target(room_id.into()), wire)?;
        Ok(Response::new(BroadcastRoomReply {}))
    }

    async fn rooms(&self, _request: Request<RoomsReq>) -> Result<Response<RoomsReply>, Status> {
        Ok(Response::new(RoomsReply { rooms: self.shared.hub.rooms().await }))
    }
}

impl CometService {
    fn push(&self, call: &str, nobody: bool, target: Target, wire: Wire) -> Result<(), Status> {
        let command = || Command::Push { target: target.clone(), wire: wire.clone() };
        let taken = nobody || self.shared.cores.offer_all(command);
        let status = if taken { "success" } else { "full" };
        self.shared.metrics.comet_calls.with_label_values(&[call, status]).inc();
        if taken { Ok(()) } else { Err(Status::resource_exhausted("a mailbox is full: nobody got it")) }
    }
}

fn wire_of(proto: Option<Proto>) -> Result<Wire, Status> {
    let proto = proto.ok_or_else(|| Status::invalid_argument("proto is missing"))?;
    Ok(Wire::of_body(&proto.body))
}

/// The users of a push, each once: a key named twice would deliver twice.
pub(super) fn users_of(keys: Vec<String>) -> Arc<[Arc<str>]> {
    keys.into_iter().map(Arc::from).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A share of `speed` connections per second; 0 stays as fast as possible, and a slow push
/// never stops: each shard serves at least one connection per second.
pub(super) fn per_shard(speed: u32, shards: usize) -> u32 {
    speed.div_ceil(u32::try_from(shards.max(1)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_shared_and_never_becomes_unlimited() {
        assert_eq!(per_shard(0, 4), 0);
        assert_eq!(per_shard(1, 4), 1);
        assert_eq!(per_shard(1000, 4), 250);
    }

    #[test]
    fn a_user_named_twice_is_reached_once() {
        let users = users_of(["b", "a", "b", "a"].map(str::to_owned).to_vec());
        assert_eq!(users.iter().map(|user| &**user).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_push_without_an_envelope_is_refused() {
        assert_eq!(wire_of(None).expect_err("refused").code(), tonic::Code::InvalidArgument);
    }
}
