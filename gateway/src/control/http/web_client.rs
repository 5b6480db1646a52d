//! The built web client, embedded. Files under `/assets/` carry a hash in their names and
//! never change; everything else is asked for again, and answered with 304 where it is the same.

use std::fmt::Write;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use corecast_proto::refusal::Code;
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{gate, reply};

#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct WebClient;

/// What `/` answers in a build without the web client.
const NOT_BUILT: &str = "<!doctype html>\n<title>corecast</title>\n\
    <p>This gateway was built without the web client. Build it, then build the gateway again:</p>\n\
    <pre>cd web &amp;&amp; npm ci &amp;&amp; npm run build\ncargo build --release</pre>\n";

/// Every path that is nobody else's.
pub(super) async fn serve(request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") {
        return reply::refused(Code::NotFound, "no such path");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return gate::method_not_allowed().await;
    }
    let mut response = file_of(path, request.headers());
    if request.method() == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

fn file_of(path: &str, headers: &HeaderMap) -> Response {
    let name = path.trim_start_matches('/');
    let name = if name.is_empty() { INDEX } else { name };
    if let Some(file) = WebClient::get(name) {
        return answer(name, &file, headers);
    }
    // A page inside the client, opened by its address.
    let page = !name.contains('.') && accepts_html(headers) || name == INDEX;
    match WebClient::get(INDEX) {
        Some(file) if page => answer(INDEX, &file, headers),
        None if page => html(NOT_BUILT),
        _ => reply::refused(Code::NotFound, "no such path"),
    }
}

fn answer(name: &str, file: &EmbeddedFile, headers: &HeaderMap) -> Response {
    let etag = etag_of(file.metadata.sha256_hash());
    let hashed = name.starts_with("assets/");
    let cache = if hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let response = Response::builder().header(ETAG, &etag).header(CACHE_CONTROL, cache);
    let response = if matches(headers, &etag) {
        response.status(StatusCode::NOT_MODIFIED).body(Body::empty())
    } else {
        response.header(CONTENT_TYPE, type_of(name)).body(Body::from(file.data.clone().into_owned()))
    };
    response.unwrap_or_else(|_| reply::broken())
}

fn html(text: &'static str) -> Response {
    let response = Response::builder()
        .header(CONTENT_TYPE, "text/html; charset=utf-8")
        .header(CACHE_CONTROL, "no-cache")
        .body(Body::from(text));
    response.unwrap_or_else(|_| reply::broken())
}

fn etag_of(hash: [u8; 32]) -> String {
    let mut etag = String::from("\"");
    for byte in &hash[..16] {
        write!(etag, "{byte:02x}").expect("a String takes every byte");
    }
    etag.push('"');
    etag
}

/// Weak comparison (RFC 9110 §13.1.2): a proxy may have marked ours as weak.
fn matches(headers: &HeaderMap, etag: &str) -> bool {
    let asked = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    asked.flat_map(|list| list.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag
    })
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|types| types.contains("text/html"))
}

fn type_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

const INDEX: &str = "index.html";

#[cfg(test)]
mod tests {
    use super::*;

    fn file(data: &'static [u8]) -> EmbeddedFile {
        let metadata = rust_embed::Metadata::__rust_embed_new([7; 32], None, None);
        EmbeddedFile { data: data.into(), metadata }
    }

    #[test]
    fn only_hashed_names_are_kept_for_ever() {
        let cache = |name: &str| {
            answer(name, &file(b"x"), &HeaderMap::new()).headers()[CACHE_CONTROL].to_str().map(str::to_owned)
        };
        assert!(cache("assets/index-Bq1.js").is_ok_and(|cache| cache.contains("immutable")));
        assert_eq!(cache("index.html").ok().as_deref(), Some("no-cache"));
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let first = answer("index.html", &file(b"x"), &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let etag = first.headers()[ETAG].clone();
        let again = HeaderMap::from_iter([(IF_NONE_MATCH, etag)]);
        assert_eq!(answer("index.html", &file(b"x"), &again).status(), StatusCode::NOT_MODIFIED);
        let other = HeaderMap::from_iter([(IF_NONE_MATCH, "\"0\"".parse().expect("value"))]);
        assert_eq!(answer("index.html", &file(b"x"), &other).status(), StatusCode::OK);
    }

    #[test]
    fn paths_do_not_leave_the_folder() {
        for path in ["/../Cargo.toml", "/assets/../../Cargo.toml", "//etc/passwd.txt"] {
            assert_eq!(file_of(path, &HeaderMap::new()).status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
