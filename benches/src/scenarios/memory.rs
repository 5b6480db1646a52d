//! What does an idle connection hold?
//!
//! A thousand connections come and go first, so that what a server allocates once is there.
//! Then the anonymous memory of its process is read before and after the others have come
//! and it has been quiet for a while; the difference is theirs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{all_there, judged, opening_time};
use crate::http;
use crate::load::Fleet;
use crate::measure::{Meter, Run};
use crate::procfs::rss_anon;
use crate::subject::Server;

/// The workload.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Connections that stay.
    pub connections: usize,
}

impl Memory {
    /// One run on a fresh server.
    ///
    /// # Errors
    /// The server refuses or loses connections.
    pub fn run(&self, server: &mut Server) -> Result<Run> {
        let mut fleet = Fleet::start(1)?;
        fleet.open(server.knock.clone(), WARM_UP, None, opening_time(WARM_UP))?;
        fleet.leave()?;
        empty(server)?;
        std::thread::sleep(QUIET);
        let before = rss_anon(server.pid)?;
        let meter = Meter::start(server)?;
        fleet.open(server.knock.clone(), self.connections, None, opening_time(self.connections))?;
        let cost = meter.stop(server)?;
        std::thread::sleep(QUIET);
        all_there(&fleet)?;
        let after = rss_anon(server.pid)?;
        // Nothing was sent: whatever came would be a surplus.
        let found = fleet.judge(Some(0))?;
        Ok(judged(Run {
            kind: server.kind,
            operations: self.connections as u64,
            cost,
            found,
            bytes_per_connection: Some((after as f64 - before as f64) / self.connections as f64),
            frames_per_write: None,
            // A busy client changes no memory.
            rejected: None,
        }))
    }
}

/// Waits until the server has noticed that everybody left.
fn empty(server: &Server) -> Result<()> {
    let Some(metrics) = server.metrics else { return Ok(()) };
    let start = Instant::now();
    while http::sum_of(&http::get(metrics, "/metrics")?.body, "corecast_gateway_connections") > 0.0 {
        if start.elapsed() > Duration::from_secs(20) {
            bail!("connections that left are still counted");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

const WARM_UP: usize = 1_000;
/// Allocators and sockets settle.
const QUIET: Duration = Duration::from_secs(1);
