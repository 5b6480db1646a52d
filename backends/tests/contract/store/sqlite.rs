//! What only the embedded store promises: group commit, the fsync budget, one process per
//! folder, versions.

use corecast_backends::store::sqlite::{LOCK_FILE, SCHEMA_VERSION, SqliteStore};
use corecast_backends::store::*;
use corecast_proto::ids::RoomId;
use futures::future::join_all;

use super::{OWNER, frame, rows_of, seeded, send};
use crate::support::eventually;

/// A store in a folder of its own, by type: its counters are needed here.
async fn opened() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = SqliteStore::open(folder.path().join("store.db")).await.expect("opens");
    (store, folder)
}

fn new_user(id: &str, name: &str) -> NewUser {
    NewUser {
        user_id: id.to_owned(),
        username: name.to_owned(),
        username_folded: name.to_owned(),
        email: format!("{name}@x"),
        email_folded: format!("{name}@x"),
        password_hash: "hash".to_owned(),
        salt: "salt".to_owned(),
        now_ms: 0,
    }
}

#[tokio::test]
async fn commits_that_wait_share_a_transaction() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    let before = store.counters();
    let sends = (0..200).map(|n| {
        let store = store.clone();
        async move { send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await }
    });
    join_all(sends).await;
    let after = store.counters();
    assert_eq!(after.jobs - before.jobs, 200);
    let commits = after.commits - before.commits;
    assert!(commits <= 100, "200 sends took {commits} transactions");
    store.close().await;
}

#[tokio::test]
async fn a_failing_job_does_not_hurt_its_neighbours() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    store.create_user(new_user("same id", "first")).await.expect("creates");
    let writes = (0..50).map(|n| {
        let store = store.clone();
        async move {
            // Breaks the primary key after its name was found free.
            let refused = store.create_user(new_user("same id", &format!("name {n}")));
            let sent = send(&store, frame("a", "u", &[(&n.to_string(), "x")]));
            futures::future::join(refused, sent).await
        }
    });
    for (refused, sent) in join_all(writes).await {
        assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
        assert!(!sent[0].repeated);
    }
    assert_eq!(super::all_messages(&store, "a").await.len(), 50);
    store.close().await;
}

#[tokio::test]
async fn deletions_ride_on_commits_and_alone_go_once_a_second() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    let started = std::time::Instant::now();
    let before = store.counters();
    for n in 0..100 {
        let outcomes = store.commit(vec![frame("a", "u", &[(&n.to_string(), "x")])]).await.expect("commits");
        store.delete_outbox(rows_of(&outcomes[0]).iter().map(|row| row.id).collect()).await.expect("deletes");
    }
    eventually("the outbox is empty", async || store.outbox(OWNER, 0, 1).await.expect("reads").is_empty())
        .await;
    let seconds = started.elapsed().as_secs() + 1;
    let after = store.counters();
    let commits = after.commits - before.commits;
    assert!(commits <= 100 + seconds, "{commits} fsyncs for 100 sends in {seconds} s");
    assert!(after.deletion_commits - before.deletion_commits <= seconds);
    store.close().await;
}

#[tokio::test]
async fn a_deletion_rides_on_the_next_commit() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    let outcomes = store.commit(vec![frame("a", "u", &[("1", "x")])]).await.expect("commits");
    store.delete_outbox(vec![rows_of(&outcomes[0])[0].id]).await.expect("deletes");
    let second = store.commit(vec![frame("a", "u", &[("2", "x")])]).await.expect("commits");
    assert_eq!(store.outbox(OWNER, 0, 9).await.expect("reads"), rows_of(&second[0]));
    assert_eq!(store.counters().deletion_commits, 0);
    store.close().await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_does_not_move_timestamps_back() {
    let (store, folder) = opened().await;
    seeded(&store, &["a"]).await;
    store.close().await;
    let path = folder.path().join("store.db");
    let far = 99_000_000_000_000_i64;
    let conn = rusqlite::Connection::open(&path).expect("opens");
    conn.execute("UPDATE rooms SET last_ms = ?1 WHERE id = x'61'", (far,)).expect("writes");
    drop(conn);
    let store = SqliteStore::open(&path).await.expect("opens");
    let sent = send(&store, frame("a", "u", &[("1", "x"), ("2", "x")])).await;
    assert_eq!((sent[0].id.ms, sent[1].id.ms), (far, far));
    store.close().await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_costs_no_fsync() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("k", "x")])).await;
    let before = store.counters();
    send(&store, frame("a", "u", &[("k", "x")])).await;
    seeded(&store, &["a"]).await;
    store.delete_session([0; 32]).await.expect("nothing to delete");
    assert_eq!(store.counters().commits, before.commits);
    store.close().await;
}

/// Writes so many MiB to the log, one commit each: half of it content, half outbox.
async fn write_mib(store: &SqliteStore, tag: &str, mib: u32) {
    let content = "x".repeat(1 << 19);
    for n in 0..mib {
        send(store, frame("a", "u", &[(&format!("{tag}-{n}"), &content)])).await;
    }
}

#[tokio::test]
async fn a_large_log_is_copied_back_under_load_and_used_again_from_its_start() {
    let (store, folder) = opened().await;
    seeded(&store, &["a"]).await;
    write_mib(&store, "first", 12).await;
    assert_eq!(store.counters().checkpoints, 0, "12 MiB are not worth it");
    write_mib(&store, "second", 8).await;
    assert_eq!(store.counters().checkpoints, 1, "16 MiB are, and 10 s must lie between two");
    let log = folder.path().join("store.db-wal");
    let before = std::fs::metadata(&log).expect("a log").len();
    write_mib(&store, "third", 4).await;
    assert_eq!(std::fs::metadata(&log).expect("a log").len(), before, "it begins anew inside the file");
    store.close().await;
}

