//! Redis away: no fast path and no hot set. Sends, deliveries by the log path, logins, history
//! and new connections go on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::Options;
use super::finding::{Finding, none};
use super::trial::{self, Phases, Plan, TAIL, WARM_UP};
use crate::chaos::client::{self, Socket};
use crate::chaos::frames::{self, Frame};
use crate::chaos::schedule::Deed;
use crate::chaos::system::System;
use crate::clock::now_ns;
use crate::figures::crew::{self, Crew};
use crate::http;

pub(super) async fn try_out(
    system: &mut System,
    options: &Options,
    plan: &Plan,
    title: String,
) -> Result<Finding> {
    let entry = system.entry()?;
    let crew = Crew::gather(entry, options.rooms, options.members, TAIL).await?;
    let visits = Visits::start(entry, crew.rooms[0].clone(), plan.whole()).await?;
    let course = trial::through(system, crew, plan, &trial::fault(Deed::Kill, "redis"), |_| ()).await?;
    let visits = visits.end().await?;
    let mut finding = Finding::new(title);
    course.report(&mut finding);
    visits.report(&course.phases, &mut finding);
    Ok(finding)
}

/// Somebody comes once a second: logs in, connects, reads a page.
struct Visits {
    task: JoinHandle<Result<Book>>,
}

/// What the visitors met: (when, ns) of each step, and what failed.
#[derive(Default)]
struct Book {
    logins: Vec<(u64, u64)>,
    connections: Vec<(u64, u64)>,
    pages: Vec<(u64, u64)>,
    failed: Vec<(u64, String)>,
}

/// One visit.
struct Visit {
    at_ns: u64,
    /// ns of the login, of the new connection, of the page; or what went wrong.
    took: Result<[u64; 3]>,
}

impl Visits {
    /// Makes the visitor's account and begins.
    ///
    /// # Errors
    /// There can be no account.
    async fn start(entry: SocketAddr, room: String, lasts: Duration) -> Result<Self> {
        let name = format!("v{:016x}", rand::random::<u64>());
        let email = format!("{name}@example.org");
        let body = json!({"username": name, "email": email, "password": PASSWORD});
        let answer = spawn_blocking(move || http::post(entry, "/api/register", &body)).await??;
        if answer.status != 204 {
            bail!("the visitor's account: {} {}", answer.status, answer.body);
        }
        let task = tokio::spawn(async move {
            // Not before there is something to read.
            let mut tick = interval_at(Instant::now() + WARM_UP, Duration::from_secs(1));
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            // One that is slow keeps the next one from nothing.
            let mut visits = JoinSet::new();
            for _ in 0..lasts.saturating_sub(WARM_UP).as_secs() {
                tick.tick().await;
                let (email, room) = (email.clone(), room.clone());
                visits.spawn(async move {
                    let at_ns = now_ns();
                    Visit { at_ns, took: visit(entry, email, &room).await }
                });
            }
            let mut book = Book::default();
            while let Some(visit) = visits.join_next().await {
                book.take(visit.context("a visitor's task")?);
            }
            Ok(book)
        });
        Ok(Self { task })
    }

    async fn end(self) -> Result<Book> {
        self.task.await.context("the visitors' task")?
    }
}

async fn visit(entry: SocketAddr, email: String, room: &str) -> Result<[u64; 3]> {
    let begin = Instant::now();
    let body = json!({"email": email, "password": PASSWORD});
    let login = spawn_blocking(move || http::post(entry, "/api/login", &body));
    let answer = timeout(STEP, login).await.context("no answer to the login")???;
    if answer.status != 204 {
        bail!("login: {} {}", answer.status, answer.body);
    }
    let sid = answer.sid()?;
    let logged_in = Instant::now();
    let mut socket = client::connect(entry, &sid).await.context("connect")?;
    socket.send(Message::text(frames::resume([]))).await?;
    read_until(&mut socket, |frame| matches!(frame, Frame::Hello(_))).await.context("hello")?;
    let greeted = Instant::now();
    socket.send(Message::text(newest(room))).await?;
    let is_page = |frame: &Frame| matches!(frame, Frame::Page { numbers, .. } if !numbers.is_empty());
    read_until(&mut socket, is_page).await.context("history")?;
    let read = Instant::now();
    // Whether the server says good-bye is not asked here.
    let _ = timeout(STEP, socket.close(None)).await;
    let ns = |from: Instant, to: Instant| (to - from).as_nanos() as u64;
    Ok([ns(begin, logged_in), ns(logged_in, greeted), ns(greeted, read)])
}

/// `requestRoomHistory` without an anchor: what a cache would answer.
fn newest(room: &str) -> String {
    json!({"type": "requestRoomHistory", "payload": {"roomId": room, "count": 30}}).to_string()
}

async fn read_until(socket: &mut Socket, wanted: impl Fn(&Frame) -> bool) -> Result<()> {
    let answer = async {
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message? else { continue };
            match Frame::read(text.as_str()) {
                Some(frame) if wanted(&frame) => return Ok(()),
                Some(Frame::Error(refused)) => bail!("refused with {}", refused.code),
                _ => {}
            }
        }
        bail!("the connection ended")
    };
    timeout(STEP, answer).await.context("no answer in time")?
}

impl Book {
    fn take(&mut self, visit: Visit) {
        match visit.took {
            Ok([login, connection, page]) => {
                self.logins.push((visit.at_ns, login));
                self.connections.push((visit.at_ns, connection));
                self.pages.push((visit.at_ns, page));
            }
            Err(error) => self.failed.push((visit.at_ns, format!("{error:#}"))),
        }
    }

    fn report(&self, phases: &Phases, finding: &mut Finding) {
        let steps =
            [("logins", &self.logins), ("new connections", &self.connections), ("history", &self.pages)];
        for (kind, times) in steps {
            for (name, phase) in
                [("before", &phases.before), ("away", &phases.outage), ("after", &phases.after)]
            {
                finding.time(format!("{kind}, {name}"), crew::within(times, phase));
            }
        }
        finding.check(none("logins, new connections or pages that failed", self.failed.len() as u64));
        for (at_ns, why) in self.failed.iter().take(DETAILS_MAX) {
            let at_s = (*at_ns as f64 - phases.outage.start as f64) / 1e9;
            finding.note(format!("visit {at_s:+.1} s from the kill: {why}"));
        }
    }
}

const PASSWORD: &str = "of a visitor";
/// A step of a visit takes no longer.
const STEP: Duration = Duration::from_secs(10);
const DETAILS_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_that_failed_is_a_missed_limit_with_its_reason() {
        let phases = Phases { before: 0..10, outage: 10..20, after: 20..30 };
        let mut book = Book::default();
        book.take(Visit { at_ns: 15, took: Ok([1_000_000, 2_000_000, 3_000_000]) });
        let mut finding = Finding::new("x".into());
        book.report(&phases, &mut finding);
        assert!(finding.kept());
        assert!(finding.render().contains("| history, away | 1 | 3.00 |"), "{}", finding.render());
        book.take(Visit { at_ns: 15, took: Err(anyhow::anyhow!("login: 503")) });
        let mut finding = Finding::new("x".into());
        book.report(&phases, &mut finding);
        assert!(!finding.kept());
        assert!(finding.render().contains("login: 503"));
    }
}
