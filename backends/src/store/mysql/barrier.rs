//! What a read answers is on the disk.
//!
//! InnoDB shows a transaction to others, and lets go of its locks, before it writes its redo
//! log; only who committed waits for the disk. A server that is killed in between takes back
//! what readers have seen, and the next commit gives its numbers to other messages. With the
//! binary log on and `sync_binlog = 1` a transaction is shown when it is in that log, which
//! recovery goes by, and nothing is to be done here.
//!
//! Without it, a read is answered behind a barrier: something small is committed on the
//! connection that read. All that the read saw lies before it in the redo log, so its answer
//! says that this is on the disk. One barrier serves all reads that ended before it was sent,
//! and so does any commit of this pool that wrote something: where one is on its way, a read
//! waits for it a moment before it makes its own, so that a busy node makes hardly any.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::counters::count;
use super::fault::Fault;
use super::session::Session;

/// Waiting for others and the barrier itself together take no longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// The wait for a transaction that is open. It takes as long as the barrier would, unless it
/// waits for a lock.
const PATIENCE: Duration = Duration::from_millis(50);
/// One row for all nodes; its lock is held within one statement only.
const PASS: &str =
    "INSERT INTO barriers (id, passed) VALUES (1, 1) ON DUPLICATE KEY UPDATE passed = passed + 1";

/// The barriers of one server.
#[derive(Default)]
pub(super) struct Barrier {
    /// Held by the read whose barrier is under way.
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<Proof>>,
    /// Transactions that are open and write.
    writing: AtomicUsize,
    /// A proof came, or a transaction ended.
    news: Notify,
}

/// A transaction that will write, for as long as it is open.
pub(super) struct Writing<'a>(&'a Barrier);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writing.fetch_sub(1, Ordering::Relaxed);
        self.0.news.notify_waiters();
    }
}

/// A commit that wrote something and was answered.
#[derive(Clone, Copy)]
pub(super) struct Proof {
    /// Its connection was open then; a connection does not outlive its server.
    pub(super) opened: Instant,
    /// It had not been sent before.
    pub(super) sent: Instant,
}

impl Proof {
    /// Is what this server showed until `seen` on the disk?
    fn covers(self, seen: Instant) -> bool {
        self.opened <= seen && seen <= self.sent
    }
}

impl Barrier {
    /// Notes a commit that wrote something.
    pub(super) fn note(&self, proof: Proof) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.sent < proof.sent) {
            *last = Some(proof);
        }
        self.news.notify_waiters();
    }

    /// A transaction was opened that will write.
    pub(super) fn writing(&self) -> Writing<'_> {
        self.writing.fetch_add(1, Ordering::Relaxed);
        Writing(self)
    }

    /// Waits until everything the session has read is on the disk.
    ///
    /// # Errors
    /// The server did not say so: what was read must not be told.
    pub(super) async fn pass(&self, session: &mut Session) -> Result<(), Fault> {
        if !session.shows_early {
            return Ok(());
        }
        let passing = self.pass_behind(session, Instant::now());
        let late = || Fault::Lost(format!("what was read is not on the disk in {DEADLINE:?}"));
        tokio::time::timeout(DEADLINE, passing).await.unwrap_or_else(|_| Err(late()))
    }

    async fn pass_behind(&self, session: &mut Session, seen: Instant) -> Result<(), Fault> {
        let _turn = self.turn.lock().await;
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            // Before the look: what comes after it is not missed.
            let news = self.news.notified();
            if self.is_covered(seen) {
                return Ok(());
            }
            let alone = self.writing.load(Ordering::Relaxed) == 0;
            if alone || tokio::time::timeout_at(until, news).await.is_err() {
                break;
            }
        }
        count(&session.counters().barriers);
        session.run(PASS, Vec::new()).await?;
        self.note(session.proof());
        Ok(())
    }

    fn is_covered(&self, seen: Instant) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.covers(seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_covers_what_was_read_before_it_on_the_same_server() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let proof = Proof { opened: at(10), sent: at(30) };
        assert!(proof.covers(at(10)) && proof.covers(at(20)) && proof.covers(at(30)));
        assert!(!proof.covers(at(31)), "sent before the read had ended");
        assert!(!proof.covers(at(9)), "the read may be of a server that was killed since");
    }

    #[test]
    fn the_latest_commit_is_kept() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let barrier = Barrier::default();
        barrier.note(Proof { opened: start, sent: at(20) });
        barrier.note(Proof { opened: start, sent: at(10) });
        assert_eq!(barrier.last.lock().unwrap().map(|last| last.sent), Some(at(20)));
    }
}
