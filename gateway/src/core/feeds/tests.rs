use corecast_proto::limits::BEHIND_MS;

use super::catch_up::RETRY_MS;
use super::*;
use crate::core::command::Page;
use crate::core::counters::Counters;
use crate::core::outbox::Segment;

/// Feeds and what came out of them.
struct World {
    feeds: Feeds,
    counters: Counters,
    out: Vec<Segment>,
}

const FREE: Peer =
    Peer { v1: true, blocked: false, push_bytes: 0, soft: 100, hard: 200, now_ms: 0, one_feed: false };

impl World {
    fn new(open: u32) -> Self {
        let mut feeds = Feeds::new();
        (0..open).for_each(|slot| feeds.open(slot));
        Self { feeds, counters: Counters::default(), out: Vec::new() }
    }

    fn frame(&mut self, room: &str, everyone: bool, number: u64, bytes: usize) {
        self.feeds.push(RoomFrame {
            room_id: room.into(),
            everyone,
            epoch: 1,
            first: number,
            last: number,
            wire: Wire::binary(&vec![number as u8; bytes - 2]),
        });
    }

    fn join(&mut self, slot: u32, room: &str, seq: u64) -> bool {
        self.feeds.join(slot, Joined { room_id: room.into(), at: Position { epoch: 1, seq } })
    }

    fn collect(&mut self, slot: u32, peer: Peer) -> Vec<Vec<u8>> {
        self.out.clear();
        let mut out = Out { segments: &mut self.out, counters: &mut self.counters };
        assert!(self.feeds.collect(slot, peer, &mut out));
        self.out.iter().map(|segment| segment.bytes.to_vec()).collect()
    }

    fn question(&mut self, slot: u32, now_ms: u64) -> Option<(RoomId, Position)> {
        self.question_at(slot, now_ms).map(|question| (question.room_id, question.reached))
    }

    fn question_at(&mut self, slot: u32, now_ms: u64) -> Option<Question> {
        self.out.clear();
        let mut out = Out { segments: &mut self.out, counters: &mut self.counters };
        self.feeds.next_question(slot, true, now_ms, &mut out)
    }

    fn page(&mut self, slot: u32, room: &str, page: Page) -> bool {
        self.page_to(slot, room, page, FREE)
    }

    fn page_to(&mut self, slot: u32, room: &str, page: Page, peer: Peer) -> bool {
        let mut out = Out { segments: &mut self.out, counters: &mut self.counters };
        self.feeds.page(slot, &room.into(), page, peer, &mut out)
    }

    /// Slots named by a whole pass that serves nobody, at most once around each feed.
    fn named(&mut self, steps: usize) -> Vec<u32> {
        let mut steps = steps;
        std::iter::from_fn(|| self.feeds.next_below(&mut steps)).collect()
    }

    fn wires(&self) -> Vec<u8> {
        self.out.iter().flat_map(|segment| segment.bytes.iter().copied()).collect()
    }
}

#[test]
fn one_write_carries_all_rooms_of_a_connection() {
    let mut world = World::new(2);
    assert!(world.join(0, "p", 7));
    world.frame("d", true, 1, 10);
    world.frame("p", false, 8, 10);
    world.frame("d", true, 2, 10);
    let parts = world.collect(0, FREE);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [20, 10]);
    assert!(!world.feeds.lacks_something(0));
    assert!(world.feeds.lacks_something(1));
    assert_eq!(world.collect(1, FREE).concat().len(), 20);
    assert_eq!(world.feeds.bytes(), 0);
    assert!(world.named(100).is_empty());
    assert_eq!(world.counters.deliveries, 5);
}

#[test]
fn a_member_begins_at_the_head() {
    let mut world = World::new(2);
    world.join(0, "p", 0);
    world.frame("p", false, 1, 10);
    world.join(1, "p", 1);
    assert!(!world.feeds.lacks_something(1));
    world.frame("p", false, 2, 10);
    assert_eq!(world.collect(1, FREE).concat()[2], 2);
    assert_eq!(world.collect(0, FREE).concat().len(), 20);
}

#[test]
fn a_second_join_changes_nothing() {
    let mut world = World::new(1);
    assert!(world.join(0, "p", 0));
    world.frame("p", false, 1, 10);
    assert!(!world.join(0, "p", 1));
    assert_eq!(world.feeds.memberships(), 1);
    assert_eq!(world.collect(0, FREE).concat().len(), 10);
}

#[test]
fn a_leave_behind_the_cursor_does_not_hide_the_moved_member() {
    let mut world = World::new(4);
    (0..4).for_each(|slot| assert!(world.join(slot, "p", 0)));
    world.frame("p", false, 1, 10);
    let mut steps = 2;
    for expected in [0, 1] {
        let slot = world.feeds.next_below(&mut steps).expect("a member is left");
        assert_eq!(slot, expected);
        world.collect(slot, FREE);
    }
    // Slot 3 moves to the place of slot 0, behind the cursor.
    assert!(world.feeds.leave(0, &"p".into()));
    let mut steps = 100;
    let mut served = Vec::new();
    while let Some(slot) = world.feeds.next_below(&mut steps) {
        world.collect(slot, FREE);
        served.push(slot);
    }
    assert_eq!(served, [2, 3]);
    assert_eq!(world.feeds.bytes(), 0);
}

