//! A gateway on real sockets with a logic node that lives in the test: one default room,
//! known sessions, and switches for what the tests need to go wrong.

// Each test file uses its part; `pub` here means the test file that includes this.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corecast_backends::bus::memory::MemoryBus;
use corecast_backends::bus::{AnyBus, Bus, BusFrame};
use corecast_backends::registry::fixed::FixedRegistry;
use corecast_backends::registry::{AnyRegistry, Node};
use corecast_gateway::config::{Config, Cores};
use corecast_gateway::control::{Gateway, GatewayError};
use corecast_proto::frame;
use corecast_proto::logic as pb;
use corecast_proto::logic::logic_server::{Logic, LogicServer};
use corecast_proto::op;
use corecast_proto::refusal::Code;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, handshake};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

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

/// What the fake logic keeps.
pub struct FakeLogic {
    bus: MemoryBus,
    state: Mutex<State>,
    /// Sends and registrations fail as long as this is set.
    pub down: AtomicBool,
    /// Calls of `Send`.
    pub sends: AtomicUsize,
    /// Calls of `Register`.
    pub registers: AtomicUsize,
    /// User → incarnation, as the gateway told.
    pub routes: Mutex<HashMap<String, u64>>,
}

struct State {
    sessions: HashMap<String, (String, String)>,
    rooms: HashMap<String, Room>,
    global: u64,
}

#[derive(Default)]
struct Room {
    public: bool,
    seq: u64,
    frames: Vec<pb::Frame>,
    keys: HashMap<String, pb::StoredMessage>,
}

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

/// A WebSocket client.
pub struct Browser {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
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
        let mut request = format!("ws://{}/api/ws", self.http).into_client_request().expect("a url");
        let headers = request.headers_mut();
        if let Some(sid) = sid {
            headers.insert("cookie", format!("sid={sid}").parse().expect("a header"));
        }
        if v1 {
            headers.insert("sec-websocket-protocol", "corecast.v1".parse().expect("a header"));
        }
        let (socket, _) = within(tokio_tungstenite::connect_async(request)).await.expect("upgraded");
        Browser { socket }
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

impl Browser {
    /// Takes over a socket that was upgraded by hand.
    pub async fn of(stream: TcpStream) -> Self {
        let stream = MaybeTlsStream::Plain(stream);
        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
        Self { socket: WebSocketStream::from_raw_socket(stream, role, None).await }
    }

    /// Sends a text frame.
    pub async fn send(&mut self, text: &str) {
        within(self.socket.send(Message::text(text))).await.expect("sent");
    }

    /// Sends one message with this content and, where given, this key.
    pub async fn say(&mut self, room: &str, content: &str, key: Option<&str>) {
        let key = key.map(|key| format!(r#","clientMessageId":"{key}""#)).unwrap_or_default();
        self.send(&format!(
            r#"{{"type":"clientMessages","payload":{{"roomId":"{room}","messages":[{{"content":"{content}"{key}}}]}}}}"#
        ))
        .await;
    }

    /// The next JSON frame.
    pub async fn next_frame(&mut self) -> Value {
        loop {
            match self.next_message().await {
                Message::Text(text) => return serde_json::from_str(&text).expect("json"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("a frame was expected, came {other:?}"),
            }
        }
    }

    /// The next frame of a type; others are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next_frame().await;
            if frame["type"] == kind {
                return frame["payload"].clone();
            }
        }
    }

    /// The code of the close frame that ends the connection.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(Some(CloseFrame { code, .. })) = self.next_message().await {
                return code.into();
            }
        }
    }

    async fn next_message(&mut self) -> Message {
        within(self.socket.next()).await.expect("not over").expect("readable")
    }
}

impl FakeLogic {
    fn new(bus: MemoryBus) -> Self {
        let sessions = HashMap::from([(ANN.to_owned(), ("user-ann".to_owned(), "ann".to_owned()))]);
        let rooms = HashMap::from([(ROOM.to_owned(), Room::default())]);
        let state = Mutex::new(State { sessions, rooms, global: 0 });
        Self {
            bus,
            state,
            down: AtomicBool::new(false),
            sends: AtomicUsize::new(0),
            registers: AtomicUsize::new(0),
            routes: Mutex::default(),
        }
    }

    /// A session ends elsewhere.
    pub fn revoke(&self, sid: &str) {
        self.state.lock().expect("lock").sessions.remove(sid);
    }

    /// A public room nobody is in.
    pub fn add_public_room(&self, room_id: &str) {
        let room = Room { public: true, ..Room::default() };
        self.state.lock().expect("lock").rooms.insert(room_id.to_owned(), room);
    }

    /// A committed frame of one message that the fast path lost.
    pub fn commit(&self, room_id: &str, frame: &str) {
        let mut state = self.state.lock().expect("lock");
        let room = state.rooms.get_mut(room_id).expect("a known room");
        room.seq += 1;
        room.frames.push(pb::Frame { first_seq: room.seq, count: 1, frame: frame.to_owned().into() });
    }

