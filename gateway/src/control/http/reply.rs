//! Answers and error bodies: `{"id":"<CODE>","message":"…"}` (CONTRACT §2).

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use corecast_proto::logic::Refusal;
use corecast_proto::refusal::Code;

use crate::control::logic_client::LogicError;

/// An error body with the status of its code.
pub(super) fn refused(code: Code, message: &str) -> Response {
    refused_as(code.as_str(), &code.with(message))
}

/// An error body on a path where bad input has the empty id of older deployments.
pub(super) fn refused_account(refusal: &Refusal) -> Response {
    let bad_input = [Code::BadInput, Code::BadJson].iter().any(|code| code.as_str() == refusal.code);
    refused_as(if bad_input { "" } else { &refusal.code }, refusal)
}

/// Logic gave no answer.
pub(super) fn no_answer(error: &LogicError) -> Response {
    match error {
        LogicError::Unreachable | LogicError::Deadline => refused(Code::Unavailable, &error.to_string()),
        LogicError::Refused { .. } => refused(Code::Internal, "the request failed on our side"),
    }
}

/// `204` with a cookie.
pub(super) fn no_content(cookie: &str) -> Response {
    let response = Response::builder().status(StatusCode::NO_CONTENT).header(SET_COOKIE, cookie);
    response.body(Body::empty()).unwrap_or_else(|_| broken())
}

/// The request came by TLS, as the proxy in front tells.
pub(super) fn forwarded_https(headers: &HeaderMap) -> bool {
    let proto = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok()).unwrap_or_default();
    proto.split(',').next().is_some_and(|first| first.trim().eq_ignore_ascii_case("https"))
}

fn refused_as(id: &str, refusal: &Refusal) -> Response {
    let status = u16::try_from(refusal.http_status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.filter(|status| status.as_u16() >= 400).unwrap_or(StatusCode::BAD_REQUEST);
    let body = serde_json::json!({ "id": id, "message": refusal.message }).to_string();
    let mut response = Response::builder().status(status).header(CONTENT_TYPE, "application/json");
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response = response.header(RETRY_AFTER, refusal.retry_after_ms.div_ceil(1_000).max(1));
    }
    response.body(Body::from(body)).unwrap_or_else(|_| broken())
}

/// What is left when a peer's bytes cannot stand in a header.
pub(super) fn broken() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response) -> (u16, Option<String>, String) {
        let status = response.status().as_u16();
        let retry =
            response.headers().get(RETRY_AFTER).map(|value| value.to_str().expect("ascii").to_owned());
        let body = axum::body::to_bytes(response.into_body(), 4_096).await.expect("a small body");
        (status, retry, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn what_logic_refused_passes_unchanged() {
        let refusal = Code::UsernameExists.with("that name is taken");
        let expected = r#"{"id":"USERNAME_EXISTS","message":"that name is taken"}"#;
        assert_eq!(text(refused_account(&refusal)).await, (400, None, expected.to_owned()));
        let refusal = Code::LoginFailed.with("email password no match");
        let expected = r#"{"id":"LOGIN_FAILED","message":"email password no match"}"#;
        assert_eq!(text(refused_account(&refusal)).await, (400, None, expected.to_owned()));
    }

    #[tokio::test]
    async fn bad_input_of_an_account_has_the_empty_id() {
        let refusal = Code::BadInput.with("username must have 1 to 32 characters");
        let expected = r#"{"id":"","message":"username must have 1 to 32 characters"}"#;
        assert_eq!(text(refused_account(&refusal)).await, (400, None, expected.to_owned()));
    }

    #[tokio::test]
    async fn an_outage_tells_when_to_come_back() {
        let (status, retry, body) = text(no_answer(&LogicError::Unreachable)).await;
        assert_eq!((status, retry.as_deref()), (503, Some("1")));
        assert_eq!(body, r#"{"id":"UNAVAILABLE","message":"logic cannot be reached"}"#);
    }
}
