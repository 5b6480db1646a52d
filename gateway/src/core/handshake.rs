//! The first HTTP request of a connection: upgrade it, answer it, or hand it over.
//!
//! | request | what |
//! |---|---|
//! | `GET /healthz` | answered here: it must work when everything behind is busy |
//! | WebSocket upgrade on `/`, `/api/ws`, and `/debug/echo` where that is on | [`Decision::Upgrade`], or refused (RFC 6455 §4.2) |
//! | not HTTP, a head over the limit | refused |
//! | everything else | [`Decision::HandOver`]: hyper owns the socket from here on |
//!
//! [`decide_head`] is the same decision for a request that hyper has parsed: an upgrade
//! that arrives on a connection which carried plain HTTP before.

use std::borrow::Cow;
use std::fmt::Write;
use std::mem::MaybeUninit;
use std::net::IpAddr;

use corecast_proto::refusal::Code;
use tungstenite::handshake::derive_accept_key;
use uuid::Uuid;

use super::command::UpgradeRequest;
use crate::config::Network;

/// What the configuration says about requests.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Origins besides the `Host` that may upgrade, as `https://example.org`, lower case.
    origins: Box<[String]>,
    /// Whose `X-Forwarded-For` is believed.
    proxies: Box<[Network]>,
    /// `/debug/echo` exists.
    echo: bool,
    /// Bytes of a request head, its blank line included.
    head_max: usize,
}

/// What to do with the bytes read so far.
#[derive(Debug)]
pub enum Decision {
    /// The head is not complete.
    NeedMore,
    /// Write `response`, then it is a WebSocket; bytes after `consumed` are frames.
    Upgrade {
        /// For the control side.
        request: UpgradeRequest,
        /// The 101.
        response: Vec<u8>,
        /// Bytes of the head.
        consumed: usize,
    },
    /// Write `response`; the next request begins after `consumed`.
    Answer {
        /// Whole response.
        response: Vec<u8>,
        /// Close after it.
        close: bool,
        /// Bytes of the head.
        consumed: usize,
    },
    /// Plain HTTP: the socket and everything read so far go to hyper.
    HandOver,
}

/// A request line that is parsed already.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// `GET`.
    pub method: &'a str,
    /// Request target: path and query, or the absolute form.
    pub target: &'a str,
    /// HTTP/1.1, not 1.0.
    pub http_11: bool,
}

/// What a parsed head asks for.
#[derive(Debug)]
pub enum Asked {
    /// An upgrade that is granted: answer 101 with these headers.
    Upgrade {
        /// For the control side.
        request: UpgradeRequest,
        /// Names and values of the 101.
        headers: Vec<Field>,
    },
    /// An upgrade that is refused; the connection closes after the answer.
    Refused(Refused),
    /// Not an upgrade, or on a path that has none.
    Plain,
}

/// Name and value of a header.
pub type Field = (&'static str, Cow<'static, str>);

/// An answer that is not 101.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Headers besides type and length.
    pub headers: Vec<(&'static str, &'static str)>,
    /// `{"id","message"}`.
    pub body: String,
}

impl Rules {
    /// Rules with the default limit of a request head.
    pub fn new(origins: &[String], echo: bool) -> Self {
        let origins = origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase());
        Self { origins: origins.collect(), proxies: Box::default(), echo, head_max: HEAD_BYTES }
    }

    /// The same behind these proxies.
    pub fn behind(self, proxies: &[Network]) -> Self {
        Self { proxies: proxies.into(), ..self }
    }

    /// Who talks to us. Each proxy appends whom it talked to, so from the end on the first
    /// that is none of ours is the client; what stands before it is the client's own word.
    fn client(&self, peer: Option<IpAddr>, forwarded: &[&str]) -> Option<IpAddr> {
        let mut client = peer?.to_canonical();
        let mut hops = forwarded.iter().rev().flat_map(|line| line.rsplit(','));
        while self.proxies.iter().any(|proxy| proxy.contains(client)) {
            let Some(Ok(hop)) = hops.next().map(|hop| hop.trim().parse::<IpAddr>()) else { break };
            client = hop.to_canonical();
        }
        Some(client)
    }

    /// May a page of this origin act for the user on this host?
    pub fn origin_allowed(&self, origin: &str, host: Option<&str>) -> bool {
        let origin = origin.to_ascii_lowercase();
        if self.origins.contains(&origin) {
            return true;
        }
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let default_port = match scheme {
            "http" => "80",
            "https" => "443",
            _ => return false,
        };
        let Some(host) = host.map(str::to_ascii_lowercase) else { return false };
        let (origin_name, origin_port) = split_port(authority);
        let (host_name, host_port) = split_port(&host);
        // The scheme the browser used may end at a proxy, so a Host without a port is the
        // default port of the origin's own scheme.
        !origin_name.is_empty()
            && origin_name == host_name
            && origin_port.unwrap_or(default_port) == host_port.unwrap_or(default_port)
    }
}

