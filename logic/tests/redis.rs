//! Setup: nodes whose hot set and bus are a Redis of the test's own, which is killed, emptied
//! and started again under them. Claim: logins, sends and history go on from the store, what
//! Redis knew is never believed over it, and nothing of ours has to be started again. Why it
//! matters: Redis is allowed to die.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::url::{Backends, open_bus, open_hotset};
use corecast_logic::Logic;
use corecast_proto::logic::{HelloRequest, LogoutRequest, SendRequest, VerifyRequest};
use serde_json::json;
use support::{GENERAL, Running, User, frame, loopback, open, seqs, until};
use tempfile::TempDir;

/// What one answer may take while Redis is dead: one time-out, and much for a busy machine.
const ANSWER: Duration = Duration::from_secs(5);

/// A private Redis; stopped when dropped.
struct Redis {
    folder: TempDir,
    port: u16,
}

impl Redis {
    /// `None` and a line that says so: tests with engines are not wanted here.
    fn start() -> Option<Self> {
        if std::env::var("CORECAST_TEST_REDIS").is_err() {
            println!("not run: CORECAST_TEST_REDIS is not set");
            return None;
        }
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let redis = Self { folder: TempDir::new().unwrap(), port };
            // Somebody else may have taken the port meanwhile.
            if redis.script(&["start", redis.path(), &port.to_string()]) {
                return Some(redis);
            }
        }
        panic!("no Redis starts");
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn kill(&self) {
        assert!(self.script(&["kill", self.path()]));
    }

    fn restart(&self) {
        assert!(self.script(&["restart", self.path()]));
    }

    fn flush(&self) {
        assert!(self.script(&["cli", self.path(), "--", "flushall"]));
    }

    fn script(&self, arguments: &[&str]) -> bool {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/middleware/redis");
        Command::new(script).args(arguments).output().unwrap().status.success()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.script(&["stop", self.path()]);
    }
}

/// A node on the store of `embedded`, with Redis beside it.
async fn node(embedded: &Backends, redis: &Redis, dir: &Arc<TempDir>) -> Running {
    let mut backends = embedded.clone();
    backends.hotset = open_hotset(&redis.url()).unwrap();
    backends.bus = open_bus(&redis.url()).unwrap();
    let logic = Logic::bind(loopback(), corecast_logic::Backends::from(backends.clone())).await.unwrap();
    Running::start(logic, backends, Arc::clone(dir)).await
}

async fn is_valid(node: &Running, user: &User) -> bool {
    let request = VerifyRequest { sids: vec![user.sid.clone()], from_store: false };
    let verify = async { node.grpc.clone().verify(request).await.unwrap().into_inner() };
    quick(verify).await.sessions[0].valid
}

async fn quick<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER, answer).await.expect("the answer comes quickly")
}

async fn say(node: &Running, user: &User, key: &str) -> u64 {
    let frames = vec![frame(GENERAL, user, &[("x", key)])];
    let sent = async { node.grpc.clone().send(SendRequest { frames }).await.unwrap().into_inner() };
    quick(sent).await.results[0].messages[0].seq
}

/// All that people do, each quickly; answers the number of the last message.
async fn everything_works(node: &Running, user: &User, round: &str) -> u64 {
    let mut last = 0;
    let begin = Instant::now();
    for n in 0..20 {
        last = say(node, user, &format!("c:{round}-{n}")).await;
    }
    assert!(begin.elapsed() < ANSWER * 2, "20 sends took {:?}", begin.elapsed());
    for _ in 0..3 {
        let page = quick(node.newest(GENERAL, user, 10)).await;
        assert_eq!(seqs(&page["messages"]), (last - 9..=last).collect::<Vec<u64>>(), "{round}");
    }
    assert!(is_valid(node, user).await, "{round}: nobody is logged out");
    let login = json!({"email": user.email, "password": user.password}).to_string();
    let answer = node.post("/logic/login", login).await;
    assert_eq!(answer.status, 200, "{round}: {}", answer.text);
    let hello = HelloRequest { user_id: user.id.clone(), defaults: true, ..Default::default() };
    let reply = quick(node.grpc.clone().hello(hello)).await.unwrap().into_inner();
    assert_eq!(reply.rooms[0].last_seq, last);
    last
}

