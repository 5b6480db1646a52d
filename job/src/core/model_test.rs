//! Random histories of the ledger against a naive model: gateways come, hang, break their
//! streams, restart and leave, tell which rooms they want, partitions are revoked, time
//! passes. Checked after each step: no offset is done while a duty that is alive has not acked
//! it; a stream gets everything it is owed once and in order, and nothing it does not want; who
//! asks for a room late learns how far it went; a duty ends neither early nor late. Checked at the end: everything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use corecast_backends::log::Token;
use corecast_backends::registry::Node;
use corecast_proto::push::{Interest, Push, RoomPush, push::Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Time;
use super::duty::{Limits, Planned, SENDS_MAX, Standing, Verdict};
use super::ledger::{LaneId, Ledger};

type Place = (i32, i64);

const DUTY: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(5);
const SEEDS: u64 = 400;
const STEPS: usize = 400;
const REPLAY: &str = "JOB_MODEL_SEED";

/// What the model knows of a gateway.
#[derive(Default)]
struct Gateway {
    lane: Option<LaneId>,
    listed: bool,
    incarnation: u64,
    streaming: bool,
    /// In order. Those of a probation are not owed, but count as unacked after it.
    unacked: Vec<Unacked>,
    /// Batches of this stream that were not acked yet.
    /// Id, pushes, when.
    batches: Vec<(u64, usize, Time)>,
    /// Of `unacked`, how many were sent on this stream.
    sent: usize,
    /// Rooms told, on this stream.
    told: BTreeSet<String>,
    /// All of them were told.
    complete: bool,
}

struct Unacked {
    /// `None`: how long a room is.
    place: Option<Place>,
    owed: bool,
    since: Option<Time>,
    sends: u8,
}

struct World {
    ledger: Ledger,
    now: Time,
    gateways: BTreeMap<String, Gateway>,
    /// Read, per partition, and the last that was done.
    planned: BTreeMap<i32, Vec<i64>>,
    done: BTreeMap<i32, i64>,
    next_offset: i64,
    /// Where each room of which something was left out ends.
    heads: BTreeMap<String, u64>,
}

#[test]
fn no_offset_is_done_before_every_live_duty_acked_it_and_all_are_in_the_end() {
    let seeds = match std::env::var(REPLAY) {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("a seed");
            seed..=seed
        }
        Err(_) => 0..=SEEDS - 1,
    };
    for seed in seeds {
        let _tell = OnPanic(seed);
        run(seed);
    }
}

struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}; replay: {REPLAY}={0} cargo test -p corecast-job no_offset_is_done", self.0);
        }
    }
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let limits = Limits {
        duty: DUTY,
        deadline: DEADLINE,
        batch_pushes: random.random_range(1..5),
        batch_bytes: 40,
        lane_pushes: 16,
        lane_bytes: 1_000,
    };
    let mut world = World {
        ledger: Ledger::new(limits, 1, 20, 1_000),
        now: Time::ZERO,
        gateways: (0..3).map(|n| (format!("gw-{n}"), Gateway::default())).collect(),
        planned: BTreeMap::new(),
        done: BTreeMap::new(),
        next_offset: 0,
        heads: BTreeMap::new(),
    };
    for _ in 0..STEPS {
        world.step(&mut random);
        world.check();
    }
    // Nobody acks any more: what can be sent is, and every duty ends by itself.
    for _ in 0..50 {
        for gateway in ["gw-0", "gw-1", "gw-2"] {
            world.transmit(gateway);
        }
        world.pass(Duration::from_secs(1));
        world.check();
    }
    assert_eq!(world.ledger.in_flight(), (0, 0));
    for (partition, offsets) in &world.planned {
        assert_eq!(offsets.last(), world.done.get(partition), "partition {partition}");
    }
}

impl World {
    fn step(&mut self, random: &mut StdRng) {
        let name = format!("gw-{}", random.random_range(0..3));
        match random.random_range(0..100) {
            0..35 => self.plan(random),
            35..55 => self.transmit(&name),
            55..75 => self.ack(&name, random),
            75..82 => self.pass(Duration::from_millis(random.random_range(1..4_000))),
            82..88 => self.welcome(&name, random.random_range(0..4) == 0),
            88..91 => self.lose_stream(&name),
            91..94 => self.list(&name),
            94..96 => self.revoke(random.random_range(0..2)),
            96..99 => self.tell(&name, random),
            _ => self.pass(Duration::from_millis(1)),
        }
    }

