//! Outbox → log, where the log is not the outbox itself.
//!
//! One relay per node. It reads the node's own rows from the lowest id on, gives them to the
//! log in that order, many at a time, and deletes what the log took, in batches. Nothing is
//! appended around a row that failed: the relay waits for the answers that are out, pauses,
//! and goes on with the lowest row that is left. A row that the log refuses for good is put
//! aside as a dead letter, counted, and the relay goes on: the messages are in the store, and
//! gateways find them by their tail check.
//!
//! While the log is away its answers stay out, the window is full, and the rows wait in the
//! table; sends are acknowledged all the same. A crash between append and delete appends a row
//! twice; whoever reads the log drops repeats by their numbers. Rows of other nodes are not
//! touched: taking over those of a node that will not come back changes their owner first, and
//! then they are this node's own and are found here, whatever their ids.

mod window;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use corecast_backends::log::{LogError, LogProducer};
use corecast_backends::store::{DeadLetter, OutboxRow, Store, StoreError};
use futures::future::{Fuse, FusedFuture as _, FutureExt as _};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use window::Window;

/// Rows of one read.
const PAGE: u32 = 512;
/// Reading begins at the lowest row again at least this often, however much waits above.
const PASS: Duration = Duration::from_millis(100);
/// Between two reads while rows are under way: a busy node reads several commits at once.
const READ_PACE: Duration = Duration::from_millis(20);
/// A deletion is a commit: it waits for this many rows or this long.
const DELETE_ROWS: usize = 128;
const DELETE_PACE: Duration = Duration::from_millis(50);
/// A call of the store takes no longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Rows may appear without a local wake-up, those that were claimed: look at least this often.
const IDLE: Duration = Duration::from_secs(1);
/// Between looks at how much waits, for the metrics.
const SAMPLE: Duration = Duration::from_secs(1);
/// From this age on the rows that wait are counted, too, at most this many.
const SAMPLE_AGE_MS: u64 = 2_000;
const SAMPLE_ROWS: u32 = 10_000;
/// The first and the longest pause after a failure; jitter takes off up to half.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Answers that are out at the stop signal have this long.
const DRAIN: Duration = Duration::from_secs(1);

/// The relay of one node.
pub struct Relay<S, P> {
    store: S,
    producer: P,
    owner: String,
    metrics: Metrics,
    claimed: Claimed,
    window: Window,
    /// The last row of this pass that was looked at, and when the pass began.
    after: u64,
    pass_at: Instant,
    /// Something may be there that was not read, and no read before this.
    wanted: bool,
    read_at: Instant,
    delete_at: Instant,
    sample_at: Instant,
    pause: Duration,
    /// A row failed: nothing is appended until no answer is out.
    failed: bool,
    stuck: bool,
    /// A row was settled since the last failure.
    progress: bool,
    /// Rows that were counted in the table and are not settled since.
    counted: usize,
}

/// Tells the relay that rows became its own in another way than by a commit of this node.
#[derive(Clone, Debug, Default)]
pub struct Claimed(Arc<Notify>);

impl Claimed {
    /// The relay looks from its lowest row on, at once.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// What waits in the table.
struct Waits {
    oldest_age_ms: u64,
    /// Counted only where the oldest is old.
    rows: Option<usize>,
}

impl<S: Store, P: LogProducer> Relay<S, P> {
    /// A relay of the rows of `owner`.
    pub fn new(store: S, producer: P, owner: String, metrics: Metrics) -> Self {
        let now = Instant::now();
        Self {
            store,
            producer,
            owner,
            metrics,
            claimed: Claimed::default(),
            window: Window::default(),
            after: 0,
            pass_at: now,
            wanted: true,
            read_at: now,
            delete_at: now,
            sample_at: now,
            pause: PAUSE,
            failed: false,
            stuck: false,
            progress: false,
            counted: 0,
        }
    }

    /// For who claims rows of dead nodes.
    pub fn claimed(&self) -> Claimed {
        self.claimed.clone()
    }

