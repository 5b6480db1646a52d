//! Setup: two browsers behind nginx, which gives each another gateway. Claim: DESIGN §3.3
//! across gateways and logic nodes. Why it matters: nobody chooses the node that serves him.

use corecast_checker::Recorder;
use serde_json::json;

use crate::stand::{Stand, soon};
use crate::support::{Browser, GENERAL, eventually, http};

#[tokio::test]
async fn browsers_on_two_gateways_see_everything_once_and_in_order() {
    let Some(stand) = Stand::ready().await else { return };
    let (recorder, nginx) = (Recorder::new(), stand.nginx());
    let mut browsers = Vec::new();
    for (name, path) in [("chat-ann", "/api/ws"), ("chat-ben", "/")] {
        let account = stand.account(name).await;
        let knock = Browser::knock(nginx, &account.sid).path(path).v1().recorded(&recorder, name);
        let mut browser = knock.open().await;
        browser.hello().await;
        browsers.push((name, browser));
    }
    for gateway in ["gateway-1", "gateway-2"] {
        soon("each gateway has a browser", || async { stand.connections(gateway).await >= 1 }).await;
    }
    for index in 0..50 {
        for (name, browser) in &mut browsers {
            browser.say_keyed(GENERAL, &format!("key-{index}"), &format!("{name} says {index}")).await;
        }
        for (_, browser) in &mut browsers {
            browser.frame("ack").await;
        }
    }
    let head = recorder.head(GENERAL);
    for (name, _) in &browsers {
        eventually("everybody has everything", || async { recorder.has_reached(name, GENERAL, head) }).await;
    }
    let verdict = recorder.judge();
    verdict.expect_clean();
    assert_eq!(verdict.acknowledged, 100, "{verdict}");
}

#[tokio::test]
async fn a_message_sent_at_any_logic_node_reaches_every_gateway() {
    let Some(stand) = Stand::ready().await else { return };
    let sender = stand.account("any-sender").await;
    let mut browsers = Vec::new();
    for _ in 0..2 {
        let mut browser = Browser::knock(stand.nginx(), &sender.sid).v1().open().await;
        browser.hello().await;
        browsers.push(browser);
    }
    for index in 0..20 {
        let logic = stand.address(["logic-1", "logic-2"][index % 2], "http");
        let content = format!("by node {index}");
        let messages = json!([{ "content": content }]);
        let body = json!({"roomId": GENERAL, "userId": sender.id, "username": sender.username, "messages": messages});
        let answer = http::post(logic, "/logic/send", &body).await;
        assert_eq!((answer.status, &*answer.text), (200, r#"{"status":"success"}"#));
        for browser in &mut browsers {
            // A hello may be one that was read a moment ago for others: what others said since
            // then follows it.
            let mut told = browser.message(GENERAL).await;
            while index == 0 && told["user"]["id"] != *sender.id {
                told = browser.message(GENERAL).await;
            }
            assert_eq!(told["content"], content);
        }
    }
}

#[tokio::test]
async fn history_is_the_same_at_every_logic_node_and_through_nginx() {
    let Some(stand) = Stand::ready().await else { return };
    let reader = stand.account("history-reader").await;
    let mut browser = Browser::knock(stand.nginx(), &reader.sid).v1().open().await;
    browser.hello().await;
    for index in 0..5 {
        browser.say_keyed(GENERAL, &format!("h-{index}"), &format!("for the history {index}")).await;
        browser.frame("ack").await;
    }
    browser.send("requestRoomHistory", json!({"roomId": GENERAL, "count": 5})).await;
    let by_nginx = browser.frame("serverRoomHistory").await;
    let contents: Vec<_> = (0..5).map(|index| json!(format!("for the history {index}"))).collect();
    let messages = by_nginx["messages"].as_array().expect("a list");
    assert_eq!(messages.iter().map(|message| message["content"].clone()).collect::<Vec<_>>(), contents);
    for node in ["logic-1", "logic-2"] {
        let body = json!({"roomId": GENERAL, "userId": reader.id, "username": reader.username, "count": 5});
        let answer = http::post(stand.address(node, "http"), "/logic/room_history", &body).await;
        assert_eq!(answer.json()["payload"]["messages"], by_nginx["messages"], "{node}");
    }
}
