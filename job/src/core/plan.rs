//! Record → push. Every gateway gets every push that it wants ([`interest`](super::interest));
//! a record that nobody can read is poison and names its reason for the dead letters.

use std::fmt;

use bytes::Bytes;
use corecast_backends::log::Token;
use corecast_proto::ids::GLOBAL;
use corecast_proto::job::{PushMsg, push_msg::Type};
use corecast_proto::limits::{JSON_INTEGER, ROOM_ID_BYTES};
use corecast_proto::push::{AllPush, Push, RoomPush, UserPush, push::Target};
use prost::Message;

/// An encoded push may not be larger, or the gateway's gRPC decoder (4 MiB) would refuse
/// the stream again and again. Far above what logic writes: 64 messages of 4 KiB, each
/// byte escaped to six.
pub const PUSH_BYTES_MAX: usize = 3 << 20;

/// Why nobody can read a record. Retrying does not help; its text goes with the dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// Not a `ChatRoom.Job.PushMsg`.
    Malformed,
    /// A type this version does not know.
    UnknownType(i32),
    /// No frame.
    Empty,
    /// Encoded size over [`PUSH_BYTES_MAX`].
    TooLarge(usize),
    /// A room record without a room, or with one longer than a room id.
    BadRoom,
    /// A room record for the reserved room.
    ReservedRoom,
    /// A push without a user id and without a room.
    NoTarget,
    /// Numbers on a push to users, or on a broadcast that is not the line of `global`.
    NumbersWithoutLine,
    /// Negative, incomplete or too large numbers.
    BadNumbers,
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not a ChatRoom.Job.PushMsg"),
            Self::UnknownType(code) => write!(f, "unknown type {code}"),
            Self::Empty => f.write_str("msg is empty"),
            Self::TooLarge(bytes) => write!(f, "{bytes} bytes, at most {PUSH_BYTES_MAX}"),
            Self::BadRoom => write!(f, "room must have 1 to {ROOM_ID_BYTES} bytes"),
            Self::ReservedRoom => f.write_str("a room record names the reserved room"),
            Self::NoTarget => f.write_str("a push needs keys or a room"),
            Self::NumbersWithoutLine => f.write_str("numbers on a record that rides no line"),
            Self::BadNumbers => f.write_str("epoch, first_seq and count do not make a range"),
        }
    }
}

