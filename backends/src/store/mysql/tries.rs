//! How often a piece of work is tried, and what its last error means.
//!
//! ```text
//! read         connection lost                → once more on another
//! write        deadlock, lock wait            → rolled back, once more, a few times
//!              a key that is stored already   → the same
//!              lost at its first statement    → once more on another, if it had been idle
//!              lost before COMMIT was sent    → nothing happened: unavailable
//!              COMMIT was sent, no answer     → again from the start on another connection
//! statement    deadlock, lock wait            → once more;  lost → unknown
//! ```
//! A read is answered behind a [`Barrier`], as is a write that wrote nothing.
//!
//! The repeat after a COMMIT without an answer is no second write. It takes the same locks
//! first, so it waits until the server has ended the first transaction one way or the other;
//! then it finds what was stored by its keys, and stores the rest. Only where that, too, gets
//! no answer in time the outcome is unknown.

use std::time::{Duration, Instant};

use super::barrier::{Barrier, Writing};
use super::counters::{Counters, count};
use super::fault::Fault;
use super::pool::{Lease, Pool};
use super::session::Session;

/// Tries of one transaction that meets deadlocks; each is a few milliseconds.
const CONFLICTS: u32 = 8;
/// All tries of a write together, lock waits and reconnects included. Below the deadline that
/// callers have, so that they hear what happened.
const BUDGET: Duration = Duration::from_secs(7);
/// The first and the longest pause before a repeat; jitter takes off up to half.
const PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// What a piece of work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Statements that only read, and whose answer holds nothing that others go by: accounts
    /// and sessions, which nobody has before they were committed.
    Peek,
    /// Statements that only read, each a snapshot of its own.
    Read,
    /// Statements that read one state.
    Snapshot,
    /// A transaction. The same again answers the same: it looks its keys up first.
    Write,
    /// One statement that writes.
    Statement,
}

/// The tries of one piece of work; `on!` drives it.
pub(super) struct Tries<'a> {
    pool: &'a Pool,
    counters: &'a Counters,
    kind: Kind,
    started: Instant,
    conflicts: u32,
    pause: Duration,
    /// The connection had been idle: it may have been lost long ago. What is read, or a
    /// transaction of which nothing was answered, may be repeated on another.
    repeat_lost: bool,
    /// A COMMIT was sent and not answered.
    unknown: Option<String>,
    /// The same again would not answer the same.
    once: bool,
    /// While a transaction is open that will write.
    writing: Option<Writing<'a>>,
}

/// Runs work on a session of the pool, as often as its kind allows:
/// `on!(self.read(), session => rooms(session))`. The work is evaluated anew each time.
///
/// A macro, since an async closure over borrowed arguments cannot promise a `Send` future.
macro_rules! on {
    ($tries:expr, $session:ident => $work:expr) => {{
        let mut tries = $tries;
        loop {
            let ended = match tries.open().await {
                Ok(mut lease) => {
                    let $session = lease.session();
                    let done = $work.await;
                    tries.close(lease, done).await
                }
                Err(fault) => Err(fault),
            };
            if let Some(answer) = tries.settle(ended).await {
                break answer;
            }
        }
    }};
}
pub(super) use on;

impl<'a> Tries<'a> {
    pub(super) fn new(pool: &'a Pool, counters: &'a Counters, kind: Kind) -> Self {
        Self {
            pool,
            counters,
            kind,
            started: Instant::now(),
            conflicts: 0,
            pause: PAUSE,
            repeat_lost: false,
            unknown: None,
            once: false,
            writing: None,
        }
    }

    /// Work without a key: after a COMMIT without an answer it is not begun again.
    pub(super) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// A connection on which the work may begin.
    pub(super) async fn open(&mut self) -> Result<Lease, Fault> {
        loop {
            let mut lease = self.pool.take().await?;
            self.repeat_lost = lease.reused;
            let begun = match self.kind {
                Kind::Peek | Kind::Read => Ok(()),
                Kind::Statement => {
                    lease.session().wrote = false;
                    Ok(())
                }
                // The primary's state of one moment, whatever is committed meanwhile.
                Kind::Snapshot => {
                    let sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
                               START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
                    lease.session().text(sql).await
                }
                Kind::Write => {
                    self.writing = Some(self.pool.barrier().writing());
                    lease.session().begin();
                    Ok(())
                }
            };
            match begun {
                Ok(()) => return Ok(lease),
                Err(fault) => {
                    let stale = lease.reused && matches!(fault, Fault::Lost(_));
                    lease.end(&fault);
                    // Nothing was begun, and the next one is pinged first.
                    if !stale {
                        return Err(fault);
                    }
                }
            }
        }
    }

