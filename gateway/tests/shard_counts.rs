//! Setup: a shard turned by hand and an allocator that counts, alone in its binary.
//! Claim: a delivery is a system call's worth of work and nothing else: at most one send for
//! each member and batch, no allocation, no copy of the payload, at most one wake for a core
//! and batch.
//! Why it matters: times depend on the machine, these counts do not.

mod core_support;
mod shard_support;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use core_support::{connections, flush, frame, open_one, upgrade_request};
use corecast_gateway::config::Limits;
use corecast_gateway::core::connections::{Batch, Connections};
use corecast_gateway::core::{Command, Event, RoomFrame, Session, Wire};
use corecast_gateway::shard::driver::Driver;
use corecast_gateway::shard::driver::epoll::Epoll;
use corecast_gateway::shard::driver::uring::{SendRing, probe_uring};
use corecast_gateway::shard::turn::Shard;
use corecast_gateway::shard::{Mailbox, Metrics};
use tokio::sync::mpsc::unbounded_channel;

const MEMBERS: u64 = 1_000;

/// Bytes of every send of the next pass: how often each connection got one, and where its
/// parts lie in memory.
fn pass(core: &mut Connections, batch: &mut Batch) -> Vec<(u32, Vec<(*const u8, usize)>)> {
    let mut sends = Vec::new();
    while core.poll_transmit(batch) || !batch.is_empty() {
        for index in 0..batch.len() {
            let (key, parts) = batch.job(index);
            sends.push((key.slot, parts.map(|part| (part.as_ptr(), part.len())).collect()));
        }
        core.handle_sent(batch, &[]);
    }
    sends.sort_by_key(|(slot, _)| *slot);
    sends
}

fn members_of(rooms: &[&str]) -> (Connections, Batch) {
    let (mut core, mut batch) = (connections(), Batch::default());
    for number in 0..MEMBERS {
        open_one(&mut core, &mut batch, number, rooms);
    }
    (core, batch)
}

fn payload(number: u64) -> Wire {
    Wire::text(format!("{number:0128}").as_bytes())
}

#[test]
fn a_frame_is_one_send_for_each_member_straight_out_of_its_one_encoding() {
    for everyone in [true, false] {
        let (mut core, mut batch) = members_of(if everyone { &[] } else { &["room"] });
        let writes = core.counters().writes;
        let wire = payload(1);
        core.handle_command(Command::Frames(vec![frame("room", everyone, 1, wire.clone())]));
        let sends = pass(&mut core, &mut batch);
        assert_eq!(core.counters().writes - writes, MEMBERS);
        let whole = vec![(wire.bytes().as_ptr(), wire.len())];
        for (at, (slot, parts)) in sends.iter().enumerate() {
            assert_eq!(*slot as usize, at, "one send each");
            assert_eq!(*parts, whole, "the encoding itself, not a copy");
        }
        assert_eq!(sends.len() as u64, MEMBERS);
    }
}

#[test]
fn frames_that_wait_together_are_joined_once_for_all_members() {
    let (mut core, mut batch) = members_of(&["room"]);
    let frames: Vec<RoomFrame> =
        (1..=16).map(|number| frame("room", false, number, payload(number))).collect();
    let bytes = frames.iter().map(|frame| frame.wire.len()).sum::<usize>();
    core.handle_command(Command::Frames(frames));
    let sends = pass(&mut core, &mut batch);
    assert_eq!(sends.len() as u64, MEMBERS);
    let shared = sends[0].1[0].0;
    assert!(sends.iter().all(|(_, parts)| *parts == [(shared, bytes)]));
    assert_eq!(core.counters().deliveries, 16 * MEMBERS);
}

#[test]
fn a_member_of_several_touched_rooms_gets_one_send_unless_the_debug_switch_asks_for_more() {
    let (mut core, mut batch) = members_of(&["one", "two", "three"]);
    let mut number = 0;
    let mut touch = |core: &mut Connections| {
        number += 1;
        let rooms = ["one", "two", "three"];
        core.handle_command(Command::Frames(
            rooms.map(|room| frame(room, false, number, payload(number))).into(),
        ));
    };
    touch(&mut core);
    let sends = pass(&mut core, &mut batch);
    assert_eq!(sends.len() as u64, MEMBERS);
    assert!(sends.iter().all(|(_, parts)| parts.len() == 3));

    core.set_send_per_room(true);
    touch(&mut core);
    let sends = pass(&mut core, &mut batch);
    assert_eq!(sends.len() as u64, 3 * MEMBERS);
    assert!(sends.iter().all(|(_, parts)| parts.len() == 1));
    assert_eq!(core.counters().deliveries, 6 * MEMBERS);
}

