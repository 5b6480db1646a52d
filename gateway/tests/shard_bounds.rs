//! Setup: a shard turned by hand, an allocator that counts, and peers that try to make it
//! hold more than they may: they do not read, ask for more than they take, send nothing but
//! tiny frames, never finish what they began.
//! Claim: what a peer can make a core hold is bounded, and the bound is written down.
//! Why it matters: a gateway serves strangers; memory per stranger is what they can take.

mod hand_support;

use allocation_counter::measure;
use corecast_gateway::config::Limits;
use corecast_gateway::core::outbox::stalled_bytes_max;
use corecast_gateway::core::{Command, ConnId, Event, Page, RoomFrame, Target, Wire};
use corecast_gateway::shard::driver::memory::Memory;
use corecast_proto::limits::REPLY_BYTES;
use hand_support::{ByHand, frames, masked};

const TEXT: u8 = 0x81;
const PING: u8 = 0x89;

/// What a closure leaves allocated. Frames and commands are made inside it, so that whatever
/// the shard keeps of them counts.
fn kept(f: impl FnOnce()) -> usize {
    usize::try_from(measure(f).bytes_current.max(0)).expect("not negative")
}

fn numbered(room: &str, number: u64, bytes: usize) -> RoomFrame {
    let wire = Wire::text(&vec![b'x'; bytes]);
    RoomFrame { room_id: room.into(), everyone: room == "lobby", epoch: 1, first: number, last: number, wire }
}

fn rooms(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("room-{number}")).collect()
}

fn reply(conn: ConnId, bytes: usize) -> Command {
    Command::Reply { conn, frames: vec![Wire::text(&vec![b'r'; bytes])], settled: 0 }
}

/// Fills every room with frames of these sizes, in turn.
fn push_all(hand: &mut ByHand<Memory>, rooms: &[String], rounds: u64, size: impl Fn(u64) -> usize) {
    for number in 1..=rounds {
        for (at, room) in rooms.iter().enumerate() {
            hand.command(Command::Frames(vec![numbered(room, number, size(number + at as u64))]));
            hand.turn_until_calm();
        }
    }
}

#[test]
fn a_peer_that_never_reads_costs_no_more_than_the_stated_bound() {
    let limits = Limits::default();
    let all = rooms(200);
    type Size = fn(u64) -> usize;
    let sizes: [(&str, Size); 4] = [
        ("tiny", |_| 1),
        ("usual", |number| 100 + (number * 7_919 % 400) as usize),
        ("large", |_| 60 << 10),
        ("mixed", |number| if number % 3 == 0 { 64 << 10 } else { 200 }),
    ];
    for (name, size) in sizes {
        for with_replies in [false, true] {
            let mut hand = ByHand::in_memory(limits.clone());
            let (peer, conn) = hand.browser(true, &all);
            hand.shard.driver_mut().set_room(peer, 0);
            let rounds = if name == "tiny" { 20 } else { 5 };
            let bytes = kept(|| {
                push_all(&mut hand, &all, rounds, size);
                for _ in 0..20 {
                    hand.command(Command::Push {
                        target: Target::All { per_second: 0 },
                        wire: Wire::text(&[b'u'; 1_000]),
                    });
                    hand.turn_until_calm();
                }
                if with_replies {
                    hand.command(reply(conn, REPLY_BYTES - 100));
                    hand.turn_until_calm();
                }
                push_all(&mut hand, &all, rounds, size);
            });
            let replies = if with_replies { REPLY_BYTES } else { 0 };
            let most = stalled_bytes_max(&limits, all.len(), replies);
            println!("{name}, replies {with_replies}: {bytes} of {most} bytes");
            assert!(bytes <= most, "{name}, replies {with_replies}: {bytes} bytes, {most} at most");
            let counters = hand.counters();
            assert_eq!(counters.open, 1, "it is set aside, not closed");
            assert_eq!(counters.feed_bytes, 0, "the rooms go on without it");
            assert!(counters.demoted >= 199, "{}", counters.demoted);
        }
    }
}

#[test]
fn replies_that_are_not_read_close_the_connection_at_their_limit() {
    let limits = Limits::default();
    let mut hand = ByHand::in_memory(limits.clone());
    let (peer, conn) = hand.browser(true, &[]);
    hand.shard.driver_mut().set_room(peer, 0);
    let bytes = kept(|| {
        for _ in 0..100 {
            hand.command(reply(conn, 100_000));
            hand.turn_until_calm();
        }
    });
    assert_eq!(hand.counters().open, 0);
    let most = stalled_bytes_max(&limits, 0, REPLY_BYTES);
    assert!(bytes <= most, "{bytes} of {most}");
}

