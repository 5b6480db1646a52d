//! A driver without a kernel, turned by hand: peers are queues of bytes, and sockets are
//! short, full or dead as often as a seed says. What a shard does with it is exactly
//! repeatable.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use super::{Batch, Driver, Flow, Handler, Key, Outcome, Turned};
use crate::shard::mailbox::Waker;

/// How a network misbehaves, in percent of the chances it gets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A send takes only a part.
    pub short: u64,
    /// A send takes nothing.
    pub full: u64,
    /// What is ready (room, bytes, an end) is told in a later turn.
    pub late: u64,
}

/// Sockets of one shard, and the peers at their other ends.
pub struct Memory {
    peers: Vec<Peer>,
    by_key: HashMap<Key, usize>,
    /// Peers that were not accepted yet.
    waiting: VecDeque<usize>,
    accepting: bool,
    faults: Faults,
    random: u64,
}

/// One peer and the socket it talks to.
struct Peer {
    key: Option<Key>,
    to_shard: VecDeque<u8>,
    from_shard: Vec<u8>,
    /// Bytes the socket takes before it is full.
    room: usize,
    wants_write: bool,
    paused: bool,
    /// The peer sends nothing more.
    ended: bool,
    ended_told: bool,
    /// The connection broke.
    broken: bool,
    broken_told: bool,
    /// The shard sends nothing more.
    shut: bool,
    /// The shard closed it, or never took it.
    closed: bool,
}

impl Memory {
    /// No peers. Equal seeds make equal faults.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            peers: Vec::new(),
            by_key: HashMap::new(),
            waiting: VecDeque::new(),
            accepting: true,
            faults,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        }
    }

    /// A peer connects; it is accepted by the next turn. Its socket takes everything.
    pub fn connect(&mut self) -> usize {
        self.peers.push(Peer {
            key: None,
            to_shard: VecDeque::new(),
            from_shard: Vec::new(),
            room: usize::MAX,
            wants_write: false,
            paused: false,
            ended: false,
            ended_told: false,
            broken: false,
            broken_told: false,
            shut: false,
            closed: !self.accepting,
        });
        let peer = self.peers.len() - 1;
        if self.accepting {
            self.waiting.push_back(peer);
        }
        peer
    }

    /// The peer sends bytes.
    pub fn send(&mut self, peer: usize, bytes: &[u8]) {
        self.peers[peer].to_shard.extend(bytes);
    }

    /// What the shard sent since the last call.
    pub fn take(&mut self, peer: usize) -> Vec<u8> {
        std::mem::take(&mut self.peers[peer].from_shard)
    }

    /// The peer's socket takes so many bytes from now on, `usize::MAX`: everything.
    pub fn set_room(&mut self, peer: usize, room: usize) {
        self.peers[peer].room = room;
    }

    /// The peer ends its side.
    pub fn end(&mut self, peer: usize) {
        self.peers[peer].ended = true;
    }

    /// The connection breaks.
    pub fn break_off(&mut self, peer: usize) {
        self.peers[peer].broken = true;
    }

    /// The shard has ended the stream or closed the socket.
    pub fn is_over(&self, peer: usize) -> bool {
        self.peers[peer].shut || self.peers[peer].closed
    }

    /// The shard has closed the socket.
    pub fn is_closed(&self, peer: usize) -> bool {
        self.peers[peer].closed
    }

    /// Faults from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end.max(1)
    }

    fn peer(&mut self, key: Key) -> Option<&mut Peer> {
        let peer = *self.by_key.get(&key)?;
        Some(&mut self.peers[peer])
    }

    fn accept(&mut self, handler: &mut impl Handler) -> bool {
        let Some(peer) = self.waiting.pop_front() else { return false };
        match handler.accepted(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))) {
            Some(key) => {
                assert!(
                    self.by_key.keys().all(|open| open.slot != key.slot),
                    "slot {} used while its socket is open",
                    key.slot
                );
                self.peers[peer].key = Some(key);
                self.by_key.insert(key, peer);
            }
            None => self.peers[peer].closed = true,
        }
        true
    }

    fn turn_peer(&mut self, index: usize, read: bool, handler: &mut impl Handler) -> bool {
        let Some(key) = self.peers[index].key else { return false };
        let late = self.faults.late;
        let mut busy = false;
        if self.peers[index].broken && !self.peers[index].broken_told && !self.chance(late) {
            self.peers[index].broken_told = true;
            handler.failed(key);
            return true;
        }
        if self.peers[index].wants_write && self.peers[index].room > 0 && !self.chance(late) {
            self.peers[index].wants_write = false;
            handler.writable(key);
            busy = true;
        }
        if !read || self.peers[index].paused || self.chance(late) {
            return busy;
        }
        let waiting = self.peers[index].to_shard.len();
        if waiting > 0 {
            let count = if late > 0 { 1 + self.below(waiting as u64) as usize } else { waiting };
            let mut bytes: Vec<u8> = self.peers[index].to_shard.drain(..count).collect();
            self.peers[index].paused = handler.received(key, &mut bytes) == Flow::Pause;
            return true;
        }
        if self.peers[index].ended && !self.peers[index].ended_told {
            self.peers[index].ended_told = true;
            handler.ended(key);
            return true;
        }
        busy
    }
}

