//! This gateway's place in the registry, and its incarnation.
//!
//! Job owes a gateway *incarnation* its pushes for a bounded time only (DESIGN invariant 6).
//! A lost lease may mean that job went on without us: the gateway draws a new incarnation,
//! ends the streams of the old one (job opens new ones, whose first message is the new
//! incarnation), tells its routes again and checks all tails. Connections notice nothing.
//!
//! Of two gateways with one id the second one serves, but is not ready and gets no pushes,
//! until the first one's lease ends; it says so in the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use corecast_backends::registry::{AnyRegistry, Lease, Node, Registry, Role};
use tokio::sync::watch;
use tracing::{info, warn};

use super::ops::Ops;
use super::shared::Shared;

/// Pause after the registry could not be asked; jitter takes off up to half.
const PAUSE: Duration = Duration::from_secs(1);

/// A random number no other life of a gateway has. Below 2^53, so that any tool shows it right.
pub(super) fn draw_incarnation() -> u64 {
    rand::random_range(1..1 << 53)
}

/// Keeps the node registered until the gateway stops; the lease is given up at the end.
pub(super) async fn keep_registered(
    shared: Arc<Shared>,
    ops: Arc<Ops>,
    registry: AnyRegistry,
    node: Node,
    incarnation: watch::Sender<u64>,
) {
    // Before that nobody can be placed here, and a push has nobody to reach.
    let mut ready = shared.hub.ready();
    tokio::select! {
        ready = ready.wait_for(|ready| *ready) => if ready.is_err() { return },
        () = shared.stop.cancelled() => return,
    }
    loop {
        let registered = shared.stop.run_until_cancelled(register(&registry, &node));
        let Some(mut lease) = registered.await else { return };
        info!(id = node.id, grpc_addr = node.grpc_addr, incarnation = *incarnation.borrow(), "registered");
        ops.registered.store(true, Ordering::Relaxed);
        if shared.stop.run_until_cancelled(lease.until_lost()).await.is_none() {
            return lease.end().await;
        }
        let next = draw_incarnation();
        warn!(id = node.id, incarnation = next, "lease lost: new incarnation");
        shared.metrics.leases_lost.inc();
        incarnation.send_replace(next);
        shared.routes.reincarnate(next);
        shared.hub.interrupted().await;
    }
}

/// Tries until it is registered; says once why it is not.
async fn register(registry: &AnyRegistry, node: &Node) -> Lease {
    let mut told = None;
    loop {
        match registry.register(Role::Gateway, node.clone()).await {
            Ok(lease) => return lease,
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    warn!(id = node.id, %error, "not registered yet, trying on");
                    told = Some(error);
                }
            }
        }
        tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..=1.0))).await;
    }
}