#[test]
fn a_page_for_a_peer_that_stopped_reading_again_stays_within_the_bound() {
    let limits = Limits::default();
    let mut hand = ByHand::in_memory(limits.clone());
    let all = rooms(50);
    let (peer, _) = hand.browser(true, &all);
    hand.shard.driver_mut().set_room(peer, 0);
    push_all(&mut hand, &all, 4, |_| 20_000);
    // It reads until it is asked what it lacks, and then no more.
    let mut asked = Vec::new();
    while asked.is_empty() {
        hand.read(peer, 5_000);
        while let Some(event) = hand.event() {
            if let Event::Lagging { conn, room_id, reached, .. } = event {
                asked.push((conn, room_id, reached));
            }
        }
    }
    hand.shard.driver_mut().set_room(peer, 0);
    let bytes = kept(|| {
        for (conn, room_id, reached) in asked {
            let frames: Vec<(u64, Wire)> =
                (reached.seq + 1..=4).map(|number| (number, Wire::text(&vec![b'x'; 20_000]))).collect();
            hand.command(Command::Page { conn, room_id, page: Page::Frames { frames, reached: 4 } });
            hand.turn_until_calm();
        }
        push_all(&mut hand, &all, 4, |_| 20_000);
    });
    assert!(hand.events.try_recv().is_err(), "one question at a time");
    assert!(bytes <= stalled_bytes_max(&limits, all.len(), 0), "{bytes}");
}

#[test]
fn asking_to_leave_does_not_collect_without_limit() {
    let limits = Limits::default();
    let mut hand = ByHand::in_memory(limits.clone());
    let all = rooms(100);
    let (peer, conn) = hand.browser(true, &all);
    hand.shard.driver_mut().set_room(peer, 0);
    let bytes = kept(|| {
        // Everything in one turn, before a single byte can be sent.
        for room in &all {
            hand.command(Command::Frames(vec![numbered(room, 1, 60 << 10)]));
        }
        for room in &all {
            hand.command(Command::Leave { conn, room_id: room.as_str().into() });
        }
        hand.turn_until_calm();
    });
    assert!(bytes <= stalled_bytes_max(&limits, all.len(), 0), "{bytes}");
    assert_eq!(hand.counters().memberships, 0);
    assert_eq!(hand.counters().feed_bytes, 0);
}

#[test]
fn a_flood_of_pings_from_a_peer_that_does_not_read_costs_nothing_and_holds_nobody_up() {
    let mut hand = ByHand::in_memory(Limits::default());
    let (flooder, _) = hand.browser(true, &[]);
    let (other, _) = hand.browser(true, &[]);
    hand.shard.driver_mut().set_room(flooder, 0);
    let flood = masked(PING, b"").repeat(10_000);
    // The driver's own buffers, which are the kernel's part, are as large as they get.
    hand.send(flooder, &flood);
    let bytes = kept(|| {
        for _ in 0..20 {
            hand.send(flooder, &flood);
        }
    });
    assert!(bytes < 8 << 10, "{bytes} bytes for 200,000 pings more");
    hand.send(other, &masked(PING, b"p"));
    assert!(hand.read(other, usize::MAX).ends_with(&[0x8A, 1, b'p']));
    // It reads again: few pongs, the most recent ping among those answered.
    hand.send(flooder, &masked(PING, b"last"));
    let mut stream = hand.read(flooder, usize::MAX);
    let pongs = frames(&mut stream);
    assert!(pongs.len() <= 100, "{}", pongs.len());
    assert_eq!(pongs.last(), Some(&(0xA, b"last".to_vec())));
}

#[test]
fn texts_that_wait_for_answers_take_no_more_than_was_read() {
    let limits = Limits::default();
    let mut hand = ByHand::in_memory(limits.clone());
    let (peer, _) = hand.browser(true, &[]);
    // One scratch buffer of the shard, full of the smallest frames.
    let read = masked(TEXT, b"").repeat((64 << 10) / 6);
    let bytes = kept(|| hand.send(peer, &read));
    assert_eq!(hand.counters().texts, (64 << 10) / 6);
    // The list that holds them grows by doubling.
    assert!(bytes <= 2 * read.len() + (8 << 10), "{bytes} bytes for {}", read.len());
    // No more is read until somebody answers.
    hand.send(peer, &read);
    assert_eq!(hand.counters().texts, (64 << 10) / 6);
}

#[test]
fn small_requests_that_are_not_read_stop_being_answered() {
    let limits = Limits::default();
    let mut hand = ByHand::in_memory(limits.clone());
    let peer = hand.shard.driver_mut().connect();
    hand.shard.driver_mut().set_room(peer, 0);
    let request = b"GET /healthz HTTP/1.1\r\n\r\n";
    let flood = request.repeat((64 << 10) / request.len());
    let bytes = kept(|| hand.send(peer, &flood));
    assert!(bytes < 2 << 20, "{bytes}");
    let bytes_read = hand.counters().bytes_read;
    (0..20).for_each(|_| hand.send(peer, &flood));
    assert_eq!(hand.counters().bytes_read, bytes_read, "one read, and no more");
    // It takes nothing: its time is the handshake's.
    hand.at(limits.handshake_ms + 200);
    assert!(hand.shard.driver_mut().is_closed(peer));
    assert_eq!(hand.counters().connections, 0);
}

