//! Calls to logic: which node, how long, how often.
//!
//! The nodes come from the registry; channels connect lazily and stay. A send goes to the
//! node that wins the rendezvous hash of its room, so that sends to one room meet in one
//! lane of one node and are committed together; that is affinity only, any node may answer.
//! Everything else goes round robin.
//!
//! | calls | when a node fails |
//! |---|---|
//! | register | another node only if the request never left this one |
//! | reads, login, logout, routes | another node, or again after a back-off, while any node is worth asking |
//! | send, create room | the same, and waits for a node until the deadline: the key makes a repeat harmless |

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use corecast_backends::registry::Node;
use corecast_proto::logic as pb;
use corecast_proto::logic::logic_client::LogicClient as Stub;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tracing::{debug, warn};

use super::breaker::Breaker;
use super::metrics::LogicMetrics;

/// Bytes of one message in either direction.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// First pause between two attempts; doubles up to [`BACK_OFF_MAX`].
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const BACK_OFF_MAX: Duration = Duration::from_millis(500);
/// An attempt gets at least this long, even if another node could be asked.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);

/// Why logic did not answer. The outcome of a write is unknown in all three cases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogicError {
    /// No node, or none could be reached. A later repeat helps.
    #[error("logic cannot be reached")]
    Unreachable,
    /// No answer in time. A later repeat with the same key helps.
    #[error("logic did not answer in time")]
    Deadline,
    /// A node answered with a gRPC error that a repeat does not change.
    #[error("logic refused the call: {code:?} {message}")]
    Refused {
        /// gRPC code.
        code: Code,
        /// For the log.
        message: String,
    },
}

/// Calls to logic, balanced over its nodes. Cheap to clone.
///
/// # Cancel safety
/// Every call may be dropped; a write may then have happened.
#[derive(Clone)]
pub struct LogicClient {
    inner: Arc<Inner>,
}

struct Inner {
    table: Mutex<Table>,
    deadline: Duration,
    turn: AtomicUsize,
    metrics: LogicMetrics,
}

struct Table {
    nodes: watch::Receiver<Option<Vec<Node>>>,
    peers: Arc<[Arc<Peer>]>,
}

struct Peer {
    node: Node,
    stub: Stub<Channel>,
    breaker: Mutex<Breaker>,
}

/// What a repeat means for a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// It must not arrive twice.
    Never,
    /// It may, but nobody waits for a node that does not answer.
    WhileReachable,
    /// It may, and is worth waiting for.
    UntilDeadline,
}

struct Call<'a> {
    method: &'static str,
    retry: Retry,
    /// Room whose node is asked first.
    affinity: Option<&'a str>,
}

/// How one attempt failed.
enum Failure {
    /// The connection was never made: nothing arrived.
    NotSent(Status),
    /// The connection broke, or the node asks to come again: it may have arrived.
    Broken(Status),
    /// The attempt's time is over.
    TimedOut,
    /// Final.
    Final(Status),
}

impl LogicClient {
    /// A client of the nodes in `nodes`; a call ends after `deadline`, retries included.
    ///
    /// Must be called inside a tokio runtime.
    pub fn new(mut nodes: watch::Receiver<Option<Vec<Node>>>, deadline: Duration) -> Self {
        nodes.mark_changed();
        let table = Mutex::new(Table { nodes, peers: Arc::new([]) });
        let metrics = LogicMetrics::new();
        Self { inner: Arc::new(Inner { table, deadline, turn: AtomicUsize::new(0), metrics }) }
    }

    /// Is a node known that is worth asking?
    pub fn reachable(&self) -> bool {
        self.inner.peers().iter().any(|peer| lock(&peer.breaker).is_closed())
    }

    /// Calls and their latency, for `/metrics`.
    pub fn metrics(&self) -> &LogicMetrics {
        &self.inner.metrics
    }

    /// A new account and its session.
    ///
    /// # Errors
    /// See [`LogicError`]; the account may exist all the same.
    pub async fn register(&self, request: pb::RegisterRequest) -> Result<pb::SessionReply, LogicError> {
        let call = Call { method: "register", retry: Retry::Never, affinity: None };
        self.call(call, request, async |mut stub, request| stub.register(request).await).await
    }

