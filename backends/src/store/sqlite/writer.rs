//! The one thread that writes, and its group commit.
//!
//! ```text
//! write() ─┐                       ┌ SAVEPOINT job RELEASE ┐
//! write() ─┼─ queue ─▶ all that ─▶ BEGIN  …  one per job  …  COMMIT ─▶ answer all
//! write() ─┘           wait        └ a failed job: ROLLBACK TO, its own error ┘
//! ```
//!
//! An fsync costs as much for one job as for hundreds, so whatever waits when the thread
//! comes back shares the next one: no timer, no added latency when idle.
//!
//! Outbox deletions never pay for an fsync of their own while anything else commits: they
//! are held in memory and ride on the next commit, or go alone once a second. A crash
//! brings the rows back, which the log's contract allows.
//!
//! The queue holds [`QUEUE_JOBS`] jobs; a full one makes callers wait, up to
//! [`QUEUE_WAIT`], then refuses and counts.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::counters::{Counters, count};
use super::outbox;
use crate::store::StoreError;

/// Jobs that wait for the thread. At 200 jobs a commit this is a few commits' worth.
const QUEUE_JOBS: usize = 1024;
/// How long a caller waits for a place in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// Jobs of one transaction at most, so that the first of them is not kept waiting.
const GROUP_JOBS: usize = 512;
/// How long a deletion may be held back.
const HOLD: Duration = Duration::from_secs(1);
/// Held back deletions at most (8 bytes each); more go at once and are counted.
const HOLD_IDS: usize = 65_536;
/// WAL frames (4 KiB pages) from which it is copied back when idle: 4 MiB. Less is not
/// worth the fsyncs, which would be more than the sends of a quiet system.
const WAL_FRAMES_IDLE: u32 = 1024;
/// WAL frames from which it is copied back even under load: 16 MiB.
const WAL_FRAMES: u32 = 4096;
/// WAL frames from which [`CHECKPOINT_PAUSE`] does not hold: 128 MiB.
const WAL_FRAMES_HARD: u32 = 32_768;
/// Least time between two checkpoints: each costs a few fsyncs.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(10);
/// No job for so long counts as idle.
const IDLE: Duration = Duration::from_millis(500);

/// The sending side.
pub(super) struct Writer {
    queue: mpsc::Sender<(Command, Option<OwnedSemaphorePermit>)>,
    places: Arc<Semaphore>,
    counters: Arc<Counters>,
    thread: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

enum Command {
    Run(Box<dyn Job>),
    Delete(Vec<u64>),
    Close,
}

/// A write, between its caller and the thread.
trait Job: Send {
    /// Does the work inside its savepoint; `false` rolls the savepoint back.
    fn run(&mut self, conn: &Connection) -> bool;
    /// Tells the caller, once the transaction's fate is known.
    fn answer(self: Box<Self>, commit: Result<(), StoreError>);
}

struct Work<T, F> {
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Work<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, conn: &Connection) -> bool {
        let work = self.work.take().expect("a job runs once");
        let result = work(conn);
        let good = result.is_ok();
        self.result = Some(result);
        good
    }

    fn answer(self: Box<Self>, commit: Result<(), StoreError>) {
        let answer = match self.result {
            // Its savepoint was rolled back: its own error says more than the neighbours' fate.
            Some(Err(error)) => Err(error),
            Some(Ok(value)) => commit.map(|()| value),
            None => Err(commit.err().unwrap_or_else(closed)),
        };
        // The caller may have gone; the write stands.
        let _ = self.reply.send(answer);
    }
}

impl Writer {
    /// Starts the thread. It ends, tidies up and lets `lock` go when the last sender is
    /// dropped or at [`close`](Self::close).
    pub(super) fn start(
        mut conn: Connection,
        lock: File,
        counters: Arc<Counters>,
        outbox_version: watch::Sender<u64>,
    ) -> Result<Self, StoreError> {
        let wal_frames = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&wal_frames);
        conn.wal_hook(Some(move |_: &mut _, pages: std::ffi::c_int| {
            seen.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (queue, receiver) = mpsc::channel();
        let thread = Thread {
            conn,
            receiver,
            counters: Arc::clone(&counters),
            outbox_version,
            wal_frames,
            checkpointed: 0,
            last_checkpoint: None,
            last_job: Instant::now(),
            held: Vec::new(),
            held_since: Instant::now(),
            _lock: lock,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| StoreError::Unavailable(format!("writer thread: {error}")))?;
        Ok(Self {
            queue,
            places: Arc::new(Semaphore::new(QUEUE_JOBS)),
            counters,
            thread: std::sync::Mutex::new(Some(thread)),
        })
    }

    /// Runs `work` in a savepoint of the next transaction; answers after the commit.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue(Command::Run(Box::new(Work { work: Some(work), result: None, reply }))).await?;
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the store's writer ended".to_owned())))
    }

    /// Hands deletions over; they are made within a second.
    pub(super) async fn delete_outbox(&self, ids: Vec<u64>) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.queue(Command::Delete(ids)).await
    }

