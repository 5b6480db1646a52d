//! Everything around the lines: time, chance, and answers that take a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use corecast_gateway::core::lines::Lines;
use corecast_gateway::core::lines::types::{
    Action, Arrival, HeadsFor, LinesLimits, Placed, Placement, PlacementKind, RangeFor, SnapshotFor,
};
use corecast_gateway::core::sequencer::{Ask, LineLimits};
use corecast_gateway::core::{ConnId, Session, Wire};
use corecast_proto::ids::{GLOBAL, Position, RoomId};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::cores::{Conn, CoreModel, Said};
use super::job::Job;
use super::logic::Logic;

// A read on its way: logic answers at once or later, from the state it then has.
enum Read {
    Range(RoomId, Ask, RangeFor),
    Heads(Vec<RoomId>, HeadsFor),
    Defaults,
    Snapshot(RoomId, SnapshotFor),
}

pub(crate) struct World {
    rng: StdRng,
    now_ms: u64,
    lines: Lines,
    logic: Logic,
    cores: Vec<CoreModel>,
    paths: Vec<(u64, Arrival)>,
    job: Job,
    reads: Vec<Read>,
    tickets: BTreeMap<u64, Vec<(RoomId, u64, u64)>>,
    next_ticket: u64,
    next_conn: u32,
    next_placement: u64,
    // With their rooms.
    placing: BTreeMap<u64, Vec<RoomId>>,
    logic_away: bool,
    calm: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let limits = LinesLimits {
            line: LineLimits {
                ring_frames: rng.random_range(2..20),
                ring_bytes: 1 << 16,
                held_frames: rng.random_range(1..6),
                held_bytes: 1 << 16,
                hole_ms: 50,
            },
            tail_check_ms: 200,
            close_after_ms: 300,
            gap_messages: 200,
            page_bytes: 200,
            elsewhere_max: 64,
            ..LinesLimits::default()
        };
        let cores = (0..2).map(|_| CoreModel::new(rng.random_range(1..12))).collect();
        Self {
            lines: Lines::new(2, limits, 0),
            job: Job::new(&mut rng),
            rng,
            now_ms: 0,
            logic: Logic::new(),
            cores,
            paths: Vec::new(),
            reads: Vec::new(),
            tickets: BTreeMap::new(),
            next_ticket: 1,
            next_conn: 0,
            next_placement: 1,
            placing: BTreeMap::new(),
            logic_away: false,
            calm: false,
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        self.now_ms += self.rng.random_range(0..30);
        match self.rng.random_range(0..100) {
            0..25 => self.commit(),
            25..28 => self.create(),
            28..38 => self.connect(),
            38..46 => self.join(),
            46..50 => self.leave(),
            50..54 => self.disconnect(),
            54..60 => self.demote(),
            60..70 => self.drain(),
            70..71 => self.logic.new_epoch(),
            71..73 => self.logic_away = !self.logic_away,
            73..75 => {
                self.job.lose_stream();
                self.lines.handle_interrupted(self.now_ms);
            }
            _ => {}
        }
        self.go_on();
    }

    /// No more disturbances: everybody becomes complete.
    pub(crate) fn settle(&mut self) {
        self.logic_away = false;
        self.calm = true;
        for core in &mut self.cores {
            core.capacity = 1_000;
        }
        for _ in 0..400 {
            self.now_ms += 20;
            self.drain();
            self.go_on();
        }
        for (number, core) in self.cores.iter().enumerate() {
            for conn in core.conns.iter().filter(|conn| conn.open) {
                for (room_id, seen) in &conn.rooms {
                    let head = self.logic.rooms[room_id].at;
                    let at =
                        if room_id.is_global() { Position { epoch: head.epoch, ..seen.at } } else { seen.at };
                    assert_eq!(at, head, "core {number}, {:?} in {room_id} is not complete", conn.id);
                    assert!(!seen.demoted, "core {number}, {:?} in {room_id} is still behind", conn.id);
                }
                let defaults = self.logic.rooms.iter().filter(|(_, room)| room.everyone && room.at.seq > 0);
                for (room_id, _) in defaults {
                    assert!(conn.rooms.contains_key(room_id), "{:?} never heard of {room_id}", conn.id);
                }
            }
        }
        assert!(self.tickets.is_empty(), "frames that were never recorded: {:?}", self.tickets);
        assert!(self.placing.is_empty(), "placements without an end: {:?}", self.placing);
        assert_eq!(self.lines.counters().alarms, 0);
    }

