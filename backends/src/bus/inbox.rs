//! The queue of one subscriber, bounded by frames and by [`QUEUE_BYTES`].
//!
//! A full queue drops the frame and leaves one [`BusEvent::Interrupted`] behind its last
//! frame; whoever offers never waits.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use corecast_proto::ids::RoomId;
use tokio::sync::Notify;

use super::{BusEvent, BusFrame};

/// Frames that wait for one subscriber.
pub const QUEUE_FRAMES: usize = 65_536;
/// Bytes that wait for one subscriber. Frames are shared in process, so a lone subscriber
/// holds what nobody else does only when it lags: 64 MiB is then the price of its slowness.
pub const QUEUE_BYTES: usize = 64 << 20;

/// What a frame costs beside its bytes.
pub(super) const FRAME_OVERHEAD: usize = 128;

pub(super) struct Inbox {
    state: Mutex<State>,
    added: Notify,
    frames_max: usize,
}

struct State {
    watched: HashSet<RoomId>,
    queue: VecDeque<BusEvent>,
    bytes: usize,
}

impl Inbox {
    /// At most `frames_max` frames wait.
    pub(super) fn new(frames_max: usize) -> Self {
        let state = State { watched: HashSet::new(), queue: VecDeque::new(), bytes: 0 };
        Self { state: Mutex::new(state), added: Notify::new(), frames_max }
    }

    pub(super) fn watch(&self, room_ids: &[RoomId]) {
        self.lock().watched.extend(room_ids.iter().cloned());
    }

    pub(super) fn unwatch(&self, room_ids: &[RoomId]) {
        let mut state = self.lock();
        for room_id in room_ids {
            state.watched.remove(room_id);
        }
    }

    /// All rooms that are watched; [`GLOBAL`](corecast_proto::ids::GLOBAL) is not among them.
    #[cfg(feature = "redis")]
    pub(super) fn watched(&self) -> Vec<RoomId> {
        self.lock().watched.iter().cloned().collect()
    }

    #[cfg(feature = "redis")]
    pub(super) fn is_watched(&self, room_id: &RoomId) -> bool {
        self.lock().watched.contains(room_id)
    }

    /// `false`: the frame was dropped because the queue is full. One of a room that is not
    /// watched is none of this subscriber's.
    pub(super) fn offer(&self, frame: &BusFrame) -> bool {
        let mut state = self.lock();
        if !state.wants(&frame.room_id) {
            return true;
        }
        let bytes = cost(frame);
        let fits = state.queue.len() < self.frames_max && state.bytes + bytes <= QUEUE_BYTES;
        if fits {
            state.bytes += bytes;
            state.queue.push_back(BusEvent::Frame(frame.clone()));
        } else {
            state.interrupt();
        }
        drop(state);
        self.added.notify_one();
        fits
    }

    /// Frames are missing from here on, unless the last event says so already.
    #[cfg(feature = "redis")]
    pub(super) fn interrupt(&self) {
        self.lock().interrupt();
        self.added.notify_one();
    }

    pub(super) fn pop(&self) -> Option<BusEvent> {
        self.lock().pop()
    }

    /// Resolves when something may have been added.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    /// Wakes the subscriber for nothing.
    pub(super) fn wake(&self) {
        self.added.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here panics while it holds the lock, so a poisoned one is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wants(&self, room_id: &RoomId) -> bool {
        room_id.is_global() || self.watched.contains(room_id)
    }

    fn interrupt(&mut self) {
        if !matches!(self.queue.back(), Some(BusEvent::Interrupted)) {
            self.queue.push_back(BusEvent::Interrupted);
        }
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

/// What a frame takes of a queue.
pub(super) fn cost(frame: &BusFrame) -> usize {
    frame.frame.len() + FRAME_OVERHEAD
}
