//! Pages and heads.

use corecast_backends::store::*;
use corecast_proto::ids::{GLOBAL, Position, RoomId};

use super::{EPOCH, frame, new_room, on_every_store, seeded, send, send_many, seqs};

on_every_store!(
    the_newest_page_is_oldest_first,
    a_page_before_a_number_excludes_it,
    a_page_before_the_first_message_is_empty,
    a_range_excludes_its_start_and_includes_its_end,
    a_range_is_cut_by_count_and_by_bytes_but_never_empty,
    a_page_carries_the_head_of_its_snapshot,
    an_unknown_room_is_none,
    heads_answer_each_room_once_and_leave_unknown_ones_out,
    heads_with_defaults_begin_with_global,
    a_read_sees_every_commit_answered_before,
);

async fn before<S: Store>(store: &S, before: u64, count: u32) -> Vec<u64> {
    let page = store.messages_before("a", before, count).await.expect("reads").expect("exists");
    seqs(&page.messages)
}

async fn after<S: Store>(store: &S, after: u64, up_to: u64, count: u32, max_bytes: usize) -> Vec<u64> {
    let page = store.messages_after("a", after, up_to, count, max_bytes).await.expect("reads");
    seqs(&page.expect("exists").messages)
}

async fn the_newest_page_is_oldest_first<S: Store>(store: S) {
    seeded(&store, &["a", "b"]).await;
    send_many(&store, "a", 10, 1).await;
    send_many(&store, "b", 3, 1).await;
    assert_eq!(before(&store, u64::MAX, 3).await, [8, 9, 10]);
    assert_eq!(before(&store, u64::MAX, 11).await, (1..=10).collect::<Vec<_>>());
}

async fn a_page_before_a_number_excludes_it<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 1).await;
    assert_eq!(before(&store, 10, 3).await, [7, 8, 9]);
    assert_eq!(before(&store, 11, 3).await, [8, 9, 10]);
    assert_eq!(before(&store, 3, 3).await, [1, 2]);
}

async fn a_page_before_the_first_message_is_empty<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    assert_eq!(before(&store, u64::MAX, 3).await, [0; 0]);
    send_many(&store, "a", 1, 1).await;
    assert_eq!(before(&store, 1, 3).await, [0; 0]);
    assert_eq!(before(&store, 0, 3).await, [0; 0]);
    assert_eq!(before(&store, u64::MAX, 0).await, [0; 0]);
}

async fn a_range_excludes_its_start_and_includes_its_end<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 1).await;
    assert_eq!(after(&store, 3, 6, 100, 1000).await, [4, 5, 6]);
    assert_eq!(after(&store, 8, u64::MAX, 100, 1000).await, [9, 10]);
    assert_eq!(after(&store, 10, u64::MAX, 100, 1000).await, [0; 0]);
    assert_eq!(after(&store, 6, 3, 100, 1000).await, [0; 0]);
}

async fn a_range_is_cut_by_count_and_by_bytes_but_never_empty<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 100).await;
    assert_eq!(after(&store, 0, 10, 2, 10_000).await, [1, 2]);
    assert_eq!(after(&store, 0, 10, 9, 300).await, [1, 2, 3]);
    assert_eq!(after(&store, 0, 10, 9, 299).await, [1, 2]);
    assert_eq!(after(&store, 0, 10, 9, 1).await, [1]);
}

async fn a_page_carries_the_head_of_its_snapshot<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 1).await;
    let head = Position { epoch: EPOCH, seq: 10 };
    assert_eq!(store.messages_before("a", 4, 1).await.expect("reads").expect("exists").head, head);
    assert_eq!(store.messages_after("a", 2, 4, 9, 9).await.expect("reads").expect("exists").head, head);
}

async fn an_unknown_room_is_none<S: Store>(store: S) {
    assert_eq!(store.room("nowhere").await.expect("reads"), None);
    assert_eq!(store.messages_before("nowhere", u64::MAX, 1).await.expect("reads"), None);
    assert_eq!(store.messages_after("nowhere", 0, 9, 1, 1).await.expect("reads"), None);
}

async fn heads_answer_each_room_once_and_leave_unknown_ones_out<S: Store>(store: S) {
    seeded(&store, &["a", "b"]).await;
    send_many(&store, "b", 2, 1).await;
    let asked = ["b", "nowhere", "a", "b"].map(RoomId::from);
    let heads = store.heads(&asked, false).await.expect("reads");
    let mut found: Vec<_> = heads.iter().map(|head| (head.room_id.as_str(), head.position.seq)).collect();
    found.sort_unstable();
    assert_eq!(found, [("a", 0), ("b", 2)]);
}

async fn heads_with_defaults_begin_with_global<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    store.create_room(new_room("public")).await.expect("creates");
    let heads = store.heads(&[RoomId::from("a"), RoomId::from(GLOBAL)], true).await.expect("reads");
    let mut found: Vec<_> =
        heads.iter().map(|head| (head.room_id.as_str(), head.position.seq, head.kind)).collect();
    found.sort_unstable_by_key(|(room_id, ..)| *room_id);
    assert_eq!(found, [("a", 0, RoomKind::Default), (GLOBAL, 1, RoomKind::Default)]);
    let asked = store.heads(&[RoomId::from("id of public")], true).await.expect("reads");
    assert!(asked.iter().any(|head| head.kind == RoomKind::Public));
    assert_eq!(asked.len(), 3);
}

async fn a_read_sees_every_commit_answered_before<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    for n in 1..=50 {
        let seq = send(&store, frame("a", "u", &[(&n.to_string(), "x")])).await[0].id.seq;
        let head = store.heads(&[RoomId::from("a")], false).await.expect("reads")[0].position.seq;
        assert_eq!((seq, head), (n, n));
    }
}
