//! The thread of a shard: a glommio executor pinned to its core, or, where io_uring is
//! refused, a plain pinned thread. Both run the same loop and block in the driver itself:
//! parking through the executor costs 21–35 µs of CPU a wake, blocking in epoll 5–7, and
//! no other task lives on the core. Where io_uring is allowed, sends go through a ring of
//! their own, unless `gateway.uring_sends` says otherwise.
//!
//! A shard that panics, or whose driver breaks, ends the process: its listener would go on
//! swallowing connections that nobody serves.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, warn};

use super::Error;
use super::driver::Driver;
use super::driver::epoll::Epoll;
use super::driver::uring::{SendRing, probe_uring};
use super::listeners::Listeners;
use super::mailbox::{MAILBOX_BYTES, Mailbox};
use super::metrics::Metrics;
use super::turn::Shard;
use crate::config::{Config, DriverChoice};
use crate::core::connections::{Connections, Places};
use crate::core::handshake::Rules;
use crate::core::{Command, Event, Wire};

/// A running shard.
pub struct ShardHandle {
    /// The way in.
    pub mailbox: Mailbox,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    thread: Thread,
}

enum Thread {
    Glommio(ExecutorJoinHandle<()>),
    Plain(thread::JoinHandle<()>),
}

/// A thread that waits for its shard.
struct Idle {
    thread: Thread,
    host: &'static str,
    start: mpsc::Sender<Shard<Epoll>>,
}

impl ShardHandle {
    /// Waits for the end of the shard, which comes after [`Event::Drained`] or when the
    /// receiver of its events is gone. Blocks: not for a tokio worker.
    pub fn join(self) {
        // A shard that failed has ended the process.
        match self.thread {
            Thread::Glommio(handle) => drop(handle.join()),
            Thread::Plain(handle) => drop(handle.join()),
        }
    }
}

pub(super) fn spawn(
    config: Arc<Config>,
    listeners: Listeners,
    echo: bool,
    events: UnboundedSender<Event>,
) -> Result<Vec<ShardHandle>, Error> {
    let mut uring = may_use_uring(config.driver)?;
    let places = Places::new(config.limits.connections);
    let mut handles = Vec::new();
    for (index, (cpu, listener)) in listeners.sockets.into_iter().enumerate() {
        let number = u16::try_from(index).map_err(|_| Error::Core(cpu))?;
        let start = || -> Result<ShardHandle, Error> {
            let idle = idle_thread(cpu, number, config.driver, &mut uring)?;
            let failed = |error: io::Error| Error::Start { cpu, message: error.to_string() };
            let mut driver = Epoll::new(listener, config.limits.socket_send_bytes).map_err(failed)?;
            if uring && config.uring_sends {
                driver = with_ring(driver, config.driver)?;
            }
            let (mailbox, inbox) = Mailbox::new(config.limits.mailbox, MAILBOX_BYTES, driver.waker());
            let metrics = Arc::new(Metrics::new(idle.host, driver.name()));
            let rules = Rules::new(&config.origins, echo).behind(&config.trusted_proxies);
            let mut core = Connections::new(number, config.limits.clone(), rules, places.clone(), 0);
            core.set_send_per_room(config.send_per_room);
            let shard = Shard::new(number, driver, core, inbox, events.clone(), metrics.clone());
            // The thread waits for exactly this; if it died, its join says why.
            if idle.start.send(shard).is_err() {
                return Err(Error::Start { cpu, message: "its thread ended".to_owned() });
            }
            Ok(ShardHandle { mailbox, metrics, thread: idle.thread })
        };
        match start() {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                for handle in &handles {
                    let end = Command::Drain { within: Duration::ZERO, notice: Wire::ping() };
                    let _ = handle.mailbox.offer(end);
                }
                return Err(error);
            }
        }
    }
    Ok(handles)
}

