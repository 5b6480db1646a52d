//! Setup: one shard on the in-memory driver, with short, full and late sockets; a model of
//! the control side that owns the lines, answers opens, joins and pages when it likes and
//! talks to connections that are long gone; clients that check every byte.
//! Claim: each connection gets exactly its rooms' frames, in order, whole, once, without a
//! hole unless it was cut, whatever is joined, left, closed, stalled or demoted meanwhile;
//! and every membership that began is reported to have ended.
//! Why it matters: this is invariant 3 of the design, at the place where it is easiest to break.
//!
//! `SEED=n cargo test -p corecast-gateway --test shard_model` replays one sequence,
//! `SEEDS=n` runs the first n.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use corecast_gateway::config::Limits;
use corecast_gateway::core::connections::{Connections, Places};
use corecast_gateway::core::handshake::Rules;
use corecast_gateway::core::{Command, ConnId, Event, Joined, Page, RoomFrame, Session, Target, Wire};
use corecast_gateway::shard::driver::memory::{Faults, Memory};
use corecast_gateway::shard::mailbox::{Mailbox, Waker};
use corecast_gateway::shard::metrics::Metrics;
use corecast_gateway::shard::turn::Shard;
use corecast_proto::close::CloseCode;
use corecast_proto::ids::{Position, RoomId};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const DEFAULTS: [&str; 3] = ["d0", "d1", "global"];
const PUBLICS: [&str; 4] = ["p0", "p1", "p2", "p3"];
const STEPS: u64 = 600;
const SEEDS: u64 = 200;

/// A line as control keeps it: every frame it ever had.
#[derive(Default)]
struct Line {
    at: Position,
    frames: Vec<(Position, u64, Wire)>,
}

/// A client and what it believes.
struct Client {
    peer: usize,
    v1: bool,
    stream: Vec<u8>,
    upgraded: bool,
    rooms: BTreeMap<String, Position>,
    lagging: BTreeMap<String, u64>,
    /// The stream ended, with this code if a close frame came.
    closed: Option<u16>,
    gone: bool,
    sent: u64,
    answered: u64,
}

struct World {
    random: u64,
    shard: Shard<Memory>,
    metrics: Arc<Metrics>,
    mailbox: Mailbox,
    events: UnboundedReceiver<Event>,
    now_ms: u64,
    lines: BTreeMap<&'static str, Line>,
    clients: Vec<Client>,
    /// Connections that were upgraded and are not closed; open ones have a client's marks.
    conns: HashMap<ConnId, Conn>,
    old: Vec<ConnId>,
    /// Answers that control has not given yet.
    verifying: Vec<ConnId>,
    asked: Vec<(ConnId, RoomId, Position, bool)>,
    texts: Vec<ConnId>,
    /// Memberships queued minus those reported to have ended; default rooms as one.
    memberships: BTreeMap<String, i64>,
    global_cuts: u64,
}

#[derive(Default)]
struct Conn {
    open: bool,
    rooms: Vec<&'static str>,
}

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("replay: SEED={seed} cargo test -p corecast-gateway --test shard_model");
        }
    }
}

#[test]
fn each_connection_gets_its_rooms_frames_once_in_order_without_holes() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("SEED is a number");
            seed..seed + 1
        }
        Err(_) => {
            let seeds = std::env::var("SEEDS").map_or(SEEDS, |count| count.parse().expect("a number"));
            1..seeds + 1
        }
    };
    let mut demoted = 0;
    let mut cuts = 0;
    let mut short = 0;
    let single = seeds.end - seeds.start == 1;
    for seed in seeds {
        let _print = PrintSeed(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        let counters = world.metrics.snapshot();
        demoted += counters.demoted;
        cuts += counters.cuts;
        short += counters.writes_short;
        world.close_all();
    }
    if !single {
        // The sequences reach what they are for.
        assert!(demoted > 100 && cuts > 50 && short > 1_000, "{demoted} {cuts} {short}");
    }
}

impl World {
    fn new(seed: u64) -> Self {
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

    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % end.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }

