//! Setup: a gateway and a stream as job opens it; no tail check. Claim: once the lines are
//! open the stream tells which rooms are wanted, whole, and what changes before a join is
//! answered; what job left out meanwhile is read when it tells; with too many rooms, or when it
//! is switched off, everything is wanted. Why: job sends nothing else.

mod control_support;

use std::collections::BTreeSet;

use control_support::{Browser, EPOCH, ROOM, World, within};
use corecast_gateway::config::Config;
use corecast_proto::push::gateway_client::GatewayClient;
use corecast_proto::push::push::Target;
use corecast_proto::push::{Batch, FromGateway, HeadPush, Push, from_gateway::Message};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// What job knows of a gateway.
struct Job {
    batches: mpsc::Sender<Batch>,
    answers: Streaming<FromGateway>,
    rooms: BTreeSet<String>,
    /// Rooms it was ever told of, also those that were gone by then.
    heard: BTreeSet<String>,
    complete: bool,
    restarts: u32,
    acked: u64,
}

impl Job {
    /// A stream that was welcomed.
    async fn connect(world: &World) -> Self {
        let (batches, outgoing) = mpsc::channel(8);
        let mut client = GatewayClient::connect(format!("http://{}", world.grpc)).await.expect("connected");
        let answers =
            within(client.push(ReceiverStream::new(outgoing))).await.expect("accepted").into_inner();
        let mut job = Self {
            batches,
            answers,
            rooms: BTreeSet::new(),
            heard: BTreeSet::new(),
            complete: false,
            restarts: 0,
            acked: 0,
        };
        assert!(matches!(job.next().await, Message::Welcome(_)));
        job
    }

    async fn next(&mut self) -> Message {
        let answer = within(self.answers.message()).await.expect("no error").expect("not over");
        answer.message.expect("a message")
    }

    /// Reads until what it knows `fits`.
    async fn until(&mut self, fits: impl Fn(&Self) -> bool) {
        while !fits(self) {
            match self.next().await {
                Message::Welcome(_) => panic!("a second welcome"),
                Message::Ack(ack) => self.acked = ack.id,
                Message::Interest(told) => {
                    if told.restart {
                        self.rooms.clear();
                        self.complete = false;
                        self.restarts += 1;
                    }
                    self.heard.extend(told.rooms.iter().chain(&told.gone).cloned());
                    self.rooms.extend(told.rooms);
                    self.rooms.retain(|room| !told.gone.contains(room));
                    self.complete |= told.complete;
                }
            }
        }
    }

    fn wants(&self, rooms: &[&str]) -> bool {
        self.complete && self.rooms.iter().eq(rooms)
    }
}

fn without_tail_check(config: &mut Config) {
    config.limits.tail_check_ms = 60_000;
}

async fn join(browser: &mut Browser, room: &str) {
    browser.send(&format!(r#"{{"type":"join","payload":{{"roomId":"{room}"}}}}"#)).await;
}

#[tokio::test]
async fn each_stream_is_told_all_rooms_and_then_what_changes() {
    let world = World::start_with(without_tail_check).await;
    let mut browser = world.v1_client().await;
    let mut first = Job::connect(&world).await;
    first.until(|job| job.wants(&[ROOM])).await;
    world.logic.add_public_room("a-room");
    join(&mut browser, "a-room").await;
    browser.next_of("joined").await;
    first.until(|job| job.wants(&["a-room", ROOM])).await;
    let mut second = Job::connect(&world).await;
    second.until(|job| job.wants(&["a-room", ROOM])).await;

    // Wanted while logic is asked, and no longer.
    let before = first.rooms.len();
    join(&mut browser, "no-room").await;
    browser.next_of("error").await;
    join(&mut browser, "z-room").await;
    browser.next_of("error").await;
    world.logic.add_public_room("b-room");
    join(&mut browser, "b-room").await;
    browser.next_of("joined").await;
    for job in [&mut first, &mut second] {
        job.until(|job| job.wants(&["a-room", "b-room", ROOM])).await;
        assert_eq!((job.rooms.len(), job.restarts), (before + 1, 0));
        assert!(job.heard.contains("no-room") && job.heard.contains("z-room"), "{:?}", job.heard);
    }
    let metrics = world.metrics_text().await;
    assert!(metrics.contains("\ncorecast_gateway_interest_rooms 3\n"), "{metrics}");
}

#[tokio::test]
async fn what_job_left_out_is_read_when_it_tells() {
    let world = World::start_with(without_tail_check).await;
    let mut browser = world.v1_client().await;
    let mut job = Job::connect(&world).await;
    world.logic.add_public_room("a-room");
    join(&mut browser, "a-room").await;
    browser.next_of("joined").await;
    for mark in ["one", "two"] {
        world.logic.commit("a-room", &format!(r#"{{"type":"mark","payload":"{mark}"}}"#));
    }
    let target = Some(Target::Head(HeadPush { room_id: "a-room".to_owned() }));
    let push = Push { target, epoch: EPOCH, first_seq: 2, ..Push::default() };
    job.batches.send(Batch { id: 1, pushes: vec![push] }).await.expect("stream");
    for mark in ["one", "two"] {
        assert_eq!(browser.next_of("mark").await, mark);
    }
    job.until(|job| job.acked == 1).await;
}

#[tokio::test]
async fn too_many_rooms_want_everything() {
    let world = World::start_with(|config| {
        without_tail_check(config);
        config.limits.interest_rooms = 1;
    })
    .await;
    let mut browser = world.v1_client().await;
    let mut job = Job::connect(&world).await;
    job.until(|job| job.wants(&[ROOM])).await;
    world.logic.add_public_room("a-room");
    join(&mut browser, "a-room").await;
    browser.next_of("joined").await;
    job.until(|job| job.restarts == 1).await;
    assert!(!job.complete);
    let metrics = world.metrics_text().await;
    assert!(metrics.contains("\ncorecast_gateway_interest_restarts_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn switched_off_nothing_is_told() {
    let world = World::start_with(|config| config.limits.interest_rooms = 0).await;
    let _browser = world.v1_client().await;
    let mut job = Job::connect(&world).await;
    for id in 1..=3 {
        job.batches.send(Batch { id, pushes: Vec::new() }).await.expect("stream");
        job.until(|job| job.acked == id).await;
    }
    assert!(job.rooms.is_empty() && !job.complete);
}
