//! All windows and all duties together: the one state of a job, and the one lock of the
//! shell. Here it is kept that an offset is done only when every gateway that was owed a
//! record at or below it has acked, or its duty has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use corecast_backends::log::Token;
use corecast_backends::registry::Node;
use corecast_proto::push;

use super::Time;
use super::duty::{AckBeyond, Lane, Limits, Planned, Taken, Transmit, Verdict};
use super::interest::Heads;
use super::window::{Ticket, Window};

/// Names a lane; never used again, so that a task of a gateway that left cannot meddle with
/// its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u64);

/// The state of a job.
///
/// Order of calls for a record: [`insert`](Self::insert), then either
/// [`offer`](Self::offer) or, for poison, [`release`](Self::release) once it lies in the
/// dead letters. For a lane: as [`Lane`] says.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    windows: Vec<Window>,
    lanes: BTreeMap<LaneId, (Node, Lane)>,
    lanes_made: u64,
    heads: Heads,
}

impl Ledger {
    /// One window per consumer, no gateway yet.
    pub fn new(limits: Limits, consumers: usize, records_max: usize, bytes_max: usize) -> Self {
        let windows = (0..consumers).map(|consumer| Window::new(consumer, records_max, bytes_max)).collect();
        Self { limits, windows, lanes: BTreeMap::new(), lanes_made: 0, heads: Heads::default() }
    }

    /// The registry's answer. Gateways that are new get a lane and are owed what is planned
    /// from now on; those that vanished are offered nothing more. Answers the new lanes.
    pub fn handle_gateways(&mut self, nodes: &[Node]) -> Vec<(LaneId, Node)> {
        for (node, lane) in self.lanes.values_mut() {
            let listed = nodes.iter().rev().find(|listed| listed.id == node.id);
            if let Some(listed) = listed {
                node.grpc_addr.clone_from(&listed.grpc_addr);
            }
            lane.handle_listed(listed.is_some());
        }
        let mut fresh = Vec::new();
        for node in nodes {
            if self.lanes.values().any(|(known, _)| known.id == node.id) {
                continue;
            }
            self.lanes_made += 1;
            let id = LaneId(self.lanes_made);
            self.lanes.insert(id, (node.clone(), Lane::new(self.limits)));
            fresh.push((id, node.clone()));
        }
        fresh
    }

    /// Where to connect to. `None`: the lane is over, its task ends.
    pub fn address(&self, id: LaneId) -> Option<&str> {
        self.lanes.get(&id).map(|(node, _)| node.grpc_addr.as_str())
    }

    /// Removes a lane that left the registry and owes nothing. True: its task ends.
    pub fn retire(&mut self, id: LaneId) -> bool {
        if self.lanes.get(&id).is_some_and(|(_, lane)| lane.is_over()) {
            self.lanes.remove(&id);
        }
        !self.lanes.contains_key(&id)
    }

    /// How many records this consumer may read now; 0: none, something is full.
    pub fn room(&self, consumer: usize) -> usize {
        if self.lanes.values().any(|(_, lane)| lane.is_full()) { 0 } else { self.windows[consumer].room() }
    }

    /// A record was read; its reader holds it. `None`: it is in flight or done already.
    pub fn insert(&mut self, consumer: usize, token: Token, bytes: usize, now: Time) -> Option<Ticket> {
        self.windows[consumer].insert(token, bytes, now)
    }

    /// Offers a push to every gateway that wants it and ends the reader's hold. True: an
    /// offset became safe (nobody is owed this one).
    pub fn offer(&mut self, ticket: Ticket, push: &Arc<Planned>, now: Time) -> bool {
        let window = &mut self.windows[ticket.consumer];
        let mut left_out = false;
        for (_, lane) in self.lanes.values_mut() {
            if !lane.wants(&push.push) {
                left_out = true;
            } else if lane.offer(push, ticket, now) {
                window.hold(ticket);
            }
        }
        if left_out {
            self.heads.note(&push.push);
        }
        window.release(ticket)
    }

    /// Ends one hold. True: an offset became safe.
    pub fn release(&mut self, ticket: Ticket) -> bool {
        self.windows[ticket.consumer].release(ticket)
    }

    /// The next offset to record as done.
    pub fn poll_done(&mut self, consumer: usize) -> Option<Token> {
        self.windows[consumer].poll_done()
    }

    /// The partitions went to another consumer.
    pub fn handle_revoked(&mut self, consumer: usize, partitions: &[i32]) {
        self.windows[consumer].revoke(partitions);
    }

    /// A stream is up.
    pub fn handle_welcome(&mut self, id: LaneId, incarnation: u64) {
        let released = self.lanes.get_mut(&id).map(|(_, lane)| lane.handle_welcome(incarnation));
        self.release_all(released.unwrap_or_default());
    }

    /// A gateway tells which rooms it wants.
    pub fn handle_interest(&mut self, id: LaneId, told: push::Interest) {
        if let Some((_, lane)) = self.lanes.get_mut(&id) {
            lane.handle_interest(told, &self.heads);
        }
    }

    /// The next batch for this gateway's stream.
    pub fn poll_transmit(&mut self, id: LaneId, now: Time) -> Option<Transmit> {
        self.lanes.get_mut(&id)?.1.poll_transmit(now)
    }

    /// An ack; answers how long each acked push took.
    ///
    /// # Errors
    /// [`AckBeyond`]: give the stream up.
    pub fn handle_ack(&mut self, id: LaneId, batch: u64, now: Time) -> Result<Vec<Time>, AckBeyond> {
        let Some((_, lane)) = self.lanes.get_mut(&id) else { return Ok(Vec::new()) };
        let Taken { released, waits } = lane.handle_ack(batch, now)?;
        self.release_all(released);
        Ok(waits)
    }

    /// The stream ended. True: the duty ended with it.
    pub fn handle_stream_lost(&mut self, id: LaneId, now: Time) -> bool {
        let Some((_, lane)) = self.lanes.get_mut(&id) else { return false };
        let (released, lapsed) = lane.handle_stream_lost(now);
        self.release_all(released);
        lapsed
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self, id: LaneId) -> Option<Time> {
        self.lanes.get(&id)?.1.poll_timeout()
    }

    /// Time has passed for this gateway.
    pub fn handle_timeout(&mut self, id: LaneId, now: Time) -> Verdict {
        let Some((_, lane)) = self.lanes.get_mut(&id) else { return Verdict::Keep };
        let (released, verdict) = lane.handle_timeout(now);
        self.release_all(released);
        verdict
    }

    /// Records and bytes in flight, all consumers together.
    pub fn in_flight(&self) -> (usize, usize) {
        self.windows.iter().map(Window::in_flight).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// When the oldest record in flight was read.
    pub fn oldest(&self) -> Option<Time> {
        self.windows.iter().filter_map(Window::oldest).min()
    }

    /// Each gateway's node and lane.
    pub fn lanes(&self) -> impl Iterator<Item = (&Node, &Lane)> {
        self.lanes.values().map(|(node, lane)| (node, lane))
    }

    fn release_all(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            self.windows[ticket.consumer].release(ticket);
        }
    }
}
