//! Setup: two jobs in one group on a real Kafka (`CORECAST_TEST_KAFKA`), several consumers
//! each, gateways as peers. Claim: together they push every record to every gateway, whoever
//! of them comes and goes, and commit all of it. Why: this is how the log path scales, and
//! every deploy is a rebalance.

#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::collections::BTreeSet;

use bytes::Bytes;
use corecast_backends::log::kafka::KafkaLog;
use corecast_backends::log::{LogProducer, Settings};
use corecast_backends::registry::fixed::FixedRegistry;
use corecast_proto::ids::RoomId;
use corecast_proto::job::PushMsg;
use prost::Message;
use support::gateway::{FakeGateway, Manner};
use support::{Running, config, eventually, room_record, start_with};

/// A log with topics and a group of its own. `None`, and a line that says so, where there is
/// no Kafka.
fn log() -> Option<KafkaLog> {
    let Ok(url) = std::env::var("CORECAST_TEST_KAFKA") else {
        println!("not run: CORECAST_TEST_KAFKA is not set");
        return None;
    };
    let name = format!("test-{}", uuid::Uuid::new_v4());
    let settings = Settings { topic: name.clone(), group: name, partitions: 4, ..Settings::default() };
    Some(KafkaLog::parse(url.strip_prefix("kafka:").unwrap(), settings).unwrap())
}

async fn job(log: &KafkaLog, gateway: &FakeGateway) -> Running {
    let consumers = vec![log.consumer(), log.consumer()];
    start_with(config(), consumers, &FixedRegistry::new(vec![gateway.node()], vec![])).await
}

/// Records of 16 rooms, each with a number of its own.
async fn append(log: &KafkaLog, seqs: std::ops::Range<i64>) {
    let enqueued = seqs.map(|seq| {
        let room = format!("room-{}", seq % 16);
        let record = PushMsg { room: room.clone(), ..room_record(seq) };
        log.enqueue(&RoomId::from(room), record.encode_to_vec().into())
    });
    for answer in futures::future::join_all(enqueued).await {
        answer.unwrap();
    }
}

async fn has_all(gateway: &FakeGateway, seqs: std::ops::Range<u64>) {
    eventually("every record is at the gateway", || async {
        let got: BTreeSet<u64> = gateway.received().iter().map(|got| got.push.first_seq).collect();
        seqs.clone().all(|seq| got.contains(&seq)).then_some(())
    })
    .await;
}

/// The lag over all of them.
async fn all_done(jobs: &[&Running]) {
    eventually("everything is done", || async {
        let (mut partitions, mut lag) = (0, 0.0);
        for job in jobs {
            for partition in 0..4 {
                let name = format!(r#"corecast_job_consumer_lag_records{{partition="{partition}"}}"#);
                if let Some(records) = job.metric(&name).await {
                    partitions += 1;
                    lag += records;
                }
            }
        }
        (partitions == 4 && lag == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_one_group_share_the_work_and_lose_nothing_when_one_comes_or_goes() {
    let Some(log) = log() else { return };
    let gateway = FakeGateway::start("a", Manner::Acking).await;
    let one = job(&log, &gateway).await;
    append(&log, 1..300).await;
    has_all(&gateway, 1..300).await;
    one.metric_is("corecast_job_consumers_up", 2.0).await;
    assert_eq!(one.get("/readyz").await.0, 200);

    let two = job(&log, &gateway).await;
    append(&log, 300..600).await;
    two.metric_is("corecast_job_consumers_up", 2.0).await;
    append(&log, 600..900).await;
    has_all(&gateway, 1..900).await;
    all_done(&[&one, &two]).await;

    one.stop().await;
    append(&log, 900..1_000).await;
    has_all(&gateway, 1..1_000).await;
    all_done(&[&two]).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_in_flight_at_a_hand_over_are_pushed_again_by_the_next_owner() {
    let Some(log) = log() else { return };
    let holding = FakeGateway::start("a", Manner::Holding).await;
    let patient = corecast_job::Config { push_deadline_ms: 20_000, duty_ms: 60_000, ..config() };
    let registry = FixedRegistry::new(vec![holding.node()], vec![]);
    let one = start_with(patient, vec![log.consumer()], &registry).await;
    append(&log, 1..100).await;
    // In flight at the first job and acked by nobody when it goes.
    eventually("some are at the gateway", || async { (!holding.received().is_empty()).then_some(()) }).await;
    one.stop().await;
    let acking = FakeGateway::start("a", Manner::Acking).await;
    let two = job(&log, &acking).await;
    has_all(&acking, 1..100).await;
    all_done(&[&two]).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_put_aside_and_what_follows_it_is_pushed_and_committed() {
    let Some(log) = log() else { return };
    let gateway = FakeGateway::start("a", Manner::Acking).await;
    let key = RoomId::from("room-1");
    log.append(&key, Bytes::from_static(&[0xff; 9])).await.unwrap();
    append(&log, 1..20).await;
    let job = job(&log, &gateway).await;
    has_all(&gateway, 1..20).await;
    job.metric_is("corecast_job_dead_letters_total", 1.0).await;
    all_done(&[&job]).await;
    job.stop().await;
}
