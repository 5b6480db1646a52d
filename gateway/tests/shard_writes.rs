//! Setup: sockets that take little: in memory, cut at every byte; real ones with the
//! smallest buffers the kernel has; sends of more parts than one system call takes; slots
//! that are used again at once.
//! Claim: what a peer reads is what was queued for it, byte for byte, wherever a send ended,
//! whichever way it went; and never what was meant for who had the slot before.
//! Why it matters: a short send that counts as whole is a silent loss.

mod core_support;
mod hand_support;
mod shard_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use core_support::{connections, frame, upgrade_request};
use corecast_gateway::config::Limits;
use corecast_gateway::core::{Command, ConnId, Event, RoomFrame, Wire};
use corecast_gateway::shard::driver::epoll::Epoll;
use corecast_proto::close::CloseCode;
use corecast_proto::ids::Position;
use hand_support::ByHand;
use shard_support::{PATIENCE, close_code, connect, on_each_host, text, wire};
use socket2::{Domain, SockRef, Socket, Type};

/// Bytes in time. The host's threads may interrupt a read that has a time-out.
fn read_some(peer: &mut TcpStream, sink: &mut [u8]) -> usize {
    loop {
        match peer.read(sink) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            count => return count.expect("bytes in time"),
        }
    }
}

fn numbered(number: u64, bytes: usize) -> RoomFrame {
    frame("lobby", true, number, Wire::text(format!("{number:0bytes$}").as_bytes()))
}

/// Two frames, a reply, a frame and a close. The socket takes `room` bytes and, later, the rest
/// in pieces of `piece` bytes. Returns what arrived.
fn stream_cut_at(room: usize, piece: usize) -> Vec<u8> {
    let mut hand = ByHand::in_memory(Limits::default());
    let peer = hand.shard.driver_mut().connect();
    hand.shard.driver_mut().send(peer, upgrade_request("s").as_bytes());
    let conn = hand.open_next(&[]);
    let mut stream = Vec::new();
    hand.shard.driver_mut().take(peer);
    hand.shard.driver_mut().set_room(peer, room);
    hand.command(Command::Frames(vec![numbered(1, 5), numbered(2, 130)]));
    hand.turn_until_calm();
    hand.command(Command::Reply { conn, frames: vec![Wire::text(b"reply")], settled: 0 });
    hand.command(Command::Frames(vec![numbered(3, 1)]));
    hand.command(Command::Close { conn, code: CloseCode::Banned, reason: "end" });
    hand.turn_until_calm();
    stream.extend(hand.shard.driver_mut().take(peer));
    assert!(stream.len() <= room);
    while !hand.shard.driver_mut().is_over(peer) {
        hand.shard.driver_mut().set_room(peer, piece);
        hand.turn_until_calm();
        let more = hand.shard.driver_mut().take(peer);
        assert!(!more.is_empty() || hand.shard.driver_mut().is_over(peer), "it goes on");
        stream.extend(more);
    }
    stream
}