    fn command(&mut self, command: Command) {
        assert!(self.mailbox.offer(command).is_ok(), "the mailbox is large enough");
    }

    fn step(&mut self) {
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

    fn connect(&mut self) {
        let peer = self.shard.driver_mut().connect();
        let v1 = self.below(3) > 0;
        let protocol = if v1 { "Sec-WebSocket-Protocol: corecast.v1\r\n" } else { "" };
        let request = format!(
            "GET /api/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}\
             Cookie: sid=c{peer}\r\n\r\n"
        );
        self.shard.driver_mut().send(peer, request.as_bytes());
        self.clients.push(Client {
            peer,
            v1,
            stream: Vec::new(),
            upgraded: false,
            rooms: BTreeMap::new(),
            lagging: BTreeMap::new(),
            closed: None,
            gone: false,
            sent: 0,
            answered: 0,
        });
    }

    /// One mailbox command with some frames.
    fn push(&mut self) {
        let mut frames = Vec::new();
        for _ in 0..1 + self.below(4) {
            let room = self.room();
            let (count, padding) = (1 + self.below(3) as u64, self.below(120));
            let line = self.lines.get_mut(room).expect("known");
            let (first, last) = (line.at.seq + 1, line.at.seq + count);
            let epoch = line.at.epoch;
            let text = format!("m {room} {epoch} {first} {last} {}", "x".repeat(padding));
            let wire = Wire::text(text.as_bytes());
            line.at.seq = last;
            line.frames.push((line.at, first, wire.clone()));
            let everyone = DEFAULTS.contains(&room);
            frames.push(RoomFrame { room_id: room.into(), everyone, epoch, first, last, wire });
        }
        self.command(Command::Frames(frames));
    }

    fn room(&mut self) -> &'static str {
        let all: Vec<&str> = DEFAULTS.iter().chain(&PUBLICS).copied().collect();
        self.pick(&all).expect("there are rooms")
    }

    fn cut(&mut self) {
        let room = self.room();
        let line = self.lines.get_mut(room).expect("known");
        line.at.epoch += 1;
        let at = line.at;
        let is_global = room == "global";
        self.global_cuts += u64::from(is_global);
        let wire = (!is_global).then(|| cut_wire(room, at));
        let everyone = DEFAULTS.contains(&room);
        self.command(Command::Cut { room_id: room.into(), everyone, at, wire });
    }

