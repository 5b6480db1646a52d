//! Sockets over epoll, edge-triggered: a connection is registered once and, unless its socket
//! was full some time, never touched again until it closes. What is readable but was not read
//! (a bounded turn, a paused connection) is remembered here, because the kernel will not say
//! it twice.
//!
//! A peer is accepted when its first bytes are there (`TCP_DEFER_ACCEPT`, tcp(7)) and read at
//! once: accepting and reading a request is one wake, not two. It is watched from then on, for
//! what was read already would be an event, and asked about room to write only after a short
//! send, for the same reason. The listener is asked for as many peers as it is likely to have: an
//! accept(2) that finds nobody has made a socket, an inode and a file, and throws them away.
//!
//! Sends go out one system call each, or, with a [`SendRing`], all of a batch in one.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use socket2::SockRef;
use tracing::warn;

use super::sys;
use super::uring::{Broken, SendRing};
use super::{Batch, Driver, Flow, Handler, Key, Outcome, Turned};
use crate::shard::mailbox::Waker;

/// The driver of real sockets.
pub struct Epoll {
    epoll: OwnedFd,
    waker: Waker,
    listener: Option<OwnedFd>,
    sockets: Vec<Socket>,
    /// Connections whose bytes wait in the kernel, each once.
    readable: VecDeque<Key>,
    events: Box<[libc::epoll_event]>,
    /// Events that [`Driver::block`] fetched for the next turn.
    fetched: usize,
    scratch: Box<[u8]>,
    /// Sends that [ride](rides) go through it.
    ring: Option<SendRing>,
    /// Batches of rings that broke.
    ring_batches: u64,
    /// Small sends of several parts, each in one piece; kept for its memory only.
    joined: Vec<u8>,
    /// The parts of one send, kept for its memory only: empty between sends.
    parts: Vec<IoSlice<'static>>,
    /// Given up for a moment to accept and refuse a peer when no other descriptor is left.
    spare: Option<File>,
    accept_again_ms: Option<u64>,
    /// Turns in a row in which the listener had all the peers it was asked for.
    rush: u32,
    /// This turn is one of them.
    rushed: bool,
    send_bytes: usize,
    exhausted: u64,
    logged_ms: Option<u64>,
    now_ms: u64,
}

/// 12 bytes a connection.
struct Socket {
    fd: Option<OwnedFd>,
    generation: u32,
    paused: bool,
    /// It stands in `readable`, or would if it were not paused.
    readable: bool,
    /// The peer's end was announced: read until it is seen.
    hung_up: bool,
    watched: Watched,
}

/// What the kernel tells of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// Nothing: a new peer whose request was not read yet.
    Not,
    /// What comes in.
    Incoming,
    /// And room to write: it was full once.
    Both,
}

impl Epoll {
    /// Watches `listener`, which must be non-blocking with the options that accepted
    /// sockets inherit. `send_bytes` is for adopted ones, 0: the kernel's choice.
    ///
    /// # Errors
    /// No descriptor for the epoll set, the eventfd or the spare one.
    pub fn new(listener: OwnedFd, send_bytes: usize) -> io::Result<Self> {
        let (epoll, eventfd) = (sys::epoll()?, sys::eventfd()?);
        // Edge-triggered, every write is an event: the counter is never read.
        sys::watch(&epoll, eventfd.as_raw_fd(), libc::EPOLLIN | libc::EPOLLET, WAKER)?;
        sys::watch(&epoll, listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
        // Without it everything works, with one more wake for each new peer.
        let _ = sys::defer_accept(&listener);
        Ok(Self {
            epoll,
            waker: Waker::new(eventfd),
            listener: Some(listener),
            sockets: Vec::new(),
            readable: VecDeque::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS].into_boxed_slice(),
            fetched: 0,
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            ring: None,
            ring_batches: 0,
            joined: Vec::new(),
            parts: Vec::new(),
            spare: Some(File::open("/dev/null")?),
            accept_again_ms: None,
            rush: 0,
            rushed: false,
            send_bytes,
            exhausted: 0,
            logged_ms: None,
            now_ms: 0,
        })
    }

    /// Sends through `ring` from now on.
    #[must_use]
    pub fn with_ring(self, ring: SendRing) -> Self {
        Self { ring: Some(ring), ..self }
    }

