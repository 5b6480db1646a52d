//! One logic node: its listeners, its faces, its place in the registry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use corecast_backends::bus::{AnyBus, Bus};
use corecast_backends::hotset::{AnyHotSet, HotSet};
use corecast_backends::log::{AnyProducer, LogProducer, embedded};
use corecast_backends::registry::advertise::advertised;
use corecast_backends::registry::{AnyRegistry, Lease, Node, Registry, RegistryError, Role};
use corecast_backends::store::{AnyStore, Store, StoreError};
use corecast_backends::url;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::claims::{Claims, Patience};
use crate::config::Config;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::service::Service;
use crate::{grpc, http};

/// Requests under way at the stop signal have this long to end.
const DRAIN: Duration = Duration::from_secs(5);
/// The pause between tries of what must succeed before the node is ready.
const RETRY: Duration = Duration::from_millis(500);
/// A registry that does not answer in this time is asked again.
const REGISTER_DEADLINE: Duration = Duration::from_secs(5);
/// How often ended sessions are deleted. They are refused anyway.
const SWEEP: Duration = Duration::from_secs(600);

/// The backends of a node. Each is chosen by URL; tests put their own in.
#[derive(Clone)]
pub struct Backends<S = AnyStore, H = AnyHotSet, P = AnyProducer, B = AnyBus, R = AnyRegistry> {
    /// The truth.
    pub store: S,
    /// Caches and routes.
    pub hotset: H,
    /// The complete path.
    pub producer: P,
    /// The fast path.
    pub bus: B,
    /// Where gateways look for logic nodes.
    pub registry: R,
}

impl From<url::Backends> for Backends {
    fn from(opened: url::Backends) -> Self {
        let url::Backends { store, hotset, producer, bus, registry } = opened;
        Self { store, hotset, producer, bus, registry }
    }
}

/// A bound node. [`run`](Logic::run) serves.
pub struct Logic<S = AnyStore, H = AnyHotSet, P = AnyProducer, B = AnyBus, R = AnyRegistry> {
    service: Arc<Service<S, H, B>>,
    store: S,
    producer: P,
    registry: R,
    owner: String,
    node: Node,
    seeded: bool,
    http: (TcpListener, SocketAddr),
    grpc: (TcpListener, SocketAddr),
}

impl<S: Store, H: HotSet, P: LogProducer, B: Bus, R: Registry> Logic<S, H, P, B, R> {
    /// Binds both listeners, starts the lanes and creates the rooms of the configuration. A
    /// store that cannot be reached yet is waited for in [`run`](Self::run).
    ///
    /// # Errors
    /// A bad configuration, an address that cannot be bound, a store that refuses for good.
    ///
    /// # Cancel safety
    /// Dropping it gives the addresses free.
    pub async fn bind(config: Config, backends: Backends<S, H, P, B, R>) -> Result<Self, Error> {
        config.validate().map_err(Error::Config)?;
        let Backends { store, hotset, producer, bus, registry } = backends;
        let (id, owner) = identity(&config, producer.is_outbox())?;
        let http = bind(&config.http_addr).await?;
        let grpc = bind(&config.grpc_addr).await?;
        let advertise_grpc = config.advertise_grpc.as_deref();
        let grpc_addr =
            advertised("logic", advertise_grpc, grpc.1, registry.tells_others()).map_err(Error::Config)?;
        for (face, addr) in [("http", http.1), ("grpc", grpc.1)] {
            if !addr.ip().is_loopback() {
                tracing::warn!(face, %addr, "bound wider than loopback: this face trusts its caller");
            }
        }
        tracing::info!(http_addr = %http.1, grpc_addr = %grpc.1, id, "logic bound");
        let metrics = Metrics::new();
        let service = Service::new(&config, store.clone(), hotset, bus, owner.clone(), metrics);
        let seeded = match service.seed_rooms().await {
            Ok(()) => true,
            Err(error @ StoreError::Fatal(_)) => return Err(error.into()),
            Err(_) => false,
        };
        Ok(Self {
            service: Arc::new(service),
            store,
            producer,
            registry,
            owner,
            node: Node { id, grpc_addr },
            seeded,
            http,
            grpc,
        })
    }

