//! Setup: tiers in one process, one of them away. Claim: DESIGN §3.11: with logic down
//! connections stay, sends get a retryable error, and nobody is sent to the login page; the
//! tiers start in any order. Why it matters: an outage must not become a logout.

use corecast_backends::bus::faults::BusFaults;
use serde_json::json;

use crate::support::cluster::Cluster;
use crate::support::http::{self, post};
use crate::support::{Browser, GENERAL, in_time};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_logic_away_an_upgrade_gets_101_and_then_1013() {
    let mut cluster = Cluster::up(BusFaults::default()).await;
    cluster.ready(0).await;
    let ann = cluster.account("ann").await;
    cluster.stop_logic().await;
    for v1 in [false, true] {
        let knock = Browser::knock(cluster.http(0), &ann.sid);
        let mut browser = if v1 { knock.v1() } else { knock }.open().await;
        assert_eq!(browser.closed().await, Some(1013), "corecast.v1: {v1}");
    }
    let mut stranger = Browser::stranger(cluster.http(0)).open().await;
    assert_eq!(stranger.closed().await, Some(1008), "without a cookie there is nothing to ask");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_logic_away_connections_stay_and_a_send_can_be_repeated() {
    let mut cluster = Cluster::up(BusFaults::default()).await;
    cluster.ready(0).await;
    let ann = cluster.account("ann").await;
    let mut new = Browser::knock(cluster.http(0), &ann.sid).v1().open().await;
    let mut old = Browser::knock(cluster.http(0), &ann.sid).open().await;
    new.hello().await;
    old.hello().await;
    cluster.stop_logic().await;
    new.say_keyed(GENERAL, "k", "sent while logic is away").await;
    let error = new.frame("error").await;
    let expected = (json!("UNAVAILABLE"), json!("clientMessages"), json!(GENERAL), json!("k"));
    let fields = ["code", "requestType", "roomId", "clientMessageId"].map(|name| error[name].clone());
    assert_eq!((fields[0].clone(), fields[1].clone(), fields[2].clone(), fields[3].clone()), expected);
    assert!(error["retryAfterMs"].as_u64().is_some_and(|pause| pause > 0), "{error}");
    old.say(GENERAL, "an old client is told, too").await;
    assert_eq!(old.frame("error").await["code"], "UNAVAILABLE");

    cluster.start_logic().await;
    let acked = async {
        loop {
            new.say_keyed(GENERAL, "k", "sent while logic is away").await;
            tokio::select! {
                ack = new.frame("ack") => return ack,
                () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
            }
        }
    };
    let ack = in_time("the same connection can send again", acked).await;
    assert_eq!(ack["messages"][0]["seq"], 1);
    assert_eq!(old.message(GENERAL).await["content"], "sent while logic is away");
    drop((new, old));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_logic_away_accounts_answer_503_and_when_to_come_back() {
    let mut cluster = Cluster::up(BusFaults::default()).await;
    cluster.ready(0).await;
    let ann = cluster.account("ann").await;
    cluster.stop_logic().await;
    let login = json!({"email": ann.email, "password": ann.password});
    let register = json!({"username": "bob", "email": "bob@example.org", "password": "secret"});
    for (path, body) in [("/api/login", &login), ("/api/register", &register)] {
        let answer = post(cluster.http(0), path, body).await;
        answer.expect_failure(503, "UNAVAILABLE");
        let seconds = answer.header("retry-after").and_then(|value| value.parse::<u64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
    }
    let health = http::get(cluster.http(0), "/healthz").await.expect("the gateway lives");
    assert_eq!(health.status, 200);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_start_in_any_order() {
    let mut cluster = Cluster::new(BusFaults { drop_all: true, ..BusFaults::default() }).await;
    cluster.start_job(|_| {}).await;
    cluster.start_gateway(|_| {}).await;
    cluster.start_logic().await;
    cluster.ready(0).await;
    let ann = cluster.account("ann").await;
    let mut browser = Browser::knock(cluster.http(0), &ann.sid).open().await;
    browser.hello().await;
    browser.say(GENERAL, "it works").await;
    assert_eq!(browser.message(GENERAL).await["seq"], 1);
    drop(browser);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_job_away_the_fast_path_delivers() {
    let mut cluster = Cluster::new(BusFaults::default()).await;
    cluster.start_logic().await;
    cluster.start_gateway(|_| {}).await;
    cluster.ready(0).await;
    let ann = cluster.account("ann").await;
    let mut browser = Browser::knock(cluster.http(0), &ann.sid).open().await;
    browser.hello().await;
    for index in 1..=20 {
        browser.say(GENERAL, "without job").await;
        assert_eq!(browser.message(GENERAL).await["seq"], index);
    }
    cluster.start_job(|_| {}).await;
    browser.say(GENERAL, "with job").await;
    assert_eq!(browser.message(GENERAL).await["seq"], 21, "nothing twice");
    drop(browser);
    cluster.end().await;
}
