//! Plain HTTP of browsers, on sockets that the shards hand over with what they have read.
//!
//! | module | what |
//! |---|---|
//! | [`socket`] | the handed-over socket: bytes already read first |
//! | [`gate`] | before each request: upgrades, Origin; after each answer: security headers |
//! | [`accounts`] | `/api/register`, `/api/create-account`, `/api/login`, `/api/logout` |
//! | [`cookies`] | the session cookie in and out |
//! | [`reply`] | answers and error bodies |
//! | [`web_client`] | the built web client |
//!
//! A slow client cannot hold much: a head has `handshake_ms`, a body [`accounts::BODY_TIME`],
//! a connection on which nothing moves [`IDLE_MAX`], and there are at most
//! [`CONNECTIONS_MAX`] of them.

mod accounts;
mod cookies;
mod gate;
mod reply;
mod socket;
mod web_client;

use std::convert::Infallible;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use self::socket::HandedSocket;
use super::shared::Shared;

/// Connections at a time; beyond them a socket is closed at once. A browser needs one for
/// the time of a page load or a login.
const CONNECTIONS_MAX: usize = 4_096;
/// A connection on which no byte moved for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Bytes of a request head, as in the shards.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Serves handed-over sockets.
pub(super) struct PlainHttp {
    shared: Arc<Shared>,
    router: Router,
    places: Arc<Semaphore>,
    /// No new requests on open connections.
    closing: CancellationToken,
}

/// Who is at the other end of the connection a request came by.
#[derive(Clone, Copy)]
struct Peer(Option<IpAddr>);

impl PlainHttp {
    pub(super) fn new(shared: Arc<Shared>, closing: CancellationToken) -> Self {
        let router = router(shared.clone());
        Self { shared, router, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), closing }
    }

    /// Owns the socket from here on; returns at once.
    pub(super) fn serve(self: &Arc<Self>, fd: OwnedFd, read: Bytes, peer: Option<IpAddr>) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.shared.metrics.http_refused.inc();
            return;
        };
        let moved = Arc::new(AtomicU64::new(0));
        let socket = match HandedSocket::new(fd, read, moved.clone()) {
            Ok(socket) => socket,
            Err(error) => {
                debug!(%error, "handed-over socket not usable");
                return;
            }
        };
        let http = self.clone();
        tokio::spawn(async move {
            http.shared.metrics.http_connections.inc();
            http.drive(socket, peer, &moved).await;
            http.shared.metrics.http_connections.dec();
            drop(place);
        });
    }

    async fn drive(&self, socket: HandedSocket, peer: Option<IpAddr>, moved: &AtomicU64) {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(peer));
            answer(router.clone(), request)
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(self.shared.limits.handshake_ms))
            .max_buf_size(HEAD_BYTES_MAX);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service).with_upgrades());
        let mut watch = tokio::time::interval(IDLE_MAX);
        let mut seen = u64::MAX;
        let mut closing = false;
        loop {
            tokio::select! {
                end = connection.as_mut() => {
                    if let Err(error) = end {
                        debug!(%error, "http connection ended");
                    }
                    return;
                }
                _ = watch.tick() => {
                    let now = moved.load(Ordering::Relaxed);
                    if now == seen {
                        return;
                    }
                    seen = now;
                }
                () = self.shared.stop.cancelled() => return,
                () = self.closing.cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn answer(router: Router, request: Request) -> Result<Response, Infallible> {
    router.oneshot(request).await
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/create-account", post(accounts::register))
        .route("/api/register", post(accounts::register))
        .route("/api/login", post(accounts::login))
        .route("/api/logout", post(accounts::logout))
        .route("/api/ws", get(gate::upgrade_required))
        .route("/healthz", get(async || "ok"))
        .method_not_allowed_fallback(gate::method_not_allowed)
        .fallback(web_client::serve)
        .layer(axum::middleware::from_fn_with_state(shared.clone(), gate::gate))
        .with_state(shared)
}