    /// Works until `shutdown`; answers that are out and deletions have a second to end.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (store, owner, claimed) = (self.store.clone(), self.owner.clone(), self.claimed.clone());
        let mut flying = FuturesUnordered::new();
        let mut reading = pin!(Fuse::terminated());
        let mut deleting = pin!(Fuse::terminated());
        let mut sampling = pin!(Fuse::terminated());
        let mut stop_at = None;
        loop {
            let now = Instant::now();
            if let Some(stop_at) = stop_at {
                let is_idle = flying.is_empty() && self.window.to_delete() == 0 && deleting.is_terminated();
                if is_idle || now >= stop_at {
                    return;
                }
            } else if reading.is_terminated() && self.is_read_due(now) {
                reading.set(in_time(store.outbox(&owner, self.begin_read(now), PAGE)).fuse());
            }
            if deleting.is_terminated() && (self.is_delete_due(now) || stop_at.is_some()) {
                let ids = self.window.poll_delete();
                if !ids.is_empty() {
                    deleting.set(in_time(store.delete_outbox(ids)).fuse());
                }
            }
            if sampling.is_terminated() && now >= self.sample_at {
                self.sample_at = now + SAMPLE;
                sampling.set(sample(&store, &owner).fuse());
            }
            tokio::select! {
                Some((row, result)) = flying.next(), if !flying.is_empty() => {
                    self.handle_answer(row, result).await;
                    while let Some(Some((row, result))) = flying.next().now_or_never() {
                        self.handle_answer(row, result).await;
                    }
                    if self.failed && flying.is_empty() {
                        self.begin_again();
                    }
                }
                page = &mut reading, if !reading.is_terminated() => match page {
                    Ok(rows) => for row in self.take_new(rows) {
                        flying.push(self.append(row));
                    },
                    Err(error) => {
                        self.handle_failure(&error);
                        self.begin_again();
                    }
                },
                ended = &mut deleting, if !deleting.is_terminated() => self.handle_deleted(ended),
                waits = &mut sampling, if !sampling.is_terminated() => if let Ok(waits) = waits {
                    self.show(&waits);
                },
                () = woken(&store, &claimed), if !self.wanted => self.wanted = true,
                () = sleep_until(self.timer(now, stop_at).into()) => {}
                () = shutdown.cancelled(), if stop_at.is_none() => stop_at = Some(now + DRAIN),
            }
        }
    }

    fn is_read_due(&self, now: Instant) -> bool {
        self.wanted && !self.failed && now >= self.read_at && self.window.is_roomy()
    }

    fn is_delete_due(&self, now: Instant) -> bool {
        let enough = self.window.to_delete() >= DELETE_ROWS && !self.stuck;
        self.window.to_delete() > 0 && (enough || now >= self.delete_at)
    }

    /// The next moment at which something may be due that no event tells of.
    fn timer(&self, now: Instant, stop_at: Option<Instant>) -> Instant {
        let moments = [Some(self.sample_at), Some(self.delete_at), Some(self.read_at), stop_at];
        moments.into_iter().flatten().filter(|at| *at > now).min().unwrap_or(now + SAMPLE)
    }

    /// Where the next read begins: above what this pass has seen, or at the lowest row.
    fn begin_read(&mut self, now: Instant) -> u64 {
        if self.after == 0 || now.duration_since(self.pass_at) >= PASS {
            self.after = 0;
            self.pass_at = now;
        }
        self.after
    }

    /// The new rows of a page, as far as there is room.
    fn take_new(&mut self, rows: Vec<OutboxRow>) -> Vec<OutboxRow> {
        let is_full = rows.len() == PAGE as usize;
        let mut taken = Vec::with_capacity(rows.len());
        let mut is_left = false;
        for row in rows {
            if !self.window.has_room() {
                is_left = true;
                break;
            }
            self.after = row.id;
            if self.window.take(&row) {
                taken.push(row);
            }
        }
        // What comes up while rows are under way is read together, a moment later.
        self.wanted = is_full || is_left;
        if !self.wanted {
            self.after = 0;
            self.read_at = Instant::now() + if self.window.flying() > 0 { READ_PACE } else { Duration::ZERO };
        }
        self.show_backlog();
        taken
    }

