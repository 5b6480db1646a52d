//! Connections, at most so many, each known to live when it is handed out.
//!
//! ```text
//! take ── a place (waits, then refuses) ── idle one, pinged unless just used ── or a new one
//! give back ── to the idle ones      drop ── closed: nobody knows what it was doing
//! ```
//!
//! The server ends a connection after 10 s of silence, so a keeper pings those that nobody
//! uses, and lets the ones go that were of no use for a minute. After one connection was lost
//! all the others are suspects: each is pinged before it is used again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::barrier::Barrier;
use super::counters::{Counters, Raised, count, value};
use super::fault::Fault;
use super::session::Session;
use super::target::Target;
use crate::store::{PoolUse, StoreOptions};

/// A connection that answered so recently is not pinged before its use.
const TRUSTED: Duration = Duration::from_millis(200);
/// How often the keeper looks, and the silence after which it pings.
const KEEP: Duration = Duration::from_secs(2);
/// Of no use for so long: closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The connections to one server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    places: Arc<Semaphore>,
    max: u32,
    wait: Duration,
    idle: Mutex<Idle>,
    counters: Arc<Counters>,
    barrier: Barrier,
}

struct Idle {
    /// The one that was used last stands at the end and is used first.
    sessions: VecDeque<Session>,
    /// What was seen before is a suspect.
    suspect: Instant,
}

/// A connection in use. Dropped without [`give_back`](Self::give_back) it is closed.
pub(super) struct Lease {
    session: Option<Session>,
    /// It had been used before.
    pub(super) reused: bool,
    inner: Arc<Inner>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    /// Opens no connection yet. Must be called inside a tokio runtime.
    pub(super) fn new(target: Target, options: &StoreOptions, counters: Arc<Counters>) -> Self {
        let inner = Arc::new(Inner {
            target,
            places: Arc::new(Semaphore::new(options.pool_max as usize)),
            max: options.pool_max,
            wait: options.pool_wait,
            idle: Mutex::new(Idle { sessions: VecDeque::new(), suspect: Instant::now() }),
            counters,
            barrier: Barrier::default(),
        });
        tokio::spawn(keep(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// A connection that lives, waiting for a place where all are in use.
    ///
    /// # Errors
    /// [`Fault::Unreachable`], or [`Fault::Fatal`] for a server that refuses us for good.
    pub(super) async fn take(&self) -> Result<Lease, Fault> {
        let inner = &self.inner;
        let place = self.place().await?;
        let mut lease = Lease { session: None, reused: true, inner: Arc::clone(inner), _place: place };
        while let Some((mut session, trusted)) = inner.pop() {
            if trusted || session.ping().await.is_ok() {
                lease.session = Some(session);
                return Ok(lease);
            }
            inner.lost();
        }
        lease.session = Some(Session::open(&inner.target, &inner.counters).await?);
        lease.reused = false;
        Ok(lease)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Fault> {
        let Inner { places, counters, wait, max, .. } = &*self.inner;
        let closed = |_| Fault::Unreachable("the store is closed".to_owned());
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Raised::new(&counters.waiting);
        let started = Instant::now();
        let waited = tokio::time::timeout(*wait, Arc::clone(places).acquire_owned()).await;
        counters.waited(started.elapsed());
        match waited {
            Ok(place) => place.map_err(closed),
            Err(_) => {
                count(&counters.wait_timeouts);
                Err(Fault::Unreachable(format!("all {max} connections were in use for {wait:?}")))
            }
        }
    }

    /// What its reads wait for before they are told.
    pub(super) fn barrier(&self) -> &Barrier {
        &self.inner.barrier
    }

    /// Closes what is idle; what is in use is closed when it is given back.
    pub(super) async fn close(&self) {
        self.inner.places.close();
        let sessions = std::mem::take(&mut self.inner.idle().sessions);
        futures::future::join_all(sessions.into_iter().map(Session::close)).await;
    }

    /// What it is doing now and has counted.
    pub(super) fn usage(&self) -> PoolUse {
        let Inner { places, max, counters, .. } = &*self.inner;
        PoolUse {
            max: *max,
            in_use: max.saturating_sub(u32::try_from(places.available_permits()).unwrap_or(*max)),
            idle: u32::try_from(self.inner.idle().sessions.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(value(&counters.waiting)).unwrap_or(u32::MAX),
            waits: value(&counters.waits),
            wait_time: Duration::from_micros(value(&counters.wait_micros)),
            wait_timeouts: value(&counters.wait_timeouts),
            opened: value(&counters.opened),
            lost: value(&counters.lost),
        }
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, and whether it needs no ping.
    fn pop(&self) -> Option<(Session, bool)> {
        let mut idle = self.idle();
        let session = idle.sessions.pop_back()?;
        let trusted = session.seen > idle.suspect && session.seen.elapsed() < TRUSTED;
        Some((session, trusted))
    }

    fn lost(&self) {
        count(&self.counters.lost);
        self.idle().suspect = Instant::now();
    }
}

impl Lease {
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("a lease holds its session until it is given back")
    }

    /// After a whole answer: the connection is in step with the server, outside a transaction.
    pub(super) fn give_back(mut self) {
        if let Some(mut session) = self.session.take()
            && !self.inner.places.is_closed()
        {
            session.seen = Instant::now();
            session.worked = session.seen;
            self.inner.idle().sessions.push_back(session);
        }
    }

    /// After work that ended in this fault.
    pub(super) fn end(self, fault: &Fault) {
        if fault.spares_the_connection() {
            self.give_back();
        } else {
            self.inner.lost();
        }
    }
}

/// Pings what nobody uses, until the pool is dropped or closed.
async fn keep(pool: Weak<Inner>) {
    loop {
        tokio::time::sleep(KEEP).await;
        let Some(inner) = pool.upgrade() else { return };
        if inner.places.is_closed() {
            return;
        }
        let waiting = inner.idle().sessions.len();
        for _ in 0..waiting {
            // A place, so that there are never more connections than allowed.
            let Ok(_place) = Arc::clone(&inner.places).try_acquire_owned() else { break };
            let Some(mut session) = inner.idle().sessions.pop_front() else { break };
            if session.worked.elapsed() > IDLE_MAX {
                session.close().await;
            } else if session.seen.elapsed() < KEEP || session.ping().await.is_ok() {
                // To the front: it was not used.
                inner.idle().sessions.push_front(session);
                inner.idle().sessions.rotate_left(1);
            } else {
                inner.lost();
            }
        }
    }
}