fn may_use_uring(choice: DriverChoice) -> Result<bool, Error> {
    if choice == DriverChoice::Epoll {
        return Ok(false);
    }
    match probe_uring() {
        Ok(()) => Ok(true),
        Err(error) if choice == DriverChoice::Uring => Err(Error::Uring(error.to_string())),
        Err(error) => {
            warn_plain(&error.to_string());
            Ok(false)
        }
    }
}

/// Once per process start: from here on no shard tries again.
fn warn_plain(reason: &str) {
    warn!(
        reason,
        allow = ALLOW,
        cost = "shards run on plain pinned threads, and each send is a system call of its own",
        "io_uring is refused"
    );
}

/// The host may have its rings and this one still be refused: locked memory, an old kernel.
fn with_ring(driver: Epoll, choice: DriverChoice) -> Result<Epoll, Error> {
    match SendRing::new() {
        Ok(ring) => Ok(driver.with_ring(ring)),
        Err(error) if choice == DriverChoice::Uring => Err(Error::Uring(error.to_string())),
        Err(error) => {
            let reason = error.to_string();
            warn!(reason, allow = ALLOW, cost = "each send is a system call of its own", "no ring for sends");
            Ok(driver)
        }
    }
}

/// A pinned thread that waits for its shard. With `"auto"`, an executor that cannot start
/// (locked memory, for one) makes this and all later shards plain threads.
fn idle_thread(cpu: usize, number: u16, choice: DriverChoice, uring: &mut bool) -> Result<Idle, Error> {
    if *uring {
        match idle_glommio(cpu, number) {
            Ok(idle) => return Ok(idle),
            Err(reason) if choice == DriverChoice::Uring => return Err(Error::Uring(reason)),
            Err(reason) => {
                warn_plain(&reason);
                *uring = false;
            }
        }
    }
    idle_plain(cpu, number)
}

fn idle_glommio(cpu: usize, number: u16) -> Result<Idle, String> {
    let (start, shards) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    let handle = LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(&format!("shard-{number}"))
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .spawn(move || async move {
            let _ = ready.send(());
            run(&shards);
        })
        .map_err(|error| error.to_string())?;
    match is_ready.recv_timeout(START_TIME) {
        Ok(()) => Ok(Idle { thread: Thread::Glommio(handle), host: "glommio", start }),
        Err(mpsc::RecvTimeoutError::Timeout) => Err("the executor did not start in time".to_owned()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(handle.join().map_or_else(|error| error.to_string(), |()| "the executor ended".to_owned()))
        }
    }
}

fn idle_plain(cpu: usize, number: u16) -> Result<Idle, Error> {
    let (start, shards) = mpsc::channel();
    let handle = thread::Builder::new()
        .name(format!("shard-{number}"))
        .spawn(move || {
            if !core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
                warn!(cpu, "shard not pinned to its core");
            }
            run(&shards);
        })
        .map_err(|error| Error::Start { cpu, message: error.to_string() })?;
    Ok(Idle { thread: Thread::Plain(handle), host: "thread", start })
}

/// The shard's whole life on its thread.
fn run(shards: &mpsc::Receiver<Shard<Epoll>>) {
    // No shard comes when the start failed elsewhere.
    let Ok(mut shard) = shards.recv() else { return };
    let reason = match catch_unwind(AssertUnwindSafe(|| shard.run())) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "panic".to_owned(),
    };
    error!(reason, "a shard cannot go on: the process ends");
    std::process::abort();
}

/// What lets a process use io_uring.
const ALLOW: &str = "sysctl kernel.io_uring_disabled=0, a seccomp profile that admits io_uring_setup, \
                     io_uring_enter and io_uring_register, and enough RLIMIT_MEMLOCK";
/// Least that glommio takes; the shard does no file I/O.
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Entries of the executor's rings.
const RING_DEPTH: usize = 128;
/// An executor that is not up by then does not come.
const START_TIME: Duration = Duration::from_secs(10);