    /// A session for an account.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn login(&self, request: pb::LoginRequest) -> Result<pb::SessionReply, LogicError> {
        let call = Call::read("login");
        self.call(call, request, async |mut stub, request| stub.login(request).await).await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn logout(&self, request: pb::LogoutRequest) -> Result<pb::LogoutReply, LogicError> {
        let call = Call::read("logout");
        self.call(call, request, async |mut stub, request| stub.logout(request).await).await
    }

    /// Whose sessions these are, answered in the order asked.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn verify(&self, request: pb::VerifyRequest) -> Result<pb::VerifyReply, LogicError> {
        let call = Call::read("verify");
        self.call(call, request, async |mut stub, request| stub.verify(request).await).await
    }

    /// One snapshot of rooms.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn hello(&self, request: pb::HelloRequest) -> Result<pb::HelloReply, LogicError> {
        let call = Call::read("hello");
        self.call(call, request, async |mut stub, request| stub.hello(request).await).await
    }

    /// Client frames, each stored all or none. Every message must carry its key.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn send(&self, request: pb::SendRequest) -> Result<pb::SendReply, LogicError> {
        let room = request.frames.first().map(|frame| frame.room_id.clone());
        let call = Call { method: "send", retry: Retry::UntilDeadline, affinity: room.as_deref() };
        self.call(call, request, async |mut stub, request| stub.send(request).await).await
    }

    /// A page of history.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn history(&self, request: pb::HistoryRequest) -> Result<pb::HistoryReply, LogicError> {
        let call = Call::read("history");
        self.call(call, request, async |mut stub, request| stub.history(request).await).await
    }

    /// A new room. The request must carry its key.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn create_room(
        &self,
        request: pb::CreateRoomRequest,
    ) -> Result<pb::CreateRoomReply, LogicError> {
        let call = Call { method: "create_room", retry: Retry::UntilDeadline, affinity: None };
        self.call(call, request, async |mut stub, request| stub.create_room(request).await).await
    }

    /// All rooms.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn rooms(&self, request: pb::RoomsRequest) -> Result<pb::RoomsReply, LogicError> {
        let call = Call::read("rooms");
        self.call(call, request, async |mut stub, request| stub.rooms(request).await).await
    }

    /// Users that are connected here.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn set_route(&self, request: pb::RouteRequest) -> Result<pb::RouteReply, LogicError> {
        let call = Call::read("set_route");
        self.call(call, request, async |mut stub, request| stub.set_route(request).await).await
    }

    /// Users that are no longer connected here.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn drop_route(&self, request: pb::RouteRequest) -> Result<pb::RouteReply, LogicError> {
        let call = Call::read("drop_route");
        self.call(call, request, async |mut stub, request| stub.drop_route(request).await).await
    }

    /// Heads of lines in one snapshot of the primary.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn heads(&self, request: pb::HeadsRequest) -> Result<pb::HeadsReply, LogicError> {
        let call = Call::read("heads");
        self.call(call, request, async |mut stub, request| stub.heads(request).await).await
    }

    /// Frames of a room between two numbers, from the primary.
    ///
    /// # Errors
    /// See [`LogicError`].
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeReply, LogicError> {
        let call = Call::read("range");
        self.call(call, request, async |mut stub, request| stub.range(request).await).await
    }

    async fn call<Q, R, F, A>(&self, call: Call<'_>, request: Q, invoke: F) -> Result<R, LogicError>
    where
        Q: Clone,
        F: Fn(Stub<Channel>, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let result = self.attempt_until(&call, started + self.inner.deadline, request, invoke).await;
        self.inner.metrics.observe(call.method, started.elapsed(), result.as_ref().err());
        if let Err(error) = &result {
            debug!(method = call.method, %error, "call to logic failed");
        }
        result
    }

    async fn attempt_until<Q, R, F, A>(
        &self,
        call: &Call<'_>,
        deadline: Instant,
        request: Q,
        invoke: F,
    ) -> Result<R, LogicError>
    where
        Q: Clone,
        F: Fn(Stub<Channel>, Request<Q>) -> A,
        A: Future<Output = Result<Response<R>, Status>>,
    {
        let mut back_off = BACK_OFF_MIN;
        let mut last: Option<Arc<Peer>> = None;
        let mut timed_out = false;
        loop {
            let peers = self.inner.peers();
            let Some(peer) = self.inner.pick(&peers, call.affinity, last.as_ref()) else {
                if call.retry != Retry::UntilDeadline {
                    return Err(if timed_out { LogicError::Deadline } else { LogicError::Unreachable });
                }
                self.pause(&mut back_off, deadline, timed_out).await?;
                continue;
            };
            let repeated = last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &peer));
            if repeated {
                self.pause(&mut back_off, deadline, timed_out).await?;
            }
            let remaining = deadline.saturating_duration_since(Instant::now());
            let may_move = call.retry != Retry::Never && peers.len() > 1;
            let limit = if may_move { (remaining / 2).max(ATTEMPT_MIN).min(remaining) } else { remaining };
            match attempt(&peer, limit, request.clone(), &invoke).await {
                Ok(reply) => return Ok(reply),
                Err(Failure::Final(status)) => {
                    return Err(LogicError::Refused {
                        code: status.code(),
                        message: status.message().to_owned(),
                    });
                }
                Err(Failure::NotSent(_)) => {}
                Err(Failure::Broken(_)) if call.retry == Retry::Never => return Err(LogicError::Unreachable),
                Err(Failure::TimedOut) if call.retry == Retry::Never => return Err(LogicError::Deadline),
                Err(Failure::Broken(_)) => {}
                Err(Failure::TimedOut) => timed_out = true,
            }
            if Instant::now() >= deadline {
                return Err(if timed_out { LogicError::Deadline } else { LogicError::Unreachable });
            }
            last = Some(peer);
        }
    }

    /// Waits before the next attempt, with jitter so that callers do not come back together.
    async fn pause(
        &self,
        back_off: &mut Duration,
        deadline: Instant,
        timed_out: bool,
    ) -> Result<(), LogicError> {
        let wait = back_off.mul_f64(rand::random_range(0.5..1.0));
        if Instant::now() + wait >= deadline {
            return Err(if timed_out { LogicError::Deadline } else { LogicError::Unreachable });
        }
        *back_off = (*back_off * 2).min(BACK_OFF_MAX);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl Call<'_> {
    fn read(method: &'static str) -> Self {
        Self { method, retry: Retry::WhileReachable, affinity: None }
    }
}