    /// Frames that job did not send.
    pub(crate) fn left_out(&self) -> u64 {
        self.job.left_out
    }

    fn go_on(&mut self) {
        let heads = self.job.go_on(self.lines.is_ready(), self.now_ms, &mut self.rng);
        if !heads.is_empty() {
            self.lines.handle_told_heads(heads, self.now_ms);
            self.carry_out();
        }
        self.arrive();
        self.answer();
        for core in 0..self.cores.len() {
            let turns = if self.calm { 50 } else { self.rng.random_range(0..4) };
            for _ in 0..turns {
                for said in self.cores[core].turn() {
                    match said {
                        Said::Stale { conn, opened, rooms } => {
                            self.lines.handle_stale(conn, opened, &rooms, self.now_ms);
                        }
                        Said::Closed { conn } => self.lines.handle_closed(conn, true, self.now_ms),
                    }
                }
            }
        }
        if self.lines.poll_timeout(self.now_ms) <= self.now_ms {
            self.lines.handle_timeout(self.now_ms);
        }
        self.carry_out();
        for room_id in self.lines.rooms_with_members().chain(self.lines.default_rooms()) {
            assert!(self.job.interest.contains(room_id), "{room_id} has members and is not wanted");
        }
    }

    fn commit(&mut self) {
        let rooms: Vec<RoomId> = self.logic.rooms.keys().filter(|id| !id.is_global()).cloned().collect();
        let room_id = rooms.choose(&mut self.rng).expect("rooms").clone();
        let count = if self.rng.random_range(0..60) == 0 { 300 } else { self.rng.random_range(1..5) };
        let arrival = self.logic.commit(&room_id, count);
        self.send(arrival);
    }

    fn create(&mut self) {
        let arrival =
            if self.logic.rooms.len() > 9 { return } else { self.logic.create(self.rng.random_bool(0.6)) };
        self.send(arrival);
    }

    // The log brings what is wanted, though late; the fast path may lose it, or bring it twice.
    fn send(&mut self, arrival: Arrival) {
        let by_log = self.job.sends(&arrival) && self.rng.random_bool(0.9);
        for copy in 0..3 {
            let comes = if copy == 0 { by_log } else { self.rng.random_bool(0.4) };
            if comes {
                let late = if self.rng.random_bool(0.7) { 0 } else { self.rng.random_range(0..300) };
                self.paths.push((self.now_ms + late, arrival.clone()));
            }
        }
    }

    fn arrive(&mut self) {
        let now_ms = self.now_ms;
        let mut due: Vec<Arrival> = Vec::new();
        self.paths.retain(|(at, arrival)| {
            let arrives = *at <= now_ms;
            if arrives {
                due.push(arrival.clone());
            }
            !arrives
        });
        if due.is_empty() {
            return;
        }
        let ticket = self.rng.random_bool(0.5).then(|| {
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            let list = due.iter().map(|a| (a.room_id.clone(), a.epoch, a.frame.last)).collect();
            self.tickets.insert(ticket, list);
            ticket
        });
        self.lines.handle_frames(due, ticket, now_ms);
        self.carry_out();
    }

    fn answer(&mut self) {
        let mut index = 0;
        while index < self.reads.len() {
            if !self.calm && self.rng.random_bool(0.5) {
                index += 1;
                continue;
            }
            let read = self.reads.swap_remove(index);
            self.answer_one(read);
            self.carry_out();
        }
    }

