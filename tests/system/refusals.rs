//! Setup: `corecast up`, clients that break rules. Claim: what is refused is told with a
//! code and a field, oversized and undecodable frames close with the code of RFC 6455, and
//! nothing else ends a connection. Why it matters: one bad frame must cost nobody their chat.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Browser, Corecast, GENERAL, Setup, eventually, folder, http, in_time};

async fn one_browser() -> (tempfile::TempDir, Corecast, Browser) {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    (data, corecast, browser)
}

async fn refused(browser: &mut Browser, text: &str) -> Value {
    browser.send_text(text).await;
    browser.frame("error").await
}

async fn lives(browser: &mut Browser) {
    browser.say(GENERAL, "still here").await;
    assert_eq!(browser.message(GENERAL).await["content"], "still here");
}

#[tokio::test]
async fn malformed_json_gets_an_error_frame_and_the_connection_lives() {
    let (_data, _corecast, mut browser) = one_browser().await;
    for text in ["", "{", "nonsense", "{\"type\":\"clientMessages\",\"payload\":{\"roomId\":\"room-001\","] {
        assert_eq!(refused(&mut browser, text).await["code"], "BAD_JSON", "{text:?}");
    }
    for text in ["[]", "7", "null", "{}", "{\"type\":7}", "{\"payload\":{}}"] {
        let error = refused(&mut browser, text).await;
        assert_eq!((&error["code"], &error["requestType"]), (&json!("BAD_INPUT"), &json!("")), "{text:?}");
    }
    lives(&mut browser).await;
}

