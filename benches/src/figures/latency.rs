//! `corecast-bench latency`: one message per request on a schedule, rooms of ten members;
//! the time from the intended moment of a send until each member has read the frame. Inside
//! the timer: client, front door, gateway, logic, database, the way back, and the reading.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::crew::{self, Crew};
use crate::chaos::command::{Place, interrupted};
use crate::clock::now_ns;
use crate::load::Latency;
use crate::procfs::Cpu;

/// Flags of `corecast-bench latency`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    pub place: Place,
    /// Messages a second, one per request, over all clients.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Rooms.
    #[arg(long, default_value_t = 20)]
    pub rooms: usize,
    /// Members of each room; each is a connection in that room alone.
    #[arg(long, default_value_t = 10)]
    pub members: usize,
    /// Seconds that count.
    #[arg(long, default_value_t = 30)]
    pub seconds: u64,
    /// Seconds of the same load before them: caches fill, and Kafka's virtual machine, on these
    /// same cores, compiles what is hot.
    #[arg(long, default_value_t = 30)]
    pub warm_up: u64,
    /// Seconds over which the idle system's CPU is taken, with everybody connected.
    #[arg(long, default_value_t = 10)]
    pub idle_seconds: u64,
}

/// What was measured.
#[derive(Clone, Debug)]
pub struct Found {
    /// From the intended moment to the frame, per delivery.
    pub latency: Latency,
    /// Deliveries that should have come and did not.
    pub lost: u64,
    /// Numbers that did not follow the one before.
    pub disordered: u64,
    /// Messages refused or without an answer.
    pub failed: u64,
    /// CPU of our processes while nothing happens, in cores.
    pub idle_cores: f64,
    /// The same under the load.
    pub busy_cores: f64,
    /// CPU of this process under the load, in cores.
    pub client_cores: f64,
}

/// Measures, prints, and answers whether the limits were kept. Without the fast path
/// (`--set bus.url=none:`) the limit is that of the log path.
///
/// # Errors
/// The system cannot be used.
pub fn run(options: &Options, head: &str) -> Result<bool> {
    // One thread: the client shares the cores with what it measures.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let system = options.place.open_with(1, &[])?;
    let (entry, pids) = (system.entry()?, system.pids());
    let found = runtime.block_on(async {
        tokio::select! {
            found = measure(options, entry, &pids) => found,
            found = interrupted() => found,
        }
    })?;
    let log_only = options.place.sets.iter().any(|set| set.starts_with("bus.url=none:"));
    let (p50_ms, p99_ms) = if log_only { (f64::MAX, LOG_P99_MS) } else { (FAST_P50_MS, FAST_P99_MS) };
    let quantile = |share| found.latency.quantile_ms(share);
    let kept = quantile(0.5) <= p50_ms
        && quantile(0.99) <= p99_ms
        && found.lost + found.disordered + found.failed == 0
        && found.idle_cores < IDLE_CORES;
    let path = if log_only { "log path alone" } else { "fast path, log path behind it" };
    println!("{head}\n{}: {path}.\n", system.describe());
    println!(
        "{} messages a second, one per request, {} rooms of {} members, {} s after {} s of warm-up.\n",
        options.rate, options.rooms, options.members, options.seconds, options.warm_up
    );
    println!("{}", super::histogram(&found.latency));
    println!(
        "lost {}, out of order {}, refused or unanswered {}\n\
         our processes: idle {:.3} cores, under this load {:.2}; this client {:.2}\n\
         {}",
        found.lost,
        found.disordered,
        found.failed,
        found.idle_cores,
        found.busy_cores,
        found.client_cores,
        if kept { "every limit was kept" } else { "A LIMIT WAS MISSED" }
    );
    Ok(kept)
}

/// Measures against whoever answers at `entry`.
///
/// # Errors
/// Accounts or rooms cannot be made, or a connection ends.
pub async fn measure(options: &Options, entry: SocketAddr, pids: &[u32]) -> Result<Found> {
    let crew = Crew::gather(entry, options.rooms, options.members, TAIL).await?;
    sleep(Duration::from_secs(1)).await;
    let idle_cores = cores(pids, Duration::from_secs(options.idle_seconds)).await?;
    let (warm_up, load) = (Duration::from_secs(options.warm_up), Duration::from_secs(options.seconds));
    let start_ns = now_ns() + 50_000_000;
    let counted = (start_ns + warm_up.as_nanos() as u64)..(start_ns + (warm_up + load).as_nanos() as u64);
    let end_ns = AtomicU64::new(counted.end);
    let watch = async {
        sleep(warm_up).await;
        let own = [std::process::id()];
        tokio::join!(cores(pids, load), cores(&own, load))
    };
    let (said, (busy, client)) = tokio::join!(crew.talk(options.rate, start_ns, &end_ns), watch);
    let heard = crew.end(said).await?;
    if let Some(why) = heard.ended.first() {
        bail!("{} connections ended under load: {why}", heard.ended.len());
    }
    Ok(Found {
        latency: crew::within(&heard.deliveries, &counted),
        lost: heard.lost,
        disordered: heard.disordered,
        failed: heard.failed,
        idle_cores,
        busy_cores: busy?,
        client_cores: client?,
    })
}

/// CPU of these processes over a time, in cores.
async fn cores(pids: &[u32], over: Duration) -> Result<f64> {
    let read = || pids.iter().map(|pid| Cpu::of(*pid)).collect::<Result<Vec<Cpu>>>();
    let (before, start) = (read()?, Instant::now());
    sleep(over).await;
    let ns: u64 = read()?.iter().zip(&before).map(|(after, before)| after.since(before, "")).sum();
    Ok(ns as f64 / start.elapsed().as_nanos() as f64)
}

/// Silence after which nothing comes any more.
const TAIL: Duration = Duration::from_secs(3);
/// Limits.
const FAST_P50_MS: f64 = 10.0;
const FAST_P99_MS: f64 = 50.0;
const LOG_P99_MS: f64 = 200.0;
const IDLE_CORES: f64 = 0.05;