    fn plan(&mut self, random: &mut StdRng) {
        if self.ledger.room(0) == 0 {
            return;
        }
        self.next_offset += random.random_range(1..4);
        let (partition, offset) = (random.random_range(0..2), self.next_offset);
        let bytes = random.random_range(1..30);
        let ticket = self.ledger.insert(0, Token { partition, offset }, bytes, self.now).expect("new");
        self.planned.entry(partition).or_default().push(offset);
        let names: Vec<String> = self.gateways.keys().cloned().collect();
        let before: Vec<_> = names.iter().map(|name| self.standing(name)).collect();
        let room = room(random.random_range(0..3));
        let target = Some(Target::Room(RoomPush { room_id: room.clone() }));
        let first_seq = offset.unsigned_abs();
        let push = Push { target, partition, offset, first_seq, count: 1, ..Default::default() };
        self.ledger.offer(ticket, &Arc::new(Planned { push, bytes }), self.now);
        for (name, before) in names.iter().zip(before) {
            let after = self.standing(name);
            let gateway = self.gateways.get_mut(name).expect("known");
            let left_out = gateway.complete && !gateway.told.contains(&room);
            let Some((standing, waiting)) = before.filter(|_| gateway.listed || gateway.streaming) else {
                continue;
            };
            let owed = standing == Standing::Owed;
            let taken = after.is_some_and(|(_, now_waiting)| now_waiting > waiting);
            if left_out {
                assert!(!taken, "{name} does not want {room}");
                self.heads.insert(room.clone(), first_seq);
                continue;
            }
            assert!(taken || !owed, "{name} is owed {partition}:{offset} and was not offered it");
            if taken {
                let since = (!gateway.streaming).then_some(self.now);
                gateway.unacked.push(Unacked { place: Some((partition, offset)), owed, since, sends: 0 });
            }
        }
    }

    fn standing(&self, name: &str) -> Option<(Standing, usize)> {
        self.ledger
            .lanes()
            .find(|(node, _)| node.id == name)
            .map(|(_, lane)| (lane.standing(), lane.unacked()))
    }

    fn transmit(&mut self, name: &str) {
        let gateway = self.gateways.get_mut(name).expect("known");
        let Some(lane) = gateway.lane else { return };
        let Some(batch) = self.ledger.poll_transmit(lane, self.now) else { return };
        assert!(gateway.streaming, "sent without a stream");
        let pushes = batch.pushes.len();
        for (planned, unacked) in batch.pushes.iter().zip(&mut gateway.unacked[gateway.sent..]) {
            let Push { target, partition, offset, .. } = &planned.push;
            let place = (!matches!(target, Some(Target::Head(_)))).then_some((*partition, *offset));
            assert_eq!(place, unacked.place, "once on one stream, and in order");
            unacked.since.get_or_insert(self.now);
            unacked.sends += 1;
        }
        gateway.sent += pushes;
        assert!(gateway.sent <= gateway.unacked.len(), "more than was offered");
        gateway.batches.push((batch.id, pushes, self.now));
    }

    fn ack(&mut self, name: &str, random: &mut StdRng) {
        let gateway = self.gateways.get_mut(name).expect("known");
        let Some(lane) = gateway.lane.filter(|_| gateway.streaming && !gateway.batches.is_empty()) else {
            return;
        };
        let count = random.random_range(1..=gateway.batches.len());
        let acked: Vec<_> = gateway.batches.drain(..count).collect();
        let id = acked.last().expect("at least one").0;
        let pushes: usize = acked.iter().map(|(_, pushes, _)| pushes).sum();
        gateway.unacked.drain(..pushes);
        gateway.sent -= pushes;
        self.ledger.handle_ack(lane, id, self.now).expect("sent");
    }

    fn welcome(&mut self, name: &str, restarted: bool) {
        let gateway = self.gateways.get_mut(name).expect("known");
        let Some(lane) = gateway.lane.filter(|_| !gateway.streaming) else { return };
        if restarted && gateway.incarnation > 0 {
            gateway.unacked.clear();
        }
        gateway.incarnation += u64::from(restarted || gateway.incarnation == 0);
        gateway.streaming = true;
        self.ledger.handle_welcome(lane, gateway.incarnation);
    }

    fn lose_stream(&mut self, name: &str) {
        let probation = self.standing(name).is_some_and(|(standing, _)| standing == Standing::Probation);
        let gateway = self.gateways.get_mut(name).expect("known");
        let Some(lane) = gateway.lane.filter(|_| gateway.streaming) else { return };
        gateway.streaming = false;
        gateway.batches.clear();
        gateway.sent = 0;
        gateway.told.clear();
        gateway.complete = false;
        if probation {
            gateway.unacked.clear();
        }
        let lapsed = self.ledger.handle_stream_lost(lane, self.now);
        assert_eq!(
            lapsed,
            gateway.unacked.first().is_some_and(|push| push.sends >= SENDS_MAX),
            "three sends"
        );
        if lapsed {
            gateway.unacked.clear();
        }
        for push in &mut gateway.unacked {
            push.since.get_or_insert(self.now);
        }
    }

