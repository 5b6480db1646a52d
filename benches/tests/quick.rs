//! The yardstick itself: logic and gateway as libraries in this process, the floors as their
//! own ones, 50 members. Nothing here is a measurement; it shows that messages are counted,
//! that costs are seen, and that a loss would be.

mod system;

use std::path::PathBuf;
use std::time::Duration;

use corecast_benches::floor::{Floor, FloorConfig, Greeting, Mechanism};
use corecast_benches::load::{Fleet, Knock};
use corecast_benches::measure::Run;
use corecast_benches::scenarios::backlog::Backlog;
use corecast_benches::scenarios::echo::Echo;
use corecast_benches::scenarios::fanout::FanOut;
use corecast_benches::scenarios::handshake::Handshake;
use corecast_benches::subject::{Kind, Server, Setup, Way};
use corecast_benches::sys;
use corecast_benches::wire::Marker;

use self::system::System;

const MEMBERS: usize = 50;

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
fn every_floor_greets_its_clients() {
    let cores = sys::cores().unwrap();
    let setup = Setup {
        corecast: PathBuf::new(),
        bench: env!("CARGO_BIN_EXE_corecast-bench").into(),
        server_core: cores[0],
        client_core: cores[cores.len() - 1],
        sets: Vec::new(),
        way: Way::Comet,
        hello_bytes: 300,
        echo: false,
        ping_ms: 0,
    };
    for (kind, sends) in [(Kind::FloorSend, 2.0), (Kind::FloorOneSend, 1.0), (Kind::FloorV1, 2.0)] {
        let run = greeted(&mut setup.start(kind).unwrap());
        assert_eq!((run.found.hello_bytes, run.sends), (300, Some(sends)), "{kind:?}");
        assert!(run.shard_us() > 0.0, "{kind:?}: {:?}", run.cost);
    }
}

#[test]
fn the_gateway_sends_once_to_a_new_client_and_twice_to_one_that_resumes() {
    let system = System::start();
    let mut server = system.server(Way::Comet, false);
    let old = greeted(&mut server);
    // A busy machine may be slow with the hello, which then is a send of its own.
    assert!(old.sends.is_some_and(|sends| (0.5..=2.0).contains(&sends)), "{:?}", old.sends);
    server.knock.v1 = true;
    let v1 = greeted(&mut server);
    // A shard shows its numbers at the end of a turn, which may be a moment later.
    assert!(v1.sends.is_some_and(|sends| (1.5..=2.0).contains(&sends)), "{:?}", v1.sends);
    assert_eq!(old.found.hello_bytes, v1.found.hello_bytes, "the floor's hello is as long as both");
}

/// The handshakes of as many connections as are usual here.
fn greeted(server: &mut Server) -> Run {
    let run = Handshake { connections: MEMBERS, per_second: 1_000 }.run(server).expect("it greets everybody");
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert_eq!(run.found.latency.count(), MEMBERS as u64);
    run
}

#[test]
fn a_server_that_skips_repeats_and_swaps_is_found_out() {
    let (mechanism, greeting) = (Mechanism::Send, Greeting::TwoSends);
    let floor = Floor::bind(FloorConfig { mechanism, greeting, hello_bytes: 100, ping_ms: 0 }).unwrap();
    let (server, control) = floor.addrs().unwrap();
    let serving = std::thread::spawn(move || floor.run());
    let mut control = corecast_benches::control::Control::connect(control).unwrap();
    let mut fleet = Fleet::start(2).unwrap();
    let knock = Knock { hello: true, ..Knock::to(server) };
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
