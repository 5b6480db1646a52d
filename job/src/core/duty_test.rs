use corecast_backends::log::Token;

use super::super::window::Window;
use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn limits() -> Limits {
    Limits {
        duty: MS(10_000),
        deadline: MS(5_000),
        batch_pushes: 2,
        batch_bytes: 100,
        lane_pushes: 4,
        lane_bytes: 1_000,
    }
}

/// A lane and a source of tickets.
struct Scene {
    lane: Lane,
    window: Window,
    offset: i64,
}

impl Scene {
    fn new() -> Self {
        Self { lane: Lane::new(limits()), window: Window::new(0, 100, 10_000), offset: 0 }
    }

    fn streaming(incarnation: u64) -> Self {
        let mut scene = Self::new();
        scene.lane.handle_welcome(incarnation);
        scene
    }

    /// Offers a push of so many bytes; answers its ticket and whether it is owed.
    fn offer(&mut self, bytes: usize, now: Time) -> (Ticket, bool) {
        self.offset += 1;
        let ticket = self
            .window
            .insert(Token { partition: 0, offset: self.offset }, bytes, now)
            .expect("offsets grow");
        let push = Push { offset: self.offset, ..Default::default() };
        (ticket, self.lane.offer(&Arc::new(Planned { push, bytes }), ticket, now))
    }

    /// Id and offsets of the next batch.
    fn transmit(&mut self, now: Time) -> Option<(u64, Vec<i64>)> {
        let batch = self.lane.poll_transmit(now)?;
        Some((batch.id, batch.pushes.iter().map(|planned| planned.push.offset).collect()))
    }
}

#[test]
fn batches_are_bounded_by_count_and_bytes_and_acked_cumulatively() {
    let mut scene = Scene::streaming(1);
    let tickets: Vec<_> = [10, 10, 60, 60].map(|bytes| scene.offer(bytes, MS(0)).0).into();
    assert_eq!(scene.transmit(MS(1)), Some((1, vec![1, 2])), "two at most");
    assert_eq!(scene.transmit(MS(1)), Some((2, vec![3])), "100 bytes at most");
    assert_eq!(scene.transmit(MS(1)), Some((3, vec![4])));
    assert_eq!(scene.transmit(MS(1)), None);
    let taken = scene.lane.handle_ack(2, MS(5)).expect("that batch was sent");
    assert_eq!(taken.released, tickets[..3]);
    assert_eq!(taken.waits, [MS(4); 3]);
    assert_eq!(scene.lane.unacked(), 1);
    assert!(
        scene.lane.handle_ack(2, MS(5)).expect("that batch was sent").released.is_empty(),
        "the ack again"
    );
    assert_eq!(scene.lane.handle_ack(4, MS(5)).unwrap_err(), AckBeyond(4));
}

#[test]
fn push_larger_than_a_batch_travels_alone() {
    let mut scene = Scene::streaming(1);
    scene.offer(500, MS(0));
    scene.offer(500, MS(0));
    assert_eq!(scene.transmit(MS(0)), Some((1, vec![1])));
    assert_eq!(scene.transmit(MS(0)), Some((2, vec![2])));
}

#[test]
fn same_incarnation_gets_the_unacked_again_another_one_does_not() {
    let mut scene = Scene::streaming(1);
    scene.offer(1, MS(0));
    let (kept, _) = scene.offer(1, MS(0));
    scene.transmit(MS(0));
    scene.offer(1, MS(0));
    scene.transmit(MS(0));
    scene.lane.handle_ack(1, MS(1)).expect("that batch was sent");
    assert_eq!(scene.lane.handle_stream_lost(MS(2)), (vec![], false));
    assert_eq!(scene.transmit(MS(3)), None, "no stream");
    scene.offer(1, MS(3));

    assert!(scene.lane.handle_welcome(1).is_empty());
    assert_eq!(scene.transmit(MS(4)), Some((1, vec![3, 4])), "ids begin anew, order stays");
    scene.lane.handle_stream_lost(MS(5));

    assert_eq!(scene.lane.handle_welcome(2).len(), 2);
    assert_eq!(scene.transmit(MS(6)), None);
    assert_eq!(scene.lane.standing(), Standing::Owed);
    assert!(scene.offer(1, MS(7)).1);
    let _ = kept;
}

#[test]
fn nothing_is_sent_twice_on_a_live_stream() {
    let mut scene = Scene::streaming(1);
    scene.offer(1, MS(0));
    assert!(scene.transmit(MS(0)).is_some());
    assert_eq!(scene.lane.handle_timeout(MS(4_999)).1, Verdict::Keep);
    assert_eq!(scene.transmit(MS(4_999)), None);
    assert_eq!(scene.lane.poll_timeout(), Some(MS(5_000)));
    assert_eq!(scene.lane.handle_timeout(MS(5_000)).1, Verdict::Reconnect);
}

#[test]
fn duty_ends_ten_seconds_after_the_first_send_retries_included() {
    let mut scene = Scene::streaming(1);
    let (ticket, owed) = scene.offer(1, MS(100));
    assert!(owed);
    scene.transmit(MS(1_000));
    scene.lane.handle_stream_lost(MS(6_000));
    scene.lane.handle_welcome(1);
    scene.transmit(MS(6_100));
    assert_eq!(scene.lane.handle_timeout(MS(10_999)), (vec![], Verdict::Keep));
    assert_eq!(scene.lane.poll_timeout(), Some(MS(11_000)));
    assert_eq!(scene.lane.handle_timeout(MS(11_000)), (vec![ticket], Verdict::Lapsed));
}

