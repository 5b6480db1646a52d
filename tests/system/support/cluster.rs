//! The tiers as libraries in this process, on the embedded backends: for tests in which the
//! fast path must misbehave, or one tier must be away while the others go on.

use std::net::SocketAddr;

use corecast_backends::bus::AnyBus;
use corecast_backends::bus::faults::BusFaults;
use corecast_backends::bus::memory::MemoryBus;
use corecast_backends::store::AnyStore;
use corecast_backends::url::{Backends, Urls};
use corecast_gateway::config::Config as GatewayConfig;
use corecast_gateway::control::Gateway;
use corecast_job::Job;
use corecast_logic::Logic;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Account, eventually, folder, http, in_time};

/// Backends, and the tiers that run on them.
pub struct Cluster {
    /// The fast path, whose faults can be set at any time.
    pub bus: MemoryBus,
    backends: Backends,
    fast_path: AnyBus,
    logic: Option<LogicTier>,
    job: Option<JobTier>,
    gateways: Vec<GatewayTier>,
    _data: tempfile::TempDir,
}

/// A tier that runs in this process.
struct Tier {
    /// Dropped, the tier ends.
    stop: DropGuard,
    task: JoinHandle<Result<(), String>>,
}

struct JobTier {
    tier: Tier,
    http: SocketAddr,
}

struct LogicTier {
    tier: Tier,
    http: SocketAddr,
}

struct GatewayTier {
    tier: Option<Tier>,
    http: SocketAddr,
    grpc: SocketAddr,
    metrics: SocketAddr,
}

impl Cluster {
    /// Empty backends and a bus with these faults; nothing runs.
    pub async fn new(faults: BusFaults) -> Self {
        Self::on(Urls::default(), faults).await
    }

    /// The same on these backends; the bus is the one with faults, whatever they say.
    pub async fn on(urls: Urls, faults: BusFaults) -> Self {
        let data = folder();
        let backends = Backends::open(&urls, data.path()).await.expect("the backends open");
        let bus = MemoryBus::with_faults(faults);
        let fast_path = AnyBus::Memory(bus.clone());
        Self { bus, backends, fast_path, logic: None, job: None, gateways: Vec::new(), _data: data }
    }

    /// Everything runs, with one gateway.
    pub async fn up(faults: BusFaults) -> Self {
        let mut cluster = Self::new(faults).await;
        cluster.start_logic().await;
        cluster.start_gateway(|_| {}).await;
        cluster.start_job(|_| {}).await;
        cluster
    }

    /// The store under everything.
    pub fn store(&self) -> &AnyStore {
        &self.backends.store
    }

    /// Starts logic.
    pub async fn start_logic(&mut self) {
        self.start_logic_with(|_| {}).await;
    }

    /// The same with other settings.
    pub async fn start_logic_with(&mut self, change: impl FnOnce(&mut corecast_logic::Config)) {
        let mut config = corecast_logic::Config {
            http_addr: "127.0.0.1:0".into(),
            grpc_addr: "127.0.0.1:0".into(),
            id: Some("logic-1".into()),
            ..Default::default()
        };
        change(&mut config);
        let backends = corecast_logic::Backends {
            store: self.backends.store.clone(),
            hotset: self.backends.hotset.clone(),
            producer: self.backends.producer.clone(),
            bus: self.fast_path.clone(),
            registry: self.backends.registry.clone(),
        };
        let logic = Logic::bind(config, backends).await.expect("logic binds");
        let http = logic.http_addr();
        let tier = Tier::run(|stop| async move { logic.run(stop).await.map_err(|error| error.to_string()) });
        self.logic = Some(LogicTier { tier, http });
    }

    /// Stops logic.
    pub async fn stop_logic(&mut self) {
        self.logic.take().expect("logic runs").tier.end().await;
    }

