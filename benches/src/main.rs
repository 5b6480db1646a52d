//! `corecast-bench`: floor, baseline and corecast, one after the other, round by round.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use corecast_benches::baseline::Baseline;
use corecast_benches::floor::{Floor, FloorConfig, Mechanism};
use corecast_benches::load::Fleet;
use corecast_benches::measure::Run;
use corecast_benches::report::{Figure, Series};
use corecast_benches::scenarios::backlog::Backlog;
use corecast_benches::scenarios::echo::Echo;
use corecast_benches::scenarios::fanout::FanOut;
use corecast_benches::scenarios::handshake::Handshake;
use corecast_benches::scenarios::memory::Memory;
use corecast_benches::subject::process::say;
use corecast_benches::subject::{Kind, Server, Setup, Way};
use corecast_benches::sys;

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
    Gateway(Gateway),
    /// The floor as a server; the benchmark starts it.
    #[command(hide = true)]
    ServeFloor {
        #[arg(long, value_enum)]
        mechanism: Mechanism,
        #[arg(long)]
        hello_bytes: usize,
    },
    /// The baseline as a server; the benchmark starts it.
    #[command(hide = true)]
    ServeBaseline {
        #[arg(long)]
        hello_bytes: usize,
    },
}

#[derive(Debug, Args)]
struct Gateway {
    /// What to ask, in this order.
    #[arg(long = "scenario", value_enum, value_delimiter = ',', default_values_t = Scenario::ALL)]
    scenarios: Vec<Scenario>,
    /// Whom to ask.
    #[arg(long = "subject", value_enum, value_delimiter = ',', default_values_t = Subject::ALL)]
    subjects: Vec<Subject>,
    /// Alternating rounds.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Members of the room; without it 1000 and 10000, for idle memory 15000, for echo 2000,
    /// for handshakes 5000.
    #[arg(long, value_delimiter = ',')]
    members: Vec<usize>,
    /// Three short rounds of 1000 members: to see that it works, and for a first look.
    #[arg(long)]
    quick: bool,
    /// Messages that leave together: of a fan-out at each moment, of a backlog as a batch.
    #[arg(long)]
    together: Option<u64>,
    /// By which public way messages enter corecast; without it `comet` for what is written
    /// alone and `stream` for what rides together.
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
    /// Name of the kept result: `<date>-<name>.md`.
    #[arg(long, default_value = "gateway")]
    name: String,
    /// Folder of the kept result; empty: keep none.
    #[arg(long, default_value = "benches/results")]
    results: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// CPU of a delivery that is written alone.
    FanOut,
    /// Deliveries a second when messages queue up.
    Backlog,
    /// Memory of an idle connection.
    Memory,
    /// CPU of an echo.
    Echo,
    /// CPU of a new connection.
    Handshake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// A plain send(2) loop.
    Floor,
    /// The same in io_uring batches.
    Uring,
    /// tokio and tokio-tungstenite.
    Baseline,
    /// Corecast.
    Corecast,
}

impl Scenario {
    const ALL: [Self; 5] = [Self::FanOut, Self::Backlog, Self::Memory, Self::Echo, Self::Handshake];
}

impl Subject {
    const ALL: [Self; 4] = [Self::Floor, Self::Uring, Self::Baseline, Self::Corecast];

    fn kind(self) -> Kind {
        match self {
            Self::Floor => Kind::FloorSend,
            Self::Uring => Kind::FloorUring,
            Self::Baseline => Kind::Baseline,
            Self::Corecast => Kind::Gateway,
        }
    }
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Gateway(options) => compare(&options),
        Command::ServeFloor { mechanism, hello_bytes } => {
            machine::raise_nofile();
            let floor = Floor::bind(FloorConfig { mechanism, hello_bytes })?;
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
    }
}

fn compare(options: &Gateway) -> Result<()> {
    machine::raise_nofile();
    let setup = setup(options)?;
    // Threads and children that follow inherit it.
    sys::pin(&[setup.client_core])?;
    let mut report = machine::describe(&setup, &setup_words(options));
    println!("{report}");
    for scenario in &options.scenarios {
        for members in sizes(options, *scenario) {
            let series = measure(options, &setup, *scenario, members)?;
            let table = series.render();
            println!("{table}");
            report = format!("{report}\n{table}");
        }
    }
    if !options.results.is_empty() {
        std::fs::create_dir_all(&options.results)?;
        let path = format!("{}/{}-{}.md", options.results, machine::today(), options.name);
        std::fs::write(&path, report).with_context(|| path.clone())?;
        println!("kept in {path}");
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
    })
}

/// The command without what only names files.
fn setup_words(options: &Gateway) -> Vec<String> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().all(|word| !word.starts_with("--rounds")) && !options.quick {
        words.push(format!("--rounds {}", options.rounds));
    }
    words
}

fn sizes(options: &Gateway, scenario: Scenario) -> Vec<usize> {
    match scenario {
        _ if !options.members.is_empty() => options.members.clone(),
        _ if options.quick => vec![1_000],
        Scenario::FanOut | Scenario::Backlog => vec![1_000, 10_000],
        Scenario::Memory => vec![15_000],
        Scenario::Echo => vec![2_000],
        Scenario::Handshake => vec![5_000],
    }
}

