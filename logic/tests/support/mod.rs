//! A real logic node on a temporary store: HTTP and gRPC on loopback, ports chosen by the
//! system.
//!
//! Each test file takes what it needs of this.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate and uses a part")]
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use corecast_backends::url::{Backends, Urls};
use corecast_logic::{Config, Error, Logic};
use corecast_proto::logic::logic_client::LogicClient;
use corecast_proto::logic::{
    ClientFrame, CreateRoomReply, CreateRoomRequest, FrameResult, HistoryRequest, NewMessage,
    RegisterRequest, SendRequest,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Long enough for the slowest machine; nothing waits for it to pass.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The default room of every node.
pub const GENERAL: &str = "room-001";

/// A running node.
pub struct Running {
    pub http: String,
    pub grpc_addr: String,
    pub grpc: LogicClient<Channel>,
    pub backends: Backends,
    pub metrics: corecast_logic::Metrics,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
    dir: Arc<TempDir>,
}

/// A registered user.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub username: String,
    pub email: String,
    pub password: String,
    pub sid: String,
}

/// What an HTTP request was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {:?}", self.text))
    }

    /// Is it `{"id","message"}` and nothing else?
    pub fn assert_failure(&self, status: u16, id: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        let json = self.json();
        let fields: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["id", "message"], "{}", self.text);
        assert_eq!(json["id"], id, "{}", self.text);
        assert!(!json["message"].as_str().unwrap().is_empty());
        assert_eq!(self.headers["content-type"], "application/json");
    }
}

/// A node with the default configuration.
pub async fn node() -> Running {
    node_with(|_| {}).await
}

/// A node with a changed configuration.
pub async fn node_with(change: impl FnOnce(&mut Config)) -> Running {
    node_in(Arc::new(TempDir::new().unwrap()), change).await
}

async fn node_in(dir: Arc<TempDir>, change: impl FnOnce(&mut Config)) -> Running {
    let backends = open(dir.path()).await;
    let mut config = loopback();
    change(&mut config);
    let logic = Logic::bind(config, corecast_logic::Backends::from(backends.clone())).await.unwrap();
    Running::start(logic, backends, dir).await
}

/// All backends embedded, in this folder.
pub async fn open(dir: &Path) -> Backends {
    Backends::open(&urls(), dir).await.unwrap()
}

pub fn urls() -> Urls {
    Urls::default()
}

/// The default configuration on ports the system chooses.
pub fn loopback() -> Config {
    Config { http_addr: "127.0.0.1:0".into(), grpc_addr: "127.0.0.1:0".into(), ..Config::default() }
}

impl Running {
    /// Runs a node that is bound.
    pub async fn start(logic: Logic, backends: Backends, dir: Arc<TempDir>) -> Running {
        let (http, grpc_addr) = (format!("http://{}", logic.http_addr()), logic.grpc_addr().to_string());
        let metrics = logic.metrics();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(logic.run(shutdown.clone()));
        let grpc = LogicClient::connect(format!("http://{grpc_addr}")).await.unwrap();
        Running { http, grpc_addr, grpc, backends, metrics, shutdown, task, dir }
    }

    /// Stops the node and closes its store.
    pub async fn stop(self) -> Arc<TempDir> {
        let Self { backends, shutdown, task, dir, grpc, .. } = self;
        drop(grpc);
        shutdown.cancel();
        tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap().unwrap();
        backends.close().await;
        dir
    }

    /// The same data in a new node.
    pub async fn reopen(self) -> Running {
        self.reopen_with(|_| {}).await
    }

    pub async fn reopen_with(self, change: impl FnOnce(&mut Config)) -> Running {
        let dir = self.stop().await;
        node_in(dir, change).await
    }

    pub async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        answer(reqwest::Client::new().post(format!("{}{path}", self.http)).body(body.into())).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(reqwest::Client::new().get(format!("{}{path}", self.http))).await
    }

    /// A user with a name nobody else has.
    pub async fn user(&self) -> User {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        self.user_named(&format!("user-{n}"), &format!("user-{n}@mail.example")).await
    }

    pub async fn user_named(&self, username: &str, email: &str) -> User {
        let request = RegisterRequest {
            username: username.into(),
            email: email.into(),
            password: "correct horse".into(),
        };
        let reply = self.grpc.clone().register(request).await.unwrap().into_inner();
        assert_eq!(reply.refusal, None);
        User {
            id: reply.user_id,
            username: reply.username,
            email: email.into(),
            password: "correct horse".into(),
            sid: reply.sid,
        }
    }

    /// Sends frames and gives one result per frame.
    pub async fn send(&self, frames: Vec<ClientFrame>) -> Vec<FrameResult> {
        self.grpc.clone().send(SendRequest { frames }).await.unwrap().into_inner().results
    }

    /// `count` messages with keys `c:1…`, frame by frame of at most 64.
    pub async fn fill(&self, room_id: &str, user: &User, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        let numbers: Vec<usize> = (1..=count).collect();
        for part in numbers.chunks(64) {
            let messages: Vec<(String, String)> =
                part.iter().map(|n| (format!("message {n}"), format!("c:{n}"))).collect();
            let result = self.send(vec![frame(room_id, user, &messages)]).await.remove(0);
            assert_eq!(result.refusal, None);
            ids.extend(result.messages.into_iter().map(|message| message.id));
        }
        ids
    }

    pub async fn create_room(&self, name: &str, creator: &User, key: &str) -> CreateRoomReply {
        let request = CreateRoomRequest {
            room_name: name.into(),
            creator_id: creator.id.clone(),
            creator_username: creator.username.clone(),
            key: key.into(),
        };
        self.grpc.clone().create_room(request).await.unwrap().into_inner()
    }

    /// The payload of a page of history, or the code of its refusal.
    pub async fn page(&self, request: HistoryRequest) -> Result<Value, String> {
        let reply = self.grpc.clone().history(request).await.unwrap().into_inner();
        if let Some(refusal) = reply.refusal {
            return Err(refusal.code);
        }
        let frame: Value = serde_json::from_slice(&reply.frame).unwrap();
        assert_eq!(frame["type"], "serverRoomHistory");
        assert_eq!(frame["payload"]["name"], "");
        Ok(frame["payload"].clone())
    }

    /// The newest messages of a room.
    pub async fn newest(&self, room_id: &str, user: &User, count: u32) -> Value {
        let request = HistoryRequest {
            room_id: room_id.into(),
            user_id: user.id.clone(),
            count,
            ..HistoryRequest::default()
        };
        self.page(request).await.unwrap()
    }

    /// A counter or gauge of `/metrics`, with its labels as they are written.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.text();
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|r| r.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next())
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.timeout(DEADLINE).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, text: response.text().await.unwrap() }
}

/// A client frame of (content, key).
pub fn frame<C: AsRef<str>, K: AsRef<str>>(room_id: &str, user: &User, messages: &[(C, K)]) -> ClientFrame {
    ClientFrame {
        room_id: room_id.into(),
        user_id: user.id.clone(),
        username: user.username.clone(),
        messages: messages
            .iter()
            .map(|(content, key)| NewMessage { content: content.as_ref().into(), key: key.as_ref().into() })
            .collect(),
    }
}

/// The numbers of messages in a JSON array of them.
pub fn seqs(messages: &Value) -> Vec<u64> {
    messages.as_array().unwrap().iter().map(|message| message["seq"].as_u64().unwrap()).collect()
}

/// The numbers of messages in the bytes of such an array.
pub fn seqs_of(messages: &[u8]) -> Vec<u64> {
    seqs(&serde_json::from_slice(messages).unwrap())
}

/// Waits until the condition holds.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}
