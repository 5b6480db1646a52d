//! `/healthz`, `/readyz` and `/metrics` of job.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::desk::Desk;

pub(crate) fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(desk)
}

/// Ready means: the registry answered and every consumer takes part in reading the log.
async fn ready(State(desk): State<Arc<Desk>>) -> impl IntoResponse {
    let listed = *desk.listed().borrow();
    match (listed, desk.all_up()) {
        (true, true) => (StatusCode::OK, "ready\n"),
        (true, false) => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the log\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the registry\n"),
    }
}

async fn metrics(State(desk): State<Arc<Desk>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], desk.metrics_text())
}