    /// Its place in the log is taken here, not when the answer is first waited for.
    fn append(
        &self,
        row: OutboxRow,
    ) -> impl Future<Output = (OutboxRow, Result<(), LogError>)> + Send + use<S, P> {
        let answer = self.producer.enqueue(&row.room_id, row.value.clone());
        async move { (row, answer.await) }
    }

    async fn handle_answer(&mut self, row: OutboxRow, result: Result<(), LogError>) {
        match result {
            Ok(()) => {
                self.metrics.relay_appended_records.inc();
                self.settle(row.id);
            }
            Err(LogError::Refused(reason)) => self.put_aside(row, reason).await,
            Err(error) => {
                self.window.fail(row.id);
                if !std::mem::replace(&mut self.failed, true) {
                    self.handle_failure(&error);
                }
            }
        }
    }

    async fn put_aside(&mut self, row: OutboxRow, reason: String) {
        tracing::error!(row = row.id, room = %row.room_id, reason, "log refused a record for good");
        let letter = DeadLetter { room_id: row.room_id, value: row.value, reason };
        match in_time(self.store.put_dead_letter(letter)).await {
            Ok(()) => {
                self.metrics.relay_dead_letter_records.inc();
                self.settle(row.id);
            }
            Err(error) => {
                self.window.fail(row.id);
                self.failed = true;
                self.handle_failure(&error);
            }
        }
    }

    fn settle(&mut self, id: u64) {
        if self.window.to_delete() == 0 {
            self.delete_at = self.delete_at.max(Instant::now() + DELETE_PACE);
        }
        self.window.settle(id);
        self.progress = true;
        self.counted = self.counted.saturating_sub(1);
        self.show_backlog();
        if std::mem::take(&mut self.stuck) {
            tracing::info!("relay goes on");
        }
    }

    fn handle_deleted(&mut self, ended: Result<(), StoreError>) {
        let now = Instant::now();
        match ended {
            Ok(()) => self.window.deleted(now),
            Err(error) => {
                self.window.undeleted();
                self.handle_failure(&error);
                self.delete_at = now + self.pause;
            }
        }
    }

    /// Counts it, tells it once, and makes the next pause longer.
    fn handle_failure(&mut self, error: &dyn std::error::Error) {
        self.metrics.relay_failed_attempts.inc();
        // Something was taken all the same: no need to spare whoever failed.
        self.pause = if std::mem::take(&mut self.progress) { PAUSE } else { (self.pause * 2).min(PAUSE_MAX) };
        if !std::mem::replace(&mut self.stuck, true) {
            tracing::warn!(%error, "relay waits");
        }
    }

    /// After a pause, from the lowest row on.
    fn begin_again(&mut self) {
        self.failed = false;
        self.wanted = true;
        self.after = 0;
        self.read_at = Instant::now() + self.pause.mul_f64(rand::random_range(0.5..=1.0));
    }

    fn show(&mut self, waits: &Waits) {
        self.metrics.relay_backlog_seconds.set(waits.oldest_age_ms as f64 / 1_000.0);
        self.counted = waits.rows.unwrap_or(0);
        self.show_backlog();
    }

    fn show_backlog(&self) {
        self.metrics.relay_backlog_rows.set(self.window.flying().max(self.counted) as i64);
    }
}

/// Rows may have come.
async fn woken(store: &impl Store, claimed: &Claimed) {
    tokio::select! {
        () = store.outbox_changed() => {}
        () = claimed.0.notified() => {}
        () = tokio::time::sleep(IDLE) => {}
    }
}

/// How much waits for the log. Cheap while it is little.
async fn sample(store: &impl Store, owner: &str) -> Result<Waits, StoreError> {
    let owners = in_time(store.outbox_owners()).await?;
    let oldest_age_ms = owners.iter().find(|one| one.owner == owner).map_or(0, |one| one.oldest_age_ms);
    let rows = match oldest_age_ms {
        SAMPLE_AGE_MS.. => Some(in_time(store.outbox(owner, 0, SAMPLE_ROWS)).await?.len()),
        _ => None,
    };
    Ok(Waits { oldest_age_ms, rows })
}

async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unknown(format!("no answer in {DEADLINE:?}"))),
    }
}
