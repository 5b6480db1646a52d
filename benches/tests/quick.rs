//! The yardstick itself: logic and gateway as libraries in
//! this process, 50 members. Nothing here is a measurement; it shows that messages are
//! counted, that costs are seen, and that a loss would be.

use std::net::SocketAddr;
use std::time::Duration;

use corecast_backends::url::{Backends, Urls};
use corecast_benches::floor::{Floor, FloorConfig, Mechanism};
use corecast_benches::load::{Fleet, Knock};
use corecast_benches::scenarios::backlog::Backlog;
use corecast_benches::scenarios::echo::Echo;
use corecast_benches::scenarios::fanout::FanOut;
use corecast_benches::subject::{Addresses, Server, Way};
use corecast_benches::wire::Marker;
use corecast_gateway::control::Gateway;
use corecast_logic::Logic;
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

const MEMBERS: usize = 50;

/// Logic and gateway on a runtime of their own; the client blocks, so it stays outside.
struct System {
    runtime: Option<Runtime>,
    stop: Option<DropGuard>,
    at: Addresses,
    _data: tempfile::TempDir,
}

impl System {
    fn start() -> Self {
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
                ..Default::default()
            };
            let logic = Logic::bind(config, backends.clone().into()).await.expect("logic binds");
            let config = corecast_gateway::config::Config {
                http_addr: local,
                grpc_addr: local,
                metrics_addr: local,
                id: Some("gateway-1".into()),
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

    fn server(&self, way: Way, echo: bool) -> Server {
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

#[test]
fn a_fan_out_by_the_public_call_is_counted_whole_and_its_cost_is_seen() {
    let system = System::start();
    let workload = FanOut { members: MEMBERS, bytes: 128, moments: 30, together: 1 };
    let run = workload.run(&mut system.server(Way::Comet, false)).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert_eq!(run.found.tally.delivered, 30 * MEMBERS as u64);
    assert_eq!(run.found.latency.count(), 30 * MEMBERS as u64);
    assert!(run.shard_us() > 0.0 && run.process_us() >= run.shard_us(), "{:?}", run.cost);
    // A shard shows its numbers at the end of a turn, which may be a moment later.
    let counted = run.cost.deliveries;
    assert!(counted > 0.0 && counted <= 30.0 * MEMBERS as f64, "the gateway counted {counted}");
    assert!(run.frames_per_write.is_some());
}

#[test]
fn a_backlog_by_the_stream_is_counted_whole() {
    let system = System::start();
    let workload = Backlog { members: MEMBERS, bytes: 128, messages: 320, in_flight: 32, batch: 16 };
    let run = workload.run(&mut system.server(Way::Stream, false)).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert_eq!(run.found.tally.delivered, 320 * MEMBERS as u64);
}

#[test]
fn numbered_messages_are_checked_by_the_numbers_behind_hello() {
    let system = System::start();
    let workload = FanOut { members: MEMBERS, bytes: 128, moments: 10, together: 1 };
    let run = workload.run(&mut system.server(Way::Logic, false)).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert_eq!(run.found.tally.delivered, 10 * MEMBERS as u64);
}

#[test]
fn echoes_come_back_to_the_connection_that_sent_them() {
    let system = System::start();
    let workload = Echo { connections: MEMBERS, bytes: 32, per_second: 2_000, frames: 500 };
    let run = workload.run(&mut system.server(Way::Comet, true)).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert_eq!(run.found.tally.delivered, 500);
}

#[test]
fn a_server_that_skips_repeats_and_swaps_is_found_out() {
    let floor = Floor::bind(FloorConfig { mechanism: Mechanism::Send, hello_bytes: 100 }).unwrap();
    let (server, control) = floor.addrs().unwrap();
    let serving = std::thread::spawn(move || floor.run());
    let mut control = corecast_benches::control::Control::connect(control).unwrap();
    let mut fleet = Fleet::start(2).unwrap();
    let knock = Knock { server, path: "/".into(), sids: Vec::new(), v1: false, hello: true, room: None };
    fleet.open(knock, MEMBERS, None, Duration::from_secs(10)).unwrap();
    fleet.begin(0, 1).unwrap();
    // 3 never comes, 5 comes late, 6 comes twice, 8 was sent last and never came.
    let numbers = [1, 2, 4, 6, 5, 6, 7];
    let payload = |counter| Marker { counter, intended_ns: 0 }.payload(64);
    control.send(&numbers.map(payload)).unwrap();
    assert!(fleet.wait_received(7 * MEMBERS as u64, Duration::from_secs(10)));
    let tally = fleet.judge(Some(8)).unwrap().tally;
    let members = MEMBERS as u64;
    assert_eq!((tally.delivered, tally.lost), (5 * members, 2 * members));
    assert_eq!((tally.duplicated, tally.reordered), (members, members));
    drop(control);
    serving.join().unwrap().unwrap();
}
