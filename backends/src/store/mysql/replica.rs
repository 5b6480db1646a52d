//! Pages of history from a server that follows the primary, where it has followed far enough.
//!
//! The head comes from the primary. A page is believed only when the replica's room is of the
//! same epoch and the page is contiguous and as long as the head or the anchor demands;
//! otherwise the primary is read. A replica that fails rests, so that it delays no page twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::counters::{Counters, count};
use super::fault::Fault;
use super::pool::Pool;
use super::read;
use super::target::Target;
use crate::store::{Message, StoreOptions};

/// A page that takes longer comes from the primary.
const DEADLINE: Duration = Duration::from_secs(1);
/// After a failure nobody asks for so long.
const REST: Duration = Duration::from_secs(5);

pub(super) struct Replica {
    pool: Pool,
    resting_until: Mutex<Instant>,
    /// For the log: one line when it stops and one when it is back.
    down: AtomicBool,
}

impl Replica {
    pub(super) fn new(target: Target, options: &StoreOptions) -> Self {
        let pool = Pool::new(target, options, Arc::new(Counters::default()));
        Self { pool, resting_until: Mutex::new(Instant::now()), down: AtomicBool::new(false) }
    }

    /// Messages above `after` up to `last`, all of them, or `None`.
    pub(super) async fn range(
        &self,
        counters: &Counters,
        room_id: &str,
        epoch: u64,
        after: u64,
        last: u64,
    ) -> Option<Vec<Message>> {
        if *self.resting_until() > Instant::now() {
            return None;
        }
        let page = match tokio::time::timeout(DEADLINE, self.page(room_id, epoch, after, last)).await {
            Ok(Ok(page)) => {
                if self.down.swap(false, Ordering::Relaxed) {
                    tracing::info!("replica answers again");
                }
                page
            }
            Ok(Err(fault)) => self.rest(&fault.to_string()),
            Err(_) => self.rest("no answer in time"),
        };
        let whole = page.filter(|messages| messages.len() as u64 == last.saturating_sub(after));
        count(if whole.is_some() { &counters.replica_pages } else { &counters.replica_misses });
        whole
    }

    async fn page(
        &self,
        room_id: &str,
        epoch: u64,
        after: u64,
        last: u64,
    ) -> Result<Option<Vec<Message>>, Fault> {
        let mut lease = self.pool.take().await?;
        let found = async {
            let session = lease.session();
            match read::head_of_room(session, room_id).await? {
                Some(head) if head.epoch == epoch => {
                    Ok(Some(read::range(session, room_id, after, last).await?))
                }
                _ => Ok(None),
            }
        };
        let found = found.await;
        match &found {
            Ok(_) => lease.give_back(),
            Err(fault) => lease.end(fault),
        }
        found
    }

    fn rest(&self, reason: &str) -> Option<Vec<Message>> {
        if !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(reason, "replica does not answer, history comes from the primary");
        }
        *self.resting_until() = Instant::now() + REST;
        None
    }

    fn resting_until(&self) -> MutexGuard<'_, Instant> {
        self.resting_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
