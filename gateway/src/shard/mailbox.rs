//! The way into a shard: a bounded lock-free queue of [`Command`]s with many producers and
//! one consumer, and one wake per batch.
//!
//! | queue | bound | when full | counter |
//! |---|---|---|---|
//! | commands | `limits.mailbox` | [`Mailbox::reserve`] gives none, [`Mailbox::offer`] gives back | [`Mailbox::full`] |
//! | their frames' bytes | [`MAILBOX_BYTES`] | the same | the same |
//!
//! A producer that must reach all shards or none reserves a place on each first: a
//! [`Permit`] can always be used.
//!
//! # Parking without losing a wake
//! ```text
//!  shard:     sleeping = true → fence → anything queued? → block
//!  producer:  push            → fence → sleeping? → swap(false) → write the eventfd
//! ```
//! Whichever fence comes second sees the other side's store, so either the shard does not
//! block or exactly one producer writes. A batch that arrives while the shard is awake
//! costs no system call at all.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use crossbeam::queue::ArrayQueue;

use crate::core::{Command, Page};

/// Bytes of frames queued for a shard above which no further command is taken. One command
/// per outstanding [`Permit`] may go beyond it.
pub const MAILBOX_BYTES: usize = 64 << 20;

/// A producer's end. Cheap to clone.
#[derive(Clone)]
pub struct Mailbox {
    shared: Arc<Shared>,
}

/// The shard's end: there is exactly one.
pub struct Inbox {
    shared: Arc<Shared>,
}

/// A place in the queue. Dropped unused, the place is free again.
#[must_use]
pub struct Permit<'a> {
    shared: &'a Shared,
    used: bool,
}

/// Ends a shard's sleep.
#[derive(Clone)]
pub struct Waker {
    eventfd: Option<Arc<File>>,
}

struct Shared {
    queue: ArrayQueue<Command>,
    /// Places that are reserved or filled; never above the queue's capacity.
    taken: AtomicUsize,
    bytes: AtomicUsize,
    bytes_max: usize,
    sleeping: AtomicBool,
    /// The shard has ended: commands are accepted and dropped.
    ended: AtomicBool,
    waker: Waker,
    wakes: AtomicU64,
    full: AtomicU64,
}

impl Mailbox {
    /// A queue of `capacity` commands (at least 1) and `bytes_max` bytes of frames.
    pub fn new(capacity: usize, bytes_max: usize, waker: Waker) -> (Self, Inbox) {
        let shared = Arc::new(Shared {
            queue: ArrayQueue::new(capacity.max(1)),
            taken: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            bytes_max,
            sleeping: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            waker,
            wakes: AtomicU64::new(0),
            full: AtomicU64::new(0),
        });
        (Self { shared: shared.clone() }, Inbox { shared })
    }

    /// A place for one command; `None` when the mailbox is full. A shard that has ended
    /// has room for everything and drops it.
    pub fn reserve(&self) -> Option<Permit<'_>> {
        if self.shared.ended.load(Ordering::Relaxed) {
            return Some(Permit { shared: &self.shared, used: true });
        }
        let capacity = self.shared.queue.capacity();
        let free = self.shared.bytes.load(Ordering::Relaxed) < self.shared.bytes_max
            && self
                .shared
                .taken
                .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |taken| {
                    (taken < capacity).then_some(taken + 1)
                })
                .is_ok();
        if !free {
            self.shared.full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit { shared: &self.shared, used: false })
    }

    /// Enqueues `command`.
    ///
    /// # Errors
    /// The mailbox is full: the command comes back untouched.
    // The command comes back by value because the caller owns what it could not enqueue; a
    // box would cost an allocation on the path that is already overloaded.
    #[allow(clippy::result_large_err)]
    pub fn offer(&self, command: Command) -> Result<(), Command> {
        match self.reserve() {
            Some(permit) => {
                permit.send(command);
                Ok(())
            }
            None => Err(command),
        }
    }

    /// Commands that wait.
    pub fn depth(&self) -> usize {
        self.shared.queue.len()
    }

    /// Bytes of frames that wait.
    pub fn bytes(&self) -> usize {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// How often a producer had to wake the shard.
    pub fn wakes(&self) -> u64 {
        self.shared.wakes.load(Ordering::Relaxed)
    }

    /// How often there was no place.
    pub fn full(&self) -> u64 {
        self.shared.full.load(Ordering::Relaxed)
    }
}