#[test]
fn the_core_allocates_nothing_for_a_delivery() {
    let (mut core, mut batch) = members_of(&["room"]);
    let mut counts = Vec::new();
    for number in 1..=20 {
        core.handle_command(Command::Frames(vec![frame("room", false, number, payload(number))]));
        let allocations = measure(|| flush(&mut core, &mut batch)).count_total;
        counts.push(allocations);
    }
    assert_eq!(core.counters().deliveries, 20 * MEMBERS);
    // Lists grow at first. Then: the payload's reference count, once a frame.
    assert!(counts[5..].iter().all(|count| *count <= 1), "{counts:?}");
}

#[test]
fn the_whole_shard_allocates_nothing_for_a_delivery_with_and_without_the_ring() {
    let mut rings = vec![None];
    match probe_uring() {
        Ok(()) => rings.push(Some(SendRing::new().expect("a ring"))),
        Err(error) => eprintln!("not run through the ring: io_uring is refused ({error})"),
    }
    for ring in rings {
        deliver_over_sockets(ring);
    }
}

fn deliver_over_sockets(ring: Option<SendRing>) {
    const PEERS: u64 = 200;
    const FRAMES: u64 = 40;
    let with_ring = ring.is_some();
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let addr = listener.local_addr().expect("bound");
    let mut driver = Epoll::new(listener.into(), 0).expect("a driver");
    if let Some(ring) = ring {
        driver = driver.with_ring(ring);
    }
    let (mailbox, inbox) = Mailbox::new(64, usize::MAX, driver.waker());
    let (sender, mut events) = unbounded_channel();
    let metrics = Arc::new(Metrics::new("test", driver.name()));
    let mut shard = Shard::new(0, driver, connections(), inbox, sender, metrics.clone());
    let mut peers: Vec<TcpStream> = Vec::new();
    for number in 0..PEERS {
        let mut peer = TcpStream::connect(addr).expect("connected");
        std::io::Write::write_all(&mut peer, upgrade_request("s").as_bytes()).expect("sent");
        peers.push(peer);
        turn_until(
            &mut shard,
            &mut || {
                let Ok(Event::Upgraded { conn, .. }) = events.try_recv() else { return false };
                let session = Arc::new(Session::new("s", "u", "ann"));
                let open =
                    Command::Open { conn, session, frames: vec![Wire::text(b"hello")], rooms: Vec::new() };
                assert!(mailbox.offer(open).is_ok());
                true
            },
            &mut 0,
        );
        turn_until(&mut shard, &mut || metrics.snapshot().open == number + 1, &mut 0);
    }

    let before = metrics.snapshot();
    let mut counts = Vec::new();
    for number in 1..=FRAMES {
        let frames = vec![frame("lobby", true, number, payload(number))];
        assert!(mailbox.offer(Command::Frames(frames)).is_ok());
        let target = before.deliveries + number * PEERS;
        let mut allocations = 0;
        turn_until(&mut shard, &mut || metrics.snapshot().deliveries == target, &mut allocations);
        // Turns go on until the pass has ended.
        while shard.turn(0).expect("the driver works") {}
        counts.push(allocations);
        for peer in &mut peers {
            // The first frame follows the 101 and the hello.
            let mut got = [0; 1_024];
            let count = peer.read(&mut got).expect("a frame");
            assert!(count >= payload(number).len());
        }
    }
    shard.publish();
    let after = metrics.snapshot();
    assert_eq!(after.deliveries - before.deliveries, FRAMES * PEERS);
    assert_eq!(after.writes - before.writes, FRAMES * PEERS, "one send for each member and frame");
    assert_eq!(after.writes_short, 0);
    let slices = after.slices - before.slices;
    assert_eq!(after.ring_batches - before.ring_batches, if with_ring { slices } else { 0 });
    // Lists grow at first. Then: the payload's reference count, once a frame.
    assert!(counts[5..].iter().all(|count| *count <= 1), "{counts:?}");
}

/// Turns `shard` until `done`, and adds what its turns allocated.
fn turn_until(shard: &mut Shard<Epoll>, done: &mut dyn FnMut() -> bool, allocations: &mut u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "in time");
        *allocations += measure(|| assert!(shard.turn(0).is_ok())).count_total;
        shard.publish();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_a_thousand_rooms_is_one_wake() {
    const ROOMS: u64 = 1_000;
    shard_support::on_each_host(Limits::default(), 1, async |mut gateway| {
        let (mut browser, _) = gateway.browser(true, &[]).await;
        for batch in 1..=20u64 {
            let shard = &gateway.shards[0];
            let (wakes, before) = (shard.mailbox.wakes(), gateway.counters());
            let frames =
                (0..ROOMS).map(|room| frame(&format!("room-{room}"), true, batch, payload(batch))).collect();
            gateway.command(0, Command::Frames(frames));
            gateway.until("delivered", |counters| counters.deliveries == before.deliveries + ROOMS).await;
            for _ in 0..ROOMS {
                shard_support::text(&mut browser).await;
            }
            assert!(shard.mailbox.wakes() - wakes <= 1);
        }
    })
    .await;
}
