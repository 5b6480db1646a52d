//! Setup: parts of the cluster end, by SIGKILL or in order. Claim: browsers come back by
//! nginx and miss nothing; what was acknowledged is there after everything was down. Why it
//! matters: machines die, and releases are rolled out.

use corecast_checker::Recorder;

use crate::stand::{Stand, soon};
use crate::support::{Account, Browser, GENERAL, Seen, eventually, http, in_time};

/// A browser that tells the checker what it sees.
async fn connect(stand: &Stand, recorder: &Recorder, account: &Account, name: &str) -> Browser {
    let knock = Browser::knock(stand.nginx(), &account.sid).v1().recorded(recorder, name);
    let mut browser = knock.open().await;
    browser.hello().await;
    browser
}

/// Reads until the message comes (true) or the connection ends (false).
async fn gets(browser: &mut Browser, content: &str) -> bool {
    loop {
        match browser.next().await {
            Seen::Closed(_) => return false,
            Seen::Text(text) if text.contains("serverMessages") && text.contains(content) => return true,
            _ => {}
        }
    }
}

#[tokio::test]
async fn browsers_of_a_killed_gateway_come_back_by_the_other_and_miss_nothing() {
    let Some(stand) = Stand::ready().await else { return };
    let (recorder, account) = (Recorder::new(), stand.account("outage-ann").await);
    let names = ["b1", "b2", "b3", "b4"];
    let mut browsers = Vec::new();
    for name in names {
        browsers.push(connect(&stand, &recorder, &account, name).await);
    }
    for gateway in ["gateway-1", "gateway-2"] {
        soon("each gateway has a browser", || async { stand.connections(gateway).await >= 1 }).await;
    }

    stand.run(&["kill", "gateway-1"]);
    // Two at once, so that nginx tries the dead one too.
    let mut speaker = connect(&stand, &recorder, &account, "speaker").await;
    let _listener = connect(&stand, &recorder, &account, "listener").await;
    speaker.say_keyed(GENERAL, "after-the-kill", "said after the kill").await;
    speaker.frame("ack").await;
    let mut lost = 0;
    for (name, browser) in names.iter().zip(&mut browsers) {
        if in_time("a message or the end", gets(browser, "said after the kill")).await {
            continue;
        }
        lost += 1;
        let cursors = browser.cursors();
        let knock = Browser::knock(stand.nginx(), &account.sid).resume(cursors).recorded(&recorder, name);
        *browser = knock.open().await;
        browser.hello().await;
    }
    assert!((1..names.len()).contains(&lost), "{lost} browsers were on the killed gateway");
    let head = recorder.head(GENERAL);
    for name in names {
        eventually("everybody has everything", || async { recorder.has_reached(name, GENERAL, head) }).await;
    }

    stand.run(&["restart", "gateway-1"]);
    let mut more = Vec::new();
    while stand.connections("gateway-1").await == 0 {
        assert!(more.len() < 100, "nginx takes the restarted gateway back");
        more.push(connect(&stand, &recorder, &account, &format!("late-{}", more.len())).await);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    speaker.say_keyed(GENERAL, "after-the-restart", "said after the restart").await;
    for browser in browsers.iter_mut().chain(&mut more) {
        assert!(in_time("the message", gets(browser, "said after the restart")).await);
    }
    recorder.judge().expect_clean();
}

#[tokio::test]
async fn a_killed_logic_node_and_a_killed_job_are_replaced_by_the_others() {
    let Some(stand) = Stand::ready().await else { return };
    let (recorder, account) = (Recorder::new(), stand.account("outage-ben").await);
    let mut browser = connect(&stand, &recorder, &account, "ben").await;
    for (round, node) in ["logic-1", "job-1", "logic-2", "job-2"].into_iter().enumerate() {
        stand.run(&["kill", node]);
        for index in 0..10 {
            let (key, content) = (format!("{round}-{index}"), format!("{node} is dead, {index}"));
            loop {
                browser.say_keyed(GENERAL, &key, &content).await;
                if acknowledged(&mut browser).await {
                    break;
                }
            }
        }
        stand.run(&["restart", node]);
    }
    let head = recorder.head(GENERAL);
    eventually("everything is there", || async { recorder.has_reached("ben", GENERAL, head) }).await;
    let verdict = recorder.judge();
    verdict.expect_clean();
    assert_eq!(verdict.acknowledged, 40, "{verdict}");
}

/// Waits for the ack (true), or for a refusal that may be tried again, and the pause it names.
async fn acknowledged(browser: &mut Browser) -> bool {
    loop {
        let Seen::Text(text) = browser.next().await else { panic!("the gateway lives") };
        let frame: serde_json::Value = serde_json::from_str(&text).expect("frames are JSON");
        match frame["type"].as_str() {
            Some("ack") => return true,
            Some("error") => {
                let pause = frame["payload"]["retryAfterMs"].as_u64();
                let pause = pause.unwrap_or_else(|| panic!("refused for good: {text}"));
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                return false;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn down_drains_the_browsers_and_the_next_up_has_everything() {
    let Some(stand) = Stand::ready().await else { return };
    let (recorder, account) = (Recorder::new(), stand.account("outage-cid").await);
    let mut browser = connect(&stand, &recorder, &account, "cid").await;
    browser.say_keyed(GENERAL, "before", "said before the end").await;
    browser.frame("ack").await;
    browser.message(GENERAL).await;

    stand.run(&["down"]);
    browser.frame("draining").await;
    assert_eq!(browser.closed().await, Some(1001));
    assert!(http::get(stand.nginx(), "/").await.is_err(), "nothing listens any more");

    stand.run(&["up"]);
    let body = serde_json::json!({"email": account.email, "password": account.password});
    assert_eq!(http::post(stand.nginx(), "/api/login", &body).await.status, 204);
    // The old session lives on too.
    let cursors = browser.cursors();
    let knock = Browser::knock(stand.nginx(), &account.sid).resume(cursors).recorded(&recorder, "cid");
    let mut browser = knock.open().await;
    browser.hello().await;
    browser.say_keyed(GENERAL, "after", "said after the start").await;
    browser.frame("ack").await;
    let head = recorder.head(GENERAL);
    eventually("the line goes on", || async { recorder.has_reached("cid", GENERAL, head) }).await;
    recorder.judge().expect_clean();
}
