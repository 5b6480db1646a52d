//! The fast path inside one process.
//!
//! Each subscriber has one bounded [`Inbox`]; the publisher never waits. Frames that a fault
//! delays wait in tasks of their own, at most [`DELAYED_FRAMES`]; more are dropped and counted.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use corecast_proto::ids::RoomId;

use super::faults::{BusFaults, FaultPlan};
use super::inbox::{Inbox, QUEUE_FRAMES};
use super::{Bus, BusEvent, BusFrame, Subscription};

/// Frames that a fault delays at the same time.
pub const DELAYED_FRAMES: usize = 16_384;

/// The bus. Clones share it.
#[derive(Clone)]
pub struct MemoryBus {
    shared: Arc<Shared>,
}

struct Shared {
    subscribers: Mutex<Vec<Weak<Inbox>>>,
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
        let inbox = Arc::new(Inbox::new(self.shared.queue_frames));
        lock(&self.shared.subscribers).push(Arc::downgrade(&inbox));
        MemorySubscription { inbox, shared: Arc::downgrade(&self.shared) }
    }
}

impl Shared {
    fn deliver(&self, frame: BusFrame) {
        lock(&self.subscribers).retain(|inbox| {
            let Some(inbox) = inbox.upgrade() else { return false };
            if !inbox.offer(&frame) {
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
        for inbox in lock(&self.subscribers).iter().filter_map(Weak::upgrade) {
            // Its `next` sees that the bus is gone.
            inbox.wake();
        }
    }
}

/// The receiving end of a [`MemoryBus`].
pub struct MemorySubscription {
    inbox: Arc<Inbox>,
    shared: Weak<Shared>,
}

impl Subscription for MemorySubscription {
    async fn watch(&mut self, room_ids: &[RoomId]) {
        self.inbox.watch(room_ids);
    }

    async fn unwatch(&mut self, room_ids: &[RoomId]) {
        self.inbox.unwatch(room_ids);
    }

    async fn next(&mut self) -> Option<BusEvent> {
        loop {
            if let Some(event) = self.inbox.pop() {
                return Some(event);
            }
            if self.shared.strong_count() == 0 {
                return None;
            }
            self.inbox.added().await;
        }
    }
}

/// Nothing here panics while it holds a lock, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
