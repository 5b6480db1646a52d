//! Setup: 50,000 connections of one shard, upgraded and opened with a session each, that
//! then say nothing. No sockets: the kernel's share is not ours to change.
//! Claim: an idle connection costs a few hundred bytes, session included.
//! Why it matters: a million connections on a machine are a promise about this number.

mod core_support;

use core_support::{connections, flush, open_one};
use corecast_gateway::core::connections::{Batch, Connections};
use corecast_gateway::core::{Command, Target, Wire};

const CONNECTIONS: u64 = 50_000;
/// The aim of the design, of which the driver takes its part, slack of growing lists included.
const BYTES_MAX: u64 = 400 - DRIVER_BYTES;
/// The driver's own share of a connection: see `Socket` in `shard/driver/epoll.rs`.
const DRIVER_BYTES: u64 = 12;

#[test]
fn an_idle_connection_costs_a_few_hundred_bytes() {
    // Together in one process, so that neither uses what the other gave back.
    let default_rooms = members_of(&|_| Vec::new(), BYTES_MAX);
    let one_more_room = members_of(&|number| vec![format!("room-{}", number / 1_000)], BYTES_MAX);
    drop((default_rooms, one_more_room));
}

fn members_of(rooms: &dyn Fn(u64) -> Vec<String>, bytes_max: u64) -> Connections {
    let mut core = connections();
    let mut batch = Batch::default();
    let before = resident_bytes();
    for number in 0..CONNECTIONS {
        let rooms = rooms(number);
        open_one(&mut core, &mut batch, number, &rooms.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert_eq!(core.counters().open, CONNECTIONS);
    let each = (resident_bytes() - before) / CONNECTIONS;
    println!("{each} bytes resident for each idle connection");
    assert!(each <= bytes_max, "{each} bytes");

    // One push to everybody leaves nothing behind.
    core.handle_command(Command::Push {
        target: Target::All { per_second: 0 },
        wire: Wire::text(b"hello everybody"),
    });
    flush(&mut core, &mut batch);
    assert_eq!(core.counters().deliveries, CONNECTIONS);
    let each = (resident_bytes() - before) / CONNECTIONS;
    assert!(each <= bytes_max, "{each} bytes after a push");
    core
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024
}