    /// Starts job.
    pub async fn start_job(&mut self, change: impl FnOnce(&mut corecast_job::Config)) {
        let mut config = corecast_job::Config { http_addr: "127.0.0.1:0".into(), ..Default::default() };
        change(&mut config);
        let consumer = self.backends.consumer().await.expect("the embedded log has a consumer");
        let job = Job::bind(config, vec![consumer], &self.backends.registry).await.expect("job binds");
        let http = job.http_addr();
        let tier = Tier::run(|stop| async move { job.run(stop).await.map_err(|error| error.to_string()) });
        self.job = Some(JobTier { tier, http });
    }

    /// Starts one more gateway; answers its index.
    pub async fn start_gateway(&mut self, change: impl FnOnce(&mut GatewayConfig)) -> usize {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = GatewayConfig {
            http_addr: local,
            grpc_addr: local,
            metrics_addr: local,
            id: Some(format!("gateway-{}", self.gateways.len() + 1)),
            ..Default::default()
        };
        if let Some(driver) = super::driver() {
            config.driver = serde_json::from_value(driver.into()).expect("CORECAST_TEST_DRIVER is a driver");
        }
        change(&mut config);
        let registry = self.backends.registry.clone();
        let gateway =
            Gateway::bind(config, false, self.fast_path.clone(), registry).await.expect("the gateway binds");
        let (http, grpc, metrics) = (gateway.http_addr(), gateway.grpc_addr(), gateway.metrics_addr());
        let tier =
            Tier::run(|stop| async move { gateway.run(stop).await.map_err(|error| error.to_string()) });
        self.gateways.push(GatewayTier { tier: Some(tier), http, grpc, metrics });
        self.gateways.len() - 1
    }

    /// Stops one gateway, browsers first drained.
    pub async fn stop_gateway(&mut self, gateway: usize) {
        self.gateways[gateway].tier.take().expect("it runs").end().await;
    }

    /// Waits until a gateway is ready.
    pub async fn ready(&self, gateway: usize) {
        let metrics = self.gateways[gateway].metrics;
        eventually("the gateway is ready", || async move {
            http::get(metrics, "/readyz").await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// HTTP and WebSocket of a gateway.
    pub fn http(&self, gateway: usize) -> SocketAddr {
        self.gateways[gateway].http
    }

    /// gRPC of a gateway.
    pub fn grpc(&self, gateway: usize) -> SocketAddr {
        self.gateways[gateway].grpc
    }

    /// Metrics and readiness of a gateway.
    pub fn metrics(&self, gateway: usize) -> SocketAddr {
        self.gateways[gateway].metrics
    }

    /// One metric of a gateway, with its labels as they are written.
    pub async fn gateway_metric(&self, gateway: usize, name: &str) -> f64 {
        let value = self.try_gateway_metric(gateway, name).await;
        value.unwrap_or_else(|| panic!("{name} is missing"))
    }

    /// The same; `None`: not counted yet.
    pub async fn try_gateway_metric(&self, gateway: usize, name: &str) -> Option<f64> {
        metric(self.metrics(gateway), name).await
    }

    /// One metric of job.
    pub async fn job_metric(&self, name: &str) -> Option<f64> {
        metric(self.job.as_ref().expect("job runs").http, name).await
    }

    /// The JSON face of logic.
    pub fn logic(&self) -> SocketAddr {
        self.logic.as_ref().expect("logic runs").http
    }

    /// A new account.
    pub async fn account(&self, name: &str) -> Account {
        Account::register(self.http(0), self.logic(), name).await
    }

    /// Ends every tier, browsers first drained.
    pub async fn end(mut self) {
        for gateway in &mut self.gateways {
            if let Some(tier) = gateway.tier.take() {
                tier.end().await;
            }
        }
        if let Some(job) = self.job.take() {
            job.tier.end().await;
        }
        if let Some(logic) = self.logic.take() {
            logic.tier.end().await;
        }
        self.backends.close().await;
    }
}

async fn metric(addr: SocketAddr, name: &str) -> Option<f64> {
    let answer = http::get(addr, "/metrics").await.expect("it answers");
    answer.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

impl Tier {
    fn run<F>(start: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(start(stop.clone())), stop: stop.drop_guard() }
    }

    async fn end(self) {
        drop(self.stop);
        in_time("a tier ends", self.task).await.expect("it does not panic").expect("it ends well");
    }
}
