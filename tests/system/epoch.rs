//! Setup: rooms with messages, then `store new-epoch` while logic is stopped. Claim: clients
//! that hold the old line are told: `cut` where they speak `corecast.v1`, 1012 where they do
//! not; numbering goes on. Why it matters: after a restore from a backup, numbers that
//! clients have seen will be given again.

use corecast_backends::bus::faults::BusFaults;
use corecast_backends::store::Store;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::{Browser, Corecast, GENERAL, folder, process};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connected_clients_are_cut_or_sent_away_to_reconnect() {
    let mut cluster = Cluster::up(BusFaults::default()).await;
    cluster.ready(0).await;
    let ann = cluster.account("ann").await;
    let mut new = Browser::knock(cluster.http(0), &ann.sid).v1().open().await;
    let mut old = Browser::knock(cluster.http(0), &ann.sid).open().await;
    new.hello().await;
    old.hello().await;
    for index in 1..=3 {
        new.say(GENERAL, &format!("message {index}")).await;
        new.message(GENERAL).await;
        old.message(GENERAL).await;
    }
    let (_, before, _) = new.cursors()[0];

    cluster.stop_logic().await;
    cluster.store().new_epoch(before + 1_000).await.expect("logic is stopped");
    cluster.start_logic().await;

    let cut = new.frame_where("cut", |payload| payload["roomId"] == GENERAL).await;
    assert!(cut["epoch"].as_u64().is_some_and(|epoch| epoch >= before + 1_000), "{cut}");
    assert_eq!(cut["lastSeq"], 3);
    assert_eq!(
        cut["messages"].as_array().and_then(|list| list.last()).map(|last| &last["seq"]),
        Some(&json!(3))
    );
    assert_eq!(old.closed().await, Some(1012));

    let mut again = Browser::knock(cluster.http(0), &ann.sid).open().await;
    again.hello().await;
    new.say(GENERAL, "numbering goes on").await;
    assert_eq!(new.message(GENERAL).await["seq"], 4);
    assert_eq!(again.message(GENERAL).await["seq"], 4);
    drop((new, old, again));
    cluster.end().await;
}

#[tokio::test]
async fn clients_that_were_away_are_cut_when_they_come_back() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    for index in 1..=3 {
        browser.say(GENERAL, &format!("message {index}")).await;
        browser.message(GENERAL).await;
    }
    let cursors = browser.cursors();
    let folder = data.path().to_str().expect("a plain name").to_owned();
    let (status, _, output) = process::run(&["store", "new-epoch", "--data", &folder]);
    assert!(!status.success(), "logic still runs: {output}");
    corecast.terminate();
    assert!(corecast.ended().await.success());
    let (status, _, output) = process::run(&["store", "new-epoch", "--data", &folder]);
    assert!(status.success(), "{output}");

    let corecast = Corecast::up(data.path()).await;
    let mut again = Browser::knock(corecast.http(), &ann.sid).resume(cursors.clone()).open().await;
    let hello = again.hello().await;
    let room =
        hello["rooms"].as_array().expect("rooms").iter().find(|room| room["id"] == GENERAL).expect("it");
    assert_eq!(room["cut"], true, "{room}");
    assert!(room["epoch"].as_u64() > Some(cursors[0].1), "{room}");
    assert_eq!(
        (&room["lastSeq"], room["messages"].as_array().map(Vec::len)),
        (&json!(3), Some(3)),
        "rows stay"
    );
    again.say(GENERAL, "numbering goes on").await;
    assert_eq!(again.message(GENERAL).await["seq"], 4);
    let mut old = Browser::knock(corecast.http(), &ann.sid).open().await;
    assert_eq!(old.everything_up_to(GENERAL, 4).await.len(), 4);
}

#[tokio::test]
async fn rooms_created_after_a_new_epoch_still_appear_everywhere() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    corecast.terminate();
    assert!(corecast.ended().await.success());
    let folder = data.path().to_str().expect("a plain name").to_owned();
    assert!(process::run(&["store", "new-epoch", "--data", &folder]).0.success());
    let corecast = Corecast::up(data.path()).await;
    let mut one = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    let mut two = Browser::knock(corecast.http(), &ann.sid).open().await;
    one.hello().await;
    two.hello().await;
    one.send("clientCreateRoom", json!({"roomName": "after"})).await;
    let room = two.frame("serverCreateRoom").await["roomId"].as_str().expect("id").to_owned();
    two.say(&room, "first").await;
    assert_eq!(one.message(&room).await["seq"], 1);
}
