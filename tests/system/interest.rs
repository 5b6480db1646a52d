//! Setup: two gateways and no fast path; where it says so, no tail check either. Claim: a
//! gateway gets no pushes of rooms that have members only on the other one, and whoever joins
//! there, even while others talk, gets everything; a gateway that wants too many rooms gets
//! everything; a default room that the configuration gained reaches who was connected before.
//! Why it matters: leaving out is safe only as long as nobody notices.

use corecast_backends::bus::faults::BusFaults;
use corecast_checker::Recorder;
use corecast_gateway::config::Config as GatewayConfig;
use corecast_logic::config::{CreateKind, DefaultRoom};
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::{Account, Browser, eventually};

const NUMBERED: &str = r#"corecast_gateway_pushes_total{kind="numbered"}"#;

/// Public rooms, a job, and gateways changed like this.
async fn by_the_log_alone(changes: [fn(&mut GatewayConfig); 2]) -> Cluster {
    let mut cluster = Cluster::new(BusFaults { drop_all: true, ..BusFaults::default() }).await;
    cluster.start_logic_with(|config| config.rooms.create_kind = CreateKind::Public).await;
    for change in changes {
        let gateway = cluster.start_gateway(change).await;
        cluster.ready(gateway).await;
    }
    cluster.start_job(|_| {}).await;
    cluster
}

fn without_tail_check(config: &mut GatewayConfig) {
    config.limits.tail_check_ms = 60_000;
}

/// Job knows that this gateway wants so many rooms; −1: all.
async fn wants(cluster: &Cluster, gateway: usize, rooms: i32) {
    let name = format!("corecast_job_interest_rooms{{gateway=\"gateway-{}\"}}", gateway + 1);
    let what = format!("gateway {gateway} wants {rooms} rooms");
    eventually(&what, || async { cluster.job_metric(&name).await == Some(f64::from(rooms)) }).await;
}

async fn connect(cluster: &Cluster, gateway: usize, account: &Account, recorder: &Recorder) -> Browser {
    let knock = Browser::knock(cluster.http(gateway), &account.sid).v1();
    let mut browser = knock.recorded(recorder, &account.username).open().await;
    browser.hello().await;
    browser
}

/// Rooms with their creator as the only member.
async fn create(browser: &mut Browser, count: usize) -> Vec<String> {
    let mut rooms = Vec::new();
    for number in 0..count {
        browser.send("clientCreateRoom", json!({"roomName": format!("room {number}")})).await;
        let created = browser.frame("serverCreateRoom").await;
        rooms.push(created["roomId"].as_str().expect("an id").to_owned());
    }
    rooms
}

async fn say(browser: &mut Browser, rooms: &[String], keys: std::ops::Range<usize>) {
    for key in keys {
        browser.say_keyed(&rooms[key % rooms.len()], &format!("k{key}"), &format!("message {key}")).await;
        browser.frame("ack").await;
    }
}

async fn join(browser: &mut Browser, room: &str) {
    browser.send("join", json!({ "roomId": room })).await;
    browser.frame_where("joined", |joined| joined["id"] == room).await;
}

async fn caught_up(recorder: &Recorder, names: &[&str], rooms: &[String]) {
    for room in rooms {
        for name in names {
            let what = format!("{name} reaches the end of {room}");
            eventually(&what, || async { recorder.has_reached(name, room, recorder.head(room)) }).await;
        }
    }
}

async fn complete(recorder: &Recorder, names: &[&str], rooms: &[String]) {
    caught_up(recorder, names, rooms).await;
    recorder.judge().expect_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_one_gateway_cost_the_other_nothing_and_who_joins_there_gets_everything() {
    let cluster = by_the_log_alone([without_tail_check, without_tail_check]).await;
    let recorder = Recorder::new();
    let (ann, bob) = (cluster.account("ann").await, cluster.account("bob").await);
    let mut of_ann = connect(&cluster, 0, &ann, &recorder).await;
    let rooms = create(&mut of_ann, 4).await;
    wants(&cluster, 0, 5).await;
    wants(&cluster, 1, 1).await;
    // The creations came here, too.
    eventually("the other gateway knows the rooms", || async {
        cluster.try_gateway_metric(1, NUMBERED).await == Some(4.0)
    })
    .await;
    say(&mut of_ann, &rooms, 0..40).await;
    complete(&recorder, &["ann"], &rooms).await;
    assert_eq!(cluster.gateway_metric(1, NUMBERED).await, 4.0, "nothing of rooms without members");
    let unwanted = r#"corecast_job_unwanted_pushes_total{gateway="gateway-2"}"#;
    assert_eq!(cluster.job_metric(unwanted).await, Some(40.0));

    let mut of_bob = connect(&cluster, 1, &bob, &recorder).await;
    let talking = say(&mut of_ann, &rooms, 40..400);
    let joining = async {
        for room in &rooms {
            join(&mut of_bob, room).await;
        }
    };
    futures::future::join(talking, joining).await;
    complete(&recorder, &["ann", "bob"], &rooms).await;
    wants(&cluster, 1, 5).await;
    drop((of_ann, of_bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateway_with_too_many_rooms_gets_everything() {
    let few = |config: &mut GatewayConfig| {
        without_tail_check(config);
        config.limits.interest_rooms = 2;
    };
    let cluster = by_the_log_alone([without_tail_check, few]).await;
    let recorder = Recorder::new();
    let (ann, bob) = (cluster.account("ann").await, cluster.account("bob").await);
    let mut of_ann = connect(&cluster, 0, &ann, &recorder).await;
    let mut of_bob = connect(&cluster, 1, &bob, &recorder).await;
    let rooms = create(&mut of_ann, 3).await;
    join(&mut of_bob, &rooms[0]).await;
    wants(&cluster, 1, 2).await;
    join(&mut of_bob, &rooms[1]).await;
    wants(&cluster, 1, -1).await;
    assert_eq!(cluster.gateway_metric(1, "corecast_gateway_interest_restarts_total").await, 1.0);
    let before = cluster.gateway_metric(1, NUMBERED).await;
    say(&mut of_ann, &rooms, 0..30).await;
    eventually("the rooms without members came, too", || async {
        cluster.gateway_metric(1, NUMBERED).await >= before + 30.0
    })
    .await;
    caught_up(&recorder, &["ann"], &rooms).await;
    complete(&recorder, &["bob"], &rooms[..2]).await;
    drop((of_ann, of_bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn default_room_that_the_configuration_gained_reaches_who_was_connected_before() {
    let mut cluster = by_the_log_alone([|_| {}, |_| {}]).await;
    let recorder = Recorder::new();
    let (ann, bob) = (cluster.account("ann").await, cluster.account("bob").await);
    let mut of_ann = connect(&cluster, 1, &ann, &recorder).await;
    wants(&cluster, 1, 1).await;
    cluster.stop_logic().await;
    let gained = DefaultRoom { id: "room-002".into(), name: "Gained".into() };
    cluster.start_logic_with(|config| config.rooms.defaults.push(gained)).await;
    for gateway in [0, 1] {
        wants(&cluster, gateway, 2).await;
    }
    let mut of_bob = connect(&cluster, 0, &bob, &recorder).await;
    of_bob.say("room-002", "is anybody here?").await;
    assert_eq!(of_ann.message("room-002").await["content"], "is anybody here?");
    drop((of_ann, of_bob));
    cluster.end().await;
}
