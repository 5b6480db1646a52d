//! Setup: real shards on every host and way of sending, connections with something under
//! way, and a drain.
//! Claim: a drain takes nothing from anybody that was promised: queued frames arrive before
//! the close, requests under way get their answers, as long as the time allows; when it is
//! over, everybody has had a 1001.
//! Why it matters: a drain happens at every release; what it loses, users see.

mod hand_support;
mod shard_support;

use std::time::{Duration, Instant};

use corecast_gateway::config::Limits;
use corecast_gateway::core::{Command, Event};
use futures::SinkExt;
use hand_support::{ByHand, frames, masked};
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

/// Under virtual time: the talker sends every few milliseconds and is answered as quickly.
#[test]
fn a_client_that_talks_for_ever_is_closed_in_its_turn_and_loses_no_answer() {
    const WITHIN_MS: u64 = 10_000;
    let mut hand = ByHand::in_memory(Limits::default());
    let (talker, conn) = hand.browser(true, &[]);
    let (other, _) = hand.browser(true, &[]);
    let (mut said, mut forwarded, mut answers) = (0u32, Vec::new(), Vec::new());
    let (mut answered, mut stream, mut closed_ms) = (Vec::new(), Vec::new(), None);
    let mut forwarded_before = None;
    for now_ms in (0..2 * WITHIN_MS).step_by(5) {
        if now_ms == 1_000 {
            let within = Duration::from_millis(WITHIN_MS);
            hand.command(Command::Drain { within, notice: wire("draining") });
        }
        for _ in 0..3 {
            said += 1;
            hand.shard.driver_mut().send(talker, &masked(0x81, said.to_string().as_bytes()));
        }
        hand.at(now_ms);
        if now_ms == 1_000 {
            forwarded_before = Some(forwarded.len());
        }
        // Answers come 20 ms later.
        while let Some(event) = hand.event() {
            if let Event::Text { text, .. } = event {
                let text = String::from_utf8(text.to_vec()).expect("text");
                forwarded.push(text.clone());
                answers.push((now_ms + 20, text));
            }
        }
        for (_, text) in answers.extract_if(.., |(due, _)| *due <= now_ms) {
            hand.command(Command::Reply { conn, frames: vec![wire(&text)], settled: 1 });
        }
        hand.at(now_ms);
        stream.extend(hand.shard.driver_mut().take(talker));
        for (opcode, payload) in frames(&mut stream) {
            assert_eq!(closed_ms, None, "a frame behind the close");
            match opcode {
                0x1 if payload == b"draining" => {}
                0x1 => answered.push(String::from_utf8(payload).expect("text")),
                0x8 => {
                    assert_eq!(payload[..2], 1001u16.to_be_bytes());
                    closed_ms = Some(now_ms);
                }
                other => panic!("opcode {other}"),
            }
        }
    }
    // Its turn is the first slot's: the beginning of the drain, not its end.
    assert!(closed_ms.is_some_and(|at| (1_000..6_000).contains(&at)), "{closed_ms:?}");
    let (before, after) = (forwarded_before.expect("drained"), forwarded.len());
    assert!(before > 500 && after - before <= 16, "{before} texts before, {after} in all");
    assert_eq!(answered, forwarded, "each text that was taken was answered, in order");
    assert!(u32::try_from(after).is_ok_and(|after| after < said));
    assert!(hand.shard.driver_mut().is_closed(talker) && hand.shard.driver_mut().is_closed(other));
}

/// Under virtual time, and in a single command: far more than one send carries.
#[test]
fn what_a_pass_still_holds_is_sent_before_the_close() {
    const FRAMES: u64 = 20;
    let mut hand = ByHand::in_memory(Limits::default());
    let (peer, _) = hand.browser(true, &[]);
    let payload = "x".repeat(60 << 10);
    let last = (1..=FRAMES).map(|number| frame("lobby", true, number, wire(&payload))).collect();
    hand.command(Command::Frames(last));
    hand.command(Command::Drain { within: Duration::from_millis(10), notice: wire("draining") });
    hand.turn();
    // Its close is due, and most of what was said before the drain is not sent.
    hand.now_ms = 7;
    hand.turn();
    assert_eq!(hand.counters().open, 1);
    hand.turn_until_calm();
    hand.at(8);
    let mut stream = hand.shard.driver_mut().take(peer);
    let seen = frames(&mut stream);
    assert_eq!(seen.len() as u64, FRAMES + 2, "all of it, the notice, the close");
    assert!(seen[..FRAMES as usize].iter().all(|(_, text)| text.len() == payload.len()));
    assert_eq!((seen.last().expect("a close").0, hand.counters().demoted), (0x8, 0));
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
