//! The numbers of the shards and of the lines as Prometheus text. Both count in plain
//! numbers; names and types are put to them here, when somebody asks.

use std::fmt::{Display, Write};
use std::sync::Arc;

use crate::core::counters::{Counters, TURN_US};
use crate::core::lines;
use crate::shard::{Mailbox, Metrics, ShardHandle};

/// Of [`Counters::NAMES`], those that go up and down.
const GAUGES: [&str; 6] = ["connections", "open", "memberships", "lagging", "unsettled_bytes", "feed_bytes"];

/// Where a shard shows its numbers.
pub(super) struct ShardView {
    mailbox: Mailbox,
    metrics: Arc<Metrics>,
}

impl ShardView {
    pub(super) fn of(shard: &ShardHandle) -> Self {
        Self { mailbox: shard.mailbox.clone(), metrics: shard.metrics.clone() }
    }
}

/// All numbers of all shards.
pub(super) fn render(shards: &[ShardView]) -> String {
    let snapshots: Vec<Counters> = shards.iter().map(|shard| shard.metrics.snapshot()).collect();
    let mut out = counters(&snapshots);
    family(&mut out, "shard_info", "gauge");
    for (index, shard) in shards.iter().enumerate() {
        let (host, driver) = (shard.metrics.host, shard.metrics.driver);
        let labels = format!("shard=\"{index}\",host=\"{host}\",driver=\"{driver}\"");
        sample(&mut out, "shard_info", &labels, 1);
    }
    type Read = fn(&ShardView) -> u64;
    let mailboxes: [(&str, &str, Read); 4] = [
        ("mailbox_commands", "gauge", |shard| shard.mailbox.depth() as u64),
        ("mailbox_bytes", "gauge", |shard| shard.mailbox.bytes() as u64),
        ("mailbox_full_total", "counter", |shard| shard.mailbox.full()),
        ("mailbox_wakes_total", "counter", |shard| shard.mailbox.wakes()),
    ];
    for (name, kind, read) in mailboxes {
        family(&mut out, name, kind);
        for (index, shard) in shards.iter().enumerate() {
            sample(&mut out, name, &format!("shard=\"{index}\""), read(shard));
        }
    }
    out
}

/// What the lines have counted.
pub(super) fn render_lines(counters: lines::Counters) -> String {
    let mut out = String::new();
    for (name, value) in [
        ("lines_delivered_frames_total", counters.delivered),
        ("lines_repeated_frames_total", counters.repeats),
        ("lines_held_frames_total", counters.held),
        ("lines_ranges_total", counters.ranges),
        ("lines_resets_total", counters.resets),
        ("lines_alarms_total", counters.alarms),
        ("lines_behind_total", counters.behind),
        ("lines_tails_behind_total", counters.tails_behind),
        ("lines_tails_failed_total", counters.tails_failed),
    ] {
        family(&mut out, name, "counter");
        writeln!(out, "corecast_gateway_{name} {value}").expect("a String takes every byte");
    }
    out
}

fn counters(shards: &[Counters]) -> String {
    let mut out = String::new();
    for (at, name) in Counters::NAMES.iter().enumerate() {
        let gauge = GAUGES.contains(name);
        let name = if gauge { (*name).to_owned() } else { format!("{name}_total") };
        family(&mut out, &name, if gauge { "gauge" } else { "counter" });
        for (index, shard) in shards.iter().enumerate() {
            let value = shard.values().nth(at).unwrap_or_default();
            sample(&mut out, &name, &format!("shard=\"{index}\""), value);
        }
    }
    family(&mut out, "closed_total", "counter");
    for (index, shard) in shards.iter().enumerate() {
        for (at, value) in shard.closed.iter().enumerate() {
            let labels = format!("shard=\"{index}\",cause=\"{}\"", Counters::closed_label(at));
            sample(&mut out, "closed_total", &labels, *value);
        }
    }
    family(&mut out, "turn_seconds", "histogram");
    for (index, shard) in shards.iter().enumerate() {
        turns(&mut out, index, shard);
    }
    out
}

/// The turns of one shard as a histogram: buckets that include those below them.
fn turns(out: &mut String, index: usize, shard: &Counters) {
    let mut count = 0;
    for (at, value) in shard.turns.iter().enumerate() {
        count += value;
        let end = TURN_US.get(at).map_or("+Inf".to_owned(), |us| seconds(*us).to_string());
        sample(out, "turn_seconds_bucket", &format!("shard=\"{index}\",le=\"{end}\""), count);
    }
    let labels = format!("shard=\"{index}\"");
    sample(out, "turn_seconds_sum", &labels, seconds(shard.turns_us));
    sample(out, "turn_seconds_count", &labels, count);
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn family(out: &mut String, name: &str, kind: &str) {
    writeln!(out, "# TYPE corecast_gateway_{name} {kind}").expect("a String takes every byte");
}

fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    writeln!(out, "corecast_gateway_{name}{{{labels}}} {value}").expect("a String takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gauge_is_a_number_of_the_shard() {
        for name in GAUGES {
            assert!(Counters::NAMES.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_bucket_of_turns_includes_those_below_it() {
        let mut shard = Counters::default();
        for us in [40, 60, 1_000, 70_000] {
            shard.count_turn(us);
        }
        let text = counters(&[shard]);
        for line in [
            "bucket{shard=\"0\",le=\"0.00005\"} 1",
            "bucket{shard=\"0\",le=\"0.0001\"} 2",
            "bucket{shard=\"0\",le=\"0.001\"} 3",
            "bucket{shard=\"0\",le=\"0.05\"} 3",
            "bucket{shard=\"0\",le=\"+Inf\"} 4",
            "sum{shard=\"0\"} 0.0711",
            "count{shard=\"0\"} 4",
        ] {
            assert!(text.contains(&format!("corecast_gateway_turn_seconds_{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn each_shard_has_its_own_line() {
        let shards = [Counters { connections: 3, ..Counters::default() }, Counters::default()];
        let text = counters(&shards);
        assert!(text.contains("# TYPE corecast_gateway_connections gauge\n"), "{text}");
        assert!(text.contains("corecast_gateway_connections{shard=\"0\"} 3\n"), "{text}");
        assert!(text.contains("corecast_gateway_connections{shard=\"1\"} 0\n"), "{text}");
        assert!(text.contains("corecast_gateway_deliveries_total{shard=\"0\"} 0\n"), "{text}");
    }
}
