//! The interest behind its lock: the hub changes it, each job stream reads it at its own
//! pace. The lock is held for calculations only.

use std::sync::{Mutex, MutexGuard, PoisonError};

use corecast_proto::push;
use tokio::sync::watch;

use crate::core::interest::{Interest, InterestLimits, Teller};

/// One per gateway.
pub(in crate::control) struct InterestBoard {
    interest: Mutex<Interest>,
    changed: watch::Sender<u64>,
}

impl InterestBoard {
    pub(super) fn new(limits: InterestLimits) -> Self {
        Self { interest: Mutex::new(Interest::new(limits)), changed: watch::Sender::new(0) }
    }

    /// Changes it and wakes the streams where that changed what is wanted.
    pub(super) fn change(&self, change: impl FnOnce(&mut Interest)) {
        let version = {
            let mut interest = self.interest();
            change(&mut interest);
            interest.version()
        };
        self.changed.send_if_modified(|told| std::mem::replace(told, version) != version);
    }

    /// Wakes when there may be something to tell.
    pub(in crate::control) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The next message to a stream; `None`: wait for a change.
    pub(in crate::control) fn poll_tell(&self, teller: &mut Teller) -> Option<push::Interest> {
        self.interest().poll_tell(teller)
    }

    /// Rooms wanted.
    pub(in crate::control) fn rooms(&self) -> usize {
        self.interest().rooms()
    }

    fn interest(&self) -> MutexGuard<'_, Interest> {
        // A panic while the lock was held ends the hub anyway; a stream may still look.
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