impl Permit<'_> {
    /// Enqueues `command`; there is a place for it.
    pub fn send(mut self, command: Command) {
        // A place that was granted by an ended shard is none.
        if std::mem::replace(&mut self.used, true) {
            return;
        }
        self.shared.bytes.fetch_add(wire_bytes(&command), Ordering::Relaxed);
        if self.shared.queue.push(command).is_err() {
            unreachable!("a permit is a place: taken never exceeds the capacity");
        }
        self.shared.wake_sleeper();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.shared.taken.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Inbox {
    /// The oldest command.
    pub fn pop(&mut self) -> Option<Command> {
        let command = self.shared.queue.pop()?;
        self.shared.bytes.fetch_sub(wire_bytes(&command), Ordering::Relaxed);
        self.shared.taken.fetch_sub(1, Ordering::AcqRel);
        Some(command)
    }

    /// Announces sleep. `true`: nothing waits, so the shard may block, and the next command
    /// wakes it. `false`: something waits; the announcement is withdrawn.
    pub fn prepare_sleep(&mut self) -> bool {
        self.shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.shared.queue.is_empty() {
            return true;
        }
        self.awake();
        false
    }

    /// The shard is awake again: producers need not write.
    pub fn awake(&mut self) {
        self.shared.sleeping.store(false, Ordering::Relaxed);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        while self.pop().is_some() {}
    }
}

impl Shared {
    fn wake_sleeper(&self) {
        fence(Ordering::SeqCst);
        // The load keeps the line shared while the shard is awake, which is the busy case.
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            self.waker.wake();
        }
    }
}

impl Waker {
    /// Wakes by writing to an eventfd.
    pub fn new(eventfd: OwnedFd) -> Self {
        Self { eventfd: Some(Arc::new(File::from(eventfd))) }
    }

    /// Wakes nobody: for a shard that is turned by hand.
    pub fn none() -> Self {
        Self { eventfd: None }
    }

    /// Makes the eventfd readable. It cannot fail in a way that matters: a counter that is
    /// full is readable already.
    pub fn wake(&self) {
        if let Some(eventfd) = &self.eventfd {
            let _ = (&**eventfd).write(&1u64.to_ne_bytes());
        }
    }
}

