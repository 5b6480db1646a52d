//! Setup: 50,000 connections of one shard, upgraded and opened with a session each, that
//! then say nothing. No sockets: the kernel's share is not ours to change.
//! Claim: an idle connection costs a few hundred bytes, session included.
//! Why it matters: a million connections on a machine are a promise about this number.

use std::sync::Arc;

use corecast_gateway::config::Limits;
use corecast_gateway::core::connections::{Action, Batch, Connections, Places};
use corecast_gateway::core::handshake::Rules;
use corecast_gateway::core::{Command, Event, Session, Wire};

const CONNECTIONS: u64 = 50_000;
/// The aim of the design, plus the slack of vectors that grow by doubling.
const BYTES_MAX: u64 = 400 + 150;

#[test]
fn an_idle_connection_costs_a_few_hundred_bytes() {
    let mut core = Connections::new(0, Limits::default(), Rules::new(&[], false), Places::new(0), 0);
    let mut batch = Batch::default();
    let before = resident_bytes();
    for number in 0..CONNECTIONS {
        open_one(&mut core, &mut batch, number);
    }
    assert_eq!(core.counters().open, CONNECTIONS);
    let each = (resident_bytes() - before) / CONNECTIONS;
    println!("{each} bytes resident for each idle connection");
    assert!(each <= BYTES_MAX, "{each} bytes");

    // One push to everybody leaves nothing behind.
    core.handle_command(Command::Push {
        target: corecast_gateway::core::Target::All { per_second: 0 },
        wire: Wire::text(b"hello everybody"),
    });
    flush(&mut core, &mut batch);
    assert_eq!(core.counters().deliveries, CONNECTIONS);
    let each = (resident_bytes() - before) / CONNECTIONS;
    assert!(each <= BYTES_MAX, "{each} bytes after a push");
}

fn open_one(core: &mut Connections, batch: &mut Batch, number: u64) {
    let key = core.handle_accepted(None).expect("there is room");
    let sid = format!("{number:08x}-0000-4000-8000-000000000000");
    let mut request = format!(
        "GET /api/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: sid={sid}\r\n\r\n"
    )
    .into_bytes();
    assert!(core.handle_bytes(key, &mut request));
    let Some(Event::Upgraded { conn, .. }) = core.poll_event() else { panic!("upgraded") };
    let user_id = format!("{number:08x}-1111-4111-8111-111111111111").into();
    let session = Arc::new(Session { sid: sid.into(), user_id, username: format!("user{number}").into() });
    core.handle_command(Command::Open {
        conn,
        session,
        frames: vec![Wire::text(b"hello")],
        rooms: Vec::new(),
    });
    flush(core, batch);
}

/// The socket takes everything.
fn flush(core: &mut Connections, batch: &mut Batch) {
    while core.poll_transmit(batch) || !batch.is_empty() {
        core.handle_sent(batch, &[]);
    }
    while let Some(action) = core.poll_action() {
        assert!(!matches!(action, Action::Close(_)));
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib * 1024
}
