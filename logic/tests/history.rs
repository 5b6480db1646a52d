//! Setup: a room with many messages, read page by page over gRPC. Claim: pages meet without
//! overlap or hole, from the cache as from the store, and an anchor is believed only where it
//! is stored. Why it matters: a reader who misses a page never knows.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::time::Duration;

use corecast_backends::hotset::{AnyHotSet, HotSet};
use corecast_proto::logic::HistoryRequest;
use serde_json::Value;
use support::{GENERAL, Running, User, frame, node, seqs};

fn before(room_id: &str, user: &User, anchor: &str, count: u32) -> HistoryRequest {
    HistoryRequest {
        room_id: room_id.into(),
        user_id: user.id.clone(),
        first_message_id: anchor.into(),
        count,
        ..HistoryRequest::default()
    }
}

fn after(room_id: &str, user: &User, seq: u64, count: u32) -> HistoryRequest {
    HistoryRequest { has_after_seq: true, after_seq: seq, ..before(room_id, user, "", count) }
}

fn forget(node: &Running) {
    let AnyHotSet::Memory(hotset) = &node.backends.hotset else { panic!("not embedded") };
    hotset.clear();
}

fn pages(node: &Running, source: &str) -> f64 {
    node.metric(&format!("corecast_logic_history_pages_total{{source={source:?}}}"))
}

async fn read_back(node: &Running, user: &User, count: u32) -> Vec<u64> {
    let mut all = Vec::new();
    let mut anchor = String::new();
    loop {
        let page = node.page(before(GENERAL, user, &anchor, count)).await.unwrap();
        let numbers = seqs(&page["messages"]);
        assert!(numbers.len() <= count as usize);
        let more = page["hasMoreMessages"].as_bool().unwrap();
        if let Some(first) = page["messages"].get(0) {
            anchor = first["id"].as_str().unwrap().to_owned();
        }
        all.splice(0..0, numbers);
        if !more {
            return all;
        }
    }
}

#[tokio::test]
async fn paging_back_reaches_the_first_message_without_overlap_or_hole() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 700).await;
    let expected: Vec<u64> = (1..=700).collect();
    for count in [1 + 69, 7, 200] {
        assert_eq!(read_back(&node, &user, count).await, expected, "pages of {count}");
        forget(&node);
    }
    assert!(pages(&node, "cache") > 0.0 && pages(&node, "store") > 0.0);
}

#[tokio::test]
async fn paging_forward_reaches_the_head() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 130).await;
    let mut all = Vec::new();
    loop {
        let reached = all.last().copied().unwrap_or(0);
        let page = node.page(after(GENERAL, &user, reached, 50)).await.unwrap();
        all.extend(seqs(&page["messages"]));
        if page["hasMoreMessages"] == false {
            break;
        }
    }
    assert_eq!(all, (1..=130).collect::<Vec<u64>>());
    let above = node.page(after(GENERAL, &user, 500, 50)).await.unwrap();
    assert_eq!((seqs(&above["messages"]), &above["hasMoreMessages"]), (vec![], &Value::Bool(false)));
}

#[tokio::test]
async fn the_first_page_is_rebuilt_into_the_cache_and_stays_true() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 300).await;
    let first = node.newest(GENERAL, &user, 30).await;
    assert_eq!((pages(&node, "store"), pages(&node, "cache")), (1.0, 0.0));
    assert_eq!(node.newest(GENERAL, &user, 30).await, first);
    assert_eq!(node.newest(GENERAL, &user, 200).await["messages"].as_array().unwrap().len(), 200);
    assert_eq!((pages(&node, "store"), pages(&node, "cache")), (1.0, 2.0));
    // What is sent later is in the next page, whether the list took it or not.
    for n in 0..20 {
        node.send(vec![frame(GENERAL, &user, &[("new", format!("c:new-{n}"))])]).await;
        let page = node.newest(GENERAL, &user, 5).await;
        assert_eq!(seqs(&page["messages"]).last(), Some(&(301 + n)));
    }
}

#[tokio::test]
async fn a_cached_list_that_is_behind_is_not_believed() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 10).await;
    let epoch = node.newest(GENERAL, &user, 5).await["epoch"].as_u64().unwrap();
    // The list as it would be had the append been lost.
    let room = GENERAL.into();
    let (_, stale) = node.backends.hotset.history(&room, epoch, u64::MAX, 5).await.unwrap().unwrap();
    node.send(vec![frame(GENERAL, &user, &[("newest", "c:newest")])]).await;
    let head = corecast_proto::ids::Position { epoch, seq: 10 };
    support::until("the append came before the rebuild below", async || {
        let top = node.backends.hotset.history(&room, epoch, u64::MAX, 1).await.unwrap();
        top.is_some_and(|(top, _)| top == 11)
    })
    .await;
    node.backends.hotset.rebuild_history(&room, head, &stale).await.unwrap();
    let page = node.newest(GENERAL, &user, 5).await;
    assert_eq!(seqs(&page["messages"]), [7, 8, 9, 10, 11]);
}

