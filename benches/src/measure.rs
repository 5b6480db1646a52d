//! One run of one server: what it cost, what arrived, and whether it may be believed.
//!
//! ```text
//!  Meter::start ─▶ messages … queues empty ─▶ Meter::stop ─▶ Cost ─▶ Run
//! ```
//! Inside the meter are the server's CPU (its connection threads and the whole process) and
//! the client's. The meter stops only when everything has arrived, so that nobody else pays
//! for work that was left.

use std::time::Duration;

use anyhow::Result;

use crate::clock::now_ns;
use crate::http;
use crate::load::fleet::Found;
use crate::procfs::{self, Cpu};
use crate::subject::{Kind, Server};

/// What one run brought.
#[derive(Clone, Debug)]
pub struct Run {
    /// What was measured.
    pub kind: Kind,
    /// Deliveries, echoes, handshakes or connections: what costs are divided by.
    pub operations: u64,
    /// CPU and counters.
    pub cost: Cost,
    /// What the connections saw.
    pub found: Found,
    /// Anonymous memory per connection in bytes, where that is the question.
    pub bytes_per_connection: Option<f64>,
    /// Frames of a room in one write; known by construction or by the server's counters.
    pub frames_per_write: Option<f64>,
    /// Sends per operation, where that is told; known the same way.
    pub sends: Option<f64>,
    /// What else was seen, by name and unit: a table of its own.
    pub facts: Vec<(String, f64)>,
    /// Why it does not count.
    pub rejected: Option<String>,
}

/// What a meter measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Length in nanoseconds.
    pub wall_ns: u64,
    /// CPU of the threads that own connections.
    pub shard_ns: u64,
    /// CPU of the server's process.
    pub process_ns: u64,
    /// CPU of the client.
    pub client_ns: u64,
    /// CPU that neither of the two used, on their cores: other programs, the kernel itself.
    pub others_ns: u64,
    /// Room frames given to the kernel, by the server's own counter.
    pub deliveries: f64,
    /// Sends, by the server's own counter.
    pub writes: f64,
}

impl Run {
    /// A run without special figures.
    pub fn new(server: &Server, operations: u64, cost: Cost, found: Found) -> Self {
        let kind = server.kind;
        let (bytes_per_connection, frames_per_write, rejected) = (None, None, None);
        Self {
            kind,
            operations,
            cost,
            found,
            bytes_per_connection,
            frames_per_write,
            sends: None,
            facts: Vec::new(),
            rejected,
        }
    }
}

/// A running measurement.
pub struct Meter {
    server: Cpu,
    client: Cpu,
    counters: [f64; 2],
    busy_ns: u64,
    start_ns: u64,
}

/// When the client makes a run worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It was busier than the server: for a race, in which the busier end sets the pace.
    Busier,
    /// Its core was full: for a schedule, which neither end sets as long as it is kept.
    Full,
    /// The same, and nearly nobody else may be there: for a single connection's latency, in
    /// which another program shows with every slice it gets.
    Latency,
}

impl Rule {
    /// Others may use this much of a core: ticks are coarse, and the kernel works for itself,
    /// too.
    fn others(self) -> f64 {
        match self {
            Self::Busier | Self::Full => 0.2,
            Self::Latency => 0.05,
        }
    }
}

impl Meter {
    /// Begins.
    ///
    /// # Errors
    /// The server is gone.
    pub fn start(server: &Server) -> Result<Self> {
        let counters = counters(server)?;
        // Answering the question for the counters is not part of it.
        std::thread::sleep(SETTLE);
        Ok(Self {
            server: Cpu::of(server.pid)?,
            client: Cpu::of(std::process::id())?,
            counters,
            busy_ns: procfs::busy_ns(&server.cores)?,
            start_ns: now_ns(),
        })
    }

    /// When it began.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Ends, at a moment when the server has nothing more to do.
    ///
    /// # Errors
    /// The server is gone.
    pub fn stop(self, server: &Server) -> Result<Cost> {
        let wall_ns = now_ns() - self.start_ns;
        let busy_ns = procfs::busy_ns(&server.cores)?.saturating_sub(self.busy_ns);
        // The kernel adds the last slice of a thread when it leaves its core.
        std::thread::sleep(SETTLE);
        let (after, client) = (Cpu::of(server.pid)?, Cpu::of(std::process::id())?);
        let [deliveries, writes] = counters(server)?;
        // In one process the two are told apart by the names of the threads.
        let own = if server.pid == std::process::id() { "load-" } else { "" };
        let process_ns = after.since(&self.server, "");
        let client_ns = client.since(&self.client, own);
        Ok(Cost {
            wall_ns,
            shard_ns: after.since(&self.server, server.shard_prefix),
            process_ns,
            client_ns,
            others_ns: busy_ns.saturating_sub(process_ns + client_ns),
            deliveries: deliveries - self.counters[0],
            writes: writes - self.counters[1],
        })
    }
}

