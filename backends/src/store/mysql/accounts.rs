//! Accounts and sessions.

use std::collections::HashMap;

use mysql_async::{Row, Value};

use super::fault::Fault;
use super::row::{bytes, take, text};
use super::session::Session as Conn;
use super::statement::{ROWS, marks, padded};
use crate::store::{CreateUser, NewUser, Session, SessionHash, User};

/// Expired sessions deleted by one statement, so that a long clean-up delays nobody.
pub(super) const EXPIRED_PER_STATEMENT: u64 = 1000;

/// Stores the account. The unique keys decide; the questions before only tell which one.
pub(super) async fn create_user(conn: &mut Conn, user: &NewUser) -> Result<CreateUser, Fault> {
    let taken = [
        (
            "SELECT 1 FROM user_infos WHERE username_folded = ?",
            &user.username_folded,
            CreateUser::UsernameExists,
        ),
        ("SELECT 1 FROM user_infos WHERE email_folded = ?", &user.email_folded, CreateUser::EmailExists),
    ];
    for (sql, folded, answer) in taken {
        if conn.row(sql, vec![bytes(folded)]).await?.is_some() {
            return Ok(answer);
        }
    }
    let sql = "INSERT INTO user_infos (user_id, username, username_folded, email, email_folded, \
               password_hash, salt, create_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let params = vec![
        bytes(&user.user_id),
        bytes(&user.username),
        bytes(&user.username_folded),
        bytes(&user.email),
        bytes(&user.email_folded),
        bytes(&user.password_hash),
        bytes(&user.salt),
        Value::Int(user.now_ms),
    ];
    conn.run(sql, params).await?;
    Ok(CreateUser::Created)
}

pub(super) async fn user_by_email(conn: &mut Conn, email_folded: &str) -> Result<Option<User>, Fault> {
    let sql = "SELECT user_id, username, email, password_hash FROM user_infos WHERE email_folded = ?";
    conn.row(sql, vec![bytes(email_folded)]).await?.map(one_user).transpose()
}

pub(super) async fn user(conn: &mut Conn, user_id: &str) -> Result<Option<User>, Fault> {
    let sql = "SELECT user_id, username, email, password_hash FROM user_infos WHERE user_id = ?";
    conn.row(sql, vec![bytes(user_id)]).await?.map(one_user).transpose()
}

fn one_user(mut row: Row) -> Result<User, Fault> {
    Ok(User {
        user_id: text(&mut row, 0)?,
        username: text(&mut row, 1)?,
        email: text(&mut row, 2)?,
        password_hash: text(&mut row, 3)?,
    })
}

pub(super) async fn put_session(
    conn: &mut Conn,
    hash: &SessionHash,
    user_id: &str,
    expires_ms: i64,
) -> Result<(), Fault> {
    let sql = "REPLACE INTO sessions (hash, user_id, expires_ms) VALUES (?, ?, ?)";
    conn.run(sql, vec![bytes(hash), bytes(user_id), Value::Int(expires_ms)]).await?;
    Ok(())
}

pub(super) async fn sessions(
    conn: &mut Conn,
    hashes: &[SessionHash],
    now_ms: i64,
) -> Result<Vec<Option<Session>>, Fault> {
    let mut found: HashMap<Vec<u8>, Session> = HashMap::new();
    for some in hashes.chunks(ROWS) {
        let some = padded(some);
        let sql = format!(
            "SELECT hash, user_id, username, email, expires_ms FROM sessions JOIN user_infos USING (user_id) \
             WHERE hash IN ({}) AND expires_ms > ?",
            marks(some.len())
        );
        let mut params: Vec<Value> = some.iter().map(bytes).collect();
        params.push(Value::Int(now_ms));
        for mut row in conn.rows(&sql, params).await? {
            let session = Session {
                user_id: text(&mut row, 1)?,
                username: text(&mut row, 2)?,
                email: text(&mut row, 3)?,
                expires_ms: take(&mut row, 4)?,
            };
            found.insert(take(&mut row, 0)?, session);
        }
    }
    Ok(hashes.iter().map(|hash| found.get(&hash[..]).cloned()).collect())
}

pub(super) async fn extend_session(
    conn: &mut Conn,
    hash: &SessionHash,
    expires_ms: i64,
) -> Result<(), Fault> {
    let sql = "UPDATE sessions SET expires_ms = ? WHERE hash = ? AND expires_ms < ?";
    conn.run(sql, vec![Value::Int(expires_ms), bytes(hash), Value::Int(expires_ms)]).await?;
    Ok(())
}

pub(super) async fn delete_session(conn: &mut Conn, hash: &SessionHash) -> Result<(), Fault> {
    conn.run("DELETE FROM sessions WHERE hash = ?", vec![bytes(hash)]).await?;
    Ok(())
}

/// Deletes at most [`EXPIRED_PER_STATEMENT`], the oldest first.
pub(super) async fn delete_expired(conn: &mut Conn, now_ms: i64) -> Result<u64, Fault> {
    let sql = "DELETE FROM sessions WHERE expires_ms <= ? ORDER BY expires_ms, hash LIMIT ?";
    conn.run(sql, vec![Value::Int(now_ms), Value::UInt(EXPIRED_PER_STATEMENT)]).await
}