    fn answer_one(&mut self, read: Read) {
        let now_ms = self.now_ms;
        let away = self.logic_away;
        match read {
            Read::Range(room_id, ask, why) if away => {
                self.lines.handle_range_failed(&room_id, why, ask, now_ms)
            }
            Read::Range(room_id, ask, why) => {
                let answer = self.logic.range(&room_id, ask, &mut self.rng);
                self.lines.handle_range(&room_id, why, ask, answer, now_ms);
            }
            Read::Heads(rooms, why) => {
                let heads = (!away).then(|| {
                    let mut heads: Vec<_> = rooms.iter().filter_map(|id| self.logic.head(id)).collect();
                    if matches!(why, HeadsFor::Tails(_)) {
                        let others = self.logic.defaults().into_iter();
                        heads.extend(others.filter(|head| !rooms.contains(&head.room_id)));
                    }
                    heads
                });
                self.lines.handle_heads(&rooms, why, heads, now_ms);
            }
            Read::Defaults => self.lines.handle_defaults((!away).then(|| self.logic.defaults()), now_ms),
            Read::Snapshot(room_id, why) => {
                let answer = if away { Err(()) } else { Ok(Some(self.logic.cut(&room_id))) };
                self.lines.handle_snapshot(&room_id, why, answer, now_ms);
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.lines.poll_action() {
            match action {
                Action::Send { core, command, placement } => {
                    if self.cores[core].mailbox.len() >= self.cores[core].capacity {
                        self.lines.refused(core, command, placement, self.now_ms);
                    } else {
                        self.cores[core].mailbox.push_back(command);
                        if let Some(placement) = placement {
                            self.end_placing(placement.id);
                        }
                    }
                }
                Action::Range { room_id, ask, why } => {
                    assert!(ask.after < ask.up_to, "an empty read of {room_id}: {ask:?} {why:?}");
                    self.reads.push(Read::Range(room_id, ask, why));
                }
                Action::Heads { rooms, why } => self.reads.push(Read::Heads(rooms, why)),
                Action::Defaults => self.reads.push(Read::Defaults),
                Action::Snapshot { room_id, why } => self.reads.push(Read::Snapshot(room_id, why)),
                Action::Recorded(ticket) => self.recorded(ticket),
                Action::Failed { placement, outcome } => self.failed(*placement, outcome),
                Action::Watch { room_id, on } => self.job.interest.handle_line(&room_id, on),
            }
        }
    }

    // An ack hands over responsibility: the line of a room with members knows the head.
    fn recorded(&mut self, ticket: u64) {
        let list = self.tickets.remove(&ticket).expect("recorded once");
        for (room_id, epoch, last) in list {
            if let Some((at, head)) = self.lines.line(&room_id) {
                assert!(epoch != at.epoch || head >= last, "{room_id}: acked {last}, the line knows {head}");
            }
        }
    }

    fn failed(&mut self, placement: Placement, outcome: Placed) {
        self.end_placing(placement.id);
        let id = placement.conn;
        let there = self.cores[usize::from(id.shard)].conn(id).is_some();
        assert!(there || outcome != Placed::Stale || placement.deadline_ms > self.now_ms);
        if there && outcome != Placed::Gone {
            match placement.kind {
                PlacementKind::Open { .. } => self.open(id),
                _ => self.join_room(id, placement.rooms[0].room_id.clone()),
            }
        }
    }

    fn end_placing(&mut self, id: u64) {
        let rooms = self.placing.remove(&id).expect("a placement ends once");
        rooms.iter().for_each(|room_id| self.job.interest.end_join(room_id));
    }

    fn connect(&mut self) {
        if self.logic_away || self.cores.iter().map(|core| core.conns.len()).sum::<usize>() > 12 {
            return;
        }
        let shard = self.rng.random_range(0..self.cores.len()) as u16;
        let id = ConnId { shard, slot: self.next_conn, generation: 0 };
        self.next_conn += 1;
        self.cores[usize::from(shard)].conns.push(Conn { id, open: false, rooms: BTreeMap::new() });
        self.open(id);
    }

    // A hello of the default rooms, perhaps with one more room of a resume list.
    fn open(&mut self, conn: ConnId) {
        let mut rooms: Vec<RoomId> = self
            .logic
            .rooms
            .iter()
            .filter(|(id, room)| room.everyone && !id.is_global())
            .map(|(id, _)| id.clone())
            .collect();
        if self.rng.random_bool(0.3) {
            rooms.push(RoomId::from("p1"));
        }
        let global = self.logic.rooms[GLOBAL].at;
        let mut reply = vec![at_wire(&RoomId::from(GLOBAL), global)];
        reply.extend(rooms.iter().map(|id| at_wire(id, self.logic.rooms[id].at)));
        let session = Arc::new(Session::new("s", "u", "n"));
        self.place(conn, reply, rooms, PlacementKind::Open { session, global });
    }

    fn place(&mut self, conn: ConnId, reply: Vec<Wire>, rooms: Vec<RoomId>, kind: PlacementKind) {
        let id = self.next_placement;
        self.next_placement += 1;
        rooms.iter().for_each(|room_id| self.job.interest.begin_join(room_id));
        self.placing.insert(id, rooms.clone());
        let rooms = rooms.iter().map(|id| self.logic.snapshot(id)).collect();
        let placement = Placement { id, conn, reply, kind, rooms, deadline_ms: self.now_ms + 5_000 };
        self.lines.place(placement, self.now_ms);
        self.carry_out();
    }

    fn join(&mut self) {
        let public: Vec<RoomId> =
            self.logic.rooms.iter().filter(|(_, room)| !room.everyone).map(|(id, _)| id.clone()).collect();
        let room_id = public.choose(&mut self.rng).expect("seeded").clone();
        if let Some(conn) = self.any_open() {
            self.join_room(conn, room_id);
        }
    }

    fn join_room(&mut self, conn: ConnId, room_id: RoomId) {
        if self.logic_away || self.lines.is_member(conn, &room_id) {
            return;
        }
        let reply = vec![at_wire(&room_id, self.logic.rooms[&room_id].at)];
        self.place(conn, reply, vec![room_id], PlacementKind::Join);
    }

    fn leave(&mut self) {
        let Some(conn) = self.any_open() else { return };
        let core = usize::from(conn.shard);
        let rooms: Vec<RoomId> = self.cores[core].conn(conn).expect("open").rooms.keys().cloned().collect();
        if let Some(room_id) = rooms.iter().find(|id| !self.logic.rooms[*id].everyone) {
            self.lines.handle_leave(conn, room_id, self.now_ms);
            self.carry_out();
        }
    }

    fn disconnect(&mut self) {
        let core = self.rng.random_range(0..self.cores.len());
        if self.cores[core].conns.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.cores[core].conns.len());
        let conn = self.cores[core].conns.swap_remove(index);
        self.lines.handle_closed(conn.id, conn.open, self.now_ms);
        self.carry_out();
    }

    fn demote(&mut self) {
        let Some(id) = self.any_open() else { return };
        let conn = self.cores[usize::from(id.shard)].conn(id).expect("open");
        let rooms: Vec<RoomId> = conn.rooms.keys().cloned().collect();
        if let Some(room_id) = rooms.choose(&mut self.rng) {
            conn.rooms.get_mut(room_id).expect("listed").demoted = true;
        }
    }

    // Demoted connections whose socket has drained ask.
    fn drain(&mut self) {
        let mut asks = Vec::new();
        for core in &mut self.cores {
            for conn in core.conns.iter_mut().filter(|conn| conn.open) {
                for (room_id, seen) in &mut conn.rooms {
                    if seen.demoted && !seen.asked && (self.calm || self.rng.random_bool(0.5)) {
                        seen.asked = true;
                        asks.push((conn.id, room_id.clone(), seen.at));
                    }
                }
            }
        }
        for (conn, room_id, at) in asks {
            let too_long = !self.calm && self.rng.random_bool(0.1);
            self.lines.handle_lagging(conn, &room_id, at, too_long, self.now_ms);
            self.carry_out();
        }
    }

    fn any_open(&mut self) -> Option<ConnId> {
        let open: Vec<ConnId> = self
            .cores
            .iter()
            .flat_map(|core| core.conns.iter().filter(|conn| conn.open).map(|conn| conn.id))
            .collect();
        open.choose(&mut self.rng).copied()
    }
}

fn at_wire(room_id: &RoomId, at: Position) -> Wire {
    Wire::text(format!("at {room_id} {} {}", at.epoch, at.seq).as_bytes())
}
