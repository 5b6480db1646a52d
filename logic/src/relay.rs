//! Outbox → log, where the log is not the outbox itself.
//!
//! One relay per node. It reads the node's own rows in id order, appends each room's one
//! after the other, and deletes the rows the log took. Nothing is appended around a row that
//! failed: it is tried again first, with growing pauses. A row that the log refuses for good is put aside as a dead
//! letter, counted, and the relay goes on: the messages are in the store, and gateways find
//! them by their tail check.
//!
//! A crash between append and delete appends a row twice; whoever reads the log drops
//! repeats by their numbers. Rows of other nodes are not touched: taking over those of a node
//! that will not come back changes their owner first, and then they are this node's own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use corecast_backends::log::{LogError, LogProducer};
use corecast_backends::store::{DeadLetter, OutboxRow, Store, StoreError};
use corecast_proto::ids::RoomId;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Rows of one round.
const BATCH_ROWS: usize = 256;
/// A commit may become visible after one with a higher id. Rows are looked for this far back
/// in time; a transaction lives for a few seconds at most.
const LOOK_BACK: Duration = Duration::from_secs(30);
/// Settled rows remembered for that look back. When there are more the oldest are forgotten
/// sooner, and a row as late as that is found at the next start.
const SETTLED_MAX: usize = 65_536;
/// An append or a call of the store takes no longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Rows of other lanes may appear without a local wake-up: look again at least this often.
const IDLE: Duration = Duration::from_secs(1);
/// The first and the longest pause after a failure; jitter takes off up to half.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The relay of one node.
pub struct Relay<S, P> {
    store: S,
    producer: P,
    owner: String,
    metrics: Metrics,
    settled: Settled,
    /// Appended or put aside, but still to be deleted.
    undeleted: Vec<u64>,
    /// A row was settled since the last failure.
    progress: bool,
}

/// Rows that are done with, for as long as they may be read again.
#[derive(Default)]
struct Settled {
    ids: HashSet<u64>,
    order: VecDeque<(Instant, u64)>,
    /// No row at or below this id is looked for any more.
    floor: u64,
}

