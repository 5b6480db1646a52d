//! Lanes: sends that wait together are committed together.
//!
//! A room always takes the same lane. A lane takes everything that waits, up to a bound, and
//! commits it as one transaction; what arrives meanwhile is the next batch. So a commit's
//! cost is shared under load, an idle room waits for nobody, and the order in which frames
//! of a room entered is the order of their numbers.
//!
//! What follows a commit (fast path, cache) runs behind it on a task of its own, in order,
//! so a slow cache does not slow the next commit.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use corecast_backends::bus::Bus;
use corecast_backends::hotset::HotSet;
use corecast_backends::store::{CommitFrame, FrameOutcome, Store, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::publish::{self, Publisher};
use super::reach::Reach;
use super::within;
use crate::error::Failure;
use crate::metrics::Metrics;

/// How much a lane holds and commits at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Frames in a lane, waiting or in a commit. When it is full a send is refused.
    pub(super) waiting_frames_max: usize,
    /// Their weight, bytes.
    pub(super) waiting_bytes_max: usize,
    /// Frames of one commit. A group that is larger alone goes alone.
    pub(super) commit_frames_max: usize,
    /// Their weight, bytes.
    pub(super) commit_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_frames_max: 8192,
            waiting_bytes_max: 64 << 20,
            commit_frames_max: 1024,
            commit_bytes_max: 4 << 20,
        }
    }
}

/// A commit of a healthy store is far quicker. What takes longer may still happen: its
/// outcome is unknown, and the same keys make a repeat safe.
const COMMIT_DEADLINE: Duration = Duration::from_secs(8);

/// The entrances of all lanes. The lanes end when it is dropped, after what they hold.
pub(super) struct Lanes {
    lanes: Vec<Entrance>,
    metrics: Metrics,
}

struct Entrance {
    queue: mpsc::Sender<Group>,
    frames: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Frames of one request for one lane: they enter together or not at all, so that a full
/// lane never lets the second frame of a connection pass the first.
struct Group {
    frames: Vec<CommitFrame>,
    bytes: usize,
    reply: oneshot::Sender<Result<Vec<FrameOutcome>, StoreError>>,
    _room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// The answer to a group, once its lane has committed it.
pub(super) type Outcome = oneshot::Receiver<Result<Vec<FrameOutcome>, StoreError>>;

impl Lanes {
    /// Which lane a room takes.
    pub(super) fn of(&self, room_id: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        room_id.hash(&mut hasher);
        (hasher.finish() % self.lanes.len() as u64) as usize
    }

