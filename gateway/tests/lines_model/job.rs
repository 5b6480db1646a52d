//! The log path as the model has it: one job that brings every frame, unless the gateway has
//! told it, some time ago, that it does not want the room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use corecast_gateway::core::interest::{Interest, InterestLimits, Teller};
use corecast_gateway::core::lines::types::Arrival;
use corecast_proto::ids::{Position, RoomId};
use corecast_proto::push;
use rand::RngExt;
use rand::rngs::StdRng;

pub(crate) struct Job {
    /// What the gateway wants.
    pub(crate) interest: Interest,
    teller: Teller,
    // On its way to job, in order, with the time of its arrival.
    back: VecDeque<(u64, push::Interest)>,
    // What job knows.
    rooms: BTreeSet<RoomId>,
    complete: bool,
    // Frames it left out end here.
    heads: BTreeMap<RoomId, Position>,
    told: Vec<(u64, RoomId, Position)>,
    /// Frames left out.
    pub(crate) left_out: u64,
}

impl Job {
    pub(crate) fn new(rng: &mut StdRng) -> Self {
        // Small, so that it overflows and falls behind.
        let limits = InterestLimits {
            rooms: rng.random_range(4..12),
            changes: rng.random_range(1..12),
            message_rooms: rng.random_range(1..4),
        };
        Self {
            interest: Interest::new(limits),
            teller: Teller::default(),
            back: VecDeque::new(),
            rooms: BTreeSet::new(),
            complete: false,
            heads: BTreeMap::new(),
            told: Vec::new(),
            left_out: 0,
        }
    }

    /// Does it send this frame?
    pub(crate) fn sends(&mut self, arrival: &Arrival) -> bool {
        let Arrival { room_id, epoch, frame } = arrival;
        if !self.complete || room_id.is_global() || self.rooms.contains(room_id) {
            return true;
        }
        let at = Position { epoch: *epoch, seq: frame.last };
        let head = self.heads.entry(room_id.clone()).or_default();
        *head = (*head).max(at);
        self.left_out += 1;
        false
    }

    /// The stream ends, and a new one begins.
    pub(crate) fn lose_stream(&mut self) {
        self.teller = Teller::default();
        self.back.clear();
        self.told.clear();
        self.rooms.clear();
        self.complete = false;
    }

    /// Both sides of the stream go on; answers what job told that arrives now.
    pub(crate) fn go_on(&mut self, is_ready: bool, now_ms: u64, rng: &mut StdRng) -> Vec<(RoomId, Position)> {
        if is_ready
            && rng.random_bool(0.7)
            && let Some(told) = self.interest.poll_tell(&mut self.teller)
        {
            let earliest = self.back.back().map_or(now_ms, |(due, _)| *due);
            self.back.push_back((earliest.max(now_ms + rng.random_range(0..60)), told));
        }
        while self.back.front().is_some_and(|(due, _)| *due <= now_ms) {
            let Some((_, told)) = self.back.pop_front() else { break };
            self.handle(told, now_ms + rng.random_range(0..60));
        }
        let mut arrived = Vec::new();
        self.told.retain(|(due, room_id, at)| {
            let due = *due <= now_ms;
            if due {
                arrived.push((room_id.clone(), *at));
            }
            !due
        });
        arrived
    }

    fn handle(&mut self, told: push::Interest, answer_at_ms: u64) {
        if told.restart {
            self.rooms.clear();
            self.complete = false;
        }
        for room_id in told.rooms.iter().map(|room| RoomId::from(room.as_str())) {
            if self.rooms.insert(room_id.clone())
                && self.complete
                && let Some(at) = self.heads.get(&room_id)
            {
                self.told.push((answer_at_ms, room_id, *at));
            }
        }
        self.rooms.retain(|room_id| told.gone.iter().all(|gone| gone != room_id.as_str()));
        self.complete |= told.complete;
    }
}
