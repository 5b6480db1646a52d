//! Figures of the whole system, each with its limit.
//!
//! | module | question |
//! |---|---|
//! | [`latency`] | how long from a send to the frame at every member, and what does waiting cost? |
//! | [`accept`] | how many messages a second does one logic node make durable? |
//! | [`outage`] | what do people notice while one part is away? |
//!
//! [`crew`] are the people who talk and listen.

pub mod accept;
pub mod crew;
pub mod latency;
pub mod outage;

use std::fmt::Write;

use crate::load::Latency;

/// A histogram as a table: the full range, and what lies in each doubling.
pub fn histogram(latency: &Latency) -> String {
    let mut out = String::from("| p50 ms | p90 | p99 | p99.9 | max | records |\n|---|---|---|---|---|---|\n");
    let quantile = |share| latency.quantile_ms(share);
    writeln!(
        out,
        "| {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} |\n",
        quantile(0.5),
        quantile(0.9),
        quantile(0.99),
        quantile(0.999),
        latency.max_ms(),
        latency.count()
    )
    .expect(INTO_STRING);
    writeln!(out, "| up to ms | share of records |\n|---|---|").expect(INTO_STRING);
    for (up_to_ms, share) in doublings(latency) {
        writeln!(out, "| {up_to_ms} | {:.3} % |", share * 100.0).expect(INTO_STRING);
    }
    out
}

/// Share of the records in (half, whole] of each power of two in ms, from 1 ms on.
fn doublings(latency: &Latency) -> Vec<(u64, f64)> {
    let whole = latency.count().max(1) as f64;
    let mut shares = Vec::new();
    let mut up_to_ms = 1;
    let mut counted = 0;
    while counted < latency.count() {
        let below: u64 =
            latency.records().filter(|(ns, _)| *ns <= up_to_ms * 1_000_000).map(|(_, count)| count).sum();
        if below > counted || !shares.is_empty() {
            shares.push((up_to_ms, (below - counted) as f64 / whole));
        }
        counted = below;
        up_to_ms *= 2;
    }
    shares
}

const INTO_STRING: &str = "a String takes every byte";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_in_one_doubling() {
        let mut latency = Latency::new();
        for (ms, count) in [(1, 50), (3, 30), (70, 20)] {
            latency.record(ms * 999_000, count);
        }
        let shares = doublings(&latency);
        assert_eq!(shares.first(), Some(&(1, 0.5)));
        assert_eq!(shares.last(), Some(&(128, 0.2)));
        assert!((shares.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(histogram(&latency).contains("| 4 | 30.000 % |"));
    }
}
