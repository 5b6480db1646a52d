//! What does a new connection cost until its hello?
//!
//! Connections come at a fixed pace; inside the meter is everything from the first connect
//! to the last hello, no leaving. Latency counts from the moment the schedule gave to the
//! connect. The floor accepts, answers 101 and writes one frame as long as corecast's hello.

use std::time::Duration;

use anyhow::Result;

use super::{all_there, judged, opening_time};
use crate::load::Fleet;
use crate::measure::{Meter, Rule, Run};
use crate::subject::Server;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// Connections inside the meter.
    pub connections: usize,
    /// Connections a second.
    pub per_second: u64,
}

impl Handshake {
    /// One run on a fresh server.
    ///
    /// # Errors
    /// The server refuses or loses connections.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let mut fleet = Fleet::start(1)?;
        let time = opening_time(self.connections);
        fleet.open(server.knock.clone(), WARM_UP, Some(self.per_second), time)?;
        fleet.leave()?;
        std::thread::sleep(Duration::from_millis(200));
        let meter = Meter::start(server)?;
        fleet.open(server.knock.clone(), self.connections, Some(self.per_second), time)?;
        let cost = meter.stop(server)?;
        all_there(&fleet)?;
        let mut found = fleet.judge(Some(0))?;
        found.latency = found.opening.clone();
        let mut run = Run::new(server, self.connections as u64, cost, found);
        run.rejected = cost.reject(Rule::Full);
        Ok(judged(run))
    }
}

const WARM_UP: usize = 500;
