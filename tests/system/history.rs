//! Setup: a room with more messages than a page. Claim: paging reaches the very first
//! message, without overlap and without a hole, in both directions; what is no anchor is
//! told. Why it matters: a page that skips is a loss nobody notices.

use serde_json::{Value, json};

use crate::support::{Browser, Corecast, GENERAL, folder};

const MESSAGES: u64 = 137;

async fn room_of_many() -> (tempfile::TempDir, Corecast, Browser) {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    let mut sent = 0;
    while sent < MESSAGES {
        let count = (MESSAGES - sent).min(60);
        let messages: Vec<Value> =
            (sent + 1..=sent + count).map(|index| json!({"content": format!("message {index}")})).collect();
        browser.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
        sent += count;
        browser
            .frame_where("serverMessages", |payload| {
                payload["messages"].as_array().is_some_and(|list| list.iter().any(|one| one["seq"] == sent))
            })
            .await;
    }
    (data, corecast, browser)
}

async fn page(browser: &mut Browser, payload: Value) -> Value {
    browser.send("requestRoomHistory", payload).await;
    browser.frame("serverRoomHistory").await
}

fn numbers(page: &Value) -> Vec<u64> {
    page["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|one| one["seq"].as_u64().expect("seq"))
        .collect()
}

#[tokio::test]
async fn paging_back_reaches_the_first_message_without_overlap_or_hole() {
    let (_data, _corecast, mut browser) = room_of_many().await;
    for count in [1, 7, 30, 50, 200] {
        let mut anchor = String::new();
        let mut seen: Vec<u64> = Vec::new();
        loop {
            let request = json!({"roomId": GENERAL, "firstMessageId": anchor, "count": count});
            let answer = page(&mut browser, request).await;
            assert_eq!((&answer["roomId"], answer["epoch"].is_u64()), (&json!(GENERAL), true));
            let part = numbers(&answer);
            assert!(part.len() <= count, "{} of {count}", part.len());
            seen.splice(0..0, part);
            let more = answer["hasMoreMessages"].as_bool().expect("a boolean");
            assert_eq!(more, seen[0] > 1, "hasMoreMessages is true while older ones exist");
            if !more {
                break;
            }
            anchor = answer["messages"][0]["id"].as_str().expect("an id").to_owned();
            if count == 1 && seen.len() >= 20 {
                break;
            }
        }
        let first = seen[0];
        assert_eq!(seen, (first..=MESSAGES).collect::<Vec<_>>(), "pages of {count}");
        assert!(count == 1 || first == 1, "pages of {count} end at {first}");
    }
}

#[tokio::test]
async fn paging_forward_by_number_reaches_the_head() {
    let (_data, _corecast, mut browser) = room_of_many().await;
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let answer = page(&mut browser, json!({"roomId": GENERAL, "afterSeq": after, "count": 40})).await;
        seen.extend(numbers(&answer));
        after = *seen.last().expect("some");
        let more = answer["hasMoreMessages"].as_bool().expect("a boolean");
        assert_eq!(more, after < MESSAGES, "hasMoreMessages means newer ones");
        if !more {
            break;
        }
    }
    assert_eq!(seen, (1..=MESSAGES).collect::<Vec<_>>());
    let end = page(&mut browser, json!({"roomId": GENERAL, "afterSeq": MESSAGES})).await;
    assert_eq!((numbers(&end), &end["hasMoreMessages"]), (vec![], &json!(false)));
}

#[tokio::test]
async fn without_count_a_page_has_30_and_without_anchor_it_is_the_newest() {
    let (_data, _corecast, mut browser) = room_of_many().await;
    let newest: Vec<u64> = (MESSAGES - 29..=MESSAGES).collect();
    for request in [
        json!({"roomId": GENERAL}),
        json!({"roomId": GENERAL, "firstMessageId": ""}),
        json!({"roomId": GENERAL, "firstMessageId": null, "count": null}),
    ] {
        assert_eq!(numbers(&page(&mut browser, request.clone()).await), newest, "{request}");
    }
}

#[tokio::test]
async fn count_is_1_to_200() {
    let (_data, _corecast, mut browser) = room_of_many().await;
    for (count, fits) in [(0, false), (1, true), (200, true), (201, false), (-1, false)] {
        browser.send("requestRoomHistory", json!({"roomId": GENERAL, "count": count})).await;
        if fits {
            let expected = usize::try_from(count).expect("positive").min(MESSAGES as usize);
            assert_eq!(numbers(&browser.frame("serverRoomHistory").await).len(), expected);
        } else {
            let error = browser.frame("error").await;
            assert_eq!(error["code"], "BAD_INPUT", "{count}");
            assert!(error["message"].as_str().is_some_and(|message| message.contains("count")), "{error}");
        }
    }
}

#[tokio::test]
async fn what_is_no_id_of_this_room_gets_an_error() {
    let (_data, _corecast, mut browser) = room_of_many().await;
    let answer = page(&mut browser, json!({"roomId": GENERAL, "count": 1})).await;
    let id = answer["messages"][0]["id"].as_str().expect("an id").to_owned();
    let (ms, seq) = id.split_once('-').expect("<ms>-<seq>");
    let later = ms.parse::<u64>().expect("a number") + 1;
    for anchor in ["nonsense", "1-1", &format!("{later}-{seq}"), &format!("{ms}-{}", MESSAGES + 1)] {
        browser.send("requestRoomHistory", json!({"roomId": GENERAL, "firstMessageId": anchor})).await;
        let error = browser.frame("error").await;
        assert_eq!(error["code"], "UNKNOWN_MESSAGE", "{anchor}: {error}");
        assert_eq!(
            (&error["requestType"], &error["roomId"]),
            (&json!("requestRoomHistory"), &json!(GENERAL))
        );
    }
}

#[tokio::test]
async fn a_page_of_the_largest_messages_is_whole_with_and_without_an_anchor() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    let content = "x".repeat(4096);
    for index in 1..=61 {
        let messages = json!([{"content": content, "clientMessageId": index.to_string()}]);
        browser.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
        browser.frame("ack").await;
    }
    // 60 of them are 250 KiB: above a hello, far below a reply.
    let newest = page(&mut browser, json!({"roomId": GENERAL, "count": 60})).await;
    assert_eq!(numbers(&newest), (2..=61).collect::<Vec<_>>());
    let anchor = &newest["messages"][59]["id"];
    let before = json!({"roomId": GENERAL, "count": 60, "firstMessageId": anchor});
    assert_eq!(numbers(&page(&mut browser, before).await), (1..=60).collect::<Vec<_>>());
}
