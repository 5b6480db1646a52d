//! Consumes the log, pushes to every gateway, and records an offset as done only when every
//! gateway that is owed the push has acked it.
//!
//! ```text
//!   log ──▶ consumer ──plan──▶ ledger ──▶ pusher of gateway a ──stream──▶ gateway a
//!    ▲         │                 ▲   └──▶ pusher of gateway b ──stream──▶ gateway b
//!    └──done───┘                 └──────────── acks ◀──────────────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`core`] | decides: plan, interest, window, duty, retry; no I/O, no clock |
//! | `consumer` | reads the log, plans, records what is safe |
//! | `pusher` | one task and one stream per gateway |
//! | `desk` | the ledger behind its lock, the wakes, the time |
//! | `http` `metrics` | `/healthz`, `/readyz`, `/metrics` |
//!
//! **Invariants.**
//! 1. An offset is done only when every gateway that was in the registry, or had a stream, when
//!    its record was planned has acked it, came back as another incarnation, let its duty
//!    end, or had told on its stream that it has nobody in the room (`core`).
//! 2. A gateway holds the others for one duty time, once, not once per record (`core::duty`).
//! 3. On a live stream nothing is sent twice; a lost stream's pushes go again, in order, to
//!    the same incarnation only.
//! 4. Nothing is planned before the registry's first answer.
//!
//! **An empty registry.** When it says that there is no gateway, and no stream lives, records are done
//! with nobody having them. For numbered ones that loses nothing: a gateway reads the heads
//! before it is ready and checks its tails, so it delivers whatever anybody connected to it
//! may see. Unnumbered pushes of other producers reach who is connected *now*; with no
//! gateway that is nobody.

pub mod config;
pub mod core;
pub mod error;

mod consumer;
mod desk;
mod http;
mod metrics;
mod pusher;

use std::net::SocketAddr;
use std::sync::Arc;

use corecast_backends::log::LogConsumer;
use corecast_backends::registry::{Node, Registry, Role};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use config::Config;
pub use error::Error;

use consumer::Reader;
use desk::Desk;
use pusher::Pusher;

/// A job that is bound and not yet running.
pub struct Job<C> {
    config: Config,
    consumers: Vec<C>,
    nodes: watch::Receiver<Option<Vec<Node>>>,
    listener: TcpListener,
    http_addr: SocketAddr,
}

impl<C: LogConsumer> Job<C> {
    /// Checks the configuration and binds the health server. `consumers`: one for each
    /// that shall read, at least one ([`Config::consumers`] is the caller's to follow; the
    /// embedded log has one).
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Bind`].
    pub async fn bind<R: Registry>(config: Config, consumers: Vec<C>, registry: &R) -> Result<Self, Error> {
        config.validate().map_err(Error::Config)?;
        let bind_error = |source| Error::Bind { addr: config.http_addr.clone(), source };
        let listener = TcpListener::bind(&config.http_addr).await.map_err(bind_error)?;
        let http_addr = listener.local_addr().map_err(bind_error)?;
        if !http_addr.ip().is_loopback() {
            warn!(%http_addr, "job's health and metrics trust their caller and are bound beyond loopback");
        }
        info!(%http_addr, consumers = consumers.len(), "job bound");
        Ok(Self { nodes: registry.nodes(Role::Gateway), config, consumers, listener, http_addr })
    }

    /// Where `/healthz`, `/readyz` and `/metrics` really are.
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Runs until `shutdown`: then stops reading, gives what is in flight a second to be
    /// acked, records what is safe and returns. The rest is seen again after a restart.
    ///
    /// # Errors
    /// [`Error::Http`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let desk = Arc::new(Desk::new(&self.config, self.consumers.len()));
        let (readers, pushers, faces) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        for (index, consumer) in self.consumers.into_iter().enumerate() {
            readers.spawn(Reader::new(consumer, index, desk.clone()).drive(shutdown.clone()));
        }
        readers.close();
        let registry =
            pushers.spawn(drive_registry(desk.clone(), self.nodes, pushers.clone(), faces.clone()));
        let server = axum::serve(self.listener, http::router(desk)).with_graceful_shutdown({
            let faces = faces.clone();
            async move { faces.cancelled().await }
        });
        let server = tokio::spawn(server.into_future());

        shutdown.cancelled().await;
        readers.wait().await;
        faces.cancel();
        pushers.close();
        let _ = registry.await;
        pushers.wait().await;
        match tokio::time::timeout(HTTP_DRAIN, server).await {
            Ok(Ok(Err(error))) => Err(Error::Http(error)),
            // Ended well, or a scraper that keeps its connection open: nobody waits for it.
            _ => Ok(()),
        }
    }
}

/// Time for health requests in flight at the end.
const HTTP_DRAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// Follows the registry: a new gateway gets a pusher. While the registry is unreachable the
/// receiver keeps the last set, and so does the ledger.
async fn drive_registry(
    desk: Arc<Desk>,
    mut nodes: watch::Receiver<Option<Vec<Node>>>,
    pushers: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let answer = nodes.borrow_and_update().clone();
        if let Some(listed) = answer {
            let fresh = desk.ledger().handle_gateways(&listed);
            for (lane, node) in fresh {
                info!(gateway = node.id, addr = node.grpc_addr, "gateway in the registry");
                pushers.spawn(Pusher::new(desk.clone(), lane, node.id).drive(stop.clone()));
            }
            desk.tell_lanes();
            desk.tell_listed();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = nodes.changed() => if changed.is_err() {
                // The registry is gone with its last handle: the set stays as it is.
                return stop.cancelled().await;
            },
        }
    }
}
