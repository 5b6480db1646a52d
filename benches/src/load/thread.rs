//! One thread of the load client: its epoll set and its connections.
//!
//! ```text
//!  wait → commands | ticks | sockets (one read each) → what was seen is counted once a round
//! ```
//! The thread never spins, so that its own CPU is work and can be compared with the server's.
//! After each round it naps outside of epoll: a reader that is back in `epoll_wait` before the
//! next send makes that send pay for its wake-up (2–3 µs on top of 4 where the other core has
//! gone idle), which no server pays for readers on other machines, and which differs from run
//! to run. Latencies are therefore exact to a nap.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use super::connection::{Connection, Knock, Phase, Seen};
use super::fleet::{BATCHES, Command, Counts, Found, Progress};
use super::order::{Lines, Tally};
use super::recorder::Latency;
use crate::clock::now_ns;
use crate::sys::{Epoll, Interest, ticker};
use crate::wire::{self, Marker};

/// The loop and all it owns.
pub(super) struct Worker {
    epoll: Epoll,
    commands: Receiver<Command>,
    woken: UnixStream,
    progress: Arc<Progress>,
    connections: Vec<Option<Peer>>,
    /// Lines of connections that were lost: what they missed counts.
    gone: Vec<(Lines, u64)>,
    knock: Option<Arc<Knock>>,
    opening: Option<Opening>,
    echo: Option<Echo>,
    timer: Option<OwnedFd>,
    /// Nothing is read.
    stalled: bool,
    /// Events were passed over.
    look_at_all: bool,
    latency: Latency,
    time_to_open: Latency,
    hello_bytes: usize,
    counts: Counts,
    /// Numbers of a batch.
    batch: u64,
    /// Batches that connections got whole in this round of events, by their place.
    batches: [u64; BATCHES],
    scratch: Box<[u8]>,
    seen: Seen,
}

struct Peer {
    connection: Connection,
    /// Frames it sent for `Echo`.
    sent: u64,
    /// Its line began behind this number.
    begun_at: u64,
}

/// Connections that are to be opened.
struct Opening {
    next: usize,
    end: usize,
    first: usize,
    start_ns: u64,
    interval_ns: u64,
    under_way: usize,
}

/// Frames that are to be sent.
struct Echo {
    left: u64,
    per_tick: u64,
    bytes: usize,
    next: usize,
    start_ns: u64,
    ticks: u64,
}

