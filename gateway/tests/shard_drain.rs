//! Setup: real shards on every host and way of sending, connections with something under
//! way, and a drain.
//! Claim: a drain takes nothing from anybody that was promised: queued frames arrive before
//! the close, requests under way get their answers, as long as the time allows; when it is
//! over, everybody has had a 1001.
//! Why it matters: a drain happens at every release; what it loses, users see.

mod shard_support;

use std::time::{Duration, Instant};

use corecast_gateway::config::Limits;
use corecast_gateway::core::{Command, Event};
use futures::SinkExt;
use shard_support::{close_code, frame, next, on_each_host, text, wire};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_loses_no_queued_frame_of_a_slow_reader() {
    // Far more than the kernel takes, and none of it is dropped as too much.
    let limits = Limits { push_soft_bytes: 64 << 20, push_hard_bytes: 64 << 20, ..Limits::default() };
    on_each_host(limits, 1, async |mut gateway| {
        let (mut slow, _) = gateway.browser(true, &[]).await;
        let payload = "x".repeat(16 << 10);
        for number in 1..=400u64 {
            let frames = vec![frame("lobby", true, number, wire(&format!("{number} {payload}")))];
            gateway.command(0, Command::Frames(frames));
        }
        let within = Duration::from_secs(8);
        gateway.command(0, Command::Drain { within, notice: wire("draining") });
        gateway.until("queued", |counters| counters.deliveries == 400 && counters.writes_short > 0).await;
        for number in 1..=400 {
            assert!(text(&mut slow).await.starts_with(&format!("{number} ")));
        }
        assert_eq!(text(&mut slow).await, "draining");
        assert_eq!(close_code(&mut slow).await, Some(1001));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_answers_and_closes_behind_them() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let (mut asking, asking_conn) = gateway.browser(true, &[]).await;
        let (mut forgotten, _) = gateway.browser(false, &[]).await;
        let (mut idle, _) = gateway.browser(false, &[]).await;
        for browser in [&mut asking, &mut forgotten] {
            browser.send(Message::text("question")).await.expect("sent");
            assert!(matches!(gateway.event().await, Event::Text { .. }));
        }
        let within = Duration::from_secs(3);
        let begun = Instant::now();
        gateway.command(0, Command::Drain { within, notice: wire("draining") });
        // The walk has passed everybody once this one is closed.
        assert_eq!(close_code(&mut idle).await, Some(1001));
        gateway.until("closed", |counters| counters.connections == 2).await;
        assert_eq!(text(&mut asking).await, "draining");
        assert_eq!(gateway.counters().open, 2, "they wait for answers");
        let frames = vec![wire("answer")];
        gateway.command(0, Command::Reply { conn: asking_conn, frames, settled: 1 });
        assert_eq!(text(&mut asking).await, "answer");
        assert_eq!(close_code(&mut asking).await, Some(1001));
        assert!(begun.elapsed() < within, "behind its answer, not at the deadline");

        // Nobody answers this one: it is told in time.
        match next(&mut forgotten).await {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1001),
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() < within + Duration::from_millis(500));
        drop(forgotten);
        loop {
            match gateway.event().await {
                Event::Closed { session, .. } => assert!(session.is_some()),
                Event::Drained { .. } => break,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}
