//! What does it cost to keep an idle connection?
//!
//! The connections come over some seconds, so that their pings do, and answer each ping.
//! Inside the meter is exactly one ping period, in which every connection is pinged once.
//! The floor sends the same ping and reads the same pong, from slots of 100 ms.

use std::time::Duration;

use anyhow::Result;

use super::{all_there, judged, opening_time};
use crate::clock::sleep_until;
use crate::load::Fleet;
use crate::measure::{Meter, Rule, Run};
use crate::subject::Server;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Connections.
    pub connections: usize,
    /// The server's ping period.
    pub period: Duration,
}

impl Idle {
    /// One run on a fresh server, which pings every `period`.
    ///
    /// # Errors
    /// The server refuses or loses connections.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let mut fleet = Fleet::start(1)?;
        // A fifth of a period: as after a restart, when everybody comes back at once.
        let pace = (self.connections as f64 / self.period.as_secs_f64() * 5.0).ceil() as u64;
        fleet.open(server.knock.clone(), self.connections, Some(pace), opening_time(self.connections))?;
        std::thread::sleep(QUIET);
        fleet.begin(0, 1)?;
        let meter = Meter::start(server)?;
        sleep_until(meter.start_ns() + self.period.as_nanos() as u64);
        let cost = meter.stop(server)?;
        all_there(&fleet)?;
        let found = fleet.judge(Some(0))?;
        let pings = found.counts.pings;
        let mut run = Run::new(server, self.connections as u64, cost, found);
        run.facts.push(("pings answered per connection".into(), pings as f64 / self.connections as f64));
        run.rejected = cost.reject(Rule::Full);
        if pings.abs_diff(self.connections as u64) * 100 > self.connections as u64 {
            run.rejected = Some(format!("{pings} pings for {} connections", self.connections));
        }
        Ok(judged(run))
    }
}

/// Who came last is settled.
const QUIET: Duration = Duration::from_millis(500);
