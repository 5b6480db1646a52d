//! Seeds, creation of rooms, `global`, epochs.

use corecast_backends::store::*;
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use corecast_proto::job::push_msg::Type;
use corecast_proto::op;

use super::{EPOCH, NOW_MS, OWNER, frame, new_room, on_every_store, push_of, seed, seeded, send};

on_every_store!(
    seeds_are_default_rooms_without_a_number_on_global,
    seeding_again_changes_nothing,
    a_seed_whose_name_is_taken_stores_none_of_them,
    a_created_room_takes_the_next_number_of_global,
    the_creation_has_one_outbox_row_with_the_frame,
    a_private_room_has_no_number_and_no_outbox_row,
    the_same_key_answers_the_first_room,
    keys_of_two_creators_do_not_meet,
    a_taken_name_is_refused_and_takes_no_number,
    names_are_compared_exactly,
    default_rooms_overflow_at_the_limit,
    the_frame_is_made_from_the_room_as_stored,
    rooms_come_by_creation_and_without_global,
    creations_are_read_by_their_numbers,
    creations_at_the_same_time_have_numbers_without_gaps,
    global_is_not_found_as_a_room,
    a_new_epoch_is_higher_and_numbering_goes_on,
);

async fn created<S: Store>(store: &S, new: NewRoom) -> (Room, Option<OutboxRow>) {
    match store.create_room(new).await.expect("answers") {
        CreateRoom::Created { room, outbox } => (room, outbox),
        other => panic!("not created: {other:?}"),
    }
}

async fn global<S: Store>(store: &S) -> Position {
    store.heads(&[RoomId::from(GLOBAL)], false).await.expect("reads")[0].position
}

async fn seeds_are_default_rooms_without_a_number_on_global<S: Store>(store: S) {
    seeded(&store, &["room-001"]).await;
    let room = store.room("room-001").await.expect("reads").expect("exists");
    assert_eq!((&*room.name, &*room.creator_id, room.kind), ("name of room-001", "", RoomKind::Default));
    assert_eq!((room.head, room.global_seq), (Position { epoch: EPOCH, seq: 0 }, None));
    assert_eq!((room.create_time, room.update_time), (NOW_MS, NOW_MS));
    assert_eq!(global(&store).await.seq, 0);
}

async fn seeding_again_changes_nothing<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("k", "hello")])).await;
    let before = store.rooms().await.expect("reads");
    let again = SeedRoom { epoch: EPOCH + 9, now_ms: NOW_MS + 9, name: "renamed".to_owned(), ..seed("a") };
    store.seed_rooms(&[again]).await.expect("seeds");
    assert_eq!(store.rooms().await.expect("reads"), before);
}

async fn a_seed_whose_name_is_taken_stores_none_of_them<S: Store>(store: S) {
    created(&store, new_room("General")).await;
    let taken = SeedRoom { name: "General".to_owned(), ..seed("b") };
    assert!(store.seed_rooms(&[seed("a"), taken]).await.is_err());
    assert_eq!(store.room("a").await.expect("reads"), None);
}

async fn a_created_room_takes_the_next_number_of_global<S: Store>(store: S) {
    let before = global(&store).await;
    for n in 1..=3 {
        let (room, _) = created(&store, new_room(&format!("room {n}"))).await;
        assert_eq!(room.global_seq, Some(n));
        assert_eq!(room.head, Position { epoch: EPOCH, seq: 0 });
        assert_eq!(store.room(room.id.as_str()).await.expect("reads"), Some(room));
    }
    assert_eq!(global(&store).await, Position { epoch: before.epoch, seq: 3 });
}

