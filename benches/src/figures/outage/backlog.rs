//! How much waits for the log, from the nodes' own gauge, ten times a second.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::now_ns;
use crate::http;

/// One look, all nodes together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// When it was answered.
    pub(super) at_ns: u64,
    /// Outbox rows that wait. A node counts to 10,000, and counts old rows every two seconds.
    pub(super) rows: f64,
    /// Records the log took so far.
    pub(super) appended: f64,
}

/// Looks until it is told to end.
pub(super) struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Vec<Sample>>>,
}

impl Watch {
    /// Begins to look at these nodes' metrics.
    pub(super) fn start(nodes: Vec<SocketAddr>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut samples = Vec::new();
            let mut tick = interval(LOOK);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    _ = &mut stopped => return Ok(samples),
                }
                let nodes = nodes.clone();
                samples.push(spawn_blocking(move || look(&nodes)).await.context("a thread that looks")??);
            }
        });
        Self { stop, task }
    }

    /// Ends it; answers all it saw.
    ///
    /// # Errors
    /// A node did not tell its metrics.
    pub(super) async fn end(self) -> Result<Vec<Sample>> {
        // It ended by itself only with an error, which is in the answer.
        let _ = self.stop.send(());
        self.task.await.context("the task that looks")?
    }
}

fn look(nodes: &[SocketAddr]) -> Result<Sample> {
    let (mut rows, mut appended) = (0.0, 0.0);
    for node in nodes {
        let answer = http::get(*node, "/metrics")?;
        if answer.status != 200 || !answer.body.contains(ROWS) {
            bail!("{node}/metrics tells no backlog: {}", answer.status);
        }
        rows += http::sum_of(&answer.body, ROWS);
        appended += http::sum_of(&answer.body, APPENDED);
    }
    Ok(Sample { at_ns: now_ns(), rows, appended })
}

/// The most that waited in this time.
pub(super) fn peak(samples: &[Sample], from_ns: u64, to_ns: u64) -> f64 {
    let within = samples.iter().filter(|sample| (from_ns..to_ns).contains(&sample.at_ns));
    within.map(|sample| sample.rows).fold(0.0, f64::max)
}

/// Records a second that the log took in this time.
pub(super) fn appended_per_second(samples: &[Sample], from_ns: u64, to_ns: u64) -> f64 {
    let mut within = samples.iter().filter(|sample| (from_ns..to_ns).contains(&sample.at_ns));
    match (within.next(), within.next_back()) {
        (Some(first), Some(last)) if last.at_ns > first.at_ns => {
            (last.appended - first.appended) / ((last.at_ns - first.at_ns) as f64 / 1e9)
        }
        _ => 0.0,
    }
}

/// When no more than `normal` waited, and never more again; `None`: at the end too much waits.
pub(super) fn drained(samples: &[Sample], from_ns: u64, normal: f64) -> Option<u64> {
    let later: Vec<&Sample> = samples.iter().filter(|sample| sample.at_ns >= from_ns).collect();
    let above = later.iter().rposition(|sample| sample.rows > normal);
    later.get(above.map_or(0, |index| index + 1)).map(|sample| sample.at_ns)
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
const ROWS: &str = "corecast_logic_relay_backlog_rows";
const APPENDED: &str = "corecast_logic_relay_appended_records_total";

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(rows: &[f64]) -> Vec<Sample> {
        let one = |(index, rows): (usize, &f64)| Sample {
            at_ns: index as u64 * 1_000_000_000,
            rows: *rows,
            appended: index as f64 * 500.0,
        };
        rows.iter().enumerate().map(one).collect()
    }

    #[test]
    fn drained_is_when_it_stays_so() {
        let seen = samples(&[5.0, 900.0, 90.0, 700.0, 100.0, 20.0]);
        assert_eq!(drained(&seen, 1, 100.0), Some(4_000_000_000), "90 was no end: 700 came after it");
        assert_eq!(drained(&seen, 4_500_000_000, 100.0), Some(5_000_000_000));
        assert_eq!(drained(&seen, 0, 10.0), None, "20 wait at the end");
        assert_eq!(drained(&seen, 9_000_000_000, 100.0), None, "nobody looked");
    }

    #[test]
    fn peaks_and_rates_are_of_their_time() {
        let seen = samples(&[5.0, 900.0, 90.0, 7.0]);
        assert_eq!(peak(&seen, 0, 1_000_000_000), 5.0);
        assert_eq!(peak(&seen, 0, 4_000_000_000), 900.0);
        assert_eq!(appended_per_second(&seen, 0, 4_000_000_000), 500.0);
        assert_eq!(appended_per_second(&seen, 0, 1), 0.0);
    }
}
