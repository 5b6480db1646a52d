//! Does, on tokio: gRPC in, logic client, sequencer shell, HTTP, metrics, drain.
//!
//! | module | what |
//! |---|---|
//! | [`Gateway`] | bind, run, drain |
//! | [`dispatch`] | the one reader of what the shards tell |
//! | [`connect`] [`verify`] | from the 101 to the open connection |
//! | [`requests`] [`forward`] | what clients ask for |
//! | [`connections`] [`routes`] [`recheck`] [`logouts`] | who is connected, who has to know, who no longer may be |
//! | [`hub`] | the lines: fast path and log merged, joins, catch-up |
//! | [`bus`] | the fast path |
//! | [`grpc`] [`comet`] [`push_stream`] [`dedupe`] | pushes of others and of job |
//! | [`http`] | plain HTTP of browsers |
//! | [`logic_client`] [`breaker`] | calls to logic |
//! | [`cores`] | the mailboxes of the shards |
//! | [`lease`] | the place in the registry, the incarnation |
//! | [`ops`] [`metrics`] [`shard_metrics`] | for operators |
//! | [`nofile`] | file descriptors |

mod addresses;
mod breaker;
mod bus;
mod comet;
mod connect;
mod connections;
mod cores;
mod dedupe;
mod dispatch;
mod forward;
mod grpc;
mod http;
pub mod hub;
mod lease;
pub mod logic_client;
mod logouts;
pub mod metrics;
mod nofile;
mod ops;
mod push_stream;
mod recheck;
mod requests;
mod routes;
mod shard_metrics;
mod shared;
mod verify;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use corecast_backends::bus::AnyBus;
use corecast_backends::registry::advertise::advertised;
use corecast_backends::registry::{AnyRegistry, Node, Registry, Role};
use corecast_proto::frame;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::addresses::Addresses;
use self::connections::Connections;
use self::cores::Cores;
use self::forward::ForwardLog;
use self::http::PlainHttp;
use self::hub::{Hub, HubParts};
use self::logic_client::LogicClient;
use self::logouts::RecentLogouts;
use self::metrics::Metrics;
use self::ops::Ops;
use self::routes::Routes;
use self::shard_metrics::ShardView;
use self::shared::Shared;
use self::verify::Verifier;
use crate::config::Config;
use crate::core::handshake::Rules;
use crate::core::{Command, Event, Wire};
use crate::shard::{self, Listeners, ShardHandle};

