//! Setup: a gateway, a logic node in the test, one old and one `corecast.v1` client.
//! Claim: each frame is answered as the contract says, to the right kind of client.
//! Why: old clients must never see a frame they do not know, and nobody may wait for an
//! answer that does not come.

mod control_support;

use std::sync::atomic::Ordering;

use control_support::{ROOM, World};

#[tokio::test]
async fn a_message_reaches_everybody_and_only_v1_gets_an_ack() {
    let world = World::start().await;
    let (mut old, mut v1) = (world.old_client().await, world.v1_client().await);
    v1.say(ROOM, "one", Some("k1")).await;
    assert_eq!(v1.next_of("ack").await["messages"][0]["clientMessageId"], "k1");
    assert_eq!(old.next_of("serverMessages").await["messages"][0]["content"], "one");
    old.say(ROOM, "two", Some("k2")).await;
    // The next frame is the message itself: no ack before it.
    let frame = old.next_frame().await;
    assert_eq!(
        (&frame["type"], &frame["payload"]["messages"][0]["content"]),
        (&"serverMessages".into(), &"two".into())
    );
    old.send("{").await;
    assert_eq!(old.next_frame().await["type"], "error", "and none after it");
}

#[tokio::test]
async fn a_repeated_key_is_stored_once_and_answered_twice() {
    let world = World::start().await;
    let mut v1 = world.v1_client().await;
    v1.say(ROOM, "one", Some("k1")).await;
    let first = v1.next_of("ack").await;
    v1.say(ROOM, "one", Some("k1")).await;
    assert_eq!(v1.next_of("ack").await, first);
}

#[tokio::test]
async fn logic_away_is_an_error_frame_for_each_key_and_the_connection_lives() {
    let mut world = World::start().await;
    let mut v1 = world.v1_client().await;
    world.stop_logic().await;
    v1.send(&format!(
        r#"{{"type":"clientMessages","payload":{{"roomId":"{ROOM}","messages":[{{"content":"a","clientMessageId":"k1"}},{{"content":"b","clientMessageId":"k2"}}]}}}}"#
    ))
    .await;
    for key in ["k1", "k2"] {
        let error = v1.next_of("error").await;
        assert_eq!(error["code"], "UNAVAILABLE");
        assert_eq!(error["clientMessageId"], key);
        assert_eq!(error["roomId"], ROOM);
        assert_eq!(error["retryAfterMs"], 1_000);
    }
    let text = world.metrics_text().await;
    let failed = r#"grpc_calls_total{service="comet",name="logic_forward",status="failed"} 1"#;
    assert!(text.contains(failed), "{text}");
}

#[tokio::test]
async fn a_send_is_retried_with_its_key_while_logic_is_away_for_a_moment() {
    let world = World::start().await;
    let mut v1 = world.v1_client().await;
    world.logic.down.store(true, Ordering::SeqCst);
    v1.say(ROOM, "patient", Some("k1")).await;
    control_support::eventually("a second attempt", async || world.logic.sends.load(Ordering::SeqCst) > 1)
        .await;
    world.logic.down.store(false, Ordering::SeqCst);
    assert_eq!(v1.next_of("ack").await["messages"][0]["seq"], 1);
}

#[tokio::test]
async fn what_was_sent_behind_an_unavailable_message_is_not_stored_before_its_repeat() {
    let world = World::start().await;
    world.logic.add_public_room("other");
    let mut v1 = world.v1_client().await;
    *world.logic.fails_on.lock().expect("lock") = Some("one".to_owned());
    v1.say(ROOM, "one", Some("k1")).await;
    control_support::eventually("it is on its way", async || world.logic.sends.load(Ordering::SeqCst) > 0)
        .await;
    v1.say(ROOM, "two", Some("k2")).await;
    v1.say("other", "three", Some("k3")).await;
    for key in ["k1", "k2"] {
        let error = v1.next_of("error").await;
        assert_eq!((&error["code"], &error["clientMessageId"]), (&"UNAVAILABLE".into(), &key.into()));
    }
    // Another room has nothing to wait for.
    assert_eq!(v1.next_of("ack").await["messages"][0]["clientMessageId"], "k3");
    *world.logic.fails_on.lock().expect("lock") = None;
    for (content, key, seq) in [("one", "k1", 1), ("two", "k2", 2)] {
        v1.say(ROOM, content, Some(key)).await;
        assert_eq!(v1.next_of("ack").await["messages"][0]["seq"], seq, "{key}");
    }
}

