//! The shard, everybody around it, and what must hold at each moment and at the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corecast_gateway::config::Limits;
use corecast_gateway::core::connections::{Connections, Places};
use corecast_gateway::core::counters::Counters;
use corecast_gateway::core::handshake::Rules;
use corecast_gateway::core::{Command, ConnId, Event};
use corecast_gateway::shard::driver::memory::{Faults, Memory};
use corecast_gateway::shard::mailbox::{Mailbox, Waker};
use corecast_gateway::shard::metrics::Metrics;
use corecast_gateway::shard::turn::Shard;
use corecast_proto::ids::{Position, RoomId};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::client::Client;
use super::control::Line;

pub(crate) const DEFAULTS: [&str; 3] = ["d0", "d1", "global"];
pub(crate) const PUBLICS: [&str; 4] = ["p0", "p1", "p2", "p3"];

pub(crate) struct World {
    pub(crate) random: u64,
    pub(crate) shard: Shard<Memory>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) mailbox: Mailbox,
    pub(crate) events: UnboundedReceiver<Event>,
    pub(crate) now_ms: u64,
    pub(crate) lines: BTreeMap<&'static str, Line>,
    pub(crate) clients: Vec<Client>,
    /// Connections that were upgraded and are not closed; open ones have a client's marks.
    pub(crate) conns: HashMap<ConnId, Conn>,
    pub(crate) old: Vec<ConnId>,
    /// Answers that control has not given yet.
    pub(crate) verifying: Vec<ConnId>,
    pub(crate) asked: Vec<(ConnId, RoomId, Position)>,
    pub(crate) texts: Vec<ConnId>,
    /// Memberships queued minus those reported to have ended; default rooms as one.
    pub(crate) memberships: BTreeMap<String, i64>,
    pub(crate) global_cuts: u64,
}