/// Decides over the bytes read so far, which begin at the start of a request.
pub fn decide(read: &[u8], rules: &Rules, peer: Option<IpAddr>) -> Decision {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let consumed = match request.parse_with_uninit_headers(read, &mut headers) {
        Ok(httparse::Status::Complete(consumed)) if consumed <= rules.head_max => consumed,
        Ok(httparse::Status::Partial) if read.len() <= rules.head_max => return Decision::NeedMore,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            let limit = rules.head_max;
            let message = format!("request head over {limit} bytes or {HEADERS_MAX} headers");
            return refuse(&Refused::new(431, Code::TooLarge, &message), read.len());
        }
        Err(error) => {
            let message = format!("not an HTTP/1.1 request: {error}");
            return refuse(&Refused::new(400, Code::BadInput, &message), read.len());
        }
    };
    let head = Head {
        method: request.method.unwrap_or_default(),
        target: request.path.unwrap_or_default(),
        http_11: request.version == Some(1),
    };
    let fields = request.headers.iter().map(|field| (field.name, field.value));
    match decide_head(head, fields.clone(), rules, peer) {
        Asked::Upgrade { request, headers } => {
            Decision::Upgrade { request, response: render_101(&headers), consumed }
        }
        Asked::Refused(refused) => refuse(&refused, consumed),
        Asked::Plain => {
            let fields = Fields::read(fields);
            if head.method == "GET" && path_of(head.target) == "/healthz" && !fields.body {
                healthz(head.http_11, &fields, consumed)
            } else {
                Decision::HandOver
            }
        }
    }
}

/// The same decision over a head that is parsed already; `headers` are names in any case
/// and raw values, each occurrence of its own.
pub fn decide_head<'a>(
    head: Head<'_>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    rules: &Rules,
    peer: Option<IpAddr>,
) -> Asked {
    let echo = match path_of(head.target) {
        "/" | "/api/ws" => false,
        "/debug/echo" if rules.echo => true,
        _ => return Asked::Plain,
    };
    let fields = Fields::read(headers);
    if !fields.upgrade_websocket {
        return Asked::Plain;
    }
    if let Err(refused) = fields.check(head, rules) {
        return Asked::Refused(refused);
    }
    let peer = rules.client(peer, &fields.forwarded);
    let key = fields.key.expect("checked above");
    let mut answer = Vec::with_capacity(5);
    answer.push(("Upgrade", Cow::from("websocket")));
    answer.push(("Connection", "Upgrade".into()));
    answer.push(("Sec-WebSocket-Accept", derive_accept_key(key).into()));
    if echo {
        let request = UpgradeRequest { sid: None, v1: false, echo, peer };
        return Asked::Upgrade { request, headers: answer };
    }
    if fields.v1 {
        answer.push(("Sec-WebSocket-Protocol", SUB_PROTOCOL.into()));
    }
    if let Some(sid) = fields.sid {
        answer.push(("Set-Cookie", session_cookie(sid, fields.https).into()));
    }
    let request = UpgradeRequest { sid: fields.sid.map(Into::into), v1: fields.v1, echo, peer };
    Asked::Upgrade { request, headers: answer }
}

/// `Set-Cookie` of a session, with a fresh Max-Age (CONTRACT §2).
pub fn session_cookie(sid: &str, https: bool) -> String {
    let secure = if https { "; Secure" } else { "" };
    format!("sid={sid}; HttpOnly; SameSite=Lax; Path=/; Max-Age=86400{secure}")
}

/// The headers that matter, read in one pass.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    hosts: u32,
    origin: Option<&'a [u8]>,
    origins: u32,
    upgrade_websocket: bool,
    connection_upgrade: bool,
    connection_close: bool,
    connection_keep_alive: bool,
    key: Option<&'a [u8]>,
    keys: u32,
    version_13: bool,
    v1: bool,
    sid: Option<&'a str>,
    https: bool,
    /// Each `X-Forwarded-For`, in their order.
    forwarded: Vec<&'a str>,
    body: bool,
}