impl Driver for Memory {
    fn turn(&mut self, _now_ms: u64, read: bool, handler: &mut impl Handler) -> io::Result<Turned> {
        let mut busy = self.accept(handler);
        for index in 0..self.peers.len() {
            busy |= self.turn_peer(index, read, handler);
        }
        Ok(Turned { busy, more: false })
    }

    fn send_batch(&mut self, batch: &Batch, failures: &mut Vec<(usize, Outcome)>) {
        let mut seen = std::collections::HashSet::new();
        for index in 0..batch.len() {
            let (key, parts) = batch.job(index);
            assert!(seen.insert(key), "two sends of one batch for {key:?}");
            let whole: Vec<u8> = parts.flatten().copied().collect();
            assert!(!whole.is_empty(), "a send without bytes");
            let mut take = whole.len();
            if self.chance(self.faults.full) {
                take = 0;
            } else if self.chance(self.faults.short) {
                take = self.below(whole.len() as u64) as usize;
            }
            let Some(peer) = self.peer(key) else {
                failures.push((index, Outcome::Gone));
                continue;
            };
            if peer.broken {
                failures.push((index, Outcome::Gone));
                continue;
            }
            assert!(!peer.shut, "a send after the end of the stream");
            take = take.min(peer.room);
            if peer.room != usize::MAX {
                peer.room -= take;
            }
            peer.from_shard.extend_from_slice(&whole[..take]);
            if take < whole.len() {
                peer.wants_write = true;
                failures.push((index, Outcome::Part(take)));
            }
        }
    }

    fn pause(&mut self, key: Key) {
        if let Some(peer) = self.peer(key) {
            peer.paused = true;
        }
    }

    fn resume(&mut self, key: Key) {
        if let Some(peer) = self.peer(key) {
            peer.paused = false;
        }
    }

    fn shutdown(&mut self, key: Key) {
        if let Some(peer) = self.peer(key) {
            peer.shut = true;
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(peer) = self.by_key.remove(&key) {
            self.peers[peer].closed = true;
            self.peers[peer].key = None;
        }
    }

    /// There is no descriptor to give: the peer sees its socket close.
    fn detach(&mut self, key: Key) -> Option<OwnedFd> {
        self.close(key);
        None
    }

    fn adopt(&mut self, _key: Key, _fd: OwnedFd) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn stop_accept(&mut self, handler: &mut impl Handler) {
        while self.accept(handler) {}
        self.accepting = false;
    }

    fn waker(&self) -> Waker {
        Waker::none()
    }

    fn block(&mut self, _timeout_ms: Option<u64>) -> io::Result<()> {
        Ok(())
    }

    fn exhausted(&self) -> u64 {
        0
    }

    fn ring_batches(&self) -> u64 {
        0
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}