impl Inner {
    fn peers(&self) -> Arc<[Arc<Peer>]> {
        let mut table = lock(&self.table);
        if table.nodes.has_changed().unwrap_or(false) {
            let nodes = table.nodes.borrow_and_update().clone().unwrap_or_default();
            // A registry that names nobody may be one that was emptied: nodes that answer are
            // asked on, and asking ones that are gone costs nothing their absence would save.
            if nodes.is_empty() {
                return table.peers.clone();
            }
            let peers = nodes.into_iter().filter_map(|node| {
                let known = table.peers.iter().find(|peer| peer.node == node).cloned();
                known.or_else(|| Peer::new(node).map(Arc::new))
            });
            table.peers = peers.collect();
        }
        table.peers.clone()
    }

    /// The node to ask: by affinity or round robin, one that is worth asking, and another
    /// one than last time where there is one.
    fn pick(
        &self,
        peers: &[Arc<Peer>],
        affinity: Option<&str>,
        last: Option<&Arc<Peer>>,
    ) -> Option<Arc<Peer>> {
        let mut order: Vec<&Arc<Peer>> = peers.iter().collect();
        if let Some(room) = affinity {
            order.sort_by_key(|peer| std::cmp::Reverse(weight(&peer.node.id, room)));
        } else if !order.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(turn);
        }
        if let Some(last) = last {
            order.sort_by_key(|peer| Arc::ptr_eq(peer, last));
        }
        let now = Instant::now();
        order.into_iter().find(|peer| lock(&peer.breaker).admit(now)).cloned()
    }
}

impl Peer {
    fn new(node: Node) -> Option<Self> {
        let endpoint = match Endpoint::from_shared(format!("http://{}", node.grpc_addr)) {
            Ok(endpoint) => endpoint,
            Err(error) => {
                warn!(id = node.id, addr = node.grpc_addr, %error, "address of a logic node is not usable");
                return None;
            }
        };
        let channel = endpoint
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let stub = Stub::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Some(Self { node, stub, breaker: Mutex::new(Breaker::new()) })
    }
}

