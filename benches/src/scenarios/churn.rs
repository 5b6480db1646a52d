//! Does anything grow when thousands come and go beside those that stay?
//!
//! First all are there together; then, in each lap, the ones that come connect and leave
//! while the others stay and get messages. After each lap, when the server has noticed that
//! they left, its descriptors, connections and memory are read. The first lap may still
//! grow something; the others may not.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{ARRIVAL, LEAVING, all_there, judged, opening_time, payloads};
use crate::clock::{now_ns, sleep_until};
use crate::load::Fleet;
use crate::measure::{Meter, Run};
use crate::procfs::{open_files, rss_anon};
use crate::subject::Server;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Connections that stay.
    pub stay: usize,
    /// Connections that come and leave in each lap.
    pub come: usize,
    /// Laps.
    pub laps: usize,
}

/// What the server holds.
struct Held {
    files: f64,
    connections: f64,
    memory: f64,
}

impl Churn {
    /// `all` connections, of which 5 in 19 come and go, ten times.
    pub fn of(all: usize) -> Self {
        let come = all * 5 / 19;
        Self { stay: all - come, come, laps: 10 }
    }

    /// One run on a fresh server.
    ///
    /// # Errors
    /// The server refuses or loses connections or messages.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let (mut stay, mut come) = (Fleet::start(1)?, Fleet::start(1)?);
        let time = opening_time(self.stay + self.come);
        stay.open(server.knock.clone(), self.stay, None, time)?;
        come.open(server.knock.clone(), self.come, None, time)?;
        let mut held = vec![("all there".to_owned(), Held::of(server)?)];
        self.leave(server, &mut come)?;

        stay.begin(0, 1)?;
        let meter = Meter::start(server)?;
        let mut sent = 0;
        for lap in 1..=self.laps {
            sent += self.lap(server, &mut come, sent, time)?;
            self.leave(server, &mut come)?;
            stay.wait_received(sent * self.stay as u64, ARRIVAL);
            held.push((format!("lap {lap}"), Held::of(server)?));
        }
        let cost = meter.stop(server)?;
        all_there(&stay)?;
        let found = stay.judge(Some(sent))?;
        let mut run = Run::new(server, (self.laps * self.come) as u64, cost, found);
        let first = &held.get(1).context("a lap")?.1;
        let last = &held.last().context("a lap")?.1;
        run.facts.push((GROWTH.into(), last.memory - first.memory));
        run.facts.push(("descriptors grew after lap 1".into(), last.files - first.files));
        run.facts.push(("connections grew after lap 1".into(), last.connections - first.connections));
        for (when, held) in &held {
            run.facts.push((format!("{when}: descriptors"), held.files));
            run.facts.push((format!("{when}: connections"), held.connections));
            run.facts.push((format!("{when}: RssAnon KiB"), held.memory));
        }
        Ok(judged(run))
    }

    /// Everybody comes, while the others get a message every so often. Answers how many.
    fn lap(&self, server: &mut Server, come: &mut Fleet, after: u64, time: Duration) -> Result<u64> {
        let (knock, entry) = (server.knock.clone(), &mut server.entry);
        std::thread::scope(|scope| {
            let coming = scope.spawn(|| come.open(knock, self.come, None, time));
            let (start_ns, mut sent) = (now_ns(), 0);
            loop {
                entry.send(payloads(after + sent, 1, start_ns + sent * MESSAGE_NS, BYTES))?;
                sent += 1;
                if coming.is_finished() {
                    break;
                }
                sleep_until(start_ns + sent * MESSAGE_NS);
            }
            coming.join().ok().context("the client's thread ended")??;
            Ok(sent)
        })
    }

    fn leave(&self, server: &Server, come: &mut Fleet) -> Result<()> {
        come.leave()?;
        server.wait_metric("connections", LEAVING, |left| left <= self.stay as f64)?;
        std::thread::sleep(QUIET);
        Ok(())
    }
}

impl Held {
    fn of(server: &Server) -> Result<Self> {
        let connections = server.metric("connections")?;
        // The connection that asked has gone by now.
        std::thread::sleep(QUIET);
        let memory = rss_anon(server.pid)? as f64 / 1024.0;
        Ok(Self { files: open_files(server.pid)? as f64, connections, memory })
    }
}

/// Name of the figure.
pub const GROWTH: &str = "RssAnon grew after lap 1, KiB";
const MESSAGE_NS: u64 = 400_000_000;
const BYTES: usize = 128;
const QUIET: Duration = Duration::from_millis(200);
