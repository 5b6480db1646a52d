//! Request bodies.
//!
//! JSON is parsed whatever the Content-Type says; an empty body counts as `{}`. A body is
//! either flat or in the envelope of browser frames, `{"type","payload"}`. User ids of older
//! deployments are numbers: they are read as their decimal strings.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use corecast_proto::limits;
use corecast_proto::logic::{NewMessage, Refusal};
use corecast_proto::refusal::Code;
use serde_json::{Map, Value};

/// A body at most: a full frame of the largest messages, every other byte of them escaped,
/// with their keys.
pub(super) const BYTES_MAX: usize = 512 << 10;
const _: () = assert!(limits::MESSAGES_PER_FRAME * (limits::CONTENT_BYTES * 3 / 2 + 1024) <= BYTES_MAX);
/// A body arrives in this time or not at all.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// The fields of a request.
pub(super) struct Body(Map<String, Value>);

impl<T: Send + Sync> FromRequest<T> for Body {
    type Rejection = Failed;

    async fn from_request(request: Request, state: &T) -> Result<Self, Failed> {
        let read = tokio::time::timeout(READ_DEADLINE, Bytes::from_request(request, state)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(Failed(Code::TooLarge.with(format!("body must have at most {BYTES_MAX} bytes"))));
            }
            Ok(Err(_)) => return Err(Failed(Code::BadInput.with("body ended early"))),
            Err(_) => return Err(Failed(Code::BadInput.with(format!("no body in {READ_DEADLINE:?}")))),
        };
        Self::parse(&bytes).map_err(Failed)
    }
}

/// A body that cannot be read.
pub(super) struct Failed(pub(super) Refusal);

impl IntoResponse for Failed {
    fn into_response(self) -> axum::response::Response {
        super::answer::refused(self.0)
    }
}

impl Body {
    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(Map::new()));
        }
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Code::BadJson.with(format!("body must be JSON: {error}")))?;
        let Value::Object(mut fields) = value else {
            return Err(Code::BadInput.with("body must be a JSON object"));
        };
        match fields.remove("payload") {
            Some(Value::Object(payload)) => Ok(Self(payload)),
            Some(_) => Err(Code::BadInput.with("payload must be an object")),
            None => Ok(Self(fields)),
        }
    }

    /// A string; absent or null: empty.
    pub(super) fn text(&mut self, field: &str) -> Result<String, Refusal> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Code::BadInput.with(format!("{field} must be a string"))),
        }
    }

    /// The first of these fields that is there, a string.
    pub(super) fn text_of(&mut self, fields: &[&str]) -> Result<String, Refusal> {
        for field in fields {
            let text = self.text(field)?;
            if !text.is_empty() {
                return Ok(text);
            }
        }
        Ok(String::new())
    }

    /// A user id: a string, or a whole number read as its decimal string; absent: empty.
    pub(super) fn user_id(&mut self, field: &str) -> Result<String, Refusal> {
        match self.0.get(field) {
            Some(Value::Number(number)) if number.is_u64() || number.is_i64() => Ok(number.to_string()),
            Some(Value::Number(_)) => Err(Code::BadInput.with(format!("{field} must be a whole number"))),
            _ => self.text(field),
        }
    }

    /// A whole number that fits; absent or null: `None`.
    pub(super) fn number(
        &mut self,
        field: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        match self.0.remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().filter(|number| range.contains(number)) {
                Some(number) => Ok(Some(number)),
                None => {
                    let (low, high) = range.into_inner();
                    Err(Code::BadInput.with(format!("{field} must be {low} to {high}")))
                }
            },
        }
    }

    /// The messages of a send. One without a key gets one of its own, so that each message
    /// has one; it cannot be repeated by the caller, who does not know it.
    pub(super) fn messages(&mut self) -> Result<Vec<NewMessage>, Refusal> {
        match self.0.remove("messages") {
            Some(Value::Array(items)) => {
                items.into_iter().enumerate().map(|(index, item)| message(index, item)).collect()
            }
            // An older caller puts its one message straight into the body.
            None | Some(Value::Null) if self.0.contains_key("content") => {
                Ok(vec![message(0, Value::Object(std::mem::take(&mut self.0)))?])
            }
            _ => Err(Code::BadInput.with("messages must be an array")),
        }
    }
}

