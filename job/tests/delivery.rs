//! Setup: a real embedded log, a running job, gateways as peers that do what they are told.
//! Claim: every record reaches every gateway, and an offset is done when all have acked it.
//! Why: an offset that is done too early is a message lost; one that is never done is a
//! message repeated for ever.

mod support;

use corecast_backends::registry::fixed::FixedRegistry;
use corecast_proto::ids::GLOBAL;
use corecast_proto::job::{PushMsg, push_msg::Type};
use corecast_proto::push::{AllPush, RoomPush, UserPush, push::Target};
use support::gateway::{FakeGateway, Manner};
use support::{Log, config, room_record, start};

#[tokio::test(flavor = "multi_thread")]
async fn every_gateway_gets_every_record_in_order_with_its_place() {
    let (log, a, b) = (Log::new().await, gateway("a").await, gateway("b").await);
    let job = start(config(), &log, &FixedRegistry::new(vec![a.node(), b.node()], vec![])).await;
    log.append_rooms(1..=50).await;
    let expected: Vec<u64> = (1..=50).collect();
    a.seqs_are(1, &expected).await;
    b.seqs_are(1, &expected).await;
    let received = a.received();
    assert!(received.is_sorted_by_key(|got| got.push.offset));
    assert_eq!(received[0].push.target, Some(Target::Room(RoomPush { room_id: "room-001".into() })));
    assert_eq!(received[0].push.frame, "frame 1");
    log.empty().await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offset_waits_for_slowest_gateway() {
    let (log, quick) = (Log::new().await, gateway("quick").await);
    let slow = FakeGateway::start("slow", Manner::Holding).await;
    let patient = corecast_job::Config { push_deadline_ms: 20_000, duty_ms: 60_000, ..config() };
    let job = start(patient, &log, &FixedRegistry::new(vec![quick.node(), slow.node()], vec![])).await;
    log.append_rooms([1]).await;
    slow.seqs_are(1, &[1]).await;
    job.metric_is(r#"corecast_job_acks_total{gateway="quick"}"#, 1.0).await;
    job.metric_is("corecast_job_in_flight_records", 1.0).await;
    assert_eq!(log.left().await, 1, "one gateway has not acked");

    slow.set_manner(Manner::Acking);
    log.empty().await;
    job.metric_is("corecast_job_in_flight_records", 0.0).await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn push_to_keys_and_broadcasts_reach_their_targets() {
    let (log, a) = (Log::new().await, gateway("a").await);
    let job = start(config(), &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    let plain = PushMsg { epoch: 0, first_seq: 0, count: 0, ..room_record(0) };
    let to_users =
        PushMsg { r#type: Type::Push as i32, keys: vec!["u1".into(), "u2".into()], ..plain.clone() };
    log.append(&to_users).await;
    log.append(&PushMsg { r#type: Type::Push as i32, ..plain.clone() }).await;
    log.append(&PushMsg { r#type: Type::Broadcast as i32, speed: 9, ..plain }).await;
    let created = PushMsg { r#type: Type::Broadcast as i32, room: GLOBAL.into(), ..room_record(3) };
    log.append(&created).await;
    log.empty().await;
    let targets: Vec<_> =
        a.received().into_iter().map(|got| (got.push.target.unwrap(), got.push.count)).collect();
    let expected = [
        (Target::User(UserPush { user_ids: vec!["u1".into(), "u2".into()] }), 0),
        (Target::Room(RoomPush { room_id: "room-001".into() }), 0),
        (Target::All(AllPush { per_second: 9 }), 0),
        (Target::All(AllPush { per_second: 0 }), 1),
    ];
    assert_eq!(targets, expected);
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_and_blocks_nobody() {
    let (log, a) = (Log::new().await, gateway("a").await);
    let job = start(config(), &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    log.append_rooms([1]).await;
    log.append_bytes(vec![0xff; 9].into()).await;
    log.append(&PushMsg { room: String::new(), ..room_record(2) }).await;
    log.append_rooms([3]).await;
    a.seqs_are(1, &[1, 3]).await;
    log.empty().await;
    let letters = log.dead_letters().await;
    let reasons: Vec<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(letters.len(), 2, "{reasons:?}");
    assert!(reasons.contains(&"not a ChatRoom.Job.PushMsg"), "{reasons:?}");
    assert!(letters.iter().any(|letter| letter.value == vec![0xff; 9]), "as it was");
    job.metric_is("corecast_job_dead_letters_total", 2.0).await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_replays_what_was_not_done_and_nothing_else() {
    let log = Log::new().await;
    let a = gateway("a").await;
    let registry = FixedRegistry::new(vec![a.node()], vec![]);
    let job = start(config(), &log, &registry).await;
    log.append_rooms([1, 2]).await;
    log.empty().await;
    a.set_manner(Manner::Holding);
    log.append_rooms([3, 4]).await;
    a.seqs_are(1, &[1, 2, 3, 4]).await;
    job.stop().await;
    assert_eq!(log.left().await, 2);

    a.set_manner(Manner::Acking);
    let job = start(config(), &log, &registry).await;
    a.seqs_are(2, &[3, 4]).await;
    log.empty().await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_records_what_was_acked() {
    let (log, a) = (Log::new().await, gateway("a").await);
    let job = start(config(), &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    log.append_rooms(1..=20).await;
    job.metric_is(r#"corecast_job_acks_total{gateway="a"}"#, 20.0).await;
    job.stop().await;
    // No job runs any more: what is deleted now was recorded before the end.
    log.empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gateway_records_are_done() {
    let log = Log::new().await;
    let job = start(config(), &log, &FixedRegistry::new(vec![], vec![])).await;
    log.append_rooms([1]).await;
    log.empty().await;
    assert_eq!(job.get("/healthz").await.0, 200);
    assert_eq!(job.get("/readyz").await.0, 200);
    job.stop().await;
}

async fn gateway(id: &str) -> FakeGateway {
    FakeGateway::start(id, Manner::Acking).await
}
