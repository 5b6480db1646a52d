//! Setup: as in `delivery.rs`; gateways die, hang, break their streams, restart.
//! Claim: one gateway holds the others for one duty time at most, once; what is sent again
//! goes to the same incarnation only; nothing is planned blindly.
//! Why: one dead gateway out of many must not be an outage.

mod support;

use std::time::{Duration, Instant};

use corecast_backends::registry::fixed::FixedRegistry;
use corecast_backends::registry::{Lease, Node, Presence, Registry, RegistryError, Role};
use corecast_proto::job::PushMsg;
use support::gateway::{FakeGateway, Manner};
use support::{Log, config, node, room_record, start};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread")]
async fn dead_gateway_is_let_go_after_its_duty_and_costs_that_once() {
    let (log, alive) = (Log::new().await, FakeGateway::start("alive", Manner::Acking).await);
    // Takes connections into its backlog and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = node("dead", silent.local_addr().unwrap());
    let job = start(config(), &log, &FixedRegistry::new(vec![alive.node(), dead], vec![])).await;

    let started = Instant::now();
    log.append_rooms([1]).await;
    alive.seqs_are(1, &[1]).await;
    job.metric_is("corecast_job_in_flight_records", 0.0).await;
    log.empty().await;
    assert!(started.elapsed() >= Duration::from_millis(1_000), "the dead one was owed a duty time");
    job.metric_is(r#"corecast_job_lapsed_duties_total{gateway="dead"}"#, 1.0).await;

    let again = Instant::now();
    log.append_rooms(2..=20).await;
    job.metric_is(r#"corecast_job_acks_total{gateway="alive"}"#, 20.0).await;
    job.metric_is("corecast_job_in_flight_records", 0.0).await;
    assert!(again.elapsed() < Duration::from_millis(1_000), "nobody waits for it again");
    assert_eq!(job.metric(r#"corecast_job_skipped_pushes_total{gateway="dead"}"#).await, Some(19.0));
    assert_eq!(job.metric(r#"corecast_job_lapsed_duties_total{gateway="dead"}"#).await, Some(1.0));
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_that_was_let_go_is_served_as_soon_as_it_is_back() {
    let log = Log::new().await;
    let hanging = FakeGateway::start("a", Manner::Holding).await;
    let job = start(config(), &log, &FixedRegistry::new(vec![hanging.node()], vec![])).await;
    log.append_rooms([1]).await;
    log.empty().await;
    job.metric_is(r#"corecast_job_lapsed_duties_total{gateway="a"}"#, 1.0).await;

    hanging.set_manner(Manner::Acking);
    let streams = hanging.streams();
    hanging.stream_is(streams.max(2)).await;
    job.metric_is(r#"corecast_job_streams_up{gateway="a"}"#, 1.0).await;
    log.append_rooms([2]).await;
    job.metric_is(r#"corecast_job_acks_total{gateway="a"}"#, 1.0).await;
    assert_eq!(hanging.received().last().unwrap().push.first_seq, 2);
    log.empty().await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn same_incarnation_gets_the_unacked_again_on_its_new_stream() {
    let log = Log::new().await;
    let a = FakeGateway::start("a", Manner::Acking).await;
    let patient = corecast_job::Config { push_deadline_ms: 20_000, duty_ms: 60_000, ..config() };
    let job = start(patient, &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    log.append_rooms([1]).await;
    log.empty().await;
    a.set_manner(Manner::Holding);
    log.append_rooms([2, 3]).await;
    a.seqs_are(1, &[1, 2, 3]).await;

    a.break_streams();
    a.seqs_are(2, &[2, 3]).await;
    job.metric_is(r#"corecast_job_retries_total{gateway="a"}"#, 2.0).await;
    assert_eq!(log.left().await, 2);
    a.set_manner(Manner::Acking);
    log.empty().await;
    assert_eq!(a.seqs(1), [1, 2, 3], "nothing twice on one stream");
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_incarnation_does_not_get_old_pushes() {
    let log = Log::new().await;
    let a = FakeGateway::start("a", Manner::Holding).await;
    let patient = corecast_job::Config { push_deadline_ms: 20_000, duty_ms: 60_000, ..config() };
    let job = start(patient, &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    log.append_rooms([1, 2]).await;
    a.seqs_are(1, &[1, 2]).await;

    a.restart();
    a.stream_is(2).await;
    log.empty().await;
    a.set_manner(Manner::Acking);
    log.append_rooms([3]).await;
    a.seqs_are(2, &[3]).await;
    log.empty().await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_without_an_ack_is_sent_again_on_a_new_stream_after_its_deadline() {
    let log = Log::new().await;
    let a = FakeGateway::start("a", Manner::Holding).await;
    let config = corecast_job::Config { push_deadline_ms: 200, duty_ms: 60_000, ..config() };
    let job = start(config, &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    log.append_rooms([1]).await;
    a.seqs_are(1, &[1]).await;
    a.seqs_are(2, &[1]).await;
    a.seqs_are(3, &[1]).await;
    // Three sends and no ack: that ends the duty long before its time.
    log.empty().await;
    job.metric_is(r#"corecast_job_lapsed_duties_total{gateway="a"}"#, 1.0).await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_that_stops_reading_does_not_hold_others() {
    let (log, quick) = (Log::new().await, FakeGateway::start("quick", Manner::Acking).await);
    let deaf = FakeGateway::start("deaf", Manner::Deaf).await;
    let config = corecast_job::Config { push_deadline_ms: 5_000, duty_ms: 10_000, ..config() };
    let job = start(config, &log, &FixedRegistry::new(vec![quick.node(), deaf.node()], vec![])).await;
    // More than the sockets and the windows of HTTP/2 take: 8 MiB.
    let frame = vec![b'x'; 64 << 10];
    for seq in 1..=128 {
        log.append(&PushMsg { msg: frame.clone().into(), ..room_record(seq) }).await;
    }
    job.metric_is(r#"corecast_job_acks_total{gateway="quick"}"#, 128.0).await;
    assert_eq!(job.metric(r#"corecast_job_lapsed_duties_total{gateway="deaf"}"#).await, Some(0.0));
    assert!(deaf.received().is_empty());
    assert_eq!(log.left().await, 128, "and the deaf one is still owed all");
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_stops_at_the_window_and_goes_on_when_the_duty_ends() {
    let log = Log::new().await;
    let a = FakeGateway::start("a", Manner::Holding).await;
    let quick = FakeGateway::start("quick", Manner::Acking).await;
    let config = corecast_job::Config { in_flight_records: 8, ..config() };
    let job = start(config, &log, &FixedRegistry::new(vec![a.node(), quick.node()], vec![])).await;
    log.append_rooms(1..=30).await;
    job.metric_is(r#"corecast_job_acks_total{gateway="quick"}"#, 8.0).await;
    assert_eq!(job.metric("corecast_job_records_total").await, Some(8.0));
    let expected: Vec<u64> = (1..=30).collect();
    quick.seqs_are(1, &expected).await;
    log.empty().await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_of_another_gateway_do_not_count() {
    let log = Log::new().await;
    let stranger = FakeGateway::start_as("a", "b", Manner::Acking).await;
    let patient = corecast_job::Config { push_deadline_ms: 20_000, duty_ms: 60_000, ..config() };
    let job = start(patient, &log, &FixedRegistry::new(vec![stranger.node()], vec![])).await;
    log.append_rooms([1]).await;
    stranger.stream_is(3).await;
    assert!(stranger.received().is_empty());
    assert_eq!(log.left().await, 1);
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_planned_before_the_registry_answered() {
    let (log, a) = (Log::new().await, FakeGateway::start("a", Manner::Acking).await);
    let registry = SilentRegistry(watch::Sender::new(None));
    let job = start(config(), &log, &registry).await;
    log.append_rooms([1]).await;
    assert_eq!(job.get("/readyz").await.0, 503);
    assert_eq!(job.metric("corecast_job_records_total").await, Some(0.0));
    registry.0.send_replace(Some(vec![a.node()]));
    a.seqs_are(1, &[1]).await;
    assert_eq!(job.get("/readyz").await.0, 200);
    log.empty().await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_that_joins_gets_what_is_planned_from_then_on_until_its_stream_ends() {
    let (log, old) = (Log::new().await, FakeGateway::start("old", Manner::Acking).await);
    let young = FakeGateway::start("young", Manner::Acking).await;
    let registry = FixedRegistry::new(vec![old.node()], vec![]);
    let job = start(config(), &log, &registry).await;
    log.append_rooms([1]).await;
    log.empty().await;
    let lease = registry.register(Role::Gateway, young.node()).await.unwrap();
    young.stream_is(1).await;
    log.append_rooms([2]).await;
    young.seqs_are(1, &[2]).await;
    drop(lease);
    log.append_rooms([3]).await;
    young.seqs_are(1, &[2, 3]).await;
    log.empty().await;
    job.metric_is(r#"corecast_job_streams_up{gateway="old"}"#, 1.0).await;
    young.break_streams();
    support::eventually("the lane of the one that left is gone", || async {
        job.metric(r#"corecast_job_streams_up{gateway="young"}"#).await.is_none().then_some(())
    })
    .await;
    job.stop().await;
}

/// A registry that answers when the test says so.
#[derive(Clone)]
struct SilentRegistry(watch::Sender<Option<Vec<Node>>>);

impl Registry for SilentRegistry {
    fn nodes(&self, _role: Role) -> watch::Receiver<Option<Vec<Node>>> {
        self.0.subscribe()
    }

    async fn register(&self, _role: Role, _node: Node) -> Result<Lease, RegistryError> {
        Err(RegistryError::Unavailable("takes nobody".into()))
    }

    async fn presence(&self, _role: Role, _id: &str) -> Result<Presence, RegistryError> {
        Ok(Presence::Unknown)
    }

    async fn lock(&self, _name: &str) -> Result<Lease, RegistryError> {
        Err(RegistryError::Unavailable("locks nothing".into()))
    }

    fn tells_others(&self) -> bool {
        false
    }
}
