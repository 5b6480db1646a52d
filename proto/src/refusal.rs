//! Stable error codes: the `id` of HTTP error bodies, the `code` of browser error
//! frames, the `code` of `corecast.logic.v1.Refusal`. One spelling on every wire.

use crate::logic::Refusal;

/// Every code, with the HTTP status it travels with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The username is taken, without regard to case.
    UsernameExists,
    /// The email is taken, without regard to case.
    EmailExists,
    /// Email or password is wrong; which one is not said.
    LoginFailed,
    /// A field is missing, of the wrong type, or outside its limits; the message names it.
    BadInput,
    /// The frame or body is not JSON.
    BadJson,
    /// A frame type nobody knows.
    UnknownType,
    /// No valid session or token.
    Unauthorized,
    /// Not allowed: foreign Origin, not a member.
    Forbidden,
    /// No such room for this user.
    UnknownRoom,
    /// No such user.
    UnknownUser,
    /// No such path.
    NotFound,
    /// The anchor is not an id of this room.
    UnknownMessage,
    /// Already so: a second `resume`.
    Conflict,
    /// A body or frame over its limit.
    TooLarge,
    /// Too many requests: wait.
    TooMany,
    /// A part is down; the outcome of a write may be unknown: send again with the same key.
    Unavailable,
    /// A defect on our side.
    Internal,
}

impl Code {
    /// The spelling on the wire. Bad input of registration and login has the empty id
    /// of older deployments; `as_str` is what everybody else sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UsernameExists => "USERNAME_EXISTS",
            Self::EmailExists => "EMAIL_EXISTS",
            Self::LoginFailed => "LOGIN_FAILED",
            Self::BadInput => "BAD_INPUT",
            Self::BadJson => "BAD_JSON",
            Self::UnknownType => "UNKNOWN_TYPE",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Forbidden => "FORBIDDEN",
            Self::UnknownRoom => "UNKNOWN_ROOM",
            Self::UnknownUser => "UNKNOWN_USER",
            Self::NotFound => "NOT_FOUND",
            Self::UnknownMessage => "UNKNOWN_MESSAGE",
            Self::Conflict => "CONFLICT",
            Self::TooLarge => "TOO_LARGE",
            Self::TooMany => "TOO_MANY",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The HTTP status it travels with.
    pub fn http_status(self) -> u16 {
        match self {
            Self::UsernameExists | Self::EmailExists | Self::LoginFailed => 400,
            Self::BadInput | Self::BadJson | Self::UnknownType | Self::UnknownMessage => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::UnknownRoom | Self::UnknownUser | Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }

    /// Milliseconds after which a repeat may help; 0: it does not.
    pub fn retry_after_ms(self) -> u32 {
        match self {
            Self::TooMany | Self::Unavailable | Self::Internal => 1000,
            _ => 0,
        }
    }

    /// The refusal with this code and a message that names the field and the limit.
    pub fn with(self, message: impl Into<String>) -> Refusal {
        Refusal {
            code: self.as_str().to_owned(),
            message: message.into(),
            http_status: u32::from(self.http_status()),
            retry_after_ms: self.retry_after_ms(),
        }
    }
}
