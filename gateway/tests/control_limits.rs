//! Setup: a gateway on real sockets and clients that want much at once.
//! Claim: a connection resumes, and is in, so many rooms and no more; a newcomer is not sent
//! what was said since somebody else's hello, only what it has to know.
//! Why it matters: what one client may ask for, ten thousand will.

mod control_support;

use control_support::{ANN, EPOCH, ROOM, World, eventually};
use corecast_proto::limits::{MEMBERSHIPS, RESUME_ROOMS};

fn resume(rooms: impl Iterator<Item = String>) -> String {
    let cursors: Vec<String> =
        rooms.map(|room| format!(r#"{{"roomId":"{room}","epoch":{EPOCH},"seq":0}}"#)).collect();
    format!(r#"{{"type":"resume","payload":{{"rooms":[{}]}}}}"#, cursors.join(","))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resume_with_one_room_too_many_is_refused_and_the_connection_is_new() {
    let world = World::start().await;
    // As long as the ids that rooms get: as many cursors fit a frame of the usual limit.
    let name = |number: usize| format!("room-{number:036}");
    (0..=RESUME_ROOMS).for_each(|number| world.logic.add_public_room(&name(number)));
    for (count, joined) in [(RESUME_ROOMS - 1, true), (RESUME_ROOMS, true), (RESUME_ROOMS + 1, false)] {
        let mut browser = world.connect(Some(ANN), true).await;
        browser.send(&resume((0..count).map(name))).await;
        let hello = browser.next_frame().await;
        assert_eq!(hello["type"], "hello", "{count}");
        let rooms = hello["payload"]["rooms"].as_array().map(Vec::len);
        assert_eq!(rooms, Some(if joined { count + 1 } else { 1 }), "{count}: and the default room");
        if !joined {
            let refused = browser.next_of("error").await;
            assert_eq!((&refused["code"], &refused["requestType"]), (&"BAD_INPUT".into(), &"resume".into()));
            let message = refused["message"].as_str().expect("a message");
            assert!(message.contains("rooms") && message.contains(&RESUME_ROOMS.to_string()), "{message}");
        }
        // It goes on, in the rooms it was told of and in no other.
        let first = name(0);
        world.logic.publish(&first, 10).await;
        world.logic.publish(ROOM, 10).await;
        let mut came = Vec::new();
        while came.last().is_none_or(|room| room != if joined { &first } else { ROOM }) {
            came.push(browser.next_of("serverMessages").await["roomId"].as_str().expect("an id").to_owned());
        }
        assert_eq!(came.contains(&first), joined, "{count}: {came:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_in_as_many_rooms_as_it_could_resume_and_no_more() {
    let world = World::start().await;
    // As long as the ids that rooms get: as many cursors fit a frame of the usual limit.
    let name = |number: usize| format!("room-{number:036}");
    (0..=MEMBERSHIPS).for_each(|number| world.logic.add_public_room(&name(number)));
    let mut browser = world.connect(Some(ANN), true).await;
    browser.send(&resume((0..MEMBERSHIPS).map(name))).await;
    let hello = browser.next_frame().await;
    assert_eq!(hello["payload"]["rooms"].as_array().map(Vec::len), Some(MEMBERSHIPS + 1));

    let join = |room: String| format!(r#"{{"type":"join","payload":{{"roomId":"{room}"}}}}"#);
    let one_more = name(MEMBERSHIPS);
    browser.send(&join(one_more.clone())).await;
    let refused = browser.next_of("error").await;
    assert_eq!((&refused["code"], &refused["roomId"]), (&"TOO_MANY".into(), &one_more.as_str().into()));
    assert!(refused["message"].as_str().is_some_and(|text| text.contains(&MEMBERSHIPS.to_string())));
    // To speak there is to join there.
    browser.say(&one_more, "hi", Some("k")).await;
    assert_eq!(browser.next_of("error").await["clientMessageId"], "k");
    assert_eq!(world.logic.head(&one_more), 0);
    // A room it is in, and a default one, are no question of places.
    browser.send(&join(name(7))).await;
    assert_eq!(browser.next_of("joined").await["id"], name(7));
    browser.send(&join(ROOM.to_owned())).await;
    assert_eq!(browser.next_of("joined").await["id"], ROOM);
    // One place is free.
    browser.send(&format!(r#"{{"type":"leave","payload":{{"roomId":"{}"}}}}"#, name(7))).await;
    browser.send(&join(one_more.clone())).await;
    assert_eq!(browser.next_of("joined").await["id"], one_more.as_str());
    world.logic.publish(&one_more, 10).await;
    assert_eq!(browser.next_of("serverMessages").await["roomId"], one_more.as_str());
}

/// What the second of two clients gets, with so much said between their hellos.
async fn hello_after(messages: u64, bytes: usize) -> (u64, u64) {
    let world = World::start().await;
    let mut first = world.v1_client().await;
    for number in 1..=messages {
        world.logic.publish(ROOM, bytes).await;
        assert_eq!(first.next_of("serverMessages").await["messages"][0]["seq"], number);
    }
    let mut second = world.connect(Some(ANN), true).await;
    second.send(r#"{"type":"resume","payload":{"rooms":[]}}"#).await;
    let hello = second.next_of("hello").await;
    let at = hello["rooms"][0]["lastSeq"].as_u64().expect("a number");
    world.logic.publish(ROOM, 1).await;
    let mut behind = 0;
    // In order, without a hole, from there.
    for number in at + 1..=messages + 1 {
        assert_eq!(second.next_of("serverMessages").await["messages"][0]["seq"], number);
        behind += u64::from(number <= messages);
    }
    (at, behind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_hello_is_used_again_while_little_was_said_since() {
    assert_eq!(hello_after(10, 1_000).await, (0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_hello_is_read_again_when_much_was_said_since() {
    // 300 KB: the ring still reaches back, and a newcomer would get all of it.
    assert_eq!(hello_after(100, 3_000).await, (100, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_and_a_user_have_so_many_connections_and_another_when_one_leaves() {
    for key in ["address", "user"] {
        let world = World::start_with(|config| match key {
            "address" => config.limits.address_connections = 2,
            _ => config.limits.user_connections = 2,
        })
        .await;
        let first = world.old_client().await;
        let mut second = world.v1_client().await;
        let mut third = world.connect(Some(ANN), false).await;
        assert_eq!(third.close_code().await, 4429, "{key}");
        let refused = format!("outcome=\"{key}_full\"}} 1");
        eventually("it is counted", async || world.metrics_text().await.contains(&refused)).await;
        drop(first);
        // The others are none the wiser, and the place is given back.
        second.say(ROOM, "hi", None).await;
        second.next_of("serverMessages").await;
        eventually("a place is free", async || {
            let mut again = world.connect(Some(ANN), false).await;
            again.next_or_close().await.is_ok_and(|frame| frame["type"] == "hello")
        })
        .await;
    }
}
