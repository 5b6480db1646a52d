//! The outbox and the dead letters.

use bytes::Bytes;
use corecast_proto::ids::RoomId;
use mysql_async::{Row, Value};

use super::fault::Fault;
use super::row::{bytes, take, text, unsigned};
use super::session::{NOW_MS, Session};
use super::statement::{Insert, Inserts, Literal, ROWS, marks, padded, repeated};
use crate::store::{DeadLetter, OutboxOwner, OutboxRecord, OutboxRow};

/// The rows of a commit, as texts. Their ids grow in this order.
pub(super) fn inserts<'a>(records: impl Iterator<Item = &'a OutboxRecord>, now_ms: i64) -> Vec<Insert> {
    let mut inserts = Inserts::new("outbox (owner, room_id, value, create_time)");
    for OutboxRecord { room_id, owner, value } in records {
        inserts.push(&[
            Literal::text(owner),
            Literal::text(room_id.as_str()),
            Literal::Bytes(value),
            Literal::Number(now_ms),
        ]);
    }
    inserts.finish()
}

/// Adds one row; answers its id.
pub(super) async fn append(session: &mut Session, record: &OutboxRecord) -> Result<u64, Fault> {
    let sql = format!("INSERT INTO outbox (owner, room_id, value, create_time) VALUES (?, ?, ?, {NOW_MS})");
    let params = vec![bytes(&record.owner), bytes(record.room_id.as_str()), bytes(&record.value)];
    session.run(&sql, params).await?;
    session.inserted_id()
}

pub(super) async fn rows(
    session: &mut Session,
    owner: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<OutboxRow>, Fault> {
    let sql = "SELECT id, room_id, value FROM outbox FORCE INDEX (outbox_by_owner) \
               WHERE owner = ? AND id > ? ORDER BY id LIMIT ?";
    let params = vec![bytes(owner), Value::UInt(after), Value::UInt(limit.into())];
    session.rows(sql, params).await?.into_iter().map(row).collect()
}

fn row(mut row: Row) -> Result<OutboxRow, Fault> {
    Ok(OutboxRow {
        id: unsigned(&mut row, 0)?,
        room_id: RoomId::from(text(&mut row, 1)?),
        value: Bytes::from(take::<Vec<u8>>(&mut row, 2)?),
    })
}

/// Deletes rows by their exact ids. Joined to a list of ids, since for a list in a condition
/// a server may scan a table it takes for small, and wait for rows that others just write.
pub(super) async fn delete(session: &mut Session, ids: &[u64]) -> Result<(), Fault> {
    let ids = padded(ids);
    let rest = repeated(" UNION ALL SELECT CAST(? AS UNSIGNED)", "", ids.len().saturating_sub(1));
    let sql = format!(
        "DELETE outbox FROM (SELECT CAST(? AS UNSIGNED) AS id{rest}) AS gone \
         STRAIGHT_JOIN outbox FORCE INDEX (PRIMARY) ON outbox.id = gone.id"
    );
    session.run(&sql, ids.into_iter().map(Value::UInt).collect()).await?;
    Ok(())
}

/// The runs in which [`delete`] takes ids: in order, so that two of them do not meet crosswise.
pub(super) fn runs(ids: &[u64]) -> Vec<Vec<u64>> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.chunks(ROWS).map(<[u64]>::to_vec).collect()
}

/// Hops from owner to owner along the index.
pub(super) async fn owners(session: &mut Session) -> Result<Vec<OutboxOwner>, Fault> {
    let sql = format!(
        "SELECT owner, {NOW_MS} - create_time FROM outbox FORCE INDEX (outbox_by_owner) \
         WHERE owner > ? ORDER BY owner, id LIMIT 1"
    );
    let mut owners: Vec<OutboxOwner> = Vec::new();
    loop {
        let after = owners.last().map_or("", |owner| &owner.owner);
        let Some(mut row) = session.row(&sql, vec![bytes(after)]).await? else { return Ok(owners) };
        let oldest_age_ms = u64::try_from(take::<i64>(&mut row, 1)?).unwrap_or(0);
        owners.push(OutboxOwner { owner: text(&mut row, 0)?, oldest_age_ms });
    }
}

/// Gives rows to another owner inside the running transaction. Rows that somebody else is
/// claiming or deleting are skipped, not waited for.
pub(super) async fn claim(
    session: &mut Session,
    owner: &str,
    claimant: &str,
    limit: u32,
) -> Result<u64, Fault> {
    let sql = "SELECT id FROM outbox FORCE INDEX (outbox_by_owner) WHERE owner = ? ORDER BY id LIMIT ? \
               FOR UPDATE SKIP LOCKED";
    let found = session.rows(sql, vec![bytes(owner), Value::UInt(limit.into())]).await?;
    let ids: Vec<u64> = found.into_iter().map(|mut row| unsigned(&mut row, 0)).collect::<Result<_, _>>()?;
    for some in ids.chunks(ROWS) {
        let some = padded(some);
        let sql =
            format!("UPDATE outbox FORCE INDEX (PRIMARY) SET owner = ? WHERE id IN ({})", marks(some.len()));
        let mut params = vec![bytes(claimant)];
        params.extend(some.into_iter().map(Value::UInt));
        session.run(&sql, params).await?;
    }
    Ok(ids.len() as u64)
}

pub(super) async fn put_dead_letter(session: &mut Session, letter: &DeadLetter) -> Result<(), Fault> {
    let sql =
        format!("INSERT INTO dead_letters (room_id, value, reason, create_time) VALUES (?, ?, ?, {NOW_MS})");
    let params = vec![bytes(letter.room_id.as_str()), bytes(&letter.value), bytes(&letter.reason)];
    session.run(&sql, params).await?;
    Ok(())
}

pub(super) async fn dead_letters(session: &mut Session, limit: u32) -> Result<Vec<DeadLetter>, Fault> {
    let sql = "SELECT room_id, value, reason FROM dead_letters ORDER BY id LIMIT ?";
    let letter = |mut row: Row| {
        Ok(DeadLetter {
            room_id: RoomId::from(text(&mut row, 0)?),
            value: Bytes::from(take::<Vec<u8>>(&mut row, 1)?),
            reason: text(&mut row, 2)?,
        })
    };
    session.rows(sql, vec![Value::UInt(limit.into())]).await?.into_iter().map(letter).collect()
}
