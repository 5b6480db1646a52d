//! Sessions: a random id in the browser's cookie, its SHA-256 in the store.
//!
//! A session lives 86,400 s from its last use. To move the expiry at every use would be a
//! write per request, so it moves only when at least an hour of it is gone: at most one
//! write an hour, and a session that is used every day never ends.

use corecast_backends::store::SessionHash;
use sha2::{Digest, Sha256};

/// Seconds a session lives after its last use.
pub const LIFETIME_SECONDS: i64 = 86_400;
/// The expiry is moved at most this often, milliseconds.
pub const EXTEND_EVERY_MS: i64 = 3_600_000;

const LIFETIME_MS: i64 = LIFETIME_SECONDS * 1000;
// An extension per hour must come before the end, or sessions in use would expire.
const _: () = assert!(2 * EXTEND_EVERY_MS < LIFETIME_MS);

/// When a session used at `now_ms` ends, ms since 1970 UTC.
pub fn expires_ms(now_ms: i64) -> i64 {
    now_ms.saturating_add(LIFETIME_MS)
}

/// Is the session that ends at `expires_ms` still alive at `now_ms`?
pub fn is_live(expires_ms: i64, now_ms: i64) -> bool {
    expires_ms > now_ms
}

/// Is its expiry to be moved?
pub fn extend_due(expires_at_ms: i64, now_ms: i64) -> bool {
    expires_ms(now_ms).saturating_sub(expires_at_ms) >= EXTEND_EVERY_MS
}

/// Can this text be a session id: a version 4 UUID as we write it, hyphenated lower case?
/// Anything else is refused without asking anybody.
pub fn is_sid(text: &str) -> bool {
    uuid::Uuid::try_parse(text)
        .is_ok_and(|id| id.get_version_num() == 4 && id.hyphenated().to_string() == text)
}

/// What the store and the hot set know a session by.
pub fn hash(sid: &str) -> SessionHash {
    Sha256::digest(sid.as_bytes()).into()
}

/// The value of `Set-Cookie`. The gateway adds `Secure` when the request came by TLS.
pub fn cookie(sid: &str) -> String {
    format!("sid={sid}; HttpOnly; SameSite=Lax; Path=/; Max-Age={LIFETIME_SECONDS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_moves_at_most_once_an_hour() {
        let start = 1_690_000_000_000;
        let end = expires_ms(start);
        assert!(!extend_due(end, start));
        assert!(!extend_due(end, start + EXTEND_EVERY_MS - 1));
        assert!(extend_due(end, start + EXTEND_EVERY_MS));
        assert!(!extend_due(expires_ms(start + EXTEND_EVERY_MS), start + EXTEND_EVERY_MS));
    }

    #[test]
    fn a_session_ends_a_day_after_its_last_use() {
        let start = 1_690_000_000_000;
        assert!(is_live(expires_ms(start), start + 86_399_999));
        assert!(!is_live(expires_ms(start), start + 86_400_000));
    }

    #[test]
    fn only_version_4_uuids_as_we_write_them_are_session_ids() {
        assert!(is_sid("5f2e6c1c-6f0a-4b43-9b0e-6d6b3c8a1d10"));
        for text in [
            "",
            "5F2E6C1C-6F0A-4B43-9B0E-6D6B3C8A1D10",
            "5f2e6c1c6f0a4b439b0e6d6b3c8a1d10",
            "5f2e6c1c-6f0a-1b43-9b0e-6d6b3c8a1d10",
            "{5f2e6c1c-6f0a-4b43-9b0e-6d6b3c8a1d10}",
            "5f2e6c1c-6f0a-4b43-9b0e-6d6b3c8a1d1",
            "5f2e6c1c-6f0a-4b43-9b0e-6d6b3c8a1d100",
        ] {
            assert!(!is_sid(text), "{text:?}");
        }
    }

    #[test]
    fn the_cookie_is_the_contract_s() {
        assert_eq!(cookie("x"), "sid=x; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400");
    }
}