    async fn queue(&self, command: Command) -> Result<(), StoreError> {
        let waited = tokio::time::timeout(QUEUE_WAIT, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(place) = waited else {
            count(&self.counters.refused);
            return Err(StoreError::Unavailable(format!("the write queue stayed full for {QUEUE_WAIT:?}")));
        };
        self.queue.send((command, place.ok())).map_err(|_| closed())
    }

    /// Lets the thread finish everything queued before, and waits for its end.
    pub(super) async fn close(&self) {
        // A thread that ended already takes no command; joining it is all that is left.
        let _ = self.queue.send((Command::Close, None));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the store's writer ended in a panic");
            }
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

/// The receiving side: owns the connection and the folder's lock.
struct Thread {
    conn: Connection,
    receiver: mpsc::Receiver<(Command, Option<OwnedSemaphorePermit>)>,
    counters: Arc<Counters>,
    outbox_version: watch::Sender<u64>,
    /// Frames in the log, set by SQLite after each commit.
    wal_frames: Arc<AtomicU32>,
    /// How many of them are copied back.
    checkpointed: u32,
    /// `None`: none yet, the first one need not wait.
    last_checkpoint: Option<Instant>,
    last_job: Instant,
    held: Vec<u64>,
    held_since: Instant,
    _lock: File,
}

impl Thread {
    fn run(mut self) {
        let mut open = true;
        while open {
            let mut jobs = Vec::new();
            let wait = self.next_deadline().saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(wait) {
                Ok((command, _place)) => open = self.take(command, &mut jobs),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
            while open && jobs.len() < GROUP_JOBS {
                let Ok((command, _place)) = self.receiver.try_recv() else { break };
                open = self.take(command, &mut jobs);
            }
            if !jobs.is_empty() {
                self.last_job = Instant::now();
                self.group(jobs);
            }
            self.flush_held(!open);
            self.checkpoint_if_due();
        }
        self.finish();
    }

    /// `false`: the thread shall end.
    fn take(&mut self, command: Command, jobs: &mut Vec<Box<dyn Job>>) -> bool {
        match command {
            Command::Run(job) => jobs.push(job),
            Command::Delete(ids) => {
                if self.held.is_empty() {
                    self.held_since = Instant::now();
                }
                self.held.extend(ids);
            }
            Command::Close => return false,
        }
        true
    }

    /// Runs the jobs in one transaction and answers them all.
    fn group(&mut self, jobs: Vec<Box<dyn Job>>) {
        self.counters.jobs.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        let mut waiting = jobs.into_iter();
        // More than one turn only where SQLite rolled the whole transaction back by itself.
        while waiting.len() > 0 {
            let before = self.conn.total_changes();
            if let Err(error) = self.execute("BEGIN IMMEDIATE") {
                waiting.by_ref().for_each(|job| job.answer(Err(error.clone())));
                return;
            }
            let mut done = Vec::with_capacity(waiting.len());
            let mut lost = false;
            for mut job in waiting.by_ref() {
                self.run_in_savepoint(job.as_mut());
                done.push(job);
                lost = self.conn.is_autocommit();
                if lost {
                    break;
                }
            }
            if lost {
                let error = StoreError::Unavailable("the transaction was rolled back".to_owned());
                done.into_iter().for_each(|job| job.answer(Err(error.clone())));
                continue;
            }
            let wrote = self.conn.total_changes() != before;
            let commit = self.commit(wrote);
            if wrote && commit.is_ok() {
                self.outbox_version.send_modify(|version| *version += 1);
            }
            done.into_iter().for_each(|job| job.answer(commit.clone()));
        }
    }

    fn run_in_savepoint(&self, job: &mut dyn Job) {
        // Where SQLite has no room even for a savepoint the statements of the job fail too
        // and the transaction ends: the caller's error names the cause.
        if let Err(error) = self.execute("SAVEPOINT job") {
            tracing::error!(%error, "no savepoint");
        }
        let good = job.run(&self.conn);
        if self.conn.is_autocommit() {
            return;
        }
        let end = if good { Ok(()) } else { self.execute("ROLLBACK TO job") };
        if let Err(error) = end.and_then(|()| self.execute("RELEASE job")) {
            // A half job must not be committed with its neighbours.
            tracing::error!(%error, "savepoint could not be ended, transaction rolled back");
            self.rollback();
        }
    }

    /// Ends the transaction; where something is written, held deletions ride along.
    fn commit(&mut self, wrote: bool) -> Result<(), StoreError> {
        let riding = wrote && !self.held.is_empty() && self.delete_held();
        match self.execute("COMMIT") {
            Ok(()) => {
                if wrote {
                    count(&self.counters.commits);
                }
                if riding {
                    self.held.clear();
                }
                Ok(())
            }
            Err(error) => {
                self.rollback();
                // The log may hold the whole transaction even so: only its fsync failed.
                Err(StoreError::Unknown(error.to_string()))
            }
        }
    }

    /// Deletes the held rows inside the running transaction, all or none.
    fn delete_held(&self) -> bool {
        let deleted = self.execute("SAVEPOINT held").and_then(|()| {
            outbox::delete(&self.conn, &self.held).or_else(|error| {
                self.execute("ROLLBACK TO held")?;
                Err(error)
            })
        });
        let deleted = deleted.and_then(|()| self.execute("RELEASE held"));
        if let Err(error) = &deleted {
            tracing::warn!(%error, "outbox rows stay for now");
        }
        deleted.is_ok()
    }

    /// A transaction for deletions alone, when their second is over, they are too many, or
    /// the store closes.
    fn flush_held(&mut self, now: bool) {
        let too_many = self.held.len() > HOLD_IDS;
        if self.held.is_empty() || !(now || too_many || self.held_since.elapsed() >= HOLD) {
            return;
        }
        if too_many && self.held_since.elapsed() < HOLD {
            count(&self.counters.held_flushes);
        }
        let before = self.conn.total_changes();
        let ended = self
            .execute("BEGIN IMMEDIATE")
            .and_then(|()| outbox::delete(&self.conn, &self.held))
            .and_then(|()| self.execute("COMMIT"));
        match ended {
            Ok(()) => {
                self.held.clear();
                if self.conn.total_changes() != before {
                    count(&self.counters.commits);
                    count(&self.counters.deletion_commits);
                }
            }
            Err(error) => {
                self.rollback();
                self.held_since = Instant::now();
                if too_many {
                    // The rows come back at the next start and are pushed once more.
                    self.held.clear();
                }
                tracing::warn!(%error, too_many, "outbox rows stay for now");
            }
        }
    }

    fn next_deadline(&self) -> Instant {
        let mut deadline = Instant::now() + Duration::from_secs(3600);
        if !self.held.is_empty() {
            deadline = deadline.min(self.held_since + HOLD);
        }
        let frames = self.wal_frames.load(Ordering::Relaxed);
        if frames > WAL_FRAMES_IDLE && frames > self.checkpointed {
            let idle = self.last_job + IDLE;
            let rested = self.last_checkpoint.map_or(idle, |last| last + CHECKPOINT_PAUSE);
            deadline = deadline.min(rested.max(idle));
        }
        deadline
    }

    fn checkpoint_if_due(&mut self) {
        let frames = self.wal_frames.load(Ordering::Relaxed);
        if frames < self.checkpointed {
            // A commit began the log anew.
            self.checkpointed = 0;
        }
        if frames == self.checkpointed {
            return;
        }
        let rested_for = |pause| self.last_checkpoint.is_none_or(|last| last.elapsed() >= pause);
        let rested = rested_for(CHECKPOINT_PAUSE);
        let idle = self.last_job.elapsed() >= IDLE;
        let due = rested && (frames > WAL_FRAMES || idle && frames > WAL_FRAMES_IDLE);
        // A reader that holds an old snapshot can keep a checkpoint from moving: then the
        // log grows, and trying again after each commit would only cost.
        let overdue = frames > WAL_FRAMES_HARD && rested_for(HOLD);
        if due || overdue {
            self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)");
        }
    }

    fn checkpoint(&mut self, pragma: &str) {
        self.last_checkpoint = Some(Instant::now());
        let answer = self.conn.query_row(pragma, (), |row| row.get::<_, i64>(2));
        match answer {
            Ok(copied) => {
                self.checkpointed = u32::try_from(copied).unwrap_or(0);
                count(&self.counters.checkpoints);
            }
            Err(error) => tracing::warn!(%error, "checkpoint failed, the log keeps growing"),
        }
    }

    /// Answers what came too late, and leaves one tidy file behind.
    fn finish(mut self) {
        while let Ok((command, _place)) = self.receiver.try_recv() {
            if let Command::Run(job) = command {
                job.answer(Err(closed()));
            }
        }
        self.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)");
        self.conn.flush_prepared_statement_cache();
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "store not closed cleanly");
        }
    }

    fn execute(&self, sql: &str) -> Result<(), StoreError> {
        self.conn.prepare_cached(sql)?.execute(())?;
        Ok(())
    }

    fn rollback(&self) {
        if self.conn.is_autocommit() {
            return;
        }
        if let Err(error) = self.execute("ROLLBACK") {
            tracing::error!(%error, "rollback failed");
        }
    }
}
