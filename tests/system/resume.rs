//! Setup: `corecast up` and clients that offer `corecast.v1`. Claim: CONTRACT §9: a resume
//! brings exactly what was missed, or says `cut`. Why it matters: it is the only way a
//! client comes back without a hole.

use serde_json::{Value, json};

use crate::support::{Browser, Corecast, GENERAL, folder};

struct Stage {
    _data: tempfile::TempDir,
    corecast: Corecast,
    sid: String,
    browser: Browser,
}

/// A room with this many messages, and somebody who wrote them and is there.
async fn stage(messages: u64) -> Stage {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    let mut stage = Stage { _data: data, corecast, sid: ann.sid, browser };
    stage.say(messages, "message").await;
    stage
}

impl Stage {
    async fn say(&mut self, messages: u64, content: &str) {
        for _ in 0..messages {
            self.browser.say(GENERAL, content).await;
            self.browser.message(GENERAL).await;
        }
    }

    fn epoch(&self) -> u64 {
        self.browser.cursors()[0].1
    }

    async fn general_of_hello(&self, cursors: Vec<(String, u64, u64)>) -> Value {
        let mut again = Browser::knock(self.corecast.http(), &self.sid).resume(cursors).open().await;
        let hello = again.hello().await;
        hello["rooms"]
            .as_array()
            .expect("rooms")
            .iter()
            .find(|room| room["id"] == GENERAL)
            .expect("it")
            .clone()
    }
}

fn numbers(room: &Value) -> Vec<u64> {
    room["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|one| one["seq"].as_u64().expect("seq"))
        .collect()
}

#[tokio::test]
async fn a_resume_brings_exactly_what_was_missed() {
    let mut stage = stage(5).await;
    let epoch = stage.epoch();
    stage.say(4, "later").await;
    for (reached, missed) in [(5, vec![6, 7, 8, 9]), (0, (1..=9).collect()), (8, vec![9]), (9, vec![])] {
        let room = stage.general_of_hello(vec![(GENERAL.into(), epoch, reached)]).await;
        assert_eq!((numbers(&room), &room["lastSeq"]), (missed, &json!(9)), "from {reached}");
        assert!(room.get("cut").is_none_or(|cut| cut == false), "{room}");
    }
}

#[tokio::test]
async fn what_a_resumed_client_gets_live_follows_its_hello() {
    let mut stage = stage(3).await;
    let cursors = vec![(GENERAL.to_owned(), stage.epoch(), 1)];
    let mut again = Browser::knock(stage.corecast.http(), &stage.sid).resume(cursors).open().await;
    let hello = again.hello().await;
    assert_eq!(numbers(&hello["rooms"][0]), [2, 3]);
    stage.say(2, "live").await;
    assert_eq!(again.message(GENERAL).await["seq"], 4);
    assert_eq!(again.message(GENERAL).await["seq"], 5);
}

#[tokio::test]
async fn another_epoch_or_a_number_above_the_head_is_cut() {
    let stage = stage(5).await;
    let epoch = stage.epoch();
    for (epoch, seq) in [(epoch + 1, 5), (epoch - 1, 5), (epoch, 6), (epoch, 1 << 50)] {
        let room = stage.general_of_hello(vec![(GENERAL.into(), epoch, seq)]).await;
        assert_eq!(room["cut"], true, "{epoch} {seq}: {room}");
        assert_eq!(numbers(&room).last(), Some(&5), "the newest come with it");
    }
}

#[tokio::test]
async fn more_than_fits_a_hello_is_cut() {
    let mut stage = stage(1).await;
    let epoch = stage.epoch();
    stage.say(50, &"x".repeat(4096)).await;
    let room = stage.general_of_hello(vec![(GENERAL.into(), epoch, 1)]).await;
    assert_eq!(
        (&room["cut"], &room["hasMoreMessages"], &room["lastSeq"]),
        (&json!(true), &json!(true), &json!(51))
    );
    let held = numbers(&room);
    assert!(held.len() < 50 && held.last() == Some(&51), "{held:?}");
    assert!(room.to_string().len() <= 160 << 10, "about 128 KiB: {}", room.to_string().len());
}

#[tokio::test]
async fn an_empty_list_is_a_new_client() {
    let stage = stage(3).await;
    let mut browser = Browser::knock(stage.corecast.http(), &stage.sid).v1().open().await;
    let messages = browser.everything_up_to(GENERAL, 3).await;
    assert_eq!(messages.iter().map(|one| one["seq"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn without_a_resume_the_hello_comes_by_itself() {
    let stage = stage(1).await;
    let start = std::time::Instant::now();
    let mut silent = Browser::knock(stage.corecast.http(), &stage.sid).v1_silent().open().await;
    silent.hello().await;
    assert!(start.elapsed().as_millis() >= 1_500, "2 s were given: {:?}", start.elapsed());
    let mut eager = Browser::knock(stage.corecast.http(), &stage.sid).v1_silent().open().await;
    let start = std::time::Instant::now();
    eager.say_keyed(GENERAL, "k", "another first frame").await;
    eager.hello().await;
    eager.frame("ack").await;
    assert!(start.elapsed().as_millis() < 1_900, "another first frame ends the wait: {:?}", start.elapsed());
}

#[tokio::test]
async fn a_second_resume_gets_an_error() {
    let mut stage = stage(1).await;
    stage.browser.send("resume", json!({"rooms": []})).await;
    let error = stage.browser.frame("error").await;
    assert_eq!((&error["code"], &error["requestType"]), (&json!("CONFLICT"), &json!("resume")));
    stage.say(1, "it lives on").await;
}

#[tokio::test]
async fn a_room_that_does_not_exist_is_passed_over_in_a_resume() {
    let stage = stage(2).await;
    let cursors = vec![("room-999".to_owned(), 1, 1), ("global".to_owned(), 1, 1)];
    let mut browser = Browser::knock(stage.corecast.http(), &stage.sid).resume(cursors).open().await;
    let hello = browser.hello().await;
    let ids: Vec<&Value> = hello["rooms"].as_array().expect("rooms").iter().map(|room| &room["id"]).collect();
    assert_eq!(ids, [GENERAL]);
}

#[tokio::test]
async fn an_ack_names_what_was_stored() {
    let mut stage = stage(0).await;
    let messages = json!([{"content": "one", "clientMessageId": "k1"}, {"content": "no key"},
        {"content": "two", "clientMessageId": "k2"}]);
    stage.browser.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
    let ack = stage.browser.frame("ack").await;
    assert_eq!(ack["roomId"], GENERAL);
    let acked = ack["messages"].as_array().expect("messages").clone();
    assert_eq!(acked.len(), 2, "only messages that carry a key: {ack}");
    let seen = [stage.browser.message(GENERAL).await, stage.browser.message(GENERAL).await];
    let third = stage.browser.message(GENERAL).await;
    for (entry, (key, message)) in acked.iter().zip([("k1", &seen[0]), ("k2", &third)]) {
        assert_eq!(entry["clientMessageId"], key);
        for field in ["id", "seq", "timestamp"] {
            assert_eq!(entry[field], message[field], "{field} of {key}");
        }
    }
}
