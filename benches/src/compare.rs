//! `corecast-bench gateway`: the rounds of each question, its table and its picture.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use corecast_benches::load::Fleet;
use corecast_benches::report::Series;
use corecast_benches::subject::{Kind, Setup, Way};
use corecast_benches::{chart, sys};

use crate::asked::{Asked, Scenario};
use crate::machine;

/// Options of `corecast-bench gateway`.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// What to ask, in this order.
    #[arg(long = "scenario", value_enum, value_delimiter = ',', default_values_t = Scenario::ALL)]
    scenarios: Vec<Scenario>,
    /// Whom to ask; without it everybody whom a question is for.
    #[arg(long = "subject", value_enum, value_delimiter = ',')]
    subjects: Vec<Kind>,
    /// Alternating rounds; of `stalled` at most 8, of `churn` 3.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Minutes after which a question begins no more rounds; 0: all of them.
    #[arg(long, default_value_t = 0, value_name = "MINUTES")]
    minutes: u64,
    /// Members of the room; without it each question has its own sizes, see the README.
    #[arg(long, value_delimiter = ',')]
    members: Vec<usize>,
    /// Three short rounds of 1000 members: to see that it works, and for a first look.
    #[arg(long)]
    quick: bool,
    /// Messages that leave together: of a fan-out at each moment, of a backlog as a batch.
    #[arg(long)]
    together: Option<u64>,
    /// Laps of `churn`; without it ten.
    #[arg(long)]
    laps: Option<usize>,
    /// By which public way messages enter corecast; without it `comet` for what is written
    /// alone, `stream` for what rides together, `logic` for what must be caught up.
    #[arg(long, value_enum)]
    way: Option<Way>,
    /// The binary under test; without it the `corecast` beside this one.
    #[arg(long)]
    corecast: Option<PathBuf>,
    /// Seconds to wait for other programs before a run and to repeat one that they spoilt; 0:
    /// measure at once, and once.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    patience: u64,
    /// A key of its configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Name of the kept result: `<date>-<name>.md`, and a picture for each table.
    #[arg(long, default_value = "gateway")]
    name: String,
    /// Folder of the kept result; empty: keep none.
    #[arg(long, default_value = "benches/results")]
    results: String,
}

/// Asks all, prints as it goes, and keeps what it has after each table.
pub(crate) fn compare(options: &Gateway) -> Result<()> {
    machine::raise_nofile();
    let setup = setup(options)?;
    // Threads and children that follow inherit it.
    sys::pin(&[setup.client_core])?;
    let mut report = machine::describe(&setup, &words(options));
    println!("{report}");
    let file = format!("{}-{}", machine::today(), options.name);
    let folder = Path::new(&options.results);
    let keep = !options.results.is_empty();
    for scenario in &options.scenarios {
        let sizes = scenario.sizes(options.quick);
        for members in if options.members.is_empty() { &sizes } else { &options.members } {
            let series = measure(options, &setup, *scenario, *members)?;
            let mut table = series.render();
            println!("{table}");
            if keep {
                std::fs::create_dir_all(folder)?;
                let stem = format!("{file}-{}-{members}", format!("{scenario:?}").to_lowercase());
                if let Some(picture) = chart::draw(&series, folder, &stem)? {
                    table += &format!("\n![{}]({picture})\n", series.title);
                }
                report = format!("{report}\n{table}");
                let path = folder.join(format!("{file}.md"));
                // After each table: who stops the program keeps what it had.
                std::fs::write(&path, &report).with_context(|| path.display().to_string())?;
            }
        }
    }
    if keep {
        println!("kept in {}/{file}.md", options.results);
    }
    Ok(())
}

fn setup(options: &Gateway) -> Result<Setup> {
    let bench = std::env::current_exe()?;
    let corecast = options.corecast.clone().unwrap_or_else(|| bench.with_file_name("corecast"));
    let cores = sys::cores()?;
    let (Some(server_core), Some(client_core)) = (cores.first(), cores.last()) else {
        bail!("no core to run on");
    };
    if server_core == client_core {
        bail!("server and client need a core each, and this process may use one only");
    }
    Ok(Setup {
        corecast,
        bench,
        server_core: *server_core,
        client_core: *client_core,
        sets: options.sets.clone(),
        way: Way::Comet,
        hello_bytes: HELLO_BYTES,
        echo: false,
        ping_ms: 0,
    })
}