/// Why a gateway does not start or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A value outside its range; the message names key, value and range.
    #[error("{0}")]
    Config(String),
    /// An internal address is taken or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// Wanted address.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The shards did not start.
    #[error(transparent)]
    Shards(#[from] shard::Error),
    /// A server ended by itself.
    #[error("{0} server ended: {1}")]
    Server(&'static str, String),
}

/// A bound gateway: its shards run and hold what arrives until [`Gateway::run`].
pub struct Gateway {
    config: Config,
    id: String,
    http_addr: SocketAddr,
    grpc: TcpListener,
    grpc_addr: SocketAddr,
    advertise_grpc: String,
    metrics: TcpListener,
    metrics_addr: SocketAddr,
    echo: bool,
    shards: Vec<ShardHandle>,
    events: mpsc::UnboundedReceiver<Event>,
    bus: AnyBus,
    registry: AnyRegistry,
}

impl Gateway {
    /// Raises the limit of open files, binds all listeners and starts the shards.
    /// `debug_echo` switches `/debug/echo` on.
    ///
    /// # Errors
    /// [`GatewayError`]; nothing runs then.
    pub async fn bind(
        mut config: Config,
        debug_echo: bool,
        bus: AnyBus,
        registry: AnyRegistry,
    ) -> Result<Self, GatewayError> {
        config.validate().map_err(GatewayError::Config)?;
        let nofile = nofile::raise();
        if config.limits.connections == 0 {
            config.limits.connections = nofile::connections_max(nofile);
        }
        nofile::widen_table(nofile, config.limits.connections);
        let (grpc, grpc_addr) = listen(config.grpc_addr).await?;
        let (metrics, metrics_addr) = listen(config.metrics_addr).await?;
        let advertise_grpc = config.advertise_grpc.as_deref();
        let advertise_grpc = advertised("gateway", advertise_grpc, grpc_addr, registry.tells_others())
            .map_err(GatewayError::Config)?;
        for (key, addr) in [("gateway.grpc_addr", grpc_addr), ("gateway.metrics_addr", metrics_addr)] {
            if !addr.ip().is_loopback() {
                warn!(key, %addr, "an internal port trusts its caller: keep others away from it");
            }
        }
        let listeners = Listeners::bind(&config)?;
        let http_addr = listeners.local_addr();
        let (event_sender, events) = mpsc::unbounded_channel();
        let shards = shard::spawn(&config, listeners, debug_echo, event_sender)?;
        let id = config.id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        info!(id, %http_addr, %grpc_addr, %metrics_addr, shards = shards.len(),
            connections_max = config.limits.connections, "gateway bound");
        Ok(Self {
            config,
            id,
            http_addr,
            grpc,
            grpc_addr,
            advertise_grpc,
            metrics,
            metrics_addr,
            echo: debug_echo,
            shards,
            events,
            bus,
            registry,
        })
    }

    /// HTTP and WebSocket.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// gRPC.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc_addr
    }

    /// `/metrics`, `/healthz`, `/readyz`.
    pub fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    /// Name in the registry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Serves until `shutdown`, then drains for at most `limits.drain_ms`.
    ///
    /// # Cancel safety
    /// Dropped, connections end without a drain.
    ///
    /// # Errors
    /// A server ended by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), GatewayError> {
        let stop = CancellationToken::new();
        // Ends every task, also when this future is dropped.
        let _stopped = stop.clone().drop_guard();
        let closing = stop.child_token();
        let incarnation = watch::Sender::new(lease::draw_incarnation());
        let (watches, watched) = mpsc::unbounded_channel();
        let shared = self.share(watches, *incarnation.borrow(), stop.clone());
        let drain_ms = self.config.limits.drain_ms;
        let ops = Arc::new(Ops {
            metrics: shared.metrics.clone(),
            shards: self.shards.iter().map(ShardView::of).collect(),
            hub: shared.hub.clone(),
            logic: shared.logic.clone(),
            registered: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        });
        let (drained_sender, drained) = watch::channel(0);

        let plain = Arc::new(PlainHttp::new(shared.clone(), closing.clone()));
        spawn_until(&stop, dispatch::dispatch(shared.clone(), plain, self.events, drained_sender));
        tokio::spawn(bus::subscribe(
            self.bus,
            shared.hub.clone(),
            watched,
            shared.metrics.clone(),
            stop.clone(),
        ));
        let routes = shared.routes.clone();
        let (logic, id) = (shared.logic.clone(), self.id.clone());
        let stop_routes = stop.clone();
        tokio::spawn(async move { routes.run(logic, id, stop_routes).await });
        tokio::spawn(recheck::recheck(shared.clone()));
        let node = Node { id: self.id.clone(), grpc_addr: self.advertise_grpc };
        let incarnations = incarnation.subscribe();
        let lease = lease::keep_registered(shared.clone(), ops.clone(), self.registry, node, incarnation);
        let lease = tokio::spawn(lease);

        let mut servers = JoinSet::new();
        let grpc = grpc::serve(self.grpc, shared.clone(), ops.clone(), self.id, incarnations);
        servers.spawn(async move { ("grpc", grpc.await.map_err(|error| error.to_string())) });
        let metrics = ops::serve(self.metrics, ops.clone(), stop.clone());
        servers.spawn(async move { ("metrics", metrics.await.map_err(|error| error.to_string())) });

        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = servers.join_next() => Err(ended_by_itself(ended)),
        };
        ops.draining.store(true, Ordering::Relaxed);
        closing.cancel();
        drain(&shared, drained, Duration::from_millis(drain_ms)).await;
        stop.cancel();
        let ended = async {
            while servers.join_next().await.is_some() {}
            // Gives the place in the registry up.
            let _ = lease.await;
            join(self.shards).await;
        };
        if tokio::time::timeout(STOP_TIME, ended).await.is_err() {
            warn!("servers or shards did not end in time");
        }
        info!("gateway ended");
        result
    }

    fn share(
        &self,
        watches: mpsc::UnboundedSender<(corecast_proto::ids::RoomId, bool)>,
        incarnation: u64,
        stop: CancellationToken,
    ) -> Arc<Shared> {
        let limits = self.config.limits.clone();
        let metrics = Arc::new(Metrics::new());
        let logic = LogicClient::new(self.registry.nodes(Role::Logic), limits.logic_deadline());
        logic.metrics().register_in(&metrics);
        let mailboxes: Vec<_> = self.shards.iter().map(|shard| shard.mailbox.clone()).collect();
        let parts =
            HubParts { limits: limits.clone(), logic: logic.clone(), mailboxes: mailboxes.clone(), watches };
        Arc::new(Shared {
            rules: Rules::new(&self.config.origins, self.echo).behind(&self.config.trusted_proxies),
            addresses: Addresses::new(limits.address_connections),
            hub: Hub::start(parts, stop.clone()),
            verifier: Verifier::start(logic.clone()),
            connections: Connections::new(mailboxes.len()),
            cores: Cores::new(mailboxes, metrics.mailbox_waits.clone()),
            routes: Arc::new(Routes::new(incarnation)),
            logouts: RecentLogouts::default(),
            forward_log: ForwardLog::default(),
            workers: TaskTracker::new(),
            limits,
            logic,
            metrics,
            stop,
        })
    }
}

