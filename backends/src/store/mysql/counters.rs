//! What the store on MySQL counts.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one store since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) statements: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) unknown_commits: AtomicU64,
    pub(super) refused_frames: AtomicU64,
    pub(super) waiting: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) wait_micros: AtomicU64,
    pub(super) wait_timeouts: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) barriers: AtomicU64,
    pub(super) replica_pages: AtomicU64,
    pub(super) replica_misses: AtomicU64,
    /// It was said that the server may lose what it acknowledged.
    pub(super) told_lossy: AtomicBool,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MysqlCounters {
    /// Statements run, a round trip each. One that is new to its connection costs another, to
    /// be prepared.
    pub statements: u64,
    /// Times a whole transaction was tried again, after a deadlock or a lock wait.
    pub retries: u64,
    /// Commits whose answer was lost, so that their keys were looked up.
    pub unknown_commits: u64,
    /// Frames that could not be stored, found by halving their batch.
    pub refused_frames: u64,
    /// Commits made only because what was read had to be on the disk before it was told.
    pub barriers: u64,
    /// Pages of history that the replica answered.
    pub replica_pages: u64,
    /// Pages that the replica lacked or answered with a hole.
    pub replica_misses: u64,
}

impl Counters {
    pub(super) fn read(&self) -> MysqlCounters {
        MysqlCounters {
            statements: value(&self.statements),
            retries: value(&self.retries),
            unknown_commits: value(&self.unknown_commits),
            refused_frames: value(&self.refused_frames),
            barriers: value(&self.barriers),
            replica_pages: value(&self.replica_pages),
            replica_misses: value(&self.replica_misses),
        }
    }

    pub(super) fn waited(&self, time: Duration) {
        count(&self.waits);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.wait_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn value(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Raises a gauge for as long as it lives, whatever ends it.
pub(super) struct Raised<'a>(&'a AtomicU64);

impl<'a> Raised<'a> {
    pub(super) fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
