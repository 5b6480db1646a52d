//! What does a delivery cost when rooms are many and small?
//!
//! Every connection is in two rooms of ten. At each tick one message for every room enters
//! as one batch of the job's stream, so a connection has two frames to get, and one write is
//! enough for both. Compared is the same binary that writes for each room and member. Inside
//! the meter: everything from the first tick until the last message has reached its last
//! member. Latency counts from the tick.

use std::time::Duration;

use anyhow::Result;

use super::{ARRIVAL, all_there, judged, opening_time};
use crate::clock::{now_ns, sleep_until};
use crate::load::order::counter;
use crate::load::{Fleet, Joins};
use crate::measure::{Meter, Rule, Run};
use crate::subject::Server;
use crate::wire::Marker;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Narrow {
    /// Rooms.
    pub rooms: usize,
    /// Members of a room, an even number, at most 16 and below the number of rooms.
    pub members: usize,
    /// Bytes of a payload.
    pub bytes: usize,
    /// Ticks inside the meter.
    pub ticks: u64,
}

impl Narrow {
    /// Ten members, 128 bytes, about 250,000 deliveries.
    pub fn of(rooms: usize) -> Self {
        let ticks = (250_000 / (rooms.max(1) as u64 * 10)).max(4);
        Self { rooms, members: 10, bytes: 128, ticks }
    }

    /// One run on a fresh server.
    ///
    /// # Errors
    /// The server refuses or loses connections, rooms or messages.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let rooms = server.create_rooms(self.rooms)?;
        let connections = self.rooms * self.members / 2;
        let mut fleet = Fleet::start(1)?;
        let mut knock = server.knock.clone();
        knock.v1 = true;
        knock.joins = Joins { rooms: rooms.clone(), of: pairs(self.rooms, connections) };
        fleet.open(knock, connections, None, opening_time(connections))?;

        let per_tick = (self.rooms * self.members) as u64;
        fleet.begin(0, 1)?;
        self.send(server, &rooms, 0, WARM_UP, now_ns())?;
        fleet.wait_received(WARM_UP * per_tick, ARRIVAL);
        all_there(&fleet)?;

        fleet.begin(WARM_UP, 1)?;
        let meter = Meter::start(server)?;
        self.send(server, &rooms, WARM_UP, self.ticks, meter.start_ns())?;
        let operations = self.ticks * per_tick;
        fleet.wait_received(operations, ARRIVAL);
        let cost = meter.stop(server)?;
        all_there(&fleet)?;
        let found = fleet.judge(Some(WARM_UP + self.ticks))?;
        let mut run = Run::new(server, operations, cost, found);
        run.frames_per_write = cost.frames_per_write();
        run.rejected = cost.reject(Rule::Full);
        Ok(judged(run))
    }

    fn send(
        &self,
        server: &mut Server,
        rooms: &[String],
        after: u64,
        ticks: u64,
        start_ns: u64,
    ) -> Result<()> {
        let interval =
            LEAST_INTERVAL.max(TIME_PER_MEMBER * u32::try_from(self.rooms * self.members)?).as_nanos() as u64;
        for tick in 0..ticks {
            let intended_ns = start_ns + tick * interval;
            sleep_until(intended_ns);
            let payloads = rooms.iter().zip(1..).map(|(room, key)| {
                let marker = Marker { counter: counter(key, after + tick + 1), intended_ns };
                (room.clone(), marker.payload(self.bytes))
            });
            server.entry.send_each(payloads)?;
        }
        Ok(())
    }
}

/// Two rooms for each connection, so that every room gets as many members and hardly two
/// connections share both.
fn pairs(rooms: usize, connections: usize) -> Vec<Vec<usize>> {
    let pair = |number: usize| {
        let (lap, first) = (number / rooms, number % rooms);
        vec![first, (first + 1 + lap * (rooms / 8).max(1)) % rooms]
    };
    (0..connections).map(pair).collect()
}

const WARM_UP: u64 = 2;
/// About twice what the slower subject needs.
const TIME_PER_MEMBER: Duration = Duration::from_micros(15);
const LEAST_INTERVAL: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_room_has_the_same_number_of_members_and_no_connection_is_twice_in_one() {
        let pairs = pairs(1_000, 5_000);
        let mut members = vec![0; 1_000];
        for pair in &pairs {
            assert_ne!(pair[0], pair[1]);
            pair.iter().for_each(|room| members[*room] += 1);
        }
        assert!(members.iter().all(|count| *count == 10), "{members:?}");
    }
}
