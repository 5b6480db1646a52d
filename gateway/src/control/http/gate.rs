//! Around each request: WebSocket upgrades on a connection that carried plain HTTP before,
//! the Origin rule, security headers, the counter.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, UPGRADE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use corecast_proto::refusal::Code;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tracing::debug;

use super::socket::HandedSocket;
use super::{Peer, reply};
use crate::control::shared::Shared;
use crate::core::handshake::{Asked, Field, Head, Refused, decide_head};
use crate::core::{Command, UpgradeRequest};

/// Time in which the 101 must reach the kernel.
const UPGRADE_TIME: Duration = Duration::from_secs(10);

/// Everything is from this host, nobody may frame it. Styles are inline too: the component
/// library of the web client makes them at run time.
const CSP: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                   object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The middleware.
pub(super) async fn gate(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = answer(&shared, request, next).await;
    secure(response.headers_mut());
    let path = path.as_deref().unwrap_or("other");
    shared.metrics.http_requests.with_label_values(&[path, response.status().as_str()]).inc();
    response
}

/// `GET /api/ws` that asks for no upgrade.
pub(super) async fn upgrade_required() -> Response {
    let mut response = reply::refused(Code::BadInput, "this path is a WebSocket: send an upgrade");
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// A known path, another method.
pub(super) async fn method_not_allowed() -> Response {
    let mut response = reply::refused(Code::NotFound, "this path does not take this method");
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

async fn answer(shared: &Arc<Shared>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0);
    let target = request.uri().to_string();
    let head = Head {
        method: request.method().as_str(),
        target: &target,
        http_11: request.version() == Version::HTTP_11,
    };
    let fields = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    match decide_head(head, fields, &shared.rules, peer) {
        Asked::Upgrade { request: asked, headers } => {
            let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
                return reply::refused(Code::BadInput, "this connection cannot be upgraded");
            };
            let adopted = adopt(shared.clone(), on_upgrade, asked);
            tokio::spawn(shared.stop.clone().run_until_cancelled_owned(adopted));
            switching(&headers)
        }
        Asked::Refused(refused) => not_switching(refused),
        Asked::Plain if !origin_allowed(shared, request.headers()) => {
            reply::refused(Code::Forbidden, "Origin is not allowed")
        }
        Asked::Plain => next.run(request).await,
    }
}

/// Who sends no Origin is no browser, or asks for a page of this host.
fn origin_allowed(shared: &Shared, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let once = headers.get_all(ORIGIN).iter().nth(1).is_none();
    text(ORIGIN).is_none_or(|origin| once && shared.rules.origin_allowed(origin.trim(), text(HOST)))
}

/// Gives the socket back to a shard once hyper has written the 101.
async fn adopt(shared: Arc<Shared>, on_upgrade: OnUpgrade, request: UpgradeRequest) {
    let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_TIME, on_upgrade).await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<HandedSocket>>() else {
        debug!("upgraded connection is not a handed-over socket");
        return;
    };
    let (fd, in_front) = match parts.io.into_inner().into_parts() {
        Ok(socket) => socket,
        Err(error) => {
            debug!(%error, "upgraded socket not given back");
            return;
        }
    };
    // hyper reads what was in front of the socket before the socket.
    let read = joined(parts.read_buf, in_front);
    let shard = shared.cores.next();
    shared.cores.queue(shard, Command::Adopt { fd, request, read }).await;
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() {
        return first;
    }
    let mut both = BytesMut::with_capacity(first.len() + second.len());
    both.extend_from_slice(&first);
    both.extend_from_slice(&second);
    both.freeze()
}

fn switching(headers: &[Field]) -> Response {
    let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in headers {
        response = response.header(*name, value.as_ref());
    }
    response.body(Body::empty()).unwrap_or_else(|_| reply::broken())
}

fn not_switching(refused: Refused) -> Response {
    let mut response = Response::builder()
        .status(refused.status)
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close");
    for (name, value) in refused.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(refused.body)).unwrap_or_else(|_| reply::broken())
}

fn secure(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
}