#[tokio::test]
async fn an_unknown_type_gets_an_error_frame() {
    let (_data, _corecast, mut browser) = one_browser().await;
    let error = refused(&mut browser, r#"{"type":"teleport","payload":{}}"#).await;
    assert_eq!((&error["code"], &error["requestType"]), (&json!("UNKNOWN_TYPE"), &json!("teleport")));
    lives(&mut browser).await;
}

#[tokio::test]
async fn fields_outside_their_limits_are_named() {
    let (_data, _corecast, mut browser) = one_browser().await;
    let send = |messages: Value| json!({"type": "clientMessages", "payload": {"roomId": GENERAL, "messages": messages}});
    let many = |count: usize| send(Value::Array(vec![json!({"content": "x"}); count]));
    for (frame, field) in [
        (json!({"type": "clientMessages", "payload": {"messages": [{"content": "x"}]}}), "roomId"),
        (
            json!({"type": "clientMessages", "payload": {"roomId": 7, "messages": [{"content": "x"}]}}),
            "roomId",
        ),
        (json!({"type": "clientMessages", "payload": {"roomId": GENERAL}}), "messages"),
        (many(0), "messages"),
        (many(65), "messages"),
        (send(json!([{"content": ""}])), "content"),
        (send(json!([{"content": "x".repeat(4097)}])), "content"),
        (send(json!([{"content": 7}])), "content"),
        (send(json!([{"content": "x", "clientMessageId": "k".repeat(65)}])), "clientMessageId"),
        (json!({"type": "clientCreateRoom", "payload": {}}), "roomName"),
    ] {
        let error = refused(&mut browser, &frame.to_string()).await;
        assert_eq!(error["code"], "BAD_INPUT", "{error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(field)), "{error} names {field}");
    }
    lives(&mut browser).await;
}

#[tokio::test]
async fn each_key_of_a_refused_frame_gets_its_error() {
    let (_data, _corecast, mut browser) = one_browser().await;
    let messages = json!([
        {"content": "fits", "clientMessageId": "a"},
        {"content": "x".repeat(4097), "clientMessageId": "b"},
    ]);
    browser.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
    for key in ["a", "b"] {
        let error = browser.frame("error").await;
        assert_eq!((&error["code"], &error["clientMessageId"]), (&json!("BAD_INPUT"), &json!(key)));
    }
    lives(&mut browser).await;
}

#[tokio::test]
async fn a_frame_is_stored_all_or_none() {
    let (_data, _corecast, mut browser) = one_browser().await;
    let messages = json!([{"content": "good"}, {"content": "x".repeat(4097)}, {"content": "good too"}]);
    browser.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
    browser.frame("error").await;
    browser.say(GENERAL, "the first that is stored").await;
    let message = browser.message(GENERAL).await;
    assert_eq!((&message["seq"], &message["content"]), (&json!(1), &json!("the first that is stored")));
}

/// A frame of exactly this many bytes that is refused only if it is too big.
fn frame_of(bytes: usize) -> String {
    let frame =
        |padding: usize| format!(r#"{{"type":"nothing","payload":{{"padding":"{}"}}}}"#, "x".repeat(padding));
    frame(bytes - frame(0).len())
}

#[tokio::test]
async fn a_frame_over_64_kib_closes_with_1009() {
    let (_data, corecast, mut browser) = one_browser().await;
    for bytes in [(64 << 10) - 1, 64 << 10] {
        assert_eq!(
            refused(&mut browser, &frame_of(bytes)).await["code"],
            "UNKNOWN_TYPE",
            "{bytes} bytes fit"
        );
    }
    browser.send_text(frame_of((64 << 10) + 1)).await;
    assert_eq!(browser.closed().await, Some(1009));
    let bob = corecast.account("bob").await;
    let mut other = Browser::knock(corecast.http(), &bob.sid).open().await;
    other.hello().await;
    lives(&mut other).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_closes_with_1007_and_binary_with_1003() {
    let (_data, corecast, mut browser) = one_browser().await;
    browser.send_raw_text(b"{\"type\":\"\xff\xfe\"}".to_vec()).await;
    assert_eq!(browser.closed().await, Some(1007));
    let bob = corecast.account("bob").await;
    let mut other = Browser::knock(corecast.http(), &bob.sid).open().await;
    other.hello().await;
    other.send_binary(b"{}".to_vec()).await;
    assert_eq!(other.closed().await, Some(1003));
}

#[tokio::test]
async fn repeated_abuse_closes_with_4429() {
    let data = folder();
    let corecast = Setup::new(data.path()).set("gateway.limits.refused_frames", 10).start().await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    for _ in 0..10 {
        assert_eq!(refused(&mut browser, "nonsense").await["code"], "BAD_JSON");
    }
    browser.send_text("once too often").await;
    assert_eq!(browser.closed().await, Some(4429));
}

#[tokio::test]
async fn what_is_no_http_gets_400_and_what_says_nothing_is_dropped() {
    let data = folder();
    let corecast = Setup::new(data.path()).set("gateway.limits.handshake_ms", 300).start().await;
    let mut nonsense = TcpStream::connect(corecast.http()).await.expect("it listens");
    nonsense.write_all(b"\x16\x03\x01\x00\x00nonsense").await.expect("it reads");
    let mut answer = Vec::new();
    in_time("an answer and the end", nonsense.read_to_end(&mut answer)).await.expect("a clean end");
    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
    let mut silent = TcpStream::connect(corecast.http()).await.expect("it listens");
    silent.write_all(b"GET /api/ws HTTP/1.1\r\nHost:").await.expect("it reads");
    let mut answer = Vec::new();
    // Closed or reset: it must not wait for ever.
    let _ = in_time("the end of a handshake that never came", silent.read_to_end(&mut answer)).await;
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_removed_and_one_that_does_stays() {
    let data = folder();
    let setup = Setup::new(data.path()).set("gateway.limits.ping_ms", 200).set("gateway.limits.dead_ms", 600);
    let corecast = setup.start().await;
    let ann = corecast.account("ann").await;
    let mut alive = Browser::knock(corecast.http(), &ann.sid).open().await;
    alive.hello().await;

    let mut dead = TcpStream::connect(corecast.http()).await.expect("it listens");
    let request = format!(
        "GET /api/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nCookie: sid={}\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        corecast.http(),
        ann.sid
    );
    dead.write_all(request.as_bytes()).await.expect("it reads");
    let mut seen = Vec::new();
    let _ = in_time("a silent peer is dropped", dead.read_to_end(&mut seen)).await;
    assert!(seen.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&seen));
    assert!(seen.windows(2).any(|pair| pair == [0x89, 0x00]), "it was asked by a ping first");

    tokio::time::sleep(Duration::from_millis(700)).await;
    lives(&mut alive).await;
    eventually("one connection is left", || async {
        let metrics = http::get(corecast.metrics(), "/metrics").await.expect("metrics").text;
        metrics.lines().any(|line| line.starts_with("corecast_gateway_connections") && line.ends_with(" 1"))
    })
    .await;
}
