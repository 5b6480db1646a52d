//! Pages of history from a server that follows. Another database plays it, so that what it has
//! followed can be chosen.

use corecast_backends::store::mysql::MysqlStore;
use corecast_backends::store::*;

use super::Database;
use crate::store::{seeded, send_many, seqs};

/// A primary with ten messages in room `a`, and a replica that has followed up to `seq`.
async fn primary_and_replica(seq: u64) -> Option<(Database, Database, MysqlStore)> {
    let (primary, replica) = (Database::new().await?, Database::new().await?);
    let options = StoreOptions { replica_url: Some(replica.url.clone()), ..StoreOptions::default() };
    let store = MysqlStore::new(&primary.url, &options).expect("opens");
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 1).await;
    let (from, to) = (&primary.name, &replica.name);
    let follow = format!(
        "DELETE FROM {to}.rooms; INSERT INTO {to}.rooms SELECT * FROM {from}.rooms; \
         INSERT INTO {to}.messages SELECT * FROM {from}.messages WHERE seq <= {seq}; \
         UPDATE {to}.rooms SET last_seq = LEAST(last_seq, {seq}); \
         UPDATE {to}.messages SET username = 'replica'"
    );
    replica.run(&follow).await;
    Some((primary, replica, store))
}

/// The page before this number, and whether the replica made it.
async fn page(store: &MysqlStore, before: u64, count: u32) -> (Vec<u64>, bool) {
    let page = store.messages_before("a", before, count).await.expect("reads").expect("exists");
    assert_eq!(page.head.seq, 10, "the head is the primary's");
    let of_replica: Vec<bool> = page.messages.iter().map(|m| m.username == "replica").collect();
    assert!(of_replica.iter().all(|one| *one == of_replica[0]), "a page is of one server");
    (seqs(&page.messages), of_replica[0])
}

async fn end(primary: Database, replica: Database, store: MysqlStore) {
    store.close().await;
    primary.drop().await;
    replica.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_followed_answers_pages() {
    let Some((primary, replica, store)) = primary_and_replica(10).await else { return };
    assert_eq!(page(&store, u64::MAX, 3).await, (vec![8, 9, 10], true));
    assert_eq!(page(&store, 4, 30).await, (vec![1, 2, 3], true), "down to number 1");
    assert_eq!((store.counters().replica_pages, store.counters().replica_misses), (2, 0));
    end(primary, replica, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_lacks_comes_from_the_primary() {
    let Some((primary, replica, store)) = primary_and_replica(9).await else { return };
    assert_eq!(page(&store, u64::MAX, 3).await, (vec![8, 9, 10], false), "it lacks the head");
    assert_eq!(page(&store, 10, 3).await, (vec![7, 8, 9], true), "the anchor is what matters");
    replica.run("DELETE FROM messages WHERE seq = 8").await;
    assert_eq!(page(&store, 10, 3).await, (vec![7, 8, 9], false), "a hole");
    assert_eq!(page(&store, 8, 3).await, (vec![5, 6, 7], true), "below the hole");
    replica.run("DELETE FROM messages WHERE seq = 1").await;
    assert_eq!(page(&store, 4, 3).await, (vec![1, 2, 3], false), "its oldest is missing");
    end(primary, replica, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_another_epoch_or_without_the_room_is_not_believed() {
    let Some((primary, replica, store)) = primary_and_replica(10).await else { return };
    replica.run("UPDATE rooms SET epoch = epoch + 1").await;
    assert!(!page(&store, u64::MAX, 3).await.1);
    replica.run("DELETE FROM rooms").await;
    assert!(!page(&store, u64::MAX, 3).await.1);
    assert_eq!(store.messages_before("nowhere", 9, 3).await.expect("reads"), None);
    end(primary, replica, store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_away_delays_one_page_and_fails_none() {
    let Some(primary) = Database::new().await else { return };
    // Port 1 refuses on every machine that runs tests.
    let replica_url = Some("mysql://root@127.0.0.1:1/db".to_owned());
    let store = MysqlStore::new(&primary.url, &StoreOptions { replica_url, ..StoreOptions::default() });
    let store = store.expect("opens");
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 1).await;
    for _ in 0..3 {
        assert_eq!(page(&store, u64::MAX, 2).await, (vec![9, 10], false));
    }
    assert_eq!(store.counters().replica_misses, 1, "after the first it rests");
    store.close().await;
    primary.drop().await;
}
