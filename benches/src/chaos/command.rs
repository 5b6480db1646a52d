//! `corecast-bench chaos`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::campaign::{self, Plan};
use super::crowd::Size;
use super::judge::{self, Check, Limits};
use super::system::System;
use super::{chart, report};

/// Flags of `corecast-bench chaos`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    pub place: Place,
    /// Seed of the schedule, the rooms and the talk; without it one from the clock, printed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// About two minutes: eight faults, less waiting, fewer messages.
    #[arg(long)]
    pub short: bool,
    /// Clients, an account each.
    #[arg(long, default_value_t = 200)]
    pub clients: usize,
    /// Rooms besides the one where everybody is.
    #[arg(long, default_value_t = 60)]
    pub rooms: usize,
    /// Messages a second over all clients; without it 250, of --short 100.
    #[arg(long)]
    pub rate: Option<u64>,
    /// Faults; without it each kill twice, each pause and cut once, of --short 8.
    #[arg(long)]
    pub faults: Option<usize>,
    /// Folder of the report and its picture; empty: print only.
    #[arg(long, default_value = "benches/results")]
    pub out: String,
}

/// What is tried.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The cluster of scripts/cluster (started, and stopped again, unless it runs), or one
    /// `corecast up`.
    #[arg(long, value_enum, default_value_t = Which::Cluster)]
    pub system: Which,
    /// The script; its variables (PORT_BASE, DIR, …) are those of the shell, with BROKERS=3
    /// (of outage 1) unless set.
    #[arg(long, default_value = "scripts/cluster")]
    pub script: PathBuf,
    /// The binary of `corecast up`; without it the `corecast` beside this one.
    #[arg(long)]
    pub corecast: Option<PathBuf>,
    /// A key of the configuration; may be repeated. Not for a cluster that runs already.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// The system under trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// Processes of their own and real engines.
    Cluster,
    /// One process on embedded backends.
    Embedded,
}

/// Runs a campaign, prints and keeps its report; answers whether every limit was kept.
/// `head` is the head of the report, `date` begins the name of its file.
///
/// # Errors
/// The system cannot be used, or the report cannot be written.
pub fn run(options: &Options, head: &str, date: &str) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut system = options.place.open()?;
    system.allow_cuts()?;
    let plan = options.plan(&system);
    let replay = options.replay(plan.seed);
    println!("{} faults; again: {replay}", plan.faults);
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = campaign::run(&mut system, &plan) => outcome,
            outcome = interrupted() => outcome,
        }
    })?;
    let checks = judge::check(&outcome, &options.limits());
    let name = format!("{date}-chaos-{}{}", options.kind(), plan.seed);
    let text = report::render(&outcome, &checks, head, &replay, &format!("{name}.svg"));
    println!("\n{text}");
    if !options.out.is_empty() {
        keep(
            Path::new(&options.out),
            &name,
            &text,
            &chart::timeline(&outcome.book.seconds, &outcome.faults),
        )?;
    }
    println!("SEED={} {}", plan.seed, summary(&checks));
    Ok(checks.iter().all(|check| check.kept))
}

/// Ends with an error at SIGINT or SIGTERM, so that the caller drops its system all the same:
/// what was started is stopped, links that were cut are mended.
///
/// # Errors
/// Always.
pub async fn interrupted<T>() -> Result<T> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminated.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    bail!("interrupted")
}

