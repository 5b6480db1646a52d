//! The outbox and the dead letters.

use bytes::Bytes;
use corecast_backends::store::*;
use corecast_proto::ids::RoomId;

use super::{OWNER, frame, on_every_store, rows_of, seeded, send};
use crate::support::{eventually, is_pending, soon};

on_every_store!(
    rows_are_read_by_owner_id_and_limit,
    an_appended_record_gets_a_row_of_its_own,
    deleted_rows_are_gone_within_a_moment_and_the_others_stay,
    deleting_absent_rows_is_ignored,
    ids_grow_and_are_never_used_again,
    owners_of_rows_are_known_with_the_age_of_their_oldest,
    a_claim_moves_the_oldest_rows_up_to_the_limit,
    a_commit_wakes_who_waits_for_the_outbox,
    a_commit_before_the_wait_is_not_missed,
    every_handle_is_woken,
    nothing_new_wakes_nobody,
    dead_letters_are_kept_in_order,
);

fn record(owner: &str, value: &'static str) -> OutboxRecord {
    OutboxRecord {
        room_id: RoomId::from("a"),
        owner: owner.to_owned(),
        value: Bytes::from_static(value.as_bytes()),
    }
}

async fn values<S: Store>(store: &S, owner: &str) -> Vec<String> {
    let rows = store.outbox(owner, 0, 1000).await.expect("reads");
    rows.iter().map(|row| String::from_utf8_lossy(&row.value).into_owned()).collect()
}

async fn rows_are_read_by_owner_id_and_limit<S: Store>(store: S) {
    let mut ids = Vec::new();
    for value in ["1", "2", "3"] {
        ids.push(store.append_outbox(record("one", value)).await.expect("appends"));
        store.append_outbox(record("two", "other")).await.expect("appends");
    }
    let read = async |after, limit| {
        let rows = store.outbox("one", after, limit).await.expect("reads");
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(read(0, 10).await, ids);
    assert_eq!(read(0, 2).await, ids[..2]);
    assert_eq!(read(ids[0], 10).await, ids[1..]);
    assert_eq!(read(ids[2], 10).await, [0; 0]);
    assert_eq!(values(&store, "nobody").await, [""; 0]);
}

async fn an_appended_record_gets_a_row_of_its_own<S: Store>(store: S) {
    let value = Bytes::from_static(b"\x00\xff not text");
    let sent = OutboxRecord { value: value.clone(), ..record(OWNER, "") };
    let id = store.append_outbox(sent).await.expect("appends");
    let expected = OutboxRow { id, room_id: RoomId::from("a"), value };
    assert_eq!(store.outbox(OWNER, 0, 10).await.expect("reads"), [expected]);
}

async fn deleted_rows_are_gone_within_a_moment_and_the_others_stay<S: Store>(store: S) {
    let mut ids = Vec::new();
    for value in ["1", "2", "3", "4", "5", "6"] {
        ids.push(store.append_outbox(record(OWNER, value)).await.expect("appends"));
    }
    store.delete_outbox(vec![ids[4], ids[1], ids[2], ids[1]]).await.expect("deletes");
    eventually("the rows are gone", async || values(&store, OWNER).await == ["1", "4", "6"]).await;
}

async fn deleting_absent_rows_is_ignored<S: Store>(store: S) {
    let id = store.append_outbox(record(OWNER, "1")).await.expect("appends");
    store.delete_outbox(vec![]).await.expect("nothing to do");
    store.delete_outbox(vec![id + 100, id, id]).await.expect("deletes");
    store.delete_outbox(vec![id]).await.expect("deletes");
    eventually("the row is gone", async || values(&store, OWNER).await.is_empty()).await;
}

async fn ids_grow_and_are_never_used_again<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let mut last = 0;
    for n in 0..5 {
        let outcomes = store.commit(vec![frame("a", "u", &[(&n.to_string(), "x")])]).await.expect("commits");
        let id = rows_of(&outcomes[0])[0].id;
        assert!(id > last, "{id} after {last}");
        last = id;
        store.delete_outbox(vec![id]).await.expect("deletes");
        eventually("the table is empty", async || values(&store, OWNER).await.is_empty()).await;
    }
}

