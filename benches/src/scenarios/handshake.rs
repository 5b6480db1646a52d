//! What does a new connection cost until its hello?
//!
//! Connections come at a fixed pace; inside the meter is everything from the first connect
//! to the last hello, no leaving. Latency counts from the moment the schedule gave to the
//! connect.
//!
//! | floor | what it does |
//! |---|---|
//! | two sends | accepts, answers 101, writes one frame as long as corecast's hello |
//! | one send | accepts who has sent a request, answers with both: what corecast does for clients without `corecast.v1` |
//! | v1 clients | accepts the same way, answers 101, reads the client's `resume`, writes the hello |
//!
//! A client that offers `corecast.v1` sends its `resume` as soon as it has read the 101.

use std::time::Duration;

use anyhow::Result;

use super::{all_there, judged, opening_time};
use crate::load::Fleet;
use crate::measure::{Cost, Meter, Rule, Run};
use crate::subject::{Kind, Server};

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
        run.sends = sends(server.kind, cost, self.connections);
        run.rejected = cost.reject(Rule::Full);
        Ok(judged(run))
    }
}

/// Sends of the server per connection: the floors know theirs, corecast counts.
fn sends(kind: Kind, cost: Cost, connections: usize) -> Option<f64> {
    match kind {
        Kind::FloorOneSend => Some(1.0),
        Kind::FloorSend | Kind::FloorUring | Kind::FloorV1 => Some(2.0),
        Kind::Baseline => None,
        Kind::SendPerRoom | Kind::Undisturbed | Kind::Gateway | Kind::GatewayV1 => {
            Some(cost.writes / connections.max(1) as f64)
        }
    }
}

const WARM_UP: usize = 500;