    /// All jobs that [ride](rides) with the ring, in as few system calls as it takes. How many
    /// of them went that way: all, unless the ring broke.
    fn send_by_ring(&mut self, batch: &Batch, failures: &mut Vec<(usize, Outcome)>) -> usize {
        let Some(mut ring) = self.ring.take() else { return 0 };
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        for index in 0..batch.len() {
            let (_, parts) = batch.job(index);
            if parts.len() > 1 && rides(batch.job(index).1) {
                parts.for_each(|part| joined.extend_from_slice(part));
            }
        }
        let mut rest = &joined[..];
        let jobs = (0..batch.len()).filter_map(|index| {
            let (key, mut parts) = batch.job(index);
            if !rides(batch.job(index).1) {
                return None;
            }
            let bytes = if parts.len() == 1 {
                parts.next()?
            } else {
                let (bytes, behind) = rest.split_at(parts.map(<[u8]>::len).sum());
                rest = behind;
                bytes
            };
            Some((index, self.fd(key)?, bytes))
        });
        let sent = ring.send(jobs, failures);
        self.joined = joined;
        match sent {
            Ok(()) => {
                self.ring = Some(ring);
                usize::MAX
            }
            Err(Broken { error, done }) => {
                warn!(%error, "the ring broke: sends are one system call each from now on");
                self.ring_batches += ring.batches();
                done
            }
        }
    }

    fn socket(&mut self, key: Key) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(key.slot as usize)?;
        (socket.generation == key.generation && socket.fd.is_some()).then_some(socket)
    }

    fn fd(&self, key: Key) -> Option<RawFd> {
        let socket = self.sockets.get(key.slot as usize)?;
        if socket.generation != key.generation {
            return None;
        }
        socket.fd.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Keeps a socket, unwatched.
    fn hold(&mut self, key: Key, fd: OwnedFd) {
        let slot = key.slot as usize;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, Socket::vacant);
        }
        self.sockets[slot] = Socket { fd: Some(fd), generation: key.generation, ..Socket::vacant() };
    }

    /// What comes in is an event from now on, and if something is there already, at once.
    fn watch(&mut self, key: Key) -> io::Result<()> {
        let Some(fd) = self.fd(key) else { return Ok(()) };
        let Some(socket) = self.socket(key) else { return Ok(()) };
        if socket.watched != Watched::Not {
            return Ok(());
        }
        socket.watched = Watched::Incoming;
        sys::watch(&self.epoll, fd, INCOMING, token(key))
    }

    /// A socket is full: room in it is an event from now on, and if there is some already,
    /// at once.
    fn ask_for_room(&mut self, key: Key) -> io::Result<()> {
        let Some(fd) = self.fd(key) else { return Ok(()) };
        let Some(socket) = self.socket(key) else { return Ok(()) };
        match std::mem::replace(&mut socket.watched, Watched::Both) {
            Watched::Not => sys::watch(&self.epoll, fd, INCOMING | libc::EPOLLOUT, token(key)),
            Watched::Incoming => sys::rewatch(&self.epoll, fd, INCOMING | libc::EPOLLOUT, token(key)),
            Watched::Both => Ok(()),
        }
    }

    fn handle_event(&mut self, event: libc::epoll_event, handler: &mut impl Handler) {
        let (what, data) = (event.events, event.u64);
        match data {
            WAKER => {}
            LISTENER => {
                // One, as long as they come one by one; a queue that is not empty the next two
                // times is a rush, and of that it takes twice as many each turn.
                let most: usize = 1 << self.rush.saturating_sub(1).min(ACCEPTS.ilog2());
                if self.accept(most, handler) == most {
                    self.rushed = true;
                    self.rush += 1;
                }
            }
            _ => {
                let key = Key { slot: data as u32, generation: (data >> 32) as u32 };
                let Some(socket) = self.socket(key) else { return };
                let over = has(what, libc::EPOLLHUP) || has(what, libc::EPOLLERR);
                if over && socket.paused {
                    handler.failed(key);
                    return;
                }
                if over || has(what, libc::EPOLLIN) || has(what, libc::EPOLLRDHUP) {
                    socket.hung_up |= over || has(what, libc::EPOLLRDHUP);
                    self.set_readable(key);
                }
                if has(what, libc::EPOLLOUT) {
                    handler.writable(key);
                }
            }
        }
    }

    fn set_readable(&mut self, key: Key) {
        let Some(socket) = self.socket(key) else { return };
        if !std::mem::replace(&mut socket.readable, true) && !socket.paused {
            self.readable.push_back(key);
        }
    }

    /// Reads one connection once, and watches it from the first time on: how many bytes.
    fn read(&mut self, key: Key, handler: &mut impl Handler) -> usize {
        let count = self.receive(key, handler);
        if self.socket(key).is_some_and(|socket| socket.watched == Watched::Not)
            && let Err(error) = self.watch(key)
        {
            warn!(%error, "socket not watched");
            handler.failed(key);
        }
        count
    }

    fn receive(&mut self, key: Key, handler: &mut impl Handler) -> usize {
        let Some(socket) = self.socket(key) else { return 0 };
        if socket.paused {
            // It stays marked: a resume puts it back.
            return 0;
        }
        socket.readable = false;
        let hung_up = socket.hung_up;
        let Some(fd) = self.fd(key) else { return 0 };
        match sys::receive(fd, &mut self.scratch) {
            Ok(0) => handler.ended(key),
            Ok(count) => {
                // A short read has emptied the socket; what comes later is a new event. But
                // an end that was announced already is not announced again.
                let more = count == self.scratch.len() || hung_up;
                let flow = handler.received(key, &mut self.scratch[..count]);
                match flow {
                    Flow::More if more => self.set_readable(key),
                    Flow::More => {}
                    Flow::Pause => {
                        if let Some(socket) = self.socket(key) {
                            socket.paused = true;
                            socket.readable = true;
                        }
                    }
                }
                return count;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {}
                io::ErrorKind::Interrupted => self.set_readable(key),
                _ => handler.failed(key),
            },
        }
        0
    }

    /// Accepts at most so many; answers how many times there was one.
    fn accept(&mut self, most: usize, handler: &mut impl Handler) -> usize {
        for done in 0..most {
            let Some(listener) = &self.listener else { return done };
            match sys::accept(listener.as_raw_fd()) {
                Ok((fd, peer)) => match handler.accepted(peer) {
                    Some(key) => {
                        self.hold(key, fd);
                        self.set_readable(key);
                    }
                    None => sys::refuse(&fd),
                },
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return done,
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        self.no_descriptor(&error);
                        return done;
                    }
                    // The peer is gone already, or a signal came.
                    _ => {}
                },
            }
        }
        most
    }

    /// Refuses one peer with the spare descriptor and rests: a level-triggered listener
    /// would otherwise turn the core in a circle.
    fn no_descriptor(&mut self, error: &io::Error) {
        self.exhausted += 1;
        if self.logged_ms.is_none_or(|at| self.now_ms >= at + LOG_MS) {
            self.logged_ms = Some(self.now_ms);
            warn!(%error, times = self.exhausted, "no descriptor for a new peer; raise the limit of open files");
        }
        self.spare = None;
        if let Some(listener) = &self.listener {
            if let Ok((fd, _)) = sys::accept(listener.as_raw_fd()) {
                sys::refuse(&fd);
            }
            let _ = sys::unwatch(&self.epoll, listener.as_raw_fd());
            self.accept_again_ms = Some(self.now_ms + ACCEPT_PAUSE_MS);
        }
        self.spare = File::open("/dev/null").ok();
    }

    fn accept_again(&mut self) -> io::Result<()> {
        if self.accept_again_ms.is_some_and(|at| self.now_ms >= at) {
            self.accept_again_ms = None;
            if let Some(listener) = &self.listener {
                sys::watch(&self.epoll, listener.as_raw_fd(), libc::EPOLLIN, LISTENER)?;
            }
        }
        Ok(())
    }
}