#[test]
fn unreachable_gateway_costs_one_duty_time_and_not_one_for_each_push() {
    let mut scene = Scene::new();
    let (first, _) = scene.offer(1, MS(0));
    let (second, _) = scene.offer(1, MS(9_000));
    assert_eq!(scene.lane.handle_timeout(MS(10_000)), (vec![first, second], Verdict::Lapsed));
    let (_, owed) = scene.offer(1, MS(10_001));
    assert!(!owed);
    assert_eq!((scene.lane.unacked(), scene.lane.poll_timeout()), (0, None));
    scene.lane.handle_welcome(1);
    assert!(scene.offer(1, MS(20_000)).1, "owed at once: this incarnation never let us wait");
}

#[test]
fn lapsed_incarnation_is_served_but_not_waited_for_until_it_acks() {
    let mut scene = Scene::streaming(1);
    scene.offer(1, MS(0));
    scene.transmit(MS(0));
    scene.lane.handle_timeout(MS(10_000));
    scene.lane.handle_stream_lost(MS(10_000));
    assert_eq!(scene.lane.standing(), Standing::Lapsed);

    assert!(scene.lane.handle_welcome(1).is_empty());
    assert!(!scene.offer(1, MS(11_000)).1);
    assert_eq!(scene.transmit(MS(11_000)), Some((1, vec![2])));
    let taken = scene.lane.handle_ack(1, MS(11_001)).expect("that batch was sent");
    assert!(taken.released.is_empty(), "nobody held it");
    assert_eq!(scene.lane.standing(), Standing::Owed);
    assert!(scene.offer(1, MS(11_002)).1);
}

#[test]
fn probation_ends_with_its_stream_and_drops_what_does_not_fit() {
    let mut scene = Scene::streaming(1);
    scene.offer(1, MS(0));
    scene.transmit(MS(0));
    scene.lane.handle_timeout(MS(10_000));
    scene.lane.handle_stream_lost(MS(10_000));
    scene.lane.handle_welcome(1);
    for _ in 0..6 {
        scene.offer(1, MS(11_000));
    }
    assert_eq!(scene.lane.unacked(), limits().lane_pushes);
    assert!(!scene.lane.is_full(), "reading the log does not stop for it");
    scene.transmit(MS(11_000));
    assert_eq!(scene.lane.handle_timeout(MS(16_000)).1, Verdict::Reconnect);
    assert_eq!(scene.lane.handle_stream_lost(MS(16_000)), (vec![], false));
    assert_eq!((scene.lane.standing(), scene.lane.unacked()), (Standing::Lapsed, 0));
    scene.lane.handle_welcome(2);
    assert_eq!(scene.lane.standing(), Standing::Owed, "a new incarnation starts clean");
}

#[test]
fn push_that_breaks_three_streams_ends_the_duty() {
    let mut scene = Scene::streaming(1);
    let (ticket, _) = scene.offer(1, MS(0));
    for attempt in 1..=SENDS_MAX {
        assert!(scene.transmit(MS(0)).is_some());
        let expected = if attempt == SENDS_MAX { (vec![ticket], true) } else { (vec![], false) };
        assert_eq!(scene.lane.handle_stream_lost(MS(1)), expected);
        scene.lane.handle_welcome(1);
    }
}

#[test]
fn full_lane_stops_reading_only_while_owed() {
    let mut scene = Scene::streaming(1);
    for _ in 0..limits().lane_pushes - 1 {
        scene.offer(1, MS(0));
    }
    assert!(!scene.lane.is_full());
    scene.offer(1, MS(0));
    assert!(scene.lane.is_full());
    scene.transmit(MS(0));
    scene.lane.handle_timeout(MS(10_000));
    assert!(!scene.lane.is_full());
}

#[test]
fn gateway_that_left_the_registry_is_served_while_its_stream_lives() {
    let mut scene = Scene::streaming(1);
    scene.offer(1, MS(0));
    scene.lane.handle_listed(false);
    assert!(scene.offer(1, MS(1)).1, "a registry may be wrong");
    assert_eq!(scene.transmit(MS(1)), Some((1, vec![1, 2])));
    scene.lane.handle_ack(1, MS(2)).expect("that batch was sent");
    assert!(!scene.lane.is_over());
    for _ in 0..limits().lane_pushes {
        scene.offer(1, MS(3));
    }
    assert!(scene.lane.is_full(), "and waited for");
    scene.transmit(MS(3));
    assert_eq!(scene.lane.handle_timeout(MS(10_003)).1, Verdict::Lapsed);
    scene.lane.handle_stream_lost(MS(10_003));
    assert!(scene.lane.is_over());
    scene.lane.handle_listed(true);
    assert!(!scene.lane.is_over());
}

#[test]
fn gateway_that_left_the_registry_and_its_stream_is_still_owed_what_it_was_offered() {
    let mut scene = Scene::streaming(1);
    scene.offer(1, MS(0));
    scene.lane.handle_listed(false);
    scene.lane.handle_stream_lost(MS(1));
    assert!(!scene.lane.is_over());
    assert!(!scene.offer(1, MS(1)).1, "and nothing more");
    scene.lane.handle_welcome(1);
    assert_eq!(scene.transmit(MS(2)), Some((1, vec![1])));
    scene.lane.handle_ack(1, MS(3)).expect("that batch was sent");
    scene.lane.handle_stream_lost(MS(4));
    assert!(scene.lane.is_over());
}
