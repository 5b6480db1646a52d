//! Counters, gauges and histograms of a logic node, `corecast_logic_<noun>_<unit>[_total]`.
//!
//! Each node has a registry of its own, so several nodes in one process do not add up.

mod pool;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use corecast_backends::bus::BusCounters;
use corecast_backends::hotset::HotSetCounters;
use corecast_backends::store::PoolUse;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

use self::pool::Pool;
use crate::error::Failure;

/// What a node counts. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    /// Frames in lanes: waiting and being committed.
    pub(crate) lane_frames: IntGauge,
    /// Frames refused because their lane was full.
    pub(crate) lane_refused_frames: IntCounter,
    /// Messages that one commit stored or found stored.
    pub(crate) commit_messages: Histogram,
    /// How long a commit took.
    pub(crate) commit_seconds: Histogram,
    /// Requests that wait for a password hash.
    pub(crate) password_waiting_requests: IntGauge,
    /// Requests refused because too many wait.
    pub(crate) password_refused_requests: IntCounter,
    /// Frames given to the fast path.
    pub(crate) bus_published_frames: IntCounter,
    /// Frames that did not reach the fast path: it was too slow. The log delivers them.
    pub(crate) bus_dropped_frames: IntCounter,
    /// Calls that the hot set did not answer.
    pub(crate) hotset_failed_calls: IntCounter,
    /// Cached lists that miss an append because too many waited.
    pub(crate) hotset_dropped_appends: IntCounter,
    backends: Arc<Mutex<Backends>>,
    /// Pages of history, by where they came from.
    history_pages: IntCounterVec,
    /// Sessions verified, by where the answer came from.
    verified_sessions: IntCounterVec,
    /// Outbox rows that wait for the log; 10,000 stands for more, too.
    pub(crate) relay_backlog_rows: IntGauge,
    /// Age of the oldest of them.
    pub(crate) relay_backlog_seconds: Gauge,
    /// Records the log took.
    pub(crate) relay_appended_records: IntCounter,
    /// Records the log will never take.
    pub(crate) relay_dead_letter_records: IntCounter,
    /// Rows taken over from nodes that are dead.
    pub(crate) relay_claimed_rows: IntCounter,
    /// Appends and reads that failed and were tried again.
    pub(crate) relay_failed_attempts: IntCounter,
}

/// What the hot set and the bus count themselves, as it was told last.
struct Backends {
    hotset_hits: IntCounter,
    hotset_misses: IntCounter,
    hotset_errors: IntCounter,
    hotset_revocations_held: IntGauge,
    bus_unsent_frames: IntCounter,
    store_pool: Pool,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The hot set.
    Cache,
    /// The store.
    Store,
}

impl Source {
    fn label(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Store => "store",
        }
    }
}

/// Every function of the service, so that each label is present from the start.
const FUNCTIONS: [&str; 13] = [
    "register",
    "login",
    "logout",
    "verify",
    "hello",
    "send",
    "history",
    "create_room",
    "rooms",
    "set_route",
    "drop_route",
    "heads",
    "range",
];