impl Driver for Epoll {
    fn turn(&mut self, now_ms: u64, read: bool, handler: &mut impl Handler) -> io::Result<Turned> {
        self.now_ms = now_ms;
        if !std::mem::take(&mut self.rushed) {
            self.rush = 0;
        }
        self.accept_again()?;
        let count = match std::mem::take(&mut self.fetched) {
            0 => sys::wait(&self.epoll, &mut self.events, 0)?,
            fetched => fetched,
        };
        for index in 0..count {
            self.handle_event(self.events[index], handler);
        }
        let reads = if read { self.readable.len().min(READS) } else { 0 };
        let mut bytes = 0;
        for _ in 0..reads {
            if bytes >= READ_BYTES {
                break;
            }
            if let Some(key) = self.readable.pop_front() {
                bytes += self.read(key, handler);
            }
        }
        Ok(Turned { busy: count > 0 || reads > 0, more: read && !self.readable.is_empty() })
    }

    fn send_batch(&mut self, batch: &Batch, failures: &mut Vec<(usize, Outcome)>) {
        let mut by_ring = self.send_by_ring(batch, failures);
        let mut parts_of_all = std::mem::take(&mut self.parts);
        for index in 0..batch.len() {
            let (key, parts) = batch.job(index);
            let Some(fd) = self.fd(key) else {
                failures.push((index, Outcome::Gone));
                continue;
            };
            if by_ring > 0 && rides(batch.job(index).1) {
                by_ring -= 1;
                continue;
            }
            let mut slices: Vec<IoSlice<'_>> = parts_of_all;
            slices.extend(parts.map(IoSlice::new));
            let outcome = sys::send(fd, &slices);
            if outcome != Outcome::All {
                failures.push((index, outcome));
            }
            slices.clear();
            // Empty, so nothing is mapped: this hands the memory on under another lifetime.
            parts_of_all = slices.into_iter().map(|_| IoSlice::new(&[])).collect();
        }
        self.parts = parts_of_all;
        failures.sort_unstable_by_key(|(index, _)| *index);
        for (index, outcome) in failures {
            if let Outcome::Part(_) = outcome
                && let Err(error) = self.ask_for_room(batch.job(*index).0)
            {
                warn!(%error, "socket not watched for room");
                *outcome = Outcome::Gone;
            }
        }
    }

