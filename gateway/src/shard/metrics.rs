//! A shard's numbers as other threads see them: written with relaxed stores once per turn
//! by the one core that owns them, read whenever somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::counters::Counters;

/// Published counters of one shard. Each value is exact; a snapshot may mix two turns.
pub struct Metrics {
    /// `"glommio"` or `"thread"`.
    pub host: &'static str,
    /// Name of the driver.
    pub driver: &'static str,
    /// Their own allocation: no other core writes near them.
    cells: Box<[AtomicU64]>,
}

impl Metrics {
    /// All zero.
    pub fn new(host: &'static str, driver: &'static str) -> Self {
        let cells = Counters::default().values().map(AtomicU64::new).collect();
        Self { host, driver, cells }
    }

    /// Makes `counters` visible.
    pub fn publish(&self, counters: &Counters) {
        for (cell, value) in self.cells.iter().zip(counters.values()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// What was published last.
    pub fn snapshot(&self) -> Counters {
        Counters::from_values(self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)))
    }
}
