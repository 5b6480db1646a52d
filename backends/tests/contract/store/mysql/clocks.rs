//! The database's clock, as sessions see it.

use std::time::{SystemTime, UNIX_EPOCH};

use corecast_backends::store::*;
use futures::future::join_all;

use super::Database;
use crate::store::{all_messages, frame, seeded, send, seqs};

/// A session whose clock is 300 ms behind, whenever it writes.
const BEHIND: &str = "?begin=SET%20timestamp%20=%20UNIX_TIMESTAMP(SYSDATE(3))%20-%200.3";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_node_whose_clock_is_behind_ids_and_timestamps_never_run_backwards() {
    let Some(database) = Database::new().await else { return };
    let (ahead, behind) = (database.store(), database.store_with(BEHIND));
    seeded(&ahead, &["a", "alone"]).await;
    for n in 0..20 {
        let store = if n % 2 == 0 { &ahead } else { &behind };
        let sent = send(store, frame("a", "u", &[(&format!("turn {n}"), "x")])).await;
        assert_eq!(sent[0].id.seq, n + 1);
    }
    let sends = (0..60).map(|n| {
        let store = if n % 2 == 0 { ahead.clone() } else { behind.clone() };
        async move { send(&store, frame("a", "u", &[(&format!("race {n}"), "x")])).await }
    });
    join_all(sends).await;
    let messages = all_messages(&ahead, "a").await;
    assert_eq!(seqs(&messages), (1..=80).collect::<Vec<_>>());
    assert!(messages.is_sorted_by_key(|message| message.id.ms));
    // Alone, its clock is what it is: the test does test something.
    let before = now_ms();
    let sent = send(&behind, frame("alone", "u", &[("1", "x")])).await[0].id;
    let after = now_ms();
    assert!((before - 310..=after - 290).contains(&sent.ms), "{} is not 300 ms before {before}", sent.ms);
    ahead.close().await;
    behind.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_are_utc_whatever_the_servers_zone_is() {
    let Some(database) = Database::new().await else { return };
    let store = database.store_with("?init=SET%20time_zone%20=%20%27%2B09:30%27");
    seeded(&store, &["a"]).await;
    let before = now_ms();
    let sent = send(&store, frame("a", "u", &[("1", "x")])).await[0].id;
    assert!((before - 1..=now_ms() + 1).contains(&sent.ms));
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_does_not_move_timestamps_back() {
    let Some(database) = Database::new().await else { return };
    let store = database.store();
    seeded(&store, &["a"]).await;
    let far = 99_000_000_000_000_i64;
    database.run(&format!("UPDATE rooms SET last_ms = {far} WHERE id = 'a'")).await;
    let sent = send(&store, frame("a", "u", &[("1", "x"), ("2", "x")])).await;
    assert_eq!((sent[0].id.ms, sent[1].id.ms), (far, far));
    let room = store.room("a").await.expect("reads").expect("exists");
    assert_eq!(room.update_time, far);
    store.close().await;
    database.drop().await;
}
