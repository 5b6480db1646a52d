//! One of two gateways stands still, with the log path alone and members of every room on
//! both: those on the other one notice nothing for long, and those on this one get everything
//! when it goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Options;
use super::finding::{Finding, all, none, seconds};
use super::trial::{self, Plan, TAIL};
use crate::chaos::client::{Client, Person};
use crate::chaos::crowd;
use crate::chaos::ledger::Ledger;
use crate::chaos::schedule::Deed;
use crate::chaos::system::System;
use crate::figures::crew::Crew;

pub(super) async fn try_out(
    system: &mut System,
    options: &Options,
    plan: &Plan,
    title: String,
) -> Result<Finding> {
    let gateways = system.names("gateway-");
    let [steady, victim, ..] = &gateways[..] else { bail!("this needs a cluster with two gateways") };
    let half = (options.members / 2).max(1);
    let crew = Crew::gather(system.address(steady, "http")?, options.rooms, half, TAIL).await?;
    let others = Others::gather(system.address(victim, "http")?, &crew.rooms, half).await?;
    let talk = others.talk(plan.whole());
    let course = trial::through(system, crew, plan, &trial::fault(Deed::Pause, victim), |_| ()).await?;
    talk.await.context("the task of the others")?;
    let heads = &course.heard.heads;
    let whole = others.wait_complete(heads).await;

    let mut finding = Finding::new(title);
    course.report(&mut finding);
    finding.check(seconds(
        "longest stall of a delivery on the other gateway",
        super::STALL_S,
        Some(course.longest_stall()),
    ));
    finding.check(all(
        "members on the stopped gateway that got everything",
        whole,
        others.clients.len() as u64,
    ));
    let (verdict, book) = (others.ledger.recorder.judge(), others.ledger.book());
    finding.check(none("lost there", verdict.lost));
    finding.check(none("doubled there", verdict.duplicated));
    finding.check(none("out of order there", verdict.reordered));
    finding.check(none("gaps there, an unpaged cut counts", verdict.gaps + verdict.uncaught));
    finding.check(none("answers that contradict each other", verdict.conflicting + book.unreadable));
    let (offered, acked) = others.ledger.totals();
    finding.check(all("said there and acknowledged in the end", acked, offered));
    finding.note(format!("half of each room's members is on {steady}, half on {victim}, which was stopped"));
    finding.note(format!(
        "on {victim}: {} connections of {} members, {} requests said again for want of an answer, {} cuts, {} times lagging",
        book.connections,
        others.clients.len(),
        book.unanswered,
        book.cuts,
        book.lagging
    ));
    for (why, count) in &book.ends {
        finding.note(format!("{count} × {why}"));
    }
    verdict.details.iter().take(DETAILS_MAX).for_each(|sentence| finding.note(sentence.clone()));
    Ok(finding)
}

/// The members on the gateway that will stand still: clients of the campaign, who come back
/// with their cursors and are judged by the checker.
struct Others {
    ledger: Ledger,
    rooms: Vec<String>,
    clients: Arc<Vec<Client>>,
}

impl Others {
    async fn gather(entry: SocketAddr, rooms: &[String], members: usize) -> Result<Self> {
        let ledger = Ledger::new();
        let seed = rand::random::<u32>().into();
        let mut clients = Vec::new();
        for (index, sid) in crowd::accounts(entry, rooms.len() * members, seed).await?.into_iter().enumerate()
        {
            let room = index % rooms.len();
            let person = Person {
                name: format!("other-{index}"),
                sid,
                entry,
                home: vec![rooms[room].clone()],
                rooms: vec![room],
                seed: seed.wrapping_add(index as u64),
            };
            clients.push(Client::start(person, ledger.clone()));
        }
        let until = Instant::now() + GATHER_TIME;
        while clients.iter().any(|client| client.connection().is_none()) {
            if Instant::now() > until {
                bail!("not everybody is in the room after {GATHER_TIME:?}: {:?}", ledger.book().ends);
            }
            sleep(LOOK).await;
        }
        Ok(Self { ledger, rooms: rooms.to_vec(), clients: Arc::new(clients) })
    }

    /// They speak, too, a little: what is under way when their gateway stops is said again.
    fn talk(&self, lasts: Duration) -> JoinHandle<()> {
        let (clients, rooms, ledger) = (self.clients.clone(), self.rooms.clone(), self.ledger.clone());
        tokio::spawn(async move {
            let mut tick = interval(SPEAK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for turn in 0..(lasts.as_millis() / SPEAK.as_millis()) as usize {
                tick.tick().await;
                let client = &clients[turn % clients.len()];
                let room = client.rooms[0];
                let number = ledger.offer(room);
                if !client.say(number, &rooms[room], format!("{} {number}", ledger.run)) {
                    ledger.note(|book| book.skipped += 1);
                }
            }
        })
    }

    /// How many hold all that anybody read, at the latest after [`COMPLETE_TIME`].
    async fn wait_complete(&self, read: &[u64]) -> u64 {
        let until = Instant::now() + COMPLETE_TIME;
        loop {
            let acked = self.ledger.heads(self.rooms.len());
            let is_whole = |client: &&Client| {
                let room = client.rooms[0];
                let head = read[room].max(acked[room]);
                client.connection().is_some()
                    && !client.is_busy()
                    && self.ledger.recorder.has_reached(&client.name, &self.rooms[room], head)
            };
            let whole = self.clients.iter().filter(is_whole).count();
            if whole == self.clients.len() || Instant::now() > until {
                return whole as u64;
            }
            sleep(LOOK).await;
        }
    }
}

const GATHER_TIME: Duration = Duration::from_secs(60);
const COMPLETE_TIME: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// Between two messages of theirs.
const SPEAK: Duration = Duration::from_millis(50);
const DETAILS_MAX: usize = 10;
