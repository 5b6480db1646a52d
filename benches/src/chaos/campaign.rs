//! The course of a campaign: talk, hurt, mend, wait until service is back, fall silent, look
//! whether everybody is complete, go on. At the end everything is read back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use corecast_checker::Verdict;
use tokio::time::{Instant, sleep, sleep_until};

use super::audit::{self, Audit};
use super::client::Client;
use super::crowd::{Crowd, Size, Talk};
use super::ledger::{Book, Ledger};
use super::schedule::{self, Fault};
use super::system::System;

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seed of the schedule and of everything else that is drawn.
    pub seed: u64,
    /// How many clients, how busy.
    pub size: Size,
    /// Faults.
    pub faults: usize,
    /// Talk before each fault.
    pub calm: Duration,
    /// Talk from a fault's end to the silence, at least.
    pub settle: Duration,
    /// From a fault's end to the next calm, at least.
    pub window: Duration,
    /// The silence in which everybody must become complete.
    pub silence: Duration,
    /// Longest time that is waited for service after a fault.
    pub patience: Duration,
    /// Talk after the last fault's end.
    pub undisturbed: Duration,
}

/// What became of a campaign.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// Words for the system.
    pub system: String,
    /// Links could be cut.
    pub cuts_links: bool,
    /// One per fault, in order.
    pub faults: Vec<FaultRecord>,
    /// Of every client in every room.
    pub verdict: Verdict,
    /// Of the store.
    pub audit: Audit,
    /// Everything that was counted.
    pub book: Book,
    /// Ids of the rooms.
    pub rooms: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct FaultRecord {
    /// What was done.
    pub fault: Fault,
    /// Its beginning, ms since the campaign's.
    pub injected_ms: u64,
    /// When its end was ordered.
    pub ended_ms: u64,
    /// When service was back, and what it waited for.
    pub back: Back,
    /// Clients that were connected over the whole silence.
    pub looked_at: usize,
    /// Those of them that were not complete at its end.
    pub incomplete: Vec<String>,
    /// Clients that were not connected at its begin, or lost their connection in it.
    pub away: usize,
    /// Mending failed, with these words.
    pub trouble: Option<String>,
}

/// When service was back after a fault, ms since the campaign's beginning; `None`: not before
/// patience was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Back {
    /// A message to each room was acknowledged.
    pub acked_ms: Option<u64>,
    /// And delivered to all its connected members.
    pub delivered_ms: Option<u64>,
    /// Every client was connected and in all its rooms.
    pub connected_ms: Option<u64>,
}

/// Runs it all.
///
/// # Errors
/// The system cannot be used at all. What the system does wrong is in the outcome.
pub async fn run(system: &mut System, plan: &Plan) -> Result<Outcome> {
    let start = Instant::now();
    let ledger = Ledger::new();
    let crowd = Crowd::gather(system.entry()?, &plan.size, plan.seed, &ledger).await?;
    println!(
        "{} clients in {} rooms after {:.1} s",
        crowd.clients().len(),
        crowd.rooms.len(),
        start.elapsed().as_secs_f64()
    );
    let talk = crowd.talk(plan.size.rate, plan.seed);
    let schedule = schedule::draw(plan.seed, &system.kinds(), plan.faults);
    let mut faults = Vec::with_capacity(schedule.len());
    for (index, fault) in schedule.into_iter().enumerate() {
        sleep(plan.calm).await;
        let stage = Stage { plan, ledger: &ledger, crowd: &crowd, talk: &talk };
        let record = stage.play(system, fault).await?;
        println!("{:>3} {}", index + 1, record.line());
        if record.trouble.is_some() || record.back.whole_ms().is_none() {
            println!("    {}", system.log_of(&record.fault.part).replace('\n', "\n    "));
        }
        faults.push(record);
    }
    let last_end = faults.last().map_or(0, |fault: &FaultRecord| fault.ended_ms);
    sleep_until(Instant::from_std(ledger.instant(last_end)) + plan.undisturbed).await;
    drop(talk);
    all_settled(&crowd, &ledger).await;
    let audit = audit::read_back(crowd.entry, &crowd.sid, &crowd.rooms, &ledger).await?;
    let verdict = ledger.recorder.judge();
    Ok(Outcome {
        plan: plan.clone(),
        system: system.describe(),
        cuts_links: system.cuts_links(),
        faults,
        verdict,
        audit,
        book: ledger.book(),
        rooms: crowd.rooms.clone(),
        took: start.elapsed(),
    })
}

/// What one fault needs.
struct Stage<'a> {
    plan: &'a Plan,
    ledger: &'a Ledger,
    crowd: &'a Arc<Crowd>,
    talk: &'a Talk,
}

