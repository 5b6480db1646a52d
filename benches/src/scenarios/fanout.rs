//! What does a delivery cost when every message is written alone?
//!
//! A message every so often to all members, slow enough that none waits for the one before.
//! Inside the meter: everything from the first message until the last has reached the last
//! member. Latency counts from the moment the schedule gave to the message.

use std::time::Duration;

use anyhow::Result;

use super::{ARRIVAL, all_there, fleet, judged, payloads};
use crate::clock::sleep_until;
use crate::measure::{Meter, Rule, Run};
use crate::subject::Server;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct FanOut {
    /// Connections.
    pub members: usize,
    /// Bytes of a payload, at least [`MARKER_BYTES`](crate::wire::MARKER_BYTES).
    pub bytes: usize,
    /// Moments of the schedule inside the meter.
    pub moments: u64,
    /// Messages at each moment: they may ride in one write.
    pub together: u64,
}

impl FanOut {
    /// 128 bytes, alone; at least two seconds and 200,000 deliveries of it.
    pub fn of(members: usize) -> Self {
        let moments = (200_000 / members.max(1) as u64).max(20);
        Self { members, bytes: 128, moments, together: 1 }
    }

    /// One run on a fresh server.
    ///
    /// # Errors
    /// The server refuses or loses connections or messages.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let fleet = fleet(server, self.members)?;
        fleet.begin(0, 1)?;
        let warm_up = (self.moments / 10).max(2);
        self.send(server, 0, warm_up, crate::clock::now_ns())?;
        fleet.wait_received(warm_up * self.together * self.members as u64, ARRIVAL);
        all_there(&fleet)?;

        let first = warm_up * self.together;
        fleet.begin(first, 1)?;
        let meter = Meter::start(server)?;
        self.send(server, first, self.moments, meter.start_ns())?;
        let messages = self.moments * self.together;
        let operations = messages * self.members as u64;
        fleet.wait_received(operations, ARRIVAL);
        let cost = meter.stop(server)?;
        all_there(&fleet)?;
        let found = fleet.judge(Some(first + messages))?;
        let frames_per_write = match server.metrics {
            Some(_) => cost.frames_per_write(),
            None => by_construction(server, self.together),
        };
        let mut run = Run::new(server, operations, cost, found);
        run.frames_per_write = frames_per_write;
        run.rejected = cost.reject(Rule::Full);
        if self.together == 1 && frames_per_write.is_some_and(|frames| frames > ALONE) {
            run.rejected = Some("messages rode together: the schedule is too fast".to_owned());
        }
        Ok(judged(run))
    }

    fn send(&self, server: &mut Server, after: u64, moments: u64, start_ns: u64) -> Result<()> {
        let interval = LEAST_INTERVAL.max(TIME_PER_MEMBER * u32::try_from(self.members)?);
        for moment in 0..moments {
            let intended_ns = start_ns + moment * interval.as_nanos() as u64;
            sleep_until(intended_ns);
            let sent = after + moment * self.together;
            server.entry.send(payloads(sent, self.together, intended_ns, self.bytes))?;
        }
        Ok(())
    }
}

/// The floor writes a batch at once; what the baseline does is its own affair.
pub(super) fn by_construction(server: &Server, together: u64) -> Option<f64> {
    use crate::subject::Kind;
    matches!(server.kind, Kind::FloorSend | Kind::FloorUring).then_some(together as f64)
}

/// About twice what the slowest subject needs.
const TIME_PER_MEMBER: Duration = Duration::from_micros(12);
const LEAST_INTERVAL: Duration = Duration::from_millis(5);
/// Frames per write up to which "alone" is true; a ping is a write, too.
const ALONE: f64 = 1.02;