fn cached_pages(node: &Running) -> f64 {
    node.metric("corecast_logic_history_pages_total{source=\"cache\"}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_sends_and_history_go_on_while_redis_is_killed_emptied_and_back() {
    let Some(redis) = Redis::start() else { return };
    let dir = Arc::new(TempDir::new().unwrap());
    let embedded = open(dir.path()).await;
    let node = node(&embedded, &redis, &dir).await;
    let user = node.user().await;
    everything_works(&node, &user, "before").await;
    assert!(cached_pages(&node) > 0.0, "pages come from Redis");

    let leaves = node.user().await;
    assert!(is_valid(&node, &leaves).await, "and it is cached");
    redis.kill();
    everything_works(&node, &user, "killed").await;
    assert!(node.metric("corecast_logic_hotset_failed_calls_total") > 0.0);
    node.grpc.clone().logout(LogoutRequest { sid: leaves.sid.clone() }).await.unwrap();
    assert!(!is_valid(&node, &leaves).await);

    redis.restart();
    let back = async || node.backends.hotset.routes("u").await.is_ok();
    until("Redis is used again", back).await;
    assert!(!is_valid(&node, &leaves).await, "what Redis remembered is not believed");
    let before = cached_pages(&node);
    everything_works(&node, &user, "back").await;
    assert!(cached_pages(&node) > before, "pages come from Redis again");

    redis.flush();
    everything_works(&node, &user, "emptied").await;
    assert!(!is_valid(&node, &leaves).await);
    let last = everything_works(&node, &user, "after all").await;
    assert_eq!(last, 100, "every send took one number");
    let text = node.get("/metrics").await.text;
    for name in ["hotset_hits_total", "hotset_misses_total", "hotset_errors_total"] {
        assert!(!text.contains(&format!("corecast_logic_{name} 0\n")), "{name} is counted:\n{text}");
    }
    assert!(node.backends.bus.counters().dropped > 0, "frames were dropped while it was dead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_while_redis_is_dead_and_uses_it_when_it_is_there() {
    let Some(redis) = Redis::start() else { return };
    redis.kill();
    let dir = Arc::new(TempDir::new().unwrap());
    let embedded = open(dir.path()).await;
    let node = node(&embedded, &redis, &dir).await;
    let user = node.user().await;
    everything_works(&node, &user, "dead").await;
    redis.restart();
    let cached = async || {
        quick(node.newest(GENERAL, &user, 10)).await;
        cached_pages(&node) > 0.0
    };
    until("pages come from Redis", cached).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ended_on_one_node_is_ended_on_the_other_at_once() {
    let Some(redis) = Redis::start() else { return };
    let dir = Arc::new(TempDir::new().unwrap());
    let embedded = open(dir.path()).await;
    let (one, other) = (node(&embedded, &redis, &dir).await, node(&embedded, &redis, &dir).await);
    let user = one.user().await;
    assert!(is_valid(&one, &user).await && is_valid(&other, &user).await);
    one.grpc.clone().logout(LogoutRequest { sid: user.sid.clone() }).await.unwrap();
    assert!(!is_valid(&other, &user).await && !is_valid(&one, &user).await);
    // Both append to one list: it stays whole.
    let user = other.user().await;
    let mut last = 0;
    for n in 0..40 {
        let node = if n % 2 == 0 { &one } else { &other };
        last = say(node, &user, &format!("c:{n}")).await;
        if n % 10 == 9 {
            let page = quick(one.newest(GENERAL, &user, 5)).await;
            assert_eq!(seqs(&page["messages"]), (last - 4..=last).collect::<Vec<u64>>());
        }
    }
    assert_eq!(last, 40);
}