/// Bytes of frames a command carries.
fn wire_bytes(command: &Command) -> usize {
    match command {
        Command::Frames(frames) => frames.iter().map(|frame| frame.wire.len()).sum(),
        Command::Cut { wire, .. } => wire.as_ref().map_or(0, |wire| wire.len()),
        Command::Open { frames, .. } | Command::Join { frames, .. } | Command::Reply { frames, .. } => {
            frames.iter().map(|wire| wire.len()).sum()
        }
        Command::Page { page, .. } => match page {
            Page::Frames { frames, .. } => frames.iter().map(|(_, wire)| wire.len()).sum(),
            Page::Cut { wire, .. } => wire.len(),
            Page::TryLater => 0,
        },
        Command::Push { wire, .. } => wire.len(),
        Command::Adopt { read, .. } => read.len(),
        Command::Drain { notice, .. } => notice.len(),
        Command::Leave { .. } | Command::Close { .. } | Command::CloseSession { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::core::{ConnId, Target, Wire};
    use crate::shard::driver::epoll::Epoll;
    use crate::shard::driver::{Driver, Flow, Handler, Key};

    fn push(bytes: usize) -> Command {
        Command::Push { target: Target::All { per_second: 0 }, wire: Wire::binary(&vec![0; bytes]) }
    }

    #[test]
    fn a_full_mailbox_gives_the_command_back() {
        let (mailbox, mut inbox) = Mailbox::new(2, usize::MAX, Waker::none());
        assert!(mailbox.offer(push(1)).is_ok());
        assert!(mailbox.offer(push(1)).is_ok());
        assert!(mailbox.offer(push(1)).is_err());
        assert_eq!((mailbox.depth(), mailbox.full()), (2, 1));
        assert!(inbox.pop().is_some());
        assert!(mailbox.offer(push(1)).is_ok());
    }

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let (mailbox, mut inbox) = Mailbox::new(64, 100, Waker::none());
        assert!(mailbox.offer(push(60)).is_ok());
        assert!(mailbox.offer(push(60)).is_ok(), "the bound is looked at before");
        assert!(mailbox.offer(push(1)).is_err());
        while inbox.pop().is_some() {}
        assert_eq!(mailbox.bytes(), 0);
        assert!(mailbox.offer(push(1)).is_ok());
    }

    #[test]
    fn an_unused_permit_frees_its_place_and_a_used_one_always_fits() {
        let (mailbox, mut inbox) = Mailbox::new(1, usize::MAX, Waker::none());
        drop(mailbox.reserve().unwrap());
        let permit = mailbox.reserve().unwrap();
        assert!(mailbox.reserve().is_none());
        assert!(inbox.pop().is_none());
        permit.send(push(1));
        assert!(mailbox.reserve().is_none(), "the place is taken until it is popped");
        assert!(inbox.pop().is_some());
        assert!(mailbox.reserve().is_some());
    }

    #[test]
    fn an_ended_shard_takes_everything_and_keeps_nothing() {
        let (mailbox, inbox) = Mailbox::new(1, usize::MAX, Waker::none());
        assert!(mailbox.offer(push(1)).is_ok());
        drop(inbox);
        for _ in 0..3 {
            assert!(mailbox.offer(push(1)).is_ok());
        }
        assert_eq!((mailbox.depth(), mailbox.bytes()), (0, 0));
    }

    #[test]
    fn only_a_sleeping_shard_is_woken_and_once() {
        let (mailbox, mut inbox) = Mailbox::new(8, usize::MAX, Waker::none());
        assert!(mailbox.offer(push(1)).is_ok());
        assert_eq!(mailbox.wakes(), 0);
        assert!(!inbox.prepare_sleep(), "something waits");
        assert!(inbox.pop().is_some());
        assert!(inbox.prepare_sleep());
        for _ in 0..3 {
            assert!(mailbox.offer(push(1)).is_ok());
        }
        assert_eq!(mailbox.wakes(), 1);
    }

    /// Lock-step and free-running hops into a shard that parks in epoll whenever it finds
    /// nothing; one lost wake and the watchdog fires.
    #[test]
    fn no_wake_is_lost_in_a_million_hops() {
        const STEPS: u64 = 30_000;
        const RUNS: u64 = 970_000;
        let (driver, handled, parks) = (sleeper(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (mailbox, mut inbox) = Mailbox::new(1024, usize::MAX, driver.waker());
        let consumer = {
            let (handled, parks) = (handled.clone(), parks.clone());
            let mut driver = driver;
            std::thread::spawn(move || {
                while handled.load(Ordering::Relaxed) < STEPS + RUNS {
                    while inbox.pop().is_some() {
                        handled.fetch_add(1, Ordering::Release);
                    }
                    let done = handled.load(Ordering::Relaxed) == STEPS + RUNS;
                    if !done && inbox.prepare_sleep() {
                        parks.fetch_add(1, Ordering::Relaxed);
                        let begun = Instant::now();
                        driver.block(Some(WATCHDOG_MS)).unwrap();
                        inbox.awake();
                        driver.turn(0, true, &mut Nobody).unwrap();
                        assert!(begun.elapsed().as_millis() < u128::from(WATCHDOG_MS), "a wake was lost");
                    }
                }
            })
        };
        let hop = || Command::Leave { conn: ConnId { shard: 0, slot: 0, generation: 0 }, room_id: room() };
        for step in 1..=STEPS {
            assert!(mailbox.offer(hop()).is_ok());
            while handled.load(Ordering::Acquire) < step {
                assert!(!consumer.is_finished(), "a wake was lost");
                std::thread::yield_now();
            }
        }
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..RUNS / 2 {
                        while mailbox.offer(hop()).is_err() {
                            assert!(!consumer.is_finished(), "a wake was lost");
                            std::thread::yield_now();
                        }
                    }
                });
            }
        });
        consumer.join().unwrap();
        assert_eq!((mailbox.depth(), mailbox.bytes()), (0, 0));
        assert!(parks.load(Ordering::Relaxed) > STEPS / 10, "it parked too rarely to mean anything");
    }

    const WATCHDOG_MS: u64 = 5_000;

    fn room() -> corecast_proto::ids::RoomId {
        static ROOM: std::sync::OnceLock<corecast_proto::ids::RoomId> = std::sync::OnceLock::new();
        ROOM.get_or_init(|| "room".into()).clone()
    }

    fn sleeper() -> Epoll {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Epoll::new(listener.into(), 0).unwrap()
    }

    struct Nobody;

    impl Handler for Nobody {
        fn accepted(&mut self, _: Option<std::net::IpAddr>) -> Option<Key> {
            None
        }
        fn received(&mut self, _: Key, _: &mut [u8]) -> Flow {
            Flow::More
        }
        fn ended(&mut self, _: Key) {}
        fn writable(&mut self, _: Key) {}
        fn failed(&mut self, _: Key) {}
    }
}
