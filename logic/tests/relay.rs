//! Setup: a node whose log is not its outbox, but a list in this test that can be made to
//! fail. Claim: every committed record reaches the log in order, whatever the log does
//! meanwhile, and no row is left behind. Why it matters: the fast path may lose everything.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use corecast_backends::log::{LogError, LogProducer};
use corecast_backends::store::{AnyStore, CommitFrame, NewMessage, OutboxRecord, SeedRoom, Store};
use corecast_backends::url;
use corecast_logic::relay::Relay;
use corecast_logic::{Backends, Error, Logic, Metrics};
use corecast_proto::ids::RoomId;
use corecast_proto::job::PushMsg;
use prost::Message;
use support::{GENERAL, loopback, open, until};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const OWNER: &str = "node-a";

/// A log in memory.
#[derive(Clone, Default)]
struct TestLog(Arc<Mutex<TestLogState>>);

#[derive(Default)]
struct TestLogState {
    records: Vec<(String, Bytes)>,
    attempts: u64,
    /// Answers that are out, and the most there were.
    out: usize,
    out_max: usize,
    /// One was not taken: nor is what was enqueued behind it before its answer was seen.
    failing: bool,
    down: bool,
    /// Away like a server: nothing fails, no answer comes.
    silent: bool,
    /// Every n-th append is not taken, though it may be at the next try.
    fail_every: u64,
    /// Records that hold this are refused for good.
    poison: Option<&'static [u8]>,
}

impl LogProducer for TestLog {
    fn enqueue(
        &self,
        key: &RoomId,
        value: Bytes,
    ) -> impl Future<Output = Result<(), LogError>> + Send + use<> {
        let result = {
            let mut state = self.0.lock().unwrap();
            state.out += 1;
            state.out_max = state.out_max.max(state.out);
            state.take(key, value)
        };
        let log = self.0.clone();
        async move {
            tokio::task::yield_now().await;
            while log.lock().unwrap().silent {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let mut state = log.lock().unwrap();
            state.out -= 1;
            state.failing &= state.out > 0;
            result
        }
    }

    fn is_outbox(&self) -> bool {
        false
    }
}

impl TestLogState {
    fn take(&mut self, key: &RoomId, value: Bytes) -> Result<(), LogError> {
        self.attempts += 1;
        let fails = self.fail_every > 0 && self.attempts.is_multiple_of(self.fail_every);
        if self.down || self.failing || fails {
            self.failing = true;
            return Err(LogError::Unavailable("down".into()));
        }
        if self.poison.is_some_and(|poison| value.windows(poison.len()).any(|part| part == poison)) {
            return Err(LogError::Refused("malformed".into()));
        }
        self.records.push((key.to_string(), value));
        Ok(())
    }
}

impl TestLog {
    fn first_numbers(&self) -> Vec<i64> {
        let state = self.0.lock().unwrap();
        state.records.iter().map(|(_, value)| PushMsg::decode(value.clone()).unwrap().first_seq).collect()
    }

    fn set(&self, change: impl FnOnce(&mut TestLogState)) {
        change(&mut self.0.lock().unwrap());
    }
}

struct Setup {
    store: AnyStore,
    log: TestLog,
    metrics: Metrics,
    _backends: url::Backends,
    _dir: TempDir,
}

async fn setup() -> Setup {
    let dir = TempDir::new().unwrap();
    let backends = open(dir.path()).await;
    let store = backends.store.clone();
    let room = SeedRoom { id: GENERAL.into(), name: "General".into(), epoch: 1, now_ms: 1 };
    store.seed_rooms(&[room]).await.unwrap();
    Setup { store, log: TestLog::default(), metrics: Metrics::new(), _backends: backends, _dir: dir }
}

impl Setup {
    fn start(&self) -> (CancellationToken, JoinHandle<()>) {
        let stop = CancellationToken::new();
        let relay = Relay::new(self.store.clone(), self.log.clone(), OWNER.into(), self.metrics.clone());
        (stop.clone(), tokio::spawn(relay.run(stop)))
    }