#[test]
fn a_send_may_end_at_every_byte() {
    let whole = stream_cut_at(usize::MAX, usize::MAX);
    let wires = [numbered(1, 5).wire, numbered(2, 130).wire, Wire::text(b"reply"), numbered(3, 1).wire];
    let close = Wire::close(CloseCode::Banned, "end");
    let expected: Vec<u8> = wires.iter().chain([&close]).flat_map(|wire| wire.bytes().to_vec()).collect();
    assert_eq!(whole, expected);
    for room in 0..=whole.len() {
        for piece in [1, 7, usize::MAX] {
            assert_eq!(stream_cut_at(room, piece), whole, "cut at {room}, then pieces of {piece}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_socket_buffers_lose_nothing() {
    const FRAMES: u64 = 300;
    let limits = Limits {
        socket_send_bytes: 4_096,
        push_soft_bytes: 16 << 20,
        push_hard_bytes: 16 << 20,
        ..Limits::default()
    };
    on_each_host(limits, 1, async |mut gateway| {
        let mut peers = Vec::new();
        for _ in 0..3 {
            // Before the connect: a window that shrinks later makes the kernel stall for seconds.
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_recv_buffer_size(4_096).expect("a socket");
            socket.connect(&gateway.addr.into()).expect("connected");
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
            stream.write_all(upgrade_request("s").as_bytes()).expect("sent");
            let conn = gateway.upgraded().await;
            gateway.open(conn, &[]);
            peers.push(stream);
        }
        gateway.until("open", |counters| counters.open == 3).await;
        let sizes = |number: u64| 1 + (number * 7_919 % 5_000) as usize;
        for batch in 0..FRAMES / 3 {
            let frames = (1..=3).map(|at| numbered(3 * batch + at, sizes(3 * batch + at))).collect();
            gateway.command(0, Command::Frames(frames));
        }
        gateway.until("short sends", |counters| counters.writes_short >= 3).await;
        let expected: Vec<u8> = std::iter::once(wire("hello"))
            .chain((1..=FRAMES).map(|number| numbered(number, sizes(number)).wire))
            .flat_map(|wire| wire.bytes().to_vec())
            .collect();
        tokio::task::block_in_place(|| {
            for (index, peer) in peers.iter_mut().enumerate() {
                let mut got = Vec::new();
                let mut sink = vec![0; 1_000 + 777 * index];
                let mut head = None;
                while head.is_none_or(|head| got.len() < head + expected.len()) {
                    let count = read_some(peer, &mut sink);
                    assert!(count > 0, "peer {index} ended behind {} bytes", got.len());
                    got.extend_from_slice(&sink[..count]);
                    let end = got.windows(4).position(|four| four == b"\r\n\r\n");
                    head = head.or(end.map(|end| end + 4));
                }
                assert!(got[head.expect("a head")..] == expected, "peer {index}");
            }
        });
        assert_eq!(gateway.counters().demoted, 0);
    })
    .await;
}

/// A cut among small frames makes each frame a part of its own.
#[test]
fn more_parts_than_one_system_call_takes_arrive_all_the_same() {
    const FRAMES: u64 = 2_500;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let addr = listener.local_addr().expect("bound");
    let mut hand = ByHand::new(Epoll::new(listener.into(), 0).expect("a driver"), Limits::default());
    let mut peer = TcpStream::connect(addr).expect("connected");
    peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let mut request = upgrade_request("s");
    request.insert_str(request.len() - 2, "Sec-WebSocket-Protocol: corecast.v1\r\n");
    peer.write_all(request.as_bytes()).expect("sent");
    hand.open_next(&[]);
    hand.command(Command::Frames((1..=FRAMES).map(|number| numbered(number, 4)).collect()));
    let at = Position { epoch: 2, seq: 0 };
    let cut = Wire::text(b"cut");
    hand.command(Command::Cut { room_id: "other".into(), everyone: true, at, wire: Some(cut.clone()) });
    hand.turn_until_calm();
    let expected: Vec<u8> = (1..=FRAMES)
        .map(|number| numbered(number, 4).wire)
        .chain([cut])
        .flat_map(|wire| wire.bytes().to_vec())
        .collect();
    let mut got = Vec::new();
    while !got.ends_with(&expected) {
        let mut sink = [0; 4_096];
        let count = read_some(&mut peer, &mut sink);
        assert!(count > 0, "it ended after {} bytes", got.len());
        got.extend_from_slice(&sink[..count]);
        hand.turn();
    }
}

/// What a driver may still tell of a socket when its slot belongs to another one.
#[test]
fn a_late_event_of_an_old_use_of_a_slot_changes_nothing() {
    let mut core = connections();
    for late in 0..4 {
        let old = core.handle_accepted(None).expect("there is room");
        core.handle_bytes(old, &mut upgrade_request("old").into_bytes());
        core.handle_failed(old);
        while core.poll_action().is_some() {}
        let new = core.handle_accepted(None).expect("there is room");
        assert_eq!(new.slot, old.slot, "used again");
        assert!(core.handle_bytes(new, &mut upgrade_request("new").into_bytes()));
        while core.poll_event().is_some() {}
        let texts = core.counters().texts;
        match late {
            0 => assert!(!core.handle_bytes(old, &mut [0x81, 0x81, 0, 0, 0, 0, b'x']), "not read"),
            1 => core.handle_ended(old),
            2 => core.handle_failed(old),
            _ => core.handle_writable(old),
        }
        assert_eq!(core.counters().texts, texts);
        assert_eq!(core.counters().connections, 1, "the new one lives: {late}");
        assert!(core.poll_event().is_none() && core.poll_action().is_none());
        core.handle_failed(new);
        while core.poll_action().is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_used_again_gets_nothing_of_its_predecessor() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let mut before: Option<ConnId> = None;
        for _ in 0..200 {
            let browser = connect(gateway.addr, "/api/ws", true).await;
            let conn = gateway.upgraded().await;
            if let Some(before) = before {
                assert_eq!(conn.slot, before.slot, "used again");
                assert_ne!(conn.generation, before.generation);
                gateway.command(0, Command::Reply { conn: before, frames: vec![wire("ghost")], settled: 1 });
            }
            let mut browser = browser;
            gateway.open(conn, &[]);
            assert_eq!(text(&mut browser).await, "hello");
            gateway.command(0, Command::Reply { conn, frames: vec![wire("mine")], settled: 0 });
            assert_eq!(text(&mut browser).await, "mine");
            // A reset, with something on its way.
            SockRef::from(browser.get_ref()).set_linger(Some(Duration::ZERO)).expect("a socket");
            gateway.command(0, Command::Reply { conn, frames: vec![wire("late")], settled: 0 });
            drop(browser);
            while !matches!(gateway.event().await, Event::Closed { .. }) {}
            before = Some(conn);
        }
        let mut last = gateway.browser(false, &[]).await.0;
        gateway
            .command(0, Command::Close { conn: before.expect("some"), code: CloseCode::Banned, reason: "" });
        futures::SinkExt::close(&mut last).await.expect("closed");
        assert_eq!(close_code(&mut last).await, None);
        gateway.until("each ghost counted", |counters| counters.stale >= 200).await;
    })
    .await;
}