    fn store(
        &self,
        frame: &pb::ClientFrame,
    ) -> Result<(Vec<pb::StoredMessage>, Option<BusFrame>), pb::Refusal> {
        let mut state = self.state.lock().expect("lock");
        let Some(room) = state.rooms.get_mut(&frame.room_id) else {
            return Err(Code::UnknownRoom.with("no such room"));
        };
        let first_seq = room.seq + 1;
        let mut array = Vec::new();
        let mut stored = Vec::new();
        let mut fresh = Vec::new();
        for message in &frame.messages {
            let key = format!("{}/{}", frame.user_id, message.key);
            if let Some(before) = room.keys.get(&key) {
                stored.push(pb::StoredMessage { repeated_key: true, ..before.clone() });
                continue;
            }
            room.seq += 1;
            let new = pb::StoredMessage {
                id: format!("{EPOCH}-{}", room.seq),
                seq: room.seq,
                timestamp: EPOCH as i64,
                repeated_key: false,
            };
            room.keys.insert(key, new.clone());
            fresh.push((message.content.clone(), new.clone()));
            stored.push(new);
        }
        frame::array(&mut array, &fresh, |out, (content, message)| {
            frame::message(
                out,
                &frame::Message {
                    id: &message.id,
                    content,
                    timestamp: message.timestamp,
                    user_id: &frame.user_id,
                    username: &frame.username,
                    seq: message.seq,
                },
            );
        });
        let published = (!fresh.is_empty()).then(|| BusFrame {
            room_id: frame.room_id.as_str().into(),
            epoch: EPOCH,
            first_seq,
            count: fresh.len() as u32,
            op: op::ROOM_MESSAGE,
            frame: frame::server_messages(&frame.room_id, &array).into(),
        });
        if let Some(frame) = &published {
            let BusFrame { first_seq, count, frame, .. } = frame.clone();
            room.frames.push(pb::Frame { first_seq, count, frame });
        }
        Ok((stored, published))
    }
}

impl State {
    fn global(&self) -> pb::Position {
        pb::Position { epoch: EPOCH, seq: self.global }
    }

    fn heads(&self, wanted: impl Fn(&str, &Room) -> bool) -> Vec<pb::Head> {
        let rooms = self.rooms.iter().filter(|(id, room)| wanted(id, room));
        rooms.map(|(id, room)| head(id, room.seq, room.kind())).collect()
    }

    fn snapshot(&self, id: &str) -> Option<pb::RoomSnapshot> {
        let room = self.rooms.get(id)?;
        Some(pb::RoomSnapshot {
            room_id: id.to_owned(),
            name: id.to_owned(),
            kind: room.kind().into(),
            epoch: EPOCH,
            last_seq: room.seq,
            first_seq: room.seq + 1,
            has_more: room.seq > 0,
            messages: "[]".into(),
            ..pb::RoomSnapshot::default()
        })
    }
}

impl Room {
    fn kind(&self) -> pb::RoomKind {
        if self.public { pb::RoomKind::Public } else { pb::RoomKind::Default }
    }
}