#[derive(Default)]
pub(crate) struct Conn {
    pub(crate) open: bool,
    pub(crate) rooms: Vec<&'static str>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let limits = Limits {
            push_soft_bytes: 400,
            push_hard_bytes: 1_500,
            requests_in_flight: 2,
            ..Limits::default()
        };
        let faults = Faults { short: 10, full: 5, late: 30 };
        let (sender, events) = unbounded_channel();
        let (mailbox, inbox) = Mailbox::new(100_000, usize::MAX, Waker::none());
        let metrics = Arc::new(Metrics::new("test", "memory"));
        let mut core = Connections::new(0, limits, Rules::new(&[], false), Places::new(12), 0);
        // What is sent must not depend on how many sends it takes.
        core.set_send_per_room(seed.is_multiple_of(4));
        let shard = Shard::new(0, Memory::new(seed, faults), core, inbox, sender, metrics.clone());
        let lines = DEFAULTS.iter().chain(&PUBLICS).map(|room| (*room, Line::default())).collect();
        Self {
            random: seed.wrapping_mul(0xD134_2543_DE82_EF95) | 1,
            shard,
            metrics,
            mailbox,
            events,
            now_ms: 1,
            lines,
            clients: Vec::new(),
            conns: HashMap::new(),
            old: Vec::new(),
            verifying: Vec::new(),
            asked: Vec::new(),
            texts: Vec::new(),
            memberships: BTreeMap::new(),
            global_cuts: 0,
        }
    }

    /// The shard's numbers.
    pub(crate) fn numbers(&mut self) -> Counters {
        self.shard.publish();
        self.metrics.snapshot()
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % end.max(1)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }

    pub(crate) fn command(&mut self, command: Command) {
        assert!(self.mailbox.offer(command).is_ok(), "the mailbox is large enough");
    }

    pub(crate) fn step(&mut self) {
        match self.below(100) {
            0..=7 => self.connect(),
            8..=32 => self.push(),
            33..=34 => self.cut(),
            35..=42 => self.join(),
            43..=48 => self.leave(),
            49..=50 => self.unnumbered(),
            51..=56 => self.stall(),
            57..=58 => self.lose(),
            59 => self.close_one(),
            60..=64 => self.talk_to_the_dead(),
            65..=71 => self.say(),
            72..=79 => self.answer(),
            _ => {
                self.turn();
            }
        }
    }

    pub(crate) fn turn(&mut self) -> bool {
        self.now_ms += self.below(4) as u64;
        let busy = self.shard.turn(self.now_ms).expect("the driver works");
        self.drain_events();
        for index in 0..self.clients.len() {
            let peer = self.clients[index].peer;
            let bytes = self.shard.driver_mut().take(peer);
            self.clients[index].stream.extend_from_slice(&bytes);
            self.clients[index].parse();
            let over = self.shard.driver_mut().is_over(peer);
            if over && !self.clients[index].gone {
                self.check_end(index);
            }
        }
        busy
    }

    /// The shard ended the stream of a client that had not gone itself.
    pub(crate) fn check_end(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.gone = true;
        assert!(client.stream.is_empty(), "client {} got a part of a frame", client.peer);
        let peer = client.peer;
        match client.closed {
            Some(1012) => assert!(!client.v1 || self.global_cuts > 0, "client {peer} knows cut"),
            Some(4503 | 4501 | 1008) => {}
            Some(code) => panic!("client {peer} closed with {code}"),
            // No place: the socket was refused.
            None if client.upgraded => {
                self.shard.publish();
                panic!("client {peer} closed without a frame: {:?}", self.metrics.snapshot());
            }
            None => {}
        }
        // It answers the close, or just goes.
        self.shard.driver_mut().end(peer);
    }

    pub(crate) fn drain_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Upgraded { conn, .. } => {
                    assert!(self.conns.insert(conn, Conn::default()).is_none());
                    self.verifying.push(conn);
                }
                Event::Text { conn, .. } => self.texts.push(conn),
                Event::Lagging { conn, room_id, reached, too_long } => {
                    assert!(self.asked.iter().all(|(asked, ..)| *asked != conn), "one question at a time");
                    assert!(!too_long, "no two minutes have passed");
                    self.asked.push((conn, room_id, reached));
                }
                Event::Left { room_id, .. } => self.ended(room_id.as_str()),
                Event::Stale { opened, rooms, .. } => {
                    if opened {
                        self.ended("");
                    }
                    rooms.iter().for_each(|room| self.ended(room.as_str()));
                }
                Event::Closed { conn, session, rooms } => {
                    assert!(self.conns.remove(&conn).is_some(), "closed once, after an upgrade");
                    if session.is_some() {
                        self.ended("");
                    }
                    rooms.iter().for_each(|room| self.ended(room.as_str()));
                    self.asked.retain(|(asked, ..)| *asked != conn);
                    self.old.push(conn);
                }
                Event::Http { .. } | Event::Drained { .. } => panic!("nobody asked for that"),
            }
        }
    }

    pub(crate) fn ended(&mut self, room: &str) {
        *self.memberships.entry(room.to_owned()).or_default() -= 1;
    }

    pub(crate) fn client(&mut self, peer: usize) -> &mut Client {
        self.clients.iter_mut().find(|client| client.peer == peer).expect("known")
    }

    /// The network heals and control owes nothing: everybody must have everything.
    pub(crate) fn settle(&mut self) {
        self.shard.driver_mut().set_faults(Faults::default());
        for index in 0..self.clients.len() {
            let peer = self.clients[index].peer;
            self.shard.driver_mut().set_room(peer, usize::MAX);
        }
        let mut calm = 0;
        for _ in 0..20_000 {
            // A page that could not be had is asked for again after a second.
            self.now_ms += 10;
            for _ in 0..3 {
                self.answer();
            }
            let busy = self.turn();
            let owes = !self.verifying.is_empty() || !self.asked.is_empty() || !self.texts.is_empty();
            self.shard.publish();
            let numbers = self.metrics.snapshot();
            calm = if busy || owes || numbers.lagging > 0 || self.mailbox.depth() > 0 { 0 } else { calm + 1 };
            if calm > 5 && self.now_ms > 0 {
                break;
            }
        }
        self.shard.publish();
        let counters = self.metrics.snapshot();
        assert!(calm > 5, "it does not settle: {counters:?}, asked {:?}", self.asked);
        assert_eq!((counters.feed_bytes, counters.unsettled_bytes), (0, 0));
        for client in self.clients.iter().filter(|client| !client.gone && !client.rooms.is_empty()) {
            let peer = client.peer;
            assert!(client.stream.is_empty(), "client {peer} waits for the rest of a frame");
            assert!(client.lagging.is_empty(), "client {peer} was told that it lags in {:?}", client.lagging);
            assert_eq!(client.sent, client.answered, "client {peer} has unanswered texts");
            for (room, at) in &client.rooms {
                assert_eq!(*at, self.lines[room.as_str()].at, "client {peer} in {room}");
            }
            for room in DEFAULTS {
                assert!(client.rooms.contains_key(room), "client {peer} is a member of {room}");
            }
        }
    }

    /// Everybody goes: every membership that was queued must have been reported back.
    pub(crate) fn close_all(&mut self) {
        for index in 0..self.clients.len() {
            let peer = self.clients[index].peer;
            self.clients[index].gone = true;
            self.shard.driver_mut().break_off(peer);
        }
        for _ in 0..200 {
            self.turn();
        }
        self.shard.publish();
        let counters = self.metrics.snapshot();
        assert_eq!((counters.connections, counters.open, counters.memberships), (0, 0, 0), "{counters:?}");
        assert!(self.conns.is_empty());
        for (room, count) in &self.memberships {
            assert_eq!(*count, 0, "memberships of {room:?} begun and not ended");
        }
    }
}