    /// Where the JSON face listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http.1
    }

    /// Where `corecast.logic.v1.Logic` listens.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.1
    }

    /// What this node counts, for a process that shows several tiers on one page.
    pub fn metrics(&self) -> Metrics {
        self.service.metrics().clone()
    }

    /// Serves until `shutdown`, then gives its place in the registry up and lets requests
    /// under way end, for at most 5 s.
    ///
    /// # Errors
    /// A server that ended by itself, or a store that refuses for good.
    ///
    /// # Cancel safety
    /// Dropping it ends the node at once; what was acknowledged is durable.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        // Ends everything when one part fails, without touching the caller's token.
        let stop = shutdown.child_token();
        let readiness = http::Readiness::default();
        let (health, health_service) = grpc::health().await;
        let mut parts = JoinSet::new();
        parts.spawn(grpc::serve(
            self.grpc.0,
            self.service.clone(),
            (health.clone(), health_service),
            stop.clone(),
        ));
        parts.spawn(http::serve(self.http.0, self.service.clone(), readiness.clone(), stop.clone()));
        if !self.producer.is_outbox() {
            let metrics = self.service.metrics().clone();
            let (store, owner) = (self.store.clone(), self.owner.clone());
            let relay = Relay::new(store, self.producer, owner, metrics.clone());
            let (claimed, patience) = (relay.claimed(), Patience::default());
            let claims =
                Claims::new(self.store, self.registry.clone(), self.owner, claimed, metrics, patience);
            let stop = stop.clone();
            parts.spawn(async move {
                futures::future::join(relay.run(stop.clone()), claims.run(stop)).await;
                Ok(())
            });
        }
        parts.spawn(tend(self.service, self.seeded, self.registry, self.node, stop.clone(), {
            let (readiness, health) = (readiness.clone(), health.clone());
            async move || {
                readiness.set(true);
                grpc::set_serving(&health, true).await;
            }
        }));

        let mut outcome = Ok(());
        tokio::select! {
            () = stop.cancelled() => {}
            ended = parts.join_next() => outcome = flatten(ended),
        }
        readiness.set(false);
        grpc::set_serving(&health, false).await;
        stop.cancel();
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(ended) = parts.join_next().await {
                if outcome.is_ok() {
                    outcome = flatten(Some(ended));
                }
            }
        });
        if drained.await.is_err() {
            tracing::warn!(drain = ?DRAIN, "what was under way is cut off");
            parts.shutdown().await;
        }
        outcome
    }
}

/// Makes the node ready, tells the registry, and keeps its place and the table of sessions
/// until the stop signal.
async fn tend<S: Store, H: HotSet, B: Bus, R: Registry>(
    service: Arc<Service<S, H, B>>,
    mut seeded: bool,
    registry: R,
    node: Node,
    stop: CancellationToken,
    ready: impl AsyncFnOnce(),
) -> Result<(), Error> {
    while !seeded {
        match service.seed_rooms().await {
            Ok(()) => seeded = true,
            Err(error @ StoreError::Fatal(_)) => return Err(error.into()),
            Err(_) => {
                if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                    return Ok(());
                }
            }
        }
    }
    // Only costs the first login some time when it fails.
    if service.warm_up().await.is_err() {
        tracing::warn!("no time to prepare for logins");
    }
    ready().await;
    let keep_place = keep_place(registry, node, stop.clone());
    let sweep = async {
        loop {
            // Jitter: nodes started together do not sweep together.
            tokio::time::sleep(SWEEP.mul_f64(rand::random_range(0.5..=1.5))).await;
            match service.sweep_sessions().await {
                Ok(0) | Err(_) => {}
                Ok(sessions) => tracing::debug!(sessions, "ended sessions deleted"),
            }
        }
    };
    // The place is given up before anything else ends, and waited for.
    futures::future::join(keep_place, stop.run_until_cancelled(sweep)).await;
    Ok(())
}

/// Registers, and registers again when the lease is lost. Of two nodes with one id the second
/// one waits here until the first one's lease ends. At the stop signal the place is given up.
async fn keep_place(registry: impl Registry, node: Node, stop: CancellationToken) {
    loop {
        let Some(mut lease) = stop.run_until_cancelled(register(&registry, &node)).await else { return };
        tracing::info!(id = node.id, grpc_addr = node.grpc_addr, "registered");
        if stop.run_until_cancelled(lease.until_lost()).await.is_none() {
            return lease.end().await;
        }
        tracing::warn!(id = node.id, "lease lost, registering again");
    }
}

/// Tries until it is registered; says once why it is not.
async fn register(registry: &impl Registry, node: &Node) -> Lease {
    let mut told = None;
    loop {
        let asked = tokio::time::timeout(REGISTER_DEADLINE, registry.register(Role::Logic, node.clone()));
        let late = |_| Err(RegistryError::Unavailable(format!("no answer in {REGISTER_DEADLINE:?}")));
        match asked.await.unwrap_or_else(late) {
            Ok(lease) => return lease,
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::warn!(id = node.id, %error, "not registered yet, trying on");
                    told = Some(error);
                }
            }
        }
        tokio::time::sleep(RETRY.mul_f64(rand::random_range(0.5..=1.5))).await;
    }
}

/// Who this node is in the registry, and whose name its outbox rows carry.
fn identity(config: &Config, log_is_outbox: bool) -> Result<(String, String), Error> {
    match (&config.id, log_is_outbox) {
        (Some(id), true) => Ok((id.clone(), embedded::OWNER.to_owned())),
        (Some(id), false) => Ok((id.clone(), id.clone())),
        // Nothing outlives the process under this id.
        (None, true) => Ok((uuid::Uuid::new_v4().to_string(), embedded::OWNER.to_owned())),
        (None, false) => {
            Err(Error::Config("logic.id is needed: outbox rows belong to it over restarts".to_owned()))
        }
    }
}

async fn bind(addr: &str) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Bind { addr: addr.to_owned(), source };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

fn flatten(ended: Option<Result<Result<(), Error>, tokio::task::JoinError>>) -> Result<(), Error> {
    match ended {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(Error::Server { face: "a part of the", reason: error.to_string() }),
        None => Ok(()),
    }
}
