//! Rooms: ids, names, and kinds as the wires spell them.

use corecast_backends::store::RoomKind;
use corecast_proto::ids::GLOBAL;
use corecast_proto::limits;
use corecast_proto::logic::{self, Refusal};
use corecast_proto::refusal::Code;

/// Checks the shape of a room id that a client named.
///
/// # Errors
/// `BAD_INPUT` with the limit; `UNKNOWN_ROOM` for the reserved line of room creations.
pub fn check_room_id(room_id: &str) -> Result<(), Refusal> {
    let (max, bytes) = (limits::ROOM_ID_BYTES, room_id.len());
    if bytes == 0 || bytes > max {
        return Err(Code::BadInput.with(format!("roomId must have 1 to {max} bytes, has {bytes}")));
    }
    if room_id == GLOBAL { Err(unknown()) } else { Ok(()) }
}

/// Checks the name of a room to create.
///
/// # Errors
/// `BAD_INPUT` with the limit.
pub fn check_room_name(name: &str) -> Result<(), Refusal> {
    let (max, chars) = (limits::ROOM_NAME_CHARS, name.chars().count());
    if chars == 0 || chars > max {
        return Err(Code::BadInput.with(format!("roomName must have 1 to {max} characters, has {chars}")));
    }
    Ok(())
}

/// May anybody who names this room read it and write to it? There is no table of members
/// yet, so a private room is unknown to everybody.
pub fn is_open(kind: RoomKind) -> bool {
    !matches!(kind, RoomKind::Private)
}

/// No such room, or none that this user may see: the answer is the same.
pub fn unknown() -> Refusal {
    Code::UnknownRoom.with("no such room")
}

/// As browser frames spell it.
pub fn kind_name(kind: RoomKind) -> &'static str {
    match kind {
        RoomKind::Default => "default",
        RoomKind::Public => "public",
        RoomKind::Private => "private",
    }
}

/// As `corecast.logic.v1` spells it.
pub fn kind_number(kind: RoomKind) -> i32 {
    let kind = match kind {
        RoomKind::Default => logic::RoomKind::Default,
        RoomKind::Public => logic::RoomKind::Public,
        RoomKind::Private => logic::RoomKind::Private,
    };
    kind.into()
}

/// From `corecast.logic.v1` to browser frames.
pub fn kind_of_number(kind: i32) -> &'static str {
    match logic::RoomKind::try_from(kind) {
        Ok(logic::RoomKind::Public) => kind_name(RoomKind::Public),
        Ok(logic::RoomKind::Private) => kind_name(RoomKind::Private),
        _ => kind_name(RoomKind::Default),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_name_has_1_to_64_characters() {
        assert!(check_room_name("").is_err());
        assert!(check_room_name(&"ü".repeat(64)).is_ok());
        assert!(check_room_name(&"ü".repeat(65)).unwrap_err().message.contains("64"));
    }

    #[test]
    fn a_room_id_has_1_to_128_bytes_and_is_not_global() {
        assert!(check_room_id("").is_err());
        assert!(check_room_id(&"r".repeat(128)).is_ok());
        assert!(check_room_id(&"r".repeat(129)).is_err());
        assert_eq!(check_room_id("global").unwrap_err().code, "UNKNOWN_ROOM");
        assert!(check_room_id("Global").is_ok());
    }
}