#[test]
fn a_message_that_never_ends_holds_no_more_than_a_message() {
    let limits = Limits::default();
    for fragment in [0usize, 1, 64] {
        let mut hand = ByHand::in_memory(limits.clone());
        let (peer, _) = hand.browser(true, &[]);
        let first = masked(0x01, &vec![b'x'; fragment]);
        let more = masked(0x00, &vec![b'x'; fragment]).repeat(100);
        let bytes = kept(|| {
            hand.send(peer, &first);
            for _ in 0..2_000 {
                hand.send(peer, &more);
            }
        });
        assert!(bytes <= 3 * limits.client_frame_bytes, "{bytes} bytes in fragments of {fragment}");
        // What is over the limit was refused, what is not may go on for ever.
        let closed = fragment > 0;
        assert_eq!(hand.counters().open, u64::from(!closed), "fragments of {fragment}");
    }
}

#[test]
fn a_promise_of_a_large_frame_is_not_paid_in_advance() {
    let limits = Limits { client_frame_bytes: 16 << 20, ..Limits::default() };
    let mut hand = ByHand::in_memory(limits);
    let (peer, _) = hand.browser(true, &[]);
    let mut promise = vec![TEXT, 0x80 | 127];
    promise.extend_from_slice(&(16u64 << 20).to_be_bytes());
    promise.extend_from_slice(&[0; 4]);
    promise.extend_from_slice(b"x");
    let bytes = kept(|| hand.send(peer, &promise));
    assert!(bytes <= 80 << 10, "{bytes}");
}

#[test]
fn a_close_that_is_never_finished_ends_whatever_the_peer_does() {
    for (name, takes, talks) in [
        ("silent", false, false),
        ("talks", false, true),
        ("takes a byte", true, false),
        ("both", true, true),
    ] {
        let mut hand = ByHand::in_memory(Limits::default());
        let (peer, conn) = hand.browser(true, &[]);
        hand.shard.driver_mut().set_room(peer, 0);
        hand.command(reply(conn, 200_000));
        hand.turn_until_calm();
        let code = corecast_proto::close::CloseCode::Banned;
        hand.command(Command::Close { conn, code, reason: "test" });
        hand.turn_until_calm();
        let mut ended_ms = 0;
        let bytes = kept(|| {
            for now_ms in (0..60_000).step_by(100) {
                hand.at(now_ms);
                if takes {
                    hand.read(peer, 1);
                }
                if talks {
                    hand.send(peer, &masked(TEXT, b"still here").repeat(50));
                }
                if hand.shard.driver_mut().is_closed(peer) {
                    ended_ms = now_ms;
                    break;
                }
            }
        });
        assert!((1..=31_000).contains(&ended_ms), "{name}: {ended_ms} ms");
        assert!(bytes < 64 << 10, "{name}: {bytes}");
        assert_eq!(hand.counters().connections, 0);
    }
}

#[test]
fn a_connection_in_as_many_rooms_as_it_may_be_does_not_hold_a_turn() {
    // A connection in as many rooms as it may be, among others that are in none.
    let mut hand = ByHand::in_memory(Limits::default());
    let all = rooms(corecast_proto::limits::MEMBERSHIPS);
    let (peer, _) = hand.browser(true, &all);
    let steps = 50;
    let begun = std::time::Instant::now();
    push_all(&mut hand, &all[..steps], 1, |_| 100);
    let each = begun.elapsed() / steps as u32;
    assert!(each < std::time::Duration::from_millis(20), "{each:?} for a frame");
    let mut stream = hand.read(peer, usize::MAX);
    assert_eq!(frames(&mut stream).len(), steps);
}

#[test]
fn nobody_is_called_dead_while_the_shard_does_not_read() {
    const MESSAGE: usize = 16 << 20;
    let limits = Limits { client_frame_bytes: MESSAGE, ..Limits::default() };
    let mut hand = ByHand::in_memory(limits.clone());
    let (talker, conn) = hand.browser(true, &[]);
    let (quiet, _) = hand.browser(true, &[]);
    let text = masked(TEXT, &vec![b'x'; MESSAGE]);
    (0..4).for_each(|_| hand.send(talker, &text));
    let texts: Vec<Event> = std::iter::from_fn(|| hand.event()).collect();
    assert_eq!(texts.len(), 4);
    let unread = hand.counters().unread;
    // It answers its pings, and nobody listens.
    hand.shard.driver_mut().send(quiet, &masked(0x8A, b""));
    for second in 1..=2 * limits.dead_ms / 1_000 {
        hand.at(second * 1_000);
    }
    assert!(hand.counters().unread > unread);
    assert_eq!(hand.counters().open, 2);
    // Control is done with the texts: the shard reads. Who had sent something lives; who had
    // not was silent all the time.
    drop(texts);
    hand.command(Command::Reply { conn, frames: Vec::new(), settled: 4 });
    hand.turn_until_calm();
    let begun_ms = hand.now_ms;
    hand.at(begun_ms + limits.dead_ms - 1_000);
    assert_eq!(hand.counters().open, 1);
    hand.at(begun_ms + limits.dead_ms + 1_000);
    assert_eq!(hand.counters().open, 0);
}
