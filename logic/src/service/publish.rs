//! What follows a commit: each frame goes to the fast path, new messages to the cached
//! history. Neither is part of the promise: the log delivers what the fast path loses, and a
//! cached list that misses messages is noticed by its head, and deleted by the next append.
//!
//! Each has a task of its own: a cache that is slow does not delay the fast path.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use corecast_backends::bus::{Bus, BusFrame};
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{CommitFrame, FrameOutcome, Message, OutboxRow};
use corecast_proto::ids::RoomId;
use corecast_proto::job::PushMsg;
use futures::StreamExt;
use prost::Message as _;
use tokio::sync::mpsc;

use super::hot;
use super::reach::Reach;
use crate::metrics::Metrics;

/// Commits that may wait for the fast path, and as many for the cache. When it is full the
/// frames are left to the log, or the cached lists to their next rebuild, and counted.
const WAITING_MAX: usize = 256;
/// Rooms of one commit whose lists are appended at once.
const APPENDS: usize = 64;
/// A publish takes no longer than this, or the frame counts as dropped.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(1);

/// The way from a lane to its publisher.
pub(super) struct Publisher {
    queue: mpsc::Sender<AfterCommit>,
    metrics: Metrics,
}

/// What one commit leaves to be done.
pub(super) struct AfterCommit {
    frames: Vec<CommitFrame>,
    rows: Vec<OutboxRow>,
    appends: Vec<Append>,
}

/// New messages of a room in one epoch.
type Append = (RoomId, u64, Vec<Message>);

impl Publisher {
    /// Keeps what the cache will need: the commit itself takes the frames.
    pub(super) fn prepare(&self, frames: &[CommitFrame]) -> AfterCommit {
        AfterCommit { frames: frames.to_vec(), rows: Vec::new(), appends: Vec::new() }
    }

    pub(super) fn offer(&self, after: AfterCommit) {
        let frames = after.rows.len() as u64;
        if self.queue.try_send(after).is_err() {
            self.metrics.bus_dropped_frames.inc_by(frames);
        }
    }
}

impl AfterCommit {
    /// Takes over what the commit answered: its outbox rows, and the new messages by room.
    pub(super) fn note(&mut self, outcomes: &[FrameOutcome]) {
        let mut rooms: HashMap<RoomId, usize> = HashMap::new();
        for (frame, outcome) in std::mem::take(&mut self.frames).into_iter().zip(outcomes) {
            let FrameOutcome::Stored { epoch, messages, outbox } = outcome else { continue };
            self.rows.extend_from_slice(outbox);
            let index = *rooms.entry(frame.room_id.clone()).or_insert_with(|| {
                self.appends.push((frame.room_id.clone(), *epoch, Vec::new()));
                self.appends.len() - 1
            });
            for (message, stored) in frame.messages.into_iter().zip(messages) {
                if !stored.repeated {
                    self.appends[index].2.push(Message {
                        id: stored.id,
                        user_id: frame.user_id.clone(),
                        username: frame.username.clone(),
                        content: message.content,
                    });
                }
            }
        }
        self.appends.retain(|(_, _, messages)| !messages.is_empty());
    }
}

/// Starts a publisher; it ends when its lane does, after what it holds. `reach` is of the
/// cached histories: one for all lanes of a node, so that an outage is told once.
pub(super) fn spawn<H: HotSet, B: Bus>(hotset: H, bus: B, metrics: Metrics, reach: Arc<Reach>) -> Publisher {
    let (queue, mut commits) = mpsc::channel::<AfterCommit>(WAITING_MAX);
    let (appends, waiting) = mpsc::channel::<Vec<Append>>(WAITING_MAX);
    tokio::spawn(append(hotset, waiting, metrics.clone(), reach));
    let publisher = Publisher { queue, metrics: metrics.clone() };
    tokio::spawn(async move {
        while let Some(after) = commits.recv().await {
            for row in &after.rows {
                publish_row(&bus, &metrics, row).await;
            }
            let lists = after.appends.len() as u64;
            if lists > 0 && appends.try_send(after.appends).is_err() {
                metrics.hotset_dropped_appends.inc_by(lists);
            }
        }
    });
    publisher
}

/// Appends commit by commit: the order of a room is kept, its rooms go together.
async fn append<H: HotSet>(
    hotset: H,
    mut waiting: mpsc::Receiver<Vec<Append>>,
    metrics: Metrics,
    reach: Arc<Reach>,
) {
    while let Some(appends) = waiting.recv().await {
        futures::stream::iter(&appends)
            .for_each_concurrent(APPENDS, |(room_id, epoch, messages)| {
                let (hotset, reach, metrics) = (&hotset, &reach, &metrics);
                async move {
                    hot(reach, metrics, hotset.append_history(room_id, *epoch, messages)).await;
                }
            })
            .await;
    }
}

/// Gives the frame of an outbox row to the fast path.
pub(super) async fn publish_row(bus: &impl Bus, metrics: &Metrics, row: &OutboxRow) {
    let Some(frame) = bus_frame(row) else {
        tracing::error!(row = row.id, room = %row.room_id, "outbox row is not a PushMsg");
        return;
    };
    match tokio::time::timeout(PUBLISH_DEADLINE, bus.publish(frame)).await {
        Ok(()) => metrics.bus_published_frames.inc(),
        Err(_) => metrics.bus_dropped_frames.inc(),
    }
}

fn bus_frame(row: &OutboxRow) -> Option<BusFrame> {
    let record = PushMsg::decode(row.value.clone()).ok()?;
    Some(BusFrame {
        room_id: row.room_id.clone(),
        epoch: u64::try_from(record.epoch).ok()?,
        first_seq: u64::try_from(record.first_seq).ok()?,
        count: u32::try_from(record.count).ok()?,
        op: record.operation,
        frame: record.msg,
    })
}
