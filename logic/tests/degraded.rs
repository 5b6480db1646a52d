//! Setup: a node whose hot set answers nothing, or whose store waits, fails or forgets to
//! answer. Claim: everything stays correct, and what may be repeated is stored once. Why it
//! matters: parts do die.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use corecast_backends::hotset::{CachedSession, GatewayRoute, HotSet, HotSetError, SessionEntry};
use corecast_backends::store::*;
use corecast_backends::url;
use corecast_logic::{Backends, Error, Logic, Metrics};
use corecast_proto::ids::{Position, RoomId};
use corecast_proto::logic::logic_client::LogicClient;
use corecast_proto::logic::{
    HelloRequest, HistoryRequest, LogoutRequest, RegisterRequest, RouteRequest, SendRequest, VerifyRequest,
};
use support::{GENERAL, User, frame, loopback, open, seqs, until};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// A hot set that is down.
#[derive(Clone)]
struct Down;

macro_rules! down {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl HotSet for Down {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer, HotSetError> {
                $(let _ = $argument;)*
                Err(HotSetError("down".into()))
            })*
        }
    };
}

down! {
    fn session(hash: &SessionHash) -> SessionEntry;
    fn fill_session(hash: &SessionHash, session: CachedSession, ttl: Duration) -> ();
    fn revoke_session(hash: &SessionHash) -> ();
    fn history(room_id: &RoomId, epoch: u64, before: u64, count: u32) -> Option<(u64, Vec<Message>)>;
    fn append_history(room_id: &RoomId, epoch: u64, messages: &[Message]) -> ();
    fn begin_rebuild(room_id: &RoomId, ttl: Duration) -> bool;
    fn rebuild_history(room_id: &RoomId, head: Position, messages: &[Message]) -> ();
    fn is_unknown_room(room_id: &str) -> bool;
    fn mark_unknown_room(room_id: &str) -> ();
    fn set_route(user_id: &str, gateway: &GatewayRoute) -> ();
    fn drop_route(user_id: &str, gateway: &GatewayRoute) -> ();
    fn routes(user_id: &str) -> Vec<GatewayRoute>;
    fn push_offline(user_id: &str, frame: Bytes, max: usize) -> ();
    fn take_offline(user_id: &str) -> Vec<Bytes>;
}

/// A store whose commits wait for a permit, and may lose their answer.
#[derive(Clone)]
struct Gated {
    inner: AnyStore,
    gate: Arc<Semaphore>,
    loses_answers: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
    /// So many lookups of a room fail.
    failing_rooms: Arc<AtomicU32>,
}

