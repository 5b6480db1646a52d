//! Setup: `corecast up` and browsers that are online. Claim: a created room appears
//! everywhere, once; a taken name is told to the asker alone; public rooms are joined and
//! left. Why it matters: a room that only its creator sees is no room.

use serde_json::json;

use crate::support::{Browser, Corecast, GENERAL, Setup, folder};

#[tokio::test]
async fn a_room_created_while_others_are_online_appears_everywhere_once() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let mut creator = Browser::knock(corecast.http(), &ann.sid).open().await;
    let mut other = Browser::knock(corecast.http(), &bob.sid).v1().open().await;
    creator.hello().await;
    other.hello().await;
    creator.send("clientCreateRoom", json!({"roomName": "dpdk"})).await;
    let created = creator.frame("serverCreateRoom").await;
    assert_eq!(created["roomName"], "dpdk");
    assert_eq!((&created["creatorId"], &created["creatorUsername"]), (&json!(ann.id), &json!("ann")));
    assert_eq!(other.frame("serverCreateRoom").await, created);
    let room = created["roomId"].as_str().expect("an id").to_owned();

    // Everybody is a member at once, and its numbers begin at 1.
    other.say(&room, "first").await;
    for browser in [&mut creator, &mut other] {
        assert_eq!(browser.message(&room).await["seq"], 1);
        assert!(!browser.kinds_waiting().contains(&"serverCreateRoom".to_owned()), "once");
    }
    // A newcomer learns of it, from its hello or from what follows that.
    let mut newcomer = Browser::knock(corecast.http(), &bob.sid).open().await;
    let messages = newcomer.everything_up_to(&room, 1).await;
    assert_eq!(messages[0]["content"], "first");
}

#[tokio::test]
async fn a_created_room_is_in_the_hello_after_a_restart() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    browser.send("clientCreateRoom", json!({"roomName": "dpdk"})).await;
    let room = browser.frame("serverCreateRoom").await["roomId"].clone();
    corecast.kill();
    let corecast = Corecast::up(data.path()).await;
    let hello = Browser::knock(corecast.http(), &ann.sid).open().await.hello().await;
    let rooms = hello["rooms"].as_array().expect("rooms");
    let found = rooms.iter().find(|known| known["id"] == room).expect("it is there");
    assert_eq!(
        (&found["name"], &found["creator_id"], &found["lastSeq"]),
        (&json!("dpdk"), &json!(ann.id), &json!(0))
    );
}

#[tokio::test]
async fn a_taken_name_is_told_to_the_asker_alone() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let mut asker = Browser::knock(corecast.http(), &ann.sid).open().await;
    let mut other = Browser::knock(corecast.http(), &bob.sid).open().await;
    asker.hello().await;
    other.hello().await;
    asker.send("clientCreateRoom", json!({"roomName": "General"})).await;
    let taken = json!({"roomId": "", "roomName": "", "creatorId": "", "creatorUsername": ""});
    assert_eq!(asker.frame("serverCreateRoom").await, taken);
    // Names are exact: another case is another room, and the next thing the other one hears.
    asker.send("clientCreateRoom", json!({"roomName": "general"})).await;
    assert_eq!(other.frame("serverCreateRoom").await["roomName"], "general");
    assert_eq!(asker.frame("serverCreateRoom").await["roomName"], "general");
}

#[tokio::test]
async fn a_room_name_has_1_to_64_characters() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    for (name, fits) in [("".to_owned(), false), ("é".repeat(64), true), ("é".repeat(65), false)] {
        browser.send("clientCreateRoom", json!({ "roomName": name })).await;
        if fits {
            assert_eq!(browser.frame("serverCreateRoom").await["roomName"], name.as_str());
        } else {
            let error = browser.frame("error").await;
            assert_eq!(
                (&error["code"], &error["requestType"]),
                (&json!("BAD_INPUT"), &json!("clientCreateRoom"))
            );
            assert!(error["message"].as_str().is_some_and(|message| message.contains("roomName")), "{error}");
        }
    }
}

async fn with_public_room() -> (tempfile::TempDir, Corecast, Browser, String) {
    let data = folder();
    let corecast = Setup::new(data.path()).set("rooms.create_kind", "public").start().await;
    let ann = corecast.account("ann").await;
    let mut creator = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    creator.hello().await;
    creator.send("clientCreateRoom", json!({"roomName": "public"})).await;
    let created = creator.frame("serverCreateRoom").await;
    assert_eq!(created["kind"], "public");
    let room = created["roomId"].as_str().expect("an id").to_owned();
    (data, corecast, creator, room)
}

