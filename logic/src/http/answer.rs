//! Responses as they stand in the contract.

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use corecast_proto::logic::{Refusal, SessionReply};
use corecast_proto::refusal::Code;
use serde::Serialize;

use crate::domain::session;

/// A failure: `{"id","message"}` with its status, and `Retry-After` where a repeat may help.
pub(super) fn refused(refusal: Refusal) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        id: &'a str,
        message: &'a str,
    }
    let status = u16::try_from(refusal.http_status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &Body { id: &refusal.code, message: &refusal.message });
    if refusal.retry_after_ms > 0 {
        let seconds = refusal.retry_after_ms.div_ceil(1000);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A failure of registration or login, whose bad input has the empty id of older deployments.
pub(super) fn account_refused(mut refusal: Refusal) -> Response {
    if refusal.code == Code::BadInput.as_str() || refusal.code == Code::BadJson.as_str() {
        refusal.code.clear();
    }
    refused(refusal)
}

/// A new session: its id as the body and in the cookie.
pub(super) fn session_opened(reply: SessionReply) -> Response {
    let cookie = HeaderValue::from_str(&session::cookie(&reply.sid)).expect("a UUID in ASCII text");
    ([(SET_COOKIE, cookie)], reply.sid).into_response()
}

/// A browser frame, as it is.
pub(super) fn frame(frame: Bytes) -> Response {
    ([(CONTENT_TYPE, JSON)], frame).into_response()
}

/// Any JSON, its fields in the order of the struct.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("strings, numbers and lists always serialise");
    (status, [(CONTENT_TYPE, JSON)], body).into_response()
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