macro_rules! gated {
    ($(fn $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl Store for Gated {
            $(async fn $name(&self, $($argument: $kind),*) -> $answer {
                self.inner.$name($($argument),*).await
            })*

            async fn room(&self, room_id: &str) -> Result<Option<Room>, StoreError> {
                let left = self.failing_rooms.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                if left.is_ok() {
                    return Err(StoreError::Unavailable("refused".into()));
                }
                self.inner.room(room_id).await
            }

            async fn commit(&self, frames: Vec<CommitFrame>) -> Result<Vec<FrameOutcome>, StoreError> {
                self.gate.acquire().await.unwrap().forget();
                if self.refuses.load(Ordering::SeqCst) {
                    return Err(StoreError::Unavailable("refused".into()));
                }
                let outcomes = self.inner.commit(frames).await?;
                match self.loses_answers.load(Ordering::SeqCst) {
                    true => Err(StoreError::Unknown("the answer was lost".into())),
                    false => Ok(outcomes),
                }
            }
        }
    };
}

gated! {
    fn create_user(user: NewUser) -> Result<CreateUser, StoreError>;
    fn user_by_email(email_folded: &str) -> Result<Option<corecast_backends::store::User>, StoreError>;
    fn put_session(hash: SessionHash, user_id: &str, expires_ms: i64) -> Result<(), StoreError>;
    fn sessions(hashes: &[SessionHash], now_ms: i64) -> Result<Vec<Option<Session>>, StoreError>;
    fn extend_session(hash: SessionHash, expires_ms: i64) -> Result<(), StoreError>;
    fn delete_session(hash: SessionHash) -> Result<(), StoreError>;
    fn delete_expired_sessions(now_ms: i64) -> Result<u64, StoreError>;
    fn seed_rooms(rooms: &[SeedRoom]) -> Result<(), StoreError>;
    fn create_room(room: NewRoom) -> Result<CreateRoom, StoreError>;
    fn user(user_id: &str) -> Result<Option<corecast_backends::store::User>, StoreError>;
    fn rooms() -> Result<Vec<Room>, StoreError>;
    fn snapshot(query: SnapshotQuery) -> Result<Snapshot, StoreError>;
    fn heads(room_ids: &[RoomId], defaults: bool) -> Result<Vec<Head>, StoreError>;
    fn messages_before(room_id: &str, before: u64, count: u32) -> Result<Option<Page>, StoreError>;
    fn messages_after(room_id: &str, after: u64, up_to: u64, count: u32, max_bytes: usize) -> Result<Option<Page>, StoreError>;
    fn creations_after(after: u64, up_to: u64, count: u32) -> Result<(Position, Vec<Room>), StoreError>;
    fn append_outbox(record: OutboxRecord) -> Result<u64, StoreError>;
    fn outbox(owner: &str, after: u64, limit: u32) -> Result<Vec<OutboxRow>, StoreError>;
    fn outbox_changed() -> ();
    fn delete_outbox(ids: Vec<u64>) -> Result<(), StoreError>;
    fn outbox_owners() -> Result<Vec<OutboxOwner>, StoreError>;
    fn claim_outbox(owner: &str, claimant: &str, limit: u32) -> Result<u64, StoreError>;
    fn put_dead_letter(letter: DeadLetter) -> Result<(), StoreError>;
    fn dead_letters(limit: u32) -> Result<Vec<DeadLetter>, StoreError>;
    fn new_epoch(now_ms: u64) -> Result<u64, StoreError>;
}

struct Running {
    grpc: LogicClient<Channel>,
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
    _dir: TempDir,
}

async fn run<S: Store, H: HotSet>(store: S, hotset: H, opened: url::Backends, dir: TempDir) -> Running {
    let url::Backends { producer, bus, registry, .. } = opened;
    let backends = Backends { store, hotset, producer, bus, registry };
    let logic = Logic::bind(loopback(), backends).await.unwrap();
    let (addr, metrics, stop) = (logic.grpc_addr(), logic.metrics(), CancellationToken::new());
    let task = tokio::spawn(logic.run(stop.clone()));
    let grpc = LogicClient::connect(format!("http://{addr}")).await.unwrap();
    Running { grpc, metrics, stop, task, _dir: dir }
}

impl Running {
    async fn user(&self) -> User {
        let request = RegisterRequest { username: "ann".into(), email: "a@x".into(), password: "p".into() };
        let reply = self.grpc.clone().register(request).await.unwrap().into_inner();
        assert_eq!(reply.refusal, None);
        User {
            id: reply.user_id,
            username: "ann".into(),
            email: "a@x".into(),
            password: "p".into(),
            sid: reply.sid,
        }
    }

    fn lane_frames(&self) -> f64 {
        let text = self.metrics.text();
        let line = text.lines().find(|line| line.starts_with("corecast_logic_lane_frames "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn counted(&self, line: &str) -> bool {
        self.metrics.text().lines().any(|counted| counted == line)
    }
}

async fn gated() -> (Running, Gated, User) {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path()).await;
    let store = Gated {
        inner: opened.store.clone(),
        gate: Arc::new(Semaphore::new(0)),
        loses_answers: Arc::default(),
        refuses: Arc::default(),
        failing_rooms: Arc::default(),
    };
    let hotset = opened.hotset.clone();
    let node = run(store.clone(), hotset, opened, dir).await;
    let user = node.user().await;
    (node, store, user)
}

#[tokio::test]
async fn without_a_hot_set_everything_works_and_nobody_is_logged_out() {
    let dir = TempDir::new().unwrap();
    let opened = open(dir.path()).await;
    let node = run(opened.store.clone(), Down, opened, dir).await;
    let user = node.user().await;
    let mut grpc = node.grpc.clone();
    let verify = VerifyRequest { sids: vec![user.sid.clone()], from_store: false };
    assert!(grpc.verify(verify.clone()).await.unwrap().into_inner().sessions[0].valid);

    let frames = vec![frame(GENERAL, &user, &[("a", "c:1"), ("b", "c:2")])];
    let results = grpc.send(SendRequest { frames }).await.unwrap().into_inner().results;
    assert_eq!(results[0].messages.len(), 2);
    for _ in 0..2 {
        let page = HistoryRequest { room_id: GENERAL.into(), user_id: user.id.clone(), ..Default::default() };
        let reply = grpc.history(page).await.unwrap().into_inner();
        let json: serde_json::Value = serde_json::from_slice(&reply.frame).unwrap();
        assert_eq!(seqs(&json["payload"]["messages"]), [1, 2]);
    }
    let hello = HelloRequest { user_id: user.id.clone(), defaults: true, ..Default::default() };
    assert_eq!(grpc.hello(hello).await.unwrap().into_inner().rooms[0].last_seq, 2);
    let route = RouteRequest { gateway_id: "g".into(), incarnation: 1, user_ids: vec![user.id.clone()] };
    grpc.set_route(route.clone()).await.unwrap();
    grpc.drop_route(route).await.unwrap();

    grpc.logout(LogoutRequest { sid: user.sid.clone() }).await.unwrap();
    assert!(!grpc.verify(verify).await.unwrap().into_inner().sessions[0].valid);
    assert!(!node.counted("corecast_logic_hotset_failed_calls_total 0"));
}

#[tokio::test]
async fn sends_that_wait_together_are_committed_together() {
    let (node, store, user) = gated().await;
    let send = |n: usize| {
        let (mut grpc, frames) = (node.grpc.clone(), vec![frame(GENERAL, &user, &[("x", format!("c:{n}"))])]);
        tokio::spawn(async move { grpc.send(SendRequest { frames }).await.unwrap().into_inner() })
    };
    let mut sends = vec![send(0)];
    until("the first is in its commit", async || node.lane_frames() == 1.0).await;
    sends.extend((1..=50).map(send));
    until("the others wait", async || node.lane_frames() == 51.0).await;
    store.gate.add_permits(2);
    let mut numbers = Vec::new();
    for send in sends {
        numbers.push(send.await.unwrap().results[0].messages[0].seq);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=51).collect::<Vec<u64>>());
    assert!(node.counted("corecast_logic_commit_seconds_count 2"), "{}", node.metrics.text());
}

#[tokio::test]
async fn a_full_lane_refuses_at_once_and_counts() {
    let (node, store, user) = gated().await;
    let frames = |group: usize| -> Vec<_> {
        (0..1024).map(|n| frame(GENERAL, &user, &[("x", format!("c:{group}-{n}"))])).collect()
    };
    let waiting: Vec<_> = (0..8)
        .map(|group| {
            let (mut grpc, frames) = (node.grpc.clone(), frames(group));
            tokio::spawn(async move { grpc.send(SendRequest { frames }).await.unwrap().into_inner() })
        })
        .collect();
    until("the lane is full", async || node.lane_frames() == 8192.0).await;
    let one = SendRequest { frames: vec![frame(GENERAL, &user, &[("x", "c:more")])] };
    let refused = node.grpc.clone().send(one.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert_eq!(refused.metadata().get("retry-after-ms").unwrap(), "1000");
    assert!(node.counted("corecast_logic_lane_refused_frames_total 1"));
    store.gate.add_permits(100);
    for send in waiting {
        assert!(send.await.unwrap().results.iter().all(|result| result.refusal.is_none()));
    }
    let stored = node.grpc.clone().send(one).await.unwrap().into_inner();
    assert_eq!(stored.results[0].messages[0].seq, 8193);
}

#[tokio::test]
async fn a_lost_answer_is_unavailable_and_its_repeat_is_stored_once() {
    let (node, store, user) = gated().await;
    store.gate.add_permits(100);
    store.loses_answers.store(true, Ordering::SeqCst);
    let request = SendRequest { frames: vec![frame(GENERAL, &user, &[("a", "c:1"), ("b", "c:2")])] };
    let lost = node.grpc.clone().send(request.clone()).await.unwrap_err();
    assert_eq!(lost.code(), tonic::Code::Unavailable);
    store.loses_answers.store(false, Ordering::SeqCst);
    let again = node.grpc.clone().send(request).await.unwrap().into_inner().results.remove(0);
    let seen: Vec<(u64, bool)> = again.messages.iter().map(|m| (m.seq, m.repeated_key)).collect();
    assert_eq!(seen, [(1, true), (2, true)]);
}

#[tokio::test]
async fn a_store_that_refuses_for_a_while_costs_no_number() {
    let (node, store, user) = gated().await;
    store.gate.add_permits(100);
    store.refuses.store(true, Ordering::SeqCst);
    let request = SendRequest { frames: vec![frame(GENERAL, &user, &[("a", "c:1")])] };
    for _ in 0..3 {
        let refused = node.grpc.clone().send(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
    }
    store.refuses.store(false, Ordering::SeqCst);
    let stored = node.grpc.clone().send(request).await.unwrap().into_inner();
    assert_eq!((stored.results[0].messages[0].seq, stored.results[0].messages[0].repeated_key), (1, false));
}

/// A gateway repeats the whole request: had its second frame been stored at the first try, the
/// first one would be numbered behind it.
#[tokio::test]
async fn nothing_is_stored_of_a_request_with_a_frame_that_cannot_be_checked() {
    let (node, store, user) = gated().await;
    store.gate.add_permits(100);
    store.failing_rooms.store(1, Ordering::SeqCst);
    let frames = vec![frame(GENERAL, &user, &[("a", "c:1")]), frame(GENERAL, &user, &[("b", "c:2")])];
    let request = SendRequest { frames };
    let refused = node.grpc.clone().send(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    let results = node.grpc.clone().send(request).await.unwrap().into_inner().results;
    let seen: Vec<(u64, bool)> =
        results.iter().map(|frame| (frame.messages[0].seq, frame.messages[0].repeated_key)).collect();
    assert_eq!(seen, [(1, false), (2, false)]);
}

#[tokio::test]
async fn a_send_under_way_is_answered_before_the_node_stops() {
    let (node, store, user) = gated().await;
    let (mut grpc, frames) = (node.grpc.clone(), vec![frame(GENERAL, &user, &[("x", "c:1")])]);
    let send = tokio::spawn(async move { grpc.send(SendRequest { frames }).await });
    until("it is in its commit", async || node.lane_frames() == 1.0).await;
    node.stop.cancel();
    store.gate.add_permits(1);
    let reply = send.await.unwrap().unwrap().into_inner();
    assert_eq!(reply.results[0].messages[0].seq, 1);
    tokio::time::timeout(support::DEADLINE, node.task).await.unwrap().unwrap().unwrap();
}
