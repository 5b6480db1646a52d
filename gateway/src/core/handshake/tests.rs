//! Setup: request heads as bytes. Claims: RFC 6455 §4.2.1, the Origin rule, the cookie of
//! CONTRACT §2, and what stays here or goes to hyper. Why it matters: the first bytes of
//! every connection, and the only place a foreign page is stopped.

use super::*;

const SID: &str = "7c9e6679-7425-40de-944b-e07fc1f90ae7";
/// The example of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn rules() -> Rules {
    Rules::new(&["https://Chat.example.org/".to_owned()], true)
}

/// An upgrade whose lines can be replaced: `(name, "")` removes one.
fn upgrade(target: &str, changes: &[(&str, &str)]) -> Vec<u8> {
    let mut lines = vec![
        ("Host", "localhost:8080"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];
    for (name, value) in changes {
        lines.retain(|(present, _)| present != name);
        if !value.is_empty() {
            lines.push((name, value));
        }
    }
    let mut head = format!("GET {target} HTTP/1.1\r\n");
    for (name, value) in lines {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn granted(read: &[u8]) -> (UpgradeRequest, String, usize) {
    match decide(read, &rules(), None) {
        Decision::Upgrade { request, response, consumed } => {
            (request, String::from_utf8(response).expect("ASCII"), consumed)
        }
        other => panic!("{other:?} for {}", String::from_utf8_lossy(read)),
    }
}

fn answered(read: &[u8]) -> (String, bool) {
    match decide(read, &rules(), None) {
        Decision::Answer { response, close, .. } => (String::from_utf8(response).expect("ASCII"), close),
        other => panic!("{other:?} for {}", String::from_utf8_lossy(read)),
    }
}

fn status(read: &[u8]) -> u16 {
    let (response, close) = answered(read);
    assert!(close, "a refusal closes");
    response[9..12].parse().expect("a status")
}

fn handed_over(read: &[u8]) -> bool {
    matches!(decide(read, &rules(), None), Decision::HandOver)
}

#[test]
fn an_upgrade_gets_the_accept_key_of_the_rfc() {
    let read = upgrade("/api/ws", &[]);
    let (request, response, consumed) = granted(&read);
    assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{response}");
    assert!(response.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "{response}");
    assert!(response.ends_with("\r\n\r\n"));
    assert!(!response.contains("Set-Cookie") && !response.contains("Sec-WebSocket-Protocol"));
    assert_eq!(consumed, read.len());
    assert!(!request.v1 && !request.echo && request.sid.is_none());
}

#[test]
fn bytes_behind_the_head_stay() {
    let head = upgrade("/", &[]);
    let read = [head.as_slice(), &[0x81, 0x80, 1, 2, 3, 4]].concat();
    assert_eq!(granted(&read).2, head.len());
}

#[test]
fn every_cut_of_the_head_waits_for_the_rest() {
    let read = upgrade("/api/ws", &[("Cookie", "sid=7c9e6679-7425-40de-944b-e07fc1f90ae7")]);
    for cut in 0..read.len() {
        assert!(matches!(decide(&read[..cut], &rules(), None), Decision::NeedMore), "{cut}");
    }
}

#[test]
fn token_lists_and_their_case_are_read() {
    for changes in [
        &[("Connection", "keep-alive, upgrade")][..],
        &[("Upgrade", "WebSocket")],
        &[("Upgrade", "h2c, websocket")],
        &[("Connection", "UPGRADE")],
    ] {
        granted(&upgrade("/", changes));
    }
    granted(&upgrade("http://localhost:8080/api/ws?x=1", &[]));
}

#[test]
fn the_sub_protocol_is_picked_from_the_offer() {
    let (request, response, _) =
        granted(&upgrade("/api/ws", &[("Sec-WebSocket-Protocol", "chat, corecast.v1")]));
    assert!(request.v1);
    assert!(response.contains("Sec-WebSocket-Protocol: corecast.v1\r\n"), "{response}");
    let (request, response, _) = granted(&upgrade("/", &[("Sec-WebSocket-Protocol", "Corecast.v1")]));
    assert!(!request.v1 && !response.contains("Sec-WebSocket-Protocol"));
}

#[test]
fn the_cookie_is_repeated_with_a_fresh_age() {
    let cookie = format!("theme=dark; sid={SID}; x=y");
    let (request, response, _) = granted(&upgrade("/api/ws", &[("Cookie", &cookie)]));
    assert_eq!(request.sid.as_deref(), Some(SID));
    let line = format!("Set-Cookie: sid={SID}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400\r\n");
    assert!(response.contains(&line), "{response}");
    let (_, response, _) = granted(&upgrade("/", &[("Cookie", &cookie), ("X-Forwarded-Proto", "https")]));
    assert!(response.contains("Max-Age=86400; Secure\r\n"), "{response}");
}

#[test]
fn bytes_of_another_cookie_do_not_hide_the_session() {
    let head = String::from_utf8(upgrade("/api/ws", &[("Cookie", &format!("city=OrlEans; sid={SID}"))]));
    let mut head = head.expect("ASCII").into_bytes();
    let place = head.windows(7).position(|bytes| bytes == b"OrlEans").expect("there") + 3;
    head[place] = 0xE9;
    assert_eq!(granted(&head).0.sid.as_deref(), Some(SID));
}

#[test]
fn a_cookie_that_is_no_uuid_is_not_repeated() {
    for cookie in ["sid=", "sid=x\"y", &SID[..35], &format!("sid={SID}0"), &format!("xsid={SID}")] {
        let (request, response, _) = granted(&upgrade("/api/ws", &[("Cookie", cookie)]));
        assert_eq!(request.sid, None, "{cookie}");
        assert!(!response.contains("Set-Cookie"), "{cookie}");
    }
}

#[test]
fn echo_has_no_session_and_exists_only_where_it_is_on() {
    let read = upgrade("/debug/echo", &[("Cookie", &format!("sid={SID}"))]);
    let (request, response, _) = granted(&read);
    assert!(request.echo && request.sid.is_none() && !response.contains("Set-Cookie"));
    assert!(matches!(decide(&read, &Rules::new(&[], false), None), Decision::HandOver));
}

#[test]
fn an_upgrade_that_breaks_the_rfc_is_refused() {
    for (changes, expected) in [
        (&[("Host", "")][..], 400),
        (&[("Connection", "keep-alive")], 400),
        (&[("Connection", "")], 400),
        (&[("Sec-WebSocket-Key", "")], 400),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ")], 400),
        (&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWI=")], 400),
        (&[("Sec-WebSocket-Key", "dGhl!HNhbXBsZSBub25jZQ==")], 400),
        (&[("Content-Length", "5")], 400),
        (&[("Sec-WebSocket-Version", "")], 426),
        (&[("Sec-WebSocket-Version", "8")], 426),
    ] {
        assert_eq!(status(&upgrade("/api/ws", changes)), expected, "{changes:?}");
    }
    let old = String::from_utf8(upgrade("/", &[])).expect("ASCII").replace("HTTP/1.1", "HTTP/1.0");
    assert_eq!(status(old.as_bytes()), 400);
    let post = String::from_utf8(upgrade("/", &[])).expect("ASCII").replace("GET", "POST");
    assert_eq!(status(post.as_bytes()), 400);
    let (response, _) = answered(&upgrade("/", &[("Sec-WebSocket-Version", "8")]));
    assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{response}");
}

#[test]
fn a_second_key_or_host_is_refused() {
    for name in ["Host: localhost:8080", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="] {
        let text = String::from_utf8(upgrade("/", &[])).expect("ASCII");
        let twice = text.replace("\r\n\r\n", &format!("\r\n{name}\r\n\r\n"));
        assert_eq!(status(twice.as_bytes()), 400, "{name}");
    }
}

#[test]
fn a_second_origin_is_refused() {
    for (first, second) in
        [("http://evil.example", "http://localhost:8080"), ("http://localhost:8080", "http://evil.example")]
    {
        let text = String::from_utf8(upgrade("/", &[("Origin", first)])).expect("ASCII");
        let twice = text.replace("\r\n\r\n", &format!("\r\nOrigin: {second}\r\n\r\n"));
        assert_eq!(status(twice.as_bytes()), 403, "{first} {second}");
    }
}

#[test]
fn a_foreign_origin_is_refused() {
    for origin in
        ["http://evil.example", "null", "http://localhost:8081", "https://localhost", "localhost:8080"]
    {
        let (response, _) = answered(&upgrade("/api/ws", &[("Origin", origin)]));
        assert!(response.starts_with("HTTP/1.1 403 "), "{origin}: {response}");
        assert!(response.contains(r#"{"id":"FORBIDDEN","message":"#), "{origin}: {response}");
    }
}

#[test]
fn an_origin_of_the_host_or_the_allow_list_is_accepted() {
    for origin in ["http://localhost:8080", "https://LOCALHOST:8080", "https://chat.example.org"] {
        granted(&upgrade("/api/ws", &[("Origin", origin)]));
    }
}

#[test]
fn an_origin_equals_a_host_with_default_ports() {
    let rules = Rules::new(&[], false);
    for (origin, host, allowed) in [
        ("https://a.example", "a.example", true),
        ("https://a.example", "a.example:443", true),
        ("https://a.example", "a.example:80", false),
        ("http://a.example:80", "a.example", true),
        ("http://a.example", "A.EXAMPLE", true),
        ("http://a.example.evil", "a.example", false),
        ("http://a.example:8080", "a.example", false),
        ("http://[::1]:8080", "[::1]:8080", true),
        ("http://[::1]", "[::1]", true),
        ("http://[::1]", "[::2]", false),
        ("file://", "a.example", false),
        ("http://", "", false),
    ] {
        assert_eq!(rules.origin_allowed(origin, Some(host)), allowed, "{origin} on {host}");
    }
    assert!(!rules.origin_allowed("http://a.example", None));
}

#[test]
fn plain_http_is_handed_over() {
    for read in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /api/ws HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n",
        "GET /readyz HTTP/1.0\r\n\r\n",
        "HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ] {
        assert!(handed_over(read.as_bytes()), "{read}");
    }
    assert!(handed_over(&upgrade("/elsewhere", &[])), "404 is hyper's answer");
}

#[test]
fn healthz_is_answered_in_place() {
    let (response, close) = answered(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok"));
    assert!(!close);
    for head in
        ["GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /healthz HTTP/1.0\r\n\r\n"]
    {
        let (response, close) = answered(head.as_bytes());
        assert!(close && response.contains("Connection: close\r\n"), "{head}");
    }
    assert!(!answered(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").1);
}

#[test]
fn what_is_no_http_is_refused_at_once() {
    for read in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/9.9\r\n\r\n", b"GET  / x\r\n", b"\0"] {
        assert_eq!(status(read), 400, "{read:?}");
    }
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let of = |bytes: usize| {
        let fixed = "GET / HTTP/1.1\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(bytes - fixed)).into_bytes()
    };
    assert!(handed_over(&of(HEAD_BYTES - 1)));
    assert!(handed_over(&of(HEAD_BYTES)));
    assert_eq!(status(&of(HEAD_BYTES + 1)), 431);
    let endless = &of(HEAD_BYTES + 10)[..HEAD_BYTES + 1];
    assert_eq!(status(endless), 431, "without its end");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(status(many.as_bytes()), 431);
}

#[test]
fn a_head_parsed_elsewhere_gets_the_same_decision() {
    let headers: [(&str, &[u8]); 6] = [
        ("host", b"localhost:8080"),
        ("upgrade", b"websocket"),
        ("connection", b"Upgrade"),
        ("sec-websocket-key", KEY.as_bytes()),
        ("sec-websocket-version", b"13"),
        ("sec-websocket-protocol", b"corecast.v1"),
    ];
    let head = Head { method: "GET", target: "/api/ws?a", http_11: true };
    match decide_head(head, headers.into_iter(), &rules(), None) {
        Asked::Upgrade { request, headers } => {
            assert!(request.v1);
            assert!(headers.contains(&("Sec-WebSocket-Accept", ACCEPT.into())));
        }
        other => panic!("{other:?}"),
    }
    let foreign = headers.into_iter().chain([("origin", &b"http://evil.example"[..])]);
    match decide_head(head, foreign, &rules(), None) {
        Asked::Refused(refused) => assert_eq!(refused.status, 403),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_is_who_talks_to_us_or_whom_our_own_proxies_name() {
    let network = |text: &str| Network::try_from(text.to_owned()).expect("a network");
    let rules = rules().behind(&[network("10.0.0.0/8"), network("::1")]);
    let client = |peer: &str, forwarded: &[&str]| {
        let lines: Vec<(&str, &str)> = forwarded.iter().map(|line| ("X-Forwarded-For", *line)).collect();
        let mut read = upgrade("/api/ws", &[]);
        read.truncate(read.len() - 2);
        for (name, value) in lines {
            read.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        read.extend_from_slice(b"\r\n");
        match decide(&read, &rules, peer.parse().ok()) {
            Decision::Upgrade { request, .. } => request.peer.expect("known").to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(client("192.0.2.7", &[]), "192.0.2.7");
    assert_eq!(client("192.0.2.7", &["198.51.100.1"]), "192.0.2.7", "anybody may write the header");
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    assert_eq!(client("10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
    assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1", "IPv4 on an IPv6 socket");
    assert_eq!(client("::1", &["203.0.113.9, 198.51.100.1 , 10.2.3.4"]), "198.51.100.1", "two proxies");
    assert_eq!(client("::1", &["203.0.113.9", "198.51.100.1", "10.2.3.4"]), "198.51.100.1", "a line each");
    assert_eq!(client("10.0.0.1", &["203.0.113.9, unknown"]), "10.0.0.1", "what cannot be read ends it");
    assert_eq!(client("10.0.0.1", &["10.0.0.2"]), "10.0.0.2", "nobody but proxies");
}
