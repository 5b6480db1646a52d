//! The loop of a shard.
//!
//! ```text
//!  time → mailbox (≤ 256) → sockets → one slice of sends → actions → events
//!    └── more is known to wait: next turn     nothing: sleep until something happens
//! ```
//! What arrived meanwhile ends the sleep at once, so nobody looks for it first: that would be
//! one more system call for each wake.
//! Every step is bounded, so one busy connection, room or producer cannot hold the core.
//! Nothing here decides: what happens is decided in [`core::connections`](crate::core::connections).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tracing::warn;

use super::driver::{Driver, Flow, Handler, Key};
use super::mailbox::Inbox;
use super::metrics::Metrics;
use crate::core::connections::{Action, Batch, Connections, Outcome};
use crate::core::{Command, Event, UpgradeRequest};

/// One core and all it owns.
pub struct Shard<D> {
    number: u16,
    driver: D,
    core: Connections,
    inbox: Inbox,
    events: UnboundedSender<Event>,
    metrics: Arc<Metrics>,
    batch: Batch,
    failures: Vec<(usize, Outcome)>,
    /// The last turn left something undone that no event will tell.
    pending: bool,
    /// Control has gone: nobody wants to know what happens here.
    orphaned: bool,
}

impl<D: Driver> Shard<D> {
    /// A shard that was not turned yet. `number` is its [`ConnId::shard`](crate::core::ConnId::shard).
    pub fn new(
        number: u16,
        driver: D,
        core: Connections,
        inbox: Inbox,
        events: UnboundedSender<Event>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            number,
            driver,
            core,
            inbox,
            events,
            metrics,
            batch: Batch::default(),
            failures: Vec::new(),
            pending: false,
            orphaned: false,
        }
    }

    /// The sockets, for whoever turns the shard by hand.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// One turn at `now_ms`. `true`: something was done; who turns by hand goes on until it is not.
    ///
    /// # Errors
    /// The driver is broken as a whole.
    pub fn turn(&mut self, now_ms: u64) -> io::Result<bool> {
        self.core.handle_time(now_ms);
        let mut busy = self.drain_mailbox();
        let read = self.core.may_read();
        self.core.counters().unread += u64::from(!read);
        let turned = self.driver.turn(now_ms, read, &mut Hands { core: &mut self.core })?;
        busy |= turned.busy | turned.more;
        busy |= self.flush();
        // A socket that is read again may have bytes that were told long ago.
        let acted = self.drive_actions();
        busy |= acted | self.drive_events();
        self.pending = turned.more | acted | self.core.has_output();
        Ok(busy)
    }

    /// Turns until the shard is drained or control is gone.
    ///
    /// # Errors
    /// The driver is broken as a whole.
    pub fn run(&mut self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            let began = Instant::now();
            let now_ms = began.duration_since(start).as_millis() as u64;
            let busy = self.turn(now_ms)?;
            if self.core.is_drained() {
                let _ = self.events.send(Event::Drained { shard: self.number });
            }
            if self.core.is_drained() || self.orphaned {
                self.publish();
                return Ok(());
            }
            if busy {
                self.core.counters().count_turn(began.elapsed().as_micros() as u64);
            }
            if self.pending {
                self.publish();
            } else {
                self.park(start)?;
            }
        }
    }

    fn drain_mailbox(&mut self) -> bool {
        for taken in 0..COMMANDS {
            if !self.core.may_take_commands() {
                self.core.counters().held_back += 1;
                return true;
            }
            match self.inbox.pop() {
                Some(Command::Adopt { fd, request, mut read }) => self.adopt(fd, request, &mut read),
                Some(command) => self.core.handle_command(command),
                None => return taken > 0,
            }
        }
        true
    }

    fn adopt(&mut self, fd: std::os::fd::OwnedFd, request: UpgradeRequest, read: &mut bytes::Bytes) {
        // No place: the socket closes here, and the client tries again.
        let Some(key) = self.core.handle_adopted(request) else { return };
        if let Err(error) = self.driver.adopt(key, fd) {
            warn!(%error, "socket not watched");
            self.core.handle_failed(key);
            return;
        }
        if !read.is_empty() && !self.core.handle_bytes(key, &mut read.to_vec()) {
            self.driver.pause(key);
        }
    }

    /// One slice.
    fn flush(&mut self) -> bool {
        let more = self.core.poll_transmit(&mut self.batch);
        if self.batch.is_empty() {
            return more;
        }
        self.failures.clear();
        self.driver.send_batch(&self.batch, &mut self.failures);
        self.core.handle_sent(&self.batch, &self.failures);
        true
    }

    fn drive_actions(&mut self) -> bool {
        let mut busy = false;
        while let Some(action) = self.core.poll_action() {
            busy = true;
            match action {
                Action::Close(key) => self.driver.close(key),
                Action::Shutdown(key) => self.driver.shutdown(key),
                Action::Resume(key) => self.driver.resume(key),
                Action::StopAccept => self.driver.stop_accept(&mut Hands { core: &mut self.core }),
                Action::HandOver { key, read, peer } => {
                    if let Some(fd) = self.driver.detach(key) {
                        self.tell(Event::Http { fd, read: read.into(), peer });
                    }
                }
            }
        }
        busy
    }

    fn drive_events(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.core.poll_event() {
            busy = true;
            self.tell(event);
        }
        busy
    }

    fn tell(&mut self, event: Event) {
        self.orphaned |= self.events.send(event).is_err();
    }

    fn park(&mut self, start: Instant) -> io::Result<()> {
        if !self.inbox.prepare_sleep() {
            self.publish();
            return Ok(());
        }
        let now_ms = start.elapsed().as_millis() as u64;
        self.core.counters().parks += 1;
        self.publish();
        let mut timeout_ms = self.core.poll_timeout().map(|at| at.saturating_sub(now_ms));
        if !self.core.may_read() {
            // Control settles without a command: look again soon.
            timeout_ms = Some(timeout_ms.unwrap_or(UNREAD_MS).min(UNREAD_MS));
        }
        let blocked = self.driver.block(Some(timeout_ms.unwrap_or(ORPHAN_MS).min(ORPHAN_MS)));
        self.inbox.awake();
        self.orphaned |= self.events.is_closed();
        blocked
    }

    /// Makes the numbers visible to other threads.
    pub fn publish(&mut self) {
        let (exhausted, ring_batches) = (self.driver.exhausted(), self.driver.ring_batches());
        let counters = self.core.counters();
        counters.exhausted = exhausted;
        counters.ring_batches = ring_batches;
        self.metrics.publish(counters);
    }
}

/// The core as a driver sees it.
struct Hands<'a> {
    core: &'a mut Connections,
}

impl Handler for Hands<'_> {
    fn accepted(&mut self, peer: Option<IpAddr>) -> Option<Key> {
        self.core.handle_accepted(peer)
    }

    fn received(&mut self, key: Key, bytes: &mut [u8]) -> Flow {
        if self.core.handle_bytes(key, bytes) { Flow::More } else { Flow::Pause }
    }

    fn ended(&mut self, key: Key) {
        self.core.handle_ended(key);
    }

    fn writable(&mut self, key: Key) {
        self.core.handle_writable(key);
    }

    fn failed(&mut self, key: Key) {
        self.core.handle_failed(key);
    }
}

/// Commands of a turn.
const COMMANDS: usize = 256;
/// How soon a shard that does not read looks whether it may again.
const UNREAD_MS: u64 = 5;
/// How often a sleeping shard looks whether control is still there.
const ORPHAN_MS: u64 = 1_000;
