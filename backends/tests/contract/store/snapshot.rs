//! One consistent state within a budget.

use corecast_backends::store::*;
use corecast_proto::ids::{Position, RoomId};

use super::{EPOCH, frame, new_room, on_every_store, seeded, send, send_many, seqs};

on_every_store!(
    default_rooms_come_first_then_the_others_as_asked,
    contents_stop_at_the_head_and_reach_it,
    a_room_asked_twice_is_answered_once,
    a_resumed_room_gets_exactly_what_follows_its_place,
    a_place_that_cannot_be_resumed_is_cut_and_gets_the_newest,
    a_resume_that_does_not_fit_the_bytes_is_cut,
    trimming_drops_the_oldest_and_never_moves_the_head,
    a_busy_room_does_not_empty_the_others,
    each_room_keeps_its_newest_message_where_all_of_them_fit,
    a_snapshot_is_one_state_while_others_write,
    public_rooms_are_listed_newest_first_and_not_twice,
);

fn query() -> SnapshotQuery {
    SnapshotQuery {
        defaults: true,
        rooms: Vec::new(),
        count: 30,
        after_max: 1000,
        max_bytes: 1 << 20,
        listed: 0,
    }
}

fn at(room: &str, epoch: u64, seq: u64) -> (RoomId, Option<Position>) {
    (RoomId::from(room), Some(Position { epoch, seq }))
}

fn numbers(snapshot: &Snapshot, room: &str) -> (bool, Vec<u64>) {
    let room = snapshot.rooms.iter().find(|found| found.room.id.as_str() == room).expect("in the snapshot");
    (room.cut, seqs(&room.messages))
}

async fn default_rooms_come_first_then_the_others_as_asked<S: Store>(store: S) {
    store.create_room(new_room("x")).await.expect("creates");
    store.create_room(new_room("y")).await.expect("creates");
    seeded(&store, &["b", "a"]).await;
    let rooms = ["id of y", "nowhere", "a", "id of x"].map(|id| (RoomId::from(id), None)).to_vec();
    let ids = async |defaults| {
        let query = SnapshotQuery { defaults, rooms: rooms.clone(), ..query() };
        let snapshot = store.snapshot(query).await.expect("reads");
        assert_eq!(snapshot.global.seq, 2);
        snapshot.rooms.iter().map(|room| room.room.id.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(true).await, ["b", "a", "id of y", "id of x"]);
    assert_eq!(ids(false).await, ["id of y", "a", "id of x"]);
}

async fn contents_stop_at_the_head_and_reach_it<S: Store>(store: S) {
    seeded(&store, &["a", "empty"]).await;
    send_many(&store, "a", 50, 10).await;
    let snapshot = store.snapshot(query()).await.expect("reads");
    assert_eq!(numbers(&snapshot, "a"), (false, (21..=50).collect()));
    assert_eq!(snapshot.rooms[0].room.head, Position { epoch: EPOCH, seq: 50 });
    assert_eq!(numbers(&snapshot, "empty"), (false, vec![]));
    let none = store.snapshot(SnapshotQuery { count: 0, ..query() }).await.expect("reads");
    assert_eq!(numbers(&none, "a"), (false, vec![]));
}

async fn a_room_asked_twice_is_answered_once<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 5, 1).await;
    let rooms = vec![at("a", EPOCH, 3), at("a", EPOCH, 1)];
    let snapshot = store.snapshot(SnapshotQuery { rooms, ..query() }).await.expect("reads");
    assert_eq!(snapshot.rooms.len(), 1);
    assert_eq!(numbers(&snapshot, "a"), (false, vec![4, 5]));
}

async fn resumed<S: Store>(store: &S, epoch: u64, seq: u64, query: SnapshotQuery) -> (bool, Vec<u64>) {
    let query = SnapshotQuery { rooms: vec![at("a", epoch, seq)], ..query };
    numbers(&store.snapshot(query).await.expect("reads"), "a")
}

async fn a_resumed_room_gets_exactly_what_follows_its_place<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 50, 10).await;
    let few = SnapshotQuery { count: 2, ..query() };
    assert_eq!(resumed(&store, EPOCH, 10, few.clone()).await, (false, (11..=50).collect()));
    assert_eq!(resumed(&store, EPOCH, 50, few.clone()).await, (false, vec![]));
    assert_eq!(resumed(&store, EPOCH, 0, few).await, (false, (1..=50).collect()));
}

async fn a_place_that_cannot_be_resumed_is_cut_and_gets_the_newest<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 50, 10).await;
    let few = SnapshotQuery { count: 2, after_max: 5, ..query() };
    let newest = (true, vec![49, 50]);
    assert_eq!(resumed(&store, EPOCH, 45, few.clone()).await, (false, (46..=50).collect()));
    assert_eq!(resumed(&store, EPOCH, 44, few.clone()).await, newest, "more than after_max follow");
    assert_eq!(resumed(&store, EPOCH, 51, few.clone()).await, newest, "above the head");
    assert_eq!(resumed(&store, EPOCH - 1, 50, few.clone()).await, newest, "an older epoch");
    assert_eq!(resumed(&store, EPOCH + 1, 50, few).await, newest, "an epoch from the future");
}

