//! Setup: the real binary with its hot set and its fast path on a Redis of the test's own.
//! Claim: DESIGN §3.11: Redis may die and come back under people who talk; they miss nothing,
//! see nothing twice, and nobody has to start corecast again. Why it matters: the fast path is
//! what they feel, the log is what they get.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::http::{get, post};
use crate::support::{Browser, Corecast, GENERAL, Setup, eventually, folder, in_time};

/// A private Redis; stopped when dropped.
struct Redis {
    dir: tempfile::TempDir,
    port: u16,
}

impl Redis {
    /// `None`, and a line about it, where the engines are not there.
    fn start() -> Option<Self> {
        if std::env::var("CORECAST_TEST_REDIS").is_err() {
            println!("not run: CORECAST_TEST_REDIS is not set; scripts/with-middleware sets it");
            return None;
        }
        let redis = Self { dir: folder(), port: corecast_ports::free() };
        assert!(redis.run("start", &[&redis.port.to_string()]), "Redis starts");
        Some(redis)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&self) {
        assert!(self.run("kill", &[]), "killed");
    }

    fn restart(&self) {
        assert!(self.run("restart", &[]), "started again");
    }

    fn run(&self, verb: &str, more: &[&str]) -> bool {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/middleware/redis");
        let status = Command::new(script).arg(verb).arg(self.dir.path()).args(more).output();
        status.expect("bash is there").status.success()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.run("stop", &[]);
    }
}

async fn value_of(corecast: &Corecast, series: &str) -> f64 {
    let text = get(corecast.metrics(), "/metrics").await.expect("metrics answer").text;
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{series} is missing in\n{text}"))
}

/// Ann says something in each room, and both see it, with the next number.
async fn talk(ann: &mut Browser, bob: &mut Browser, rooms: &[&str], seq: &mut u64, count: u64) {
    for _ in 0..count {
        *seq += 1;
        for room in rooms {
            ann.say(room, &format!("message {seq}")).await;
            for browser in [&mut *ann, &mut *bob] {
                let message = browser.message(room).await;
                assert_eq!(message["seq"], *seq, "in {room}: nothing lost, nothing twice");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_comes_back_under_people_who_talk() {
    let Some(redis) = Redis::start() else { return };
    let data = folder();
    let setup = Setup::new(data.path()).set("hotset.url", redis.url()).set("bus.url", redis.url());
    let corecast = setup.start().await;
    let accounts = [corecast.account("ann").await, corecast.account("bob").await];
    let mut ann = Browser::knock(corecast.http(), &accounts[0].sid).open().await;
    let mut bob = Browser::knock(corecast.http(), &accounts[1].sid).open().await;
    ann.hello().await;
    bob.hello().await;
    let (mut seq, frames) = (0, "corecast_gateway_bus_frames_total");
    talk(&mut ann, &mut bob, &[GENERAL], &mut seq, 20).await;
    let before = value_of(&corecast, frames).await;
    assert!(before > 0.0, "they came by the fast path");

    redis.kill();
    talk(&mut ann, &mut bob, &[GENERAL], &mut seq, 20).await;
    let login = json!({"email": accounts[0].email, "password": accounts[0].password});
    let answer = in_time("a login", post(corecast.http(), "/api/login", &login)).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let mut late = Browser::knock(corecast.http(), &answer.sid()).open().await;
    assert_eq!(late.everything_up_to(GENERAL, seq).await.last().expect("messages")["seq"], seq);
    late.close().await;

    redis.restart();
    eventually("the gateway has checked its tails", || async {
        value_of(&corecast, "corecast_gateway_bus_interruptions_total").await > 0.0
    })
    .await;
    let between = value_of(&corecast, frames).await;
    let mut rounds = 0;
    while value_of(&corecast, frames).await == between {
        talk(&mut ann, &mut bob, &[GENERAL], &mut seq, 1).await;
        rounds += 1;
        assert!(rounds < 2000, "the fast path is used again");
    }
    talk(&mut ann, &mut bob, &[GENERAL], &mut seq, 20).await;
    let unreachable = corecast.output().lines_with("fast path subscription lost").len();
    assert_eq!(unreachable, 1, "logged once, not once per attempt");
}