#[tokio::test]
async fn a_middling_log_is_copied_back_when_idle() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    write_mib(&store, "first", 5).await;
    eventually("it is copied back", async || store.counters().checkpoints == 1).await;
    store.close().await;
}

#[tokio::test]
async fn a_second_open_of_the_same_folder_is_refused() {
    let (store, folder) = opened().await;
    let second = SqliteStore::open(folder.path().join("store.db")).await;
    let text = second.err().expect("refused").to_string();
    assert!(text.contains("in use") && text.contains(&std::process::id().to_string()), "{text}");
    let other_name = SqliteStore::open(folder.path().join("other.db")).await;
    assert!(other_name.is_err(), "the lock is on the folder");
    store.close().await;
    let third = SqliteStore::open(folder.path().join("store.db")).await.expect("free again");
    third.close().await;
}

#[tokio::test]
async fn an_unknown_newer_version_is_refused_and_left_as_it_is() {
    let (store, folder) = opened().await;
    let path = folder.path().join("store.db");
    store.close().await;
    let set = |version: i64| {
        let conn = rusqlite::Connection::open(&path).expect("opens");
        conn.pragma_update(None, "user_version", version).expect("writes");
    };
    set(SCHEMA_VERSION + 1);
    let text = SqliteStore::open(&path).await.err().expect("refused").to_string();
    assert!(text.contains(&format!("version {}", SCHEMA_VERSION + 1)), "{text}");
    set(SCHEMA_VERSION);
    SqliteStore::open(&path).await.expect("opens").close().await;
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("store.db");
    std::fs::write(&path, vec![b'x'; 8192]).expect("writes");
    let refused = SqliteStore::open(&path).await;
    let Err(StoreError::Fatal(reason)) = refused.map(|_| ()) else { panic!("opened") };
    assert!(reason.contains("store.db"), "{reason}");
}

#[tokio::test]
async fn everything_is_there_after_a_close_and_the_log_is_empty() {
    let (store, folder) = opened().await;
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("k", "x")])).await;
    let (room, rows) =
        (store.room("a").await.expect("reads"), store.outbox(OWNER, 0, 9).await.expect("reads"));
    store.close().await;
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("text"))
        .filter(|name| name != LOCK_FILE)
        .collect();
    assert_eq!(names, ["store.db"], "no log is left");
    let again = SqliteStore::open(folder.path().join("store.db")).await.expect("opens");
    assert_eq!(again.room("a").await.expect("reads"), room);
    assert_eq!(again.outbox(OWNER, 0, 9).await.expect("reads"), rows);
    assert!(send(&again, frame("a", "u", &[("k", "x")])).await[0].repeated);
    again.close().await;
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    let other = store.clone();
    store.close().await;
    store.close().await;
    assert!(matches!(other.rooms().await, Err(StoreError::Unavailable(_))));
    let sent = other.commit(vec![frame("a", "u", &[("k", "x")])]).await;
    assert!(matches!(sent, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn deletions_held_back_are_made_at_close() {
    let (store, folder) = opened().await;
    seeded(&store, &["a"]).await;
    let outcomes = store.commit(vec![frame("a", "u", &[("k", "x")])]).await.expect("commits");
    store.delete_outbox(vec![rows_of(&outcomes[0])[0].id]).await.expect("deletes");
    store.close().await;
    let again = SqliteStore::open(folder.path().join("store.db")).await.expect("opens");
    assert_eq!(again.outbox(OWNER, 0, 9).await.expect("reads"), []);
    again.close().await;
}

#[tokio::test]
async fn messages_pages_and_outbox_scans_use_an_index() {
    let (store, folder) = opened().await;
    store.close().await;
    let conn = rusqlite::Connection::open(folder.path().join("store.db")).expect("opens");
    for sql in [
        "SELECT id FROM messages WHERE room_id = x'00' AND user_id = x'00' AND message_key = x'00'",
        "SELECT * FROM messages WHERE room_id = x'00' AND seq < 5 ORDER BY seq DESC LIMIT 3",
        "SELECT id, room_id, value FROM outbox WHERE owner = x'00' AND id > 5 ORDER BY id LIMIT 3",
        "SELECT hash FROM sessions WHERE expires_ms <= 5 LIMIT 3",
        "SELECT * FROM rooms WHERE kind = 0 AND id <> x'00' ORDER BY ordinal",
        "SELECT * FROM rooms WHERE creator_id = x'00' AND create_key = x'00'",
    ] {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a statement");
        let plan = statement.query_map((), |row| row.get::<_, String>(3)).expect("a plan");
        let plan: Vec<_> = plan.map(|line| line.expect("a line")).collect();
        assert!(plan.iter().all(|line| line.starts_with("SEARCH")), "{sql}: {plan:?}");
    }
}

#[tokio::test]
async fn a_dropped_write_still_writes() {
    let (store, _folder) = opened().await;
    seeded(&store, &["a"]).await;
    {
        let commit = store.commit(vec![frame("a", "u", &[("k", "x")])]);
        tokio::pin!(commit);
        // Polled once, so it is handed over; then the caller loses interest.
        assert!(futures::poll!(commit.as_mut()).is_pending());
    }
    eventually("the message is there", async || {
        store.heads(&[RoomId::from("a")], false).await.expect("reads")[0].position.seq == 1
    })
    .await;
    store.close().await;
}
