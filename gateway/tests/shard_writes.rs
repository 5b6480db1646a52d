//! Setup: sockets that take little: in memory, cut at every byte; real ones with the
//! smallest buffers the kernel has; sends of more parts than one system call takes; slots
//! that are used again at once.
//! Claim: what a peer reads is what was queued for it, byte for byte, wherever a send ended,
//! whichever way it went; and never what was meant for who had the slot before.
//! Why it matters: a short send that counts as whole is a silent loss.

mod core_support;
mod shard_support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use core_support::{connections, frame, upgrade_request};
use corecast_gateway::config::Limits;
use corecast_gateway::core::{Command, ConnId, Event, RoomFrame, Session, Wire};
use corecast_gateway::shard::driver::Driver;
use corecast_gateway::shard::driver::epoll::Epoll;
use corecast_gateway::shard::driver::memory::{Faults, Memory};
use corecast_gateway::shard::turn::Shard;
use corecast_gateway::shard::{Mailbox, Metrics};
use corecast_proto::close::CloseCode;
use corecast_proto::ids::Position;
use shard_support::{PATIENCE, close_code, connect, on_each_host, text, wire};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A shard that the test turns, with its control side.
struct ByHand<D> {
    shard: Shard<D>,
    mailbox: Mailbox,
    events: UnboundedReceiver<Event>,
}

impl<D: Driver> ByHand<D> {
    fn new(driver: D) -> Self {
        let (mailbox, inbox) = Mailbox::new(4_096, usize::MAX, driver.waker());
        let (sender, events) = unbounded_channel();
        let metrics = Arc::new(Metrics::new("test", driver.name()));
        let shard = Shard::new(0, driver, connections(), inbox, sender, metrics);
        Self { shard, mailbox, events }
    }

    fn command(&self, command: Command) {
        assert!(self.mailbox.offer(command).is_ok());
    }

    fn turn(&mut self) -> bool {
        self.shard.turn(0).expect("the driver works")
    }

    fn turn_until_calm(&mut self) {
        while self.turn() {}
    }

    fn open_next(&mut self) -> ConnId {
        loop {
            self.turn();
            if let Ok(Event::Upgraded { conn, .. }) = self.events.try_recv() {
                let session =
                    Arc::new(Session { sid: "s".into(), user_id: "u".into(), username: "ann".into() });
                let frames = vec![Wire::text(b"hello")];
                self.command(Command::Open { conn, session, frames, rooms: Vec::new() });
                self.turn_until_calm();
                return conn;
            }
        }
    }
}

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
    let mut hand = ByHand::new(Memory::new(1, Faults::default()));
    let peer = hand.shard.driver_mut().connect();
    hand.shard.driver_mut().send(peer, upgrade_request("s").as_bytes());
    let conn = hand.open_next();
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
    let mut hand = ByHand::new(Epoll::new(listener.into(), 0).expect("a driver"));
    let mut peer = TcpStream::connect(addr).expect("connected");
    peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let mut request = upgrade_request("s");
    request.insert_str(request.len() - 2, "Sec-WebSocket-Protocol: corecast.v1\r\n");
    peer.write_all(request.as_bytes()).expect("sent");
    hand.open_next();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_used_again_gets_nothing_of_its_predecessor() {
    on_each_host(Limits::default(), 1, async |mut gateway| {
        let mut before: Option<ConnId> = None;
        for _ in 0..200 {
            let browser = connect(gateway.addr, "/api/ws", false).await;
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
