//! The JSON face on 8090, for trusted callers: the same service functions as over gRPC.
//!
//! | module | what |
//! |---|---|
//! | `body` | request bodies: read with a bound, parsed whatever the Content-Type |
//! | `answer` | responses and failures as they stand in the contract |
//! | `routes` | one function per path |

mod answer;
mod body;
mod routes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::Store;
use corecast_proto::refusal::Code;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::service::Service;

/// Is this node to be asked? Off until the rooms of the configuration exist, and again from
/// the beginning of a drain.
#[derive(Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What every route sees.
pub(crate) struct Face<S, H, B> {
    service: Arc<Service<S, H, B>>,
    readiness: Readiness,
}

impl<S, H, B> Clone for Face<S, H, B> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), readiness: self.readiness.clone() }
    }
}

/// Serves until `shutdown`, then lets requests under way end.
pub(crate) async fn serve<S: Store, H: HotSet, B: Bus>(
    listener: TcpListener,
    service: Arc<Service<S, H, B>>,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    axum::serve(listener, router(Face { service, readiness }))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|error| Error::Server { face: "http", reason: error.to_string() })
}

fn router<S: Store, H: HotSet, B: Bus>(face: Face<S, H, B>) -> Router {
    Router::new()
        .route("/logic/register", post(routes::register))
        .route("/logic/login", post(routes::login))
        .route("/logic/verify", post(routes::verify))
        .route("/logic/hello", post(routes::hello))
        .route("/logic/send", post(routes::send))
        .route("/logic/room_history", post(routes::room_history))
        .route("/logic/room/create", post(routes::create_room))
        .route("/logic/rooms", post(routes::rooms))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_path)
        .layer(DefaultBodyLimit::max(body::BYTES_MAX))
        .with_state(face)
}

async fn ready<S: Store, H: HotSet, B: Bus>(State(face): State<Face<S, H, B>>) -> Response {
    if !face.readiness.is_ready() {
        return answer::refused(Code::Unavailable.with("starting or stopping"));
    }
    match face.service.check().await {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(_) => answer::refused(Code::Unavailable.with("the store cannot be reached")),
    }
}

async fn metrics<S: Store, H: HotSet, B: Bus>(State(face): State<Face<S, H, B>>) -> Response {
    let kind = [(axum::http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, face.service.metrics_text()).into_response()
}

async fn no_such_path() -> Response {
    answer::refused(Code::NotFound.with("no such path"))
}