impl Worker {
    pub(super) fn new(
        commands: Receiver<Command>,
        woken: UnixStream,
        progress: Arc<Progress>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EVENTS)?;
        epoll.add(woken.as_fd(), Interest::Read, WAKE)?;
        Ok(Self {
            epoll,
            commands,
            woken,
            progress,
            connections: Vec::new(),
            gone: Vec::new(),
            knock: None,
            opening: None,
            echo: None,
            timer: None,
            stalled: false,
            look_at_all: false,
            latency: Latency::new(),
            time_to_open: Latency::new(),
            hello_bytes: 0,
            counts: Counts::default(),
            batch: 1,
            batches: [0; BATCHES],
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            seen: Seen::default(),
        })
    }

    /// Runs until the commands end.
    pub(super) fn run(&mut self) {
        loop {
            let ready = match self.epoll.wait(None) {
                Ok(ready) => ready,
                Err(error) => return self.progress.fail(&error),
            };
            let (mut received, mut opened) = (0, 0);
            for index in 0..ready {
                match self.epoll.token(index) {
                    WAKE => {
                        if !self.take_commands() {
                            return;
                        }
                    }
                    TICK => self.tick(),
                    slot => self.serve(slot as usize, &mut received, &mut opened),
                }
            }
            if std::mem::take(&mut self.look_at_all) {
                for slot in 0..self.connections.len() {
                    // The second look finds an end whose event was passed over.
                    self.serve(slot, &mut received, &mut opened);
                    self.serve(slot, &mut received, &mut opened);
                }
            }
            self.open_more();
            if received > 0 {
                self.progress.count(&self.progress.received, received);
                for (counter, more) in self.progress.batches.iter().zip(&mut self.batches) {
                    match std::mem::take(more) {
                        0 => {}
                        more => self.progress.count(counter, more),
                    }
                }
            }
            if opened > 0 {
                self.progress.count(&self.progress.opened, opened);
            }
            if ready < EVENTS {
                std::thread::sleep(NAP);
            }
        }
    }

    /// `false`: there will be no more.
    fn take_commands(&mut self) -> bool {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(count) if count == bytes.len()) {}
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    if let Err(error) = self.obey(command) {
                        self.progress.fail(&error);
                    }
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Open { knock, first, count, start_ns, interval_ns } => {
                self.knock = Some(knock);
                let end = first + count;
                self.opening = Some(Opening { next: first, end, first, start_ns, interval_ns, under_way: 0 });
                if interval_ns > 0 {
                    self.start_timer()?;
                }
            }
            Command::Begin { last, batch } => {
                self.latency.reset();
                self.counts = Counts::default();
                self.batch = batch;
                let numbered = self.knock.as_ref().is_some_and(|knock| knock.room.is_some());
                for peer in self.connections.iter_mut().flatten() {
                    peer.begun_at = last + if numbered { peer.connection.greeted_at } else { 0 };
                    peer.connection.lines.begin(peer.begun_at);
                    peer.sent = last;
                }
            }
            Command::Echo { sends, per_tick, bytes } => {
                self.start_timer()?;
                let start_ns = now_ns();
                self.echo = Some(Echo { left: sends, per_tick, bytes, next: 0, start_ns, ticks: 0 });
            }
            Command::Judge { last, answer } => {
                // Who does not wait for the answer any more does not need it.
                let _ = answer.send(self.found(last));
            }
            Command::Stall(stalled) => {
                self.look_at_all |= self.stalled && !stalled;
                self.stalled = stalled;
            }
            Command::Leave { answer } => {
                self.connections.clear();
                self.gone.clear();
                self.opening = None;
                self.time_to_open.reset();
                let _ = answer.send(());
            }
        }
        Ok(())
    }

    fn found(&self, last: Option<u64>) -> Found {
        let numbered = self.knock.as_ref().is_some_and(|knock| knock.room.is_some());
        let mut tally = Tally::default();
        for peer in self.connections.iter().flatten() {
            let base = if numbered { peer.connection.greeted_at } else { 0 };
            tally.add(peer.connection.lines.judge(base + last.unwrap_or(peer.sent)));
        }
        for (line, sent) in &self.gone {
            tally.add(line.judge(last.unwrap_or(*sent)));
        }
        Found {
            tally,
            latency: self.latency.clone(),
            opening: self.time_to_open.clone(),
            hello_bytes: self.hello_bytes,
            counts: self.counts,
        }
    }

    fn start_timer(&mut self) -> io::Result<()> {
        let timer = ticker(Duration::from_nanos(TICK_NS))?;
        self.epoll.add(timer.as_fd(), Interest::Read, TICK)?;
        self.timer = Some(timer);
        Ok(())
    }

    /// A millisecond, or several, went by.
    fn tick(&mut self) {
        let Some(timer) = &self.timer else { return };
        let mut times = [0; 8];
        if rustix::io::read(timer, &mut times).is_err() {
            return;
        }
        let times = u64::from_ne_bytes(times);
        if let Some(mut echo) = self.echo.take() {
            for _ in 0..times {
                echo.ticks += 1;
                self.send_tick(&mut echo);
            }
            self.echo = (echo.left > 0).then_some(echo);
        }
        if self.echo.is_none() && self.opening.is_none() {
            self.timer = None;
        }
    }

    fn send_tick(&mut self, echo: &mut Echo) {
        let intended_ns = echo.start_ns + echo.ticks * TICK_NS;
        let count = echo.per_tick.min(echo.left);
        let mut frame = Vec::with_capacity(echo.bytes + 14);
        let mut sent = 0;
        for _ in 0..count {
            let slot = echo.next % self.connections.len().max(1);
            echo.next = slot + 1;
            let Some(peer) = self.connections.get_mut(slot).and_then(Option::as_mut) else { continue };
            frame.clear();
            let marker = Marker { counter: peer.sent + 1, intended_ns };
            wire::push_masked(&mut frame, 1, &marker.payload(echo.bytes));
            match peer.connection.write(&frame) {
                Ok(()) => {
                    peer.sent += 1;
                    sent += 1;
                }
                Err(error) => self.lose(slot, &error),
            }
        }
        echo.left -= count;
        self.progress.count(&self.progress.sent, sent);
    }

    /// Begins connections: at their moments, or as many as may be under way.
    fn open_more(&mut self) {
        let Some(knock) = self.knock.clone() else { return };
        while let Some(opening) = &mut self.opening {
            if opening.next == opening.end {
                self.opening = None;
                return;
            }
            let intended_ns = match opening.interval_ns {
                0 if opening.under_way >= UNDER_WAY => return,
                0 => now_ns(),
                interval => opening.start_ns + (opening.next - opening.first) as u64 * interval,
            };
            if intended_ns > now_ns() {
                return;
            }
            let number = opening.next;
            opening.next += 1;
            opening.under_way += 1;
            if let Err(error) = self.connect(&knock, number, intended_ns) {
                self.progress.fail(&error);
            }
        }
    }

    fn connect(&mut self, knock: &Knock, number: usize, intended_ns: u64) -> io::Result<()> {
        let connection = Connection::begin(knock, number, intended_ns)?;
        let token = self.connections.len() as u64;
        self.epoll.add(connection.stream().as_fd(), Interest::ConnectThenRead, token)?;
        self.connections.push(Some(Peer { connection, sent: 0, begun_at: 0 }));
        Ok(())
    }

    /// One event of one connection.
    fn serve(&mut self, slot: usize, received: &mut u64, opened: &mut u64) {
        if self.stalled {
            return;
        }
        let Some(knock) = &self.knock else { return };
        let Some(peer) = self.connections.get_mut(slot).and_then(Option::as_mut) else { return };
        let connection = &mut peer.connection;
        let before = connection.lines.last();
        let result = if connection.phase() == Phase::Connecting {
            connection.upgrade(knock)
        } else {
            connection.read(knock, &mut self.scratch, &mut self.seen)
        };
        let now = now_ns();
        *received += std::mem::take(&mut self.seen.received);
        let batches = |number: u64| number.saturating_sub(peer.begun_at) / self.batch;
        for batch in batches(before)..batches(connection.lines.last()) {
            self.batches[(batch % BATCHES as u64) as usize] += 1;
        }
        for (intended_ns, count) in self.seen.intended.drain(..) {
            self.latency.record(now.saturating_sub(intended_ns), count);
        }
        self.counts.pings += std::mem::take(&mut self.seen.pings);
        self.counts.lagging += std::mem::take(&mut self.seen.lagging);
        self.counts.caught_up += std::mem::take(&mut self.seen.caught_up);
        if std::mem::take(&mut self.seen.opened) {
            *opened += 1;
            self.time_to_open.record(now.saturating_sub(connection.intended_ns), 1);
            self.hello_bytes = self.hello_bytes.max(connection.hello_bytes);
            if let Some(opening) = &mut self.opening {
                opening.under_way -= 1;
            }
        }
        if let Err(error) = result {
            self.lose(slot, &error);
        }
    }

    fn lose(&mut self, slot: usize, error: &io::Error) {
        if let Some(peer) = self.connections[slot].take() {
            self.gone.push((peer.connection.lines, peer.sent));
            self.progress.fail(error);
        }
    }
}

/// Tokens that no slot has.
const WAKE: u64 = u64::MAX;
const TICK: u64 = u64::MAX - 1;
/// Events fetched at once.
const EVENTS: usize = 512;
/// Rest between two rounds, unless there is more to fetch at once.
const NAP: Duration = Duration::from_micros(300);
/// Bytes of one read: more than a connection is ever sent between two.
const SCRATCH_BYTES: usize = 256 << 10;
/// Connections that are opened at the same time without a pace: far below any backlog.
const UNDER_WAY: usize = 64;
/// Grid of the schedules.
const TICK_NS: u64 = 1_000_000;
