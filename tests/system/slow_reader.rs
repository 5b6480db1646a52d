//! Setup: a browser that stops reading while much is said, and others who read. Claim: the
//! others are not delayed; the slow one keeps its connection and, once it reads again, holds
//! everything, or was told by `cut` what it does not. Why it matters: one phone in a tunnel
//! must cost nobody else anything, and itself nothing but time.

use std::time::{Duration, Instant};

use corecast_checker::Recorder;
use serde_json::{Value, json};

use crate::support::{Browser, Corecast, GENERAL, eventually, folder};

/// Kept small, so that little hides in the kernel.
const RECEIVE_BYTES: u32 = 8 << 10;

struct Stage {
    _data: tempfile::TempDir,
    corecast: Corecast,
    recorder: Recorder,
    writer: Browser,
    sid: String,
    said: u64,
}

async fn stage() -> Stage {
    let data = folder();
    let corecast = Corecast::up(data.path()).await;
    let (ann, bob) = (corecast.account("ann").await, corecast.account("bob").await);
    let recorder = Recorder::new();
    let knock = Browser::knock(corecast.http(), &ann.sid).v1().recorded(&recorder, "writer");
    let mut writer = knock.open().await;
    writer.hello().await;
    Stage { _data: data, corecast, recorder, writer, sid: bob.sid, said: 0 }
}

impl Stage {
    /// Frames of 15 messages of 4 KB; answers the longest time from a send to its own echo.
    async fn say(&mut self, frames: u64) -> Duration {
        let mut longest = Duration::ZERO;
        for _ in 0..frames {
            let messages: Vec<Value> = (0..15)
                .map(|index| json!({"content": format!("{} {}", self.said + index, "x".repeat(4_000))}))
                .collect();
            self.said += 15;
            let (start, said) = (Instant::now(), self.said);
            self.writer.send("clientMessages", json!({"roomId": GENERAL, "messages": messages})).await;
            let is_last = |payload: &Value| payload["messages"][14]["seq"] == said;
            self.writer.frame_where("serverMessages", is_last).await;
            longest = longest.max(start.elapsed());
        }
        longest
    }

    async fn complete(&self, client: &str) {
        eventually("the slow one has caught up", || async {
            self.recorder.has_reached(client, GENERAL, self.said)
        })
        .await;
        self.recorder.judge().expect_clean();
    }
}

#[tokio::test]
async fn a_reader_that_stalls_delays_nobody_and_catches_up_by_itself() {
    let mut stage = stage().await;
    let knock = Browser::knock(stage.corecast.http(), &stage.sid).v1().receive_bytes(RECEIVE_BYTES);
    let mut slow = knock.recorded(&stage.recorder, "slow").open().await;
    slow.hello().await;
    slow.set_reading(false);
    // 3.6 MB: far beyond what one connection may hold queued.
    let longest = stage.say(60).await;
    assert!(longest < Duration::from_secs(2), "a writer waited {longest:?} beside a stalled reader");
    slow.set_reading(true);
    stage.complete("slow").await;
    let kinds = slow.kinds_waiting();
    let told = kinds.iter().any(|kind| kind == "lagging" || kind == "cut");
    assert!(told, "it was set aside and told so: {kinds:?}");
    stage.say(2).await;
    stage.complete("slow").await;
}

#[tokio::test]
async fn an_old_client_that_stalls_catches_up_or_is_sent_away_to_reconnect() {
    let mut stage = stage().await;
    let knock = Browser::knock(stage.corecast.http(), &stage.sid).receive_bytes(RECEIVE_BYTES);
    let mut slow = knock.recorded(&stage.recorder, "slow").open().await;
    slow.hello().await;
    slow.set_reading(false);
    stage.say(60).await;
    slow.set_reading(true);
    let (recorder, said) = (stage.recorder.clone(), stage.said);
    let caught_up = eventually("it has everything", || async { recorder.has_reached("slow", GENERAL, said) });
    tokio::select! {
        () = caught_up => {}
        code = slow.closed() => assert_eq!(code, Some(1012), "the only other end"),
    }
    recorder.judge().expect_clean();
}
