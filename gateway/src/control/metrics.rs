//! Counters and histograms of the control side.
//!
//! Every gateway has its own registry, so that several live in one process. The names that
//! dashboards already use ([`Forwards`]) are written by hand: the crate sorts labels, and
//! the contract fixes their order.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use super::logic_client::LogicError;

/// Upper bounds of latency buckets in seconds, 0.5 ms to 10 s.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Everything `/metrics` shows of the control side.
pub struct Metrics {
    registry: Registry,
    /// Forwarded `clientMessages`.
    pub forwards: Forwards,
    /// Seconds from a `clientMessages` frame to its answer by logic.
    pub forward_seconds: Histogram,
    /// Ends of connect attempts after the 101, by outcome.
    pub connects: IntCounterVec,
    /// Refused client frames, by code.
    pub refused_frames: IntCounterVec,
    /// Requests of browsers over plain HTTP, by path and status.
    pub http_requests: IntCounterVec,
    /// Plain HTTP connections that hyper owns now.
    pub http_connections: IntGauge,
    /// Plain HTTP connections that were refused because too many were open.
    pub http_refused: IntCounter,
    /// Unary pushes, by call and outcome.
    pub comet_calls: IntCounterVec,
    /// Batches of job streams that were acked.
    pub push_batches: IntCounter,
    /// Pushes in them, by kind: numbered, unnumbered, repeated, head, nobody, unusable.
    pub pushes: IntCounterVec,
    /// Job streams that are open.
    pub push_streams: IntGauge,
    /// Rooms of which job is told that it has to send them.
    pub interest_rooms: IntGauge,
    /// Times a job stream was told to send everything, and the rooms from the beginning.
    pub interest_restarts: IntCounter,
    /// Frames of the fast path.
    pub bus_frames: IntCounter,
    /// Interruptions of the fast path.
    pub bus_interruptions: IntCounter,
    /// Sessions that were closed because the store no longer knows them.
    pub sessions_revoked: IntCounter,
    /// Commands that had to wait for a place in a mailbox.
    pub mailbox_waits: IntCounter,
    /// Lost leases.
    pub leases_lost: IntCounter,
}

/// `grpc_calls_total{service="comet",name="logic_forward",…}`, once per `clientMessages`.
#[derive(Default)]
pub struct Forwards {
    success: AtomicU64,
    failed: AtomicU64,
}

/// Calls to logic.
pub struct LogicMetrics {
    calls: IntCounterVec,
    seconds: HistogramVec,
}

