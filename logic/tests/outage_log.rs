//! Setup: a node of several lanes whose hot set is not there, alone in its process, since what
//! is logged is looked at. Claim: the node says so once, however many lanes meet it. Why it
//! matters: an outage that is told by each part of a node hides what else happens.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use corecast_backends::url::open_hotset;
use corecast_logic::{Backends, Config, Logic};
use support::{Running, frame, loopback, open, until};
use tempfile::TempDir;

/// What is logged on this thread, which is that of the whole runtime.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_hot_set_that_is_away_is_logged_once_by_all_lanes_together() {
    const LANES: u32 = 8;
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let dir = Arc::new(TempDir::new().unwrap());
    let mut backends = open(dir.path()).await;
    // Bound and never served: nobody else gets the port, and nobody answers there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}?timeout_ms=10", nobody.local_addr().unwrap());
    backends.hotset = open_hotset(&url).unwrap();
    let config = Config { lanes: LANES, ..loopback() };
    let logic = Logic::bind(config, Backends::from(backends.clone())).await.unwrap();
    let node = Running::start(logic, backends, dir).await;
    let user = node.user().await;

    let mut frames = Vec::new();
    for n in 0..2 * LANES {
        let room = node.create_room(&format!("room {n}"), &user, &format!("g:{n}")).await;
        frames.push(frame(&room.room_id, &user, &[("x", "c:1")]));
    }
    let failed = || node.metric("corecast_logic_hotset_failed_calls_total");
    let before = failed();
    node.send(frames).await;
    let appends = f64::from(2 * LANES);
    until("every room's append has failed", async || failed() >= before + appends).await;
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("backend unreachable")).collect();
    let of_appends = told.iter().filter(|line| line.contains("hot set, appends")).count();
    assert_eq!(of_appends, 1, "{told:#?}");
}
