//! Many connections on a few threads, and how far they are.
//!
//! Calling order: [`Fleet::open`], then any number of
//! [`begin`](Fleet::begin) → messages → [`wait_received`](Fleet::wait_received) →
//! [`judge`](Fleet::judge), then drop. What is counted belongs to the last `begin`.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::connection::Knock;
use super::order::Tally;
use super::recorder::Latency;
use super::thread;

/// The threads.
pub struct Fleet {
    threads: Vec<Member>,
    progress: Arc<Progress>,
    opened: u64,
}

struct Member {
    commands: mpsc::Sender<Command>,
    wake: UnixStream,
    join: Option<JoinHandle<()>>,
}

/// Orders to a thread.
pub(super) enum Command {
    /// Open `count` connections, the first is number `first` of all. With `interval_ns` each
    /// at its moment behind `start_ns`, otherwise as fast as they come.
    Open { knock: Arc<Knock>, first: usize, count: usize, start_ns: u64, interval_ns: u64 },
    /// All lines begin behind this number; nothing is counted yet. Every `batch` numbers
    /// behind it each connection counts one batch.
    Begin { last: u64, batch: u64 },
    /// Send `sends` marked frames of `bytes`, `per_tick` a tick, to the connections in turn.
    Echo { sends: u64, per_tick: u64, bytes: usize },
    /// Answer what was found, if `last` was the last number, or what was echoed.
    Judge { last: Option<u64>, answer: mpsc::Sender<Found> },
    /// Read nothing more, or read again.
    Stall(bool),
    /// Close all connections.
    Leave { answer: mpsc::Sender<()> },
}

/// What the connections saw.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Order, loss, repeats.
    pub tally: Tally,
    /// Markers by latency.
    pub latency: Latency,
    /// Time from the intended connect to the open connection.
    pub opening: Latency,
    /// Greatest `hello` in bytes.
    pub hello_bytes: usize,
    /// Frames that are no messages.
    pub counts: Counts,
}

/// Frames that are no messages, over all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pings, answered with pongs.
    pub pings: u64,
    /// `lagging` frames.
    pub lagging: u64,
    /// `caughtUp` frames.
    pub caught_up: u64,
}

/// How far all threads are. Written once per round of events, not per frame.
pub(super) struct Progress {
    pub opened: AtomicU64,
    pub received: AtomicU64,
    pub failed: AtomicU64,
    /// Connections that have a batch whole: batch b counts at b modulo [`BATCHES`].
    pub batches: [AtomicU64; BATCHES],
    /// Frames that `Echo` sent.
    pub sent: AtomicU64,
    /// The waiter wants to hear when this sum is reached.
    wake_at: AtomicU64,
    waiter: Mutex<Option<Thread>>,
    errors: Mutex<Vec<String>>,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.pings += other.pings;
        self.lagging += other.lagging;
        self.caught_up += other.caught_up;
    }
}

impl Progress {
    fn new() -> Self {
        Self {
            opened: AtomicU64::new(0),
            received: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            batches: [const { AtomicU64::new(0) }; BATCHES],
            sent: AtomicU64::new(0),
            wake_at: AtomicU64::new(0),
            waiter: Mutex::default(),
            errors: Mutex::default(),
        }
    }

    /// Counts, and wakes the waiter when its number is reached.
    pub(super) fn count(&self, counter: &AtomicU64, more: u64) {
        let before = counter.fetch_add(more, Ordering::SeqCst);
        let wake_at = self.wake_at.load(Ordering::SeqCst);
        if before < wake_at && before + more >= wake_at {
            self.wake();
        }
    }

    /// Counts a connection that is gone, and keeps the first reasons.
    pub(super) fn fail(&self, error: &io::Error) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() < ERRORS_KEPT {
            errors.push(error.to_string());
        }
        drop(errors);
        self.failed.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waiter) = &*self.waiter.lock().unwrap_or_else(PoisonError::into_inner) {
            waiter.unpark();
        }
    }

    fn wait(&self, counter: &AtomicU64, target: u64, deadline: Instant) -> bool {
        *self.waiter.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
        self.wake_at.store(target, Ordering::SeqCst);
        loop {
            if counter.load(Ordering::SeqCst) >= target {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                return false;
            };
            if self.failed.load(Ordering::SeqCst) > 0 {
                return false;
            }
            std::thread::park_timeout(left);
        }
    }
}

impl Fleet {
    /// Starts the threads on the cores of the calling thread.
    ///
    /// # Errors
    /// No thread or descriptor left.
    pub fn start(threads: usize) -> Result<Self> {
        let progress = Arc::new(Progress::new());
        let threads = (0..threads.max(1)).map(|index| {
            let (commands, inbox) = mpsc::channel();
            let (wake, woken) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            woken.set_nonblocking(true)?;
            let mut worker = thread::Worker::new(inbox, woken, progress.clone())?;
            let builder = std::thread::Builder::new().name(format!("load-{index}"));
            let join = builder.spawn(move || worker.run())?;
            Ok(Member { commands, wake, join: Some(join) })
        });
        Ok(Self { threads: threads.collect::<io::Result<_>>()?, progress, opened: 0 })
    }

