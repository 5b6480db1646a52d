//! Setup: `corecast up`, messages with a `clientMessageId`. Claim: the same key twice is
//! stored once and answered twice, in one frame, in one batch, in two, and across a
//! restart. Why it matters: a client that heard no ack must be able to send again.

use serde_json::{Value, json};

use crate::support::{Browser, Corecast, GENERAL, folder};

fn frame(entries: &[(&str, &str)]) -> Value {
    let messages: Vec<Value> =
        entries.iter().map(|(key, content)| json!({"content": content, "clientMessageId": key})).collect();
    json!({"roomId": GENERAL, "messages": messages})
}

/// (key, seq) of the next ack.
async fn acked(browser: &mut Browser) -> Vec<(String, u64)> {
    let ack = browser.frame("ack").await;
    let entries = ack["messages"].as_array().expect("messages").iter();
    entries
        .map(|one| {
            (one["clientMessageId"].as_str().expect("key").to_owned(), one["seq"].as_u64().expect("seq"))
        })
        .collect()
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(key, seq)| ((*key).to_owned(), *seq)).collect()
}

/// Everything the room holds.
async fn stored(browser: &mut Browser) -> Vec<String> {
    browser.send("requestRoomHistory", json!({"roomId": GENERAL, "count": 200})).await;
    let page = browser.frame("serverRoomHistory").await;
    let messages = page["messages"].as_array().expect("messages").iter();
    messages.map(|one| one["content"].as_str().expect("content").to_owned()).collect()
}

#[tokio::test]
async fn twice_in_one_frame() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    browser.send("clientMessages", frame(&[("a", "first"), ("a", "second"), ("b", "third")])).await;
    assert_eq!(acked(&mut browser).await, pairs(&[("a", 1), ("a", 1), ("b", 2)]));
    assert_eq!(stored(&mut browser).await, ["first", "third"], "the first one wins");
}

#[tokio::test]
async fn twice_in_one_batch_and_twice_in_two() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut one = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    let mut two = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    one.hello().await;
    two.hello().await;
    // From two connections at once, and several in one write: logic combines what waits.
    let repeated: Vec<_> = (0..6).map(|_| ("clientMessages", frame(&[("a", "once")]))).collect();
    futures::future::join(one.send_together(repeated.clone()), two.send_together(repeated)).await;
    for browser in [&mut one, &mut two] {
        for _ in 0..6 {
            assert_eq!(acked(browser).await, pairs(&[("a", 1)]));
        }
    }
    one.send("clientMessages", frame(&[("b", "another"), ("a", "once more")])).await;
    assert_eq!(acked(&mut one).await, pairs(&[("b", 2), ("a", 1)]));
    assert_eq!(stored(&mut one).await, ["once", "another"]);
    for browser in [&mut one, &mut two] {
        assert_eq!(browser.message(GENERAL).await["seq"], 1);
        assert_eq!(browser.message(GENERAL).await["seq"], 2, "a repeat is not shown again");
    }
}

#[tokio::test]
async fn a_key_is_of_one_user_in_one_room() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    for (index, sid) in [&ann.sid, &bob.sid].into_iter().enumerate() {
        let mut browser = Browser::knock(corecast.http(), sid).v1().open().await;
        browser.hello().await;
        browser.send("clientMessages", frame(&[("k", "mine")])).await;
        assert_eq!(acked(&mut browser).await, pairs(&[("k", index as u64 + 1)]));
    }
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    browser.send("clientCreateRoom", json!({"roomName": "other"})).await;
    let room = browser.frame("serverCreateRoom").await["roomId"].as_str().expect("id").to_owned();
    browser.say_keyed(&room, "k", "in another room").await;
    let ack = browser.frame("ack").await;
    assert_eq!((&ack["roomId"], &ack["messages"][0]["seq"]), (&json!(room), &json!(1)));
}

#[tokio::test]
async fn across_a_restart() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    browser.send("clientMessages", frame(&[("a", "before"), ("b", "before too")])).await;
    let before = browser.frame("ack").await;
    corecast.kill();

    let corecast = Corecast::up(data.path()).await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    browser.send("clientMessages", frame(&[("a", "after"), ("b", "after")])).await;
    assert_eq!(browser.frame("ack").await, before, "same id, number and timestamp");
    assert_eq!(stored(&mut browser).await, ["before", "before too"]);
}
