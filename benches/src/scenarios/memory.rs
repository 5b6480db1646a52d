//! What does an idle connection hold?
//!
//! A thousand connections come and go first, so that what a server allocates once is there.
//! Then the anonymous memory of its process is read before and after the others have come
//! and it has been quiet for a while; the difference is theirs.

use std::time::Duration;

use anyhow::Result;

use super::{LEAVING, all_there, judged, opening_time};
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
        server.wait_metric("connections", LEAVING, |left| left == 0.0)?;
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
        // Not rejected for its cost: a busy client changes no memory.
        let mut run = Run::new(server, self.connections as u64, cost, found);
        run.bytes_per_connection = Some((after as f64 - before as f64) / self.connections as f64);
        Ok(judged(run))
    }
}

const WARM_UP: usize = 1_000;
/// Allocators and sockets settle.
const QUIET: Duration = Duration::from_secs(1);
