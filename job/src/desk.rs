//! The ledger and what its users need beside it: the time, the wakes, the counters.
//!
//! The lock is held for calculations only, never across an await.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use corecast_backends::log::Lag;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::Config;
use crate::core::Time;
use crate::core::ledger::Ledger;
use crate::metrics::{LaneSnapshot, Metrics, Snapshot};

/// What a consumer last said of itself.
#[derive(Clone, Default)]
pub(crate) struct Report {
    /// It takes part in its group, and the log can be reached.
    pub(crate) up: bool,
    /// How far behind its partitions are.
    pub(crate) lag: Vec<Lag>,
}

/// Shared by the consumers, the pushers and the health server.
pub(crate) struct Desk {
    ledger: Mutex<Ledger>,
    origin: Instant,
    offered: watch::Sender<()>,
    released: watch::Sender<()>,
    listed: watch::Sender<bool>,
    reports: Mutex<Vec<Report>>,
    pub(crate) metrics: Metrics,
    pub(crate) deadline: Duration,
}

impl Desk {
    pub(crate) fn new(config: &Config, consumers: usize) -> Self {
        let limits = config.limits(consumers);
        Self {
            ledger: Mutex::new(Ledger::new(
                limits,
                consumers,
                config.in_flight_records,
                config.in_flight_bytes,
            )),
            origin: Instant::now(),
            offered: watch::Sender::new(()),
            released: watch::Sender::new(()),
            listed: watch::Sender::new(false),
            reports: Mutex::new(vec![Report::default(); consumers]),
            metrics: Metrics::new(),
            deadline: config.push_deadline(),
        }
    }

    /// The ledger, locked.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("the core does not panic under the lock")
    }

    /// The core's time.
    pub(crate) fn now(&self) -> Time {
        self.origin.elapsed()
    }

    /// The runtime's time of a moment of the core.
    pub(crate) fn at(&self, time: Time) -> Instant {
        self.origin + time
    }

    /// Something was offered, or a lane's place in the registry changed: wakes every lane.
    pub(crate) fn tell_lanes(&self) {
        self.offered.send_replace(());
    }

    /// Wakes after [`tell_lanes`](Self::tell_lanes).
    pub(crate) fn lane_wakes(&self) -> watch::Receiver<()> {
        self.offered.subscribe()
    }

    /// Something was released: an offset may be safe, a window may have room again.
    pub(crate) fn tell_consumers(&self) {
        self.released.send_replace(());
    }

    /// Wakes after [`tell_consumers`](Self::tell_consumers).
    pub(crate) fn consumer_wakes(&self) -> watch::Receiver<()> {
        self.released.subscribe()
    }

    /// The registry answered for the first time: from now on records may be planned.
    pub(crate) fn tell_listed(&self) {
        self.listed.send_replace(true);
    }

    /// Did the registry answer?
    pub(crate) fn listed(&self) -> watch::Receiver<bool> {
        self.listed.subscribe()
    }

    /// A consumer tells how it is.
    pub(crate) fn tell_report(&self, consumer: usize, report: Report) {
        self.reports()[consumer] = report;
    }

    /// Does every consumer take part?
    pub(crate) fn all_up(&self) -> bool {
        self.reports().iter().all(|report| report.up)
    }

    fn reports(&self) -> MutexGuard<'_, Vec<Report>> {
        self.reports.lock().expect("nothing panics under the lock")
    }

    /// The text of a scrape.
    pub(crate) fn metrics_text(&self) -> String {
        let now = self.now();
        let snapshot = {
            let ledger = self.ledger();
            let (records, bytes) = ledger.in_flight();
            let lag = ledger.oldest().map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest));
            let lanes = ledger
                .lanes()
                .map(|(node, lane)| LaneSnapshot {
                    gateway: node.id.clone(),
                    unacked: lane.unacked(),
                    skipped: lane.skipped(),
                    unwanted: lane.unwanted(),
                    interest: lane.interest().is_complete().then(|| lane.interest().rooms()),
                })
                .collect();
            let reports = self.reports();
            let consumers_up = reports.iter().filter(|report| report.up).count();
            let behind = reports.iter().flat_map(|report| report.lag.iter().copied()).collect();
            Snapshot { records, bytes, lag_seconds: lag.as_secs_f64(), lanes, consumers_up, behind }
        };
        self.metrics.text(snapshot)
    }
}