    /// Opens `count` more connections; with `per_second` at that pace, measured from now.
    ///
    /// # Errors
    /// One was refused, or they were not open by `deadline`.
    pub fn open(
        &mut self,
        knock: Knock,
        count: usize,
        per_second: Option<u64>,
        deadline: Duration,
    ) -> Result<()> {
        let until = Instant::now() + deadline;
        let knock = Arc::new(knock);
        let threads = self.threads.len();
        let mut first = self.opened as usize;
        self.opened += count as u64;
        let start_ns = crate::clock::now_ns();
        for index in 0..threads {
            let share = count / threads + usize::from(index < count % threads);
            let interval_ns = per_second.map_or(0, |rate| 1_000_000_000 * threads as u64 / rate.max(1));
            let knock = knock.clone();
            self.tell(index, Command::Open { knock, first, count: share, start_ns, interval_ns })?;
            first += share;
        }
        if !self.progress.wait(&self.progress.opened, self.opened, until) {
            let opened = self.progress.opened.load(Ordering::SeqCst);
            bail!("{opened} of {} connections are open; {}", self.opened, self.errors());
        }
        Ok(())
    }

    /// Connections that were opened.
    pub fn connections(&self) -> u64 {
        self.opened
    }

    /// Begins a new count: the next number of every line is `last` + 1, and `batch` messages
    /// are one batch.
    ///
    /// # Errors
    /// A thread ended.
    pub fn begin(&self, last: u64, batch: u64) -> Result<()> {
        self.progress.received.store(0, Ordering::SeqCst);
        self.progress.sent.store(0, Ordering::SeqCst);
        self.progress.batches.iter().for_each(|batch| batch.store(0, Ordering::SeqCst));
        for index in 0..self.threads.len() {
            self.tell(index, Command::Begin { last, batch: batch.max(1) })?;
        }
        // Done once a question behind it is answered.
        self.judge(Some(last)).map(drop)
    }

    /// Sends `per_second` marked frames of `bytes`, in ticks of a millisecond, until `sends`
    /// are sent; each connection gets its own back.
    ///
    /// # Errors
    /// A thread ended.
    pub fn echo(&self, sends: u64, per_second: u64, bytes: usize) -> Result<()> {
        let threads = self.threads.len() as u64;
        let per_tick = (per_second / 1_000 / threads).max(1);
        for index in 0..self.threads.len() {
            self.tell(index, Command::Echo { sends: sends / threads, per_tick, bytes })?;
        }
        Ok(())
    }

    /// Markers received since `begin`.
    pub fn received(&self) -> u64 {
        self.progress.received.load(Ordering::SeqCst)
    }

    /// Waits until `target` markers have come. `false`: they did not in time, or a
    /// connection was lost.
    pub fn wait_received(&self, target: u64, deadline: Duration) -> bool {
        self.progress.wait(&self.progress.received, target, Instant::now() + deadline)
    }

    /// Waits until every connection has batch `batch` (the first is 0) whole. At most
    /// [`BATCHES`] − 1 batches may be under way. `false`: as above.
    pub fn wait_batch(&self, batch: u64, deadline: Duration) -> bool {
        let counter = &self.progress.batches[(batch % BATCHES as u64) as usize];
        // The counter goes on from round to round.
        let target = self.opened * (batch / BATCHES as u64 + 1);
        self.progress.wait(counter, target, Instant::now() + deadline)
    }

    /// Connections lost, and the first reasons.
    pub fn lost_connections(&self) -> (u64, String) {
        (self.progress.failed.load(Ordering::SeqCst), self.errors())
    }

    /// What was found since `begin`, when `last` was the last number sent (`None`: each
    /// connection's own last echo).
    ///
    /// # Errors
    /// A thread ended.
    pub fn judge(&self, last: Option<u64>) -> Result<Found> {
        let (answer, answers) = mpsc::channel();
        for index in 0..self.threads.len() {
            self.tell(index, Command::Judge { last, answer: answer.clone() })?;
        }
        drop(answer);
        let mut all = Found::default();
        for _ in 0..self.threads.len() {
            let found = answers.recv().context("a thread of the client ended")?;
            all.tally.add(found.tally);
            all.latency.add(&found.latency);
            all.opening.add(&found.opening);
            all.hello_bytes = all.hello_bytes.max(found.hello_bytes);
            all.counts.add(found.counts);
        }
        Ok(all)
    }

    /// From now on nothing is read, or everything again: what waits in the sockets too.
    ///
    /// # Errors
    /// A thread ended.
    pub fn stall(&self, stalled: bool) -> Result<()> {
        (0..self.threads.len()).try_for_each(|index| self.tell(index, Command::Stall(stalled)))
    }

    /// Closes all connections, with a reset each.
    ///
    /// # Errors
    /// A thread ended.
    pub fn leave(&mut self) -> Result<()> {
        let (answer, answers) = mpsc::channel();
        for index in 0..self.threads.len() {
            self.tell(index, Command::Leave { answer: answer.clone() })?;
        }
        for _ in 0..self.threads.len() {
            answers.recv().context("a thread of the client ended")?;
        }
        self.opened = 0;
        self.progress.opened.store(0, Ordering::SeqCst);
        Ok(())
    }

    fn tell(&self, index: usize, command: Command) -> Result<()> {
        let member = &self.threads[index];
        member.commands.send(command).ok().context("a thread of the client ended")?;
        // A full pipe has woken it already.
        let _ = io::Write::write(&mut &member.wake, &[1]);
        Ok(())
    }

    fn errors(&self) -> String {
        let errors = self.progress.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.is_empty() { "no connection was lost".to_owned() } else { errors.join("; ") }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.threads {
            // The thread ends when its commands do; the wake makes it look.
            member.commands = mpsc::channel().0;
            let _ = io::Write::write(&mut &member.wake, &[1]);
            if let Some(join) = member.join.take() {
                let _ = join.join();
            }
        }
    }
}

/// Batches that are told apart at a time.
pub const BATCHES: usize = 64;
/// Reasons kept of lost connections.
const ERRORS_KEPT: usize = 4;