/// Why a round did not end well; nothing is lost.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl<S: Store, P: LogProducer> Relay<S, P> {
    /// A relay of the rows of `owner`.
    pub fn new(store: S, producer: P, owner: String, metrics: Metrics) -> Self {
        let (settled, undeleted) = (Settled::default(), Vec::new());
        Self { store, producer, owner, metrics, settled, undeleted, progress: false }
    }

    /// Works until `shutdown`; a round under way ends first, within its deadlines.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut pause = PAUSE;
        let mut stuck = false;
        while !shutdown.is_cancelled() {
            match self.round().await {
                Ok(appended) => {
                    if std::mem::take(&mut stuck) {
                        tracing::info!("relay goes on");
                    }
                    pause = PAUSE;
                    if appended == 0 {
                        let wake = tokio::time::timeout(IDLE, self.store.outbox_changed());
                        let _ = shutdown.run_until_cancelled(wake).await;
                    }
                }
                Err(error) => {
                    self.metrics.relay_failed_attempts.inc();
                    // Something was taken all the same: the log lives, no need to spare it.
                    if std::mem::take(&mut self.progress) {
                        pause = PAUSE;
                    }
                    if !std::mem::replace(&mut stuck, true) {
                        tracing::warn!(%error, "relay waits");
                    }
                    let jittered = pause.mul_f64(rand::random_range(0.5..=1.0));
                    let _ = shutdown.run_until_cancelled(tokio::time::sleep(jittered)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Appends what waits, as much as one batch; answers how many rows it dealt with.
    async fn round(&mut self) -> Result<usize, Stuck> {
        self.delete().await?;
        self.settled.forget(Instant::now());
        let limit = (BATCH_ROWS + self.settled.ids.len()) as u32;
        let read = self.store.outbox(&self.owner, self.settled.floor, limit);
        let mut rows = in_time(read).await?;
        rows.retain(|row| !self.settled.ids.contains(&row.id));
        self.metrics.relay_backlog_rows.set(rows.len() as i64);
        rows.truncate(BATCH_ROWS);
        self.append(&rows).await?;
        self.delete().await?;
        Ok(rows.len())
    }

    /// Appends rows, those of one room one after the other, rooms side by side. What was
    /// taken is settled even when another row failed; what follows a failed row of its room
    /// is not tried.
    async fn append(&mut self, rows: &[OutboxRow]) -> Result<(), Stuck> {
        let mut rooms: HashMap<&RoomId, Vec<&OutboxRow>> = HashMap::new();
        for row in rows {
            rooms.entry(&row.room_id).or_default().push(row);
        }
        let producer = &self.producer;
        let appended = join_all(rooms.into_values().map(|rows| append_room(producer, rows))).await;
        let mut stuck = None;
        for (room, error) in appended {
            stuck = stuck.or(error);
            for (row, refused) in room {
                match refused {
                    None => {
                        self.metrics.relay_appended_records.inc();
                        self.settle(row.id);
                    }
                    Some(reason) => self.put_aside(row, reason).await?,
                }
            }
        }
        match stuck {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    async fn put_aside(&mut self, row: &OutboxRow, reason: String) -> Result<(), Stuck> {
        tracing::error!(row = row.id, room = %row.room_id, reason, "log refused a record for good");
        let letter = DeadLetter { room_id: row.room_id.clone(), value: row.value.clone(), reason };
        in_time(self.store.put_dead_letter(letter)).await?;
        self.metrics.relay_dead_letter_records.inc();
        self.settle(row.id);
        Ok(())
    }

    fn settle(&mut self, id: u64) {
        self.progress = true;
        self.metrics.relay_backlog_rows.dec();
        self.settled.add(Instant::now(), id);
        self.undeleted.push(id);
    }

    async fn delete(&mut self) -> Result<(), Stuck> {
        if !self.undeleted.is_empty() {
            in_time(self.store.delete_outbox(self.undeleted.clone())).await?;
            self.undeleted.clear();
        }
        Ok(())
    }
}

/// Rows the log dealt with, each with the reason if it refused the row for good.
type Dealt<'a> = Vec<(&'a OutboxRow, Option<String>)>;

/// Appends rows of one room in order, up to the first that fails.
async fn append_room<'a>(
    producer: &impl LogProducer,
    rows: Vec<&'a OutboxRow>,
) -> (Dealt<'a>, Option<LogError>) {
    let mut dealt = Vec::with_capacity(rows.len());
    for row in rows {
        let append = producer.append(&row.room_id, row.value.clone());
        match tokio::time::timeout(DEADLINE, append).await {
            Ok(Ok(())) => dealt.push((row, None)),
            Ok(Err(LogError::Refused(reason))) => dealt.push((row, Some(reason))),
            Ok(Err(error)) => return (dealt, Some(error)),
            Err(_) => return (dealt, Some(LogError::Unavailable(format!("no answer in {DEADLINE:?}")))),
        }
    }
    (dealt, None)
}

impl Settled {
    fn add(&mut self, now: Instant, id: u64) {
        self.ids.insert(id);
        self.order.push_back((now, id));
    }

    /// Raises the floor over what was settled long ago.
    fn forget(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.order.front() {
            if now.duration_since(at) < LOOK_BACK && self.order.len() <= SETTLED_MAX {
                break;
            }
            self.order.pop_front();
            self.ids.remove(&id);
            self.floor = self.floor.max(id);
        }
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unknown(format!("no answer in {DEADLINE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_rows_are_remembered_for_the_look_back_and_no_longer() {
        let mut settled = Settled::default();
        let start = Instant::now();
        settled.add(start, 7);
        settled.add(start + LOOK_BACK / 2, 5);
        settled.forget(start + LOOK_BACK / 2);
        assert_eq!((settled.floor, settled.ids.len()), (0, 2));
        settled.forget(start + LOOK_BACK);
        assert_eq!((settled.floor, settled.ids.len()), (7, 1));
        settled.forget(start + 2 * LOOK_BACK);
        assert_eq!((settled.floor, settled.ids.len()), (7, 0));
    }

    #[test]
    fn the_memory_of_settled_rows_is_bounded() {
        let mut settled = Settled::default();
        let now = Instant::now();
        for id in 0..2 * SETTLED_MAX as u64 {
            settled.add(now, id);
        }
        settled.forget(now);
        assert_eq!(settled.ids.len(), SETTLED_MAX);
        assert_eq!(settled.floor, SETTLED_MAX as u64 - 1);
    }
}
