//! The servers that are compared, each a child process pinned to one core.
//!
//! | module | what |
//! |---|---|
//! | [`process`] | a child that prints where it listens |
//! | [`entry`] | how messages get in |

pub mod entry;
pub mod process;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::json;

use self::entry::Entry;
use self::process::Process;
use crate::http;
use crate::load::Knock;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A plain send(2) loop.
    FloorSend,
    /// The same in io_uring batches.
    FloorUring,
    /// tokio and tokio-tungstenite.
    Baseline,
    /// Corecast.
    Gateway,
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
            Self::Baseline => "tokio + tungstenite",
            Self::Gateway => "corecast",
        }
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
            Kind::Baseline => self.own(kind, &["serve-baseline"]),
            Kind::Gateway => self.gateway(),
        }
    }

    fn own(&self, kind: Kind, arguments: &[&str]) -> Result<Server> {
        let hello = self.hello_bytes.to_string();
        let mut command = std::process::Command::new(&self.bench);
        command.args(arguments).args(["--hello-bytes", &hello]);
        let process = Process::start(command, &[("bench", "http"), ("bench", "control")], self)?;
        let knock = Knock {
            server: process.addr("bench", "http")?,
            path: "/api/ws".into(),
            sids: Vec::new(),
            v1: false,
            hello: self.hello_bytes > 0,
            room: None,
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
            entry,
            _process: Some(process),
        })
    }

    fn gateway(&self) -> Result<Server> {
        let data = tempfile::tempdir()?;
        let mut command = std::process::Command::new(&self.corecast);
        command.arg("up").arg("--data").arg(data.path());
        let faces =
            ["gateway.http", "gateway.grpc", "gateway.metrics", "logic.http", "logic.grpc", "job.http"];
        let mut sets: Vec<String> = faces.iter().map(|face| format!("{face}_addr=127.0.0.1:0")).collect();
        sets.push(format!("gateway.cores=[{}]", self.server_core));
        sets.push(format!("debug.echo={}", self.echo));
        sets.push("telemetry.level=warn".into());
        sets.extend(self.sets.iter().cloned());
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
        server.cores = self.cores();
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
            server: at.http,
            path: if echo { "/debug/echo" } else { "/api/ws" }.into(),
            sids,
            v1: false,
            hello: !echo,
            room: (way == Way::Logic).then(|| ROOM.to_owned()),
        };
        let (kind, metrics) = (Kind::Gateway, Some(at.metrics));
        // Nobody else is looked for where no cores are given.
        let cores = Vec::new();
        Ok(Self { kind, pid, shard_prefix: "shard-", cores, knock, metrics, entry, _process: process })
    }
}

/// Sessions that the connections share.
const ACCOUNTS: usize = 4;
/// The default room: every connection is a member.
const ROOM: &str = "room-001";
