//! What `/metrics` shows. One registry per job, so that several live in one process.

use corecast_backends::log::Lag;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

/// Upper bounds of the latency buckets, seconds: from a push over loopback to the end of a
/// duty.
const BUCKETS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// All counters of a job.
pub(crate) struct Metrics {
    registry: Registry,
    /// Records read.
    pub(crate) records: IntCounter,
    /// Records put aside.
    pub(crate) dead_letters: IntCounter,
    /// Dead letters that the log refused for good; logged, then given up.
    pub(crate) dead_letters_lost: IntCounter,
    /// Calls of the log that failed.
    pub(crate) log_errors: IntCounter,
    in_flight_records: IntGauge,
    in_flight_bytes: IntGauge,
    lag: Gauge,
    consumers_up: IntGauge,
    behind: IntGaugeVec,
    pushes: IntCounterVec,
    acks: IntCounterVec,
    retries: IntCounterVec,
    lapsed: IntCounterVec,
    skipped: IntCounterVec,
    unwanted: IntCounterVec,
    interest: IntGaugeVec,
    lane: IntGaugeVec,
    up: IntGaugeVec,
    latency: HistogramVec,
}

/// The counters of one gateway.
#[derive(Clone)]
pub(crate) struct LaneMetrics {
    /// Pushes sent, repeats included.
    pub(crate) pushes: IntCounter,
    /// Pushes taken over.
    pub(crate) acks: IntCounter,
    /// Pushes sent again on a new stream.
    pub(crate) retries: IntCounter,
    /// Duties that ended without an ack.
    pub(crate) lapsed: IntCounter,
    /// 1 while a stream is up.
    pub(crate) up: IntGauge,
    /// First send to ack.
    pub(crate) latency: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let opts = |name: &str, help: &str| Opts::new(format!("corecast_job_{name}"), help);
        let gateway = ["gateway"];
        Self {
            records: shown(&registry, IntCounter::with_opts(opts("records_total", "records read"))),
            dead_letters: shown(
                &registry,
                IntCounter::with_opts(opts(
                    "dead_letters_total",
                    "records put aside because nobody can read them",
                )),
            ),
            dead_letters_lost: shown(
                &registry,
                IntCounter::with_opts(opts(
                    "dead_letters_lost_total",
                    "dead letters that the log refused for good",
                )),
            ),
            log_errors: shown(
                &registry,
                IntCounter::with_opts(opts(
                    "log_errors_total",
                    "calls of the log that failed and are tried again",
                )),
            ),
            in_flight_records: shown(
                &registry,
                IntGauge::with_opts(opts("in_flight_records", "records read and not yet done")),
            ),
            in_flight_bytes: shown(
                &registry,
                IntGauge::with_opts(opts("in_flight_bytes", "bytes of records read and not yet done")),
            ),
            lag: shown(
                &registry,
                Gauge::with_opts(opts("lag_seconds", "age of the oldest record in flight")),
            ),
            consumers_up: shown(
                &registry,
                IntGauge::with_opts(opts("consumers_up", "consumers that take part in their group")),
            ),
            behind: shown(
                &registry,
                IntGaugeVec::new(
                    opts("consumer_lag_records", "records of a partition of ours that are not done"),
                    &["partition"],
                ),
            ),
            pushes: shown(
                &registry,
                IntCounterVec::new(opts("pushes_total", "pushes sent, repeats included"), &gateway),
            ),
            acks: shown(
                &registry,
                IntCounterVec::new(opts("acks_total", "pushes that the gateway took over"), &gateway),
            ),
            retries: shown(
                &registry,
                IntCounterVec::new(opts("retries_total", "pushes sent again on a new stream"), &gateway),
            ),
            lapsed: shown(
                &registry,
                IntCounterVec::new(opts("lapsed_duties_total", "duties that ended without an ack"), &gateway),
            ),
            skipped: shown(
                &registry,
                IntCounterVec::new(
                    opts("skipped_pushes_total", "pushes not kept for a gateway that nobody waits for"),
                    &gateway,
                ),
            ),
            unwanted: shown(
                &registry,
                IntCounterVec::new(
                    opts("unwanted_pushes_total", "pushes left out: the gateway has nobody in their rooms"),
                    &gateway,
                ),
            ),
            interest: shown(
                &registry,
                IntGaugeVec::new(
                    opts("interest_rooms", "rooms the gateway gets pushes of; -1: of all, it has not told"),
                    &gateway,
                ),
            ),
            lane: shown(
                &registry,
                IntGaugeVec::new(opts("lane_pushes", "pushes that wait for the gateway's ack"), &gateway),
            ),
            up: shown(&registry, IntGaugeVec::new(opts("streams_up", "1 while a stream is up"), &gateway)),
            latency: shown(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new("corecast_job_push_seconds", "first send to ack")
                        .buckets(BUCKETS.into()),
                    &gateway,
                ),
            ),
            registry,
        }
    }

    /// The counters of a gateway, at 0 when it is new.
    pub(crate) fn lane(&self, gateway: &str) -> LaneMetrics {
        let label = [gateway];
        LaneMetrics {
            pushes: self.pushes.with_label_values(&label),
            acks: self.acks.with_label_values(&label),
            retries: self.retries.with_label_values(&label),
            lapsed: self.lapsed.with_label_values(&label),
            up: self.up.with_label_values(&label),
            latency: self.latency.with_label_values(&label),
        }
    }

    /// The gateway left: names that come and go must not pile up.
    pub(crate) fn forget(&self, gateway: &str) {
        let label = [gateway];
        for counters in [&self.pushes, &self.acks, &self.retries, &self.lapsed, &self.skipped, &self.unwanted]
        {
            let _ = counters.remove_label_values(&label);
        }
        for gauges in [&self.lane, &self.up, &self.interest] {
            let _ = gauges.remove_label_values(&label);
        }
        let _ = self.latency.remove_label_values(&label);
    }

    /// The text of a scrape.
    pub(crate) fn text(&self, now: Snapshot) -> String {
        self.in_flight_records.set(gauge(now.records));
        self.in_flight_bytes.set(gauge(now.bytes));
        self.lag.set(now.lag_seconds);
        self.consumers_up.set(gauge(now.consumers_up));
        // A partition that went to another process is told there.
        self.behind.reset();
        for Lag { partition, records } in &now.behind {
            let records = i64::try_from(*records).unwrap_or(i64::MAX);
            self.behind.with_label_values(&[partition.to_string()]).set(records);
        }
        for lane in &now.lanes {
            let label = [lane.gateway.as_str()];
            self.lane.with_label_values(&label).set(gauge(lane.unacked));
            self.interest.with_label_values(&label).set(lane.interest.map_or(-1, gauge));
            for (counters, count) in [(&self.skipped, lane.skipped), (&self.unwanted, lane.unwanted)] {
                let counter = counters.with_label_values(&label);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("memory takes every write");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

/// What is only known when somebody asks.
pub(crate) struct Snapshot {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    pub(crate) lag_seconds: f64,
    pub(crate) consumers_up: usize,
    pub(crate) behind: Vec<Lag>,
    pub(crate) lanes: Vec<LaneSnapshot>,
}

/// The same of one gateway.
pub(crate) struct LaneSnapshot {
    pub(crate) gateway: String,
    pub(crate) unacked: usize,
    pub(crate) skipped: u64,
    pub(crate) unwanted: u64,
    /// Rooms it told; `None`: it wants everything.
    pub(crate) interest: Option<usize>,
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn shown<C: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("a valid name");
    registry.register(Box::new(metric.clone())).expect("each name once");
    metric
}
