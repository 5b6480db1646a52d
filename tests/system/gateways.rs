//! Setup: a second gateway that is slow or away. Claim: DESIGN §3.6: an offset passes only
//! when every gateway took the push or its 10 s are over; one gateway never holds the
//! others for longer; who comes back is complete by the tail check. Why it matters: one
//! dead machine must neither lose messages nor stop everybody.

use std::time::{Duration, Instant};

use corecast_backends::bus::faults::BusFaults;
use corecast_backends::log::embedded;
use corecast_backends::store::Store;
use corecast_checker::Recorder;

use crate::support::cluster::Cluster;
use crate::support::peer::{Manners, Peer};
use crate::support::{Browser, Corecast, GENERAL, Setup, eventually, folder};

/// `corecast up` whose registry lists one more gateway at this port.
fn with_second_gateway(data: &std::path::Path, port: u16) -> Setup {
    Setup::new(data).set("registry.url", format!("static:gateway=second@127.0.0.1:{port}"))
}

async fn say(corecast: &Corecast, sid: &str, count: u64) {
    let mut browser = Browser::knock(corecast.http(), sid).v1().open().await;
    browser.hello().await;
    for _ in 0..count {
        browser.say(GENERAL, "to both gateways").await;
        browser.message(GENERAL).await;
    }
}

#[tokio::test]
async fn a_gateway_that_takes_pushes_gets_each_number_once_and_in_order() {
    let data = folder();
    let peer = Peer::listen(0, "second", 1, Manners::Acks).await;
    let corecast = with_second_gateway(data.path(), peer.addr().port()).start().await;
    let ann = corecast.account("ann").await;
    say(&corecast, &ann.sid, 30).await;
    eventually("the second gateway has everything", || async { peer.numbers_of(GENERAL).len() >= 30 }).await;
    assert_eq!(peer.numbers_of(GENERAL), (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn unreachable_for_less_than_10_s_over_a_crash_it_is_still_owed_everything() {
    let data = folder();
    let port = corecast_ports::free();
    let setup = with_second_gateway(data.path(), port);
    let corecast = setup.start().await;
    let ann = corecast.account("ann").await;
    say(&corecast, &ann.sid, 10).await;
    corecast.kill();
    let corecast = setup.start().await;
    say(&corecast, &ann.sid, 5).await;
    let peer = Peer::listen(port, "second", 1, Manners::Acks).await;
    eventually("no offset passed it", || async { peer.numbers_of(GENERAL).last() == Some(&15) }).await;
    assert_eq!(peer.numbers_of(GENERAL), (1..=15).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_gateway_that_stops_reading_does_not_hold_the_others_for_more_than_its_10_s() {
    let data = folder();
    let peer = Peer::listen(0, "second", 1, Manners::StopsReading).await;
    // No fast path and no tail check, so that what arrives came by the log; few records in
    // flight, so that what the second gateway holds does hold the consumer.
    let setup = with_second_gateway(data.path(), peer.addr().port()).set("bus.url", "none:");
    let setup = setup.set("gateway.limits.tail_check_ms", 60_000).set("job.in_flight_records", 8);
    let corecast = setup.start().await;
    let ann = corecast.account("ann").await;
    let recorder = Recorder::new();
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().recorded(&recorder, "ann").open().await;
    browser.hello().await;
    let start = Instant::now();
    for index in 0..100 {
        browser.say_keyed(GENERAL, &format!("k{index}"), &format!("message {index}")).await;
        browser.frame("ack").await;
    }
    eventually("the first gateway's clients have everything", || async {
        recorder.has_reached("ann", GENERAL, 100)
    })
    .await;
    println!("the first gateway was held for {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(13), "{:?}", start.elapsed());
    recorder.judge().expect_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_for_longer_the_offset_passes_and_its_clients_are_complete_by_the_tail_check() {
    // No fast path, and a second gateway that job cannot reach: only the tail check is left.
    let mut cluster = Cluster::new(BusFaults { drop_all: true, ..BusFaults::default() }).await;
    let nobody = corecast_ports::free();
    cluster.start_logic().await;
    cluster.start_gateway(|_| {}).await;
    let second =
        cluster.start_gateway(|config| config.advertise_grpc = Some(format!("127.0.0.1:{nobody}"))).await;
    cluster.ready(0).await;
    cluster.ready(second).await;
    cluster
        .start_job(|config| {
            config.push_deadline_ms = 1_000;
            config.duty_ms = 3_000;
        })
        .await;
    let recorder = Recorder::new();
    let (ann, bob) = (cluster.account("ann").await, cluster.account("bob").await);
    let mut of_ann = Browser::knock(cluster.http(0), &ann.sid).v1().recorded(&recorder, "ann").open().await;
    let mut of_bob = Browser::knock(cluster.http(second), &bob.sid).recorded(&recorder, "bob").open().await;
    of_ann.hello().await;
    of_bob.hello().await;
    for index in 0..20 {
        of_ann.say_keyed(GENERAL, &format!("k{index}"), &format!("message {index}")).await;
        of_ann.frame("ack").await;
    }
    for name in ["ann", "bob"] {
        eventually("both have everything", || async { recorder.has_reached(name, GENERAL, 20) }).await;
    }
    recorder.judge().expect_clean();
    let store = cluster.store().clone();
    eventually("the offset passed the gateway that cannot be reached", || async {
        store.outbox(embedded::OWNER, 0, 1).await.is_ok_and(|rows| rows.is_empty())
    })
    .await;
    drop((of_ann, of_bob));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_two_gateways_see_each_other() {
    let mut cluster = Cluster::up(BusFaults { seed: 3, drop: 0.3, ..BusFaults::default() }).await;
    let second = cluster.start_gateway(|_| {}).await;
    cluster.ready(0).await;
    cluster.ready(second).await;
    let gateways = [cluster.http(0), cluster.http(second)];
    let mut chatter = crate::support::chatter::Chatter::gather(&gateways, cluster.logic(), 4, 2).await;
    chatter.talk(200).await;
    chatter.all_complete().await;
    chatter.verdict("two gateways").expect_clean();
    drop(chatter);
    cluster.end().await;
}
