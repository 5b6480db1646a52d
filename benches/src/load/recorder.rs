//! Latencies, from the moment at which something was intended to the moment it was seen.

use hdrhistogram::Histogram;

/// A full histogram: 1 µs to 60 s with three digits; what lies outside counts as the border.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Latency {
    /// Nothing recorded.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3).expect("bounds are constants");
        Self { histogram }
    }

    /// Records the same time for `count` of them.
    pub fn record(&mut self, ns: u64, count: u64) {
        self.histogram.saturating_record_n(ns.max(LOWEST_NS), count);
    }

    /// Forgets all.
    pub fn reset(&mut self) {
        self.histogram.reset();
    }

    /// Adds another one's records.
    pub fn add(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("bounds are the same constants");
    }

    /// Values and how many records each has.
    pub fn records(&self) -> impl Iterator<Item = (u64, u64)> {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }

    /// Number of records.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Milliseconds below which this share of the records lies; 0 without records.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64 / 1e6
    }

    /// Greatest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.histogram.max() as f64 / 1e6
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_both_halves_are_there_after_adding() {
        let (mut low, mut high) = (Latency::new(), Latency::new());
        low.record(1_000_000, 99);
        high.record(500_000_000_000, 1);
        low.add(&high);
        assert_eq!(low.count(), 100);
        assert!((low.quantile_ms(0.5) - 1.0).abs() < 0.01);
        assert!(low.max_ms() >= 59_999.0, "beyond the border counts as the border");
        low.reset();
        assert_eq!(low.count(), 0);
    }
}