#[tokio::test]
async fn one_reader_rebuilds_and_the_others_read_the_store() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 50).await;
    let room = GENERAL.into();
    // Somebody else rebuilds just now and will not end soon.
    assert!(node.backends.hotset.begin_rebuild(&room, Duration::from_secs(60)).await.unwrap());
    let epoch = node.newest(GENERAL, &user, 10).await["epoch"].as_u64().unwrap();
    assert_eq!(node.backends.hotset.history(&room, epoch, u64::MAX, 10).await.unwrap(), None);
    assert_eq!(pages(&node, "store"), 1.0);
}

#[tokio::test]
async fn an_anchor_must_be_a_stored_id_of_this_room() {
    let node = node().await;
    let user = node.user().await;
    let other = node.create_room("other", &user, "g:1").await.room_id;
    let ids = node.fill(GENERAL, &user, 10).await;
    let foreign = node.fill(&other, &user, 3).await;
    let (ms, seq) = ids[4].split_once('-').unwrap();
    let forged = format!("{}-{seq}", ms.parse::<i64>().unwrap() - 1);
    let above = format!("{ms}-11");
    // From the store, then from the cache.
    for _ in 0..2 {
        for anchor in [foreign[2].as_str(), &forged, &above, "5", "nonsense", "0-0", " "] {
            let refused = node.page(before(GENERAL, &user, anchor, 5)).await;
            // Two rooms filled in the same millisecond may share an id: then it is one of this room.
            if !ids.iter().any(|id| id == anchor) {
                assert_eq!(refused, Err("UNKNOWN_MESSAGE".into()), "{anchor:?}");
            }
        }
        let page = node.page(before(GENERAL, &user, &ids[4], 3)).await.unwrap();
        assert_eq!(seqs(&page["messages"]), [2, 3, 4]);
        let first = node.page(before(GENERAL, &user, &ids[0], 3)).await.unwrap();
        assert_eq!((seqs(&first["messages"]), &first["hasMoreMessages"]), (vec![], &Value::Bool(false)));
        node.newest(GENERAL, &user, 10).await;
    }
}

#[tokio::test]
async fn count_is_1_to_200_and_30_when_absent() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 210).await;
    let length = async |count: u32| {
        let page = node.page(before(GENERAL, &user, "", count)).await;
        page.map(|page| page["messages"].as_array().unwrap().len())
    };
    assert_eq!(length(0).await, Ok(30));
    assert_eq!(length(1).await, Ok(1));
    assert_eq!(length(200).await, Ok(200));
    assert_eq!(length(201).await, Err("BAD_INPUT".into()));
}

#[tokio::test]
async fn a_page_of_the_largest_messages_keeps_to_a_mebibyte() {
    let node = node().await;
    let user = node.user().await;
    let wide = "\u{1}".repeat(4096);
    for n in 0..80 {
        node.send(vec![frame(GENERAL, &user, &[(&wide, format!("c:{n}"))])]).await;
    }
    for request in [before(GENERAL, &user, "", 200), after(GENERAL, &user, 0, 200)] {
        let forward = request.has_after_seq;
        let reply = node.grpc.clone().history(request).await.unwrap().into_inner();
        assert!(reply.frame.len() <= 1 << 20, "{} bytes", reply.frame.len());
        assert!(reply.frame.len() > 900 << 10, "{} bytes", reply.frame.len());
        let page: Value = serde_json::from_slice(&reply.frame).unwrap();
        assert_eq!(page["payload"]["hasMoreMessages"], true);
        let numbers = seqs(&page["payload"]["messages"]);
        assert_eq!(if forward { numbers[0] } else { *numbers.last().unwrap() }, if forward { 1 } else { 80 });
    }
    assert_eq!(read_back(&node, &user, 200).await, (1..=80).collect::<Vec<u64>>());
}

#[tokio::test]
async fn rooms_that_may_not_be_seen_are_unknown() {
    let node = node().await;
    let user = node.user().await;
    let node = node.reopen_with(|c| c.rooms.create_kind = corecast_logic::config::CreateKind::Private).await;
    let private = node.create_room("private", &user, "g:1").await.room_id;
    for room_id in ["room-404", "global", private.as_str()] {
        for request in [before(room_id, &user, "", 5), after(room_id, &user, 0, 5)] {
            assert_eq!(node.page(request).await, Err("UNKNOWN_ROOM".into()), "{room_id}");
        }
    }
    let stranger = HistoryRequest { user_id: "nobody".into(), ..before(GENERAL, &user, "", 5) };
    assert_eq!(node.page(stranger).await, Err("UNKNOWN_USER".into()));
}