/// Notice, what is in flight, paced closes; then the time is over. From the notice on no
/// shard takes a new text, and each connection is closed behind the answers it waits for.
async fn drain(shared: &Shared, mut drained: watch::Receiver<usize>, time: Duration) {
    let until = Instant::now() + time;
    // A closed tracker still takes workers; it can be waited for.
    shared.workers.close();
    let notice = Wire::text(&frame::draining(RECONNECT_MIN_MS, RECONNECT_MAX_MS));
    // The last closes need time to reach their peers.
    let within = time.mul_f64(CLOSE_SHARE);
    info!(time_ms = time.as_millis(), "drain begins");
    let draining = async {
        for shard in 0..shared.cores.count() {
            let shard = u16::try_from(shard).expect("shards are numbered by u16");
            shared.cores.queue(shard, Command::Drain { within, notice: notice.clone() }).await;
        }
        let count = shared.cores.count();
        // The sender lives as long as the events are read.
        let _ = drained.wait_for(|drained| *drained >= count).await;
        shared.workers.wait().await;
    };
    match tokio::time::timeout_at(until, draining).await {
        Ok(()) => info!("drained"),
        Err(_) => warn!("drain time is over: what is left is cut off"),
    }
}

/// Waits for the threads of the shards, which end with the reader of their events.
async fn join(shards: Vec<ShardHandle>) {
    let (ended, all_ended) = tokio::sync::oneshot::channel();
    // A thread of its own: the runtime would wait for a blocking task without limit.
    std::thread::spawn(move || {
        shards.into_iter().for_each(ShardHandle::join);
        let _ = ended.send(());
    });
    let _ = all_ended.await;
}

fn spawn_until(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = task => {}
            () = stop.cancelled() => {}
        }
    });
}

fn ended_by_itself(
    ended: Result<(&'static str, Result<(), String>), tokio::task::JoinError>,
) -> GatewayError {
    match ended {
        Ok((server, Ok(()))) => GatewayError::Server(server, "no reason given".to_owned()),
        Ok((server, Err(reason))) => GatewayError::Server(server, reason),
        Err(panic) => GatewayError::Server("internal", panic.to_string()),
    }
}

async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), GatewayError> {
    let failed = |source| GatewayError::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// Part of the drain that the shards have for answers and closes.
const CLOSE_SHARE: f64 = 0.8;
/// Time servers and shards get to end after the drain.
const STOP_TIME: Duration = Duration::from_secs(1);
/// Window in which clients come back after a drain notice.
const RECONNECT_MIN_MS: u64 = 100;
/// End of that window.
const RECONNECT_MAX_MS: u64 = 5_000;
