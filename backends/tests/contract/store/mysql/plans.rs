//! How the server reads: by an index, also where a table is small, since what is scanned under
//! a lock is locked.

use mysql_async::Row;
use mysql_async::prelude::Queryable as _;

use super::Database;

/// (`type`, `key`) of each table of a plan.
async fn plan(conn: &mut mysql_async::Conn, sql: &str) -> Vec<(String, String)> {
    let rows: Vec<Row> = conn.query(format!("EXPLAIN FORMAT=TRADITIONAL {sql}")).await.expect(sql);
    let column = |row: &Row, name: &str| -> String {
        row.get::<Option<String>, _>(name).flatten().unwrap_or_default()
    };
    rows.iter().map(|row| (column(row, "type"), column(row, "key"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_under_locks_and_pages_use_an_index() {
    let Some(database) = Database::new().await else { return };
    let mut conn = database.conn().await;
    let fill = "CREATE TEMPORARY TABLE seq_1_to_50 (seq INT); CREATE TEMPORARY TABLE seq_1_to_40 (seq INT); \
                INSERT INTO seq_1_to_50 WITH RECURSIVE n (seq) AS \
                (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 50) SELECT seq FROM n; \
                INSERT INTO seq_1_to_40 SELECT seq FROM seq_1_to_50 WHERE seq <= 40; \
                INSERT INTO rooms (id, name, creator_id, creator_username, kind, create_time, update_time, \
                epoch, last_seq, last_ms) SELECT CONCAT('r', seq), CONCAT('r', seq), '', '', 1, 1, 1, 1, 0, 0 \
                FROM seq_1_to_50; \
                INSERT INTO messages SELECT CONCAT('r', a.seq), b.seq, '1-1', 'u', 'n', 'x', CONCAT('k', b.seq) \
                FROM seq_1_to_50 a, seq_1_to_40 b; \
                INSERT INTO outbox (owner, room_id, value, create_time) SELECT 'o', 'r1', 'x', 1 FROM seq_1_to_50; \
                ANALYZE TABLE rooms, messages, outbox";
    conn.query_drop(fill).await.expect("fills");
    for (sql, key) in [
        (
            "SELECT id FROM rooms FORCE INDEX (rooms_by_id) WHERE id IN (x'7231',x'7232',x'7233') ORDER BY id FOR UPDATE",
            "rooms_by_id",
        ),
        (
            "SELECT id FROM messages FORCE INDEX (messages_by_key) \
             WHERE (room_id, user_id, message_key) IN (('r1', 'u', 'k1'), ('r2', 'u', 'k9'))",
            "messages_by_key",
        ),
        ("SELECT id FROM messages WHERE room_id = 'r1' AND seq > 5 AND seq <= 9 ORDER BY seq", "PRIMARY"),
        (
            "SELECT seq FROM messages FORCE INDEX (PRIMARY) \
             WHERE (room_id = 'r1' AND seq > 30) OR (room_id = 'r2' AND seq > 35)",
            "PRIMARY",
        ),
        (
            "SELECT id, value FROM outbox FORCE INDEX (outbox_by_owner) WHERE owner = 'o' AND id > 9 \
             ORDER BY id LIMIT 9",
            "outbox_by_owner",
        ),
        (
            "SELECT owner, create_time FROM outbox FORCE INDEX (outbox_by_owner) WHERE owner > 'a' \
             ORDER BY owner, id LIMIT 1",
            "outbox_by_owner",
        ),
        (
            "DELETE FROM sessions WHERE expires_ms <= 5 ORDER BY expires_ms, hash LIMIT 9",
            "sessions_by_expiry",
        ),
        ("UPDATE rooms FORCE INDEX (PRIMARY) SET last_seq = 1 WHERE ordinal IN (3, 4)", "PRIMARY"),
    ] {
        let plan = plan(&mut conn, sql).await;
        assert_eq!(plan.len(), 1, "{sql}: {plan:?}");
        assert!(["range", "ref", "const"].contains(&&*plan[0].0) && plan[0].1 == key, "{sql}: {plan:?}");
    }
    // Even where all rows of a table go, each is looked up by its id.
    let delete = "DELETE outbox FROM (SELECT CAST(1 AS UNSIGNED) AS id UNION ALL SELECT CAST(2 AS UNSIGNED)) \
                  AS gone STRAIGHT_JOIN outbox FORCE INDEX (PRIMARY) ON outbox.id = gone.id";
    let deleted = plan(&mut conn, delete).await;
    assert!(deleted.contains(&("eq_ref".to_owned(), "PRIMARY".to_owned())), "{deleted:?}");
    database.drop().await;
}
