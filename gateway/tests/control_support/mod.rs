//! A gateway on real sockets with a logic node that lives in the test: one default room,
//! known sessions, and switches for what the tests need to go wrong.

// Each test file uses its part; `pub` here means the test file that includes this.
#![allow(dead_code, unreachable_pub)]

mod browser;
mod logic;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use corecast_backends::bus::AnyBus;
use corecast_backends::bus::memory::MemoryBus;
use corecast_backends::registry::fixed::FixedRegistry;
use corecast_backends::registry::{AnyRegistry, Node};
use corecast_gateway::config::{Config, Cores};
use corecast_gateway::control::{Gateway, GatewayError};
use corecast_proto::logic::logic_server::LogicServer;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

pub use browser::Browser;
pub use logic::FakeLogic;

/// A session the fake logic knows.
pub const ANN: &str = "5f2e6c1c-6f0a-4b43-9b0e-6d6b3c8a1d10";
/// A session nobody knows.
pub const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
/// The default room.
pub const ROOM: &str = "room-001";
/// Epoch of every line.
pub const EPOCH: u64 = 1_690_000_000_000;
/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running gateway and its logic.
pub struct World {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
    pub metrics: SocketAddr,
    pub logic: Arc<FakeLogic>,
    logic_stop: CancellationToken,
    logic_end: Option<JoinHandle<()>>,
    shutdown: CancellationToken,
    gateway: Option<JoinHandle<Result<(), GatewayError>>>,
}

impl World {
    /// A gateway that is ready.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_beside(&[], change).await
    }

    /// A gateway that is ready, and whose registry also lists a logic node that refuses
    /// connections.
    pub async fn start_beside_a_dead_node() -> Self {
        Self::start_beside(&[refusing_addr().await], |_| {}).await
    }

    async fn start_beside(others: &[SocketAddr], change: impl FnOnce(&mut Config)) -> Self {
        let bus = MemoryBus::new();
        let logic = Arc::new(FakeLogic::new(bus.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("bound");
        let logic_stop = CancellationToken::new();
        let stop = logic_stop.clone();
        let server = tonic::transport::Server::builder().add_service(LogicServer::from_arc(logic.clone()));
        let server = server.serve_with_incoming_shutdown(TcpIncoming::from(listener), async move {
            stop.cancelled().await;
        });
        let logic_end = tokio::spawn(async move { server.await.expect("logic serves") });
        let nodes: Vec<SocketAddr> = others.iter().copied().chain([addr]).collect();
        let mut world = Self::with_logic(&nodes, bus, logic, logic_stop, change).await;
        world.logic_end = Some(logic_end);
        world.wait_ready().await;
        world
    }

    /// A gateway whose logic node refuses connections.
    pub async fn without_logic() -> Self {
        let bus = MemoryBus::new();
        let logic = Arc::new(FakeLogic::new(bus.clone()));
        Self::with_logic(&[refusing_addr().await], bus, logic, CancellationToken::new(), |_| {}).await
    }

    async fn with_logic(
        nodes: &[SocketAddr],
        bus: MemoryBus,
        logic: Arc<FakeLogic>,
        logic_stop: CancellationToken,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        // Two cores where there are two: answers of one must not depend on the other.
        let cores =
            core_affinity::get_core_ids().unwrap_or_default().iter().take(2).map(|core| core.id).collect();
        let mut config = Config {
            http_addr: any,
            grpc_addr: any,
            metrics_addr: any,
            cores: Cores::List(cores),
            id: Some("gateway-1".to_owned()),
            ..Config::default()
        };
        config.limits.logic_deadline_ms = 1_500;
        config.limits.drain_ms = 500;
        change(&mut config);
        let nodes = nodes.iter().enumerate();
        let nodes = nodes.map(|(at, addr)| Node { id: format!("logic-{at}"), grpc_addr: addr.to_string() });
        let registry = AnyRegistry::Fixed(FixedRegistry::new(Vec::new(), nodes.collect()));
        let gateway = Gateway::bind(config, false, AnyBus::Memory(bus), registry).await.expect("bound");
        let (http, grpc, metrics) = (gateway.http_addr(), gateway.grpc_addr(), gateway.metrics_addr());
        let shutdown = CancellationToken::new();
        let gateway = Some(tokio::spawn(gateway.run(shutdown.clone())));
        Self { http, grpc, metrics, logic, logic_stop, logic_end: None, shutdown, gateway }
    }

    async fn wait_ready(&self) {
        let url = format!("http://{}/readyz", self.metrics);
        eventually("the gateway is ready", async || {
            reqwest::get(&url).await.is_ok_and(|response| response.status().is_success())
        })
        .await;
    }

    /// Nobody answers the gateway any more.
    pub async fn stop_logic(&mut self) {
        self.logic_stop.cancel();
        within(self.logic_end.take().expect("stopped once")).await.expect("no panic");
    }

    /// Connects, offering `corecast.v1` or not. A cookie is sent where there is a `sid`.
    pub async fn connect(&self, sid: Option<&str>, v1: bool) -> Browser {
        self.connect_by(within(TcpStream::connect(self.http)).await.expect("connected"), sid, v1).await
    }

    /// A `corecast.v1` client that has its hello and whose kernel takes few bytes before it reads.
    pub async fn small_v1_client(&self) -> Browser {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a socket");
        let stream = within(socket.connect(self.http)).await.expect("connected");
        let mut browser = self.connect_by(stream, Some(ANN), true).await;
        browser.send(r#"{"type":"resume","payload":{"rooms":[]}}"#).await;
        assert_eq!(browser.next_frame().await["type"], "hello");
        browser
    }

    async fn connect_by(&self, stream: TcpStream, sid: Option<&str>, v1: bool) -> Browser {
        let mut request = format!("ws://{}/api/ws", self.http).into_client_request().expect("a url");
        let headers = request.headers_mut();
        if let Some(sid) = sid {
            headers.insert("cookie", format!("sid={sid}").parse().expect("a header"));
        }
        if v1 {
            headers.insert("sec-websocket-protocol", "corecast.v1".parse().expect("a header"));
        }
        Browser::upgraded(stream, request).await
    }

    /// An old client that has its hello.
    pub async fn old_client(&self) -> Browser {
        let mut browser = self.connect(Some(ANN), false).await;
        assert_eq!(browser.next_frame().await["type"], "hello");
        browser
    }

    /// A `corecast.v1` client that has its hello.
    pub async fn v1_client(&self) -> Browser {
        let mut browser = self.connect(Some(ANN), true).await;
        browser.send(r#"{"type":"resume","payload":{"rooms":[]}}"#).await;
        assert_eq!(browser.next_frame().await["type"], "hello");
        browser
    }

    /// `http://…` + path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// The text of `/metrics`.
    pub async fn metrics_text(&self) -> String {
        let response = reqwest::get(format!("http://{}/metrics", self.metrics)).await.expect("metrics");
        response.text().await.expect("text")
    }

    /// Stops the gateway and waits until it has.
    pub async fn end(&mut self) -> Result<(), GatewayError> {
        self.shutdown.cancel();
        let gateway = self.gateway.take().expect("ended once");
        within(gateway).await.expect("no panic")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.logic_stop.cancel();
    }
}

/// A port without a listener.
async fn refusing_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound")
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a future that must end.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

/// A key for an upgrade by hand.
pub fn websocket_key() -> String {
    handshake::client::generate_key()
}