    fn pause(&mut self, key: Key) {
        if let Some(socket) = self.socket(key) {
            socket.paused = true;
        }
    }

    fn resume(&mut self, key: Key) {
        let Some(socket) = self.socket(key) else { return };
        // Marked while paused: it may or may not stand in the list, so it is put there and
        // a second look finds nothing.
        if std::mem::take(&mut socket.paused) && socket.readable {
            self.readable.push_back(key);
        }
    }

    fn shutdown(&mut self, key: Key) {
        if let Some(fd) = self.socket(key).and_then(|socket| socket.fd.as_ref()) {
            // It fails only when the peer is gone, which the next event tells.
            let _ = SockRef::from(fd).shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(socket) = self.socket(key) {
            socket.fd = None;
        }
    }

    fn detach(&mut self, key: Key) -> Option<OwnedFd> {
        let fd = self.socket(key)?.fd.take()?;
        let _ = sys::unwatch(&self.epoll, fd.as_raw_fd());
        Some(fd)
    }

    fn adopt(&mut self, key: Key, fd: OwnedFd) -> io::Result<()> {
        let socket = SockRef::from(&fd);
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if self.send_bytes > 0 {
            socket.set_send_buffer_size(self.send_bytes)?;
        }
        // Kept even if it cannot be watched: the close that follows finds it.
        self.hold(key, fd);
        self.watch(key)
    }

    fn stop_accept(&mut self, handler: &mut impl Handler) {
        self.accept(ACCEPTS_AT_END, handler);
        self.listener = None;
        self.accept_again_ms = None;
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn block(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        if self.fetched > 0 {
            return Ok(());
        }
        let accept_ms = self.accept_again_ms.map(|at| at.saturating_sub(self.now_ms));
        let timeout_ms = match [timeout_ms, accept_ms].into_iter().flatten().min() {
            Some(ms) => i32::try_from(ms).unwrap_or(i32::MAX),
            None => -1,
        };
        self.fetched = sys::wait(&self.epoll, &mut self.events, timeout_ms)?;
        Ok(())
    }

    fn exhausted(&self) -> u64 {
        self.exhausted
    }

    fn ring_batches(&self) -> u64 {
        self.ring_batches + self.ring.as_ref().map_or(0, SendRing::batches)
    }

    fn name(&self) -> &'static str {
        if self.ring.is_some() { "uring" } else { "epoll" }
    }
}

impl Socket {
    fn vacant() -> Self {
        Self {
            fd: None,
            generation: 0,
            paused: false,
            readable: false,
            hung_up: false,
            watched: Watched::Not,
        }
    }
}

/// Does a send go with the ring? It takes single pieces; a few small frames of several rooms
/// are copied into one, which costs far less than a system call of their own.
fn rides<'a>(parts: impl ExactSizeIterator<Item = &'a [u8]>) -> bool {
    parts.len() == 1 || (parts.len() <= JOIN_PARTS && parts.map(<[u8]>::len).sum::<usize>() <= JOIN_BYTES)
}

fn has(events: u32, flag: i32) -> bool {
    events & flag as u32 != 0
}

fn token(key: Key) -> u64 {
    u64::from(key.generation) << 32 | u64::from(key.slot)
}

/// What a connection is watched for from the beginning.
const INCOMING: i32 = libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET;
/// Slot numbers stay below these, so no connection has such a token.
const WAKER: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
/// Events fetched at once.
const EVENTS: usize = 256;
/// Connections read in a turn.
const READS: usize = 256;
/// Bytes read in a turn, but for the last connection's: full of the smallest frames they keep
/// a core for some milliseconds.
const READ_BYTES: usize = 512 << 10;
/// Peers accepted at once, a power of two.
const ACCEPTS: usize = 64;
/// Peers accepted before the listener closes: more than any backlog holds.
const ACCEPTS_AT_END: usize = 1 << 16;
/// Parts and bytes of a send that are copied into one piece for the ring.
const JOIN_PARTS: usize = 32;
const JOIN_BYTES: usize = 2_048;
/// Bytes read of one connection in a turn.
const SCRATCH_BYTES: usize = 64 << 10;
/// Rest of the listener when there are no descriptors.
const ACCEPT_PAUSE_MS: u64 = 75;
/// At most one line about it in this time.
const LOG_MS: u64 = 1_000;
const _: () = assert!(size_of::<Socket>() <= 12);