impl Options {
    fn plan(&self, system: &System) -> Plan {
        let clock = || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            since.map_or(1, |since| since.as_millis() as u64 & 0xff_ffff)
        };
        let least: usize = system.kinds().iter().map(|kind| kind.least).sum();
        let seconds = Duration::from_secs;
        let size = |rate| Size {
            clients: self.clients,
            rooms: self.rooms,
            rooms_per_client: ROOMS_PER_CLIENT,
            rate: self.rate.unwrap_or(rate),
        };
        let long = Plan {
            seed: self.seed.unwrap_or_else(clock),
            size: size(250),
            faults: self.faults.unwrap_or(least.max(FAULTS_LEAST)),
            calm: seconds(6),
            settle: seconds(3),
            window: seconds(15),
            silence: seconds(5),
            patience: seconds(60),
            // Some of it outside the last fault's window, however short the campaign.
            undisturbed: Duration::from_millis(Limits::WINDOW_MS) + seconds(6),
        };
        if !self.short {
            return long;
        }
        let faults = self.faults.unwrap_or(8);
        Plan { size: size(100), faults, calm: seconds(3), settle: seconds(1), window: seconds(7), ..long }
    }

    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if self.short {
            limits.acked_least = 5_000;
        }
        if self.place.system == Which::Embedded {
            // One process: each fault sends everybody away, and all that waits for their return
            // comes by resume.
            limits.live_share = 0.8;
        }
        limits
    }

    fn kind(&self) -> String {
        let system = if self.place.system == Which::Embedded { "embedded-" } else { "" };
        format!("{}{system}", if self.short { "short-" } else { "" })
    }

    fn replay(&self, seed: u64) -> String {
        let mut words: Vec<String> = std::env::args().skip(1).collect();
        if let Some(at) = words.iter().position(|word| word == "--seed") {
            words.drain(at..(at + 2).min(words.len()));
        }
        words.retain(|word| !word.starts_with("--seed="));
        format!("corecast-bench {} --seed {seed}", words.join(" "))
    }
}

impl Place {
    /// Starts it, or takes the one that runs.
    ///
    /// # Errors
    /// It does not start.
    pub fn open(&self) -> Result<System> {
        self.open_with(3, &[])
    }

    /// As [`open`](Self::open), with so many brokers unless BROKERS is set, and with these keys
    /// of the configuration, which those of the command line follow.
    ///
    /// # Errors
    /// It does not start, or a cluster runs already and keys are asked for.
    pub fn open_with(&self, brokers: u8, keys: &[&str]) -> Result<System> {
        // Rooms that anybody may join: a default room would bring every message to everybody.
        let mut sets = vec!["rooms.create_kind=public".to_owned()];
        sets.extend(keys.iter().map(|key| (*key).to_owned()));
        sets.extend(self.sets.iter().cloned());
        match self.system {
            Which::Embedded => {
                let beside = std::env::current_exe()?.with_file_name("corecast");
                System::embedded(self.corecast.as_ref().unwrap_or(&beside), &sets)
            }
            Which::Cluster => {
                let mut environment = Vec::new();
                if std::env::var_os("BROKERS").is_none() {
                    environment.push(("BROKERS".to_owned(), brokers.to_string()));
                }
                if let Some(corecast) = &self.corecast {
                    environment.push(("CORECAST_BIN".to_owned(), corecast.display().to_string()));
                }
                for set in &sets {
                    let (key, value) =
                        set.split_once('=').with_context(|| format!("--set {set}: KEY=VALUE"))?;
                    let name = format!("CORECAST__{}", key.to_uppercase().replace('.', "__"));
                    environment.push((name, value.to_owned()));
                }
                System::cluster(&self.script, &environment, !self.sets.is_empty() || !keys.is_empty())
            }
        }
    }
}

fn keep(folder: &Path, name: &str, text: &str, chart: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for (ending, text) in [("md", text), ("svg", chart)] {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        println!("kept in {}", path.display());
    }
    Ok(())
}

fn summary(checks: &[Check]) -> String {
    let missed: Vec<&str> = checks.iter().filter(|check| !check.kept).map(|check| check.name).collect();
    if missed.is_empty() {
        "every limit was kept".to_owned()
    } else {
        format!("MISSED: {}", missed.join("; "))
    }
}

/// Rooms that each client joins: with 200 clients and 60 rooms, ten members a room.
const ROOMS_PER_CLIENT: usize = 3;
/// Faults of a full campaign at least.
const FAULTS_LEAST: usize = 30;