async fn attempt<Q, R, F, A>(peer: &Peer, limit: Duration, request: Q, invoke: &F) -> Result<R, Failure>
where
    F: Fn(Stub<Channel>, Request<Q>) -> A,
    A: Future<Output = Result<Response<R>, Status>>,
{
    let mut request = Request::new(request);
    // Tells the server too, so that it drops work nobody waits for.
    request.set_timeout(limit);
    let failure = match tokio::time::timeout(limit, invoke(peer.stub.clone(), request)).await {
        Ok(Ok(response)) => {
            lock(&peer.breaker).succeeded();
            return Ok(response.into_inner());
        }
        Ok(Err(status)) => classify(status),
        Err(_) => Failure::TimedOut,
    };
    let answered = match &failure {
        Failure::NotSent(status) | Failure::Broken(status) => {
            debug!(logic = peer.node.id, %status, "attempt failed");
            !is_local(status)
        }
        Failure::TimedOut => false,
        Failure::Final(_) => true,
    };
    if answered {
        lock(&peer.breaker).succeeded();
    } else {
        lock(&peer.breaker).failed(Instant::now());
    }
    Err(failure)
}

fn classify(status: Status) -> Failure {
    if never_connected(&status) {
        return Failure::NotSent(status);
    }
    match status.code() {
        Code::DeadlineExceeded => Failure::TimedOut,
        Code::Cancelled if has_source::<tonic::TimeoutExpired>(&status) => Failure::TimedOut,
        Code::Unavailable
        | Code::Cancelled
        | Code::Unknown
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Internal => Failure::Broken(status),
        _ => Failure::Final(status),
    }
}

/// Made on this side (a broken connection) rather than sent by the node.
fn is_local(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn never_connected(status: &Status) -> bool {
    has_source::<tonic::ConnectError>(status)
}

fn has_source<E: std::error::Error + 'static>(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<E>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Rendezvous hashing: the node with the largest weight owns the room, and a node that
/// comes or goes moves only its own rooms. Gateways need not agree.
fn weight(node: &str, room: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (node, room).hash(&mut hasher);
    hasher.finish()
}

/// A panic while the lock was held left plain values behind: they stay usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, grpc_addr: &str) -> Node {
        Node { id: id.to_owned(), grpc_addr: grpc_addr.to_owned() }
    }

    /// Keeps the sender alive for as long as the client.
    fn client(nodes: Vec<Node>, deadline_ms: u64) -> (LogicClient, watch::Sender<Option<Vec<Node>>>) {
        let (sender, receiver) = watch::channel(Some(nodes));
        (LogicClient::new(receiver, Duration::from_millis(deadline_ms)), sender)
    }

    #[tokio::test]
    async fn a_read_fails_fast_and_a_keyed_write_waits_until_the_deadline() {
        let (client, _nodes) = client(Vec::new(), 300);
        let started = Instant::now();
        assert_eq!(client.rooms(pb::RoomsRequest {}).await, Err(LogicError::Unreachable));
        assert!(started.elapsed() < Duration::from_millis(100));
        let started = Instant::now();
        assert_eq!(client.send(pb::SendRequest::default()).await, Err(LogicError::Unreachable));
        assert!(started.elapsed() >= Duration::from_millis(50), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_node_that_refuses_connections_is_not_asked_again_at_once() {
        // A port that was free a moment ago and has no listener.
        let addr = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("addr");
        let (client, _nodes) = client(vec![node("a", &addr.to_string())], 2_000);
        assert_eq!(client.rooms(pb::RoomsRequest {}).await, Err(LogicError::Unreachable));
        assert!(!client.reachable());
    }

    #[tokio::test]
    async fn rooms_keep_their_node_when_another_one_leaves() {
        let nodes: Vec<Node> = ["a", "b", "c"].iter().map(|id| node(id, "127.0.0.1:1")).collect();
        let (client, sender) = client(nodes.clone(), 300);
        let owner = |room: &str| {
            let peers = client.inner.peers();
            client.inner.pick(&peers, Some(room), None).expect("closed breakers").node.id.clone()
        };
        let rooms: Vec<String> = (0..200).map(|index| format!("room-{index}")).collect();
        let before: Vec<String> = rooms.iter().map(|room| owner(room)).collect();
        sender.send(Some(nodes[..2].to_vec())).expect("client listens");
        for (room, before) in rooms.iter().zip(&before) {
            let after = owner(room);
            assert!(before == "c" || *before == after, "{room} moved from {before} to {after}");
        }
        assert!(["a", "b", "c"].iter().all(|id| before.iter().any(|owner| owner == id)));
    }
}
