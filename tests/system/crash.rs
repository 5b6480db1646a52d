//! Setup: the real process, killed with `kill -9` while messages are in flight. Claim: every
//! acknowledged message reaches a resuming client once and in order; a start is fast; an
//! ack costs at most one write to the disk. Why it matters: that is what an ack means.

use std::time::{Duration, Instant};

use corecast_checker::Recorder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{Account, Browser, Corecast, GENERAL, Setup, eventually, folder};

/// A user who goes on talking over crashes: what was not acknowledged is sent again.
struct Survivor {
    account: Account,
    recorder: Recorder,
    browser: Option<Browser>,
    cursors: Vec<(String, u64, u64)>,
    /// (key, content) without an ack.
    unacked: Vec<(String, String)>,
    sent: usize,
}

impl Survivor {
    async fn connect(&mut self, corecast: &Corecast) {
        let knock = Browser::knock(corecast.http(), &self.account.sid).resume(self.cursors.clone());
        let mut browser = knock.recorded(&self.recorder, &self.account.username).open().await;
        browser.hello().await;
        for (key, content) in &self.unacked {
            browser.say_keyed(GENERAL, key, content).await;
        }
        self.browser = Some(browser);
    }

    /// Sends until the connection ends.
    async fn talk_until_the_end(&mut self, pause: Duration) {
        let mut browser = self.browser.take().expect("connected");
        loop {
            let (key, content) =
                (format!("k{}", self.sent), format!("{} {}", self.account.username, self.sent));
            browser.say_keyed(GENERAL, &key, &content).await;
            self.unacked.push((key, content));
            self.sent += 1;
            tokio::time::sleep(pause).await;
            if self.take_acks(&mut browser).await {
                self.cursors = browser.cursors();
                return;
            }
        }
    }

    /// Takes what has arrived; true once the connection is gone.
    async fn take_acks(&mut self, browser: &mut Browser) -> bool {
        while let Ok(seen) = tokio::time::timeout(Duration::ZERO, browser.next()).await {
            let crate::support::Seen::Text(text) = seen else { return true };
            let frame: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            for acked in frame["payload"]["messages"].as_array().into_iter().flatten() {
                self.unacked.retain(|(key, _)| acked["clientMessageId"] != key.as_str());
            }
        }
        false
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_once_and_in_order() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(2024);
    println!("SEED={seed} cargo test --test system crash::what_was");
    let mut random = StdRng::seed_from_u64(seed);
    let data = folder();
    let recorder = Recorder::new();
    let mut corecast = Corecast::up(data.path()).await;
    let mut survivors = Vec::new();
    for name in ["ann", "bob", "eve"] {
        let account = corecast.account(name).await;
        let (cursors, unacked) = (Vec::new(), Vec::new());
        survivors.push(Survivor {
            account,
            recorder: recorder.clone(),
            browser: None,
            cursors,
            unacked,
            sent: 0,
        });
    }
    for _round in 0..3 {
        for survivor in &mut survivors {
            survivor.connect(&corecast).await;
        }
        let pause = Duration::from_micros(random.random_range(200..3_000));
        let killed_after = Duration::from_millis(random.random_range(150..600));
        let talking = survivors.iter_mut().map(|survivor| survivor.talk_until_the_end(pause));
        let killing = async {
            tokio::time::sleep(killed_after).await;
            corecast.kill();
        };
        futures::future::join(futures::future::join_all(talking), killing).await;
        corecast = Corecast::up(data.path()).await;
    }
    for survivor in &mut survivors {
        survivor.connect(&corecast).await;
    }
    let sent: usize = survivors.iter().map(|survivor| survivor.sent).sum();
    eventually("what was in flight is acknowledged at last", || async {
        recorder.acknowledged_count() == sent as u64
    })
    .await;
    let head = recorder.head(GENERAL);
    for survivor in &survivors {
        let name = &survivor.account.username;
        eventually("everybody is complete", || async { recorder.has_reached(name, GENERAL, head) }).await;
    }
    let verdict = recorder.judge();
    println!("three kills: {verdict}");
    verdict.expect_clean();
    assert_eq!(head, sent as u64, "each message is stored once");
    assert!(sent > 100, "there was something in flight: {sent}");
}

#[tokio::test]
async fn a_first_message_is_acknowledged_within_a_second_of_exec() {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let ann = corecast.account("ann").await;
    let mut browser = Browser::knock(corecast.http(), &ann.sid).v1().open().await;
    browser.hello().await;
    for index in 0..200 {
        browser.say_keyed(GENERAL, &format!("old {index}"), "an existing data folder").await;
        browser.frame("ack").await;
    }
    let cursors = browser.cursors();
    corecast.kill();

    // Of three starts the best: the claim is about the start, not about what else this
    // machine does at the moment.
    let mut best = Duration::MAX;
    for attempt in 0..3 {
        let start = Instant::now();
        let corecast = Corecast::up(data.path()).await;
        let mut browser = Browser::knock(corecast.http(), &ann.sid).resume(cursors.clone()).open().await;
        browser.say_keyed(GENERAL, &format!("first {attempt}"), "the first message").await;
        browser.frame("ack").await;
        best = best.min(start.elapsed());
        corecast.kill();
    }
    println!("exec to first ack: {best:?}");
    assert!(best < Duration::from_secs(1), "exec to first ack: {best:?}");
}

#[tokio::test]
async fn an_ack_costs_at_most_one_write_to_the_disk() {
    if !program_exists("strace") {
        println!("not run: strace is not installed; `make test` installs it");
        return;
    }
    let data = folder();
    let trace = folder();
    let file = trace.path().join("trace");
    let path = file.to_str().expect("a plain name");
    // -D: strace is the grandchild, so that the process we start and end is corecast.
    let arguments =
        ["-D", "-f", "-ttt", "-e", "trace=fsync,fdatasync,sync_file_range,msync,sync", "-o", path];
    let corecast = Setup::new(data.path()).under("strace", &arguments).start().await;
    let mut browsers = Vec::new();
    for index in 0..4 {
        let account = corecast.account(&format!("user-{index}")).await;
        let mut browser = Browser::knock(corecast.http(), &account.sid).v1().open().await;
        browser.hello().await;
        browsers.push(browser);
    }
    // Job has taken over everything that came before, and the store is at rest.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let (from, start) = (seconds_since_1970(), Instant::now());
    let mut acked = 0;
    for index in 0..100 {
        for browser in &mut browsers {
            browser.say_keyed(GENERAL, &format!("k{index}"), "durable").await;
        }
        for browser in &mut browsers {
            browser.frame("ack").await;
            acked += 1;
        }
    }
    // Deletions of what was pushed ride at most once a second.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let (to, seconds) = (seconds_since_1970(), start.elapsed().as_secs() + 1);
    corecast.terminate();
    assert!(corecast.ended().await.success());
    let text = std::fs::read_to_string(&file).expect("strace wrote its file");
    let times = text.lines().filter(|line| line.contains("sync(") || line.contains("sync_file_range("));
    let syncs = times
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok())
        .filter(|time| (from..to).contains(time))
        .count() as u64;
    println!("{syncs} syncs for {acked} acknowledged messages in {seconds} s");
    assert!(syncs > 0, "strace saw the store at work:\n{text}");
    assert!(syncs <= acked + seconds, "{syncs} syncs for {acked} acks in {seconds} s");
}

fn program_exists(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(name).is_file())
}

fn seconds_since_1970() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_secs_f64()
}
