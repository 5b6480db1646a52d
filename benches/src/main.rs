//! `corecast-bench`: floor, baseline and corecast, one after the other, round by round.

use anyhow::Result;
use clap::{Parser, Subcommand};
use corecast_benches::baseline::Baseline;
use corecast_benches::chaos;
use corecast_benches::figures::{accept, latency, outage};
use corecast_benches::floor::{Floor, FloorConfig, Greeting, Mechanism};
use corecast_benches::probe::{Probe, probe};
use corecast_benches::subject::process::say;

mod asked;
mod compare;
mod machine;

/// How near the gateway is to what the kernel allows.
#[derive(Debug, Parser)]
#[command(name = "corecast-bench", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare gateway, floor and baseline; print tables and keep them.
    Gateway(compare::Gateway),
    /// Kill, pause and cut off parts of a cluster while clients talk; judge what they saw.
    Chaos(chaos::command::Options),
    /// From a send to the frame at every member, through the whole system.
    Latency(latency::Options),
    /// Messages a second that one logic node makes durable.
    Accept(accept::Options),
    /// One part of a cluster away for a while, under load: what do people notice?
    Outage(outage::Options),
    /// The floor as a server; the benchmark starts it.
    #[command(hide = true)]
    ServeFloor {
        #[arg(long, value_enum)]
        mechanism: Mechanism,
        #[arg(long, value_enum, default_value_t)]
        greeting: Greeting,
        #[arg(long)]
        hello_bytes: usize,
        #[arg(long, default_value_t = 0)]
        ping_ms: u64,
    },
    /// The baseline as a server; the benchmark starts it.
    #[command(hide = true)]
    ServeBaseline {
        #[arg(long)]
        hello_bytes: usize,
    },
    /// One connection that is echoed; the benchmark starts it.
    #[command(hide = true)]
    Probe(Probe),
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Gateway(options) => compare::compare(&options),
        Command::Chaos(options) => {
            machine::raise_nofile();
            judged(chaos::command::run(&options, &machine::place(), &machine::today())?)
        }
        Command::Latency(options) => judged(latency::run(&options, &machine::place())?),
        Command::Accept(options) => judged(accept::run(&options, &machine::place())?),
        Command::Outage(options) => {
            machine::raise_nofile();
            judged(outage::run(&options, &machine::place(), &machine::today())?)
        }
        Command::ServeFloor { mechanism, greeting, hello_bytes, ping_ms } => {
            machine::raise_nofile();
            let floor = Floor::bind(FloorConfig { mechanism, greeting, hello_bytes, ping_ms })?;
            let (http, control) = floor.addrs()?;
            say("http", http);
            say("control", control);
            floor.run()
        }
        Command::ServeBaseline { hello_bytes } => {
            machine::raise_nofile();
            // One core: a second thread would only take turns with the first.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let baseline = Baseline::bind(hello_bytes).await?;
                let (http, control) = baseline.addrs()?;
                say("http", http);
                say("control", control);
                baseline.run().await
            })
        }
        Command::Probe(options) => probe(&options),
    }
}

/// A limit that was missed is exit code 1.
fn judged(kept: bool) -> Result<()> {
    if !kept {
        std::process::exit(1);
    }
    Ok(())
}
