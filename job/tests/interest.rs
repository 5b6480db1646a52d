//! Setup: a real embedded log, a running job, gateways that tell which rooms they want.
//! Claim: a gateway that told gets no numbered push of any other room, everything else as
//! before, and when it asks for a room, the number that was left out; a record nobody wants is
//! done at once; a gateway that tells nothing, or whose stream is new, gets everything.
//! Why: what is left out must be what nobody misses.

mod support;

use corecast_backends::registry::fixed::FixedRegistry;
use corecast_proto::job::{PushMsg, push_msg::Type};
use corecast_proto::push::{HeadPush, Interest, push::Target};
use support::gateway::{FakeGateway, Manner};
use support::{Log, Running, config, room_record, start};

fn rooms(names: &[&str], complete: bool) -> Interest {
    let rooms = names.iter().map(|name| (*name).to_owned()).collect();
    Interest { rooms, complete, ..Default::default() }
}

async fn interest_is(job: &Running, gateway: &str, rooms: f64) {
    job.metric_is(&format!("corecast_job_interest_rooms{{gateway=\"{gateway}\"}}"), rooms).await;
}

async fn gateway(id: &str) -> FakeGateway {
    FakeGateway::start(id, Manner::Acking).await
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_gets_the_rooms_it_told_and_the_other_one_that_tells_nothing_gets_all() {
    let (log, telling, silent) = (Log::new().await, gateway("telling").await, gateway("silent").await);
    let job = start(config(), &log, &FixedRegistry::new(vec![telling.node(), silent.node()], vec![])).await;
    telling.stream_is(1).await;
    telling.tell(rooms(&["room-002"], true)).await;
    interest_is(&job, "telling", 1.0).await;
    interest_is(&job, "silent", -1.0).await;
    log.append_rooms(1..=3).await;
    log.append(&PushMsg { room: "room-002".into(), ..room_record(4) }).await;
    let plain = PushMsg { epoch: 0, first_seq: 0, count: 0, ..room_record(0) };
    log.append(&plain).await;
    log.append(&PushMsg { r#type: Type::Broadcast as i32, ..plain }).await;
    silent.seqs_are(1, &[1, 2, 3, 4, 0, 0]).await;
    telling.seqs_are(1, &[4, 0, 0]).await;
    log.empty().await;
    job.metric_is(r#"corecast_job_unwanted_pushes_total{gateway="telling"}"#, 3.0).await;
    job.metric_is(r#"corecast_job_unwanted_pushes_total{gateway="silent"}"#, 0.0).await;
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn record_that_no_gateway_wants_is_done_though_nobody_acks() {
    let (log, a) = (Log::new().await, FakeGateway::start("a", Manner::Holding).await);
    let job = start(config(), &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    a.stream_is(1).await;
    a.tell(rooms(&[], true)).await;
    interest_is(&job, "a", 0.0).await;
    log.append_rooms(1..=300).await;
    log.empty().await;
    assert!(a.received().is_empty());
    assert_eq!(a.streams(), 1);
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateway_that_asks_for_a_room_learns_what_was_left_out_and_gets_what_follows() {
    let (log, a) = (Log::new().await, gateway("a").await);
    let job = start(config(), &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    a.stream_is(1).await;
    a.tell(rooms(&[], true)).await;
    interest_is(&job, "a", 0.0).await;
    log.append_rooms(1..=5).await;
    log.empty().await;
    a.tell(rooms(&["room-001", "room-002"], false)).await;
    a.seqs_are(1, &[5]).await;
    let told = a.received().remove(0).push;
    assert_eq!(told.target, Some(Target::Head(HeadPush { room_id: "room-001".into() })));
    assert_eq!((told.epoch, told.count, told.frame.len()), (1, 0, 0));
    log.append_rooms([6]).await;
    a.seqs_are(1, &[5, 6]).await;
    a.tell(Interest { gone: vec!["room-001".into()], ..Default::default() }).await;
    interest_is(&job, "a", 1.0).await;
    log.append_rooms([7]).await;
    log.empty().await;
    assert_eq!(a.seqs(1), [5, 6]);
    job.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_sent_again_after_a_restart_of_the_telling_and_on_a_new_stream() {
    let (log, a) = (Log::new().await, gateway("a").await);
    let job = start(config(), &log, &FixedRegistry::new(vec![a.node()], vec![])).await;
    a.stream_is(1).await;
    a.tell(rooms(&["room-002"], true)).await;
    interest_is(&job, "a", 1.0).await;
    log.append_rooms([1]).await;
    log.empty().await;
    a.tell(Interest { restart: true, ..Default::default() }).await;
    interest_is(&job, "a", -1.0).await;
    log.append_rooms([2]).await;
    a.seqs_are(1, &[2]).await;
    a.tell(rooms(&["room-002"], true)).await;
    interest_is(&job, "a", 1.0).await;
    log.append_rooms([3]).await;
    log.empty().await;
    assert_eq!(a.seqs(1), [2]);
    for stream in [2, 3] {
        // The same incarnation, then another one.
        if stream == 2 {
            a.break_streams()
        } else {
            a.restart()
        }
        a.stream_is(stream).await;
        job.metric_is(r#"corecast_job_streams_up{gateway="a"}"#, 1.0).await;
        interest_is(&job, "a", -1.0).await;
        log.append_rooms([2 + stream as i64]).await;
        a.seqs_are(stream, &[2 + stream]).await;
        a.tell(rooms(&[], true)).await;
        interest_is(&job, "a", 0.0).await;
    }
    job.stop().await;
}
