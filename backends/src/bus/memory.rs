//! The fast path inside one process.
//!
//! Each subscriber has one queue, bounded by [`QUEUE_FRAMES`] and [`QUEUE_BYTES`]. A full
//! queue drops the frame, leaves one [`BusEvent::Interrupted`] behind its last frame and
//! counts; the publisher never waits. Frames that a fault delays wait in tasks of their own,
//! at most [`DELAYED_FRAMES`]; more are dropped and counted.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use corecast_proto::ids::RoomId;
use tokio::sync::Notify;

use super::faults::{BusFaults, FaultPlan};
use super::{Bus, BusEvent, BusFrame, Subscription};

/// Frames that wait for one subscriber.
pub const QUEUE_FRAMES: usize = 65_536;
/// Bytes that wait for one subscriber. Frames are shared, so a lone subscriber holds what
/// nobody else does only when it lags: 64 MiB is then the price of its slowness.
pub const QUEUE_BYTES: usize = 64 << 20;
/// Frames that a fault delays at the same time.
pub const DELAYED_FRAMES: usize = 16_384;

/// What a frame costs beside its bytes.
const FRAME_OVERHEAD: usize = 128;

/// The bus. Clones share it.
#[derive(Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

struct Shared {
    subscribers: Mutex<Vec<Weak<Subscriber>>>,
    faults: Mutex<FaultPlan>,
    queue_frames: usize,
    published: AtomicU64,
    overflowed: AtomicU64,
    /// Frames that were to be delayed and found no room; the plan counts the others.
    overdelayed: AtomicU64,
    delayed: AtomicUsize,
}

/// A reading of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBusCounters {
    /// Frames published.
    pub published: u64,
    /// Frames dropped because a subscriber's queue was full, once per subscriber.
    pub overflowed: u64,
    /// Frames that a fault lost, since the faults were last set.
    pub lost: u64,
}

struct Subscriber {
    state: Mutex<SubscriberState>,
    added: Notify,
}

struct SubscriberState {
    watched: HashSet<RoomId>,
    queue: VecDeque<BusEvent>,
    bytes: usize,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryBus {
    /// A bus without faults.
    pub fn new() -> Self {
        Self::with_faults(BusFaults::default())
    }

    /// A bus that misbehaves as described.
    pub fn with_faults(faults: BusFaults) -> Self {
        Self::with_bound(faults, QUEUE_FRAMES)
    }

    /// A bus with another bound per subscriber, in frames (at least 1).
    pub fn with_bound(faults: BusFaults, queue_frames: usize) -> Self {
        let shared = Shared {
            subscribers: Mutex::default(),
            faults: Mutex::new(FaultPlan::new(faults)),
            queue_frames: queue_frames.max(1),
            published: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            overdelayed: AtomicU64::new(0),
            delayed: AtomicUsize::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Misbehaves as described from now on; `BusFaults::default()` heals it.
    pub fn set_faults(&self, faults: BusFaults) {
        *lock(&self.shared.faults) = FaultPlan::new(faults);
    }

    /// Loses the next `frames` frames.
    pub fn drop_next(&self, frames: u64) {
        lock(&self.shared.faults).drop_next(frames);
    }

    /// What it counted so far.
    pub fn counters(&self) -> MemoryBusCounters {
        MemoryBusCounters {
            published: self.shared.published.load(Ordering::Relaxed),
            overflowed: self.shared.overflowed.load(Ordering::Relaxed),
            lost: lock(&self.shared.faults).lost() + self.shared.overdelayed.load(Ordering::Relaxed),
        }
    }
}

impl Bus for MemoryBus {
    type Subscription = MemorySubscription;

    async fn publish(&self, frame: BusFrame) {
        let shared = &self.shared;
        shared.published.fetch_add(1, Ordering::Relaxed);
        let deliveries = lock(&shared.faults).handle_publish(frame);
        for (frame, delay) in deliveries {
            if delay.is_zero() {
                shared.deliver(frame);
            } else {
                Shared::deliver_later(shared, frame, delay);
            }
        }
    }

    async fn subscribe(&self) -> MemorySubscription {
        let state = SubscriberState { watched: HashSet::new(), queue: VecDeque::new(), bytes: 0 };
        let subscriber = Arc::new(Subscriber { state: Mutex::new(state), added: Notify::new() });
        lock(&self.shared.subscribers).push(Arc::downgrade(&subscriber));
        MemorySubscription { subscriber, shared: Arc::downgrade(&self.shared) }
    }
}

impl Shared {
    fn deliver(&self, frame: BusFrame) {
        lock(&self.subscribers).retain(|subscriber| {
            let Some(subscriber) = subscriber.upgrade() else { return false };
            if !subscriber.offer(&frame, self.queue_frames) {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
            }
            true
        });
    }

    fn deliver_later(shared: &Arc<Self>, frame: BusFrame, delay: Duration) {
        if shared.delayed.fetch_add(1, Ordering::Relaxed) >= DELAYED_FRAMES {
            shared.delayed.fetch_sub(1, Ordering::Relaxed);
            shared.overdelayed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            shared.delayed.fetch_sub(1, Ordering::Relaxed);
            shared.deliver(frame);
        });
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for subscriber in lock(&self.subscribers).iter().filter_map(Weak::upgrade) {
            // Its `next` sees that the bus is gone.
            subscriber.added.notify_one();
        }
    }
}

impl Subscriber {
    /// `false`: the frame was dropped because the queue is full.
    fn offer(&self, frame: &BusFrame, queue_frames: usize) -> bool {
        let mut state = lock(&self.state);
        if !state.wants(&frame.room_id) {
            return true;
        }
        let bytes = cost(frame);
        let fits = state.queue.len() < queue_frames && state.bytes + bytes <= QUEUE_BYTES;
        if fits {
            state.bytes += bytes;
            state.queue.push_back(BusEvent::Frame(frame.clone()));
        } else if !matches!(state.queue.back(), Some(BusEvent::Interrupted)) {
            state.queue.push_back(BusEvent::Interrupted);
        }
        drop(state);
        self.added.notify_one();
        fits
    }
}

impl SubscriberState {
    fn wants(&self, room_id: &RoomId) -> bool {
        room_id.is_global() || self.watched.contains(room_id)
    }

    fn pop(&mut self) -> Option<BusEvent> {
        while let Some(event) = self.queue.pop_front() {
            let BusEvent::Frame(frame) = &event else { return Some(event) };
            self.bytes -= cost(frame);
            // It may have been unwatched after the frame was queued.
            if self.wants(&frame.room_id) {
                return Some(event);
            }
        }
        None
    }
}

fn cost(frame: &BusFrame) -> usize {
    frame.frame.len() + FRAME_OVERHEAD
}

/// The receiving end of a [`MemoryBus`].
pub struct MemorySubscription {
    subscriber: Arc<Subscriber>,
    shared: Weak<Shared>,
}

impl Subscription for MemorySubscription {
    async fn watch(&mut self, room_id: &RoomId) {
        lock(&self.subscriber.state).watched.insert(room_id.clone());
    }

    async fn unwatch(&mut self, room_id: &RoomId) {
        lock(&self.subscriber.state).watched.remove(room_id);
    }

    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = lock(&self.subscriber.state).pop() {
                return Some(event);
            }
            if self.shared.strong_count() == 0 {
                return None;
            }
            self.subscriber.added.notified().await;
        }
    }
}

/// Nothing here panics while it holds a lock, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
