//! The store's connections, where it has some.

use corecast_backends::store::PoolUse;
use prometheus::{Counter, IntCounter, IntGauge, Opts, Registry};

use super::{VALID, counter, gauge, options};

/// What the store's pool told last.
pub(super) struct Pool {
    max: IntGauge,
    in_use: IntGauge,
    idle: IntGauge,
    waiting: IntGauge,
    waits: IntCounter,
    wait_seconds: Counter,
    wait_timeouts: IntCounter,
    opened: IntCounter,
    lost: IntCounter,
}

impl Pool {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| gauge(registry, name, help);
        let counter = |name, help| counter(registry, name, help);
        Self {
            max: gauge("store_connections_max", "connections allowed to the store's server"),
            in_use: gauge("store_connections_in_use", "connections in use"),
            idle: gauge("store_connections_idle", "connections open and free"),
            waiting: gauge("store_waiting_calls", "calls that wait for a connection"),
            waits: counter("store_waits_total", "calls that had to wait for a connection"),
            wait_seconds: seconds(
                registry,
                options("store_wait_seconds_total", "time that calls waited for a connection"),
            ),
            wait_timeouts: counter("store_wait_timeouts_total", "calls that waited for a connection in vain"),
            opened: counter("store_connections_opened_total", "connections opened"),
            lost: counter("store_connections_lost_total", "connections that broke or did not answer"),
        }
    }

    /// Takes over what the pool is doing and has counted since it was opened.
    pub(super) fn note(&self, now: PoolUse) {
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        self.max.set(now.max.into());
        self.in_use.set(now.in_use.into());
        self.idle.set(now.idle.into());
        self.waiting.set(now.waiting.into());
        raise(&self.waits, now.waits);
        self.wait_seconds.inc_by((now.wait_time.as_secs_f64() - self.wait_seconds.get()).max(0.0));
        raise(&self.wait_timeouts, now.wait_timeouts);
        raise(&self.opened, now.opened);
        raise(&self.lost, now.lost);
    }
}

fn seconds(registry: &Registry, options: Opts) -> Counter {
    let counter = Counter::with_opts(options).expect(VALID);
    registry.register(Box::new(counter.clone())).expect(VALID);
    counter
}
