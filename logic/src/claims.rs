//! Rows of dead nodes: found, and made this node's own, so that its relay appends them.
//!
//! ```text
//!  owners of rows ─▶ others ─▶ lease absent for 10 s ─────────────▶ lock ─▶ claim in batches ─▶ relay
//!                          └─▶ no leases here, rows older than 30 s ─┘
//! ```
//!
//! A node that lives keeps its rows: only the registry itself is asked, at this moment, and
//! again before each batch. One that cannot be reached, or that does not know ourselves (it
//! was emptied, or lost us too), is not believed about others. The absence has to last, so
//! that a node that restarts, or was only told late, goes on with its own.
//!
//! A node that was stopped for so long and wakes up may append rows that were claimed: a
//! record may stand in the log twice, and whoever reads it drops repeats by their numbers.

use std::collections::HashMap;
use std::time::Duration;

use corecast_backends::registry::{Presence, Registry, RegistryError, Role};
use corecast_backends::store::{OutboxOwner, Store, StoreError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::relay::Claimed;

/// Time between two looks; jitter takes off up to half, so that nodes do not look together.
const PERIOD: Duration = Duration::from_secs(4);
/// A lease must be absent for this long without a break: twice the usual lease time.
const ABSENCE: Duration = Duration::from_secs(10);
/// Where nobody knows who lives: the age of the oldest row of a node that is taken for dead.
const AGE_MAX: Duration = Duration::from_secs(30);
/// Rows of one transaction.
const BATCH_ROWS: u32 = 500;
/// A call of the store or the registry takes no longer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Who waits longer for the lock leaves the rows to its holder.
const LOCK_DEADLINE: Duration = Duration::from_secs(2);
/// One node claims at a time; others would only meet its row locks.
const LOCK: &str = "claims";

/// How long absence or age must last before rows are claimed.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time between two looks.
    pub period: Duration,
    /// A lease must be absent for this long.
    pub absence: Duration,
    /// Age of the oldest row where nobody knows who lives.
    pub age: Duration,
}

impl Default for Patience {
    /// 4 s, 10 s, 30 s.
    fn default() -> Self {
        Self { period: PERIOD, absence: ABSENCE, age: AGE_MAX }
    }
}

/// Claims rows of dead nodes for one node.
pub struct Claims<S, R> {
    store: S,
    registry: R,
    own: String,
    claimed: Claimed,
    metrics: Metrics,
    patience: Patience,
    /// Owners without a lease, and since when they have been seen so.
    absent: HashMap<String, Instant>,
}

/// Why nothing was claimed this time.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl<S: Store, R: Registry> Claims<S, R> {
    /// For the node `own`, whose relay gave `claimed`.
    pub fn new(
        store: S,
        registry: R,
        own: String,
        claimed: Claimed,
        metrics: Metrics,
        patience: Patience,
    ) -> Self {
        Self { store, registry, own, claimed, metrics, patience, absent: HashMap::new() }
    }

    /// Looks and claims until `shutdown`.
    ///
    /// # Cancel safety
    /// Dropped, a claim under way may still happen: the rows are this node's own then.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut stuck = false;
        loop {
            let pause = self.patience.period.mul_f64(rand::random_range(0.5..=1.0));
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let Some(looked) = shutdown.run_until_cancelled(self.look()).await else { return };
            match looked {
                Ok(()) => stuck = false,
                Err(error) => {
                    // Whoever could not be asked about was not absent all the time.
                    self.absent.clear();
                    if !std::mem::replace(&mut stuck, true) {
                        tracing::warn!(%error, "rows of other nodes are not looked after meanwhile");
                    }
                }
            }
        }
    }

    async fn look(&mut self) -> Result<(), Stuck> {
        let owners = in_time(self.store.outbox_owners()).await?;
        let (own, others): (Vec<_>, Vec<_>) = owners.into_iter().partition(|owner| owner.owner == self.own);
        self.absent.retain(|absent, _| others.iter().any(|other| other.owner == *absent));
        if others.is_empty() {
            return Ok(());
        }
        if self.presence(&self.own).await? == Presence::Absent {
            self.absent.clear();
            return Ok(());
        }
        // With a backlog of our own the log is what is slow, and others may be as slow. Half
        // the age is enough: their rows may have begun to wait some time before ours did.
        let is_behind = own.iter().any(|own| is_older(own, self.patience.age / 2));
        for other in others {
            if self.is_dead(&other, is_behind).await? {
                self.claim(&other.owner).await?;
            }
        }
        Ok(())
    }

    async fn is_dead(&mut self, other: &OutboxOwner, is_behind: bool) -> Result<bool, Stuck> {
        match self.presence(&other.owner).await? {
            Presence::Present => {
                self.absent.remove(&other.owner);
                Ok(false)
            }
            Presence::Absent => {
                let since = self.absent.entry(other.owner.clone()).or_insert_with(Instant::now);
                Ok(since.elapsed() >= self.patience.absence)
            }
            Presence::Unknown => Ok(!is_behind && is_older(other, self.patience.age)),
        }
    }

    async fn claim(&mut self, owner: &str) -> Result<(), Stuck> {
        let Ok(lock) = timeout(LOCK_DEADLINE, self.registry.lock(LOCK)).await else { return Ok(()) };
        let lock = lock?;
        let mut rows = 0;
        while !lock.is_lost() && self.presence(owner).await? != Presence::Present {
            let batch = in_time(self.store.claim_outbox(owner, &self.own, BATCH_ROWS)).await?;
            rows += batch;
            self.metrics.relay_claimed_rows.inc_by(batch);
            self.claimed.tell();
            if batch < u64::from(BATCH_ROWS) {
                break;
            }
        }
        lock.end().await;
        self.absent.remove(owner);
        if rows > 0 {
            tracing::warn!(owner, rows, "outbox rows of a dead node claimed");
        }
        Ok(())
    }

    async fn presence(&self, id: &str) -> Result<Presence, RegistryError> {
        let late = |_| Err(RegistryError::Unavailable(format!("no answer in {DEADLINE:?}")));
        timeout(DEADLINE, self.registry.presence(Role::Logic, id)).await.unwrap_or_else(late)
    }
}

fn is_older(owner: &OutboxOwner, age: Duration) -> bool {
    Duration::from_millis(owner.oldest_age_ms) > age
}

async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::Unknown(format!("no answer in {DEADLINE:?}")));
    timeout(DEADLINE, call).await.unwrap_or_else(late)
}