fn head(room_id: &str, last_seq: u64, kind: pb::RoomKind) -> pb::Head {
    pb::Head { room_id: room_id.to_owned(), epoch: EPOCH, last_seq, kind: kind.into() }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Logic for FakeLogic {
    async fn register(&self, request: Request<pb::RegisterRequest>) -> Answer<pb::SessionReply> {
        self.registers.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the database is away"));
        }
        let request = request.into_inner();
        let mut reply = pb::SessionReply::default();
        match request.username.as_str() {
            "taken" => reply.refusal = Some(Code::UsernameExists.with("that name is taken")),
            "" => reply.refusal = Some(Code::BadInput.with("username must have 1 to 32 characters")),
            _ => reply.sid = ANN.to_owned(),
        }
        Ok(Response::new(reply))
    }

    async fn login(&self, request: Request<pb::LoginRequest>) -> Answer<pb::SessionReply> {
        let mut reply = pb::SessionReply::default();
        match request.into_inner().password.as_str() {
            "right" => reply.sid = ANN.to_owned(),
            _ => reply.refusal = Some(Code::LoginFailed.with("email password no match")),
        }
        Ok(Response::new(reply))
    }

    async fn logout(&self, request: Request<pb::LogoutRequest>) -> Answer<pb::LogoutReply> {
        self.revoke(&request.into_inner().sid);
        Ok(Response::new(pb::LogoutReply {}))
    }

    async fn verify(&self, request: Request<pb::VerifyRequest>) -> Answer<pb::VerifyReply> {
        let state = self.state.lock().expect("lock");
        let sids = request.into_inner().sids;
        let sessions = sids.iter().map(|sid| match state.sessions.get(sid) {
            Some((user_id, username)) => pb::Session {
                valid: true,
                user_id: user_id.clone(),
                username: username.clone(),
                email: String::new(),
            },
            None => pb::Session::default(),
        });
        Ok(Response::new(pb::VerifyReply { sessions: sessions.collect() }))
    }

    async fn hello(&self, request: Request<pb::HelloRequest>) -> Answer<pb::HelloReply> {
        let request = request.into_inner();
        let state = self.state.lock().expect("lock");
        let mut reply = pb::HelloReply { global: Some(state.global()), ..pb::HelloReply::default() };
        if request.defaults {
            reply.rooms.extend(state.snapshot(ROOM));
        }
        for cursor in request.rooms.iter().filter(|cursor| !request.defaults || cursor.room_id != ROOM) {
            match state.snapshot(&cursor.room_id) {
                Some(snapshot) => reply.rooms.push(snapshot),
                None => reply.missing.push(cursor.room_id.clone()),
            }
        }
        Ok(Response::new(reply))
    }

    async fn send(&self, request: Request<pb::SendRequest>) -> Answer<pb::SendReply> {
        self.sends.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the database is away"));
        }
        let mut results = Vec::new();
        for frame in request.into_inner().frames {
            match self.store(&frame) {
                Ok((messages, published)) => {
                    if let Some(frame) = published {
                        self.bus.publish(frame).await;
                    }
                    results.push(pb::FrameResult { refusal: None, epoch: EPOCH, messages });
                }
                Err(refusal) => {
                    results.push(pb::FrameResult { refusal: Some(refusal), ..pb::FrameResult::default() });
                }
            }
        }
        Ok(Response::new(pb::SendReply { results }))
    }

    async fn history(&self, request: Request<pb::HistoryRequest>) -> Answer<pb::HistoryReply> {
        let request = request.into_inner();
        let mut reply = pb::HistoryReply::default();
        if request.has_after_seq {
            reply.frame = frame::room_history(&request.room_id, "", false, b"[]", EPOCH).into();
        } else {
            reply.refusal = Some(Code::UnknownMessage.with("firstMessageId is not an id of this room"));
        }
        Ok(Response::new(reply))
    }

    async fn create_room(&self, request: Request<pb::CreateRoomRequest>) -> Answer<pb::CreateRoomReply> {
        let request = request.into_inner();
        if request.room_name == "taken" {
            return Ok(Response::new(pb::CreateRoomReply { name_taken: true, ..Default::default() }));
        }
        let room_id = format!("id-of-{}", request.room_name);
        self.add_public_room(&room_id);
        let mut state = self.state.lock().expect("lock");
        state.global += 1;
        let creator = (&request.creator_id, &request.creator_username);
        let frame = frame::room_created(&room_id, &request.room_name, creator.0, creator.1, "public", EPOCH);
        Ok(Response::new(pb::CreateRoomReply {
            room_id,
            kind: pb::RoomKind::Public.into(),
            frame: frame.into(),
            global: Some(state.global()),
            ..Default::default()
        }))
    }

    async fn rooms(&self, _request: Request<pb::RoomsRequest>) -> Answer<pb::RoomsReply> {
        Ok(Response::new(pb::RoomsReply::default()))
    }

    async fn set_route(&self, request: Request<pb::RouteRequest>) -> Answer<pb::RouteReply> {
        let pb::RouteRequest { incarnation, user_ids, .. } = request.into_inner();
        self.routes.lock().expect("lock").extend(user_ids.into_iter().map(|user| (user, incarnation)));
        Ok(Response::new(pb::RouteReply {}))
    }

    async fn drop_route(&self, request: Request<pb::RouteRequest>) -> Answer<pb::RouteReply> {
        let users = request.into_inner().user_ids;
        self.routes.lock().expect("lock").retain(|user, _| !users.contains(user));
        Ok(Response::new(pb::RouteReply {}))
    }

    async fn heads(&self, request: Request<pb::HeadsRequest>) -> Answer<pb::HeadsReply> {
        let request = request.into_inner();
        let state = self.state.lock().expect("lock");
        let asked = |id: &str| request.room_ids.iter().any(|asked| asked == id);
        let mut heads = state.heads(|id, room| asked(id) || (request.defaults && !room.public));
        if request.defaults || asked("global") {
            heads.push(head("global", state.global, pb::RoomKind::Unspecified));
        }
        Ok(Response::new(pb::HeadsReply { heads }))
    }

    async fn range(&self, request: Request<pb::RangeRequest>) -> Answer<pb::RangeReply> {
        let request = request.into_inner();
        let state = self.state.lock().expect("lock");
        let (last_seq, frames) = match state.rooms.get(&request.room_id) {
            Some(room) => (room.seq, room.frames.as_slice()),
            None if request.room_id == "global" => (state.global, &[][..]),
            None => return Ok(Response::new(pb::RangeReply::default())),
        };
        let missing = frames.iter().filter(|frame| frame.first_seq > request.after_seq).cloned().collect();
        Ok(Response::new(pb::RangeReply { found: true, epoch: EPOCH, last_seq, frames: missing }))
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
