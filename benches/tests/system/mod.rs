//! A system of libraries in this process, for the tests of the yardstick.

use std::net::SocketAddr;
use std::time::Duration;

use corecast_backends::url::{Backends, Urls};
use corecast_benches::subject::{Addresses, Server, Way};
use corecast_gateway::config::Limits;
use corecast_gateway::control::Gateway;
use corecast_logic::Logic;
use corecast_logic::config::{CreateKind, Rooms};
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Logic and gateway on a runtime of their own; the client blocks, so it stays outside.
pub(crate) struct System {
    runtime: Option<Runtime>,
    stop: Option<DropGuard>,
    at: Addresses,
    _data: tempfile::TempDir,
}

impl System {
    /// With default limits.
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    /// With these limits; rooms that are made are public ones.
    pub(crate) fn with(limits: Limits) -> Self {
        let runtime = Runtime::new().expect("a runtime starts");
        let data = tempfile::tempdir().expect("a folder");
        let stop = CancellationToken::new();
        let at = runtime.block_on(async {
            let local = SocketAddr::from(([127, 0, 0, 1], 0));
            let backends =
                Backends::open(&Urls::default(), data.path()).await.expect("embedded backends open");
            let config = corecast_logic::Config {
                http_addr: "127.0.0.1:0".into(),
                grpc_addr: "127.0.0.1:0".into(),
                id: Some("logic-1".into()),
                rooms: Rooms { create_kind: CreateKind::Public, ..Rooms::default() },
                ..Default::default()
            };
            let logic = Logic::bind(config, backends.clone().into()).await.expect("logic binds");
            let config = corecast_gateway::config::Config {
                http_addr: local,
                grpc_addr: local,
                metrics_addr: local,
                id: Some("gateway-1".into()),
                limits,
                ..Default::default()
            };
            let registry = backends.registry.clone();
            let gateway =
                Gateway::bind(config, true, backends.bus.clone(), registry).await.expect("the gateway binds");
            let at = Addresses {
                http: gateway.http_addr(),
                grpc: gateway.grpc_addr(),
                metrics: gateway.metrics_addr(),
                logic: logic.http_addr(),
            };
            let (of_gateway, of_logic) = (stop.clone(), stop.clone());
            tokio::spawn(async move { gateway.run(of_gateway).await.expect("the gateway runs") });
            tokio::spawn(async move { logic.run(of_logic).await.expect("logic runs") });
            at
        });
        Self { runtime: Some(runtime), stop: Some(stop.drop_guard()), at, _data: data }
    }

    /// The server as the scenarios know it.
    pub(crate) fn server(&self, way: Way, echo: bool) -> Server {
        Server::of_corecast(std::process::id(), self.at, way, echo, None)
            .expect("it is ready and makes accounts")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}
