//! For operators, on `metrics_addr`: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::logic_client::LogicClient;
use super::metrics::Metrics;
use super::shard_metrics::{ShardView, render, render_lines};

/// What the endpoints look at.
pub(super) struct Ops {
    pub(super) metrics: Arc<Metrics>,
    pub(super) shards: Vec<ShardView>,
    pub(super) hub: Hub,
    pub(super) logic: LogicClient,
    /// Once it was in the registry: one that is away later makes nobody unready.
    pub(super) registered: AtomicBool,
    pub(super) draining: AtomicBool,
}

impl Ops {
    /// May a balancer send connections here?
    pub(super) fn readiness(&self) -> Result<(), &'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining");
        }
        if !*self.hub.ready().borrow() {
            return Err("lines are not open yet");
        }
        if !self.registered.load(Ordering::Relaxed) {
            return Err("not in the registry yet");
        }
        if !self.logic.reachable() {
            return Err("logic cannot be reached");
        }
        Ok(())
    }
}

/// Serves until `stop`.
///
/// # Errors
/// The listener failed.
pub(super) async fn serve(
    listener: TcpListener,
    ops: Arc<Ops>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz))
        .with_state(ops);
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn metrics(State(ops): State<Arc<Ops>>) -> impl IntoResponse {
    ops.metrics.interest_rooms.set(i64::try_from(ops.hub.interest().rooms()).unwrap_or(i64::MAX));
    let mut text = ops.metrics.render();
    text.extend_from_slice(render(&ops.shards).as_bytes());
    text.extend_from_slice(render_lines(ops.hub.counters()).as_bytes());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn readyz(State(ops): State<Arc<Ops>>) -> (StatusCode, &'static str) {
    match ops.readiness() {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
