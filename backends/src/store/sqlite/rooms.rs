//! Rooms: seeds, creation, epochs.

use bytes::Bytes;
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use corecast_proto::job::{PushMsg, push_msg::Type};
use corecast_proto::op;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension};

use super::outbox;
use super::row::{ROOM, bytes, integer, kind_number, now_ms, room, unsigned};
use crate::store::{CreateRoom, NewRoom, OutboxRecord, OutboxRow, Room, RoomKind, SeedRoom, StoreError};

pub(super) fn seed(conn: &Connection, seeds: &[SeedRoom]) -> Result<(), StoreError> {
    for seed in seeds {
        if conn.prepare_cached("SELECT 1 FROM rooms WHERE id = ?1")?.exists((bytes(&seed.id),))? {
            continue;
        }
        if named(conn, &seed.name)? {
            return Err(StoreError::Fatal(format!(
                "room {:?} of the configuration: another room has the name {:?}",
                seed.id, seed.name
            )));
        }
        insert(
            conn,
            &Room {
                id: RoomId::from(seed.id.as_str()),
                name: seed.name.clone(),
                creator_id: String::new(),
                creator_username: String::new(),
                create_time: seed.now_ms,
                update_time: seed.now_ms,
                kind: RoomKind::Default,
                head: Position { epoch: seed.epoch, seq: 0 },
                global_seq: None,
            },
            None,
        )?;
    }
    Ok(())
}

pub(super) fn create(conn: &Connection, new: &NewRoom) -> Result<CreateRoom, StoreError> {
    if let Some(first) = by_key(conn, &new.creator_id, &new.key)? {
        return Ok(CreateRoom::Repeated(first));
    }
    if named(conn, &new.name)? {
        return Ok(CreateRoom::NameTaken);
    }
    let kind = match new.kind {
        RoomKind::Default if defaults(conn)? >= new.default_max => new.default_overflow,
        kind => kind,
    };
    let global = match kind {
        RoomKind::Private => None,
        RoomKind::Default | RoomKind::Public => Some(advance_global(conn)?),
    };
    let room = Room {
        id: RoomId::from(new.id.as_str()),
        name: new.name.clone(),
        creator_id: new.creator_id.clone(),
        creator_username: new.creator_username.clone(),
        create_time: new.now_ms,
        update_time: new.now_ms,
        kind,
        head: Position { epoch: new.epoch, seq: 0 },
        global_seq: global.map(|position| position.seq),
    };
    insert(conn, &room, Some(&new.key))?;
    let outbox = global.map(|position| announce(conn, new, &room, position)).transpose()?;
    Ok(CreateRoom::Created { room, outbox })
}

/// The outbox row of a creation, on the line of `global`.
fn announce(
    conn: &Connection,
    new: &NewRoom,
    room: &Room,
    position: Position,
) -> Result<OutboxRow, StoreError> {
    let push = PushMsg {
        r#type: Type::Broadcast.into(),
        operation: op::ROOM_CREATED,
        room: GLOBAL.to_owned(),
        msg: (new.frame)(room),
        epoch: integer(position.epoch),
        first_seq: integer(position.seq),
        count: 1,
        ..PushMsg::default()
    };
    let value = Bytes::from(push.encode_to_vec());
    let room_id = RoomId::from(GLOBAL);
    let record = OutboxRecord { room_id: room_id.clone(), owner: new.owner.clone(), value: value.clone() };
    Ok(OutboxRow { id: outbox::append(conn, &record)?, room_id, value })
}

/// Takes the next number of `global`.
fn advance_global(conn: &Connection) -> Result<Position, StoreError> {
    let position = conn
        .prepare_cached(
            "UPDATE rooms SET last_seq = last_seq + 1, last_ms = max(last_ms, ?2), \
             update_time = max(last_ms, ?2) WHERE id = ?1 RETURNING epoch, last_seq",
        )?
        .query_row((bytes(GLOBAL), now_ms()), |row| {
            Ok(Position { epoch: unsigned(row, 0)?, seq: unsigned(row, 1)? })
        })?;
    Ok(position)
}

fn insert(conn: &Connection, room: &Room, key: Option<&str>) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO rooms (id, name, creator_id, creator_username, kind, create_time, update_time, \
         epoch, last_seq, last_ms, global_seq, create_key) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0, ?9, ?10)",
    )?
    .execute((
        bytes(room.id.as_str()),
        bytes(&room.name),
        bytes(&room.creator_id),
        &room.creator_username,
        kind_number(room.kind),
        room.create_time,
        room.update_time,
        integer(room.head.epoch),
        room.global_seq.map(integer),
        key.map(bytes),
    ))?;
    Ok(())
}

fn named(conn: &Connection, name: &str) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached("SELECT 1 FROM rooms WHERE name = ?1")?.exists((bytes(name),))?)
}

fn by_key(conn: &Connection, creator_id: &str, key: &str) -> Result<Option<Room>, StoreError> {
    let sql = format!("SELECT {ROOM} FROM rooms WHERE creator_id = ?1 AND create_key = ?2");
    Ok(conn.prepare_cached(&sql)?.query_row((bytes(creator_id), bytes(key)), room).optional()?)
}

/// How many default rooms there are, without `global`.
fn defaults(conn: &Connection) -> Result<u32, StoreError> {
    let count = conn
        .prepare_cached("SELECT count(*) FROM rooms WHERE kind = 0 AND id <> ?1")?
        .query_row((bytes(GLOBAL),), |row| row.get(0))?;
    Ok(count)
}

pub(super) fn new_epoch(conn: &Connection, now_ms: u64) -> Result<u64, StoreError> {
    let changed =
        conn.prepare_cached("UPDATE rooms SET epoch = max(epoch + 1, ?1)")?.execute((integer(now_ms),))?;
    Ok(changed as u64)
}