fn message(index: usize, item: Value) -> Result<NewMessage, Refusal> {
    let bad = |what: String| Code::BadInput.with(format!("messages[{index}].{what}"));
    let Value::Object(mut fields) = item else {
        return Err(Code::BadInput.with(format!("messages[{index}] must be an object")));
    };
    let Some(Value::String(content)) = fields.remove("content") else {
        return Err(bad("content must be a string".into()));
    };
    let key = match fields.remove("clientMessageId") {
        None | Some(Value::Null) => format!("h:{}", uuid::Uuid::new_v4()),
        Some(Value::String(key)) if (1..=limits::CLIENT_MESSAGE_ID_BYTES).contains(&key.len()) => {
            format!("c:{key}")
        }
        Some(_) => {
            let max = limits::CLIENT_MESSAGE_ID_BYTES;
            return Err(bad(format!("clientMessageId must be a string of 1 to {max} bytes")));
        }
    };
    Ok(NewMessage { content, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(text: &str) -> Body {
        Body::parse(text.as_bytes()).map_err(|refusal| refusal.message).unwrap()
    }

    fn refused(text: &str) -> String {
        Body::parse(text.as_bytes()).map(|_| ()).unwrap_err().code
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert_eq!(body_of("").text("anything").unwrap(), "");
        assert_eq!(body_of(" \r\n").text("anything").unwrap(), "");
    }

    #[test]
    fn flat_and_enveloped_bodies_are_the_same() {
        for text in [r#"{"roomName":"x"}"#, r#"{"type":"clientCreateRoom","payload":{"roomName":"x"}}"#] {
            assert_eq!(body_of(text).text("roomName").unwrap(), "x");
        }
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert_eq!(refused("{"), "BAD_JSON");
        assert_eq!(refused("\u{feff}{}"), "BAD_JSON");
        assert_eq!(refused("[]"), "BAD_INPUT");
        assert_eq!(refused(r#"{"payload":1}"#), "BAD_INPUT");
    }

    #[test]
    fn a_user_id_may_be_a_whole_number() {
        assert_eq!(body_of(r#"{"userId":42}"#).user_id("userId").unwrap(), "42");
        assert_eq!(
            body_of(r#"{"userId":18446744073709551615}"#).user_id("userId").unwrap(),
            u64::MAX.to_string()
        );
        assert_eq!(body_of(r#"{"userId":"42"}"#).user_id("userId").unwrap(), "42");
        assert!(body_of(r#"{"userId":4.5}"#).user_id("userId").is_err());
        assert!(body_of(r#"{"userId":true}"#).user_id("userId").is_err());
    }

    #[test]
    fn a_number_out_of_its_range_names_the_range() {
        assert_eq!(body_of("{}").number("count", 1..=200).unwrap(), None);
        assert_eq!(body_of(r#"{"count":200}"#).number("count", 1..=200).unwrap(), Some(200));
        for text in [r#"{"count":0}"#, r#"{"count":201}"#, r#"{"count":"5"}"#, r#"{"count":-1}"#] {
            assert_eq!(body_of(text).number("count", 1..=200).unwrap_err().message, "count must be 1 to 200");
        }
    }

    #[test]
    fn a_message_without_a_key_gets_its_own() {
        let keys = |text: &str| -> Vec<String> {
            body_of(text).messages().unwrap().into_iter().map(|message| message.key).collect()
        };
        let drawn = keys(r#"{"messages":[{"content":"a"},{"content":"a","type":"text"}]}"#);
        assert!(drawn.iter().all(|key| key.starts_with("h:")));
        assert_ne!(drawn[0], drawn[1]);
        assert_eq!(keys(r#"{"messages":[{"content":"a","clientMessageId":"k"}]}"#), ["c:k"]);
        assert_eq!(keys(r#"{"content":"a","clientMessageId":"k"}"#), ["c:k"]);
    }
}
