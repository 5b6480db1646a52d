//! Setup: `corecast up` and a few browsers. Claim: what CONTRACT §3 says two people see of
//! each other. Why it matters: it is what the system is for.

use serde_json::{Value, json};

use crate::support::{Browser, Corecast, GENERAL, folder};

#[tokio::test]
async fn a_fresh_store_has_a_room_for_two_newcomers() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let hello = Browser::knock(corecast.http(), &ann.sid).open().await.hello().await;
    let rooms = hello["rooms"].as_array().expect("rooms");
    assert_eq!(rooms.len(), 1, "global is in no hello: {hello}");
    let room = &rooms[0];
    assert_eq!(
        (&room["id"], &room["name"], &room["creator_id"]),
        (&json!(GENERAL), &json!("General"), &json!(""))
    );
    assert_eq!((&room["hasMoreMessages"], &room["messages"]), (&json!(false), &json!([])));
    assert_eq!((&room["lastSeq"], &room["kind"]), (&json!(0), &json!("default")));
    assert!(room["epoch"].as_u64().is_some_and(|epoch| epoch < 1 << 53));
}

#[tokio::test]
async fn two_users_in_one_room_see_each_other_in_order() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let mut of_ann = Browser::knock(corecast.http(), &ann.sid).open().await;
    let mut of_bob = Browser::knock(corecast.http(), &bob.sid).open().await;
    of_ann.hello().await;
    of_bob.hello().await;
    let before = now_ms();
    for index in 0..20 {
        of_ann.say(GENERAL, &format!("message {index}")).await;
    }
    let mut last_timestamp = 0;
    for index in 0..20u64 {
        let seen = of_bob.message(GENERAL).await;
        assert_eq!(seen, of_ann.message(GENERAL).await, "a sender gets its own message like everybody else");
        assert_eq!(seen["content"], format!("message {index}"));
        assert_eq!(seen["seq"], index + 1);
        assert_eq!(seen["user"], json!({"id": ann.id, "username": "ann"}));
        let timestamp = seen["timestamp"].as_u64().expect("milliseconds");
        assert_eq!(seen["id"], format!("{timestamp}-{}", index + 1));
        assert!(timestamp >= last_timestamp, "timestamps do not run backwards");
        assert!((before - 1_000..before + 60_000).contains(&timestamp), "milliseconds since 1970");
        last_timestamp = timestamp;
    }
    of_bob.say(GENERAL, "and back").await;
    assert_eq!(of_ann.message(GENERAL).await["user"]["username"], "bob");
}

#[tokio::test]
async fn a_user_with_two_connections_gets_everything_on_both() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut first = Browser::knock(corecast.http(), &ann.sid).open().await;
    let mut second = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    first.hello().await;
    second.hello().await;
    first.say(GENERAL, "from the first").await;
    second.say(GENERAL, "from the second").await;
    let at_first = [first.message(GENERAL).await, first.message(GENERAL).await];
    let at_second = [second.message(GENERAL).await, second.message(GENERAL).await];
    assert_eq!(at_first, at_second);
    first.close().await;
    second.say(GENERAL, "the other one is gone").await;
    assert_eq!(second.message(GENERAL).await["seq"], 3);
}

#[tokio::test]
async fn a_newcomer_sees_what_was_said_before() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let mut of_ann = Browser::knock(corecast.http(), &ann.sid).open().await;
    of_ann.hello().await;
    for index in 1..=40 {
        of_ann.say(GENERAL, &format!("message {index}")).await;
    }
    of_ann
        .frame_where("serverMessages", |payload| {
            payload["messages"].as_array().is_some_and(|list| list.iter().any(|message| message["seq"] == 40))
        })
        .await;
    let mut newcomer = Browser::knock(corecast.http(), &bob.sid).open().await;
    let messages = newcomer.everything_up_to(GENERAL, 40).await;
    assert_eq!(messages.last().expect("some")["content"], "message 40");
    assert!(messages.windows(2).all(|pair| seq(&pair[0]) + 1 == seq(&pair[1])), "oldest first: {messages:?}");
}

#[tokio::test]
async fn an_older_client_may_put_content_into_the_payload() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    browser.send("clientMessages", json!({"roomId": GENERAL, "content": "the old way"})).await;
    assert_eq!(browser.message(GENERAL).await["content"], "the old way");
}

#[tokio::test]
async fn the_messages_of_one_frame_stay_together() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    let messages: Vec<Value> = (1..=64).map(|index| json!({"content": format!("part {index}")})).collect();
    browser.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
    let payload = browser.frame("serverMessages").await;
    let seen = payload["messages"].as_array().expect("messages");
    assert_eq!(
        seen.iter().map(seq).collect::<Vec<_>>(),
        (1..=64).collect::<Vec<_>>(),
        "one frame, one range"
    );
}

#[tokio::test]
async fn any_unicode_comes_back_as_it_was_sent() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    let contents = [
        "\u{0}",
        "\"quotes\" and \\backslashes\\",
        "line\r\nbreaks\n\ttabs",
        "é e\u{301} 🙂 👩‍👩‍👧 \u{202e}right to left",
        "<script>alert(1)</script>",
        "\u{7f}\u{80}\u{2028}\u{fffd}\u{10ffff}",
        " leading and trailing ",
        &"x".repeat(4096),
    ];
    for content in contents {
        browser.say(GENERAL, content).await;
        assert_eq!(browser.message(GENERAL).await["content"], content);
    }
    browser.send("requestRoomHistory", json!({"roomId": GENERAL})).await;
    let page = browser.frame("serverRoomHistory").await;
    let stored: Vec<&str> = page["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| message["content"].as_str().expect("text"))
        .collect();
    assert_eq!(stored, contents);
}

#[tokio::test]
async fn old_clients_get_no_frame_they_do_not_know() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut old = Browser::knock(corecast.http(), &ann.sid).open().await;
    old.hello().await;
    let messages = json!([{"content": "with a key", "clientMessageId": "k"}]);
    old.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
    old.message(GENERAL).await;
    old.send("requestRoomHistory", json!({"roomId": GENERAL})).await;
    old.frame("serverRoomHistory").await;
    assert_eq!(old.kinds_waiting(), [""; 0], "no ack for an old client");
}

fn seq(message: &Value) -> u64 {
    message["seq"].as_u64().expect("seq")
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}
