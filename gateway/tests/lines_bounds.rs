//! Setup: the lines of a gateway by hand; a ring full of large messages, or a `resume` with
//! very many rooms. Claim: a catch-up page is at most 64 KiB, or one frame, and page by page a
//! slow reader gets everything once; what a resume and its end cost grows with its rooms, not
//! with their square. Why it matters: pages lie in the memory of peers that do not read, and
//! one task owns every line, so whoever makes it slow makes it slow for everybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use corecast_gateway::core::lines::Lines;
use corecast_gateway::core::lines::types::{
    Action, Arrival, Head, LinesLimits, Placement, PlacementKind, SnapshotRoom,
};
use corecast_gateway::core::sequencer::Frame;
use corecast_gateway::core::{Command, ConnId, Page, Session, Wire};
use corecast_proto::ids::{GLOBAL, Position, RoomId};

const ROOM: &str = "room-001";
const CONN: ConnId = ConnId { shard: 0, slot: 1, generation: 0 };
const PAGE_BYTES: usize = 64 << 10;
const AT: Position = Position { epoch: 7, seq: 0 };

/// One core, one default room, and nothing left to do.
fn lines() -> Lines {
    let mut lines = Lines::new(1, LinesLimits::default(), 0);
    let head = |room: &str| Head { room_id: room.into(), at: AT, everyone: true };
    lines.handle_defaults(Some(vec![head(GLOBAL), head(ROOM)]), 0);
    commands(&mut lines);
    lines
}

/// What goes to the core.
fn commands(lines: &mut Lines) -> Vec<Command> {
    let mut commands = Vec::new();
    while let Some(action) = lines.poll_action() {
        match action {
            Action::Send { command, .. } => commands.push(command),
            Action::Failed { outcome, .. } => panic!("not placed: {outcome:?}"),
            _ => {}
        }
    }
    commands
}

/// A connection that is in the default room and in these, all at number 0.
fn open(lines: &mut Lines, rooms: &[RoomId]) {
    let session = Arc::new(Session::new("s", "u", "n"));
    let rooms = std::iter::once((RoomId::from(ROOM), true)).chain(rooms.iter().map(|id| (id.clone(), false)));
    let placement = Placement {
        id: 1,
        conn: CONN,
        reply: Vec::new(),
        kind: PlacementKind::Open { session, global: AT },
        rooms: rooms.map(|(room_id, everyone)| SnapshotRoom { room_id, everyone, at: AT }).collect(),
        deadline_ms: 5_000,
    };
    lines.place(placement, 0);
    let opened = commands(lines).iter().any(|command| matches!(command, Command::Open { .. }));
    assert!(opened, "placed at once");
}

/// A frame of one message with a payload of so many bytes.
fn publish(lines: &mut Lines, seq: u64, bytes: usize) {
    let wire = Wire::text("x".repeat(bytes).as_bytes());
    let frame = Frame { first: seq, last: seq, wire, creates: None };
    lines.handle_frames(vec![Arrival { room_id: ROOM.into(), epoch: AT.epoch, frame }], None, 0);
    commands(lines);
}

/// The numbers and bytes of the page that follows a number.
fn page_after(lines: &mut Lines, seq: u64) -> (Vec<u64>, Vec<usize>) {
    lines.handle_lagging(CONN, &ROOM.into(), Position { seq, ..AT }, false, 0);
    let commands = commands(lines);
    let [Command::Page { conn: CONN, page: Page::Frames { frames, reached }, .. }] = commands.as_slice()
    else {
        panic!("no page after {seq}: {commands:?}");
    };
    assert_eq!(*reached, frames.last().map_or(seq, |(last, _)| *last));
    frames.iter().map(|(last, wire)| (*last, wire.len())).unzip()
}

#[test]
fn a_catch_up_page_is_at_most_64_kib_and_pages_meet() {
    const FRAMES: u64 = 200;
    let mut lines = lines();
    open(&mut lines, &[]);
    (1..=FRAMES).for_each(|seq| publish(&mut lines, seq, 4 << 10));
    let (mut seen, mut pages) = (Vec::new(), 0);
    while seen.len() < FRAMES as usize {
        let (numbers, bytes) = page_after(&mut lines, seen.len() as u64);
        let total: usize = bytes.iter().sum();
        assert!(total <= PAGE_BYTES, "{total} bytes in a page");
        let ends = numbers.last() == Some(&FRAMES);
        assert!(ends || total + bytes[0] > PAGE_BYTES, "{total} bytes: one more would have fitted");
        seen.extend(numbers);
        pages += 1;
    }
    assert_eq!(seen, (1..=FRAMES).collect::<Vec<_>>(), "each once, in order");
    assert!(pages > 12, "{pages} pages of 800 KiB");
    assert_eq!(page_after(&mut lines, FRAMES), (vec![], vec![]), "it stands where its core stands");
}

#[test]
fn a_frame_that_is_larger_than_a_page_is_a_page_alone() {
    let mut lines = lines();
    open(&mut lines, &[]);
    for (seq, bytes) in [(1, 10), (2, PAGE_BYTES + 1), (3, 10)] {
        publish(&mut lines, seq, bytes);
    }
    let pages: Vec<_> = (0..3).map(|seq| page_after(&mut lines, seq).0).collect();
    assert_eq!(pages, [[1], [2], [3]]);
}

/// What it costs to open and to close a connection in so many rooms, so many times.
fn cost(count: usize, times: usize) -> Duration {
    let rooms: Vec<RoomId> = (0..count).map(|number| format!("public room {number}").into()).collect();
    let once = |_| {
        let mut lines = lines();
        let begin = Instant::now();
        open(&mut lines, &rooms);
        assert_eq!(lines.membership_count(CONN), count);
        lines.handle_closed(CONN, true, 0);
        assert_eq!(lines.membership_count(CONN), 0);
        begin.elapsed()
    };
    (0..times).map(once).sum()
}

#[test]
fn what_a_resume_costs_grows_with_its_rooms_and_not_with_their_square() {
    const TIMES: usize = 64;
    // The least of some tries, since others use this machine too.
    let tries: Vec<_> = (0..3).map(|_| (cost(256, TIMES), cost(256 * TIMES, 1))).collect();
    let few = tries.iter().map(|(few, _)| *few).min().expect("tries");
    let many = tries.iter().map(|(_, many)| *many).min().expect("tries");
    println!("{TIMES} resumes of 256 rooms take {few:?}, one of {TIMES} times as many {many:?}");
    assert!(many < few * 12, "{tries:?}");
}