    fn open_conns(&self) -> Vec<ConnId> {
        let mut open: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.open).map(|(id, _)| *id).collect();
        open.sort();
        open
    }

    fn join(&mut self) {
        let open = self.open_conns();
        let Some(conn) = self.pick(&open) else { return };
        let room = self.pick(&PUBLICS).expect("there are rooms");
        let at = self.lines[room].at;
        let known = self.conns.get_mut(&conn).expect("open");
        if known.rooms.contains(&room) {
            // As control sees it; the shard reports the second one as never begun.
            if self.below(4) > 0 {
                return;
            }
        } else {
            known.rooms.push(room);
        }
        *self.memberships.entry(room.to_owned()).or_default() += 1;
        let frames = vec![Wire::text(format!("joined {room} {} {}", at.epoch, at.seq).as_bytes())];
        self.command(Command::Join { conn, frames, room: Joined { room_id: room.into(), at } });
    }

    fn leave(&mut self) {
        let open = self.open_conns();
        let Some(conn) = self.pick(&open) else { return };
        let room = self.pick(&PUBLICS).expect("there are rooms");
        self.conns.get_mut(&conn).expect("open").rooms.retain(|joined| *joined != room);
        self.command(Command::Leave { conn, room_id: room.into() });
        let left = Wire::text(format!("left {room}").as_bytes());
        self.command(Command::Reply { conn, frames: vec![left], settled: 0 });
    }

    fn unnumbered(&mut self) {
        let target = match self.below(4) {
            0 => Target::All { per_second: 0 },
            1 => Target::All { per_second: 50 },
            2 => Target::Room(self.room().into()),
            _ => Target::Users(Arc::from([Arc::from("u0"), Arc::from("u1")])),
        };
        self.command(Command::Push { target, wire: Wire::text(b"u") });
    }

    fn stall(&mut self) {
        let live: Vec<usize> = self.clients.iter().filter(|c| !c.gone).map(|c| c.peer).collect();
        let Some(peer) = self.pick(&live) else { return };
        let room = match self.below(4) {
            0 => 0,
            1 => self.below(700),
            _ => usize::MAX,
        };
        self.shard.driver_mut().set_room(peer, room);
    }

    fn lose(&mut self) {
        let live: Vec<usize> = self.clients.iter().filter(|c| !c.gone).map(|c| c.peer).collect();
        let Some(peer) = self.pick(&live) else { return };
        if self.below(2) == 0 {
            self.shard.driver_mut().break_off(peer);
        } else {
            self.shard.driver_mut().end(peer);
        }
        self.client(peer).gone = true;
    }

    fn close_one(&mut self) {
        let open = self.open_conns();
        let Some(conn) = self.pick(&open) else { return };
        if self.below(2) == 0 {
            self.command(Command::Close { conn, code: CloseCode::Banned, reason: "test" });
        } else {
            self.command(Command::CloseSession { sid: format!("c{}", conn.slot).into() });
        }
    }

    /// Late commands of generations that have passed.
    fn talk_to_the_dead(&mut self) {
        let old = std::mem::take(&mut self.old);
        let conn = self.pick(&old);
        self.old = old;
        let Some(conn) = conn else { return };
        let room = self.pick(&PUBLICS).expect("there are rooms");
        let at = self.lines[room].at;
        let wire = Wire::text(b"ghost");
        let command = match self.below(6) {
            0 => Command::Reply { conn, frames: vec![wire], settled: 3 },
            1 => Command::Close { conn, code: CloseCode::Internal, reason: "ghost" },
            2 => Command::Leave { conn, room_id: room.into() },
            3 => Command::Page {
                conn,
                room_id: room.into(),
                page: Page::Frames { frames: vec![(at.seq, wire)], reached: at.seq },
            },
            4 => {
                *self.memberships.entry(room.to_owned()).or_default() += 1;
                let room = Joined { room_id: room.into(), at };
                Command::Join { conn, frames: vec![wire], room }
            }
            _ => {
                *self.memberships.entry(String::new()).or_default() += 1;
                Command::Open { conn, session: session(0), frames: vec![wire], rooms: Vec::new() }
            }
        };
        self.command(command);
    }

    /// Clients send some texts.
    fn say(&mut self) {
        let live: Vec<usize> =
            self.clients.iter().filter(|c| !c.gone && c.upgraded).map(|c| c.peer).collect();
        let Some(peer) = self.pick(&live) else { return };
        for _ in 0..1 + self.below(4) {
            let client = self.client(peer);
            client.sent += 1;
            let text = format!("t{}", client.sent);
            self.shard.driver_mut().send(peer, &masked(0x1, text.as_bytes()));
        }
    }

    /// Control gives one of the answers it owes.
    fn answer(&mut self) {
        match self.below(3) {
            0 if !self.verifying.is_empty() => {
                let index = self.below(self.verifying.len());
                let conn = self.verifying.swap_remove(index);
                self.open(conn);
            }
            1 if !self.asked.is_empty() => {
                let index = self.below(self.asked.len());
                let (conn, room_id, reached, v1) = self.asked.swap_remove(index);
                self.page(conn, room_id, reached, v1);
            }
            _ if !self.texts.is_empty() => {
                // In order per connection, as control works them off.
                let conn = self.texts.remove(0);
                self.command(Command::Reply { conn, frames: vec![Wire::text(b"r")], settled: 1 });
            }
            _ => {}
        }
    }

    /// A hello at some earlier place, the frames after it, and some rooms of a resume list.
    fn open(&mut self, conn: ConnId) {
        let mut hello = "hello".to_owned();
        let mut behind = Vec::new();
        let mut rooms = Vec::new();
        for (room, line) in &self.lines {
            let public = PUBLICS.contains(room);
            if public && !(conn.slot as usize + line.frames.len()).is_multiple_of(3) {
                continue;
            }
            let mut from = line.frames.len();
            while from > 0 && line.frames.len() - from < 3 && line.frames[from - 1].0.epoch == line.at.epoch {
                from -= 1;
            }
            let seq = line.frames.get(from).map_or(line.at.seq, |(_, first, _)| first - 1);
            hello.push_str(&format!(" {room}={}:{seq}", line.at.epoch));
            behind.extend(line.frames[from..].iter().map(|(_, _, wire)| wire.clone()));
            if public {
                rooms.push((*room, line.at));
            }
        }
        let mut frames = vec![Wire::text(hello.as_bytes())];
        frames.extend(behind);
        *self.memberships.entry(String::new()).or_default() += 1;
        for (room, _) in &rooms {
            *self.memberships.entry((*room).to_owned()).or_default() += 1;
        }
        if let Some(known) = self.conns.get_mut(&conn) {
            known.open = true;
            known.rooms = rooms.iter().map(|(room, _)| *room).collect();
        }
        let rooms = rooms.into_iter().map(|(room, at)| Joined { room_id: room.into(), at }).collect();
        self.command(Command::Open { conn, session: session(conn.slot), frames, rooms });
    }

    fn page(&mut self, conn: ConnId, room_id: RoomId, reached: Position, _v1: bool) {
        let how = self.below(6);
        let line = &self.lines[room_id.as_str()];
        let at = line.at;
        assert!(reached <= at, "{room_id}: asked from {reached:?}, the line stands at {at:?}");
        let page = if reached.epoch != at.epoch {
            Page::Cut { at, wire: cut_wire(room_id.as_str(), at) }
        } else {
            let missed: Vec<(u64, Wire)> = line
                .frames
                .iter()
                .filter(|(last, _, _)| last.seq > reached.seq)
                .map(|(last, _, wire)| (last.seq, wire.clone()))
                .collect();
            match how {
                0 => Page::TryLater,
                1 if room_id.as_str() != "global" => Page::Cut { at, wire: cut_wire(room_id.as_str(), at) },
                2 => {
                    let part = missed[..missed.len().div_ceil(2)].to_vec();
                    let reached = part.last().map_or(reached.seq, |(last, _)| *last);
                    Page::Frames { frames: part, reached }
                }
                _ => Page::Frames { frames: missed, reached: at.seq },
            }
        };
        self.command(Command::Page { conn, room_id, page });
    }

    fn turn(&mut self) -> bool {
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
    fn check_end(&mut self, index: usize) {
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

    fn drain_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Upgraded { conn, .. } => {
                    assert!(self.conns.insert(conn, Conn::default()).is_none());
                    self.verifying.push(conn);
                }
                Event::Text { conn, .. } => self.texts.push(conn),
                Event::Lagging { conn, room_id, reached, v1 } => {
                    assert!(self.asked.iter().all(|(asked, ..)| *asked != conn), "one question at a time");
                    self.asked.push((conn, room_id, reached, v1));
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

    fn ended(&mut self, room: &str) {
        *self.memberships.entry(room.to_owned()).or_default() -= 1;
    }

    fn client(&mut self, peer: usize) -> &mut Client {
        self.clients.iter_mut().find(|client| client.peer == peer).expect("known")
    }

    /// The network heals and control owes nothing: everybody must have everything.
    fn settle(&mut self) {
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
    fn close_all(&mut self) {
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

impl Client {
    /// Takes whole frames off the stream and checks each.
    fn parse(&mut self) {
        if !self.upgraded {
            let Some(end) = self.stream.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            assert!(self.stream.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&self.stream));
            self.stream.drain(..end + 4);
            self.upgraded = true;
        }
        while let Some((opcode, payload, length)) = frame(&self.stream) {
            assert!(self.closed.is_none(), "client {}: a frame after the close", self.peer);
            match opcode {
                0x1 => self.handle_text(std::str::from_utf8(&payload).expect("text")),
                0x8 => self.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                0x9 => {}
                other => panic!("opcode {other}"),
            }
            self.stream.drain(..length);
        }
    }

    fn handle_text(&mut self, text: &str) {
        let peer = self.peer;
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("number");
        match words[0] {
            "hello" => {
                assert!(self.rooms.is_empty(), "client {peer}: one hello");
                for room in &words[1..] {
                    let (name, at) = room.split_once('=').expect("room=epoch:seq");
                    let (epoch, seq) = at.split_once(':').expect("epoch:seq");
                    let number = |text: &str| text.parse::<u64>().expect("number");
                    let at = Position { epoch: number(epoch), seq: number(seq) };
                    self.rooms.insert(name.to_owned(), at);
                }
            }
            "m" => {
                let (room, epoch, first, last) = (words[1], number(2), number(3), number(4));
                let v1 = self.v1;
                let at = self.rooms.get_mut(room).unwrap_or_else(|| panic!("client {peer} is not in {room}"));
                let expected = Position { epoch, seq: first - 1 };
                assert_eq!(*at, expected, "client {peer} (v1 {v1}) in {room} got {first}..={last}");
                at.seq = last;
            }
            "joined" => {
                let at = Position { epoch: number(2), seq: number(3) };
                let before = self.rooms.insert(words[1].to_owned(), at);
                // A second join of a member: the reply must not jump over what it lacks.
                if let Some(before) = before
                    && !self.lagging.contains_key(words[1])
                    && self.v1
                {
                    assert_eq!(before, at, "client {peer} in {}", words[1]);
                } else if let Some(before) = before {
                    self.rooms.insert(words[1].to_owned(), before);
                }
            }
            "left" => {
                self.rooms.remove(words[1]);
                self.lagging.remove(words[1]);
            }
            "cut" => {
                assert!(self.v1, "client {peer} does not know cut");
                let at = Position { epoch: number(2), seq: number(3) };
                let before = self.rooms.insert(words[1].to_owned(), at);
                assert!(before.is_some_and(|before| before <= at), "client {peer}: {before:?} cut to {at:?}");
            }
            "u" => {}
            "r" => self.answered += 1,
            "ghost" => panic!("client {peer} got a frame for another connection"),
            json => self.handle_notice(json),
        }
    }

    fn handle_notice(&mut self, json: &str) {
        let notice: serde_json::Value = serde_json::from_str(json).expect("a notice of the shard");
        let room = notice["payload"]["roomId"].as_str().expect("room").to_owned();
        let seq = notice["payload"]["seq"].as_u64().expect("seq");
        assert!(self.v1 && room != "global", "client {} does not know {json}", self.peer);
        assert_eq!(self.rooms.get(&room).map(|at| at.seq), Some(seq), "client {} told {json}", self.peer);
        match notice["type"].as_str() {
            Some("lagging") => assert!(self.lagging.insert(room, seq).is_none(), "told twice: {json}"),
            Some("caughtUp") => assert!(self.lagging.remove(&room).is_some(), "it did not lag: {json}"),
            _ => panic!("{json}"),
        }
    }
}

fn session(slot: u32) -> Arc<Session> {
    let (sid, user_id) = (format!("c{slot}").into(), format!("u{}", slot % 3).into());
    Arc::new(Session { sid, user_id, username: "name".into() })
}

fn cut_wire(room: &str, at: Position) -> Wire {
    Wire::text(format!("cut {room} {} {}", at.epoch, at.seq).as_bytes())
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Opcode, payload and whole length of the first frame, if it is complete.
fn frame(stream: &[u8]) -> Option<(u8, Vec<u8>, usize)> {
    let (head, length) = match *stream.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(stream.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(stream.get(2..10)?.try_into().ok()?) as usize),
        short => (2, usize::from(short)),
    };
    assert_eq!(stream[0] & 0xF0, 0x80, "whole frames");
    let payload = stream.get(head..head + length)?;
    Some((stream[0] & 0x0F, payload.to_vec(), head + length))
}