    /// One commit, one row; the numbers of a room are the commits'.
    async fn commit(&self, owner: &str, content: &str) {
        let frame = CommitFrame {
            room_id: GENERAL.into(),
            user_id: "u".into(),
            username: "ann".into(),
            messages: vec![NewMessage {
                content: content.into(),
                key: format!("g:{}", uuid::Uuid::new_v4()),
            }],
            owner: owner.into(),
        };
        self.store.commit(vec![frame]).await.unwrap();
    }

    async fn rows(&self, owner: &str) -> usize {
        self.store.outbox(owner, 0, 10_000).await.unwrap().len()
    }
}

#[tokio::test]
async fn every_row_reaches_the_log_once_and_in_order() {
    let setup = setup().await;
    for n in 0..600 {
        setup.commit(OWNER, &format!("before the start {n}")).await;
    }
    let (stop, relay) = setup.start();
    for n in 0..50 {
        setup.commit(OWNER, &format!("while it runs {n}")).await;
    }
    until("650 records", async || setup.log.first_numbers().len() >= 650).await;
    until("no rows are left", async || setup.rows(OWNER).await == 0).await;
    assert_eq!(setup.log.first_numbers(), (1..=650).collect::<Vec<i64>>());
    let text = setup.metrics.text();
    assert!(text.contains("corecast_logic_relay_appended_records_total 650"), "{text}");
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn rows_wait_while_the_log_is_down_and_keep_their_order() {
    let setup = setup().await;
    setup.log.set(|log| log.down = true);
    let (stop, relay) = setup.start();
    for n in 0..20 {
        setup.commit(OWNER, &format!("{n}")).await;
    }
    until("a failed attempt", async || !setup.metrics.text().contains("relay_failed_attempts_total 0")).await;
    assert_eq!(setup.rows(OWNER).await, 20);
    setup.log.set(|log| log.down = false);
    until("20 records", async || setup.log.first_numbers().len() >= 20).await;
    assert_eq!(setup.log.first_numbers(), (1..=20).collect::<Vec<i64>>());
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn a_log_that_fails_now_and_then_loses_nothing() {
    let setup = setup().await;
    setup.log.set(|log| log.fail_every = 7);
    for n in 0..100 {
        setup.commit(OWNER, &format!("{n}")).await;
    }
    let (stop, relay) = setup.start();
    until("100 records", async || setup.log.first_numbers().len() >= 100).await;
    until("no rows are left", async || setup.rows(OWNER).await == 0).await;
    let numbers = setup.log.first_numbers();
    assert_eq!(numbers, (1..=100).collect::<Vec<i64>>(), "each once, nothing around a failed one");
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn a_record_that_is_refused_for_good_is_put_aside_and_the_rest_goes_on() {
    let setup = setup().await;
    setup.log.set(|log| log.poison = Some(b"poison"));
    for content in ["one", "poison", "three"] {
        setup.commit(OWNER, content).await;
    }
    let (stop, relay) = setup.start();
    until("no rows are left", async || setup.rows(OWNER).await == 0).await;
    assert_eq!(setup.log.first_numbers(), [1, 3]);
    let letters = setup.store.dead_letters(10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].room_id.as_str(), letters[0].reason.as_str()), (GENERAL, "malformed"));
    assert!(setup.metrics.text().contains("corecast_logic_relay_dead_letter_records_total 1"));
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_away_holds_a_window_of_rows_and_the_rest_waits_in_the_store() {
    let setup = setup().await;
    setup.log.set(|log| log.silent = true);
    for n in 0..1_500 {
        setup.commit(OWNER, &format!("{n}")).await;
    }
    let (stop, relay) = setup.start();
    until("the window is full", async || setup.log.0.lock().unwrap().out >= 1_024).await;
    until("the backlog shows", async || {
        setup.metrics.text().contains("corecast_logic_relay_backlog_rows 1500")
    })
    .await;
    assert_eq!(setup.rows(OWNER).await, 1_500);
    setup.log.set(|log| log.silent = false);
    until("no rows are left", async || setup.rows(OWNER).await == 0).await;
    assert_eq!(setup.log.first_numbers(), (1..=1_500).collect::<Vec<i64>>(), "each once");
    assert_eq!(setup.log.0.lock().unwrap().out_max, 1_024, "never more at a time");
    until("the backlog is gone", async || {
        setup.metrics.text().contains("corecast_logic_relay_backlog_rows 0")
    })
    .await;
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn rows_that_appear_below_those_that_are_settled_are_found() {
    let setup = setup().await;
    // Lower ids, first of another node.
    for n in 0..5 {
        setup.commit("node-b", &format!("theirs {n}")).await;
    }
    let (stop, relay) = setup.start();
    setup.commit(OWNER, "ours").await;
    until("our record", async || setup.log.first_numbers() == [6]).await;
    setup.store.claim_outbox("node-b", OWNER, 100).await.unwrap();
    until("theirs, too", async || setup.log.first_numbers() == [6, 1, 2, 3, 4, 5]).await;
    until("no rows are left", async || setup.rows(OWNER).await == 0).await;
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn rows_of_another_owner_are_left_alone() {
    let setup = setup().await;
    setup.commit("node-b", "not ours").await;
    let (stop, relay) = setup.start();
    setup.commit(OWNER, "ours").await;
    until("our record", async || !setup.log.first_numbers().is_empty()).await;
    until("no rows of ours are left", async || setup.rows(OWNER).await == 0).await;
    assert_eq!(setup.log.first_numbers(), [2]);
    assert_eq!(setup.rows("node-b").await, 1);
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn a_restarted_relay_goes_on_where_the_last_one_ended() {
    let setup = setup().await;
    setup.log.set(|log| log.down = true);
    let (stop, relay) = setup.start();
    setup.commit(OWNER, "left behind").await;
    stop.cancel();
    relay.await.unwrap();
    setup.log.set(|log| log.down = false);
    let (stop, relay) = setup.start();
    let record = OutboxRecord { room_id: "u-1".into(), owner: OWNER.into(), value: Bytes::new() };
    setup.store.append_outbox(record).await.unwrap();
    until("both records", async || setup.log.first_numbers() == [1, 0]).await;
    stop.cancel();
    relay.await.unwrap();
}

#[tokio::test]
async fn a_node_relays_what_it_commits_under_its_own_id() {
    let dir = TempDir::new().unwrap();
    let url::Backends { store, hotset, bus, registry, .. } = open(dir.path()).await;
    let log = TestLog::default();
    let backends = || Backends {
        store: store.clone(),
        hotset: hotset.clone(),
        producer: log.clone(),
        bus: bus.clone(),
        registry: registry.clone(),
    };
    let nameless = Logic::bind(loopback(), backends()).await.map(|_| ());
    assert!(matches!(nameless, Err(Error::Config(_))), "rows must belong to somebody after a restart");

    let config = corecast_logic::Config { id: Some(OWNER.into()), ..loopback() };
    let logic = Logic::bind(config, backends()).await.unwrap();
    let http = format!("http://{}", logic.http_addr());
    let stop = CancellationToken::new();
    let running = tokio::spawn(logic.run(stop.clone()));
    let client = reqwest::Client::new();
    let post = async |path: &str, body: serde_json::Value| {
        let response = client.post(format!("{http}{path}")).body(body.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    };
    let sid =
        post("/logic/register", serde_json::json!({"username":"ann","email":"a@x","password":"p"})).await;
    let user: serde_json::Value =
        serde_json::from_str(&post("/logic/verify", serde_json::json!({"cookie": sid})).await).unwrap();
    let user_id = &user["user_id"];
    post(
        "/logic/send",
        serde_json::json!({"roomId": GENERAL, "userId": user_id, "messages": [{"content":"x"}]}),
    )
    .await;
    post("/logic/room/create", serde_json::json!({"roomName": "new", "creatorId": user_id})).await;
    until("two records", async || log.first_numbers().len() == 2).await;
    let keys: Vec<String> = log.0.lock().unwrap().records.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, [GENERAL, "global"]);
    stop.cancel();
    running.await.unwrap().unwrap();
}
