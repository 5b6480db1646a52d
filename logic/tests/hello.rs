//! Setup: rooms with messages, asked for hellos over gRPC. Claim: a room's contents stop at
//! its number and reach it; a place the client has reached is continued without a hole or
//! the room is cut. Why it matters: a membership starts at exactly that number.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use corecast_backends::store::Store;
use corecast_proto::limits::RESUME_ROOMS;
use corecast_proto::logic::{Cursor, HelloReply, HelloRequest, RoomKind, RoomSnapshot};
use support::{GENERAL, Running, User, frame, node, node_with, seqs_of};

fn cursor(room_id: &str, epoch: u64, seq: u64) -> Cursor {
    Cursor { room_id: room_id.into(), epoch, seq, has_position: true }
}

fn newest(room_id: &str) -> Cursor {
    Cursor { room_id: room_id.into(), ..Cursor::default() }
}

async fn hello(
    node: &Running,
    user: &User,
    rooms: Vec<Cursor>,
    change: impl FnOnce(&mut HelloRequest),
) -> HelloReply {
    let mut request = HelloRequest {
        user_id: user.id.clone(),
        username: user.username.clone(),
        defaults: true,
        rooms,
        ..HelloRequest::default()
    };
    change(&mut request);
    let reply = node.grpc.clone().hello(request).await.unwrap().into_inner();
    for room in &reply.rooms {
        let seqs = seqs_of(&room.messages);
        let expected: Vec<u64> = (room.first_seq..=room.last_seq).collect();
        assert_eq!(seqs, expected, "contents of {} must stop at its number and reach it", room.room_id);
        assert_eq!(room.has_more, room.first_seq > 1);
    }
    reply
}

async fn general(node: &Running, user: &User, place: Cursor) -> RoomSnapshot {
    let reply = hello(node, user, vec![place], |_| {}).await;
    assert_eq!(reply.rooms.len(), 1);
    reply.rooms.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_newcomer_gets_the_newest_of_every_default_room() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 40).await;
    let second = node.create_room("second", &user, "g:1").await;
    let reply = hello(&node, &user, vec![], |_| {}).await;
    let ids: Vec<&str> = reply.rooms.iter().map(|room| room.room_id.as_str()).collect();
    assert_eq!(ids, [GENERAL, second.room_id.as_str()]);
    let first = &reply.rooms[0];
    assert_eq!((first.first_seq, first.last_seq, first.has_more, first.cut), (11, 40, true, false));
    assert_eq!((first.name.as_str(), first.creator_id.as_str()), ("General", ""));
    assert_eq!(first.kind(), RoomKind::Default);
    let empty = &reply.rooms[1];
    assert_eq!((empty.first_seq, empty.last_seq, empty.has_more), (1, 0, false));
    assert_eq!(&empty.messages[..], b"[]");
    assert_eq!(reply.global, second.global);
    assert!(reply.missing.is_empty());
}

#[tokio::test]
async fn a_place_that_fits_is_continued_without_a_hole() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 100).await;
    let epoch = general(&node, &user, newest(GENERAL)).await.epoch;
    for seq in [0, 1, 50, 99] {
        let room = general(&node, &user, cursor(GENERAL, epoch, seq)).await;
        assert_eq!((room.first_seq, room.last_seq, room.cut), (seq + 1, 100, false));
    }
    let reached = general(&node, &user, cursor(GENERAL, epoch, 100)).await;
    assert_eq!((reached.first_seq, reached.last_seq, reached.cut), (101, 100, false));
}

#[tokio::test]
async fn a_place_of_another_epoch_or_above_the_head_is_cut_to_the_newest() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 100).await;
    let epoch = general(&node, &user, newest(GENERAL)).await.epoch;
    for place in [
        cursor(GENERAL, epoch - 1, 50),
        cursor(GENERAL, epoch + 1, 50),
        cursor(GENERAL, epoch, 101),
        cursor(GENERAL, epoch, u64::MAX >> 11),
        cursor(GENERAL, 0, 0),
    ] {
        let room = general(&node, &user, place).await;
        assert_eq!((room.first_seq, room.last_seq, room.cut), (71, 100, true));
        assert_eq!(room.epoch, epoch);
    }
}

#[tokio::test]
async fn after_a_new_epoch_an_older_place_is_cut_and_numbers_go_on() {
    let node = node().await;
    let user = node.user().await;
    node.fill(GENERAL, &user, 5).await;
    let before = general(&node, &user, newest(GENERAL)).await.epoch;
    node.backends.store.new_epoch(before + 7).await.unwrap();
    let room = general(&node, &user, cursor(GENERAL, before, 5)).await;
    assert_eq!((room.epoch, room.last_seq, room.cut), (before + 7, 5, true));
    let sent = node.send(vec![frame(GENERAL, &user, &[("x", "c:new")])]).await;
    assert_eq!((sent[0].epoch, sent[0].messages[0].seq), (before + 7, 6));
}

