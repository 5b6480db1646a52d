//! Answers that are lost: the outcome of a COMMIT, and nodes that vanish with their locks.

use std::time::{Duration, Instant};

use corecast_backends::store::*;

use super::Database;
use super::proxy::{AtCommit, Proxy};
use crate::store::{OWNER, all_messages, frame, new_room, rows_of, seeded, send, seqs, stored};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_by_its_keys() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::before(database.place()).await;
    let store = database.store_through(proxy.port());
    seeded(&store, &["a", "b"]).await;
    proxy.at_commit(AtCommit::CutAfter);
    let frames = vec![frame("a", "u", &[("1", "x"), ("2", "y")]), frame("b", "u", &[("1", "x")])];
    let outcomes = store.commit(frames).await.expect("commits");
    let places: Vec<_> = outcomes.iter().flat_map(stored).map(|m| (m.id.seq, m.repeated)).collect();
    assert_eq!(places, [(1, true), (2, true), (1, true)], "stored by the first try");
    assert_eq!(store.counters().unknown_commits, 1);
    assert_eq!(seqs(&all_messages(&store, "a").await), [1, 2]);
    assert_eq!(store.outbox(OWNER, 0, 9).await.expect("reads").len(), 2, "one row a room");
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_arrived_is_made_once() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::before(database.place()).await;
    let store = database.store_through(proxy.port());
    seeded(&store, &["a"]).await;
    proxy.at_commit(AtCommit::CutBefore);
    let outcomes = store.commit(vec![frame("a", "u", &[("1", "x")])]).await.expect("commits");
    assert_eq!((stored(&outcomes[0])[0].id.seq, stored(&outcomes[0])[0].repeated), (1, false));
    assert_eq!(rows_of(&outcomes[0]), store.outbox(OWNER, 0, 9).await.expect("reads"));
    assert_eq!(store.counters().unknown_commits, 1);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_whose_creation_was_not_answered_is_created_once() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::before(database.place()).await;
    let store = database.store_through(proxy.port());
    seeded(&store, &["a"]).await;
    proxy.at_commit(AtCommit::CutAfter);
    let created = store.create_room(new_room("x")).await.expect("answers");
    assert!(matches!(created, CreateRoom::Repeated(room) if room.global_seq == Some(1)));
    assert_eq!(store.rooms().await.expect("reads").len(), 2);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_not_created_twice_to_find_out() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::before(database.place()).await;
    let store = database.store_through(proxy.port());
    let user = NewUser {
        user_id: "u".to_owned(),
        username: "Ann".to_owned(),
        username_folded: "ann".to_owned(),
        email: "a@x".to_owned(),
        email_folded: "a@x".to_owned(),
        password_hash: "hash".to_owned(),
        salt: "salt".to_owned(),
        now_ms: 0,
    };
    store.rooms().await.expect("reads");
    proxy.at_commit(AtCommit::CutAfter);
    let created = store.create_user(user.clone()).await;
    assert!(matches!(created, Err(StoreError::Unknown(_))), "{created:?}");
    assert_eq!(store.create_user(user).await.expect("answers"), CreateUser::UsernameExists);
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_can_be_asked_the_outcome_is_unknown_and_the_keys_make_a_repeat_safe() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::before(database.place()).await;
    let store = database.store_through(proxy.port());
    seeded(&store, &["a"]).await;
    proxy.at_commit(AtCommit::CutAfter);
    proxy.refuse(true);
    let sent = store.commit(vec![frame("a", "u", &[("1", "x")])]).await;
    assert!(matches!(sent, Err(StoreError::Unknown(_))), "{sent:?}");
    proxy.refuse(false);
    let again = send(&store, frame("a", "u", &[("1", "x")])).await;
    assert_eq!((again[0].id.seq, again[0].repeated), (1, true));
    store.close().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_a_vanished_node_go_in_time() {
    let Some(database) = Database::new().await else { return };
    let proxy = Proxy::before(database.place()).await;
    let (vanishing, other) = (database.store_through(proxy.port()), database.store());
    seeded(&vanishing, &["a"]).await;
    proxy.at_commit(AtCommit::Freeze);
    let started = Instant::now();
    let lost = tokio::spawn(async move { vanishing.commit(vec![frame("a", "u", &[("1", "x")])]).await });
    // It holds the room's lock from here on until the server gives it up.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let sent = loop {
        match other.commit(vec![frame("a", "v", &[("2", "y")])]).await {
            Ok(outcomes) => break stored(&outcomes[0])[0],
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
        }
        assert!(started.elapsed() < Duration::from_secs(60), "the lock stays");
    };
    let waited = started.elapsed();
    assert!(waited > Duration::from_secs(3), "{waited:?}: nobody held the lock");
    assert_eq!(sent.id.seq, 1, "the vanished commit was rolled back");
    assert!(matches!(lost.await.expect("no panic"), Err(StoreError::Unknown(_))));
    other.close().await;
    database.drop().await;
}