    /// Ends what [`open`](Self::open) began.
    pub(super) async fn close<T>(&mut self, mut lease: Lease, done: Result<T, Fault>) -> Result<T, Fault> {
        let done = match (self.kind, done) {
            (Kind::Peek, done) => done,
            (Kind::Read, Ok(value)) => self.barrier().pass(lease.session()).await.map(|()| value),
            (Kind::Snapshot, Ok(value)) => {
                let ended = lease.session().text("COMMIT").await;
                match ended {
                    Ok(()) => self.barrier().pass(lease.session()).await.map(|()| value),
                    Err(fault) => Err(fault),
                }
            }
            (Kind::Statement, Ok(value)) => self.written(lease.session()).await.map(|()| value),
            (Kind::Read | Kind::Statement, Err(fault)) => Err(fault),
            (Kind::Write, Ok(value)) => match lease.session().commit().await {
                Ok(()) => {
                    if !lease.session().wrote {
                        // Nobody waits for this one, itself least of all.
                        self.writing = None;
                    }
                    let written = self.written(lease.session()).await;
                    written.map(|()| value).map_err(|fault| Fault::Unknown(fault.to_string()))
                }
                Err(fault) => Err(fault),
            },
            (Kind::Snapshot, Err(fault)) => Err(fault),
            (Kind::Write, Err(fault)) => {
                self.repeat_lost &= lease.session().is_at_begin();
                Err(fault)
            }
        };
        if let Err(fault) = &done
            && matches!(self.kind, Kind::Snapshot | Kind::Write)
            && fault.spares_the_connection()
            && let Err(lost) = lease.session().roll_back().await
        {
            self.writing = None;
            lease.end(&lost);
            return done;
        }
        self.writing = None;
        match &done {
            Ok(_) => lease.give_back(),
            Err(fault) => lease.end(fault),
        }
        done
    }

    /// After a commit: it proves that what came before it is on the disk. One that wrote
    /// nothing answers with what others wrote, a repeat for instance, and proves nothing.
    async fn written(&self, session: &mut Session) -> Result<(), Fault> {
        if !session.wrote {
            return self.barrier().pass(session).await;
        }
        self.barrier().note(session.proof());
        Ok(())
    }

    fn barrier(&self) -> &Barrier {
        self.pool.barrier()
    }

    /// The answer, or `None`: once more.
    pub(super) async fn settle<T>(&mut self, ended: Result<T, Fault>) -> Option<Result<T, Fault>> {
        let fault = match ended {
            Ok(value) => return Some(Ok(value)),
            Err(fault) => fault,
        };
        let again = match (&fault, self.kind) {
            (Fault::Lost(_), Kind::Peek | Kind::Read | Kind::Snapshot) => {
                std::mem::take(&mut self.repeat_lost)
            }
            (Fault::Lost(text), Kind::Statement) => return Some(Err(Fault::Unknown(text.clone()))),
            (Fault::Unknown(text), _) => {
                count(&self.counters.unknown_commits);
                self.unknown = Some(text.clone());
                !self.once
            }
            // Whoever met the same key first is committed now: the repeat finds it.
            (Fault::Conflict(_) | Fault::Duplicate(_), Kind::Write | Kind::Statement) => {
                self.conflicts += 1;
                self.conflicts <= CONFLICTS
            }
            (Fault::Lost(_) | Fault::Unreachable(_) | Fault::Busy(_), Kind::Write) => {
                let stale = std::mem::take(&mut self.repeat_lost) && matches!(fault, Fault::Lost(_));
                stale || self.unknown.is_some()
            }
            _ => false,
        };
        if again && self.started.elapsed() + self.pause < BUDGET {
            if self.kind == Kind::Write {
                count(&self.counters.retries);
            }
            tokio::time::sleep(self.pause.mul_f64(rand::random_range(0.5..=1.0))).await;
            self.pause = (self.pause * 2).min(PAUSE_MAX);
            return None;
        }
        Some(Err(match self.unknown.take() {
            Some(text) => Fault::Unknown(text),
            None => fault,
        }))
    }
}
