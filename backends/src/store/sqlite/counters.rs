//! What the embedded store counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one store since it was opened.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) jobs: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) deletion_commits: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) held_flushes: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SqliteCounters {
    /// Writes that were run.
    pub jobs: u64,
    /// Transactions that wrote something: one fsync each.
    pub commits: u64,
    /// Of these, the ones made for held back outbox deletions alone.
    pub deletion_commits: u64,
    /// Times the log was copied back into the file: a few fsyncs each.
    pub checkpoints: u64,
    /// Times the bound on held back deletions was reached before their second was over.
    pub held_flushes: u64,
    /// Reads and writes refused because the queue stayed full.
    pub refused: u64,
}

impl Counters {
    pub(super) fn read(&self) -> SqliteCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SqliteCounters {
            jobs: read(&self.jobs),
            commits: read(&self.commits),
            deletion_commits: read(&self.deletion_commits),
            checkpoints: read(&self.checkpoints),
            held_flushes: read(&self.held_flushes),
            refused: read(&self.refused),
        }
    }
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
