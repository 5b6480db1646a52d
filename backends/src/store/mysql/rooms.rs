//! Rooms: seeds, creation, epochs.
//!
//! Whoever makes a room first locks the row of `global`. So there is one maker at a time: the
//! numbers of `global` have no gap, the count of default rooms is true, and a name that was
//! found free is free. The unique keys decide all the same, against other programs.

use bytes::Bytes;
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use corecast_proto::job::{PushMsg, push_msg::Type};
use corecast_proto::op;
use mysql_async::Value;
use prost::Message as _;

use super::fault::Fault;
use super::outbox;
use super::row::{ROOM, bytes, integer, kind_number, position, room, take, unsigned};
use super::session::{NOW_MS, Session};
use crate::store::{CreateRoom, NewRoom, OutboxRecord, OutboxRow, Room, RoomKind, SeedRoom};

/// `global`, locked.
struct Global {
    position: Position,
    last_ms: i64,
    now_ms: i64,
}

async fn lock_global(session: &mut Session) -> Result<Global, Fault> {
    let sql = format!("SELECT epoch, last_seq, last_ms, {NOW_MS} FROM rooms WHERE id = ? FOR UPDATE");
    let row = session.row(&sql, vec![bytes(GLOBAL)]).await?;
    let mut row = row.ok_or_else(missing)?;
    Ok(Global { position: position(&mut row, 0)?, last_ms: take(&mut row, 2)?, now_ms: take(&mut row, 3)? })
}

pub(super) fn missing() -> Fault {
    Fault::Fatal("the reserved room `global` is missing: run `corecast migrate`".to_owned())
}

/// Makes the rooms that do not exist, inside the running transaction.
pub(super) async fn seed(session: &mut Session, seeds: &[SeedRoom]) -> Result<(), Fault> {
    let mut absent = Vec::new();
    for seed in seeds {
        if !exists(session, "SELECT 1 FROM rooms WHERE id = ?", &seed.id).await? {
            absent.push(seed);
        }
    }
    // Each start of each node asks; only the first one writes.
    if absent.is_empty() {
        return Ok(());
    }
    lock_global(session).await?;
    for seed in absent {
        if exists(session, "SELECT 1 FROM rooms WHERE id = ?", &seed.id).await? {
            continue;
        }
        if named(session, &seed.name).await? {
            return Err(Fault::Fatal(format!(
                "room {:?} of the configuration: another room has the name {:?}",
                seed.id, seed.name
            )));
        }
        let room = Room {
            id: RoomId::from(seed.id.as_str()),
            name: seed.name.clone(),
            creator_id: String::new(),
            creator_username: String::new(),
            create_time: seed.now_ms,
            update_time: seed.now_ms,
            kind: RoomKind::Default,
            head: Position { epoch: seed.epoch, seq: 0 },
            global_seq: None,
        };
        insert(session, &room, None).await?;
    }
    Ok(())
}

/// Makes a room inside the running transaction.
pub(super) async fn create(session: &mut Session, new: &NewRoom) -> Result<CreateRoom, Fault> {
    let global = lock_global(session).await?;
    if let Some(first) = by_key(session, &new.creator_id, &new.key).await? {
        return Ok(CreateRoom::Repeated(first));
    }
    if named(session, &new.name).await? {
        return Ok(CreateRoom::NameTaken);
    }
    let kind = match new.kind {
        RoomKind::Default if defaults(session).await? >= u64::from(new.default_max) => new.default_overflow,
        kind => kind,
    };
    let number = match kind {
        RoomKind::Private => None,
        RoomKind::Default | RoomKind::Public => Some(advance(session, &global).await?),
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
        global_seq: number.map(|position| position.seq),
    };
    insert(session, &room, Some(&new.key)).await?;
    let outbox = match number {
        Some(position) => Some(announce(session, new, &room, position).await?),
        None => None,
    };
    Ok(CreateRoom::Created { room, outbox })
}

/// The outbox row of a creation, on the line of `global`.
async fn announce(
    session: &mut Session,
    new: &NewRoom,
    room: &Room,
    position: Position,
) -> Result<OutboxRow, Fault> {
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let push = PushMsg {
        r#type: Type::Broadcast.into(),
        operation: op::ROOM_CREATED,
        room: GLOBAL.to_owned(),
        msg: (new.frame)(room),
        epoch: signed(position.epoch),
        first_seq: signed(position.seq),
        count: 1,
        ..PushMsg::default()
    };
    let value = Bytes::from(push.encode_to_vec());
    let room_id = RoomId::from(GLOBAL);
    let record = OutboxRecord { room_id: room_id.clone(), owner: new.owner.clone(), value: value.clone() };
    let id = outbox::append(session, &record).await?;
    Ok(OutboxRow { id, room_id, value })
}

/// Takes the next number of `global`.
async fn advance(session: &mut Session, global: &Global) -> Result<Position, Fault> {
    let next = Position { seq: global.position.seq + 1, ..global.position };
    let last_ms = Value::Int(global.last_ms.max(global.now_ms));
    let sql = "UPDATE rooms SET last_seq = ?, last_ms = ?, update_time = ? WHERE id = ?";
    session.run(sql, vec![integer(next.seq), last_ms.clone(), last_ms, bytes(GLOBAL)]).await?;
    Ok(next)
}

async fn insert(session: &mut Session, room: &Room, key: Option<&str>) -> Result<(), Fault> {
    let sql = "INSERT INTO rooms (id, name, creator_id, creator_username, kind, create_time, update_time, \
               epoch, last_seq, last_ms, global_seq, create_key) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)";
    let params = vec![
        bytes(room.id.as_str()),
        bytes(&room.name),
        bytes(&room.creator_id),
        bytes(&room.creator_username),
        kind_number(room.kind),
        Value::Int(room.create_time),
        Value::Int(room.update_time),
        integer(room.head.epoch),
        room.global_seq.map_or(Value::NULL, integer),
        key.map_or(Value::NULL, bytes),
    ];
    session.run(sql, params).await?;
    Ok(())
}

async fn exists(session: &mut Session, sql: &str, key: &str) -> Result<bool, Fault> {
    Ok(session.row(sql, vec![bytes(key)]).await?.is_some())
}

async fn named(session: &mut Session, name: &str) -> Result<bool, Fault> {
    exists(session, "SELECT 1 FROM rooms WHERE name = ?", name).await
}

async fn by_key(session: &mut Session, creator_id: &str, key: &str) -> Result<Option<Room>, Fault> {
    let sql = format!("SELECT {ROOM} FROM rooms WHERE creator_id = ? AND create_key = ?");
    session.row(&sql, vec![bytes(creator_id), bytes(key)]).await?.map(room).transpose()
}

/// How many default rooms there are, without `global`.
async fn defaults(session: &mut Session) -> Result<u64, Fault> {
    let sql = "SELECT COUNT(*) FROM rooms WHERE kind = 0 AND id <> ?";
    match session.row(sql, vec![bytes(GLOBAL)]).await? {
        Some(mut row) => unsigned(&mut row, 0),
        None => Ok(0),
    }
}

/// Raises every epoch, by one statement; answers how many.
pub(super) async fn new_epoch(session: &mut Session, now_ms: u64) -> Result<u64, Fault> {
    session.run("UPDATE rooms SET epoch = GREATEST(epoch + 1, ?)", vec![integer(now_ms)]).await
}
