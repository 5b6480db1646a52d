//! Setup: real sockets. Peers with the smallest receive buffer that never read, and peers
//! that flood a core they share with a quiet one.
//! Claim: what the kernel takes for a peer that does not read, or is not read, is twice the
//! buffer we chose and one packet; a turn reads so many bytes and no more, whoever sends.
//! Why it matters: memory of slow consumers must not hide in the kernel, and a core that
//! reads one flood to its end serves nobody else meanwhile.

mod core_support;
mod hand_support;
mod shard_support;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use core_support::upgrade_request;
use corecast_gateway::config::Limits;
use corecast_gateway::core::{Command, ConnId, Event};
use corecast_gateway::shard::driver::epoll::Epoll;
use hand_support::{ByHand, masked};
use shard_support::{Gateway, frame, on_each_host, wire};
use socket2::{Domain, Socket, Type};

/// The least the kernel gives a receiver (`tcp_rmem[0]`, doubled for its bookkeeping, and a
/// window that was open when it filled).
const RECEIVE_BYTES: usize = 4_096;
const WINDOW_BYTES: u64 = 64 << 10;
/// One packet more than the limit: a send is taken whole while the limit is not reached.
const PACKET_BYTES: u64 = 64 << 10;

async fn stalled_peer(gateway: &mut Gateway) -> (TcpStream, ConnId) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(RECEIVE_BYTES).expect("a socket");
    socket.connect(&gateway.addr.into()).expect("connected");
    let mut stream = TcpStream::from(socket);
    stream.write_all(upgrade_request("s").as_bytes()).expect("sent");
    let conn = gateway.upgraded().await;
    gateway.open(conn, &[]);
    (stream, conn)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_takes_twice_the_send_buffer_and_a_packet_for_who_does_not_read() {
    for send_bytes in [16 << 10, 64 << 10] {
        let limits = Limits { socket_send_bytes: send_bytes, ..Limits::default() };
        on_each_host(limits.clone(), 1, async |mut gateway| {
            let (peer, conn) = stalled_peer(&mut gateway).await;
            gateway.until("open", |counters| counters.open == 1).await;
            let mut number = 0;
            // Large frames and small ones, answers, and pushes to nobody in particular.
            while gateway.counters().demoted == 0 {
                number += 1;
                let bytes = if number % 2 == 0 { 60 << 10 } else { 200 };
                let frames = vec![frame("lobby", true, number, wire(&"x".repeat(bytes)))];
                gateway.command(0, Command::Frames(frames));
                if number % 8 == 0 {
                    let frames = vec![wire(&"r".repeat(1_000))];
                    gateway.command(0, Command::Reply { conn, frames, settled: 0 });
                }
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                assert!(number < 1_000, "it takes everything: {:?}", gateway.counters());
            }
            // Nothing moves any more.
            let mut taken = 0;
            while taken != gateway.counters().bytes_written {
                taken = gateway.counters().bytes_written;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            let most = 2 * send_bytes as u64 + PACKET_BYTES + WINDOW_BYTES;
            println!("{send_bytes} bytes chosen: the kernel took {taken}, {most} at most");
            assert!(taken <= most, "{taken} bytes taken, {most} at most");
            assert_eq!(gateway.counters().open, 1);
            drop(peer);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_keeps_twice_the_receive_buffer_of_who_is_not_read() {
    let limits = Limits { requests_in_flight: 1, ..Limits::default() };
    let most = 2 * limits.socket_receive_bytes + (PACKET_BYTES as usize) + (64 << 10);
    on_each_host(limits, 1, async |mut gateway| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_send_buffer_size(4_096).expect("a socket");
        socket.connect(&gateway.addr.into()).expect("connected");
        let mut peer = TcpStream::from(socket);
        peer.write_all(upgrade_request("s").as_bytes()).expect("sent");
        let conn = gateway.upgraded().await;
        gateway.open(conn, &[]);
        gateway.until("open", |counters| counters.open == 1).await;
        // It sends much and is read: a kernel left alone takes that for a reason to grow.
        let flood = masked(0x8A, &[0; 100]).repeat(10_000);
        tokio::task::block_in_place(|| (0..20).for_each(|_| peer.write_all(&flood).expect("sent")));
        // One text under way is as much as it may: it is not read any more.
        peer.write_all(&masked(0x81, b"question")).expect("sent");
        assert!(matches!(gateway.event().await, Event::Text { .. }));
        peer.set_nonblocking(true).expect("a socket");
        let (mut kept, mut calm) = (0, 0);
        while calm < 10 {
            match peer.write(&flood) {
                Ok(count) => (kept, calm) = (kept + count, 0),
                Err(_) => calm += 1,
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            assert!(kept < 64 << 20, "it is read");
        }
        println!("the kernel kept {kept} bytes, {most} at most");
        assert!(kept <= most, "{kept} bytes kept, {most} at most");
    })
    .await;
}

#[test]
fn a_turn_reads_a_bounded_amount_whoever_floods() {
    /// Bytes a turn reads, and the last connection's whole buffer.
    const TURN_BYTES: u64 = (512 << 10) + (64 << 10);
    const FLOODERS: usize = 24;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let addr = listener.local_addr().expect("bound");
    let mut hand = ByHand::new(Epoll::new(listener.into(), 0).expect("a driver"), Limits::default());
    let mut peers = Vec::new();
    for _ in 0..=FLOODERS {
        let mut peer = TcpStream::connect(addr).expect("connected");
        peer.write_all(upgrade_request("s").as_bytes()).expect("sent");
        hand.open_next(&[]);
        peers.push(peer);
    }
    // The smallest frames there are.
    let flood = masked(0x8A, b"").repeat((64 << 10) / 6);
    let (quiet, flooders) = peers.split_first_mut().expect("peers");
    for peer in flooders {
        peer.set_nonblocking(true).expect("a socket");
        let _ = peer.write(&flood);
    }
    quiet.write_all(&masked(0x81, b"hello")).expect("sent");
    let mut most = 0;
    let mut heard_after = None;
    for turn in 0..50 {
        let before = hand.counters().bytes_read;
        hand.turn();
        most = most.max(hand.counters().bytes_read - before);
        if heard_after.is_none() && hand.counters().texts > 0 {
            heard_after = Some(turn);
        }
    }
    assert!(most <= TURN_BYTES, "{most} bytes in one turn");
    assert!(most > 256 << 10, "{most}: the flood was no flood");
    assert!(
        heard_after.is_some_and(|turns| turns < 8),
        "the quiet one was heard after {heard_after:?} turns"
    );
}
