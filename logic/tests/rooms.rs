//! Setup: rooms created and read back over gRPC. Claim: a creation has one number on the line
//! of `global`, is published once, and can be read again from any number on. Why it matters:
//! a gateway that missed one would never open that room's line.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use corecast_backends::bus::{Bus, BusEvent, Subscription};
use corecast_logic::config::CreateKind;
use corecast_proto::ids::GLOBAL;
use corecast_proto::logic::{
    CreateRoomRequest, HeadsRequest, RangeReply, RangeRequest, RoomKind, RoomsRequest,
};
use serde_json::Value;
use support::{GENERAL, Running, frame, node, node_with, seqs};

async fn range(
    node: &Running,
    room_id: &str,
    after_seq: u64,
    change: impl FnOnce(&mut RangeRequest),
) -> RangeReply {
    let mut request = RangeRequest { room_id: room_id.into(), after_seq, ..RangeRequest::default() };
    change(&mut request);
    let reply = node.grpc.clone().range(request).await.unwrap().into_inner();
    let mut next = after_seq + 1;
    for frame in &reply.frames {
        assert_eq!(frame.first_seq, next, "frames are contiguous from after_seq + 1");
        assert!(frame.count > 0);
        next += u64::from(frame.count);
    }
    reply
}

#[tokio::test]
async fn a_creation_is_numbered_published_and_answered_once() {
    let node = node().await;
    let user = node.user_named("ann", "a@x").await;
    let mut subscription = node.backends.bus.subscribe().await;
    let created = node.create_room("dpdk", &user, "g:1").await;
    assert_eq!((created.refusal.is_none(), created.name_taken), (true, false));
    assert_eq!(created.kind(), RoomKind::Default);
    assert!(created.room_id.starts_with("room-"));
    let place = created.global.unwrap();
    assert_eq!(place.seq, 1);

    let again = node.create_room("another name", &user, "g:1").await;
    assert_eq!(again, created, "the same key answers the same room");
    let taken = node.create_room("dpdk", &user, "g:2").await;
    assert!(taken.name_taken && taken.room_id.is_empty() && taken.global.is_none());
    assert!(String::from_utf8_lossy(&taken.frame).contains(r#""roomId":"""#));
    let exact = node.create_room("DPDK", &user, "g:3").await;
    assert_eq!(exact.global.unwrap().seq, 2, "room names are compared exactly");

    for expected in [&created, &exact] {
        let next = tokio::time::timeout(support::DEADLINE, subscription.next()).await.unwrap();
        let Some(BusEvent::Frame(frame)) = next else { panic!("{next:?}") };
        assert_eq!((frame.room_id.as_str(), frame.op, frame.count), (GLOBAL, 5, 1));
        assert_eq!((frame.epoch, frame.first_seq), (place.epoch, expected.global.unwrap().seq));
        assert_eq!(frame.frame, expected.frame);
    }
    let json: Value = serde_json::from_slice(&created.frame).unwrap();
    assert_eq!(json["payload"]["roomId"], created.room_id);
    assert_eq!(json["payload"]["creatorUsername"], "ann");
    assert_eq!(json["payload"]["kind"], "default");
}

#[tokio::test]
async fn bad_creations_are_refused_as_data() {
    let node = node().await;
    let user = node.user().await;
    let code = async |room_name: &str, creator_id: &str, key: &str| {
        let request = CreateRoomRequest {
            room_name: room_name.into(),
            creator_id: creator_id.into(),
            creator_username: String::new(),
            key: key.into(),
        };
        let reply = node.grpc.clone().create_room(request).await.unwrap().into_inner();
        reply.refusal.map(|refusal| refusal.code).unwrap_or_default()
    };
    assert_eq!(code("", &user.id, "g:1").await, "BAD_INPUT");
    assert_eq!(code(&"ü".repeat(65), &user.id, "g:1").await, "BAD_INPUT");
    assert_eq!(code("x", "nobody", "g:1").await, "UNKNOWN_USER");
    assert_eq!(code("x", &user.id, "").await, "BAD_INPUT");
    assert_eq!(code(&"ü".repeat(64), &user.id, "g:1").await, "");
}

#[tokio::test]
async fn above_the_most_default_rooms_new_ones_are_public() {
    let node = node_with(|config| config.rooms.default_max = 3).await;
    let user = node.user().await;
    let mut kinds = Vec::new();
    for n in 0..4 {
        let room = node.create_room(&format!("room {n}"), &user, &format!("g:{n}")).await;
        assert_eq!(room.global.unwrap().seq, n + 1);
        kinds.push(room.kind());
    }
    assert_eq!(kinds, [RoomKind::Default, RoomKind::Default, RoomKind::Public, RoomKind::Public]);
}

#[tokio::test]
async fn creations_can_be_read_again_from_any_number() {
    let node = node().await;
    let user = node.user().await;
    let mut frames = Vec::new();
    for n in 0..5 {
        frames.push(node.create_room(&format!("room {n}"), &user, &format!("g:{n}")).await.frame);
    }
    let all = range(&node, GLOBAL, 0, |_| {}).await;
    assert!(all.found);
    assert_eq!(all.last_seq, 5);
    assert_eq!(
        all.frames.iter().map(|frame| &frame.frame).collect::<Vec<_>>(),
        frames.iter().collect::<Vec<_>>()
    );
    assert!(all.frames.iter().all(|frame| frame.count == 1));
    assert_eq!(range(&node, GLOBAL, 3, |_| {}).await.frames.len(), 2);
    assert_eq!(range(&node, GLOBAL, 1, |r| r.up_to_seq = 3).await.frames.len(), 2);
    assert_eq!(range(&node, GLOBAL, 0, |r| r.max_bytes = 1).await.frames.len(), 1);
    let beyond = range(&node, GLOBAL, 5, |_| {}).await;
    assert_eq!((beyond.found, beyond.frames.len(), beyond.last_seq), (true, 0, 5));
}

#[tokio::test]
async fn a_range_of_messages_is_contiguous_and_keeps_to_its_sizes() {
    let node = node().await;
    let user = node.user().await;
    let wide = "\u{1}".repeat(2000);
    for n in 0..60 {
        node.send(vec![frame(GENERAL, &user, &[(&wide, format!("c:{n}"))])]).await;
    }
    let all = range(&node, GENERAL, 0, |_| {}).await;
    assert_eq!((all.found, all.last_seq), (true, 60));
    let mut numbers = Vec::new();
    for frame in &all.frames {
        assert!(frame.frame.len() <= 64 << 10, "{} bytes", frame.frame.len());
        let json: Value = serde_json::from_slice(&frame.frame).unwrap();
        assert_eq!((&json["type"], &json["payload"]["roomId"]), (&"serverMessages".into(), &GENERAL.into()));
        let in_frame = seqs(&json["payload"]["messages"]);
        assert_eq!(in_frame.len(), frame.count as usize);
        numbers.extend(in_frame);
    }
    assert_eq!(numbers, (1..=60).collect::<Vec<u64>>());
    assert!(all.frames.len() > 5, "several frames of 64 KiB");

    let bounded = range(&node, GENERAL, 10, |request| request.max_bytes = 100_000).await;
    let bytes: usize = bounded.frames.iter().map(|frame| frame.frame.len()).sum();
    assert!(bytes <= 100_000 && bounded.frames.len() == 1, "{bytes} bytes");
    assert_eq!(range(&node, GENERAL, 0, |r| r.max_bytes = 1).await.frames.len(), 1);
    let part = range(&node, GENERAL, 20, |request| request.up_to_seq = 22).await;
    assert_eq!(part.frames.iter().map(|frame| frame.count).sum::<u32>(), 2);
    assert!(!range(&node, "room-404", 0, |_| {}).await.found);
}

#[tokio::test]
async fn pages_of_64_kib_keep_to_it_and_meet() {
    const PAGE_BYTES: usize = 64 << 10;
    let node = node().await;
    let user = node.user().await;
    let largest = "x".repeat(4096);
    for n in 0..80 {
        node.send(vec![frame(GENERAL, &user, &[(&largest, format!("c:{n}"))])]).await;
    }
    let (mut numbers, mut pages) = (Vec::new(), 0);
    while numbers.len() < 80 {
        let reached = numbers.last().copied().unwrap_or(0);
        let page = range(&node, GENERAL, reached, |request| request.max_bytes = PAGE_BYTES as u32).await;
        let bytes: usize = page.frames.iter().map(|frame| frame.frame.len()).sum();
        assert!(bytes <= PAGE_BYTES, "{bytes} bytes after {reached}");
        assert_eq!(page.last_seq, 80, "what there is beyond the page");
        assert!(!page.frames.is_empty(), "nothing after {reached}");
        for frame in &page.frames {
            let json: Value = serde_json::from_slice(&frame.frame).unwrap();
            numbers.extend(seqs(&json["payload"]["messages"]));
        }
        pages += 1;
    }
    assert_eq!(numbers, (1..=80).collect::<Vec<u64>>(), "each once");
    assert!(pages > 5, "{pages} pages of 330 KiB");
}

#[tokio::test]
async fn heads_are_those_of_the_primary_and_unknown_rooms_are_absent() {
    let node = node_with(|config| config.rooms.create_kind = CreateKind::Public).await;
    let user = node.user().await;
    let room = node.create_room("public", &user, "g:1").await.room_id;
    node.fill(&room, &user, 3).await;
    let request =
        HeadsRequest { room_ids: vec![room.clone(), "room-404".into(), GLOBAL.into()], defaults: true };
    let heads = node.grpc.clone().heads(request).await.unwrap().into_inner().heads;
    let mut seen: Vec<(&str, u64, RoomKind)> =
        heads.iter().map(|head| (head.room_id.as_str(), head.last_seq, head.kind())).collect();
    seen.sort_by_key(|head| head.0);
    let mut expected = [
        (GLOBAL, 1, RoomKind::Default),
        (room.as_str(), 3, RoomKind::Public),
        (GENERAL, 0, RoomKind::Default),
    ];
    expected.sort_by_key(|head| head.0);
    assert_eq!(seen, expected, "each once");
    assert!(heads.iter().all(|head| head.epoch > 0));
}

#[tokio::test]
async fn the_list_has_the_rooms_that_anybody_may_open() {
    let node = node_with(|config| config.rooms.create_kind = CreateKind::Private).await;
    let user = node.user().await;
    node.create_room("private", &user, "g:1").await;
    let node = node.reopen_with(|config| config.rooms.create_kind = CreateKind::Public).await;
    let public = node.create_room("public", &user, "g:2").await.room_id;
    let rooms = node.grpc.clone().rooms(RoomsRequest {}).await.unwrap().into_inner().rooms;
    let ids: Vec<&str> = rooms.iter().map(|room| room.id.as_str()).collect();
    assert_eq!(ids, [GENERAL, public.as_str()]);
    assert_eq!(rooms[1].kind(), RoomKind::Public);
    assert!(rooms[1].update_time >= rooms[1].create_time);
}