/// Seconds: from a cached read (0.1 ms) to the deadline of a commit.
const SECONDS: [f64; 14] =
    [0.0001, 0.0003, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

impl Metrics {
    /// A fresh registry with everything at 0.
    pub fn new() -> Self {
        let registry = Registry::new();
        let this = Self {
            requests: counters(&registry, "requests_total", "answers", &["function", "status"]),
            request_seconds: seconds_by(&registry, "request_seconds", "time to an answer", &["function"]),
            lane_frames: gauge(&registry, "lane_frames", "client frames waiting for or in a commit"),
            lane_refused_frames: counter(&registry, "lane_refused_frames_total", "refused: lane full"),
            commit_messages: histogram(
                &registry,
                "commit_messages",
                "messages of one commit",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0],
            ),
            commit_seconds: histogram(&registry, "commit_seconds", "time of one commit", &SECONDS),
            password_waiting_requests: gauge(&registry, "password_waiting_requests", "waiting for a hash"),
            password_refused_requests: counter(
                &registry,
                "password_refused_requests_total",
                "refused: too many wait for a hash",
            ),
            bus_published_frames: counter(&registry, "bus_published_frames_total", "given to the fast path"),
            bus_dropped_frames: counter(
                &registry,
                "bus_dropped_frames_total",
                "kept from the fast path: too slow",
            ),
            hotset_failed_calls: counter(&registry, "hotset_failed_calls_total", "hot set did not answer"),
            hotset_dropped_appends: counter(
                &registry,
                "hotset_dropped_appends_total",
                "cached lists that miss an append: too many waited",
            ),
            backends: Arc::new(Mutex::new(Backends {
                hotset_hits: counter(&registry, "hotset_hits_total", "found in the hot set"),
                hotset_misses: counter(&registry, "hotset_misses_total", "not, or not all, in the hot set"),
                hotset_errors: counter(&registry, "hotset_errors_total", "errors of the hot set's server"),
                hotset_revocations_held: gauge(
                    &registry,
                    "hotset_revocations_held",
                    "ended sessions the hot set has yet to be told of",
                ),
                bus_unsent_frames: counter(
                    &registry,
                    "bus_unsent_frames_total",
                    "dropped by the fast path: its server was down or too slow",
                ),
                store_pool: Pool::new(&registry),
            })),
            history_pages: counters(&registry, "history_pages_total", "pages of history", &["source"]),
            verified_sessions: counters(
                &registry,
                "verified_sessions_total",
                "sessions looked up",
                &["source"],
            ),
            relay_backlog_rows: gauge(&registry, "relay_backlog_rows", "outbox rows that wait for the log"),
            relay_backlog_seconds: gauge_of_seconds(
                &registry,
                "relay_backlog_seconds",
                "age of the oldest outbox row",
            ),
            relay_appended_records: counter(&registry, "relay_appended_records_total", "taken by the log"),
            relay_dead_letter_records: counter(
                &registry,
                "relay_dead_letter_records_total",
                "never taken by the log",
            ),
            relay_claimed_rows: counter(&registry, "relay_claimed_rows_total", "taken over from dead nodes"),
            relay_failed_attempts: counter(
                &registry,
                "relay_failed_attempts_total",
                "failed and tried again",
            ),
            registry,
        };
        for function in FUNCTIONS {
            for status in ["ok", "refused", "unavailable", "internal"] {
                this.requests.with_label_values(&[function, status]);
            }
            this.request_seconds.with_label_values(&[function]);
        }
        for source in [Source::Cache, Source::Store] {
            this.history_pages.with_label_values(&[source.label()]);
            this.verified_sessions.with_label_values(&[source.label()]);
        }
        this
    }

    /// The text that `/metrics` answers.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out).expect("a Vec takes every byte");
        String::from_utf8(out).expect("the text format is UTF-8")
    }

    /// Takes over what the hot set and the bus counted since they were opened.
    pub(crate) fn note_backends(&self, hotset: HotSetCounters, bus: BusCounters) {
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(&backends.hotset_hits, hotset.hits);
        raise(&backends.hotset_misses, hotset.misses);
        raise(&backends.hotset_errors, hotset.errors);
        backends.hotset_revocations_held.set(hotset.revocations_held as i64);
        raise(&backends.bus_unsent_frames, bus.dropped);
    }

    /// Takes over how the store uses its connections, where it tells.
    pub(crate) fn note_pool(&self, now: Option<PoolUse>) {
        if let Some(now) = now {
            self.backends.lock().unwrap_or_else(PoisonError::into_inner).store_pool.note(now);
        }
    }

    /// Counts and times one call of a service function.
    pub(crate) async fn observed<T>(
        &self,
        function: &'static str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let started = Instant::now();
        let result = call.await;
        let status = result.as_ref().err().map_or("ok", Failure::label);
        self.requests.with_label_values(&[function, status]).inc();
        self.request_seconds.with_label_values(&[function]).observe(started.elapsed().as_secs_f64());
        result
    }

    pub(crate) fn history_page(&self, source: Source) {
        self.history_pages.with_label_values(&[source.label()]).inc();
    }

    pub(crate) fn verified(&self, source: Source, sessions: usize) {
        self.verified_sessions.with_label_values(&[source.label()]).inc_by(sessions as u64);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A gauge that is one higher for as long as this lives, whatever ends it.
pub(crate) struct Raised<'a>(&'a IntGauge);

impl<'a> Raised<'a> {
    pub(crate) fn new(gauge: &'a IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

const VALID: &str = "names and labels are constants, each registered once";

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("corecast_logic_{name}"), help)
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::with_opts(options(name, help)).expect(VALID);
    registry.register(Box::new(counter.clone())).expect(VALID);
    counter
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let counters = IntCounterVec::new(options(name, help), labels).expect(VALID);
    registry.register(Box::new(counters.clone())).expect(VALID);
    counters
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::with_opts(options(name, help)).expect(VALID);
    registry.register(Box::new(gauge.clone())).expect(VALID);
    gauge
}

fn gauge_of_seconds(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::with_opts(options(name, help)).expect(VALID);
    registry.register(Box::new(gauge.clone())).expect(VALID);
    gauge
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let options = HistogramOpts::from(options(name, help)).buckets(buckets.to_vec());
    let histogram = Histogram::with_opts(options).expect(VALID);
    registry.register(Box::new(histogram.clone())).expect(VALID);
    histogram
}

fn seconds_by(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::from(options(name, help)).buckets(SECONDS.to_vec());
    let histogram = HistogramVec::new(options, labels).expect(VALID);
    registry.register(Box::new(histogram.clone())).expect(VALID);
    histogram
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_from_the_start() {
        let text = Metrics::new().text();
        for name in [
            "corecast_logic_requests_total{function=\"send\",status=\"ok\"} 0",
            "corecast_logic_requests_total{function=\"login\",status=\"unavailable\"} 0",
            "corecast_logic_request_seconds_count{function=\"range\"} 0",
            "corecast_logic_lane_frames 0",
            "corecast_logic_relay_backlog_rows 0",
            "corecast_logic_history_pages_total{source=\"cache\"} 0",
        ] {
            assert!(text.contains(name), "{name} is missing in\n{text}");
        }
    }
}