/// What the record asks every gateway to do.
///
/// `server` is only a hint and is not followed: a gateway without a connection of the user
/// ignores the push, a stale hint would lose it.
///
/// # Errors
/// [`Poison`] when nobody can read the record.
pub fn plan(token: Token, value: &Bytes) -> Result<Push, Poison> {
    let record = PushMsg::decode(value.clone()).map_err(|_| Poison::Malformed)?;
    let kind = Type::try_from(record.r#type).map_err(|_| Poison::UnknownType(record.r#type))?;
    if record.msg.is_empty() {
        return Err(Poison::Empty);
    }
    let (epoch, first_seq, count) = numbers(&record)?;
    let target = target(kind, record.room, record.keys, record.speed, count > 0)?;
    let push = Push {
        target: Some(target),
        op: record.operation,
        frame: record.msg,
        epoch,
        first_seq,
        count,
        partition: token.partition,
        offset: token.offset,
    };
    match push.encoded_len() {
        bytes if bytes > PUSH_BYTES_MAX => Err(Poison::TooLarge(bytes)),
        _ => Ok(push),
    }
}

fn target(
    kind: Type,
    room: String,
    mut keys: Vec<String>,
    speed: i32,
    numbered: bool,
) -> Result<Target, Poison> {
    keys.retain(|key| !key.is_empty());
    match kind {
        Type::Push if !keys.is_empty() => match numbered {
            true => Err(Poison::NumbersWithoutLine),
            false => Ok(Target::User(UserPush { user_ids: keys })),
        },
        Type::Push if room.is_empty() => Err(Poison::NoTarget),
        // Older producers write room messages as a push with a room and no keys.
        Type::Push | Type::Room => match room.len() {
            1..=ROOM_ID_BYTES if room == GLOBAL => Err(Poison::ReservedRoom),
            1..=ROOM_ID_BYTES => Ok(Target::Room(RoomPush { room_id: room })),
            _ => Err(Poison::BadRoom),
        },
        Type::Broadcast if numbered && room != GLOBAL => Err(Poison::NumbersWithoutLine),
        // A negative speed comes from a careless producer; delivering beats refusing.
        Type::Broadcast => Ok(Target::All(AllPush { per_second: u32::try_from(speed).unwrap_or(0) })),
    }
}

/// (epoch, first_seq, count), all 0 for an unnumbered record. A record that lost one of the
/// three is refused: delivered as unnumbered it would be seen twice.
fn numbers(record: &PushMsg) -> Result<(u64, u64, u32), Poison> {
    let (epoch, first_seq, count) = (record.epoch, record.first_seq, record.count);
    if (epoch, first_seq, count) == (0, 0, 0) {
        return Ok((0, 0, 0));
    }
    let bad = |_| Poison::BadNumbers;
    let epoch = u64::try_from(epoch).map_err(bad)?;
    let first_seq = u64::try_from(first_seq).map_err(bad)?;
    let count = u32::try_from(count).map_err(bad)?;
    let in_range = epoch < JSON_INTEGER
        && first_seq >= 1
        && count >= 1
        && first_seq.checked_add(u64::from(count)).is_some_and(|end| end <= JSON_INTEGER);
    in_range.then_some((epoch, first_seq, count)).ok_or(Poison::BadNumbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Token = Token { partition: 3, offset: 41 };

    fn room_record() -> PushMsg {
        PushMsg {
            r#type: Type::Room as i32,
            operation: 4,
            room: "room-001".into(),
            msg: Bytes::from_static(b"{}"),
            epoch: 7,
            first_seq: 5,
            count: 2,
            ..Default::default()
        }
    }

    fn planned(record: PushMsg) -> Result<Push, Poison> {
        plan(TOKEN, &record.encode_to_vec().into())
    }

    #[test]
    fn room_record_goes_to_the_room_with_its_numbers_and_its_place() {
        let push = planned(room_record()).unwrap();
        assert_eq!(push.target, Some(Target::Room(RoomPush { room_id: "room-001".into() })));
        assert_eq!((push.epoch, push.first_seq, push.count), (7, 5, 2));
        assert_eq!((push.op, push.partition, push.offset), (4, 3, 41));
        assert_eq!(push.frame, Bytes::from_static(b"{}"));
    }

    #[test]
    fn push_with_room_and_no_keys_is_a_room_push() {
        let push = planned(PushMsg { r#type: Type::Push as i32, ..room_record() }).unwrap();
        assert_eq!(push.target, Some(Target::Room(RoomPush { room_id: "room-001".into() })));
        assert_eq!(push.count, 2);
    }

    fn unnumbered(kind: Type, room: &str, keys: &[&str]) -> PushMsg {
        PushMsg {
            r#type: kind as i32,
            room: room.into(),
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            epoch: 0,
            first_seq: 0,
            count: 0,
            ..room_record()
        }
    }

    #[test]
    fn keys_win_over_the_room_and_the_server_hint_is_not_followed() {
        let record =
            PushMsg { server: "gw-9".into(), ..unnumbered(Type::Push, "room-001", &["u1", "", "u2"]) };
        let target = planned(record).unwrap().target;
        assert_eq!(target, Some(Target::User(UserPush { user_ids: vec!["u1".into(), "u2".into()] })));
    }

    #[test]
    fn broadcast_goes_to_all_with_its_speed_and_numbered_only_on_global() {
        let plain = PushMsg { speed: 100, ..unnumbered(Type::Broadcast, "", &[]) };
        assert_eq!(planned(plain.clone()).unwrap().target, Some(Target::All(AllPush { per_second: 100 })));
        let careless = PushMsg { speed: -1, ..plain };
        assert_eq!(planned(careless).unwrap().target, Some(Target::All(AllPush { per_second: 0 })));

        let broadcast = PushMsg { r#type: Type::Broadcast as i32, operation: 5, ..room_record() };
        assert_eq!(planned(broadcast.clone()), Err(Poison::NumbersWithoutLine));
        let global = planned(PushMsg { room: GLOBAL.into(), ..broadcast }).unwrap();
        assert_eq!((global.target, global.count), (Some(Target::All(AllPush { per_second: 0 })), 2));
    }

    #[test]
    fn what_nobody_can_read_is_poison_with_its_reason() {
        assert_eq!(plan(TOKEN, &Bytes::from_static(&[0xff; 9])), Err(Poison::Malformed));
        let with = |change: fn(&mut PushMsg)| {
            let mut record = room_record();
            change(&mut record);
            planned(record)
        };
        assert_eq!(with(|r| r.r#type = 9), Err(Poison::UnknownType(9)));
        assert_eq!(with(|r| r.msg = Bytes::new()), Err(Poison::Empty));
        assert_eq!(with(|r| r.room.clear()), Err(Poison::BadRoom));
        assert_eq!(with(|r| r.room = GLOBAL.into()), Err(Poison::ReservedRoom));
        assert_eq!(with(|r| r.room = "x".repeat(ROOM_ID_BYTES + 1)), Err(Poison::BadRoom));
        assert!(with(|r| r.room = "x".repeat(ROOM_ID_BYTES)).is_ok());
        assert_eq!(planned(unnumbered(Type::Push, "", &[""])), Err(Poison::NoTarget));
        let users = PushMsg { r#type: 0, keys: vec!["u".into()], ..room_record() };
        assert_eq!(planned(users), Err(Poison::NumbersWithoutLine));
        assert!(matches!(
            with(|r| r.msg = vec![0; PUSH_BYTES_MAX].into()),
            Err(Poison::TooLarge(bytes)) if bytes > PUSH_BYTES_MAX
        ));
    }

    #[test]
    fn numbers_that_are_no_range_are_refused_at_the_edge() {
        let with = |epoch: i64, first_seq: i64, count: i32| {
            planned(PushMsg { epoch, first_seq, count, ..room_record() }).map(|push| push.count)
        };
        let top = JSON_INTEGER as i64;
        assert_eq!(with(7, 1, 1), Ok(1));
        assert_eq!(with(top - 1, top - 1, 1), Ok(1));
        assert_eq!(with(0, 0, 0), Ok(0));
        for bad in
            [(7, 0, 1), (7, 1, 0), (7, 0, 0), (-1, 1, 1), (7, -1, 1), (7, 1, -1), (top, 1, 1), (7, top, 1)]
        {
            assert_eq!(with(bad.0, bad.1, bad.2), Err(Poison::BadNumbers), "{bad:?}");
        }
        assert_eq!(with(7, i64::MAX, i32::MAX), Err(Poison::BadNumbers));
    }
}
