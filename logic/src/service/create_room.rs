//! A new room. Its creation rides the line of the reserved room `global` to every gateway.

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{CreateRoom, NewRoom, OutboxRow, Room, RoomKind, Store};
use corecast_proto::frame;
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use corecast_proto::job::PushMsg;
use corecast_proto::logic::{CreateRoomReply, CreateRoomRequest};
use corecast_proto::refusal::Code;
use prost::Message as _;

use super::hello::position;
use super::publish::publish_row;
use super::{Service, now_ms};
use crate::domain::message::KEY_BYTES;
use crate::domain::{frames, room};
use crate::error::Failure;

impl<S: Store, H: HotSet, B: Bus> Service<S, H, B> {
    /// Creates a room, or says that the name is taken. The same key answers the same room.
    ///
    /// # Errors
    /// `UNKNOWN_USER`, `BAD_INPUT`; unavailable: ask again with the same key.
    ///
    /// # Cancel safety
    /// A dropped call may have created the room; ask again with the same key.
    pub async fn create_room(&self, request: CreateRoomRequest) -> Result<CreateRoomReply, Failure> {
        room::check_room_name(&request.room_name)?;
        if request.key.is_empty() || request.key.len() > KEY_BYTES {
            return Err(Code::BadInput.with(format!("key must have 1 to {KEY_BYTES} bytes")).into());
        }
        let creator_username = self.username_or(&request.creator_id, &request.creator_username).await?;
        let now = now_ms();
        let new_room = NewRoom {
            id: format!("room-{}", uuid::Uuid::new_v4()),
            name: request.room_name,
            creator_id: request.creator_id,
            creator_username,
            kind: self.rooms.create_kind.into(),
            default_max: self.rooms.default_max,
            default_overflow: RoomKind::Public,
            key: request.key,
            epoch: now.unsigned_abs(),
            now_ms: now,
            owner: self.owner.clone(),
            frame: frames::room_created,
        };
        match self.ask(self.store.create_room(new_room)).await? {
            CreateRoom::Created { room, outbox } => {
                self.kinds.remember(room.id.to_string(), room.kind);
                if let Some(row) = &outbox {
                    publish_row(&self.bus, &self.metrics, row).await;
                }
                let place = outbox.as_ref().and_then(place_of);
                tracing::info!(room = %room.id, kind = room::kind_name(room.kind), "room created");
                Ok(created(&room, place))
            }
            CreateRoom::Repeated(room) => {
                let place = self.place_on_global(&room).await?;
                Ok(created(&room, place))
            }
            CreateRoom::NameTaken => Ok(CreateRoomReply {
                name_taken: true,
                frame: frame::create_room_taken().into(),
                ..CreateRoomReply::default()
            }),
        }
    }

    /// Where the creation of a room lies on the line of `global`, if it does.
    async fn place_on_global(&self, room: &Room) -> Result<Option<Position>, Failure> {
        let Some(seq) = room.global_seq else {
            return Ok(None);
        };
        let heads = self.ask(self.store.heads(&[RoomId::from(GLOBAL)], false)).await?;
        Ok(heads.first().map(|head| Position { epoch: head.position.epoch, seq }))
    }
}

fn place_of(row: &OutboxRow) -> Option<Position> {
    let record = PushMsg::decode(row.value.clone()).ok()?;
    Some(Position { epoch: u64::try_from(record.epoch).ok()?, seq: u64::try_from(record.first_seq).ok()? })
}

fn created(room: &Room, place: Option<Position>) -> CreateRoomReply {
    CreateRoomReply {
        refusal: None,
        name_taken: false,
        room_id: room.id.to_string(),
        kind: room::kind_number(room.kind),
        frame: frames::room_created(room),
        global: place.map(position),
    }
}