impl Cost {
    /// Share of a core.
    pub fn share(self, ns: u64) -> f64 {
        ns as f64 / self.wall_ns.max(1) as f64
    }

    /// Frames per write by the server's counters.
    pub fn frames_per_write(self) -> Option<f64> {
        (self.writes > 0.0).then(|| self.deliveries / self.writes)
    }

    /// Other programs had too much of the cores: another time the run may count.
    pub fn spoilt(self, rule: Rule) -> Option<String> {
        let others = self.share(self.others_ns);
        (others > rule.others()).then(|| format!("other programs used {:.0} % of a core", others * 1e2))
    }

    /// Why the run does not count, if the client or somebody else is the reason.
    pub fn reject(self, rule: Rule) -> Option<String> {
        if let Some(others) = self.spoilt(rule) {
            return Some(others);
        }
        let (client, server) = (self.share(self.client_ns), self.share(self.process_ns));
        let bottleneck = match rule {
            Rule::Busier => client > server,
            Rule::Full | Rule::Latency => client > FULL,
        };
        bottleneck.then(|| {
            format!(
                "client was the bottleneck: {:.0} % of its core, server {:.0} %",
                client * 1e2,
                server * 1e2
            )
        })
    }
}

impl Run {
    /// One of its facts.
    pub fn fact(&self, name: &str) -> Option<f64> {
        self.facts.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    /// CPU µs of the connection threads per operation.
    pub fn shard_us(&self) -> f64 {
        self.cost.shard_ns as f64 / 1e3 / self.operations.max(1) as f64
    }

    /// CPU µs of the whole server per operation.
    pub fn process_us(&self) -> f64 {
        self.cost.process_ns as f64 / 1e3 / self.operations.max(1) as f64
    }

    /// Operations per second of CPU of the connection threads: what a core could do if
    /// nothing else held it up.
    pub fn per_core_second(&self) -> f64 {
        self.operations as f64 * 1e9 / self.cost.shard_ns.max(1) as f64
    }

    /// Operations per second of the clock.
    pub fn per_second(&self) -> f64 {
        self.operations as f64 * 1e9 / self.cost.wall_ns.max(1) as f64
    }
}

fn counters(server: &Server) -> Result<[f64; 2]> {
    let Some(addr) = server.metrics else { return Ok([0.0; 2]) };
    let text = http::get(addr, "/metrics")?.body;
    let sum = |name: &str| http::sum_of(&text, &format!("corecast_gateway_{name}_total"));
    Ok([sum("deliveries"), sum("writes")])
}

/// Time after which a thread that has nothing to do has left its core.
const SETTLE: Duration = Duration::from_millis(20);
/// A client that uses more of its core than this cannot keep a schedule.
const FULL: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(server: u64, client: u64) -> Cost {
        Cost { wall_ns: 100, process_ns: server, client_ns: client, ..Cost::default() }
    }

    #[test]
    fn a_busier_client_spoils_a_race_and_a_full_one_a_schedule() {
        assert_eq!(cost(50, 50).reject(Rule::Busier), None);
        assert!(cost(50, 51).reject(Rule::Busier).is_some());
        assert_eq!(cost(98, 97).reject(Rule::Busier), None);
        assert_eq!(cost(50, 51).reject(Rule::Full), None);
        assert_eq!(cost(95, 90).reject(Rule::Full), None);
        assert!(cost(95, 91).reject(Rule::Full).is_some());
    }

    #[test]
    fn a_run_beside_other_programs_does_not_count() {
        assert_eq!(Cost { others_ns: 20, ..cost(50, 30) }.reject(Rule::Busier), None);
        assert!(Cost { others_ns: 21, ..cost(50, 30) }.reject(Rule::Full).is_some());
        assert_eq!(Cost { others_ns: 5, ..cost(50, 30) }.reject(Rule::Latency), None);
        assert!(Cost { others_ns: 6, ..cost(50, 30) }.reject(Rule::Latency).is_some());
    }

    #[test]
    fn frames_per_write_need_writes() {
        assert_eq!(cost(1, 1).frames_per_write(), None);
        let some = Cost { deliveries: 64.0, writes: 4.0, ..cost(1, 1) };
        assert_eq!(some.frames_per_write(), Some(16.0));
    }
}