impl Metrics {
    /// All at zero, registered.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            forwards: Forwards::default(),
            forward_seconds: add(r, histogram("forward_seconds", "Seconds a forward to logic took")),
            connects: add(r, counters("connects_total", "Ends of connect attempts", &["outcome"])),
            refused_frames: add(r, counters("refused_frames_total", "Refused client frames", &["code"])),
            http_requests: add(r, counters("http_requests_total", "HTTP requests", &["path", "status"])),
            http_connections: add(r, gauge("http_connections", "Plain HTTP connections")),
            http_refused: add(r, counter("http_refused_total", "Plain HTTP connections refused")),
            comet_calls: add(r, counters("comet_calls_total", "Unary pushes", &["call", "status"])),
            push_batches: add(r, counter("push_batches_total", "Acked batches of job streams")),
            pushes: add(r, counters("pushes_total", "Pushes of job streams", &["kind"])),
            push_streams: add(r, gauge("push_streams", "Open job streams")),
            interest_rooms: add(r, gauge("interest_rooms", "Rooms job is asked to send")),
            interest_restarts: add(r, counter("interest_restarts_total", "Interest told from the beginning")),
            bus_frames: add(r, counter("bus_frames_total", "Frames of the fast path")),
            bus_interruptions: add(r, counter("bus_interruptions_total", "Gaps of the fast path")),
            sessions_revoked: add(r, counter("sessions_revoked_total", "Sessions closed by the check")),
            mailbox_waits: add(r, counter("mailbox_waits_total", "Commands that waited for a mailbox")),
            leases_lost: add(r, counter("leases_lost_total", "Lost leases")),
            registry,
        }
    }

    /// Adds another part's collectors. A name that exists already is left as it is.
    pub fn register(&self, collector: Box<dyn Collector>) {
        if let Err(error) = self.registry.register(collector) {
            tracing::warn!(%error, "metric not registered");
        }
    }

    /// Prometheus text.
    pub fn render(&self) -> Vec<u8> {
        let mut out = self.forwards.render().into_bytes();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .expect("text of valid metrics into a Vec always encodes");
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Forwards {
    /// One `clientMessages` was answered by logic: stored or not.
    pub fn count(&self, stored: bool) {
        let counter = if stored { &self.success } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// (stored, not stored) since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.success.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    fn render(&self) -> String {
        let (success, failed) = self.totals();
        format!(
            "# HELP grpc_calls_total Calls between tiers\n# TYPE grpc_calls_total counter\n\
             grpc_calls_total{{service=\"comet\",name=\"logic_forward\",status=\"success\"}} {success}\n\
             grpc_calls_total{{service=\"comet\",name=\"logic_forward\",status=\"failed\"}} {failed}\n"
        )
    }
}

impl LogicMetrics {
    pub(super) fn new() -> Self {
        Self {
            calls: counters("logic_calls_total", "Calls to logic", &["method", "status"]),
            seconds: histograms("logic_call_seconds", "Seconds a call to logic took", &["method"]),
        }
    }

    pub(super) fn observe(&self, method: &'static str, took: Duration, error: Option<&LogicError>) {
        let status = match error {
            None => "success",
            Some(LogicError::Unreachable) => "unreachable",
            Some(LogicError::Deadline) => "deadline",
            Some(LogicError::Refused { .. }) => "refused",
        };
        self.calls.with_label_values(&[method, status]).inc();
        self.seconds.with_label_values(&[method]).observe(took.as_secs_f64());
    }

    /// Shows them in `metrics` too.
    pub fn register_in(&self, metrics: &Metrics) {
        metrics.register(Box::new(self.calls.clone()));
        metrics.register(Box::new(self.seconds.clone()));
    }
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("names are distinct");
    collector
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(format!("corecast_gateway_{name}"), help).expect("a valid name")
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(format!("corecast_gateway_{name}"), help), labels).expect("a valid name")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(format!("corecast_gateway_{name}"), help).expect("a valid name")
}

fn histogram(name: &str, help: &str) -> Histogram {
    Histogram::with_opts(histogram_opts(name, help)).expect("a valid name")
}

fn histograms(name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    HistogramVec::new(histogram_opts(name, help), labels).expect("a valid name")
}

fn histogram_opts(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(format!("corecast_gateway_{name}"), help).buckets(SECONDS.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_counters_exist_at_zero_with_labels_in_contract_order() {
        let metrics = Metrics::new();
        let text = String::from_utf8(metrics.render()).expect("text");
        for status in ["success", "failed"] {
            let line = format!(
                "grpc_calls_total{{service=\"comet\",name=\"logic_forward\",status=\"{status}\"}} 0\n"
            );
            assert!(text.contains(&line), "{text}");
        }
        metrics.forwards.count(true);
        assert_eq!(metrics.forwards.totals(), (1, 0));
    }

    #[test]
    fn logic_calls_are_told_by_outcome() {
        let metrics = Metrics::new();
        let logic = LogicMetrics::new();
        logic.register_in(&metrics);
        logic.observe("send", Duration::from_millis(3), Some(&LogicError::Deadline));
        let text = String::from_utf8(metrics.render()).expect("text");
        let line = "corecast_gateway_logic_calls_total{method=\"send\",status=\"deadline\"} 1";
        assert!(text.contains(line), "{text}");
    }
}
