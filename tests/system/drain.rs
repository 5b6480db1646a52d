//! Setup: SIGTERM while people talk. Claim: sends in flight finish and are acked, clients
//! are told and closed with 1001, the process ends well and in time; a second signal ends it
//! at once. Why it matters: a deployment is a drain a minute.

use std::time::{Duration, Instant};

use corecast_checker::Recorder;

use crate::support::{Browser, Corecast, GENERAL, Seen, Setup, folder, in_time};

#[tokio::test]
async fn sends_in_flight_are_acked_or_not_stored_and_clients_are_told() {
    let data = folder();
    let recorder = Recorder::new();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let mut new = Browser::knock(corecast.http(), &ann.sid).v1().recorded(&recorder, "ann").open().await;
    let mut old = Browser::knock(corecast.http(), &bob.sid).open().await;
    new.hello().await;
    old.hello().await;
    for index in 0..40 {
        new.say_keyed(GENERAL, &format!("k{index}"), &format!("message {index}")).await;
    }
    // The first ack says that the others are under way.
    new.frame("ack").await;
    let start = Instant::now();
    corecast.terminate();

    let mut told = false;
    let end = loop {
        match new.next().await {
            Seen::Text(text) => {
                let frame: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                if frame["type"] == "draining" {
                    let window =
                        ["reconnectMinMs", "reconnectMaxMs"].map(|key| frame["payload"][key].as_u64());
                    assert!(window[0] <= window[1] && window[1].is_some(), "{frame}");
                    told = true;
                }
            }
            end => break end,
        }
    };
    assert!(told, "a client with corecast.v1 gets a notice before the close");
    assert_eq!(end, Seen::Closed(Some(1001)));
    assert_eq!(old.closed().await, Some(1001));
    let cursors = new.cursors();
    drop(new);
    assert!(corecast.ended().await.success());
    assert!(start.elapsed() < Duration::from_secs(8), "drained within its 5 s: {:?}", start.elapsed());

    let acked = recorder.acknowledged_count();
    assert!(acked >= 1);
    let corecast = Corecast::up(data.path()).await;
    let knock = Browser::knock(corecast.http(), &ann.sid).resume(cursors).recorded(&recorder, "ann");
    let mut again = knock.open().await;
    again.hello().await;
    let verdict = recorder.judge();
    println!("drained: {verdict}");
    verdict.expect_clean();
    assert!(recorder.head(GENERAL) >= acked);
}

#[tokio::test]
async fn nobody_new_is_accepted_while_it_drains() {
    let data = folder();
    let corecast = Setup::new(data.path()).set("gateway.limits.drain_ms", 3_000).start().await;
    let ann = corecast.account("ann").await;
    let mut held = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    held.hello().await;
    let http = corecast.http();
    corecast.terminate();
    held.frame("draining").await;
    let late = async {
        // A connection that was accepted just before the notice is closed, too.
        match Browser::knock(http, &ann.sid).try_open().await {
            Ok(mut browser) => matches!(browser.closed().await, Some(1001 | 1012 | 1013) | None),
            Err(_) => true,
        }
    };
    assert!(in_time("a late connection is refused or closed", late).await);
    assert!(corecast.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let data = folder();
    let corecast = Setup::new(data.path()).set("gateway.limits.drain_ms", 600_000).start().await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    corecast.terminate();
    browser.frame("draining").await;
    let start = Instant::now();
    corecast.terminate();
    let status = corecast.ended().await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!status.success(), "it says that it did not drain: {status}");
}

#[tokio::test]
async fn a_restart_after_a_drain_continues_where_it_was() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).open().await;
    browser.hello().await;
    browser.say(GENERAL, "before").await;
    browser.message(GENERAL).await;
    corecast.terminate();
    assert!(corecast.ended().await.success());
    let corecast = Corecast::up(data.path()).await;
    let mut again = Browser::knock(corecast.http(), &ann.sid).open().await;
    let hello = again.hello().await;
    assert_eq!(hello["rooms"][0]["messages"][0]["content"], "before", "the session is still valid, too");
    again.say(GENERAL, "after").await;
    assert_eq!(again.message(GENERAL).await["seq"], 2);
}
