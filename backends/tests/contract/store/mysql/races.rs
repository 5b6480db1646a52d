//! Several writers on the same rooms: deadlocks, waits for locks, rows that appear late.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use corecast_backends::store::*;
use corecast_proto::ids::RoomId;
use mysql_async::prelude::Queryable as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::Database;
use crate::store::{OWNER, all_messages, frame, push_of, rows_of, seeded, send, seqs, stored};
use crate::support::{eventually, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_the_same_rooms_make_one_line_each() {
    let Some(database) = Database::new().await else { return };
    let seed: u64 = match std::env::var("CORECAST_SEED") {
        Ok(seed) => seed.parse().expect("CORECAST_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    println!("replay with CORECAST_SEED={seed}");
    let stores = [database.store(), database.store()];
    let rooms = ["a", "b", "c", "d", "e"];
    seeded(&stores[0], &rooms).await;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let store = stores[writer % 2].clone();
            let mut random = StdRng::seed_from_u64(seed + writer as u64);
            tokio::spawn(async move {
                let mut placed = Vec::new();
                for _ in 0..30 {
                    let mut rooms = rooms.to_vec();
                    rooms.shuffle(&mut random);
                    rooms.truncate(random.random_range(1..=5));
                    // Few keys, so that writers meet each other's.
                    let keys: Vec<String> =
                        rooms.iter().map(|_| random.random_range(0..60).to_string()).collect();
                    let frames = rooms.iter().zip(&keys).map(|(room, key)| frame(room, "u", &[(key, key)]));
                    let outcomes = store.commit(frames.collect()).await.expect("commits");
                    for ((room, key), outcome) in rooms.iter().zip(keys).zip(&outcomes) {
                        placed.push(((*room).to_owned(), key, stored(outcome)[0].id));
                    }
                }
                placed
            })
        })
        .collect();
    let mut known = HashMap::new();
    for writer in writers {
        for (room, key, id) in writer.await.expect("no panic") {
            let first = *known.entry((room, key)).or_insert(id);
            assert_eq!(first, id, "a key has one place");
        }
    }
    let rows = stores[0].outbox(OWNER, 0, u32::MAX).await.expect("reads");
    for room in rooms {
        let messages = all_messages(&stores[0], room).await;
        assert_eq!(seqs(&messages), (1..=messages.len() as u64).collect::<Vec<_>>());
        assert!(messages.is_sorted_by_key(|message| message.id.ms));
        let mut covered = 0;
        for row in rows.iter().filter(|row| row.room_id.as_str() == room) {
            let push = push_of(row);
            assert_eq!(push.first_seq, covered + 1, "rows of a room follow its numbers");
            covered += i64::from(push.count);
        }
        assert_eq!(covered as usize, messages.len());
    }
    for store in stores {
        store.close().await;
    }
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_tried_again() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a", "b"]).await;
    let mut rival = database.conn().await;
    // It has written more, so the server gives up the store's transaction.
    let heavy = "START TRANSACTION; UPDATE rooms SET update_time = 1 WHERE id = 'b'; \
                 INSERT INTO dead_letters (room_id, value, reason, create_time) \
                 VALUES ('x','x','x',1),('x','x','x',1),('x','x','x',1),('x','x','x',1),('x','x','x',1)";
    rival.query_drop(heavy).await.expect("locks b");
    let commit = tokio::spawn({
        let store = store.clone();
        async move { store.commit(vec![frame("a", "u", &[("1", "x")]), frame("b", "u", &[("1", "x")])]).await }
    });
    let mut other = database.conn().await;
    eventually("the store waits for b", async || {
        let waiting: Option<u64> = other
            .query_first("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
            .await
            .expect("reads");
        waiting.is_some_and(|waiting| waiting > 0)
    })
    .await;
    rival.query_drop("UPDATE rooms SET update_time = 2 WHERE id = 'a'; COMMIT").await.expect("gets a");
    let outcomes = soon("the commit", commit).await.expect("no panic").expect("commits");
    assert_eq!(outcomes.iter().map(|o| stored(o)[0].id.seq).collect::<Vec<_>>(), [1, 1]);
    assert!(store.counters().retries >= 1);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_comes_late_is_tried_again() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a"]).await;
    let mut rival = database.conn().await;
    rival
        .query_drop("START TRANSACTION; SELECT 1 FROM rooms WHERE id = 'a' FOR UPDATE")
        .await
        .expect("locks");
    let commit = tokio::spawn({
        let store = store.clone();
        async move { send(&store, frame("a", "u", &[("1", "x")])).await }
    });
    eventually("a wait was given up", async || store.counters().retries >= 1).await;
    rival.query_drop("COMMIT").await.expect("lets go");
    assert_eq!(soon("the commit", commit).await.expect("no panic")[0].id.seq, 1);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_does_not_fit_fails_none_of_its_neighbours() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a"]).await;
    let mut frames: Vec<_> = (0..9).map(|n| frame("a", &format!("u{n}"), &[("k", &n.to_string())])).collect();
    frames[3].username = "n".repeat(65);
    frames[7].messages[0].key = "k".repeat(129);
    let outcomes = store.commit(frames).await.expect("commits");
    let refused: Vec<_> = (0..9).filter(|&n| matches!(outcomes[n], FrameOutcome::Refused(_))).collect();
    assert_eq!(refused, [3, 7]);
    let contents: Vec<_> = all_messages(&store, "a").await.into_iter().map(|m| m.content).collect();
    assert_eq!(contents, ["0", "1", "2", "4", "5", "6", "8"], "in the order of the batch");
    assert_eq!(store.counters().refused_frames, 2);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_batch_takes_few_statements_and_comes_out_whole() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    let rooms: Vec<String> = (0..200).map(|n| format!("room {n}")).collect();
    seeded(&store, &rooms.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let batch = |rooms: usize, frames: usize, tag: &str| -> Vec<CommitFrame> {
        (0..frames)
            .map(|n| frame(&format!("room {}", n % rooms), "u", &[(&format!("{tag}-{n}"), "x")]))
            .collect()
    };
    let mut statements = Vec::new();
    for (rooms, frames) in [(1, 1), (1, 100), (50, 100), (200, 200), (200, 1000)] {
        let before = store.counters().statements;
        store.commit(batch(rooms, frames, &format!("{rooms}-{frames}"))).await.expect("commits");
        statements.push(store.counters().statements - before);
    }
    // START and lock; messages, outbox, heads and COMMIT.
    assert_eq!(statements, [2, 2, 2, 2, 2]);
    let heads = store.heads(&[RoomId::from("room 0"), RoomId::from("room 199")], false).await.expect("reads");
    let mut seqs: Vec<_> = heads.iter().map(|head| head.position.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, [1 + 5, 1 + 100 + 2 + 1 + 5]);
    let rows = store.outbox(OWNER, 0, u32::MAX).await.expect("reads");
    assert_eq!(rows.len(), 1 + 1 + 50 + 200 + 200);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_looked_up_once_one_was_stored_already() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a", "b"]).await;
    let first = send(&store, frame("a", "u", &[("1", "x")])).await[0].id;
    let mut counted = store.counters();
    let mut since = || {
        let before = std::mem::replace(&mut counted, store.counters());
        (counted.statements - before.statements, counted.retries - before.retries)
    };
    // It is the second of two messages, behind frames that are new.
    let frames = vec![
        frame("b", "u", &[("1", "new")]),
        frame("a", "u", &[("2", "new"), ("1", "x")]),
        frame("a", "v", &[("1", "new")]),
    ];
    let outcomes = store.commit(frames).await.expect("commits");
    let ids: Vec<_> = outcomes.iter().flat_map(|outcome| stored(outcome).to_vec()).collect();
    assert_eq!(ids.iter().map(|message| message.id.seq).collect::<Vec<_>>(), [1, 2, 1, 3]);
    assert_eq!((ids[2].id, ids[2].repeated), (first, true));
    assert!([0, 1, 3].iter().all(|&n| !ids[n].repeated));
    // Lock, insert, ROLLBACK; lock, keys, insert.
    assert_eq!(since(), (3 + 3, 1));
    // From now on the look comes first, for repeats and for others.
    send(&store, frame("a", "u", &[("3", "x")])).await;
    assert_eq!(since(), (3, 0));
    assert!(send(&store, frame("a", "u", &[("3", "x")])).await[0].repeated);
    assert_eq!(since().1, 0);
    assert_eq!(seqs(&all_messages(&store, "a").await), [1, 2, 3, 4]);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reported_row_is_the_row_that_is_read() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a", "b"]).await;
    // Rows of more than one statement: large frames, each alone in its row.
    let content = "x".repeat(60_000);
    let frames: Vec<_> =
        (0..40).map(|n| frame(["a", "b"][n % 2], "u", &[(&n.to_string(), &content)])).collect();
    let outcomes = store.commit(frames).await.expect("commits");
    let mut reported: Vec<OutboxRow> = outcomes.iter().flat_map(rows_of).cloned().collect();
    reported.sort_by_key(|row| row.id);
    assert_eq!(reported.len(), 40);
    assert_eq!(store.outbox(OWNER, 0, 100).await.expect("reads"), reported);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_row_appears_below_one_that_was_read() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    let mut late = database.conn().await;
    let insert = "START TRANSACTION; \
                  INSERT INTO outbox (owner, room_id, value, create_time) VALUES ('node', 'a', 'late', 1)";
    late.query_drop(insert).await.expect("inserts");
    let record =
        OutboxRecord { room_id: RoomId::from("a"), owner: OWNER.to_owned(), value: Bytes::from_static(b"x") };
    let id = store.append_outbox(record).await.expect("appends");
    let ids = async |after| {
        let rows = store.outbox(OWNER, after, 9).await.expect("reads");
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(0).await, [id], "reading waits for nobody");
    late.query_drop("COMMIT").await.expect("commits");
    assert_eq!(ids(0).await.len(), 2, "whoever begins at the lowest row finds it");
    assert!(ids(0).await[0] < id);
    // Deleting a row waits for nobody's open transaction either.
    late.query_drop(insert).await.expect("inserts");
    soon("deleting", store.delete_outbox(vec![id])).await.expect("deletes");
    late.query_drop("ROLLBACK").await.expect("rolls back");
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_skips_rows_that_somebody_else_has() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    for _ in 0..3 {
        let record = OutboxRecord {
            room_id: RoomId::from("a"),
            owner: "dead".to_owned(),
            value: Bytes::from_static(b"x"),
        };
        store.append_outbox(record).await.expect("appends");
    }
    let mut rival = database.conn().await;
    let lock = "START TRANSACTION; SELECT id FROM outbox ORDER BY id LIMIT 1 FOR UPDATE";
    rival.query_drop(lock).await.expect("locks");
    let claim = tokio::time::timeout(Duration::from_secs(2), store.claim_outbox("dead", "alive", 9)).await;
    assert_eq!(claim.expect("waits for nobody").expect("claims"), 2);
    rival.query_drop("ROLLBACK").await.expect("lets go");
    assert_eq!(store.claim_outbox("dead", "alive", 9).await.expect("claims"), 1);
    store.close().await;
    database.drop().await;
}
