//! This gateway's place in the registry, and its incarnation.
//!
//! Job owes a gateway *incarnation* its pushes for a bounded time only (DESIGN invariant 6).
//! A lost lease may mean that job went on without us: the gateway draws a new incarnation,
//! ends the streams of the old one, tells its routes again and checks all tails.

use std::sync::Arc;
use std::time::Duration;

use corecast_backends::registry::{AnyRegistry, Lease, Node, Registry, Role};
use tokio::sync::watch;
use tracing::{info, warn};

use super::shared::Shared;

/// Pause after the registry could not be asked.
const PAUSE: Duration = Duration::from_secs(1);

/// A random number no other life of a gateway has. Below 2^53, so that any tool shows it right.
pub(super) fn draw_incarnation() -> u64 {
    rand::random_range(1..1 << 53)
}

/// Keeps the node registered until the gateway stops; the lease is given up at the end.
pub(super) async fn keep_registered(
    shared: Arc<Shared>,
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
        tokio::select! {
            () = hold(&registry, &node) => {}
            () = shared.stop.cancelled() => return,
        }
        let next = draw_incarnation();
        warn!(incarnation = next, "lease lost: new incarnation");
        shared.metrics.leases_lost.inc();
        incarnation.send_replace(next);
        shared.routes.reincarnate(next);
        shared.hub.interrupted().await;
    }
}

/// Registers and returns when the lease is lost.
async fn hold(registry: &AnyRegistry, node: &Node) {
    let mut lease = register(registry, node).await;
    info!(id = node.id, grpc_addr = node.grpc_addr, "registered");
    if lease.lost.wait_for(|lost| *lost).await.is_err() {
        // A registry that cannot lose a lease tells nothing.
        std::future::pending::<()>().await;
    }
}

async fn register(registry: &AnyRegistry, node: &Node) -> Lease {
    loop {
        match registry.register(Role::Gateway, node.clone()).await {
            Ok(lease) => return lease,
            Err(error) => warn!(%error, "not registered, trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
