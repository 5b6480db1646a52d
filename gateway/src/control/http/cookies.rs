//! The session cookie (CONTRACT §2).

use axum::http::HeaderMap;
use axum::http::header::COOKIE;

use super::reply::forwarded_https;
use crate::core::handshake::{session_cookie, sid_of_cookies};

/// `sid` of a request, if it has one that can be a session.
pub(super) fn sid_of(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(COOKIE).iter().find_map(|cookies| sid_of_cookies(cookies.as_bytes()))
}

/// `Set-Cookie` of a new session.
pub(super) fn signed_in(sid: &str, headers: &HeaderMap) -> String {
    session_cookie(sid, forwarded_https(headers))
}

/// `Set-Cookie` that makes the browser forget the session.
pub(super) fn signed_out(headers: &HeaderMap) -> String {
    let secure = if forwarded_https(headers) { "; Secure" } else { "" };
    format!("sid=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SID: &str = "5f2e6c1c-6f0a-4b43-9b0e-6d6b3c8a1d10";

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")))
            .collect()
    }

    #[test]
    fn sid_is_found_among_other_cookies() {
        for cookies in [format!("sid={SID}"), format!("a=b; sid={SID}; c=d"), format!("xsid=1;sid={SID}")] {
            assert_eq!(sid_of(&headers(&[("cookie", cookies.clone())])), Some(SID), "{cookies}");
        }
        for cookies in
            [String::new(), "sid=".into(), "sid=x".into(), format!("xsid={SID}"), format!("sid={SID}0")]
        {
            assert_eq!(sid_of(&headers(&[("cookie", cookies.clone())])), None, "{cookies}");
        }
    }

    #[test]
    fn bytes_of_another_cookie_do_not_hide_the_session() {
        let mut headers = HeaderMap::new();
        let value = [b"city=Orl\xE9ans; sid=".as_slice(), SID.as_bytes()].concat();
        headers.insert(COOKIE, axum::http::HeaderValue::from_bytes(&value).expect("opaque bytes"));
        assert_eq!(sid_of(&headers), Some(SID));
    }

    #[test]
    fn cookies_are_written_byte_for_byte() {
        let plain = HeaderMap::new();
        let tls = headers(&[("x-forwarded-proto", "https".to_owned())]);
        let signed_in_plain = format!("sid={SID}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400");
        assert_eq!(signed_in(SID, &plain), signed_in_plain);
        assert_eq!(signed_in(SID, &tls), format!("{signed_in_plain}; Secure"));
        assert_eq!(signed_out(&plain), "sid=; HttpOnly; SameSite=Lax; Path=/; Max-Age=0");
    }
}