#[test]
fn a_room_ends_with_its_last_member_even_during_a_pass() {
    let mut world = World::new(2);
    world.join(0, "p", 0);
    world.frame("p", false, 1, 10);
    assert!(world.feeds.leave(0, &"p".into()));
    assert_eq!((world.feeds.bytes(), world.feeds.memberships()), (0, 0));
    world.join(1, "q", 0);
    world.frame("q", false, 1, 10);
    assert_eq!(world.named(1), [1], "the new room took the old one's place");
    world.collect(1, FREE);
    assert!(world.named(10).is_empty());
    assert!(!world.feeds.is_active());
}

#[test]
fn feeds_take_turns() {
    let mut world = World::new(100);
    world.join(99, "p", 0);
    world.frame("d", true, 1, 10);
    world.frame("p", false, 1, 10);
    let mut steps = 1_000;
    let mut before = 0;
    while let Some(slot) = world.feeds.next_below(&mut steps) {
        if slot == 99 {
            break;
        }
        world.collect(slot, FREE);
        before += 1;
    }
    assert_eq!(before, TURN_MEMBERS);
}

#[test]
fn one_send_carries_at_most_the_hard_limit_but_always_a_frame() {
    let mut world = World::new(1);
    for number in 1..=5 {
        world.frame("d", true, number, 80);
    }
    assert_eq!(world.collect(0, FREE).concat().len(), 160);
    assert!(world.feeds.lacks_something(0), "the rest stays in the feed");
    assert!(!world.feeds.is_lagging(0));
    assert_eq!(world.collect(0, FREE).concat().len(), 160);
    assert_eq!(world.collect(0, FREE).concat().len(), 80);
    world.frame("d", true, 6, 999);
    assert_eq!(world.collect(0, FREE).concat().len(), 1_001);
}

