//! Setup: a shard on the in-memory driver under virtual time; peers that read a little, or
//! nothing; the test plays the control side and its line never stands still.
//! Claim: who does not catch up for two minutes gets `cut` when it drains, not a millisecond
//! before, and an old client is closed with 1012; who takes no byte for as long is closed
//! with 1013; who catches up in time is never cut.
//! Why it matters: a place in a slow queue must end, and end by the right rule.

mod hand_support;

use corecast_gateway::config::Limits;
use corecast_gateway::core::{Command, ConnId, Event, Page, RoomFrame, Wire};
use corecast_gateway::shard::driver::memory::Memory;
use corecast_proto::ids::Position;
use corecast_proto::limits::BEHIND_MS;
use hand_support::{ByHand, frames};

const ROOM: &str = "lobby";
/// When it is demoted.
const BEGIN_MS: u64 = 1_000;
const FRAME_BYTES: usize = 500;

struct World {
    hand: ByHand<Memory>,
    peer: usize,
    conn: ConnId,
    /// The line: its newest number, and every frame.
    wires: Vec<Wire>,
    stream: Vec<u8>,
    texts: Vec<String>,
    closed: Option<u16>,
    gone: bool,
    too_long: Option<bool>,
}

impl World {
    /// One who reads nothing and is demoted at [`BEGIN_MS`].
    fn demoted(v1: bool) -> Self {
        // A thousand bytes on their way are enough, and silence is not what is judged here.
        let limits = Limits {
            push_soft_bytes: 2_000,
            push_hard_bytes: 4_000,
            ping_ms: 500_000,
            dead_ms: 600_000,
            ..Limits::default()
        };
        let mut hand = ByHand::in_memory(limits);
        let (peer, conn) = hand.browser(v1, &[]);
        let mut world = Self {
            hand,
            peer,
            conn,
            wires: Vec::new(),
            stream: Vec::new(),
            texts: Vec::new(),
            closed: None,
            gone: false,
            too_long: None,
        };
        world.hand.shard.driver_mut().set_room(peer, 100);
        world.hand.at(BEGIN_MS);
        for _ in 0..10 {
            world.say();
        }
        assert_eq!((world.hand.counters().demoted, world.hand.counters().lagging), (1, 1));
        world
    }

    /// The line goes on.
    fn say(&mut self) {
        let number = self.wires.len() as u64 + 1;
        let wire = Wire::text(format!("{number:0FRAME_BYTES$}").as_bytes());
        self.wires.push(wire.clone());
        let frame =
            RoomFrame { room_id: ROOM.into(), everyone: true, epoch: 1, first: number, last: number, wire };
        self.hand.command(Command::Frames(vec![frame]));
        self.hand.turn_until_calm();
    }

    /// The peer reads so much more at this time.
    fn read(&mut self, now_ms: u64, bytes: usize) {
        self.hand.at(now_ms);
        let more = self.hand.read(self.peer, bytes);
        self.stream.extend(more);
        for (opcode, payload) in frames(&mut self.stream) {
            match opcode {
                0x1 => self.texts.push(String::from_utf8(payload).expect("text")),
                0x8 => self.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                other => panic!("opcode {other}"),
            }
        }
    }

