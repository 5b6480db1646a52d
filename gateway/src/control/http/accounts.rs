//! Accounts and sessions of browsers. Logic decides; what it refuses passes unchanged.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use corecast_proto::logic as pb;
use corecast_proto::refusal::Code;
use serde_json::{Map, Value};

use super::{cookies, reply};
use crate::control::logic_client::LogicError;
use crate::control::recheck::close_session;
use crate::control::shared::Shared;

/// Bytes of a body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Time in which a body must arrive.
pub(super) const BODY_TIME: Duration = Duration::from_secs(10);

/// `POST /api/register`, `POST /api/create-account`.
pub(super) async fn register(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let asked = match read(&head.headers, body).await {
        Ok(body) => body.text("username").and_then(|username| {
            Ok(pb::RegisterRequest { username, email: body.text("email")?, password: body.text("password")? })
        }),
        Err(refused) => Err(refused),
    };
    match asked {
        Ok(asked) => session(&head.headers, shared.logic.register(asked).await),
        Err(refused) => refused.into(),
    }
}

/// `POST /api/login`.
pub(super) async fn login(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let asked = match read(&head.headers, body).await {
        Ok(body) => body
            .text("email")
            .and_then(|email| Ok(pb::LoginRequest { email, password: body.text("password")? })),
        Err(refused) => Err(refused),
    };
    match asked {
        Ok(asked) => session(&head.headers, shared.logic.login(asked).await),
        Err(refused) => refused.into(),
    }
}

/// `POST /api/logout`: the session is gone in the store before the answer, its connections
/// here are closed; other gateways see it at their next check.
pub(super) async fn logout(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if let Some(sid) = cookies::sid_of(&headers) {
        if let Err(error) = shared.logic.logout(pb::LogoutRequest { sid: sid.to_owned() }).await {
            // The cookie stays: the browser can ask again, and the session is still valid.
            return reply::no_answer(&error);
        }
        close_session(&shared, sid).await;
    }
    reply::no_content(&cookies::signed_out(&headers))
}

fn session(headers: &HeaderMap, answer: Result<pb::SessionReply, LogicError>) -> Response {
    match answer {
        Ok(pb::SessionReply { refusal: Some(refusal), .. }) => reply::refused_account(&refusal),
        Ok(session) => reply::no_content(&cookies::signed_in(&session.sid, headers)),
        Err(error) => reply::no_answer(&error),
    }
}

/// A JSON object.
#[derive(Debug)]
struct Fields(Map<String, Value>);

/// Why a body is not taken.
#[derive(Debug, PartialEq, Eq)]
enum Bad {
    TooLarge,
    Late,
    Broken,
    Input(String),
}

/// The body, whatever its Content-Type; an empty one is `{}`.
async fn read(headers: &HeaderMap, body: Body) -> Result<Fields, Bad> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(Bad::TooLarge);
    }
    let bytes = match tokio::time::timeout(BODY_TIME, axum::body::to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if is_length_limit(&error) => return Err(Bad::TooLarge),
        Ok(Err(_)) => return Err(Bad::Broken),
        Err(_) => return Err(Bad::Late),
    };
    Fields::parse(&bytes)
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

impl Fields {
    fn parse(bytes: &Bytes) -> Result<Self, Bad> {
        if bytes.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(Bad::Input("body must be a JSON object".to_owned())),
            Err(error) => Err(Bad::Input(format!("body is not JSON: {error}"))),
        }
    }

    /// Lengths and characters are checked by logic.
    fn text(&self, field: &str) -> Result<String, Bad> {
        match self.0.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            _ => Err(Bad::Input(format!("{field} must be a string"))),
        }
    }
}

impl From<Bad> for Response {
    fn from(bad: Bad) -> Self {
        match bad {
            Bad::Input(message) => reply::refused_account(&Code::BadInput.with(message)),
            Bad::TooLarge => {
                reply::refused(Code::TooLarge, &format!("body must have at most {BODY_BYTES_MAX} bytes"))
            }
            Bad::Broken => reply::refused_account(&Code::BadInput.with("body ended early")),
            Bad::Late => {
                let seconds = BODY_TIME.as_secs();
                let message = format!("body did not arrive within {seconds} s");
                let mut response = reply::refused_account(&Code::BadInput.with(message));
                *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
                response
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_when_they_are_missing_or_of_another_type() {
        for body in ["", "{}", r#"{"email":null}"#, r#"{"email":7}"#] {
            let fields = Fields::parse(&Bytes::copy_from_slice(body.as_bytes())).expect("an object");
            assert_eq!(fields.text("email"), Err(Bad::Input("email must be a string".to_owned())), "{body}");
        }
        for body in ["[]", "7", "{"] {
            assert!(Fields::parse(&Bytes::copy_from_slice(body.as_bytes())).is_err(), "{body}");
        }
    }

    #[tokio::test]
    async fn the_body_limit_is_inclusive() {
        for (length, taken) in [(BODY_BYTES_MAX, true), (BODY_BYTES_MAX + 1, false)] {
            let json = format!("{{\"email\":\"{}\"}}", "x".repeat(length - 12));
            assert_eq!(json.len(), length);
            let result = read(&HeaderMap::new(), Body::from(json)).await;
            assert_eq!(result.err(), (!taken).then_some(Bad::TooLarge), "{length}");
        }
    }
}
