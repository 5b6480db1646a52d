//! Connections: limits, idleness, what a session is told.

use std::time::{Duration, Instant};

use corecast_backends::store::mysql::MysqlStore;
use corecast_backends::store::*;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::Database;
use crate::store::{frame, seeded, send};
use crate::support::eventually;

/// The connections of a database as the server sees them, without this one.
async fn connections(database: &Database, conn: &mut Conn) -> Vec<u64> {
    let sql = format!(
        "SELECT id FROM information_schema.processlist WHERE db = '{}' AND id <> CONNECTION_ID() ORDER BY id",
        database.name
    );
    conn.query(sql).await.expect("reads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_makes_calls_wait_and_then_refuses_them() {
    let Some(database) = Database::new().await else { return };
    let options =
        StoreOptions { pool_max: 2, pool_wait: Duration::from_millis(100), ..StoreOptions::default() };
    let store = MysqlStore::new(&database.url, &options).expect("opens");
    seeded(&store, &["a"]).await;
    let mut rival = database.conn().await;
    rival
        .query_drop("START TRANSACTION; SELECT 1 FROM rooms WHERE id = 'a' FOR UPDATE")
        .await
        .expect("locks");
    let blocked: Vec<_> = (0..2)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await })
        })
        .collect();
    eventually("both connections are in use", async || store.pool().expect("a pool").in_use == 2).await;
    let started = Instant::now();
    let refused = store.rooms().await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("in use")), "{refused:?}");
    assert!(started.elapsed() >= Duration::from_millis(100));
    let now = store.pool().expect("a pool");
    assert_eq!((now.max, now.waiting, now.wait_timeouts), (2, 0, 1));
    assert!(now.wait_time >= Duration::from_millis(100));
    rival.query_drop("COMMIT").await.expect("lets go");
    for send in blocked {
        send.await.expect("no panic");
    }
    let now = store.pool().expect("a pool");
    assert_eq!((now.in_use, now.idle, now.opened), (0, 2, 2));
    store.close().await;
    assert!(matches!(store.rooms().await, Err(StoreError::Unavailable(_))), "closed");
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_kept_alive() {
    let Some(database) = Database::new().await else { return };
    let store = database.store_with("?init=SET%20SESSION%20wait_timeout%20=%206");
    seeded(&store, &["a"]).await;
    let mut conn = database.conn().await;
    let before = connections(&database, &mut conn).await;
    assert!(!before.is_empty());
    // Longer than the server would leave a silent one alone.
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(connections(&database, &mut conn).await, before);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_server_ended_are_replaced() {
    let Some(database) = Database::new().await else { return };
    // Shorter than the keeper's pace: the server ends them.
    let store = database.store_with("?init=SET%20SESSION%20wait_timeout%20=%201");
    seeded(&store, &["a"]).await;
    let mut conn = database.conn().await;
    for n in 0..3 {
        eventually("the server has ended them", async || connections(&database, &mut conn).await.is_empty())
            .await;
        let sent = send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await;
        assert_eq!((sent[0].id.seq, sent[0].repeated), (n + 1, false));
    }
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_killed_under_the_pool_fails_no_call() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a"]).await;
    let mut conn = database.conn().await;
    for n in 0..5 {
        send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await;
        for id in connections(&database, &mut conn).await {
            conn.query_drop(format!("KILL {id}")).await.expect("kills");
        }
        store.rooms().await.expect("a read is made again on another connection");
    }
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_closes_its_connection_and_lets_its_locks_go() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a"]).await;
    let mut rival = database.conn().await;
    rival
        .query_drop("START TRANSACTION; SELECT 1 FROM rooms WHERE id = 'a' FOR UPDATE")
        .await
        .expect("locks");
    let waiting = store.commit(vec![frame("a", "u", &[("dropped", "x")])]);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err(),
        "it waits for the lock"
    );
    eventually("its place is free", async || store.pool().expect("a pool").in_use == 0).await;
    rival.query_drop("COMMIT").await.expect("lets go");
    let sent = send(&store, frame("a", "u", &[("next", "x")])).await;
    assert!(!sent[0].repeated);
    store.close().await;
    database.drop().await;
}
