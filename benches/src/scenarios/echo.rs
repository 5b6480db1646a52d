//! What does it cost to read a small frame and answer it?
//!
//! Frames leave in ticks of a millisecond, to all connections in turn, whatever comes back.
//! Every connection checks that it got its own frames, in order. Latency counts from the
//! tick.

use std::time::Duration;

use anyhow::Result;

use super::{ARRIVAL, all_there, fleet, judged};
use crate::measure::{Meter, Rule, Run};
use crate::subject::Server;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Echo {
    /// Connections.
    pub connections: usize,
    /// Bytes of a payload.
    pub bytes: usize,
    /// Frames a second, over all connections.
    pub per_second: u64,
    /// Frames inside the meter.
    pub frames: u64,
}

impl Echo {
    /// 32 bytes, 40,000 a second: about a quarter of a core. `seconds` of it.
    pub fn of(connections: usize, seconds: u64) -> Self {
        Self { connections, bytes: 32, per_second: 40_000, frames: 40_000 * seconds }
    }

    /// One run on a fresh server.
    ///
    /// # Errors
    /// The server refuses or loses connections.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let fleet = fleet(server, self.connections)?;
        let time = ARRIVAL + Duration::from_secs(self.frames / self.per_second);
        let warm_up = self.frames / 10;
        fleet.begin(0, 1)?;
        fleet.echo(warm_up, self.per_second, self.bytes)?;
        fleet.wait_received(warm_up, time);
        all_there(&fleet)?;

        fleet.begin(0, 1)?;
        let meter = Meter::start(server)?;
        fleet.echo(self.frames, self.per_second, self.bytes)?;
        fleet.wait_received(self.frames, time);
        let cost = meter.stop(server)?;
        all_there(&fleet)?;
        let mut run = Run::new(server, self.frames, cost, fleet.judge(None)?);
        run.rejected = cost.reject(Rule::Full);
        Ok(judged(run))
    }
}
