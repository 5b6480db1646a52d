//! Setup: a gateway on real sockets that is told to end while clients send without a pause.
//! Claim: the drain ends in its time; everybody is closed with 1001; what was acknowledged
//! is stored, and what was accepted is acknowledged.
//! Why it matters: somebody always talks. A drain that waits for silence never ends, and one
//! that does not wait loses what was promised.

mod control_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use control_support::{ANN, ROOM, World, within};
use futures::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_stop_sending_do_not_hold_a_drain_up() {
    const DRAIN_MS: u64 = 4_000;
    let mut world = World::start_with(|config| config.limits.drain_ms = DRAIN_MS).await;
    let mut clients = Vec::new();
    for client in 0..3 {
        let mut browser = world.connect(Some(ANN), true).await;
        browser.send(r#"{"type":"resume","payload":{"rooms":[]}}"#).await;
        assert_eq!(browser.next_frame().await["type"], "hello");
        let (mut out, mut incoming) = browser.split();
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let talking = tokio::spawn(async move {
            loop {
                let key = counter.fetch_add(1, Ordering::Relaxed);
                let text = format!(
                    r#"{{"type":"clientMessages","payload":{{"roomId":"{ROOM}","messages":[{{"content":"m","clientMessageId":"{client}-{key}"}}]}}}}"#
                );
                if out.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
        });
        let listening = tokio::spawn(async move {
            let (mut acked, mut told) = (Vec::new(), false);
            loop {
                match incoming.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let frame: serde_json::Value = serde_json::from_str(&text).expect("json");
                        told |= frame["type"] == "draining";
                        if frame["type"] == "ack" {
                            let key = &frame["payload"]["messages"][0]["clientMessageId"];
                            acked.push(key.as_str().expect("a key").to_owned());
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return (acked, told, frame.map(|frame| u16::from(frame.code)));
                    }
                    Some(Ok(_)) => {}
                    other => panic!("ended without a close: {other:?}"),
                }
            }
        });
        clients.push((sent, talking, listening));
    }
    let logic = world.logic.clone();
    control_support::eventually("they talk", async || logic.head(ROOM) > 100).await;

    let begun = Instant::now();
    world.end().await.expect("it ends well");
    let took = begun.elapsed();
    // Before, it took the whole time and cut off who was left.
    assert!(took < Duration::from_millis(DRAIN_MS), "{took:?}");
    let mut all_acked = 0;
    for (client, (sent, talking, listening)) in clients.into_iter().enumerate() {
        let (acked, told, code) = within(listening).await.expect("no panic");
        talking.abort();
        assert!(told, "client {client} was told");
        assert_eq!(code, Some(1001), "client {client}");
        let expected: Vec<String> = (0..acked.len()).map(|key| format!("{client}-{key}")).collect();
        assert_eq!(acked, expected, "client {client}: each once, in order");
        assert!(acked.iter().all(|key| logic.has_key(ROOM, key)), "what is acknowledged is stored");
        assert!(sent.load(Ordering::Relaxed) >= acked.len() as u64);
        all_acked += acked.len() as u64;
    }
    assert_eq!(logic.head(ROOM), all_acked, "what was accepted before the close is acknowledged");
}