    /// Rooms it wants now, rooms it does not want any more, or all from the beginning.
    fn tell(&mut self, name: &str, random: &mut StdRng) {
        let before = self.standing(name);
        let gateway = self.gateways.get_mut(name).expect("known");
        let (Some(lane), Some((standing, waiting))) = (gateway.lane, before) else { return };
        if !gateway.streaming {
            return;
        }
        let restart = random.random_range(0..4) == 0;
        if restart {
            gateway.told.clear();
            gateway.complete = false;
        }
        let chosen = |random: &mut StdRng| random.random_range(0..3) == 0;
        let (mut rooms, mut gone) = (Vec::new(), Vec::new());
        for room in (0..3).map(room) {
            match (chosen(random), chosen(random)) {
                (true, _) => rooms.push(room),
                (false, true) => gone.push(room),
                _ => {}
            }
        }
        let late = |room: &&String| gateway.complete && !gateway.told.contains(*room);
        let heads = rooms.iter().filter(late).filter(|room| self.heads.contains_key(*room)).count();
        gateway.told.extend(rooms.iter().cloned());
        gateway.told.retain(|room| !gone.contains(room));
        let complete = chosen(random);
        gateway.complete |= complete;
        self.ledger.handle_interest(lane, Interest { restart, rooms, gone, complete });
        let after = self.standing(name).expect("still there").1;
        let told = if standing == Standing::Lapsed { 0 } else { heads.min(16_usize.saturating_sub(waiting)) };
        assert!(after == waiting + told || after < waiting + told && self.is_heavy(name), "{name}: heads");
        let head = || Unacked { place: None, owed: false, since: None, sends: 0 };
        let gateway = self.gateways.get_mut(name).expect("known");
        gateway.unacked.extend((waiting..after).map(|_| head()));
    }

    /// Near its bound of bytes.
    fn is_heavy(&self, name: &str) -> bool {
        self.standing(name).is_some_and(|(_, waiting)| waiting * 30 + 100 >= 1_000)
    }

    /// The gateway enters or leaves the registry.
    fn list(&mut self, name: &str) {
        let gateway = self.gateways.get_mut(name).expect("known");
        gateway.listed = !gateway.listed;
        let node = |id: &String| Node { id: id.clone(), grpc_addr: String::new() };
        let nodes: Vec<Node> =
            self.gateways.iter().filter(|(_, gateway)| gateway.listed).map(|(id, _)| node(id)).collect();
        for (lane, node) in self.ledger.handle_gateways(&nodes) {
            *self.gateways.get_mut(&node.id).expect("known") =
                Gateway { lane: Some(lane), listed: true, ..Default::default() };
        }
        for gateway in self.gateways.values_mut() {
            if gateway.lane.is_some_and(|lane| self.ledger.retire(lane)) {
                assert!(gateway.unacked.is_empty(), "retired while it is owed something");
                assert!(!gateway.streaming, "retired while its stream lives");
                *gateway = Gateway::default();
            }
        }
    }

    fn revoke(&mut self, partition: i32) {
        self.ledger.handle_revoked(0, &[partition]);
        self.planned.remove(&partition);
        self.done.remove(&partition);
    }

    fn pass(&mut self, by: Duration) {
        self.now += by;
        let names: Vec<String> = self.gateways.keys().cloned().collect();
        for name in names {
            let owed = self.standing(&name).is_some_and(|(standing, _)| standing == Standing::Owed);
            let gateway = self.gateways.get_mut(&name).expect("known");
            let Some(lane) = gateway.lane else { continue };
            let oldest = gateway.unacked.first().filter(|_| owed).and_then(|push| push.since);
            let due = oldest.is_some_and(|since| self.now >= since + DUTY);
            let late = gateway.batches.first().is_some_and(|batch| self.now >= batch.2 + DEADLINE);
            let verdict = self.ledger.handle_timeout(lane, self.now);
            let expected = match (due, late) {
                (true, _) => Verdict::Lapsed,
                (false, true) => Verdict::Reconnect,
                (false, false) => Verdict::Keep,
            };
            assert_eq!(verdict, expected, "{name}: a duty ends neither early nor late");
            if verdict == Verdict::Lapsed {
                gateway.unacked.clear();
            }
            if verdict != Verdict::Keep {
                self.lose_stream(&name);
            }
        }
    }

    fn check(&mut self) {
        while let Some(Token { partition, offset }) = self.ledger.poll_done(0) {
            let planned = self.planned.get(&partition).is_some_and(|offsets| offsets.contains(&offset));
            assert!(planned, "an offset nobody read, or of a revoked partition");
            let before = self.done.insert(partition, offset);
            assert!(before.is_none_or(|before| before < offset), "a safe offset only grows");
        }
        for (name, gateway) in &self.gateways {
            let owed = gateway.unacked.iter().filter(|push| push.owed);
            for (partition, offset) in owed.filter_map(|push| push.place.as_ref()) {
                let done = self.done.get(partition).is_some_and(|done| done >= offset);
                let live = self.planned.get(partition).is_some_and(|offsets| offsets.contains(offset));
                assert!(!(done && live), "{partition}:{offset} is done, {name} has not acked it");
            }
        }
    }
}

fn room(number: u32) -> String {
    format!("room-{number}")
}
