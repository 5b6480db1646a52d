//! The servers that are compared, each a child process pinned to one core.
//!
//! | module | what |
//! |---|---|
//! | [`process`] | a child that prints where it listens |
//! | [`entry`] | how messages get in |
//! | [`rooms`] | more rooms than the default one |

pub mod entry;
pub mod process;
pub mod rooms;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use self::entry::Entry;
use self::process::Process;
use crate::http;
use crate::load::Knock;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// A plain send(2) loop.
    #[value(name = "floor")]
    FloorSend,
    /// The same in io_uring batches.
    #[value(name = "uring")]
    FloorUring,
    /// A send(2) loop that accepts whoever has sent a request, and answers with one send.
    FloorOneSend,
    /// The same for clients with `corecast.v1`, who get their hello behind their `resume`.
    FloorV1,
    /// tokio and tokio-tungstenite.
    Baseline,
    /// Corecast with a send for each room and member.
    #[value(name = "per-room")]
    SendPerRoom,
    /// Corecast without what disturbs the other one: no room served, nobody stalled.
    Undisturbed,
    /// Corecast.
    #[value(name = "corecast")]
    Gateway,
    /// Corecast, whose clients offer `corecast.v1`.
    #[value(name = "corecast-v1")]
    GatewayV1,
}

/// By which public way messages enter corecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// `ChatRoom.Comet.Comet/BroadcastRoom`, a call per message, unnumbered.
    Comet,
    /// `corecast.push.v1.Gateway/Push`, a batch at a time, unnumbered.
    Stream,
    /// `POST /logic/send`: stored, numbered, through fast path and log.
    Logic,
}

/// How servers are started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The `corecast` binary.
    pub corecast: PathBuf,
    /// This binary, for floor and baseline.
    pub bench: PathBuf,
    /// Core of the server.
    pub server_core: usize,
    /// Core of the client; the same where there is only one.
    pub client_core: usize,
    /// More `--set` for corecast, as `key=value`.
    pub sets: Vec<String>,
    /// How messages enter corecast.
    pub way: Way,
    /// Length of the first frame of floor and baseline.
    pub hello_bytes: usize,
    /// WebSockets are opened on `/debug/echo`.
    pub echo: bool,
    /// Milliseconds between pings of the floor; 0: none.
    pub ping_ms: u64,
}

/// A running server.
pub struct Server {
    /// What it is.
    pub kind: Kind,
    /// Its process.
    pub pid: u32,
    /// Names of the threads that own connections begin with this; empty: all of them.
    pub shard_prefix: &'static str,
    /// Cores that server and client use.
    pub cores: Vec<usize>,
    /// How to become a member.
    pub knock: Knock,
    /// Where its numbers are.
    pub metrics: Option<SocketAddr>,
    /// Logic's JSON face.
    pub logic: Option<SocketAddr>,
    /// How messages get in.
    pub entry: Entry,
    /// Ends it when dropped; `None` when it lives in this process.
    _process: Option<Process>,
}

impl Kind {
    /// In tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::FloorSend => "floor: send(2)",
            Self::FloorUring => "floor: io_uring",
            Self::FloorOneSend => "floor: one send",
            Self::FloorV1 => "floor: v1 clients",
            Self::Baseline => "tokio + tungstenite",
            Self::SendPerRoom => "corecast, a send per room and member",
            Self::Undisturbed => "corecast, undisturbed",
            Self::Gateway => "corecast",
            Self::GatewayV1 => "corecast, v1 clients",
        }
    }

    /// Its clients offer `corecast.v1`, whatever the question.
    pub fn is_v1(self) -> bool {
        matches!(self, Self::FloorV1 | Self::GatewayV1)
    }
}

impl Setup {
    /// Starts a server and waits until it takes connections.
    ///
    /// # Errors
    /// It does not start; for [`Kind::FloorUring`] also where io_uring is refused.
    pub fn start(&self, kind: Kind) -> Result<Server> {
        match kind {
            Kind::FloorSend => self.own(kind, &["serve-floor", "--mechanism", "send"]),
            Kind::FloorUring => self.own(kind, &["serve-floor", "--mechanism", "uring"]),
            Kind::FloorOneSend => {
                self.own(kind, &["serve-floor", "--mechanism", "send", "--greeting", "one-send"])
            }
            Kind::FloorV1 => {
                self.own(kind, &["serve-floor", "--mechanism", "send", "--greeting", "after-resume"])
            }
            Kind::Baseline => self.own(kind, &["serve-baseline"]),
            Kind::SendPerRoom => self.gateway(kind, &["debug.send_per_room=true"]),
            Kind::Undisturbed | Kind::Gateway | Kind::GatewayV1 => self.gateway(kind, &[]),
        }
    }

    fn own(&self, kind: Kind, arguments: &[&str]) -> Result<Server> {
        let hello = self.hello_bytes.to_string();
        let mut command = std::process::Command::new(&self.bench);
        command.args(arguments).args(["--hello-bytes", &hello]);
        if self.ping_ms > 0 && kind != Kind::Baseline {
            command.args(["--ping-ms", &self.ping_ms.to_string()]);
        }
        let process = Process::start(command, &[("bench", "http"), ("bench", "control")], self)?;
        let knock = Knock {
            path: "/api/ws".into(),
            v1: kind.is_v1(),
            hello: self.hello_bytes > 0,
            ..Knock::to(process.addr("bench", "http")?)
        };
        let entry = Entry::control(process.addr("bench", "control")?)?;
        let pid = process.pid();
        let cores = self.cores();
        Ok(Server {
            kind,
            pid,
            shard_prefix: "",
            cores,
            knock,
            metrics: None,
            logic: None,
            entry,
            _process: Some(process),
        })
    }