async fn the_creation_has_one_outbox_row_with_the_frame<S: Store>(store: S) {
    let (room, row) = created(&store, new_room("x")).await;
    let row = row.expect("a public room is announced");
    let push = push_of(&row);
    assert_eq!((push.r#type(), push.operation, &*push.room), (Type::Broadcast, op::ROOM_CREATED, GLOBAL));
    let line = (push.epoch as u64, push.first_seq as u64, push.count);
    assert_eq!(line, (global(&store).await.epoch, 1, 1));
    assert_eq!(push.msg, (new_room("x").frame)(&room));
    assert_eq!(row.room_id.as_str(), GLOBAL);
    assert_eq!(store.outbox(OWNER, 0, 10).await.expect("reads"), [row]);
}

async fn a_private_room_has_no_number_and_no_outbox_row<S: Store>(store: S) {
    let (room, row) = created(&store, NewRoom { kind: RoomKind::Private, ..new_room("x") }).await;
    assert_eq!((room.kind, room.global_seq, row), (RoomKind::Private, None, None));
    assert_eq!(global(&store).await.seq, 0);
    assert_eq!(store.outbox(OWNER, 0, 10).await.expect("reads"), []);
}

async fn the_same_key_answers_the_first_room<S: Store>(store: S) {
    let (first, _) = created(&store, new_room("x")).await;
    let again = NewRoom { id: "another id".to_owned(), name: "another name".to_owned(), ..new_room("x") };
    match store.create_room(again).await.expect("answers") {
        CreateRoom::Repeated(room) => assert_eq!(room, first),
        other => panic!("not repeated: {other:?}"),
    }
    assert_eq!(store.rooms().await.expect("reads").len(), 1);
    assert_eq!(global(&store).await.seq, 1);
}

async fn keys_of_two_creators_do_not_meet<S: Store>(store: S) {
    created(&store, new_room("x")).await;
    let key = new_room("x").key;
    created(&store, NewRoom { creator_id: "another".to_owned(), key, ..new_room("y") }).await;
}

async fn a_taken_name_is_refused_and_takes_no_number<S: Store>(store: S) {
    created(&store, new_room("x")).await;
    let taken = NewRoom { id: "other".to_owned(), key: "other".to_owned(), ..new_room("x") };
    assert!(matches!(store.create_room(taken).await.expect("answers"), CreateRoom::NameTaken));
    assert_eq!(global(&store).await.seq, 1);
    let (next, _) = created(&store, new_room("y")).await;
    assert_eq!(next.global_seq, Some(2));
}

async fn names_are_compared_exactly<S: Store>(store: S) {
    for name in ["dpdk", "DPDK", "dpdk ", "dpdk\0", "dpḍk", "global"] {
        let (room, _) = created(&store, new_room(name)).await;
        assert_eq!(room.name, name);
    }
}

async fn default_rooms_overflow_at_the_limit<S: Store>(store: S) {
    seeded(&store, &["seed"]).await;
    let wish = |name: &str| NewRoom { kind: RoomKind::Default, default_max: 3, ..new_room(name) };
    let mut kinds = Vec::new();
    for name in ["second", "third", "fourth"] {
        kinds.push(created(&store, wish(name)).await.0.kind);
    }
    assert_eq!(kinds, [RoomKind::Default, RoomKind::Default, RoomKind::Public]);
}

async fn the_frame_is_made_from_the_room_as_stored<S: Store>(store: S) {
    let wish = NewRoom { kind: RoomKind::Default, default_max: 0, ..new_room("x") };
    let (room, row) = created(&store, wish).await;
    let text = String::from_utf8(push_of(&row.expect("announced")).msg.to_vec()).expect("text");
    assert_eq!(text, format!("{}|x|Public|Some(1)", room.id));
}

async fn rooms_come_by_creation_and_without_global<S: Store>(store: S) {
    seeded(&store, &["z", "a"]).await;
    created(&store, new_room("m")).await;
    let ids: Vec<_> =
        store.rooms().await.expect("reads").iter().map(|room| room.id.as_str().to_owned()).collect();
    assert_eq!(ids, ["z", "a", "id of m"]);
}

async fn creations_are_read_by_their_numbers<S: Store>(store: S) {
    seeded(&store, &["seed"]).await;
    for n in 1..=5 {
        created(&store, new_room(&n.to_string())).await;
    }
    let numbers = async |after, up_to, count| {
        let (place, rooms) = store.creations_after(after, up_to, count).await.expect("reads");
        assert_eq!(place.seq, 5);
        rooms.iter().map(|room| room.global_seq.expect("numbered")).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0, u64::MAX, 100).await, [1, 2, 3, 4, 5]);
    assert_eq!(numbers(1, 4, 100).await, [2, 3, 4]);
    assert_eq!(numbers(1, 4, 2).await, [2, 3]);
    assert_eq!(numbers(5, u64::MAX, 100).await, [0; 0]);
}

async fn creations_at_the_same_time_have_numbers_without_gaps<S: Store>(store: S) {
    let creations = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { created(&store, new_room(&n.to_string())).await.0.global_seq })
    });
    let mut numbers = Vec::new();
    for creation in creations.collect::<Vec<_>>() {
        numbers.push(creation.await.expect("no panic").expect("numbered"));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
}

async fn global_is_not_found_as_a_room<S: Store>(store: S) {
    assert_eq!(store.room(GLOBAL).await.expect("reads"), None);
    assert_eq!(store.rooms().await.expect("reads"), []);
    assert_eq!(store.messages_before(GLOBAL, u64::MAX, 1).await.expect("reads"), None);
    assert_eq!(store.messages_after(GLOBAL, 0, u64::MAX, 1, 1).await.expect("reads"), None);
    let outcome = store.commit(vec![frame(GLOBAL, "u", &[("k", "x")])]).await.expect("answers");
    assert!(matches!(outcome[0], FrameOutcome::UnknownRoom));
    let asked = SnapshotQuery { rooms: vec![(RoomId::from(GLOBAL), None)], ..SnapshotQuery::default() };
    assert!(store.snapshot(asked).await.expect("reads").rooms.is_empty());
}

async fn a_new_epoch_is_higher_and_numbering_goes_on<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send(&store, frame("a", "u", &[("1", "x"), ("2", "y")])).await;
    let old_global = global(&store).await;
    assert_eq!(store.new_epoch(EPOCH - 5).await.expect("writes"), 2);
    let head = store.room("a").await.expect("reads").expect("exists").head;
    assert_eq!(head, Position { epoch: EPOCH + 1, seq: 2 }, "an older clock still moves on");
    assert_eq!(global(&store).await.epoch, old_global.epoch + 1);
    let far = old_global.epoch + 1_000_000;
    store.new_epoch(far).await.expect("writes");
    assert_eq!(global(&store).await.epoch, far);
    let outcome = store.commit(vec![frame("a", "u", &[("3", "z")])]).await.expect("commits");
    match &outcome[0] {
        FrameOutcome::Stored { epoch, messages, .. } => {
            assert_eq!((*epoch, messages[0].id.seq), (far, 3));
        }
        other => panic!("not stored: {other:?}"),
    }
}
