//! How many deliveries a second when messages queue up, and how do they ride together?
//!
//! There are always so many messages between the sender and the slowest member; the next
//! batch leaves when the oldest one has reached everybody. The clock runs from the first message
//! until the last has reached the last member. Latency counts from the moment the window
//! let a message go.

use anyhow::Result;

use super::fanout::by_construction;
use super::{ARRIVAL, all_there, fleet, judged, payloads};
use crate::clock::now_ns;
use crate::load::Fleet;
use crate::measure::{Meter, Rule, Run};
use crate::subject::Server;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    /// Connections.
    pub members: usize,
    /// Bytes of a payload.
    pub bytes: usize,
    /// Messages inside the meter.
    pub messages: u64,
    /// Messages under way.
    pub in_flight: u64,
    /// Messages of one batch; divides `in_flight`. What the floor writes at once.
    pub batch: u64,
}

impl Backlog {
    /// 128 bytes, 32 under way in batches of 16; about four million deliveries.
    pub fn of(members: usize) -> Self {
        let messages = (4_000_000 / members.max(1) as u64).next_multiple_of(32).max(320);
        Self { members, bytes: 128, messages, in_flight: 32, batch: 16 }
    }

    /// One run on a fresh server.
    ///
    /// # Errors
    /// The server refuses or loses connections or messages.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let fleet = fleet(server, self.members)?;
        let warm_up = 4 * self.in_flight;
        fleet.begin(0, self.batch)?;
        self.send(server, &fleet, 0, warm_up)?;
        all_there(&fleet)?;

        fleet.begin(warm_up, self.batch)?;
        let meter = Meter::start(server)?;
        self.send(server, &fleet, warm_up, self.messages)?;
        let cost = meter.stop(server)?;
        all_there(&fleet)?;
        let found = fleet.judge(Some(warm_up + self.messages))?;
        let frames_per_write = match server.metrics {
            Some(_) => cost.frames_per_write(),
            None => by_construction(server, self.batch),
        };
        let mut run = Run::new(server, self.messages * self.members as u64, cost, found);
        run.frames_per_write = frames_per_write;
        run.rejected = cost.reject(Rule::Busier);
        Ok(judged(run))
    }

    /// Sends `messages` behind the counter `after` and waits until all have arrived.
    fn send(&self, server: &mut Server, fleet: &Fleet, after: u64, messages: u64) -> Result<()> {
        let members = self.members as u64;
        let mut sent = 0;
        while sent < messages {
            // The batch that makes room for this one, if there were any before it.
            let (number, under_way) = (sent / self.batch, self.in_flight / self.batch);
            if number >= under_way && !fleet.wait_batch(number - under_way, ARRIVAL) {
                break;
            }
            server.entry.send(payloads(after + sent, self.batch, now_ns(), self.bytes))?;
            sent += self.batch;
        }
        fleet.wait_received(messages * members, ARRIVAL);
        Ok(())
    }
}