    fn gateway(&self, kind: Kind, more: &[&str]) -> Result<Server> {
        let data = tempfile::tempdir()?;
        let mut command = std::process::Command::new(&self.corecast);
        command.arg("up").arg("--data").arg(data.path());
        let faces =
            ["gateway.http", "gateway.grpc", "gateway.metrics", "logic.http", "logic.grpc", "job.http"];
        let mut sets: Vec<String> = faces.iter().map(|face| format!("{face}_addr=127.0.0.1:0")).collect();
        sets.push(format!("gateway.cores=[{}]", self.server_core));
        // One more path that nobody asks for costs the others nothing.
        sets.push("debug.echo=true".into());
        sets.push("telemetry.level=warn".into());
        sets.extend(self.sets.iter().cloned());
        sets.extend(more.iter().map(|set| (*set).to_owned()));
        for set in &sets {
            command.args(["--set", set]);
        }
        let wanted = faces.map(|face| face.split_once('.').expect("a tier and a kind"));
        let mut process = Process::start(command, &wanted, self).with_context(|| {
            format!("{} does not start: build it with cargo build --release", self.corecast.display())
        })?;
        process.keep(data);
        let at = Addresses {
            http: process.addr("gateway", "http")?,
            grpc: process.addr("gateway", "grpc")?,
            metrics: process.addr("gateway", "metrics")?,
            logic: process.addr("logic", "http")?,
        };
        let mut server = Server::of_corecast(process.pid(), at, self.way, self.echo, Some(process))?;
        (server.kind, server.cores) = (kind, self.cores());
        server.knock.v1 = kind.is_v1();
        Ok(server)
    }

    /// Cores of server and client.
    pub fn cores(&self) -> Vec<usize> {
        vec![self.server_core, self.client_core]
    }
}

/// Where a corecast listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// WebSockets.
    pub http: SocketAddr,
    /// Gateway's gRPC.
    pub grpc: SocketAddr,
    /// Gateway's metrics.
    pub metrics: SocketAddr,
    /// Logic's JSON face.
    pub logic: SocketAddr,
}

impl Server {
    /// A corecast that listens there; makes a few accounts as soon as it is ready.
    ///
    /// # Errors
    /// It does not become ready, or refuses the accounts.
    pub fn of_corecast(
        pid: u32,
        at: Addresses,
        way: Way,
        echo: bool,
        process: Option<Process>,
    ) -> Result<Self> {
        http::wait_for_200(at.metrics, "/readyz")?;
        let sids = (0..ACCOUNTS).map(|number| {
            let name = format!("bench-{number}");
            let email = format!("{name}@example.org");
            let body = json!({"username": name, "email": email, "password": "of a benchmark"});
            http::post(at.logic, "/logic/register", &body)?.sid()
        });
        let sids = sids.collect::<Result<Vec<_>>>()?;
        let entry = match way {
            Way::Comet => Entry::comet(at.grpc, ROOM)?,
            Way::Stream => Entry::stream(at.grpc, ROOM)?,
            Way::Logic => Entry::logic(at.logic, ROOM, &sids[0])?,
        };
        let knock = Knock {
            path: if echo { ECHO_PATH } else { "/api/ws" }.into(),
            sids,
            hello: !echo,
            room: (way == Way::Logic).then(|| ROOM.to_owned()),
            ..Knock::to(at.http)
        };
        Ok(Self {
            kind: Kind::Gateway,
            pid,
            shard_prefix: "shard-",
            // Nobody else is looked for where no cores are given.
            cores: Vec::new(),
            knock,
            metrics: Some(at.metrics),
            logic: Some(at.logic),
            entry,
            _process: process,
        })
    }

    /// Its metrics as text; empty for a server that has none.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metrics_text(&self) -> Result<String> {
        self.metrics.map_or(Ok(String::new()), |addr| Ok(http::get(addr, "/metrics")?.body))
    }

    /// A number of its gateway, summed over shards: `corecast_gateway_<name>`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn metric(&self, name: &str) -> Result<f64> {
        Ok(http::sum_of(&self.metrics_text()?, &format!("corecast_gateway_{name}")))
    }

    /// Waits until a number of its gateway fulfils `wanted`; at once for a server without any.
    ///
    /// # Errors
    /// It did not within `time`.
    pub fn wait_metric(&self, name: &str, time: Duration, wanted: impl Fn(f64) -> bool) -> Result<()> {
        if self.metrics.is_none() {
            return Ok(());
        }
        let until = Instant::now() + time;
        loop {
            match self.metric(name)? {
                value if wanted(value) => return Ok(()),
                value if Instant::now() > until => bail!("{name} is still {value}"),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Echoes, where the switch is on.
pub const ECHO_PATH: &str = "/debug/echo";
/// Sessions that the connections share.
const ACCOUNTS: usize = 4;
/// The default room: every connection is a member.
pub const ROOM: &str = "room-001";
