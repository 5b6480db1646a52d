//! Accounts and sessions.

use rusqlite::{Connection, OptionalExtension};

use super::row::{bytes, text};
use crate::store::{CreateUser, NewUser, Session, SessionHash, StoreError, User};

/// Expired sessions deleted by one transaction, so that a long clean-up delays nobody.
pub(super) const EXPIRED_PER_JOB: u32 = 1000;

pub(super) fn create_user(conn: &Connection, user: &NewUser) -> Result<CreateUser, StoreError> {
    let taken = |sql: &str, folded: &str| -> Result<bool, StoreError> {
        Ok(conn.prepare_cached(sql)?.exists((bytes(folded),))?)
    };
    if taken("SELECT 1 FROM user_infos WHERE username_folded = ?1", &user.username_folded)? {
        return Ok(CreateUser::UsernameExists);
    }
    if taken("SELECT 1 FROM user_infos WHERE email_folded = ?1", &user.email_folded)? {
        return Ok(CreateUser::EmailExists);
    }
    conn.prepare_cached(
        "INSERT INTO user_infos (user_id, username, username_folded, email, email_folded, \
         password_hash, salt, create_time) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        bytes(&user.user_id),
        &user.username,
        bytes(&user.username_folded),
        &user.email,
        bytes(&user.email_folded),
        &user.password_hash,
        &user.salt,
        user.now_ms,
    ))?;
    Ok(CreateUser::Created)
}

pub(super) fn user_by_email(conn: &Connection, email_folded: &str) -> Result<Option<User>, StoreError> {
    one_user(
        conn,
        "SELECT user_id, username, email, password_hash FROM user_infos WHERE email_folded = ?1",
        email_folded,
    )
}

pub(super) fn user(conn: &Connection, user_id: &str) -> Result<Option<User>, StoreError> {
    one_user(
        conn,
        "SELECT user_id, username, email, password_hash FROM user_infos WHERE user_id = ?1",
        user_id,
    )
}

fn one_user(conn: &Connection, sql: &str, key: &str) -> Result<Option<User>, StoreError> {
    let user = conn.prepare_cached(sql)?.query_row((bytes(key),), |row| {
        Ok(User {
            user_id: text(row, 0)?,
            username: text(row, 1)?,
            email: text(row, 2)?,
            password_hash: text(row, 3)?,
        })
    });
    Ok(user.optional()?)
}

pub(super) fn put_session(
    conn: &Connection,
    hash: &SessionHash,
    user_id: &str,
    expires_ms: i64,
) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT OR REPLACE INTO sessions (hash, user_id, expires_ms) VALUES (?1, ?2, ?3)")?
        .execute((&hash[..], bytes(user_id), expires_ms))?;
    Ok(())
}

pub(super) fn sessions(
    conn: &Connection,
    hashes: &[SessionHash],
    now_ms: i64,
) -> Result<Vec<Option<Session>>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT user_id, username, email, expires_ms FROM sessions JOIN user_infos USING (user_id) \
         WHERE hash = ?1 AND expires_ms > ?2",
    )?;
    let mut one = |hash: &SessionHash| {
        let session = statement.query_row((&hash[..], now_ms), |row| {
            Ok(Session {
                user_id: text(row, 0)?,
                username: text(row, 1)?,
                email: text(row, 2)?,
                expires_ms: row.get(3)?,
            })
        });
        Ok(session.optional()?)
    };
    hashes.iter().map(&mut one).collect()
}

pub(super) fn extend_session(
    conn: &Connection,
    hash: &SessionHash,
    expires_ms: i64,
) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE sessions SET expires_ms = ?2 WHERE hash = ?1 AND expires_ms < ?2")?
        .execute((&hash[..], expires_ms))?;
    Ok(())
}

pub(super) fn delete_session(conn: &Connection, hash: &SessionHash) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM sessions WHERE hash = ?1")?.execute((&hash[..],))?;
    Ok(())
}

/// Deletes at most [`EXPIRED_PER_JOB`].
pub(super) fn delete_expired(conn: &Connection, now_ms: i64) -> Result<u64, StoreError> {
    let deleted = conn
        .prepare_cached(
            "DELETE FROM sessions WHERE hash IN \
             (SELECT hash FROM sessions WHERE expires_ms <= ?1 LIMIT ?2)",
        )?
        .execute((now_ms, EXPIRED_PER_JOB))?;
    Ok(deleted as u64)
}
