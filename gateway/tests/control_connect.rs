//! Setup: a gateway and a logic node in the test.
//! Claim: a connection is refused for the right reason, and an outage logs nobody out.
//! Why: 1008 sends the browser to the login page, 1013 makes it come back.

mod control_support;

use std::sync::atomic::Ordering;

use control_support::{ANN, NOBODY, ROOM, World, eventually};

#[tokio::test]
async fn who_has_no_session_is_closed_with_1008() {
    let world = World::start().await;
    assert_eq!(world.connect(None, false).await.close_code().await, 1008);
    assert_eq!(world.connect(Some(NOBODY), false).await.close_code().await, 1008);
}

#[tokio::test]
async fn logic_away_is_1013_and_not_1008() {
    let world = World::without_logic().await;
    assert_eq!(world.connect(Some(ANN), false).await.close_code().await, 1013);
    assert_eq!(world.connect(Some(ANN), true).await.close_code().await, 1013);
    // Without a cookie there is nothing to ask.
    assert_eq!(world.connect(None, false).await.close_code().await, 1008);
}

#[tokio::test]
async fn hello_names_the_user_and_the_default_room() {
    let world = World::start().await;
    let mut browser = world.connect(Some(ANN), false).await;
    let hello = browser.next_of("hello").await;
    assert_eq!(hello["me"]["username"], "ann");
    assert_eq!(hello["rooms"][0]["id"], ROOM);
}

#[tokio::test]
async fn without_resume_in_time_hello_comes_all_the_same() {
    let world = World::start_with(|config| config.limits.resume_ms = 20).await;
    let mut browser = world.connect(Some(ANN), true).await;
    browser.next_of("hello").await;
    browser.send(r#"{"type":"resume","payload":{"rooms":[]}}"#).await;
    let error = browser.next_of("error").await;
    assert_eq!((&error["code"], &error["requestType"]), (&"CONFLICT".into(), &"resume".into()));
}

#[tokio::test]
async fn another_first_frame_than_resume_is_answered_after_hello() {
    let world = World::start().await;
    let mut browser = world.connect(Some(ANN), true).await;
    browser.say(ROOM, "early", Some("k1")).await;
    assert_eq!(browser.next_frame().await["type"], "hello");
    assert_eq!(browser.next_of("ack").await["messages"][0]["clientMessageId"], "k1");
}

#[tokio::test]
async fn a_session_that_ended_elsewhere_is_closed_at_the_next_check() {
    let world = World::start_with(|config| config.limits.session_check_ms = 1_000).await;
    let (mut old, mut v1) = (world.old_client().await, world.v1_client().await);
    world.logic.revoke(ANN);
    assert_eq!(old.close_code().await, 1008);
    assert_eq!(v1.close_code().await, 4501);
}

#[tokio::test]
async fn an_outage_closes_nobody_and_readiness_tells_it() {
    let mut world = World::start_with(|config| config.limits.session_check_ms = 1_000).await;
    let mut browser = world.old_client().await;
    world.stop_logic().await;
    eventually("not ready", async || {
        let url = format!("http://{}/readyz", world.metrics);
        reqwest::get(url).await.is_ok_and(|response| response.status().as_u16() == 503)
    })
    .await;
    browser.send("{").await;
    assert_eq!(browser.next_of("error").await["code"], "BAD_JSON");
}

#[tokio::test]
async fn a_drain_tells_and_closes_with_1001() {
    let mut world = World::start().await;
    let (mut old, mut v1) = (world.old_client().await, world.v1_client().await);
    let ended = world.end();
    let clients = async {
        let notice = v1.next_of("draining").await;
        assert!(notice["reconnectMaxMs"].as_u64() > notice["reconnectMinMs"].as_u64());
        assert_eq!((old.close_code().await, v1.close_code().await), (1001, 1001));
    };
    let (ended, ()) = tokio::join!(ended, clients);
    assert!(ended.is_ok(), "{ended:?}");
}

#[tokio::test]
async fn a_send_in_flight_is_acked_before_the_drain_closes() {
    let mut world = World::start_with(|config| config.limits.drain_ms = 5_000).await;
    let logic = world.logic.clone();
    let mut v1 = world.v1_client().await;
    logic.down.store(true, Ordering::SeqCst);
    v1.say(ROOM, "last words", Some("k1")).await;
    eventually("the send is in flight", async || logic.sends.load(Ordering::SeqCst) > 0).await;
    let ended = world.end();
    let client = async {
        tokio::task::yield_now().await;
        logic.down.store(false, Ordering::SeqCst);
        assert_eq!(v1.next_of("ack").await["messages"][0]["clientMessageId"], "k1");
        assert_eq!(v1.close_code().await, 1001);
    };
    let (ended, ()) = tokio::join!(ended, client);
    assert!(ended.is_ok(), "{ended:?}");
}