    /// Queues frames whose rooms all take this lane; `bytes` is their weight.
    ///
    /// # Errors
    /// Unavailable when the lane is full: nothing of it was queued.
    pub(super) fn offer(
        &self,
        lane: usize,
        frames: Vec<CommitFrame>,
        bytes: usize,
    ) -> Result<Outcome, Failure> {
        let entrance = &self.lanes[lane];
        let count = frames.len();
        let Some(room) = entrance.reserve(count, bytes) else {
            self.metrics.lane_refused_frames.inc_by(count as u64);
            return Err(Failure::Unavailable("too many messages wait to be stored"));
        };
        let (reply, outcome) = oneshot::channel();
        let group = Group { frames, bytes, reply, _room: room };
        // It holds a place per frame, and a group has at least one: the channel cannot be full.
        if entrance.queue.try_send(group).is_err() {
            return Err(Failure::Internal("the lane of this room has ended"));
        }
        self.metrics.lane_frames.add(count as i64);
        Ok(outcome)
    }
}

impl Entrance {
    fn reserve(&self, frames: usize, bytes: usize) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let frames = u32::try_from(frames).ok()?;
        let bytes = u32::try_from(bytes).ok()?;
        let frames = self.frames.clone().try_acquire_many_owned(frames).ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(bytes).ok()?;
        Some((frames, bytes))
    }
}

/// Starts `count` lanes, each with a publisher behind it.
pub(super) fn spawn<S: Store, H: HotSet, B: Bus>(
    count: usize,
    limits: Limits,
    store: S,
    hotset: H,
    bus: B,
    metrics: Metrics,
) -> Lanes {
    let reach = Arc::new(Reach::new("store, commits"));
    let hotset_reach = Arc::new(Reach::new("hot set, appends"));
    let lanes = (0..count.max(1))
        .map(|_| {
            let (queue, groups) = mpsc::channel(limits.waiting_frames_max);
            let (hotset, bus) = (hotset.clone(), bus.clone());
            let lane = Lane {
                store: store.clone(),
                groups,
                held_back: None,
                limits,
                publisher: publish::spawn(hotset, bus, metrics.clone(), hotset_reach.clone()),
                metrics: metrics.clone(),
                reach: reach.clone(),
            };
            tokio::spawn(lane.run());
            Entrance {
                queue,
                frames: Arc::new(Semaphore::new(limits.waiting_frames_max)),
                bytes: Arc::new(Semaphore::new(limits.waiting_bytes_max)),
            }
        })
        .collect();
    Lanes { lanes, metrics }
}

struct Lane<S> {
    store: S,
    groups: mpsc::Receiver<Group>,
    /// Taken from the queue, but too large for the batch that was under way.
    held_back: Option<Group>,
    limits: Limits,
    publisher: Publisher,
    metrics: Metrics,
    reach: Arc<Reach>,
}

impl<S: Store> Lane<S> {
    async fn run(mut self) {
        while let Some(batch) = self.next_batch().await {
            self.commit(batch).await;
        }
    }

    /// Everything that waits, up to the bounds of a commit.
    async fn next_batch(&mut self) -> Option<Vec<Group>> {
        let first = match self.held_back.take() {
            Some(group) => group,
            None => self.groups.recv().await?,
        };
        let (mut frames, mut bytes) = (first.frames.len(), first.bytes);
        let mut batch = vec![first];
        while let Ok(group) = self.groups.try_recv() {
            frames += group.frames.len();
            bytes += group.bytes;
            if frames > self.limits.commit_frames_max || bytes > self.limits.commit_bytes_max {
                self.held_back = Some(group);
                break;
            }
            batch.push(group);
        }
        Some(batch)
    }

    async fn commit(&mut self, mut batch: Vec<Group>) {
        let mut frames = Vec::new();
        let sizes: Vec<usize> = batch.iter().map(|group| group.frames.len()).collect();
        for group in &mut batch {
            frames.append(&mut group.frames);
        }
        let count = frames.len();
        let messages: usize = frames.iter().map(|frame| frame.messages.len()).sum();
        let mut after = self.publisher.prepare(&frames);

        let started = Instant::now();
        let result = within(COMMIT_DEADLINE, self.store.commit(frames)).await;
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.commit_messages.observe(messages as f64);
        self.metrics.lane_frames.sub(count as i64);
        self.reach.note(result.as_ref().err());

        // Callers are answered first: durable is durable, whatever the fast path does.
        match result {
            Ok(outcomes) if outcomes.len() == count => {
                after.note(&outcomes);
                let mut outcomes = outcomes.into_iter();
                for (group, size) in batch.into_iter().zip(sizes) {
                    // A caller that went away has its answer at the next try, by its keys.
                    let _ = group.reply.send(Ok(outcomes.by_ref().take(size).collect()));
                }
                self.publisher.offer(after);
            }
            Ok(outcomes) => {
                tracing::error!(frames = count, outcomes = outcomes.len(), "store answered another batch");
                let error = StoreError::Unknown("the store answered another batch".into());
                refuse(batch, &error);
            }
            Err(error) => refuse(batch, &error),
        }
    }
}

fn refuse(batch: Vec<Group>, error: &StoreError) {
    for group in batch {
        let _ = group.reply.send(Err(error.clone()));
    }
}
