//! Setup: one TCP connection that carries plain HTTP first.
//! Claim: an upgrade on it works like one on a fresh connection.
//! Why: browsers and proxies use a kept-alive connection for whatever comes next.

mod control_support;

use control_support::{ANN, Browser, World, websocket_key, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads one response without a body, or with one of `Content-Length`.
async fn response(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(within(stream.read_u8()).await.expect("a head"));
    }
    let head = String::from_utf8(read).expect("ascii").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a number"))];
    within(stream.read_exact(&mut body)).await.expect("a body");
    head
}

#[tokio::test]
async fn a_connection_that_carried_a_page_becomes_a_websocket() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let host = world.http;
    let page = format!("GET /api/nothing HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(page.as_bytes()).await.expect("written");
    assert!(response(&mut stream).await.starts_with("http/1.1 404"));
    let key = websocket_key();
    let upgrade = format!(
        "GET /api/ws HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nCookie: sid={ANN}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.expect("written");
    let head = response(&mut stream).await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(head.contains(&format!("set-cookie: sid={ANN}; httponly")), "{head}");
    let mut browser = Browser::of(stream).await;
    assert_eq!(browser.next_frame().await["type"], "hello");
    browser.send("{").await;
    assert_eq!(browser.next_of("error").await["code"], "BAD_JSON");
}

#[tokio::test]
async fn a_foreign_origin_is_refused_on_a_kept_alive_connection_too() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let host = world.http;
    let page = format!("GET /api/nothing HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(page.as_bytes()).await.expect("written");
    response(&mut stream).await;
    let key = websocket_key();
    let upgrade = format!(
        "GET /api/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nOrigin: https://evil.example\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.expect("written");
    assert!(response(&mut stream).await.starts_with("http/1.1 403"));
}

#[tokio::test]
async fn a_websocket_path_without_an_upgrade_says_so() {
    let world = World::start().await;
    let response = reqwest::get(world.url("/api/ws")).await.expect("answered");
    assert_eq!(response.status().as_u16(), 426);
    assert_eq!(response.headers()["upgrade"], "websocket");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let world = World::start_with(|config| config.limits.handshake_ms = 200).await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let host = world.http;
    let page = format!("GET /api/nothing HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(page.as_bytes()).await.expect("written");
    response(&mut stream).await;
    stream.write_all(b"GET /api/nothing HTTP/1.1\r\nHost: slow").await.expect("written");
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.expect("closed in time");
}