#[tokio::test]
async fn a_public_room_is_heard_by_those_who_joined_it() {
    let (_data, corecast, mut creator, room) = with_public_room().await;
    let bob = corecast.account("bob").await;
    let mut member = Browser::knock(corecast.http(), &bob.sid).v1().open().await;
    let mut stranger = Browser::knock(corecast.http(), &bob.sid).v1().open().await;
    member.hello().await;
    stranger.hello().await;
    creator.say(&room, "the creator is joined").await;
    assert_eq!(creator.message(&room).await["seq"], 1);

    member.send("join", json!({ "roomId": room })).await;
    let joined = member.frame("joined").await;
    assert_eq!(
        (&joined["id"], &joined["kind"], &joined["lastSeq"]),
        (&json!(room), &json!("public"), &json!(1))
    );
    assert_eq!(joined["messages"][0]["content"], "the creator is joined");
    creator.say(&room, "two are here").await;
    assert_eq!(member.message(&room).await["seq"], 2);

    member.send("leave", json!({ "roomId": room })).await;
    // A frame of the same connection is handled after the leave.
    member.send("requestRoomHistory", json!({"roomId": GENERAL})).await;
    member.frame("serverRoomHistory").await;
    creator.say(&room, "one is here").await;
    creator.message(&room).await;
    creator.say(GENERAL, "a mark for everybody").await;
    for browser in [&mut member, &mut stranger] {
        browser.message(GENERAL).await;
        let waiting = browser.kinds_waiting();
        assert!(
            !waiting.contains(&"serverMessages".to_owned()),
            "nothing of a room one is not in: {waiting:?}"
        );
    }
}

#[tokio::test]
async fn a_newcomer_finds_a_public_room_in_hello_and_is_not_in_it() {
    let (_data, corecast, mut creator, room) = with_public_room().await;
    creator.say(&room, "before").await;
    creator.message(&room).await;
    let bob = corecast.account("bob").await;
    let mut newcomer = Browser::knock(corecast.http(), &bob.sid).v1().open().await;
    newcomer.hello().await;
    // A hello that others share may be older than the room: then its creation follows. One
    // that is asked for alone lists it.
    let cursors = vec![("gone".to_owned(), 1, 1)];
    let hello = Browser::knock(corecast.http(), &bob.sid).resume(cursors).open().await.hello().await;
    let listed = hello["rooms"].as_array().expect("rooms").iter().find(|found| found["id"] == json!(room));
    let listed = listed.expect("the public room is listed");
    assert_eq!(
        (&listed["kind"], &listed["messages"], &listed["hasMoreMessages"]),
        (&json!("public"), &json!([]), &json!(true))
    );
    creator.say(&room, "after").await;
    creator.message(&room).await;
    creator.say(GENERAL, "a mark for everybody").await;
    newcomer.message(GENERAL).await;
    let waiting = newcomer.kinds_waiting();
    assert!(!waiting.contains(&"serverMessages".to_owned()), "listed is not joined: {waiting:?}");
}

#[tokio::test]
async fn an_old_client_joins_a_public_room_by_opening_it_or_by_sending() {
    let (_data, corecast, mut creator, room) = with_public_room().await;
    let bob = corecast.account("bob").await;
    let mut opens = Browser::knock(corecast.http(), &bob.sid).open().await;
    let mut sends = Browser::knock(corecast.http(), &bob.sid).open().await;
    opens.hello().await;
    sends.hello().await;
    opens.send("requestRoomHistory", json!({"roomId": room, "count": 30})).await;
    assert_eq!(opens.frame("serverRoomHistory").await["messages"], json!([]));
    sends.say(&room, "I am in").await;
    for browser in [&mut creator, &mut opens, &mut sends] {
        assert_eq!(browser.message(&room).await["content"], "I am in");
    }
    creator.say(&room, "all three").await;
    for browser in [&mut creator, &mut opens, &mut sends] {
        assert_eq!(browser.message(&room).await["seq"], 2);
    }
}

#[tokio::test]
async fn a_join_with_a_place_continues_there() {
    let (_data, corecast, mut creator, room) = with_public_room().await;
    for index in 1..=5 {
        creator.say(&room, &format!("message {index}")).await;
        creator.message(&room).await;
    }
    let (_, epoch, _) = creator.cursors().into_iter().find(|(id, ..)| *id == room).unwrap_or_default();
    let bob = corecast.account("bob").await;
    let mut member = Browser::knock(corecast.http(), &bob.sid).v1().open().await;
    member.hello().await;
    member.send("join", json!({ "roomId": room })).await;
    let epoch = if epoch > 0 { json!(epoch) } else { member.frame("joined").await["epoch"].clone() };
    member.send("leave", json!({ "roomId": room })).await;
    member.send("join", json!({"roomId": room, "epoch": epoch, "seq": 3})).await;
    let joined =
        member.frame_where("joined", |payload| payload["messages"].as_array().is_some_and(|m| m.len() == 2));
    let joined = joined.await;
    assert_eq!((&joined["messages"][0]["seq"], &joined["lastSeq"]), (&json!(4), &json!(5)));
}

#[tokio::test]
async fn global_and_unknown_rooms_cannot_be_named() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    for room in ["global", "room-999"] {
        for (kind, payload) in [
            (
                "clientMessages",
                json!({"roomId": room, "messages": [{"content": "x", "clientMessageId": "k"}]}),
            ),
            ("requestRoomHistory", json!({"roomId": room})),
            ("join", json!({"roomId": room})),
        ] {
            browser.send(kind, payload).await;
            let error = browser.frame("error").await;
            assert_eq!(
                (&error["code"], &error["requestType"]),
                (&json!("UNKNOWN_ROOM"), &json!(kind)),
                "{room}"
            );
            assert_eq!(error["roomId"], room);
            if kind == "clientMessages" {
                assert_eq!(error["clientMessageId"], "k");
            }
        }
    }
}