fn measure(options: &Gateway, setup: &Setup, scenario: Scenario, members: usize) -> Result<Series> {
    let rounds = if options.quick { options.rounds.min(QUICK_ROUNDS) } else { options.rounds };
    let asked = Asked { scenario, members, quick: options.quick, together: options.together };
    let way = options.way.unwrap_or(asked.way());
    let mut setup = Setup { way, echo: scenario == Scenario::Echo, ..setup.clone() };
    if scenario == Scenario::Handshake && options.subjects.contains(&Subject::Corecast) {
        setup.hello_bytes = hello_bytes(&setup)?;
    }
    let mut series = Series {
        title: format!("{scenario:?}, {members}"),
        question: asked.question(way),
        figure: asked.figure(),
        reference: Kind::FloorSend,
        rounds: Vec::new(),
    };
    for round in 0..rounds {
        let start = Instant::now();
        let mut runs = Vec::new();
        for subject in options.subjects.iter().filter(|subject| asked.is_for(**subject)) {
            let kind = subject.kind();
            let until = Instant::now() + Duration::from_secs(options.patience);
            loop {
                machine::wait_until_quiet(&setup, until)?;
                let mut server = setup.start(kind)?;
                let run = asked.run(&mut server);
                let run = run.with_context(|| format!("{} in round {}", kind.name(), round + 1))?;
                let spoilt = run.cost.spoilt().is_some();
                runs.push(run);
                if !spoilt || Instant::now() >= until {
                    break;
                }
            }
        }
        eprintln!("{scenario:?} {members}: round {} of {rounds}, {:?}", round + 1, start.elapsed());
        series.rounds.push(runs);
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

/// A scenario with its size.
struct Asked {
    scenario: Scenario,
    members: usize,
    quick: bool,
    together: Option<u64>,
}

impl Asked {
    fn run(&self, server: &mut Server) -> Result<Run> {
        let members = self.members;
        match self.scenario {
            Scenario::FanOut => {
                let mut workload = FanOut::of(members);
                workload.together = self.together.unwrap_or(workload.together);
                workload.moments /= if self.quick { 2 } else { 1 };
                workload.run(server)
            }
            Scenario::Backlog => {
                let mut workload = Backlog::of(members);
                if let Some(batch) = self.together {
                    workload.batch = batch;
                    workload.in_flight = workload.in_flight.max(batch).next_multiple_of(batch);
                    workload.messages = workload.messages.next_multiple_of(batch);
                }
                workload.run(server)
            }
            Scenario::Memory => Memory { connections: members }.run(server),
            Scenario::Echo => Echo::of(members, if self.quick { 1 } else { 3 }).run(server),
            Scenario::Handshake => {
                Handshake { connections: members, per_second: HANDSHAKES_PER_SECOND }.run(server)
            }
        }
    }

    /// The io_uring floor differs from the other one in fan-out only.
    fn is_for(&self, subject: Subject) -> bool {
        subject != Subject::Uring || matches!(self.scenario, Scenario::FanOut | Scenario::Backlog)
    }

    fn figure(&self) -> Figure {
        match self.scenario {
            Scenario::FanOut | Scenario::Echo | Scenario::Handshake => Figure::Cpu,
            Scenario::Backlog => Figure::Rate,
            Scenario::Memory => Figure::Memory,
        }
    }

    fn way(&self) -> Way {
        match self.scenario {
            Scenario::FanOut if self.together.is_none_or(|together| together == 1) => Way::Comet,
            Scenario::FanOut | Scenario::Backlog => Way::Stream,
            Scenario::Memory | Scenario::Echo | Scenario::Handshake => Way::Comet,
        }
    }

    fn question(&self, way: Way) -> String {
        let together = self.together;
        match self.scenario {
            Scenario::FanOut => format!(
                "128 bytes to every member, {} at each moment of the schedule, by {way:?}: CPU of the connection threads per delivery.",
                together.unwrap_or(1)
            ),
            Scenario::Backlog => format!(
                "128 bytes to every member, 32 under way in batches of {}, by {way:?}: deliveries a second.",
                together.unwrap_or(16)
            ),
            Scenario::Memory => {
                "Anonymous memory of the server's process per idle connection, authenticated, in a room."
                    .into()
            }
            Scenario::Echo => {
                "32 bytes, 40,000 a second over all connections: CPU of the connection threads per echo."
                    .into()
            }
            Scenario::Handshake => {
                "5,000 new connections a second: CPU of the connection threads until the hello.".into()
            }
        }
    }
}

const QUICK_ROUNDS: usize = 3;
/// A storm that leaves every subject room: a server that sleeps between two of them would
/// mostly show what its wake-ups cost.
const HANDSHAKES_PER_SECOND: u64 = 5_000;
/// Length of the first frame of floor and baseline where it does not matter.
const HELLO_BYTES: usize = 256;
