//! WebSocket close codes (RFC 6455 §7.4) and ours, with what a browser does next.

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// The peer asked for it.
    Normal = 1000,
    /// The gateway drains: reconnect, another gateway answers.
    GoingAway = 1001,
    /// Broken framing (RFC 6455 §5).
    Protocol = 1002,
    /// A kind of data that is not accepted.
    Unsupported = 1003,
    /// A text message that is not UTF-8.
    BadUtf8 = 1007,
    /// A frame or message over the limit.
    TooBig = 1009,
    /// Authentication and nothing else: go to the login page.
    Unauthenticated = 1008,
    /// Our fault.
    Internal = 1011,
    /// Reconnect at once: what the client holds of a room is void (clients without `corecast.v1`).
    Restart = 1012,
    /// Overload, a stalled reader, or logic cannot be asked: come back later.
    TryLater = 1013,
    /// Too many requests or too much abuse.
    TooMany = 4429,
    /// Signed out or revoked.
    SignedOut = 4501,
    /// Kicked or banned.
    Banned = 4503,
}

/// What a browser does after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// At once.
    Now,
    /// After a back-off.
    Later,
    /// Not by itself.
    Never,
}

impl CloseCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }

    /// The label of metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::GoingAway => "going_away",
            Self::Protocol => "protocol",
            Self::Unsupported => "unsupported",
            Self::BadUtf8 => "bad_utf8",
            Self::TooBig => "too_big",
            Self::Unauthenticated => "unauthenticated",
            Self::Internal => "internal",
            Self::Restart => "restart",
            Self::TryLater => "try_later",
            Self::TooMany => "too_many",
            Self::SignedOut => "signed_out",
            Self::Banned => "banned",
        }
    }

    /// All codes this side sends.
    pub const ALL: [Self; 13] = [
        Self::Normal,
        Self::GoingAway,
        Self::Protocol,
        Self::Unsupported,
        Self::BadUtf8,
        Self::TooBig,
        Self::Unauthenticated,
        Self::Internal,
        Self::Restart,
        Self::TryLater,
        Self::TooMany,
        Self::SignedOut,
        Self::Banned,
    ];

    /// What a browser does after this close.
    pub fn reconnect(self) -> Reconnect {
        match self {
            Self::Restart => Reconnect::Now,
            Self::Unauthenticated | Self::SignedOut | Self::Banned => Reconnect::Never,
            _ => Reconnect::Later,
        }
    }

    /// May this number stand in a close frame that a peer sends (RFC 6455 §7.4.1, §7.4.2)?
    pub fn may_be_received(number: u16) -> bool {
        matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_numbers_are_refused() {
        for number in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!CloseCode::may_be_received(number), "{number}");
        }
        for number in [1000, 1003, 1007, 1014, 3000, 4999] {
            assert!(CloseCode::may_be_received(number), "{number}");
        }
    }

    #[test]
    fn every_code_of_ours_may_be_received() {
        for code in CloseCode::ALL {
            assert!(CloseCode::may_be_received(code.number()), "{code:?}");
        }
    }
}
