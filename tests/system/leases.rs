//! Setup: tiers that find each other on etcd; the places of gateways and logic nodes are
//! taken away, etcd is emptied or killed. Claim: DESIGN §3.6: a lost lease gives a new
//! incarnation and the duty starts anew; whatever the registry says or does not say, no link
//! is dropped and no message lost. Why it matters: the registry is the one engine everybody
//! listens to, so a wrong answer of it reaches all at once.

use std::time::Duration;

use corecast_backends::bus::faults::BusFaults;
use corecast_proto::push::gateway_client::GatewayClient;
use corecast_proto::push::{Batch, FromGateway, Welcome, from_gateway::Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::support::chatter::Chatter;
use crate::support::cluster::Cluster;
use crate::support::etcd::{Etcd, LEASE};
use crate::support::{eventually, http, in_time};

/// No fast path, and no tail check in time: what arrives came by the log, or by the tail
/// check that a lost lease or stream asks for.
async fn by_the_log_alone(etcd: &Etcd) -> Cluster {
    let faults = BusFaults { drop_all: true, ..BusFaults::default() };
    let mut cluster = Cluster::on(etcd.urls(), faults).await;
    cluster.start_logic().await;
    cluster.start_gateway(|config| config.limits.tail_check_ms = 60_000).await;
    cluster.start_job(|_| {}).await;
    cluster.ready(0).await;
    cluster
}

/// A job's stream, of which only the first word is read.
struct Stream {
    _batches: mpsc::Sender<Batch>,
    answers: Streaming<FromGateway>,
}

impl Stream {
    async fn open(cluster: &Cluster, gateway: usize) -> (Self, Welcome) {
        let (batches, outgoing) = mpsc::channel(1);
        let url = format!("http://{}", cluster.grpc(gateway));
        let mut client = in_time("connected", GatewayClient::connect(url)).await.expect("connected");
        let answers =
            in_time("a stream", client.push(ReceiverStream::new(outgoing))).await.expect("accepted");
        let mut stream = Self { _batches: batches, answers: answers.into_inner() };
        let first = in_time("the first word", stream.answers.message()).await.expect("no error");
        match first.expect("a word").message {
            Some(Message::Welcome(welcome)) => (stream, welcome),
            other => panic!("the first word is no welcome: {other:?}"),
        }
    }

    async fn ends(&mut self) {
        let end = async {
            // What it wants is told at any time.
            loop {
                match self.answers.message().await {
                    Ok(Some(FromGateway { message: Some(Message::Interest(_)) })) => {}
                    next => return next,
                }
            }
        };
        let next = in_time("the stream of the old incarnation ends", end).await;
        assert!(!matches!(next, Ok(Some(_))), "{next:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_gives_a_new_incarnation_and_the_duty_starts_anew() {
    let Some(etcd) = Etcd::given() else { return };
    let cluster = by_the_log_alone(&etcd).await;
    let mut chatter = Chatter::gather(&[cluster.http(0)], cluster.logic(), 3, 2).await;
    let (mut stream, mut last) = Stream::open(&cluster, 0).await;
    assert_eq!(last.gateway_id, "gateway-1");
    for round in 1..=3 {
        let talking = chatter.talk(60);
        let losing = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            etcd.forget("gateway", "gateway-1");
            stream.ends().await;
        };
        futures::future::join(talking, losing).await;
        let (next_stream, next) = Stream::open(&cluster, 0).await;
        assert_ne!(next.incarnation, last.incarnation);
        assert_eq!(next.gateway_id, last.gateway_id);
        (stream, last) = (next_stream, next);
        eventually("it registers again", || async { etcd.has("gateway", "gateway-1") }).await;
        chatter.talk(60).await;
        chatter.all_complete().await;
        let lost = cluster.gateway_metric(0, "corecast_gateway_leases_lost_total").await;
        assert_eq!(lost, f64::from(round));
    }
    chatter.verdict("three lost leases, nobody reconnected").expect_clean();
    drop(chatter);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_with_one_id_the_second_is_not_ready_until_the_first_is_gone() {
    let Some(etcd) = Etcd::given() else { return };
    let mut cluster = by_the_log_alone(&etcd).await;
    let second = cluster.start_gateway(|config| config.id = Some("gateway-1".into())).await;
    let refusal = "not in the registry yet";
    eventually("the second one says what it waits for", || async {
        http::get(cluster.metrics(second), "/readyz").await.is_ok_and(|answer| answer.text == refusal)
    })
    .await;
    tokio::time::sleep(2 * LEASE).await;
    let answer = http::get(cluster.metrics(second), "/readyz").await.expect("it answers");
    assert_eq!((answer.status, &*answer.text), (503, refusal));
    cluster.stop_gateway(0).await;
    cluster.ready(second).await;
    let mut chatter = Chatter::gather(&[cluster.http(second)], cluster.logic(), 2, 1).await;
    chatter.talk(20).await;
    chatter.all_complete().await;
    chatter.verdict("the second one alone").expect_clean();
    drop(chatter);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_emptied_again_and_again_loses_nothing() {
    let Some(etcd) = Etcd::given() else { return };
    let mut cluster =
        Cluster::on(etcd.urls(), BusFaults { seed: 5, drop: 0.5, ..BusFaults::default() }).await;
    cluster.start_logic().await;
    for _ in 0..2 {
        cluster.start_gateway(|_| {}).await;
    }
    cluster.start_job(|_| {}).await;
    for gateway in 0..2 {
        cluster.ready(gateway).await;
    }
    let gateways = [cluster.http(0), cluster.http(1)];
    let mut chatter = Chatter::gather(&gateways, cluster.logic(), 4, 2).await;
    for _ in 0..8 {
        etcd.forget_everybody();
        chatter.talk(80).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    chatter.all_complete().await;
    chatter.verdict("emptied eight times, nobody reconnected").expect_clean();
    for (role, id) in [("gateway", "gateway-1"), ("gateway", "gateway-2"), ("logic", "logic-1")] {
        eventually("everybody is back", || async { etcd.has(role, id) }).await;
    }
    drop(chatter);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_killed_costs_no_link_and_no_message() {
    let Some(etcd) = Etcd::start() else { return };
    let cluster = by_the_log_alone(&etcd).await;
    let mut chatter = Chatter::gather(&[cluster.http(0)], cluster.logic(), 3, 2).await;
    let (mut stream, _) = Stream::open(&cluster, 0).await;
    etcd.kill();
    let start = std::time::Instant::now();
    while start.elapsed() < 3 * LEASE {
        chatter.talk(30).await;
        chatter.all_complete().await;
    }
    etcd.restart();
    tokio::time::sleep(2 * LEASE).await;
    chatter.talk(30).await;
    chatter.all_complete().await;
    chatter.verdict("etcd away for three lease times").expect_clean();
    // The very same stream: nobody was told to go.
    assert!(futures::FutureExt::now_or_never(stream.ends()).is_none());
    assert_eq!(cluster.gateway_metric(0, "corecast_gateway_leases_lost_total").await, 0.0);
    drop(chatter);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_that_start_before_etcd_wait_for_it() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.kill();
    let mut cluster = Cluster::on(etcd.urls(), BusFaults::default()).await;
    cluster.start_job(|_| {}).await;
    cluster.start_gateway(|_| {}).await;
    cluster.start_logic().await;
    tokio::time::sleep(LEASE).await;
    assert_eq!(http::get(cluster.metrics(0), "/readyz").await.expect("it answers").status, 503);
    etcd.restart();
    cluster.ready(0).await;
    let mut chatter = Chatter::gather(&[cluster.http(0)], cluster.logic(), 2, 1).await;
    chatter.talk(20).await;
    chatter.all_complete().await;
    chatter.verdict("started in the wrong order").expect_clean();
    drop(chatter);
    cluster.end().await;
}