async fn a_resume_that_does_not_fit_the_bytes_is_cut<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 100).await;
    let tight = |max_bytes| SnapshotQuery { max_bytes, ..query() };
    assert_eq!(resumed(&store, EPOCH, 5, tight(500)).await, (false, vec![6, 7, 8, 9, 10]));
    assert_eq!(resumed(&store, EPOCH, 5, tight(499)).await, (true, vec![7, 8, 9, 10]));
}

async fn trimming_drops_the_oldest_and_never_moves_the_head<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    send_many(&store, "a", 10, 100).await;
    for (max_bytes, expected) in
        [(300, vec![8, 9, 10]), (299, vec![9, 10]), (100, vec![10]), (99, vec![]), (0, vec![])]
    {
        let snapshot = store.snapshot(SnapshotQuery { max_bytes, ..query() }).await.expect("reads");
        assert_eq!(numbers(&snapshot, "a"), (false, expected), "{max_bytes} bytes");
        assert_eq!(snapshot.rooms[0].room.head.seq, 10);
    }
}

async fn a_busy_room_does_not_empty_the_others<S: Store>(store: S) {
    seeded(&store, &["busy", "quiet", "calm"]).await;
    send_many(&store, "busy", 30, 1000).await;
    send_many(&store, "quiet", 3, 100).await;
    send_many(&store, "calm", 2, 100).await;
    let snapshot = store.snapshot(SnapshotQuery { max_bytes: 4500, ..query() }).await.expect("reads");
    assert_eq!(numbers(&snapshot, "quiet").1, [1, 2, 3]);
    assert_eq!(numbers(&snapshot, "calm").1, [1, 2]);
    assert_eq!(numbers(&snapshot, "busy").1, [27, 28, 29, 30].into_iter().collect::<Vec<u64>>());
}

async fn each_room_keeps_its_newest_message_where_all_of_them_fit<S: Store>(store: S) {
    seeded(&store, &["large", "small"]).await;
    send_many(&store, "large", 2, 900).await;
    send_many(&store, "small", 5, 100).await;
    let snapshot = store.snapshot(SnapshotQuery { max_bytes: 1000, ..query() }).await.expect("reads");
    assert_eq!((numbers(&snapshot, "large").1, numbers(&snapshot, "small").1), (vec![2], vec![5]));
}

async fn a_snapshot_is_one_state_while_others_write<S: Store>(store: S) {
    seeded(&store, &["a", "b"]).await;
    // Each commit writes to both rooms: in one state their heads are equal.
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..200 {
                let key = n.to_string();
                let both = vec![frame("a", "u", &[(&key, "x")]), frame("b", "u", &[(&key, "x")])];
                store.commit(both).await.expect("commits");
            }
        }
    });
    let mut reads = 0;
    while !writer.is_finished() || reads == 0 {
        let snapshot = store.snapshot(query()).await.expect("reads");
        let heads: Vec<_> = snapshot.rooms.iter().map(|room| room.room.head.seq).collect();
        assert_eq!(heads[0], heads[1]);
        for room in &snapshot.rooms {
            let first = (room.room.head.seq + 1).saturating_sub(30).max(1);
            assert_eq!(seqs(&room.messages), (first..=room.room.head.seq).collect::<Vec<_>>());
        }
        let both = store.heads(&["a", "b"].map(RoomId::from), false).await.expect("reads");
        assert_eq!(both[0].position.seq, both[1].position.seq);
        reads += 1;
    }
    writer.await.expect("no panic");
    let seq = send(&store, frame("a", "u", &[("last", "x")])).await[0].id.seq;
    assert_eq!(seq, 201);
}

async fn public_rooms_are_listed_newest_first_and_not_twice<S: Store>(store: S) {
    seeded(&store, &["a"]).await;
    for name in ["x", "y", "z"] {
        let room = NewRoom { kind: RoomKind::Public, ..new_room(name) };
        store.create_room(room).await.expect("creates");
    }
    let listed = async |listed, rooms: Vec<(RoomId, Option<Position>)>| {
        let snapshot = store.snapshot(SnapshotQuery { listed, rooms, ..query() }).await.expect("reads");
        snapshot.listed.iter().map(|room| room.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed(10, vec![]).await, ["z", "y", "x"]);
    assert_eq!(listed(2, vec![]).await, ["z", "y"]);
    assert_eq!(listed(0, vec![]).await, Vec::<String>::new());
    assert_eq!(listed(10, vec![(RoomId::from("id of y"), None)]).await, ["z", "x"]);
}