#[tokio::test]
async fn a_place_whose_rest_does_not_fit_is_cut_by_size() {
    let node = node().await;
    let user = node.user().await;
    // Control characters are one byte each in the store and six in JSON.
    let wide = "\u{1}".repeat(4000);
    for n in 0..12 {
        node.send(vec![frame(GENERAL, &user, &[(&wide, format!("c:{n}"))])]).await;
    }
    let epoch = general(&node, &user, newest(GENERAL)).await.epoch;
    let room = general(&node, &user, cursor(GENERAL, epoch, 0)).await;
    assert!(room.cut, "12 messages of 24 KB do not fit 128 KiB");
    assert!(room.messages.len() <= 128 << 10, "{} bytes", room.messages.len());
    assert!(room.first_seq > 1 && room.first_seq <= 12);
    let fits = general(&node, &user, cursor(GENERAL, epoch, 10)).await;
    assert_eq!((fits.first_seq, fits.cut), (11, false));
    // The caller may ask for less.
    let reply = hello(&node, &user, vec![cursor(GENERAL, epoch, 10)], |r| r.max_bytes = 30_000).await;
    assert_eq!((reply.rooms[0].first_seq, reply.rooms[0].cut), (12, true));
    let reply = hello(&node, &user, vec![], |r| r.max_bytes = 1000).await;
    assert_eq!((reply.rooms[0].first_seq, reply.rooms[0].last_seq), (13, 12));
}

#[tokio::test]
async fn a_busy_room_leaves_the_quiet_ones_their_messages() {
    let node = node().await;
    let user = node.user().await;
    let quiet = node.create_room("quiet", &user, "g:1").await.room_id;
    node.send(vec![frame(&quiet, &user, &[("one", "c:1"), ("two", "c:2")])]).await;
    let long = "x".repeat(4096);
    for n in 0..40 {
        node.send(vec![frame(GENERAL, &user, &[(&long, format!("c:{n}"))])]).await;
    }
    let reply = hello(&node, &user, vec![], |request| request.count = 200).await;
    let total: usize = reply.rooms.iter().map(|room| room.messages.len()).sum();
    assert!(total <= 128 << 10, "{total} bytes");
    assert_eq!((reply.rooms[1].first_seq, reply.rooms[1].last_seq), (1, 2));
    assert!(reply.rooms[0].first_seq > 1 && reply.rooms[0].first_seq < 40);
}

#[tokio::test]
async fn rooms_that_do_not_exist_or_may_not_be_seen_are_missing() {
    let node = node().await;
    let user = node.user().await;
    let node = {
        let node =
            node.reopen_with(|c| c.rooms.create_kind = corecast_logic::config::CreateKind::Private).await;
        let private = node.create_room("private", &user, "g:1").await.room_id;
        let node =
            node.reopen_with(|c| c.rooms.create_kind = corecast_logic::config::CreateKind::Public).await;
        let public = node.create_room("public", &user, "g:2").await.room_id;
        let asked = ["room-404", &private, "global", &public, "", &public];
        let asked = asked.iter().map(|id| newest(id)).collect();
        let reply = hello(&node, &user, asked, |request| request.defaults = false).await;
        assert_eq!(reply.rooms.len(), 1);
        assert_eq!(
            (reply.rooms[0].room_id.as_str(), reply.rooms[0].kind()),
            (public.as_str(), RoomKind::Public)
        );
        assert_eq!(reply.missing, ["room-404", private.as_str(), "global", ""]);
        node
    };
    let reply = hello(&node, &user, vec![], |_| {}).await;
    assert_eq!(reply.rooms.len(), 1, "only default rooms come unasked");
}

#[tokio::test]
async fn an_unknown_user_and_too_many_rooms_are_refused() {
    let node = node().await;
    let user = node.user().await;
    let stranger = HelloRequest { user_id: "nobody".into(), defaults: true, ..HelloRequest::default() };
    let status = node.grpc.clone().hello(stranger).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::NotFound);
    assert!(status.message().starts_with("UNKNOWN_USER"));
    let rooms = |count: usize| HelloRequest {
        user_id: user.id.clone(),
        rooms: (0..count).map(|n| newest(&format!("room-{n}"))).collect(),
        ..HelloRequest::default()
    };
    let reply = node.grpc.clone().hello(rooms(RESUME_ROOMS)).await.unwrap().into_inner();
    assert_eq!(reply.missing.len(), RESUME_ROOMS);
    let status = node.grpc.clone().hello(rooms(RESUME_ROOMS + 1)).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
}

#[tokio::test]
async fn a_room_of_the_configuration_is_in_every_hello() {
    let node = node_with(|config| {
        config
            .rooms
            .defaults
            .push(corecast_logic::config::DefaultRoom { id: "lobby".into(), name: "Lobby".into() });
    })
    .await;
    let user = node.user().await;
    let node = node.reopen().await;
    let reply = hello(&node, &user, vec![], |_| {}).await;
    let ids: Vec<&str> = reply.rooms.iter().map(|room| room.room_id.as_str()).collect();
    assert_eq!(ids, [GENERAL, "lobby"], "seeding again makes nothing twice and deletes nothing");
}
