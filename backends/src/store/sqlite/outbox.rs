//! The outbox and the dead letters.

use bytes::Bytes;
use corecast_proto::ids::RoomId;
use rusqlite::Connection;

use super::row::{bytes, integer, now_ms, text, unsigned};
use crate::store::{DeadLetter, OutboxOwner, OutboxRecord, OutboxRow, StoreError};

/// Adds a row; answers its id.
pub(super) fn append(conn: &Connection, record: &OutboxRecord) -> Result<u64, StoreError> {
    conn.prepare_cached("INSERT INTO outbox (owner, room_id, value, create_time) VALUES (?1, ?2, ?3, ?4)")?
        .execute((bytes(&record.owner), bytes(record.room_id.as_str()), &record.value[..], now_ms()))?;
    u64::try_from(conn.last_insert_rowid())
        .map_err(|_| StoreError::Fatal("the outbox has used up its ids".to_owned()))
}

pub(super) fn rows(
    conn: &Connection,
    owner: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<OutboxRow>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, room_id, value FROM outbox WHERE owner = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
    )?;
    let rows = statement.query_map((bytes(owner), integer(after), limit), |row| {
        Ok(OutboxRow {
            id: unsigned(row, 0)?,
            room_id: RoomId::from(text(row, 1)?),
            value: Bytes::from(row.get::<_, Vec<u8>>(2)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes rows by id, in any order. What was handed out in order is deleted in runs, one
/// statement each.
pub(super) fn delete(conn: &Connection, ids: &[u64]) -> Result<(), StoreError> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let mut statement = conn.prepare_cached("DELETE FROM outbox WHERE id BETWEEN ?1 AND ?2")?;
    for run in sorted.chunk_by(|one, next| next - one <= 1) {
        if let [first, .., last] | [first @ last] = run {
            statement.execute((integer(*first), integer(*last)))?;
        }
    }
    Ok(())
}

/// Hops from owner to owner along the index.
pub(super) fn owners(conn: &Connection) -> Result<Vec<OutboxOwner>, StoreError> {
    let mut statement = conn.prepare_cached(
        "WITH RECURSIVE owners(owner) AS (\
           SELECT MIN(owner) FROM outbox \
           UNION ALL \
           SELECT (SELECT MIN(owner) FROM outbox WHERE owner > owners.owner) FROM owners \
           WHERE owner IS NOT NULL) \
         SELECT owner, (SELECT create_time FROM outbox WHERE outbox.owner = owners.owner ORDER BY id LIMIT 1) \
         FROM owners WHERE owner IS NOT NULL",
    )?;
    let now_ms = now_ms();
    let owners = statement.query_map((), |row| {
        let written_ms: i64 = row.get(1)?;
        let oldest_age_ms = u64::try_from(now_ms - written_ms).unwrap_or(0);
        Ok(OutboxOwner { owner: text(row, 0)?, oldest_age_ms })
    })?;
    Ok(owners.collect::<Result<_, _>>()?)
}

pub(super) fn claim(conn: &Connection, owner: &str, claimant: &str, limit: u32) -> Result<u64, StoreError> {
    let claimed = conn
        .prepare_cached(
            "UPDATE outbox SET owner = ?2 WHERE id IN \
             (SELECT id FROM outbox WHERE owner = ?1 ORDER BY id LIMIT ?3)",
        )?
        .execute((bytes(owner), bytes(claimant), limit))?;
    Ok(claimed as u64)
}

pub(super) fn put_dead_letter(conn: &Connection, letter: &DeadLetter) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO dead_letters (room_id, value, reason, create_time) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((bytes(letter.room_id.as_str()), &letter.value[..], &letter.reason, now_ms()))?;
    Ok(())
}

pub(super) fn dead_letters(conn: &Connection, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT room_id, value, reason FROM dead_letters ORDER BY id LIMIT ?1")?;
    let letters = statement.query_map((limit,), |row| {
        Ok(DeadLetter {
            room_id: RoomId::from(text(row, 0)?),
            value: Bytes::from(row.get::<_, Vec<u8>>(1)?),
            reason: text(row, 2)?,
        })
    })?;
    Ok(letters.collect::<Result<_, _>>()?)
}