impl Stage<'_> {
    async fn play(&self, system: &mut System, fault: Fault) -> Result<FaultRecord> {
        let injected_ms = self.ledger.now_ms();
        // Scripts run for a moment; the clients live on other threads meanwhile.
        tokio::task::block_in_place(|| system.inject(&fault)).with_context(|| fault.to_string())?;
        sleep_until(Instant::from_std(self.ledger.instant(injected_ms + fault.lasts_ms))).await;
        let (ended_ms, end) = (self.ledger.now_ms(), Instant::now());
        let mending =
            tokio::task::block_in_place(|| system.mend(&fault)).with_context(|| fault.to_string())?;
        let mending = tokio::task::spawn_blocking(mending);
        let back = self.service_back(end + self.plan.patience).await;
        let mended = mending.await.context("the thread that mends")?;
        sleep_until(end + self.plan.settle).await;
        let (looked_at, incomplete, away) = self.silence().await;
        sleep_until(end + self.plan.window).await;
        let trouble = mended.err().map(|error| error.to_string());
        Ok(FaultRecord { fault, injected_ms, ended_ms, back, looked_at, incomplete, away, trouble })
    }

    /// A message to each room, now: when it is acknowledged and with all who are connected,
    /// and nobody is away any more, service is back.
    async fn service_back(&self, until: Instant) -> Back {
        let rooms = 0..self.crowd.rooms.len();
        let mut probes: Vec<(usize, u64)> =
            rooms.map(|room| (room, self.crowd.say(room, self.crowd.speaker(room)))).collect();
        let mut back = Back::default();
        while back.whole_ms().is_none() && Instant::now() < until {
            let mut unacked = 0;
            probes.retain(|(room, number)| {
                let seq = self.ledger.message(*number).and_then(|message| message.seq);
                unacked += usize::from(seq.is_none());
                !seq.is_some_and(|seq| self.crowd.have_reached(*room, seq))
            });
            let now = self.ledger.now_ms();
            let note = |at: &mut Option<u64>, so: bool| *at = at.or(so.then_some(now));
            note(&mut back.acked_ms, unacked == 0);
            note(&mut back.delivered_ms, probes.is_empty());
            note(&mut back.connected_ms, self.crowd.connected() == self.crowd.clients().len());
            sleep(LOOK).await;
        }
        back
    }

    /// Nobody begins to say anything, and what was begun is acknowledged; at the end of the
    /// silence that follows everybody who kept the connection must hold all of it.
    async fn silence(&self) -> (usize, Vec<String>, usize) {
        self.talk.set_paused(true);
        // What was held back by the fault is still being said; a message that is acknowledged
        // in the last moment of the silence would be with nobody yet.
        let drained = Instant::now() + DRAIN_TIME;
        while self.crowd.clients().iter().any(Client::is_busy) && Instant::now() < drained {
            sleep(LOOK).await;
        }
        let before: Vec<Option<u64>> =
            self.crowd.clients().iter().map(|client| client.connection()).collect();
        sleep(self.plan.silence).await;
        let heads = self.ledger.heads(self.crowd.rooms.len());
        let (mut looked_at, mut incomplete, mut away) = (0, Vec::new(), 0);
        for (client, before) in self.crowd.clients().iter().zip(before) {
            if before.is_none() || client.connection() != before {
                away += 1;
                continue;
            }
            looked_at += 1;
            let behind: Vec<&str> =
                self.crowd.behind(client, &heads).map(|room| self.crowd.rooms[room].as_str()).collect();
            if !behind.is_empty() {
                incomplete.push(format!("{} in {}", client.name, behind.join(", ")));
            }
        }
        self.talk.set_paused(false);
        (looked_at, incomplete, away)
    }
}

/// Waits until nobody waits for an ack and everybody holds everything, at most a minute.
pub async fn all_settled(crowd: &Crowd, ledger: &Ledger) {
    let end = Instant::now() + END_TIME;
    while Instant::now() < end {
        let heads = ledger.heads(crowd.rooms.len());
        let settled = crowd.clients().iter().all(|client| {
            client.connection().is_some()
                && !client.is_busy()
                && crowd.behind(client, &heads).next().is_none()
        });
        if settled {
            return;
        }
        sleep(LOOK).await;
    }
}

impl Back {
    /// When all of it was so.
    pub fn whole_ms(&self) -> Option<u64> {
        Some(self.acked_ms?.max(self.delivered_ms?).max(self.connected_ms?))
    }
}

impl FaultRecord {
    /// ms from its end until service was back.
    pub fn recovery_ms(&self) -> Option<u64> {
        self.after_end(self.back.whole_ms())
    }

    /// ms from its end until then.
    pub fn after_end(&self, ms: Option<u64>) -> Option<u64> {
        ms.map(|ms| ms.saturating_sub(self.ended_ms))
    }

    /// One line for the terminal.
    pub fn line(&self) -> String {
        let seconds = |ms: Option<u64>| match self.after_end(ms) {
            Some(ms) => format!("{:.2} s", ms as f64 / 1000.0),
            None => "never".to_owned(),
        };
        let Back { acked_ms, delivered_ms, connected_ms } = self.back;
        let (acked, delivered) = (seconds(acked_ms), seconds(delivered_ms));
        let connected = seconds(connected_ms);
        let complete = self.looked_at - self.incomplete.len();
        let trouble = self.trouble.as_ref().map_or(String::new(), |words| format!("; TROUBLE {words}"));
        format!(
            "{:>7.1} s  {:<22} for {:.1} s; acks after {acked}, deliveries {delivered}, clients {connected}; complete {complete}/{}, away {}{trouble}",
            self.injected_ms as f64 / 1000.0,
            self.fault.to_string(),
            (self.ended_ms - self.injected_ms) as f64 / 1000.0,
            self.looked_at,
            self.away,
        )
    }
}

/// How often is looked whether something is so.
const LOOK: Duration = Duration::from_millis(50);
/// Time for what was held back by a fault.
const DRAIN_TIME: Duration = Duration::from_secs(15);
/// Time for the last acks and deliveries.
const END_TIME: Duration = Duration::from_secs(60);
