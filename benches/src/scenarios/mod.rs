//! One question per file; each `run` takes a fresh server and answers one [`Run`].
//!
//! | scenario | question |
//! |---|---|
//! | [`fanout`] | what does a delivery cost when every message is written alone? |
//! | [`backlog`] | how many deliveries a second when messages queue up, and how do they ride together? |
//! | [`memory`] | what does an idle connection hold? |
//! | [`echo`] | what does it cost to read a small frame and answer it? |
//! | [`handshake`] | what does a new connection cost until its hello? |
//! | [`narrow`] | what does a delivery cost when rooms are many and small? |
//! | [`idle`] | what does it cost to keep an idle connection? |
//! | [`probe`] | how long does an echo wait while a large room on its core is served? |
//! | [`stalled`] | what do readers that stopped cost, and do they get everything? |
//! | [`churn`] | does anything grow when thousands come and go? |

pub mod backlog;
pub mod churn;
pub mod echo;
pub mod fanout;
pub mod handshake;
pub mod idle;
pub mod memory;
pub mod narrow;
pub mod probe;
pub mod stalled;

use std::time::Duration;

use anyhow::{Result, bail};

use crate::load::Fleet;
use crate::measure::Run;
use crate::subject::Server;
use crate::wire::Marker;

/// Opens a server's connections.
///
/// # Errors
/// Not all of them opened.
pub fn fleet(server: &Server, members: usize) -> Result<Fleet> {
    let mut fleet = Fleet::start(CLIENT_THREADS)?;
    fleet.open(server.knock.clone(), members, None, opening_time(members))?;
    Ok(fleet)
}

/// Payloads with the counters behind `after`, all intended for the same moment.
fn payloads(after: u64, count: u64, intended_ns: u64, bytes: usize) -> Vec<Vec<u8>> {
    (after + 1..=after + count).map(|counter| Marker { counter, intended_ns }.payload(bytes)).collect()
}

/// Refuses a run in which connections were lost: its figure would be of fewer members.
fn all_there(fleet: &Fleet) -> Result<()> {
    match fleet.lost_connections() {
        (0, _) => Ok(()),
        (lost, reasons) => bail!("{lost} connections were lost: {reasons}"),
    }
}

/// Marks a run that lost, doubled or misplaced something.
fn judged(mut run: Run) -> Run {
    if !run.found.tally.is_clean() && run.rejected.is_none() {
        run.rejected = Some("not everything came once and in order".to_owned());
    }
    run
}

fn opening_time(connections: usize) -> Duration {
    // Ten times what a slow server needs.
    Duration::from_secs(20) + Duration::from_millis(5) * u32::try_from(connections).unwrap_or(u32::MAX)
}

/// One core, one thread: a second one would only take turns with the first.
const CLIENT_THREADS: usize = 1;
/// Time for everything that was sent to arrive, beyond the schedule.
const ARRIVAL: Duration = Duration::from_secs(30);
/// Time for a server to notice who left.
const LEAVING: Duration = Duration::from_secs(20);
