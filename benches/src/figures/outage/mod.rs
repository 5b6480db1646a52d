//! `corecast-bench outage`: one part of a cluster is away for a while, under load; what do
//! people notice, and how long does the rest take to be as before?
//!
//! | module | away | with |
//! |---|---|---|
//! | [`kafka`] | every broker, SIGKILL | the fast path; [`backlog`] and [`topic`] are what it looks at |
//! | [`redis`] | Redis, SIGKILL | logins, history and new connections beside the load |
//! | [`mariadb`] | MariaDB, SIGKILL | the clients of the campaign, who repeat with the same key |
//! | [`job`] | one of two jobs, SIGKILL | the log path alone |
//! | [`gateway`] | one of two gateways, SIGSTOP | the log path alone, members on both |
//!
//! [`trial`] is the load with the outage in its middle, [`finding`] what is printed of it.

mod backlog;
mod finding;
mod gateway;
mod job;
mod kafka;
mod mariadb;
mod redis;
mod topic;
mod trial;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use self::finding::Finding;
use self::trial::Plan;
use crate::chaos::command::{Place, interrupted};
use crate::chaos::system::System;

/// Flags of `corecast-bench outage`.
#[derive(Clone, Debug, Args)]
pub struct Options {
    #[command(flatten)]
    pub place: Place,
    /// What is taken away, one after the other; may be repeated, without it all of them.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub of: Vec<Of>,
    /// Messages a second, one per request, over all clients; for MariaDB at most 250, since
    /// everything that is refused is said again.
    #[arg(long, default_value_t = 1_000)]
    pub rate: u64,
    /// Rooms.
    #[arg(long, default_value_t = 20)]
    pub rooms: usize,
    /// Members of each room.
    #[arg(long, default_value_t = 10)]
    pub members: usize,
    /// Seconds without it; without this flag 30 of Kafka and Redis, 10 of MariaDB, 20 of a job
    /// or a gateway.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Seconds of load before, after three that do not count.
    #[arg(long, default_value_t = 10)]
    pub before: u64,
    /// Seconds of load from the moment at which the end is ordered.
    #[arg(long, default_value_t = 30)]
    pub after: u64,
    /// Folder of the report; empty: print only.
    #[arg(long, default_value = "")]
    pub out: String,
}

/// What can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Of {
    /// All brokers.
    Kafka,
    /// Hot set and fast path.
    Redis,
    /// The store.
    Mariadb,
    /// One of the jobs.
    Job,
    /// One of the gateways.
    Gateway,
}

/// Takes one part after the other away, prints and keeps what was found; answers whether every
/// limit was kept. `head` is the head of the report, `date` begins the name of its file.
///
/// # Errors
/// The system cannot be used at all, or the report cannot be written. A trial that could not
/// be made counts as a missed limit.
pub fn run(options: &Options, head: &str, date: &str) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut text, mut kept) = (head.to_owned(), true);
    println!("{head}");
    // The configuration differs: with the fast path, and with the log path alone.
    for log_only in [false, true] {
        let parts = options.parts(log_only);
        if parts.is_empty() {
            continue;
        }
        let sets: &[&str] = if log_only { &["bus.url=none:"] } else { &[] };
        let mut system = options.place.open_with(BROKERS, sets)?;
        let path = if log_only { "log path alone" } else { "fast path, log path behind it" };
        let told = format!("{}: {path}.\n", system.describe());
        println!("{told}");
        text += &format!("\n{told}");
        for of in parts {
            let found = runtime.block_on(async {
                tokio::select! {
                    found = of.try_out(&mut system, options) => Ok(found),
                    stopped = interrupted() => stopped,
                }
            })?;
            let finding = found.unwrap_or_else(|error| Finding::not_made(of.title(options), &error));
            kept &= finding.kept();
            let section = finding.render();
            println!("{section}");
            text += &section;
        }
    }
    println!("{}", if kept { "every limit was kept" } else { "A LIMIT WAS MISSED" });
    if !options.out.is_empty() {
        keep(Path::new(&options.out), &format!("{date}-outage.md"), &text)?;
    }
    Ok(kept)
}

impl Options {
    /// What to take away, of those that need this configuration.
    fn parts(&self, log_only: bool) -> Vec<Of> {
        let all = Of::value_variants();
        let asked: &[Of] = if self.of.is_empty() { all } else { &self.of };
        asked.iter().copied().filter(|of| of.log_only() == log_only).collect()
    }

    fn plan(&self, of: Of) -> Plan {
        let seconds = Duration::from_secs;
        Plan {
            rate: self.rate,
            before: seconds(self.before),
            outage: seconds(self.seconds(of)),
            after: seconds(self.after),
        }
    }

    fn seconds(&self, of: Of) -> u64 {
        self.seconds.unwrap_or(match of {
            Of::Kafka | Of::Redis => 30,
            Of::Mariadb => 10,
            Of::Job | Of::Gateway => 20,
        })
    }
}

impl Of {
    fn log_only(self) -> bool {
        matches!(self, Self::Job | Self::Gateway)
    }

    fn title(self, options: &Options) -> String {
        let what = match self {
            Self::Kafka => "Kafka killed",
            Self::Redis => "Redis killed",
            Self::Mariadb => "MariaDB killed",
            Self::Job => "one of the jobs killed",
            Self::Gateway => "one of the gateways stopped",
        };
        let rate = if self == Self::Mariadb { options.rate.min(mariadb::RATE_MAX) } else { options.rate };
        format!(
            "{what} for {} s, {rate} messages a second, {} rooms of {} members",
            options.seconds(self),
            options.rooms,
            options.members
        )
    }

    async fn try_out(self, system: &mut System, options: &Options) -> Result<Finding> {
        let plan = options.plan(self);
        let title = self.title(options);
        match self {
            Self::Kafka => kafka::try_out(system, options, &plan, title).await,
            Self::Redis => redis::try_out(system, options, &plan, title).await,
            Self::Mariadb => mariadb::try_out(system, options, &plan, title).await,
            Self::Job => job::try_out(system, options, &plan, title).await,
            Self::Gateway => gateway::try_out(system, options, &plan, title).await,
        }
    }
}

fn keep(folder: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    println!("kept in {}", path.display());
    Ok(())
}

/// Brokers of a cluster that is started here, unless BROKERS says otherwise.
const BROKERS: u8 = 1;
/// Limit of the time from a message's intended moment to a member who reads it, while a part
/// of the log path is away: the duty of a job towards a gateway ends after so many seconds.
const STALL_S: f64 = 10.0;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Options {
        let words = ["bench"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| cli.options).expect("flags")
    }

    #[test]
    fn parts_that_need_another_configuration_come_later() {
        let all = options(&[]);
        assert_eq!(all.parts(false), [Of::Kafka, Of::Redis, Of::Mariadb]);
        assert_eq!(all.parts(true), [Of::Job, Of::Gateway]);
        let some = options(&["--of", "gateway,kafka"]);
        assert_eq!((some.parts(false), some.parts(true)), (vec![Of::Kafka], vec![Of::Gateway]));
    }

    #[test]
    fn each_part_is_away_for_its_own_time_unless_one_is_given() {
        let seconds = |words: &[&str], of| options(words).plan(of).outage.as_secs();
        assert_eq!(seconds(&[], Of::Kafka), 30);
        assert_eq!(seconds(&[], Of::Mariadb), 10);
        assert_eq!(seconds(&["--seconds", "4"], Of::Job), 4);
    }
}