impl<'a> Fields<'a> {
    fn read(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.take(name, value);
        }
        fields
    }

    fn take(&mut self, name: &str, value: &'a [u8]) {
        let is = |expected: &str| name.eq_ignore_ascii_case(expected);
        let text = std::str::from_utf8(value).unwrap_or_default().trim();
        if is("host") {
            self.hosts += 1;
            self.host = Some(text);
        } else if is("origin") {
            self.origins += 1;
            self.origin = Some(value);
        } else if is("upgrade") {
            self.upgrade_websocket |= list(text).any(|token| token.eq_ignore_ascii_case("websocket"));
        } else if is("connection") {
            for token in list(text) {
                self.connection_upgrade |= token.eq_ignore_ascii_case("upgrade");
                self.connection_close |= token.eq_ignore_ascii_case("close");
                self.connection_keep_alive |= token.eq_ignore_ascii_case("keep-alive");
            }
        } else if is("sec-websocket-key") {
            self.keys += 1;
            self.key = Some(text.as_bytes());
        } else if is("sec-websocket-version") {
            self.version_13 = text == "13";
        } else if is("sec-websocket-protocol") {
            self.v1 |= list(text).any(|token| token == SUB_PROTOCOL);
        } else if is("cookie") {
            self.sid = self.sid.or_else(|| sid_of_cookies(value));
        } else if is("x-forwarded-proto") {
            self.https = list(text).next().is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
        } else if is("x-forwarded-for") {
            self.forwarded.push(text);
        } else if is("content-length") {
            self.body |= text != "0";
        } else if is("transfer-encoding") {
            self.body = true;
        }
    }

    /// RFC 6455 §4.2.1, then the Origin rule of CONTRACT §2.
    fn check(&self, head: Head<'_>, rules: &Rules) -> Result<(), Refused> {
        let bad = |message| Err(Refused::new(400, Code::BadInput, message));
        if head.method != "GET" {
            return bad("an upgrade must be a GET");
        }
        if !head.http_11 {
            return bad("an upgrade needs HTTP/1.1");
        }
        if self.hosts != 1 {
            return bad("Host must be there once");
        }
        if !self.connection_upgrade {
            return bad("Connection must list Upgrade");
        }
        if self.body {
            return bad("an upgrade must not have a body");
        }
        if !self.version_13 {
            let message = "Sec-WebSocket-Version must be 13";
            let mut refused = Refused::new(426, Code::BadInput, message);
            refused.headers = vec![("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")];
            return Err(refused);
        }
        if self.keys != 1 || !self.key.is_some_and(is_16_bytes_of_base64) {
            return bad("Sec-WebSocket-Key must be 16 bytes in base64, once");
        }
        // A browser always sends Origin with an upgrade; who sends none is no browser.
        let Some(origin) = self.origin else { return Ok(()) };
        let origin = std::str::from_utf8(origin).unwrap_or_default().trim();
        if self.origins != 1 || !rules.origin_allowed(origin, self.host) {
            return Err(Refused::new(403, Code::Forbidden, "Origin is not allowed"));
        }
        Ok(())
    }
}

impl Refused {
    fn new(status: u16, code: Code, message: &str) -> Self {
        let body = serde_json::json!({ "id": code.as_str(), "message": message }).to_string();
        Self { status, headers: Vec::new(), body }
    }
}

fn refuse(refused: &Refused, consumed: usize) -> Decision {
    let reason = match refused.status {
        400 => "Bad Request",
        403 => "Forbidden",
        426 => "Upgrade Required",
        _ => "Request Header Fields Too Large",
    };
    let mut response = format!("HTTP/1.1 {} {reason}\r\n", refused.status);
    for (name, value) in &refused.headers {
        write!(response, "{name}: {value}\r\n").expect("a String takes every byte");
    }
    write!(
        response,
        "Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
        refused.body.len(),
        refused.body
    )
    .expect("a String takes every byte");
    Decision::Answer { response: response.into_bytes(), close: true, consumed }
}

fn healthz(http_11: bool, fields: &Fields<'_>, consumed: usize) -> Decision {
    let close = fields.connection_close || !(http_11 || fields.connection_keep_alive);
    let connection = if close { "close" } else { "keep-alive" };
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: {connection}\r\n\r\nok"
    );
    Decision::Answer { response: response.into_bytes(), close, consumed }
}

/// As large as it must be: `Bytes` takes it over as it is.
fn render_101(headers: &[Field]) -> Vec<u8> {
    const LINE: &str = "HTTP/1.1 101 Switching Protocols\r\n";
    let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut response = String::with_capacity(LINE.len() + fields + 2);
    response.push_str(LINE);
    for (name, value) in headers {
        for part in [name, ": ", value, "\r\n"] {
            response.push_str(part);
        }
    }
    response.push_str("\r\n");
    response.into_bytes()
}

/// Path of a request target, without query; the absolute form of RFC 9112 §3.2.2 too.
fn path_of(target: &str) -> &str {
    let absolute = if target.starts_with('/') { None } else { target.split_once("://") };
    let target = match absolute {
        Some((scheme, rest)) if !scheme.contains('/') => rest.find('/').map_or("/", |start| &rest[start..]),
        _ => target,
    };
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// `name[:port]`, an IPv6 name in brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, (!port.is_empty()).then_some(port)),
        _ => (authority, None),
    }
}

/// Elements of a comma-separated header.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// The first `sid` of a cookie header that is a UUID. Over bytes: other cookies of the site
/// may hold any, and must not hide ours.
pub fn sid_of_cookies(cookies: &[u8]) -> Option<&str> {
    cookies
        .split(|byte| *byte == b';')
        .filter_map(|pair| pair.trim_ascii().strip_prefix(b"sid="))
        .filter_map(|sid| std::str::from_utf8(sid).ok())
        .find(|sid| sid.len() == 36 && Uuid::try_parse(sid).is_ok())
}

/// 22 characters of base64 and two of padding.
fn is_16_bytes_of_base64(key: &[u8]) -> bool {
    key.len() == 24
        && key.ends_with(b"==")
        && key[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// The sub-protocol of CONTRACT §9.
const SUB_PROTOCOL: &str = "corecast.v1";
/// Browsers stay below 16 KiB; some proxies add much.
const HEAD_BYTES: usize = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;

#[cfg(test)]
mod tests;