async fn a_claim_moves_the_oldest_rows_up_to_the_limit<S: Store>(store: S) {
    for value in ["1", "2", "3"] {
        store.append_outbox(record("dead", value)).await.expect("appends");
        store.append_outbox(record("alive", "stays")).await.expect("appends");
    }
    assert_eq!(store.claim_outbox("dead", "claimant", 2).await.expect("claims"), 2);
    assert_eq!(values(&store, "claimant").await, ["1", "2"]);
    assert_eq!(values(&store, "dead").await, ["3"]);
    assert_eq!(store.claim_outbox("dead", "claimant", 9).await.expect("claims"), 1);
    assert_eq!(store.claim_outbox("dead", "claimant", 9).await.expect("claims"), 0);
    assert_eq!(values(&store, "alive").await, ["stays"; 3]);
}

async fn owners_of_rows_are_known_with_the_age_of_their_oldest<S: Store>(store: S) {
    assert_eq!(store.outbox_owners().await.expect("reads"), []);
    let mut oldest = 0;
    for owner in ["one", "two", "one", "Two", "one"] {
        let id = store.append_outbox(record(owner, "x")).await.expect("appends");
        oldest = if oldest == 0 { id } else { oldest };
    }
    let owners = store.outbox_owners().await.expect("reads");
    let names: Vec<&str> = owners.iter().map(|owner| &*owner.owner).collect();
    assert_eq!(names, ["Two", "one", "two"], "bytes are compared");
    eventually("the oldest row of one ages", async || {
        let owners = store.outbox_owners().await.expect("reads");
        owners.iter().any(|owner| owner.owner == "one" && owner.oldest_age_ms >= 50)
    })
    .await;
    let owners = store.outbox_owners().await.expect("reads");
    assert!(owners.iter().all(|owner| owner.oldest_age_ms < 600_000), "{owners:?}");
    store.delete_outbox(vec![oldest]).await.expect("deletes");
    store.claim_outbox("Two", "two", 9).await.expect("claims");
    let names = async || {
        let owners = store.outbox_owners().await.expect("reads");
        owners.into_iter().map(|owner| owner.owner).collect::<Vec<_>>()
    };
    eventually("who owns nothing any more is not named", async || names().await == ["one", "two"]).await;
}

/// A handle that was told of everything so far.
async fn told<S: Store>(store: &S) -> S {
    let handle = store.clone();
    while !is_pending(handle.outbox_changed()).await {}
    handle
}

async fn a_commit_wakes_who_waits_for_the_outbox<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    let handle = told(&store).await;
    let waiting = tokio::spawn(async move { handle.outbox_changed().await });
    send(&store, frame("a", "u", &[("k", "x")])).await;
    soon("the waiter is woken", waiting).await.expect("no panic");
}

async fn a_commit_before_the_wait_is_not_missed<S: Store>(store: S) {
    let handle = told(&store).await;
    store.append_outbox(record(OWNER, "1")).await.expect("appends");
    soon("the change is seen afterwards", handle.outbox_changed()).await;
}

async fn every_handle_is_woken<S: Store>(store: S) {
    let (one, two) = (told(&store).await, told(&store).await);
    store.append_outbox(record(OWNER, "1")).await.expect("appends");
    soon("the first handle", one.outbox_changed()).await;
    soon("the second handle", two.outbox_changed()).await;
}

async fn nothing_new_wakes_nobody<S: Store>(store: S) {
    store.append_outbox(record(OWNER, "1")).await.expect("appends");
    let handle = told(&store).await;
    store.outbox(OWNER, 0, 10).await.expect("reads");
    assert!(is_pending(handle.outbox_changed()).await);
}

async fn dead_letters_are_kept_in_order<S: Store>(store: S) {
    let letter = |value: &'static [u8], reason: &str| DeadLetter {
        room_id: RoomId::from("a"),
        value: Bytes::from_static(value),
        reason: reason.to_owned(),
    };
    let letters = [letter(b"\xff", "not a record"), letter(b"", "empty")];
    for letter in &letters {
        store.put_dead_letter(letter.clone()).await.expect("writes");
    }
    assert_eq!(store.dead_letters(10).await.expect("reads"), letters);
    assert_eq!(store.dead_letters(1).await.expect("reads"), letters[..1]);
}
