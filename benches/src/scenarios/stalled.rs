//! What do readers that stopped cost, and do they get everything when they read again?
//!
//! Some readers of a room, with a small receive buffer, stop reading for a while; messages go
//! on, stored and numbered, at a fixed pace. Compared is the same with everybody reading.
//! Inside the meter: the messages of that time, until the last has reached the last of the
//! other readers, whose latency from the moment of the schedule is the figure. Then, with
//! everything at rest, what the stalled ones hold is measured; then they read again, on the
//! same connections, and must get each message once and in order.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{ARRIVAL, all_there, judged, opening_time, payloads};
use crate::clock::{now_ns, sleep_until};
use crate::load::{Fleet, Knock};
use crate::measure::{Meter, Rule, Run};
use crate::procfs::rss_anon;
use crate::sockmem::holding;
use crate::subject::{Kind, Server};

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Stalled {
    /// Members of the room.
    pub readers: usize,
    /// Those that stop.
    pub stalled: usize,
    /// Bytes of a message's content.
    pub bytes: usize,
    /// Messages a second.
    pub per_second: u64,
    /// How long nothing is read.
    pub time: Duration,
}

impl Stalled {
    /// One in a hundred of them, 128 bytes, 100 messages a second.
    pub fn of(readers: usize, time: Duration) -> Self {
        Self { readers, stalled: readers / 100, bytes: 128, per_second: 100, time }
    }

    /// One run on a fresh server, which gets its messages by [`Way::Logic`](crate::subject::Way).
    ///
    /// # Errors
    /// The server refuses or loses connections or messages.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let stall = server.kind != Kind::Undisturbed;
        let knock = Knock { v1: true, ..server.knock.clone() };
        let (mut few, mut others) = (Fleet::start(1)?, Fleet::start(1)?);
        let small = Knock { receive_bytes: Some(RECEIVE_BYTES), ..knock.clone() };
        few.open(small, self.stalled, None, opening_time(self.stalled))?;
        let reading = self.readers - self.stalled;
        others.open(knock, reading, None, opening_time(reading))?;

        let warm_up = self.per_second / 2;
        self.send(server, 0, warm_up, now_ns())?;
        for fleet in [&few, &others] {
            fleet.wait_received(warm_up * fleet.connections(), ARRIVAL);
            all_there(fleet)?;
            fleet.begin(warm_up, 1)?;
        }

        let (demoted, caught_up) = (server.metric("demoted_total")?, server.metric("caught_up_total")?);
        let memory = rss_anon(server.pid)?;
        few.stall(stall)?;
        let messages = self.per_second * self.time.as_secs().max(1);
        let meter = Meter::start(server)?;
        self.send(server, warm_up, messages, meter.start_ns())?;
        others.wait_received(messages * others.connections(), ARRIVAL);
        let cost = meter.stop(server)?;
        all_there(&others)?;

        std::thread::sleep(QUIET);
        let grown = rss_anon(server.pid)? as f64 - memory as f64;
        let held = holding(server.knock.server)?;
        let lagging = server.metric("lagging")?;
        let again = Instant::now();
        few.stall(false)?;
        few.wait_received(messages * few.connections(), ARRIVAL);
        let caught_up_after = again.elapsed();
        // Live again, not only at the end of what was missed.
        server.wait_metric("lagging", ARRIVAL, |left| left == 0.0)?;
        all_there(&few)?;

        let last = Some(warm_up + messages);
        let (of_few, mut found) = (few.judge(last)?, others.judge(last)?);
        found.tally.add(of_few.tally);
        let mut run = Run::new(server, messages * self.readers as u64, cost, found);
        let mut fact = |name: &str, value: f64| run.facts.push((name.to_owned(), value));
        // Of the whole server, history and all: only the difference to the reference is theirs.
        fact("server's memory grew, KiB per stalled peer", grown / 1024.0 / self.stalled.max(1) as f64);
        if stall {
            let demoted = server.metric("demoted_total")? - demoted;
            fact("demotions", demoted);
            fact("catch-ups", server.metric("caught_up_total")? - caught_up);
            fact("connections that lagged at the end of the stall", lagging);
            fact("lagging frames read", of_few.counts.lagging as f64);
            fact("caughtUp frames read", of_few.counts.caught_up as f64);
            fact("sockets that held bytes", held.sockets as f64);
            fact("socket KiB per stalled peer", held.bytes as f64 / 1024.0 / self.stalled.max(1) as f64);
            fact("seconds until the stalled had everything", caught_up_after.as_secs_f64());
            if demoted < self.stalled as f64 {
                run.rejected = Some(format!("only {demoted} demotions"));
            }
        }
        run.rejected = run.rejected.or(cost.reject(Rule::Latency));
        Ok(judged(run))
    }

    fn send(&self, server: &mut Server, after: u64, messages: u64, start_ns: u64) -> Result<()> {
        for message in 0..messages {
            let intended_ns = start_ns + message * 1_000_000_000 / self.per_second.max(1);
            sleep_until(intended_ns);
            server.entry.send(payloads(after + message, 1, intended_ns, self.bytes))?;
        }
        Ok(())
    }
}

/// SO_RCVBUF of those that stop.
const RECEIVE_BYTES: usize = 8 << 10;
/// What the others got is acknowledged.
const QUIET: Duration = Duration::from_millis(500);