#[test]
fn a_full_socket_over_the_soft_limit_misses_frames_room_by_room() {
    let mut world = World::new(1);
    world.join(0, "p", 4);
    let blocked = Peer { blocked: true, push_bytes: 90, ..FREE };
    world.frame("p", false, 5, 20);
    world.frame("d", true, 1, 10);
    world.frame("d", true, 2, 10);
    let parts = world.collect(0, blocked);
    let text = String::from_utf8_lossy(&parts.concat()).into_owned();
    assert!(parts[0] == Wire::binary(&[1; 8]).bytes()[..], "it still fits: {parts:?}");
    assert!(text.contains(r#""lagging","payload":{"roomId":"d","seq":1"#), "{text}");
    assert!(text.contains(r#""lagging","payload":{"roomId":"p","seq":4"#), "{text}");
    assert_eq!((world.counters.demoted, world.feeds.lagging()), (2, 1));
    assert!(!world.feeds.lacks_something(0), "what is missed has passed by");

    // One question at a time; frames of other rooms go on, those of the room do not.
    let (room, reached) = world.question(0, 0).expect("a question");
    assert_eq!((room.as_str(), reached.seq), ("d", 1));
    assert!(world.question(0, 0).is_none());
    world.frame("d", true, 3, 10);
    world.frame("e", true, 1, 10);
    assert_eq!(world.collect(0, FREE), [Wire::binary(&[1; 8]).bytes().to_vec()]);

    // A page up to the shard's number ends it; what it held is not sent again.
    world.out.clear();
    let frames = vec![(1, Wire::text(b"had")), (2, Wire::text(b"two")), (3, Wire::text(b"three"))];
    assert!(world.page(0, "d", Page::Frames { frames, reached: 3 }));
    assert_eq!(
        world.wires(),
        [Wire::text(b"two").bytes().to_vec(), Wire::text(b"three").bytes().to_vec()].concat()
    );
    let (room, _) = world.question(0, 0).expect("a question");
    assert_eq!(room.as_str(), "p", "rooms take turns");
    assert!(world.page(0, "p", Page::Frames { frames: vec![(5, Wire::text(b"p"))], reached: 5 }));
    assert!(world.question(0, 0).is_none());
    assert!(
        String::from_utf8_lossy(&world.wires()).contains(r#""caughtUp","payload":{"roomId":"d","seq":3"#)
    );
    assert_eq!((world.feeds.lagging(), world.counters.caught_up), (0, 2));
    world.frame("d", true, 4, 10);
    assert_eq!(world.collect(0, FREE), [Wire::binary(&[4; 8]).bytes().to_vec()]);
}

#[test]
fn a_page_below_the_number_is_followed_by_another_question() {
    let mut world = World::new(1);
    let blocked = Peer { blocked: true, push_bytes: 100, ..FREE };
    for number in 1..=4 {
        world.frame("d", true, number, 10);
    }
    world.collect(0, blocked);
    assert_eq!(world.question(0, 0).expect("a question").1.seq, 0);
    assert!(world.page(0, "d", Page::Frames { frames: vec![(2, Wire::text(b"x"))], reached: 2 }));
    assert_eq!(world.question(0, 0).expect("a question").1.seq, 2);
    assert!(world.page(0, "d", Page::TryLater));
    assert!(world.question(0, RETRY_MS - 1).is_none());
    assert_eq!(world.question(0, RETRY_MS).expect("a question").1.seq, 2);
    assert!(world.page(0, "d", Page::Frames { frames: Vec::new(), reached: 2 }));
    assert!(world.question(0, RETRY_MS - 1).is_none(), "no progress: it does not spin");
}

#[test]
fn a_cut_reaches_a_lagging_connection_as_the_answer_to_its_old_place() {
    let mut world = World::new(1);
    let blocked = Peer { blocked: true, push_bytes: 100, ..FREE };
    world.frame("d", true, 1, 10);
    world.collect(0, blocked);
    let at = Position { epoch: 2, seq: 1 };
    world.feeds.push_cut("d".into(), true, at, Some(Wire::text(b"cut")));
    assert!(world.collect(0, FREE).is_empty());
    assert_eq!(world.question(0, 0), Some(("d".into(), Position { epoch: 1, seq: 0 })));
    world.out.clear();
    assert!(world.page(0, "d", Page::Cut { at, wire: Wire::text(b"new") }));
    assert_eq!(world.wires(), Wire::text(b"new").bytes().to_vec());
    assert!(world.question(0, 0).is_none());
    assert_eq!(world.feeds.lagging(), 0);
}

#[test]
fn a_cut_is_delivered_in_order_to_v1_and_closes_the_others() {
    let mut world = World::new(2);
    world.frame("d", true, 1, 10);
    let at = Position { epoch: 2, seq: 1 };
    world.feeds.push_cut("d".into(), true, at, Some(Wire::text(b"cut")));
    world.frame("d", true, 2, 10);
    let whole = world.collect(0, FREE).concat();
    let expected =
        [Wire::binary(&[1; 8]), Wire::text(b"cut"), Wire::binary(&[2; 8])].map(|wire| wire.bytes().to_vec());
    assert_eq!(whole, expected.concat());
    let mut out = Out { segments: &mut world.out, counters: &mut world.counters };
    out.segments.clear();
    assert!(!world.feeds.collect(1, Peer { v1: false, ..FREE }, &mut out));
    assert_eq!(world.wires(), expected[0], "what came before the cut is still sent");
}

#[test]
fn who_does_not_catch_up_in_time_is_told_apart_until_it_is_cut() {
    let mut world = World::new(1);
    world.frame("d", true, 1, 10);
    world.collect(0, Peer { blocked: true, push_bytes: 100, now_ms: 7, ..FREE });
    let asks = |world: &mut World, now_ms| world.question_at(0, now_ms).expect("a question").too_long;
    assert!(!asks(&mut world, 6 + BEHIND_MS));
    // A page that does not bring it to the shard's number changes nothing.
    world.frame("d", true, 2, 10);
    world.collect(0, FREE);
    assert!(world.page(0, "d", Page::Frames { frames: vec![(1, Wire::text(b"one"))], reached: 1 }));
    assert!(asks(&mut world, 7 + BEHIND_MS));
    let at = Position { epoch: 1, seq: 1 };
    let later = Peer { now_ms: 7 + BEHIND_MS, ..FREE };
    assert!(world.page_to(0, "d", Page::Cut { at, wire: Wire::text(b"cut") }, later));
    assert!(!asks(&mut world, 6 + 2 * BEHIND_MS), "behind anew, since the cut");
    assert!(world.page(0, "d", Page::Frames { frames: vec![(2, Wire::text(b"two"))], reached: 2 }));
    assert!(world.question(0, 6 + 2 * BEHIND_MS).is_none());
    assert_eq!(world.feeds.lagging(), 0);
    // An old client cannot be told: it is closed.
    world.frame("d", true, 3, 10);
    world.collect(0, Peer { v1: false, blocked: true, push_bytes: 100, ..FREE });
    assert!(asks(&mut world, BEHIND_MS));
    let at = Position { epoch: 1, seq: 3 };
    let old = Peer { v1: false, ..FREE };
    assert!(!world.page_to(0, "d", Page::Cut { at, wire: Wire::text(b"cut") }, old));
}

#[test]
fn leaving_a_room_ends_its_lag() {
    let mut world = World::new(1);
    world.join(0, "p", 0);
    world.frame("p", false, 1, 10);
    world.collect(0, Peer { blocked: true, push_bytes: 100, ..FREE });
    assert!(world.question(0, 0).is_some());
    assert!(world.feeds.leave(0, &"p".into()));
    assert_eq!(world.feeds.lagging(), 1, "an answer is under way: no second question meanwhile");
    world.out.clear();
    assert!(world.page(0, "p", Page::Frames { frames: vec![(1, Wire::text(b"x"))], reached: 1 }));
    assert!(world.out.is_empty(), "a late page of a room that was left is dropped");
    assert_eq!(world.feeds.lagging(), 0);
}
