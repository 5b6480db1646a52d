//! What the tests of job stand on: a gateway as a peer (a real gRPC server that does what
//! it is told), a real embedded log on a temporary store, a running job, and waiting for a
//! condition with a deadline.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file is a crate and uses its own part"
)]

pub mod gateway;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast_backends::log::embedded::{EmbeddedLog, OWNER};
use corecast_backends::log::{LogConsumer, LogProducer};
use corecast_backends::registry::{Node, Registry};
use corecast_backends::store::sqlite::SqliteStore;
use corecast_backends::store::{AnyStore, DeadLetter, Store};
use corecast_job::{Config, Job};
use corecast_proto::ids::RoomId;
use corecast_proto::job::{PushMsg, push_msg::Type};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Long enough for the slowest machine; a test that hits it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the condition answers something.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A room message with number `seq`.
pub fn room_record(seq: i64) -> PushMsg {
    PushMsg {
        r#type: Type::Room as i32,
        operation: 4,
        room: "room-001".into(),
        msg: format!("frame {seq}").into(),
        epoch: 1,
        first_seq: seq,
        count: 1,
        ..Default::default()
    }
}

/// A log on a temporary store.
pub struct Log {
    store: AnyStore,
    log: EmbeddedLog,
    _folder: tempfile::TempDir,
}

impl Log {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = AnyStore::Sqlite(SqliteStore::open(folder.path().join("log.db")).await.unwrap());
        Self { log: EmbeddedLog::new(store.clone()), store, _folder: folder }
    }

    pub async fn append(&self, record: &PushMsg) {
        self.append_bytes(record.encode_to_vec().into()).await;
    }

    pub async fn append_bytes(&self, value: Bytes) {
        self.log.append(&RoomId::from("room-001"), value).await.unwrap();
    }

    pub async fn append_rooms(&self, seqs: impl IntoIterator<Item = i64>) {
        for seq in seqs {
            self.append(&room_record(seq)).await;
        }
    }

    /// Records that are not done.
    pub async fn left(&self) -> usize {
        self.store.outbox(OWNER, 0, 100_000).await.unwrap().len()
    }

    pub async fn empty(&self) {
        eventually("every record is done", || async { (self.left().await == 0).then_some(()) }).await;
    }

    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        self.store.dead_letters(100).await.unwrap()
    }
}

/// Short times, so that a duty that ends does so within the test.
pub fn config() -> Config {
    Config { http_addr: "127.0.0.1:0".into(), push_deadline_ms: 500, duty_ms: 1_000, ..Config::default() }
}

/// A running job.
pub struct Running {
    http_addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), corecast_job::Error>>,
}

pub async fn start<R: Registry>(config: Config, log: &Log, registry: &R) -> Running {
    start_with(config, vec![log.log.consumer()], registry).await
}

pub async fn start_with<C: LogConsumer, R: Registry>(
    config: Config,
    consumers: Vec<C>,
    registry: &R,
) -> Running {
    let job = Job::bind(config, consumers, registry).await.unwrap();
    let (http_addr, stop) = (job.http_addr(), CancellationToken::new());
    Running { http_addr, task: tokio::spawn(job.run(stop.clone())), stop }
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Status and body.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http_addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: job\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// The value of a metric, as in the text: `corecast_job_acks_total{gateway="a"}`.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub async fn metric_is(&self, name: &str, expected: f64) {
        let mut last = None;
        let end = Instant::now() + PATIENCE;
        while last != Some(expected) {
            assert!(Instant::now() < end, "{name} is {last:?}, expected {expected}");
            tokio::time::sleep(Duration::from_millis(5)).await;
            last = self.metric(name).await;
        }
    }
}

/// A node as the registry lists it.
pub fn node(id: &str, addr: impl Debug) -> Node {
    Node { id: id.into(), grpc_addr: format!("{addr:?}") }
}
