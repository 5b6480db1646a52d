//! What the relay knows of the rows: which are under way, which are settled and may be read
//! again. No I/O and no clock.
//!
//! ```text
//!   read ──take──▶ in flight ──settle──▶ to delete ──deleted──▶ remembered ──▶ forgotten
//!                      └──fail──▶ unknown again: the next read takes it, in its place
//! ```
//! Rows do not become visible in the order of their ids: a transaction that was given a lower
//! id may commit later, and a claimed row may have any id. So reading begins at the lowest row
//! there is, again and again, and this is what keeps a row from being taken twice.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use corecast_backends::store::OutboxRow;

/// Rows in flight at most.
pub(super) const ROWS: usize = 1_024;
/// Their bytes at most; one row more may be taken.
pub(super) const BYTES: usize = 16 << 20;
/// Settled rows that could not be deleted yet, at most; then nothing is read.
const UNDELETED: usize = 65_536;
/// A deleted row may be read once more for this long: by a read that began before, or where
/// the store holds deletions back for up to a second.
const REMEMBER: Duration = Duration::from_secs(10);
/// Deleted rows that are remembered, at most. The oldest are forgotten sooner, and might be
/// appended once more.
const REMEMBERED: usize = 262_144;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Bytes of each row in flight.
    flying: HashMap<u64, usize>,
    bytes: usize,
    /// Rows that are done with, for as long as they may be read.
    settled: HashSet<u64>,
    to_delete: Vec<u64>,
    /// Being deleted right now.
    deleting: Vec<u64>,
    remembered: VecDeque<(Instant, u64)>,
}

impl Window {
    /// May another row be taken?
    pub(super) fn has_room(&self) -> bool {
        self.flying.len() < ROWS
            && self.bytes < BYTES
            && self.to_delete.len() + self.deleting.len() < UNDELETED
    }

    /// Is half of it free? Reading for less is not worth a query.
    pub(super) fn is_roomy(&self) -> bool {
        self.has_room() && self.flying.len() <= ROWS / 2
    }

    /// Takes a row that was read, unless it was taken before.
    pub(super) fn take(&mut self, row: &OutboxRow) -> bool {
        if self.settled.contains(&row.id) || self.flying.contains_key(&row.id) {
            return false;
        }
        self.flying.insert(row.id, row.value.len());
        self.bytes += row.value.len();
        true
    }

    /// The log has it, or never will.
    pub(super) fn settle(&mut self, id: u64) {
        self.land(id);
        self.settled.insert(id);
        self.to_delete.push(id);
    }

    /// The log did not take it this time.
    pub(super) fn fail(&mut self, id: u64) {
        self.land(id);
    }

    fn land(&mut self, id: u64) {
        self.bytes -= self.flying.remove(&id).unwrap_or(0);
    }

    /// Rows in flight.
    pub(super) fn flying(&self) -> usize {
        self.flying.len()
    }

    /// Rows that wait for their deletion.
    pub(super) fn to_delete(&self) -> usize {
        self.to_delete.len()
    }

    /// What to delete now. Until [`deleted`](Self::deleted) or [`undeleted`](Self::undeleted)
    /// there is nothing more.
    pub(super) fn poll_delete(&mut self) -> Vec<u64> {
        self.deleting = std::mem::take(&mut self.to_delete);
        self.deleting.clone()
    }

    /// They are gone, or will be soon.
    pub(super) fn deleted(&mut self, now: Instant) {
        self.remembered.extend(self.deleting.drain(..).map(|id| (now, id)));
        while let Some(&(at, id)) = self.remembered.front() {
            if now.duration_since(at) < REMEMBER && self.remembered.len() <= REMEMBERED {
                break;
            }
            self.remembered.pop_front();
            self.settled.remove(&id);
        }
    }

    /// They may still be there.
    pub(super) fn undeleted(&mut self) {
        self.to_delete.append(&mut self.deleting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn row(id: u64, bytes: usize) -> OutboxRow {
        OutboxRow { id, room_id: "a".into(), value: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn a_row_is_taken_once_and_again_only_after_it_failed() {
        let mut window = Window::default();
        assert!(window.take(&row(7, 1)) && !window.take(&row(7, 1)));
        window.fail(7);
        assert!(window.take(&row(7, 1)), "again");
        window.settle(7);
        assert!(!window.take(&row(7, 1)));
        assert!(window.take(&row(5, 1)), "a lower id that appears later");
    }

    #[test]
    fn a_settled_row_is_remembered_until_long_after_its_deletion() {
        let (mut window, start) = (Window::default(), Instant::now());
        window.take(&row(7, 1));
        window.settle(7);
        assert_eq!(window.poll_delete(), [7]);
        window.undeleted();
        assert_eq!(window.poll_delete(), [7], "a deletion that failed is tried again");
        window.deleted(start);
        window.deleted(start + REMEMBER / 2);
        assert!(!window.take(&row(7, 1)));
        window.deleted(start + REMEMBER);
        assert!(window.take(&row(7, 1)));
    }

    #[test]
    fn it_is_full_at_its_rows_its_bytes_and_its_undeleted() {
        let mut window = Window::default();
        for id in 0..ROWS as u64 {
            assert!(window.has_room());
            window.take(&row(id, 1));
        }
        assert!(!window.has_room());
        window.settle(0);
        assert!(window.has_room() && !window.is_roomy());

        let mut window = Window::default();
        window.take(&row(1, BYTES));
        assert!(!window.has_room());
        window.fail(1);
        assert!(window.is_roomy());

        for id in 0..UNDELETED as u64 {
            window.take(&row(id, 1));
            window.settle(id);
        }
        assert!(!window.has_room());
        window.poll_delete();
        assert!(!window.has_room(), "not gone yet");
        window.deleted(Instant::now());
        assert!(window.has_room());
    }

    #[test]
    fn the_memory_of_deleted_rows_is_bounded() {
        let (mut window, now) = (Window::default(), Instant::now());
        for id in 0..REMEMBERED as u64 + 10 {
            window.take(&row(id, 1));
            window.settle(id);
        }
        window.poll_delete();
        window.deleted(now);
        assert_eq!(window.settled.len(), REMEMBERED);
        assert!(window.take(&row(9, 1)) && !window.take(&row(10, 1)), "the oldest are forgotten");
    }
}
