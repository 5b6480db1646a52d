//! Setup: the connections of a shard, turned by hand under a clock of their own.
//! Claim: a new connection's 101 and hello leave in one send; the 101 never waits for a hello
//! that does not come, nor where the client must speak first.
//! Why it matters: a send is a third of what a handshake costs, and in a connect storm half
//! the packets.

mod core_support;

use core_support::{connections, upgrade_request};
use corecast_gateway::core::connections::{Batch, Connections, Key};
use corecast_gateway::core::{Command, ConnId, Event, Session, Wire};
use corecast_proto::close::CloseCode;

/// What the connections send now, each send's bytes.
fn sends(core: &mut Connections) -> Vec<Vec<u8>> {
    let (mut batch, mut sends) = (Batch::default(), Vec::new());
    while core.poll_transmit(&mut batch) || !batch.is_empty() {
        for index in 0..batch.len() {
            sends.push(batch.job(index).1.collect::<Vec<_>>().concat());
        }
        core.handle_sent(&batch, &[]);
    }
    sends
}

fn upgrade(core: &mut Connections, extra: &str) -> (Key, ConnId) {
    let key = core.handle_accepted(None).expect("there is room");
    let request = upgrade_request("s").replace("\r\n\r\n", &format!("\r\n{extra}\r\n"));
    assert!(core.handle_bytes(key, &mut request.into_bytes()));
    let Some(Event::Upgraded { conn, .. }) = core.poll_event() else { panic!("upgraded") };
    (key, conn)
}

fn open(conn: ConnId) -> Command {
    let session = Session::new("s", "u", "ann");
    Command::Open { conn, session: session.into(), frames: vec![Wire::text(b"hello")], rooms: Vec::new() }
}

fn is_101(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.1 101 ") && bytes.ends_with(b"\r\n\r\n")
}

#[test]
fn the_101_and_the_hello_are_one_send() {
    let mut core = connections();
    let (_, conn) = upgrade(&mut core, "");
    assert!(sends(&mut core).is_empty());
    core.handle_command(open(conn));
    let sent = sends(&mut core);
    let [sent] = &sent[..] else { panic!("{} sends", sent.len()) };
    let frame = Wire::text(b"hello");
    let (head, rest) = sent.split_at(sent.len() - frame.len());
    assert!(is_101(head));
    assert_eq!(rest, &frame.bytes()[..]);
    assert_eq!(core.counters().writes, 1);
}

#[test]
fn a_101_whose_hello_does_not_come_leaves_alone_and_soon() {
    let mut core = connections();
    let (_, conn) = upgrade(&mut core, "");
    let due = core.poll_timeout().expect("it does not wait for ever");
    assert!((50..=50 + 2 * 128).contains(&due), "{due} ms: 50 and a tick of the wheel");
    core.handle_time(49);
    assert!(sends(&mut core).is_empty());
    core.handle_time(due);
    let sent = sends(&mut core);
    assert!(sent.len() == 1 && is_101(&sent[0]));
    core.handle_command(open(conn));
    assert_eq!(sends(&mut core), [Wire::text(b"hello").bytes().to_vec()]);
}

#[test]
fn a_client_that_must_speak_first_gets_its_101_at_once() {
    let mut core = connections();
    upgrade(&mut core, "Sec-WebSocket-Protocol: corecast.v1\r\n");
    let sent = sends(&mut core);
    assert!(sent.len() == 1 && is_101(&sent[0]));
}

#[test]
fn a_connection_that_is_refused_or_leaves_still_gets_its_101() {
    let mut core = connections();
    let (_, conn) = upgrade(&mut core, "");
    core.handle_command(Command::Close { conn, code: CloseCode::Unauthenticated, reason: "no session" });
    let sent = sends(&mut core);
    assert!(sent.len() == 1 && sent[0].starts_with(b"HTTP/1.1 101 ") && sent[0].ends_with(b"no session"));

    let (key, _) = upgrade(&mut core, "");
    // A masked, empty close frame, sent before the 101 was there.
    assert!(core.handle_bytes(key, &mut [0x88, 0x80, 1, 2, 3, 4]));
    let sent = sends(&mut core);
    assert!(sent.len() == 1 && sent[0].starts_with(b"HTTP/1.1 101 ") && sent[0].ends_with(&[0x88, 0]));
}
