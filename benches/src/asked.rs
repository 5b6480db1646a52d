//! The questions of the command line: what each one runs, on whom, and what it answers.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use corecast_benches::measure::{Rule, Run};
use corecast_benches::report::Figure;
use corecast_benches::scenarios::backlog::Backlog;
use corecast_benches::scenarios::churn::{self, Churn};
use corecast_benches::scenarios::echo::Echo;
use corecast_benches::scenarios::fanout::FanOut;
use corecast_benches::scenarios::handshake::Handshake;
use corecast_benches::scenarios::idle::Idle;
use corecast_benches::scenarios::memory::Memory;
use corecast_benches::scenarios::narrow::Narrow;
use corecast_benches::scenarios::probe::BesideRoom;
use corecast_benches::scenarios::stalled::Stalled;
use corecast_benches::subject::{Kind, Server, Setup, Way};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// CPU of a delivery that is written alone.
    FanOut,
    /// Deliveries a second when messages queue up.
    Backlog,
    /// CPU of a delivery in many small rooms.
    Narrow,
    /// Memory of an idle connection.
    Memory,
    /// CPU of a new connection.
    Handshake,
    /// CPU of an echo.
    Echo,
    /// CPU of an idle connection.
    Idle,
    /// Echo of others while a large room is served.
    Probe,
    /// Readers that stop, and then read again.
    Stalled,
    /// Growth while thousands come and go.
    Churn,
}

/// A scenario with its size.
pub(crate) struct Asked {
    pub(crate) scenario: Scenario,
    pub(crate) members: usize,
    pub(crate) quick: bool,
    pub(crate) together: Option<u64>,
    /// Laps of a churn.
    pub(crate) laps: Option<usize>,
}

impl Scenario {
    pub(crate) const ALL: [Self; 10] = [
        Self::FanOut,
        Self::Backlog,
        Self::Narrow,
        Self::Memory,
        Self::Handshake,
        Self::Echo,
        Self::Idle,
        Self::Probe,
        Self::Stalled,
        Self::Churn,
    ];

    /// Connections; of narrow rooms: the rooms.
    pub(crate) fn sizes(self, quick: bool) -> Vec<usize> {
        match self {
            Self::Narrow if quick => vec![100],
            _ if quick => vec![1_000],
            Self::FanOut | Self::Backlog => vec![1_000, 10_000],
            Self::Narrow | Self::Stalled => vec![1_000],
            Self::Memory | Self::Idle => vec![15_000],
            Self::Echo => vec![2_000],
            Self::Handshake => vec![5_000],
            Self::Probe => vec![10_000],
            Self::Churn => vec![19_000],
        }
    }

    /// Rounds that it takes at most: long ones repeat themselves inside, or need fewer.
    pub(crate) fn rounds_max(self) -> usize {
        match self {
            Self::Stalled => STALLED_PAIRS,
            Self::Churn => 3,
            _ => usize::MAX,
        }
    }

    /// Whom to ask, when nobody is named.
    pub(crate) fn subjects(self) -> Vec<Kind> {
        match self {
            Self::FanOut | Self::Backlog => {
                vec![Kind::FloorSend, Kind::FloorUring, Kind::Baseline, Kind::Gateway]
            }
            Self::Memory | Self::Echo => vec![Kind::FloorSend, Kind::Baseline, Kind::Gateway],
            Self::Handshake => vec![
                Kind::FloorSend,
                Kind::FloorOneSend,
                Kind::FloorV1,
                Kind::Baseline,
                Kind::Gateway,
                Kind::GatewayV1,
            ],
            Self::Narrow => vec![Kind::SendPerRoom, Kind::Gateway],
            Self::Idle => vec![Kind::FloorSend, Kind::Gateway],
            Self::Probe | Self::Stalled => vec![Kind::Undisturbed, Kind::Gateway],
            Self::Churn => vec![Kind::Gateway],
        }
    }
}