    /// Answers what the shard asked, `frames_max` frames a page. `true`: it asked.
    fn answer(&mut self, frames_max: usize) -> bool {
        let mut asked = false;
        while let Some(event) = self.hand.event() {
            match event {
                Event::Lagging { conn, room_id, reached, too_long } => {
                    assert!(conn == self.conn && room_id.as_str() == ROOM);
                    self.too_long = Some(too_long);
                    asked = true;
                    let page = if too_long {
                        let at = Position { epoch: 1, seq: self.wires.len() as u64 };
                        Page::Cut { at, wire: Wire::text(format!("cut {}", at.seq).as_bytes()) }
                    } else {
                        let from = reached.seq as usize;
                        let to = (from + frames_max).min(self.wires.len());
                        let frames = (from..to).map(|at| (at as u64 + 1, self.wires[at].clone())).collect();
                        Page::Frames { frames, reached: to as u64 }
                    };
                    self.hand.command(Command::Page { conn, room_id, page });
                    self.hand.turn_until_calm();
                }
                Event::Closed { .. } => self.gone = true,
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    /// Numbers it got, and the notices between them by their first word.
    fn seen(&self) -> Vec<String> {
        let word = |text: &String| match text.trim_start_matches('0') {
            notice if notice.starts_with('{') => {
                let notice: serde_json::Value = serde_json::from_str(notice).expect("a notice");
                notice["type"].as_str().expect("a type").to_owned()
            }
            other => other.to_owned(),
        };
        self.texts.iter().map(word).collect()
    }
}

/// One who takes a byte now and then and drains at `after_ms`: what is its question like?
fn asks_when_it_drains_after(after_ms: u64) -> bool {
    let mut world = World::demoted(true);
    world.read(BEGIN_MS + after_ms / 2, 1);
    assert!(!world.answer(1), "it has not drained");
    world.read(BEGIN_MS + after_ms, usize::MAX);
    assert!(world.answer(1), "it drained");
    world.too_long.expect("it asked")
}

#[test]
fn two_minutes_behind_are_too_long_and_a_millisecond_less_is_not() {
    assert!(!asks_when_it_drains_after(BEHIND_MS - 1));
    assert!(asks_when_it_drains_after(BEHIND_MS));
    assert!(asks_when_it_drains_after(BEHIND_MS + 60_000), "however late it drains");
}

#[test]
fn a_trickle_that_never_catches_up_is_cut_once_in_two_minutes() {
    let mut world = World::demoted(true);
    let mut cut_at = Vec::new();
    // It reads less than is said, all the time.
    for second in 1..=300 {
        let now_ms = BEGIN_MS + second * 1_000;
        world.say();
        world.read(now_ms, FRAME_BYTES / 2);
        let cuts = world.hand.counters().cuts;
        world.answer(1);
        if world.hand.counters().cuts > cuts {
            cut_at.push(now_ms);
        }
    }
    assert_eq!(world.closed, None);
    assert_eq!(cut_at.len(), 2, "{cut_at:?}");
    assert!((BEGIN_MS + BEHIND_MS..BEGIN_MS + BEHIND_MS + 10_000).contains(&cut_at[0]), "{cut_at:?}");
    assert!((cut_at[0] + BEHIND_MS..cut_at[0] + BEHIND_MS + 10_000).contains(&cut_at[1]), "{cut_at:?}");
    // It reads again: the rest arrives without another cut, and it is live.
    let now_ms = BEGIN_MS + 301_000;
    world.read(now_ms, usize::MAX);
    while world.answer(3) {
        world.read(now_ms, usize::MAX);
    }
    world.say();
    world.read(now_ms, usize::MAX);
    let seen = world.seen();
    let mut at = 0;
    for word in &seen {
        match word.parse::<u64>() {
            Ok(number) => {
                assert_eq!(number, at + 1, "in order, once: {seen:?}");
                at = number;
            }
            Err(_) => {
                if let Some(to) = word.strip_prefix("cut ") {
                    at = to.parse().expect("a number");
                }
            }
        }
    }
    assert_eq!(at, world.wires.len() as u64);
    assert_eq!(seen.iter().filter(|word| word.starts_with("cut")).count(), 2);
    // A cut puts it at the end of the line: live, until the next frame finds no room.
    let told = |kind: &str| seen.iter().filter(|word| *word == kind).count();
    assert_eq!((told("lagging"), told("caughtUp")), (3, 3));
    assert_eq!(world.hand.counters().lagging, 0);
}

#[test]
fn an_old_client_that_would_be_cut_is_closed_with_1012() {
    let mut world = World::demoted(false);
    world.read(BEGIN_MS + BEHIND_MS / 2, 1);
    world.read(BEGIN_MS + BEHIND_MS, usize::MAX);
    assert!(world.answer(1));
    world.read(BEGIN_MS + BEHIND_MS, usize::MAX);
    assert_eq!(world.closed, Some(1012));
    let seen = world.seen();
    assert!(
        seen.iter().all(|word| word.parse::<u64>().is_ok()),
        "nothing an old client does not know: {seen:?}"
    );
}

#[test]
fn who_takes_no_byte_for_as_long_is_closed_with_1013_and_not_cut() {
    let stalled_ms = Limits::default().stalled_ms;
    let mut world = World::demoted(true);
    world.hand.at(BEGIN_MS + stalled_ms - 1);
    assert_eq!(world.hand.counters().open, 1);
    // At most a tick of the wheel later.
    world.hand.at(BEGIN_MS + stalled_ms + 128);
    assert_eq!(world.hand.counters().open, 0);
    assert!(!world.answer(1), "what has not drained asks for nothing");
    world.read(BEGIN_MS + stalled_ms + 200, usize::MAX);
    assert_eq!(world.closed, Some(1013));
    assert!(world.stream.is_empty(), "the frame that was begun is whole");
    assert_eq!(world.hand.counters().cuts, 0);
}

#[test]
fn a_byte_in_time_puts_the_stall_off_but_not_the_cut() {
    let stalled_ms = Limits::default().stalled_ms;
    let mut world = World::demoted(true);
    for minute in 1..=10 {
        world.read(BEGIN_MS + minute * (stalled_ms - 1_000), 1);
        assert!(!world.answer(1));
    }
    assert_eq!((world.hand.counters().open, world.closed), (1, None));
    world.read(BEGIN_MS + 10 * stalled_ms, usize::MAX);
    assert!(world.answer(1));
    assert_eq!(world.too_long, Some(true));
    world.read(BEGIN_MS + 10 * stalled_ms, usize::MAX);
    let seen = world.seen();
    assert!(
        seen.contains(&"cut 10".to_owned()) && seen.last().is_some_and(|last| last == "caughtUp"),
        "{seen:?}"
    );
    assert!(!world.gone);
}

#[test]
fn who_catches_up_in_time_begins_anew_the_next_time() {
    let mut world = World::demoted(true);
    world.read(BEGIN_MS + BEHIND_MS - 1, usize::MAX);
    while world.answer(100) {
        world.read(BEGIN_MS + BEHIND_MS - 1, usize::MAX);
    }
    assert_eq!(world.hand.counters().lagging, 0);
    // Demoted again a moment later: the first time does not count.
    world.hand.read(world.peer, 0);
    for _ in 0..10 {
        world.say();
    }
    assert_eq!(world.hand.counters().lagging, 1);
    world.read(BEGIN_MS + BEHIND_MS + 60_000, usize::MAX);
    assert!(world.answer(1));
    assert_eq!(world.too_long, Some(false));
    assert_eq!(world.hand.counters().cuts, 0);
}
