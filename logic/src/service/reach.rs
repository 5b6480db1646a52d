//! Whether a backend answers: one log line when it stops and one when it is back, however
//! many requests meet it in between.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Reach {
    what: &'static str,
    down: AtomicBool,
}

impl Reach {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, down: AtomicBool::new(false) }
    }

    /// Notes how a call ended.
    pub(super) fn note(&self, error: Option<&impl Display>) {
        let was_down = self.down.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_down => tracing::warn!(backend = self.what, %error, "backend unreachable"),
            None if was_down => tracing::info!(backend = self.what, "backend answers again"),
            _ => {}
        }
    }
}
