//! Which unnumbered records of the log reached this gateway already, by (partition, offset).
//!
//! Job repeats a record after a lost ack or a rebalance, so a repeat is near: what is kept
//! per partition is the newest [`KEPT`] offsets and, below them, a watermark under which
//! everything counts as seen.

use std::collections::BTreeSet;

/// Offsets kept above the watermark, per partition: 16 bytes each and the tree's nodes.
const KEPT: usize = 65_536;

/// Seen records of one partition.
#[derive(Debug)]
pub(super) struct Seen {
    /// Everything up to here counts as seen.
    watermark: i64,
    above: BTreeSet<i64>,
    kept_max: usize,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { watermark: -1, above: BTreeSet::new(), kept_max: KEPT }
    }

    /// Was this offset delivered?
    pub(super) fn contains(&self, offset: i64) -> bool {
        offset <= self.watermark || self.above.contains(&offset)
    }

    /// Remembers a delivered offset.
    pub(super) fn insert(&mut self, offset: i64) {
        if offset <= self.watermark {
            return;
        }
        self.above.insert(offset);
        // The line of offsets has gaps (numbered records, other gateways' records), so the
        // watermark cannot wait for each of them: it rises when the set is full.
        while self.above.len() > self.kept_max {
            if let Some(oldest) = self.above.pop_first() {
                self.watermark = oldest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_is_seen_and_a_late_record_is_not() {
        let mut seen = Seen::new();
        assert!(!seen.contains(0));
        seen.insert(0);
        seen.insert(5);
        assert!(seen.contains(0) && seen.contains(5));
        assert!(!seen.contains(3), "a gap is not seen");
        seen.insert(3);
        assert!(seen.contains(3));
    }

    #[test]
    fn memory_is_bounded_and_what_was_dropped_counts_as_seen() {
        let mut seen = Seen { kept_max: 3, ..Seen::new() };
        for offset in [10, 20, 30] {
            seen.insert(offset);
        }
        assert!(!seen.contains(9) && !seen.contains(11));
        seen.insert(40);
        assert_eq!(seen.above.len(), 3);
        assert!(seen.contains(10) && seen.contains(9), "at the watermark");
        assert!(!seen.contains(11), "above it");
        seen.insert(5);
        assert_eq!(seen.above.len(), 3, "below the watermark nothing is kept");
    }
}