/// The command without what only names files.
fn words(options: &Gateway) -> Vec<String> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().all(|word| !word.starts_with("--rounds")) && !options.quick {
        words.push(format!("--rounds {}", options.rounds));
    }
    words
}

fn measure(options: &Gateway, setup: &Setup, scenario: Scenario, members: usize) -> Result<Series> {
    let rounds = if options.quick { options.rounds.min(QUICK_ROUNDS) } else { options.rounds };
    let rounds = rounds.min(scenario.rounds_max());
    let asked =
        Asked { scenario, members, quick: options.quick, together: options.together, laps: options.laps };
    let subjects = if options.subjects.is_empty() { scenario.subjects() } else { options.subjects.clone() };
    let subjects: Vec<Kind> = subjects.into_iter().filter(|kind| asked.is_for(*kind)).collect();
    let way = options.way.unwrap_or(asked.way());
    let mut setup = Setup { way, ..setup.clone() };
    asked.prepare(&mut setup);
    let measures_corecast = subjects.iter().any(|kind| matches!(kind, Kind::Gateway | Kind::GatewayV1));
    if matches!(scenario, Scenario::Handshake | Scenario::Idle) && measures_corecast {
        setup.hello_bytes = hello_bytes(&setup)?;
    }
    let mut series = Series {
        title: format!("{scenario:?}, {members}"),
        question: asked.question(way),
        figure: asked.figure(),
        reference: asked.reference(),
        further: asked.further_references(),
        rounds: Vec::new(),
        failures: Vec::new(),
    };
    let begin = Instant::now();
    for round in 0..rounds {
        let start = Instant::now();
        let mut runs = Vec::new();
        for kind in &subjects {
            let patience = Duration::from_secs(options.patience);
            machine::wait_until_quiet(&setup, Instant::now() + patience)?;
            let mut until = None;
            loop {
                let run = setup.start(*kind).and_then(|mut server| asked.run(&setup, &mut server));
                let spoilt = match run {
                    Ok(run) => {
                        eprintln!("{scenario:?} {members}, {}", series.figure.line(&run));
                        let spoilt = run.cost.spoilt(asked.rule()).is_some();
                        runs.push(run);
                        spoilt
                    }
                    Err(error) => {
                        let failure = format!("round {}, {}: {error:#}", round + 1, kind.name());
                        eprintln!("{scenario:?} {members}, failed: {failure}");
                        if series.failures.len() == FAILURES_MAX {
                            return Err(error.context(failure));
                        }
                        series.failures.push(failure);
                        true
                    }
                };
                // Patience begins with the first run, however long that took.
                let until = *until.get_or_insert_with(|| Instant::now() + patience);
                if !spoilt || Instant::now() >= until {
                    break;
                }
                machine::wait_until_quiet(&setup, until)?;
            }
        }
        series.rounds.push(runs);
        let took = start.elapsed();
        let left = took * u32::try_from(rounds - round - 1).unwrap_or(u32::MAX);
        eprintln!(
            "{scenario:?} {members}: round {} of {rounds} took {} s, about {} s left",
            round + 1,
            took.as_secs(),
            left.as_secs()
        );
        if options.minutes > 0 && begin.elapsed() >= Duration::from_secs(60 * options.minutes) {
            break;
        }
    }
    Ok(series)
}

/// Length of corecast's hello in a fresh system.
fn hello_bytes(setup: &Setup) -> Result<usize> {
    let server = setup.start(Kind::Gateway)?;
    let mut fleet = Fleet::start(1)?;
    fleet.open(server.knock.clone(), 1, None, Duration::from_secs(10))?;
    Ok(fleet.judge(Some(0))?.hello_bytes)
}

/// Runs of a table that may end without a result: more are a fault of the setup.
const FAILURES_MAX: usize = 3;
const QUICK_ROUNDS: usize = 3;
/// Length of the first frame of floor and baseline where it does not matter.
const HELLO_BYTES: usize = 256;