impl Asked {
    pub(crate) fn run(&self, setup: &Setup, server: &mut Server) -> Result<Run> {
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
            Scenario::Narrow => Narrow::of(members).run(server),
            Scenario::Memory => Memory { connections: members }.run(server),
            Scenario::Echo => Echo::of(members, if self.quick { 1 } else { 3 }).run(server),
            Scenario::Handshake => {
                Handshake { connections: members, per_second: HANDSHAKES_PER_SECOND }.run(server)
            }
            Scenario::Idle => Idle { connections: members, period: self.ping() }.run(server),
            Scenario::Probe => {
                let mut workload = BesideRoom::of(&setup.bench, members);
                workload.moments /= if self.quick { 2 } else { 1 };
                workload.run(server)
            }
            Scenario::Stalled => {
                let seconds = if self.quick { STALLED_SECONDS_QUICK } else { STALLED_SECONDS };
                Stalled::of(members, Duration::from_secs(seconds)).run(server)
            }
            Scenario::Churn => {
                let mut workload = Churn::of(members);
                workload.laps = self.laps.unwrap_or(if self.quick { 3 } else { workload.laps });
                workload.run(server)
            }
        }
    }

    /// What this question needs of the servers.
    pub(crate) fn prepare(&self, setup: &mut Setup) {
        setup.echo = self.scenario == Scenario::Echo;
        if self.scenario == Scenario::Narrow {
            // In a default room everybody is a member.
            setup.sets.push("rooms.create_kind=public".into());
        }
        if self.scenario == Scenario::Idle {
            setup.ping_ms = self.ping().as_millis() as u64;
            setup.sets.push(format!("gateway.limits.ping_ms={}", setup.ping_ms));
        }
    }

    /// The io_uring floor differs from the other one in fan-out only; only corecast has
    /// rooms, and something to disturb.
    pub(crate) fn is_for(&self, kind: Kind) -> bool {
        let subjects = self.scenario.subjects();
        subjects.contains(&kind) || kind == Kind::Gateway
    }

    pub(crate) fn reference(&self) -> Kind {
        match self.scenario {
            Scenario::Narrow => Kind::SendPerRoom,
            Scenario::Probe | Scenario::Stalled => Kind::Undisturbed,
            _ => Kind::FloorSend,
        }
    }

    /// Those that do what corecast does for the same clients, beside the plain one.
    pub(crate) fn further_references(&self) -> Vec<Kind> {
        match self.scenario {
            Scenario::Handshake => vec![Kind::FloorOneSend, Kind::FloorV1],
            _ => Vec::new(),
        }
    }

    pub(crate) fn rule(&self) -> Rule {
        match self.scenario {
            Scenario::Backlog => Rule::Busier,
            Scenario::Probe | Scenario::Stalled => Rule::Latency,
            _ => Rule::Full,
        }
    }

    pub(crate) fn figure(&self) -> Figure {
        match self.scenario {
            Scenario::FanOut | Scenario::Narrow | Scenario::Echo | Scenario::Handshake | Scenario::Idle => {
                Figure::Cpu
            }
            Scenario::Backlog => Figure::Rate,
            Scenario::Memory => Figure::Memory,
            Scenario::Probe | Scenario::Stalled => Figure::P99,
            Scenario::Churn => Figure::Fact(churn::GROWTH),
        }
    }

    pub(crate) fn way(&self) -> Way {
        match self.scenario {
            Scenario::FanOut if self.together.is_none_or(|together| together == 1) => Way::Comet,
            Scenario::FanOut | Scenario::Backlog | Scenario::Narrow => Way::Stream,
            Scenario::Stalled => Way::Logic,
            _ => Way::Comet,
        }
    }

    pub(crate) fn question(&self, way: Way) -> String {
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
            Scenario::Narrow => {
                "128 bytes to each of the rooms of 10 at each tick, in one batch of the stream; every connection in two rooms: CPU of the connection threads per delivery. The ratio is taken to the same binary with `debug.send_per_room`."
                    .into()
            }
            Scenario::Memory => {
                "Anonymous memory of the server's process per idle connection, authenticated, in a room."
                    .into()
            }
            Scenario::Echo => {
                "32 bytes, 40,000 a second over all connections: CPU of the connection threads per echo."
                    .into()
            }
            Scenario::Handshake => {
                "5,000 new connections a second: CPU of the connection threads until the hello; latency from the connect. *floor: send(2)* accepts, answers 101 and writes the hello, a send each. The other floors do what corecast does: *one send* accepts a peer whose request is there (`TCP_DEFER_ACCEPT`) and answers with 101 and hello together; *v1 clients* accepts the same way, answers 101, reads the `resume` that a client with `corecast.v1` sends then, and writes the hello. A ratio to these two is for the same clients: *corecast* and the baseline to the first, *corecast, v1 clients* to the second."
                    .into()
            }
            Scenario::Idle => format!(
                "One ping and one pong each in {} s, and nothing else: CPU of the connection threads per connection and ping period.",
                self.ping().as_secs()
            ),
            Scenario::Probe => {
                "Echo of 32 bytes on one connection of another process, 500 a second, while the members of a room get a message every 120 ms: p99 of the echo. The ratio is taken to the same server with the room at rest. CPU is of the whole, per echo."
                    .into()
            }
            Scenario::Stalled => format!(
                "{} of the readers of a room stop reading while 100 messages a second, stored and numbered, go on: p99 of the others. Then they read again, on the same connections; lost, dup and reord count them too. The ratio is taken to the same with everybody reading.",
                self.members / 100
            ),
            Scenario::Churn => {
                "Connections that come and leave beside those that stay, lap by lap: what grows after the first lap. CPU is of the whole, per connection that came; lost, dup and reord are of those that stayed."
                    .into()
            }
        }
    }

    fn ping(&self) -> Duration {
        if self.quick { PING_QUICK } else { PING }
    }
}

/// A storm that leaves every subject room: a server that sleeps between two of them would
/// mostly show what its wake-ups cost.
const HANDSHAKES_PER_SECOND: u64 = 5_000;
/// Corecast's default ping period.
const PING: Duration = Duration::from_secs(25);
const PING_QUICK: Duration = Duration::from_secs(4);
const STALLED_SECONDS: u64 = 60;
/// Long enough that full sockets make queues, and these a demotion.
const STALLED_SECONDS_QUICK: u64 = 15;
/// Two minutes each.
const STALLED_PAIRS: usize = 8;
