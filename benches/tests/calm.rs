//! The scenarios beside plain speed, in small: narrow rooms, idle connections, the probe,
//! stalled readers, churn. Nothing here is a measurement.

mod system;

use std::path::Path;
use std::time::Duration;

use corecast_benches::floor::{Floor, FloorConfig, Greeting, Mechanism};
use corecast_benches::load::{Fleet, Knock};
use corecast_benches::scenarios::churn::Churn;
use corecast_benches::scenarios::idle::Idle;
use corecast_benches::scenarios::narrow::Narrow;
use corecast_benches::scenarios::probe::BesideRoom;
use corecast_benches::scenarios::stalled::Stalled;
use corecast_benches::subject::{Kind, Way};
use corecast_gateway::config::Limits;

use self::system::System;

#[test]
fn messages_of_many_rooms_reach_the_members_of_each_and_nobody_else() {
    let system = System::start();
    let workload = Narrow { rooms: 20, members: 4, bytes: 64, ticks: 10 };
    let run = workload.run(&mut system.server(Way::Stream, false)).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert_eq!(run.found.tally.delivered, 20 * 4 * 10);
    assert!(run.frames_per_write.is_some_and(|frames| frames >= 1.0), "{:?}", run.frames_per_write);
}

#[test]
fn every_idle_connection_is_pinged_once_a_period_by_the_gateway() {
    let period = Duration::from_secs(2);
    let system = System::with(Limits { ping_ms: 2_000, ..Limits::default() });
    let run = Idle { connections: 40, period }.run(&mut system.server(Way::Comet, false)).unwrap();
    assert_eq!(run.found.counts.pings, 40);
}

#[test]
fn every_idle_connection_is_pinged_once_a_period_by_the_floor() {
    let config = FloorConfig {
        mechanism: Mechanism::Send,
        greeting: Greeting::TwoSends,
        hello_bytes: 100,
        ping_ms: 1_000,
    };
    let floor = Floor::bind(config).unwrap();
    let (server, control) = floor.addrs().unwrap();
    let serving = std::thread::spawn(move || floor.run());
    let control = corecast_benches::control::Control::connect(control).unwrap();
    let mut fleet = Fleet::start(1).unwrap();
    let begin = std::time::Instant::now();
    fleet.open(Knock { hello: true, ..Knock::to(server) }, 40, None, Duration::from_secs(10)).unwrap();
    let mut pings = 0;
    while pings < 80 {
        assert!(begin.elapsed() < Duration::from_secs(20), "{pings} pings");
        std::thread::sleep(Duration::from_millis(20));
        pings = fleet.judge(None).unwrap().counts.pings;
    }
    // Both pings of everybody, the second a period after the first.
    assert_eq!(pings, 80);
    assert!(begin.elapsed() >= Duration::from_millis(1_900), "{:?}", begin.elapsed());
    drop(control);
    serving.join().unwrap().unwrap();
}

#[test]
fn the_probe_is_echoed_beside_a_room_and_tells_all_its_latencies() {
    let system = System::start();
    let mut server = system.server(Way::Comet, false);
    let workload = BesideRoom {
        interval: Duration::from_millis(20),
        moments: 25,
        ..BesideRoom::of(Path::new(env!("CARGO_BIN_EXE_corecast-bench")), 30)
    };
    let run = workload.run(&mut server).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    // Half a second of echoes every 2 ms, beside 25 messages to 30 members.
    assert_eq!((run.operations, run.found.latency.count()), (250, 250));
    assert_eq!(run.found.tally.delivered, 250 + 25 * 30);
    server.kind = Kind::Undisturbed;
    let run = workload.run(&mut server).unwrap();
    assert_eq!(run.found.tally.delivered, 250, "no message beside it");
}

#[test]
fn readers_that_stalled_get_every_message_once_on_the_same_connection() {
    let limits = Limits { socket_send_bytes: 8 << 10, push_soft_bytes: 8 << 10, ..Limits::default() };
    let system = System::with(limits);
    let workload =
        Stalled { readers: 20, stalled: 3, bytes: 3_000, per_second: 100, time: Duration::from_secs(2) };
    let mut server = system.server(Way::Logic, false);
    let run = workload.run(&mut server).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert_eq!(run.found.tally.delivered, 200 * 20);
    let fact = |name: &str| run.fact(name).unwrap();
    assert!(fact("demotions") >= 3.0 && fact("catch-ups") == fact("demotions"), "{:?}", run.facts);
    assert!(fact("lagging frames read") >= 3.0 && fact("caughtUp frames read") >= 3.0, "{:?}", run.facts);
    assert_eq!(fact("sockets that held bytes"), 3.0);
}

#[test]
fn laps_of_churn_leave_nothing_behind() {
    let system = System::start();
    let workload = Churn { stay: 20, come: 15, laps: 3 };
    let run = workload.run(&mut system.server(Way::Comet, false)).unwrap();
    assert!(run.found.tally.is_clean(), "{:?}", run.found.tally);
    assert!(run.found.tally.delivered >= 3 * 20, "a message a lap");
    assert_eq!(run.fact("lap 3: connections"), Some(20.0));
    assert_eq!(run.fact("connections grew after lap 1"), Some(0.0));
}