#[tokio::test]
async fn a_dead_logic_node_beside_a_live_one_is_not_noticed() {
    let world = World::start_beside_a_dead_node().await;
    let mut v1 = world.v1_client().await;
    // Enough rooms for both nodes to be the first choice of some.
    for room in (0..8).map(|at| format!("r-{at}")) {
        world.logic.add_public_room(&room);
        v1.say(&room, "hello", Some("k")).await;
        assert_eq!(v1.next_of("ack").await["roomId"], room.as_str());
    }
}

#[tokio::test]
async fn frames_of_v1_are_unknown_to_old_clients() {
    let world = World::start().await;
    let mut old = world.old_client().await;
    for kind in ["join", "leave", "resume"] {
        old.send(&format!(r#"{{"type":"{kind}","payload":{{"roomId":"{ROOM}"}}}}"#)).await;
        let error = old.next_of("error").await;
        assert_eq!((&error["code"], &error["requestType"]), (&"UNKNOWN_TYPE".into(), &kind.into()));
    }
}

#[tokio::test]
async fn global_and_rooms_that_do_not_exist_are_unknown() {
    let world = World::start().await;
    let mut v1 = world.v1_client().await;
    for room in ["global", "nowhere"] {
        for kind in ["join", "requestRoomHistory"] {
            v1.send(&format!(r#"{{"type":"{kind}","payload":{{"roomId":"{room}"}}}}"#)).await;
            assert_eq!(v1.next_of("error").await["code"], "UNKNOWN_ROOM", "{kind} {room}");
        }
        v1.say(room, "x", None).await;
        assert_eq!(v1.next_of("error").await["code"], "UNKNOWN_ROOM", "clientMessages {room}");
    }
}

#[tokio::test]
async fn a_first_message_joins_a_public_room() {
    let world = World::start().await;
    world.logic.add_public_room("r-1");
    let (mut old, mut v1) = (world.old_client().await, world.v1_client().await);
    v1.send(r#"{"type":"join","payload":{"roomId":"r-1"}}"#).await;
    assert_eq!(v1.next_of("joined").await["id"], "r-1");
    old.say("r-1", "hello", None).await;
    for browser in [&mut old, &mut v1] {
        assert_eq!(browser.next_of("serverMessages").await["messages"][0]["content"], "hello");
    }
}

#[tokio::test]
async fn history_without_anchor_joins_and_anchors_are_checked_by_logic() {
    let world = World::start().await;
    world.logic.add_public_room("r-1");
    let (mut old, mut v1) = (world.old_client().await, world.v1_client().await);
    old.send(r#"{"type":"requestRoomHistory","payload":{"roomId":"r-1"}}"#).await;
    assert_eq!(old.next_of("serverRoomHistory").await["roomId"], "r-1");
    v1.say("r-1", "hello", None).await;
    assert_eq!(old.next_of("serverMessages").await["roomId"], "r-1");
    v1.send(r#"{"type":"requestRoomHistory","payload":{"roomId":"r-1","firstMessageId":"1-9"}}"#).await;
    assert_eq!(v1.next_of("error").await["code"], "UNKNOWN_MESSAGE");
    v1.send(r#"{"type":"requestRoomHistory","payload":{"roomId":"r-1","afterSeq":1}}"#).await;
    assert_eq!(v1.next_of("serverRoomHistory").await["hasMoreMessages"], false);
}

#[tokio::test]
async fn a_new_room_is_told_to_everybody_once_and_a_taken_name_to_the_asker() {
    let world = World::start().await;
    let (mut old, mut v1) = (world.old_client().await, world.v1_client().await);
    v1.send(r#"{"type":"clientCreateRoom","payload":{"roomName":"taken"}}"#).await;
    assert_eq!(v1.next_of("serverCreateRoom").await["roomId"], "");
    v1.send(r#"{"type":"clientCreateRoom","payload":{"roomName":"dpdk"}}"#).await;
    for browser in [&mut old, &mut v1] {
        assert_eq!(browser.next_of("serverCreateRoom").await["roomName"], "dpdk");
    }
    // The creator is in it.
    old.say("id-of-dpdk", "hi", None).await;
    assert_eq!(v1.next_of("serverMessages").await["roomId"], "id-of-dpdk");
}

#[tokio::test]
async fn too_many_refused_frames_are_closed_with_4429() {
    let world = World::start_with(|config| config.limits.refused_frames = 3).await;
    let mut browser = world.old_client().await;
    for _ in 0..3 {
        browser.send("{").await;
        assert_eq!(browser.next_of("error").await["code"], "BAD_JSON");
    }
    browser.send("{").await;
    assert_eq!(browser.close_code().await, 4429);
}
