//! A shard that the test turns by itself, at a time it chooses, and that plays its control side.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;

use corecast_gateway::config::Limits;
use corecast_gateway::core::connections::{Connections, Places};
use corecast_gateway::core::counters::Counters;
use corecast_gateway::core::handshake::Rules;
use corecast_gateway::core::{Command, ConnId, Event, Joined, Session, Wire};
use corecast_gateway::shard::driver::Driver;
use corecast_gateway::shard::driver::memory::{Faults, Memory};
use corecast_gateway::shard::turn::Shard;
use corecast_gateway::shard::{Mailbox, Metrics};
use corecast_proto::ids::Position;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A shard that the test turns, with its control side.
pub(crate) struct ByHand<D> {
    pub(crate) shard: Shard<D>,
    pub(crate) mailbox: Mailbox,
    pub(crate) events: UnboundedReceiver<Event>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) now_ms: u64,
}

impl<D: Driver> ByHand<D> {
    pub(crate) fn new(driver: D, limits: Limits) -> Self {
        let (mailbox, inbox) = Mailbox::new(4_096, usize::MAX, driver.waker());
        let (sender, events) = unbounded_channel();
        let metrics = Arc::new(Metrics::new("test", driver.name()));
        // The echo path is a connection like any other, with nobody behind it.
        let core = Connections::new(0, limits, Rules::new(&[], true), Places::new(0), 0);
        let shard = Shard::new(0, driver, core, inbox, sender, metrics.clone());
        Self { shard, mailbox, events, metrics, now_ms: 0 }
    }

    pub(crate) fn command(&self, command: Command) {
        assert!(self.mailbox.offer(command).is_ok());
    }

    pub(crate) fn turn(&mut self) -> bool {
        self.shard.turn(self.now_ms).expect("the driver works")
    }

    pub(crate) fn turn_until_calm(&mut self) {
        while self.turn() {}
    }

    /// The time is `now_ms`, and everything that follows from that is done.
    pub(crate) fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.turn_until_calm();
    }

    pub(crate) fn counters(&mut self) -> Counters {
        self.shard.publish();
        self.metrics.snapshot()
    }

    /// What the shard tells next, if anything.
    pub(crate) fn event(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// The next peer that upgrades gets a hello and becomes a member of `rooms`.
    pub(crate) fn open_next(&mut self, rooms: &[String]) -> ConnId {
        loop {
            self.turn();
            if let Some(Event::Upgraded { conn, .. }) = self.event() {
                let session = Arc::new(Session::new("s", "u", "ann"));
                let at = Position { epoch: 1, seq: 0 };
                let rooms = rooms.iter().map(|room| Joined { room_id: room.as_str().into(), at }).collect();
                self.command(Command::Open { conn, session, frames: vec![Wire::text(b"hello")], rooms });
                self.turn_until_calm();
                return conn;
            }
        }
    }
}

impl ByHand<Memory> {
    /// A shard without a kernel and without faults.
    pub(crate) fn in_memory(limits: Limits) -> Self {
        Self::new(Memory::new(1, Faults::default()), limits)
    }

    /// Somebody connects, upgrades and opens; what it was sent so far is read.
    pub(crate) fn browser(&mut self, v1: bool, rooms: &[String]) -> (usize, ConnId) {
        let peer = self.connect("/api/ws", v1);
        let conn = self.open_next(rooms);
        self.shard.driver_mut().take(peer);
        (peer, conn)
    }

    /// Somebody connects and asks for an upgrade.
    pub(crate) fn connect(&mut self, path: &str, v1: bool) -> usize {
        let peer = self.shard.driver_mut().connect();
        let protocol = if v1 { "Sec-WebSocket-Protocol: corecast.v1\r\n" } else { "" };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\r\n"
        );
        self.shard.driver_mut().send(peer, request.as_bytes());
        peer
    }

    /// The peer sends, and everything that follows from it is done.
    pub(crate) fn send(&mut self, peer: usize, bytes: &[u8]) {
        self.shard.driver_mut().send(peer, bytes);
        self.turn_until_calm();
    }

    /// The peer reads `bytes` more, `usize::MAX`: everything from now on.
    pub(crate) fn read(&mut self, peer: usize, bytes: usize) -> Vec<u8> {
        self.shard.driver_mut().set_room(peer, bytes);
        self.turn_until_calm();
        self.shard.driver_mut().take(peer)
    }
}

/// A masked frame of a client; `first` is opcode, FIN and reserved bits.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Whole frames at the front of a stream: opcode and payload each. What is left is a part.
pub(crate) fn frames(stream: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((frame, length)) = first_frame(stream) {
        all.push(frame);
        stream.drain(..length);
    }
    all
}

fn first_frame(stream: &[u8]) -> Option<((u8, Vec<u8>), usize)> {
    let (head, length) = match *stream.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(stream.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(stream.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    let payload = stream.get(head..head + length)?;
    Some(((stream[0] & 0x0F, payload.to_vec()), head + length))
}
