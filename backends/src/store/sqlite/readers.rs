//! A few connections that only read, on tokio's blocking threads.
//!
//! Each read is one read transaction, so it sees one state; it begins after the question
//! came, so it sees every commit that was answered before.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::{Counters, count};
use super::schema;
use crate::store::StoreError;

/// Reads at the same time. More only compete for the same disk and page cache.
const READERS: usize = 4;
/// A read that finds no free connection for so long is refused and counted.
const WAIT: Duration = Duration::from_secs(5);

pub(super) struct Readers {
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
    counters: Arc<Counters>,
}

impl Readers {
    pub(super) fn open(path: &Path, counters: Arc<Counters>) -> Result<Self, StoreError> {
        let idle = (0..READERS).map(|_| schema::open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { idle: Arc::new(Mutex::new(idle)), free: Arc::new(Semaphore::new(READERS)), counters })
    }

    /// Runs `work` in a read transaction.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let waited = tokio::time::timeout(WAIT, Arc::clone(&self.free).acquire_owned()).await;
        let permit = match waited {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(StoreError::Unavailable("the store is closed".to_owned())),
            Err(_) => {
                count(&self.counters.refused);
                return Err(StoreError::Unavailable(format!("no free reader for {WAIT:?}")));
            }
        };
        let borrowed = Borrowed::take(&self.idle, permit);
        let task = tokio::task::spawn_blocking(move || {
            let conn = borrowed.conn();
            conn.prepare_cached("BEGIN")?.execute(())?;
            let answer = work(conn);
            conn.prepare_cached("COMMIT")?.execute(())?;
            answer
        });
        task.await.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("read ended early: {error}"))))
    }

    /// Waits for the reads under way and closes the connections; later reads are refused.
    pub(super) async fn close(&self) {
        let all = u32::try_from(READERS).expect("a small constant");
        let _all = tokio::time::timeout(WAIT, self.free.acquire_many(all)).await;
        self.free.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// A connection that returns to its place however the read ends.
struct Borrowed {
    conn: Option<Connection>,
    home: Arc<Mutex<Vec<Connection>>>,
    _permit: OwnedSemaphorePermit,
}

impl Borrowed {
    fn take(home: &Arc<Mutex<Vec<Connection>>>, permit: OwnedSemaphorePermit) -> Self {
        let conn = home.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { conn, home: Arc::clone(home), _permit: permit }
    }

    fn conn(&self) -> &Connection {
        self.conn.as_ref().expect("as many permits as connections")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let Some(conn) = self.conn.take() else { return };
        if !conn.is_autocommit() {
            // The read ended in an error or a panic; an open snapshot would stop checkpoints.
            if let Err(error) = conn.execute_batch("ROLLBACK") {
                tracing::warn!(%error, "read transaction could not be ended");
            }
        }
        self.home.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
    }
}
