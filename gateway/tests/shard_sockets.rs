//! Setup: real shards on loopback sockets, each test on every host and way of sending (the
//! glommio executor with and without the ring where io_uring is allowed, the plain thread
//! everywhere), an independent WebSocket client; the test plays the control side.
//! Claim: what the core decides is what happens on the wire.
//! Why it matters: the model test has no kernel in it.

mod shard_support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream as StdStream};
use std::time::{Duration, Instant};

use corecast_gateway::config::Limits;
use corecast_gateway::core::counters::Counters;
use corecast_gateway::core::{Command, Event, Page, Target, Wire};
use corecast_gateway::shard::ShardHandle;
use corecast_proto::close::CloseCode;
use futures::SinkExt;
use shard_support::{PATIENCE, close_code, connect, frame, next, on_each_host, text, wire};
use socket2::SockRef;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echo_returns_text_and_binary_of_any_size() {
    on_each_host(Limits::default(), 2, async |gateway| {
        let mut browser = connect(gateway.addr, "/debug/echo", false).await;
        for length in [0usize, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            browser.send(Message::Binary(bytes.clone().into())).await.unwrap();
            assert_eq!(next(&mut browser).await, Message::Binary(bytes.into()), "{length}");
            browser.send(Message::text("ä".repeat(length / 2))).await.unwrap();
            assert_eq!(text(&mut browser).await.len(), length / 2 * 2);
        }
        browser.send(Message::Ping(Bytes::from_static(b"p"))).await.unwrap();
        assert_eq!(next(&mut browser).await, Message::Pong(Bytes::from_static(b"p")));
        let frame = CloseFrame { code: WsCode::from(4000), reason: "bye".into() };
        browser.close(Some(frame)).await.unwrap();
        assert_eq!(close_code(&mut browser).await, Some(4000));
        gateway.until("closed", |counters| counters.connections == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_reaches_the_members_on_every_shard_and_nobody_else() {
    on_each_host(Limits::default(), 2, async |mut gateway| {
        let mut members = Vec::new();
        let mut others = Vec::new();
        let mut shards = [0, 0];
        // The kernel spreads peers by hash: go on until both shards have one.
        while members.len() < 6 || shards.contains(&0) {
            let (browser, conn) = gateway.browser(false, &["room"]).await;
            shards[usize::from(conn.shard)] += 1;
            members.push(browser);
            others.push(gateway.browser(false, &[]).await.0);
            assert!(members.len() < 200, "the kernel does not spread peers");
        }
        gateway.command_all(|| Command::Frames(vec![frame("room", false, 1, wire("to the room"))]));
        gateway.command_all(|| Command::Frames(vec![frame("lobby", true, 1, wire("to everyone"))]));
        for browser in &mut members {
            // Between rooms there is no order.
            let mut got = [text(browser).await, text(browser).await];
            got.sort();
            assert_eq!(got, ["to everyone", "to the room"]);
        }
        for browser in &mut others {
            assert_eq!(text(browser).await, "to everyone");
        }
        let expected = (2 * members.len() + others.len()) as u64;
        gateway.until("counted", |counters| counters.deliveries == expected).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_reach_control_in_order_and_wait_for_answers() {
    let limits = Limits { requests_in_flight: 3, ..Limits::default() };
    on_each_host(limits, 1, async |mut gateway| {
        let (mut browser, conn) = gateway.browser(true, &[]).await;
        for number in 0..20 {
            browser.send(Message::text(number.to_string())).await.unwrap();
        }
        for number in 0..20 {
            match gateway.event().await {
                Event::Text { text, session, v1, .. } => {
                    assert_eq!(text, number.to_string());
                    assert!(v1 && session.is_some());
                }
                other => panic!("{other:?}"),
            }
            if number >= 2 {
                assert!(gateway.events.try_recv().is_err(), "three are unsettled");
                let frames = vec![wire(&format!("answer {number}"))];
                gateway.command(conn.shard, Command::Reply { conn, frames, settled: 1 });
                assert_eq!(text(&mut browser).await, format!("answer {number}"));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_does_not_delay_others_and_catches_up_when_it_reads() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let (mut slow, slow_conn) = gateway.browser(true, &[]).await;
        let (mut quick, _) = gateway.browser(false, &[]).await;
        // Far more than both kernels hold.
        let payload = "x".repeat(32 << 10);
        let wires: Vec<Wire> = (1..=400).map(|number| wire(&format!("{number} {payload}"))).collect();
        for (at, wire) in wires.iter().enumerate() {
            let frames = vec![frame("lobby", true, at as u64 + 1, wire.clone())];
            gateway.command(0, Command::Frames(frames));
            assert!(text(&mut quick).await.starts_with(&format!("{} ", at + 1)));
        }
        gateway.until("demoted", |counters| counters.demoted == 1 && counters.lagging == 1).await;

        // It reads: what was queued, the notice, then pages until it is live again.
        let mut expected = 1;
        let mut told = None;
        loop {
            tokio::select! {
                event = gateway.event() => match event {
                    Event::Lagging { conn, room_id, reached, too_long } => {
                        assert!(conn == slow_conn && room_id.as_str() == "lobby" && !too_long);
                        let from = reached.seq as usize;
                        let to = (from + 3).min(wires.len());
                        let frames = (from..to).map(|at| (at as u64 + 1, wires[at].clone())).collect();
                        let page = Page::Frames { frames, reached: to as u64 };
                        gateway.command(0, Command::Page { conn, room_id, page });
                    }
                    other => panic!("{other:?}"),
                },
                text = text(&mut slow) => {
                    if text.starts_with(r#"{"type":"lagging""#) {
                        told = Some(expected - 1);
                    } else if text.starts_with(r#"{"type":"caughtUp""#) {
                        break;
                    } else {
                        assert!(text.starts_with(&format!("{expected} ")), "{expected}: {}", &text[..20]);
                        expected += 1;
                    }
                }
            }
        }
        assert_eq!(expected, 401);
        assert!(told.is_some_and(|reached| reached < 400));
        gateway.command(0, Command::Frames(vec![frame("lobby", true, 401, wire("live"))]));
        assert_eq!(text(&mut slow).await, "live");
        gateway.until("caught up", |counters| counters.lagging == 0 && counters.caught_up == 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_is_handed_over_with_every_byte() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let mut client = StdStream::connect(gateway.addr).expect("connected");
        let request = b"POST /api/login HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
        // Answered in place first, on the same connection.
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        client.write_all(request).unwrap();
        let Event::Http { fd, mut read, peer } = gateway.event().await.into_http() else { unreachable!() };
        assert_eq!(peer, Some(Ipv4Addr::LOCALHOST.into()));
        assert!(SockRef::from(&fd).tcp_nodelay().unwrap(), "inherited from the listener");
        let mut server = StdStream::from(fd);
        server.set_nonblocking(false).unwrap();
        let mut all = Vec::new();
        all.append(&mut read.split_off(0).to_vec());
        while all.len() < request.len() {
            let mut more = [0; 64];
            let count = server.read(&mut more).unwrap();
            all.extend_from_slice(&more[..count]);
        }
        assert_eq!(all, request);
        server.write_all(b"done").unwrap();
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(b"done"));
        gateway.until("given up", |counters| counters.connections == 0 && counters.handed_over == 1).await;
    })
    .await;
}

trait IntoHttp {
    fn into_http(self) -> Event;
}

impl IntoHttp for Event {
    fn into_http(self) -> Event {
        assert!(matches!(self, Self::Http { .. }), "{self:?}");
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_socket_is_a_connection_like_any_other() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let fd = std::os::fd::OwnedFd::from(server.into_std().unwrap());
        let request =
            corecast_gateway::core::UpgradeRequest { sid: None, v1: false, echo: false, peer: None };
        let read = Bytes::from(masked(0x1, b"early"));
        gateway.command(0, Command::Adopt { fd, request, read });
        let conn = gateway.upgraded().await;
        match gateway.event().await {
            Event::Text { text, session, .. } => assert!(text == "early" && session.is_none()),
            other => panic!("{other:?}"),
        }
        gateway.open(conn, &[]);
        let mut hello = [0; 7];
        client.read_exact(&mut hello).unwrap();
        assert_eq!(&hello[2..], b"hello");
        drop(client);
        assert!(matches!(gateway.event().await, Event::Closed { session: Some(_), .. }));
    })
    .await;
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_rule_has_its_close_code() {
    let limits = Limits { client_frame_bytes: 1024, ..Limits::default() };
    on_each_host(limits, 1, async |mut gateway| {
        let unmasked = vec![0x81, 1, b'x'];
        let reserved = masked(0x3, b"");
        let bad_text = masked(0x1, &[0xff]);
        let binary = masked(0x2, b"x");
        for (bytes, code) in [(unmasked, 1002), (reserved, 1002), (bad_text, 1007), (binary, 1003)] {
            let (mut browser, _) = gateway.browser(true, &[]).await;
            let raw = browser.get_mut();
            tokio::io::AsyncWriteExt::write_all(raw, &bytes).await.unwrap();
            assert_eq!(close_code(&mut browser).await, Some(code));
            // After a broken rule nothing is read any more: the end of the socket counts.
            drop(browser);
            assert!(matches!(gateway.event().await, Event::Closed { .. }));
        }
        for (length, fits) in [(1024, true), (1025, false)] {
            let (mut browser, _) = gateway.browser(true, &[]).await;
            browser.send(Message::text("x".repeat(length))).await.unwrap();
            if fits {
                assert!(matches!(gateway.event().await, Event::Text { .. }));
                browser.close(None).await.unwrap();
                assert_eq!(
                    close_code(&mut browser).await,
                    None,
                    "a close without a code is answered without"
                );
            } else {
                assert_eq!(close_code(&mut browser).await, Some(1009));
            }
            drop(browser);
            assert!(matches!(gateway.event().await, Event::Closed { .. }));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_of_control_follows_what_is_queued() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let (mut browser, conn) = gateway.browser(true, &[]).await;
        gateway.command(0, Command::Frames(vec![frame("lobby", true, 1, wire("before"))]));
        gateway.command(0, Command::Close { conn, code: CloseCode::Banned, reason: "test" });
        gateway.command(0, Command::Frames(vec![frame("lobby", true, 2, wire("behind"))]));
        assert_eq!(text(&mut browser).await, "before");
        assert_eq!(close_code(&mut browser).await, Some(4503));
        assert!(matches!(gateway.event().await, Event::Closed { .. }));

        // Signing out closes every connection of the session, each in its own words.
        for (v1, code) in [(true, 4501), (false, 1008)] {
            let (mut browser, conn) = gateway.browser(v1, &[]).await;
            let sid = format!("{}-{}", conn.shard, conn.slot).into();
            gateway.command(0, Command::CloseSession { sid });
            assert_eq!(close_code(&mut browser).await, Some(code));
            assert!(matches!(gateway.event().await, Event::Closed { session: Some(_), .. }));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_pinged_and_then_ended_but_an_answer_keeps_it_alive() {
    let limits = Limits { ping_ms: 100, dead_ms: 400, handshake_ms: 300, ..Limits::default() };
    on_each_host(limits, 1, async |mut gateway| {
        let begun = Instant::now();
        let mut mute = StdStream::connect(gateway.addr).unwrap();
        let mut nothing = Vec::new();
        mute.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(mute.read_to_end(&mut nothing).unwrap(), 0, "no request: closed");
        // Its time began with the turn that accepted it, which may be some milliseconds old.
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());

        let (mut browser, _) = gateway.browser(true, &[]).await;
        // Reading answers pings: far longer than the limit.
        let alive = tokio::time::sleep(Duration::from_millis(1_000));
        tokio::pin!(alive);
        let mut pings = 0;
        loop {
            tokio::select! {
                () = &mut alive => break,
                message = next(&mut browser) => {
                    assert!(matches!(message, Message::Ping(_)), "{message:?}");
                    pings += 1;
                }
            }
        }
        assert!(pings >= 5, "{pings}");
        // It stops answering.
        assert!(matches!(gateway.event().await, Event::Closed { .. }));
        gateway.until("dead", |counters| ended(counters, "dead") == 1).await;
        assert_eq!(ended(&gateway.counters(), "handshake_timeout"), 1);
    })
    .await;
}

fn ended(counters: &Counters, cause: &str) -> u64 {
    let at = (0..counters.closed.len()).find(|at| Counters::closed_label(*at) == cause);
    counters.closed[at.expect("a known cause")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_nothing_is_closed() {
    let limits = Limits { ping_ms: 100, dead_ms: 200, stalled_ms: 1_000, ..Limits::default() };
    on_each_host(limits, 1, async |mut gateway| {
        let (browser, conn) = gateway.browser(true, &[]).await;
        let frames = vec![wire(&"x".repeat(8 << 20))];
        gateway.command(0, Command::Reply { conn, frames, settled: 0 });
        // Silence does not end it while output waits; the stall does.
        let begun = Instant::now();
        gateway.until("stalled", |counters| counters.open == 0).await;
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
        assert!(matches!(gateway.event().await, Event::Closed { .. }));
        gateway.until("counted", |counters| ended(counters, "try_later") == 1).await;
        drop(browser);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_more_than_the_limit_is_told_503() {
    let limits = Limits { connections: 3, ..Limits::default() };
    on_each_host(limits, 2, async |mut gateway| {
        let mut browsers = Vec::new();
        for _ in 0..3 {
            browsers.push(gateway.browser(true, &[]).await.0);
        }
        let mut extra = StdStream::connect(gateway.addr).unwrap();
        extra.set_read_timeout(Some(PATIENCE)).unwrap();
        extra.write_all(b"GET /api/ws HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is the peer's own late request.
        let _ = extra.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 503 "), "{:?}", String::from_utf8_lossy(&answer));
        drop(browsers.pop());
        assert!(matches!(gateway.event().await, Event::Closed { .. }));
        gateway.until("a place is free", |counters| counters.connections == 2).await;
        gateway.browser(true, &[]).await;
        assert_eq!(gateway.counters().refused, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_keeps_its_speed() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let mut browsers = Vec::new();
        for _ in 0..5 {
            browsers.push(gateway.browser(true, &[]).await.0);
        }
        let begun = Instant::now();
        gateway.command(0, Command::Push { target: Target::All { per_second: 20 }, wire: wire("slow") });
        gateway.command(0, Command::Push { target: Target::All { per_second: 0 }, wire: wire("fast") });
        for browser in &mut browsers {
            let mut got = [text(browser).await, text(browser).await];
            got.sort();
            assert_eq!(got, ["fast", "slow"]);
        }
        assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_closes_and_ends_the_shard() {
    on_each_host(Limits::default(), 2, async |mut gateway| {
        let mut browsers = Vec::new();
        for at in 0..20 {
            browsers.push(gateway.browser(at % 2 == 0, &[]).await.0);
        }
        // A stranger in the middle of its request head must not hold the drain up.
        let _stranger = StdStream::connect(gateway.addr).unwrap();
        gateway.until("accepted", |counters| counters.connections == 21).await;
        gateway.command_all(|| Command::Frames(vec![frame("lobby", true, 1, wire("last"))]));
        let within = Duration::from_millis(1_500);
        gateway.command_all(|| Command::Drain { within, notice: wire("draining") });
        let begun = Instant::now();
        for (at, browser) in browsers.iter_mut().enumerate() {
            assert_eq!(text(browser).await, "last");
            if at % 2 == 0 {
                assert_eq!(text(browser).await, "draining");
            }
            assert_eq!(close_code(browser).await, Some(1001));
        }
        let (mut drained, mut closed) = (0, 0);
        while drained < 2 {
            match gateway.event().await {
                Event::Drained { .. } => drained += 1,
                Event::Closed { .. } => closed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(closed, 20);
        assert!(begun.elapsed() < within + Duration::from_millis(1_000));
        assert!(StdStream::connect(gateway.addr).is_err(), "nobody listens");
        tokio::task::spawn_blocking(move || gateway.shards.into_iter().for_each(ShardHandle::join))
            .await
            .expect("they end");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_shard_sleeps() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let (_browser, _) = gateway.browser(true, &[]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = gateway.counters();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let after = gateway.counters();
        let woken = after.parks - before.parks;
        assert!(woken <= 3, "it slept {woken} times in half a second");
    })
    .await;
}
