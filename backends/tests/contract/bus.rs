//! The fast path: quick, may lose, tells when it lost for being slow.

use bytes::Bytes;
use corecast_backends::bus::faults::BusFaults;
use corecast_backends::bus::memory::MemoryBus;
use corecast_backends::bus::*;
use corecast_backends::url::open_bus;
use corecast_proto::ids::{GLOBAL, RoomId};
use std::time::Duration;

use crate::support::{is_pending, soon};

/// Makes a test of each case on each bus. A new one is one more module here.
macro_rules! on_every_bus {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::open_bus("memory:").expect("opens")).await;
            })*
        }
        on_every_bus!(redis "CORECAST_TEST_REDIS": $($case),*);
        on_every_bus!(redis_cluster "CORECAST_TEST_REDIS_CLUSTER": $($case),*);
    };
    ($module:ident $variable:literal: $($case:ident),*) => {
        #[cfg(feature = "redis")]
        mod $module {
            use crate::redis::Place;

            $(#[tokio::test]
            async fn $case() {
                let Some(place) = Place::of_tests($variable) else { return };
                super::$case(super::connected(&place.url).await).await;
            })*
        }
    };
}

on_every_bus!(
    a_frame_arrives_whole,
    every_subscriber_gets_it_once,
    only_watched_rooms_and_global_arrive,
    an_unwatched_room_is_silent_at_once,
    frames_keep_their_order_in_undisturbed_operation,
    publishing_to_nobody_is_no_failure,
    a_subscriber_that_left_disturbs_nobody,
    a_dropped_next_loses_nothing,
);

/// A bus whose publisher has its link: what it takes from now on is written at once.
#[cfg(feature = "redis")]
pub(crate) async fn connected(url: &str) -> AnyBus {
    let bus = open_bus(url).expect("opens");
    // A room nobody else watches: in a cluster it may reach other nodes later than this one.
    let mut subscription = watching(&bus, &["first of all"]).await;
    bus.publish(frame("first of all", 1)).await;
    let arrives = async { while !matches!(next(&mut subscription).await, BusEvent::Frame(_)) {} };
    soon("the first frame arrives", arrives).await;
    bus
}

pub(crate) fn frame(room: &str, first_seq: u64) -> BusFrame {
    BusFrame {
        room_id: RoomId::from(room),
        epoch: 9,
        first_seq,
        count: 2,
        op: 4,
        frame: Bytes::from(format!("{room} \0 {first_seq}")),
    }
}

pub(crate) async fn watching<B: Bus>(bus: &B, rooms: &[&str]) -> B::Subscription {
    let mut subscription = bus.subscribe().await;
    for room in rooms {
        subscription.watch(&[RoomId::from(*room)]).await;
    }
    subscription
}

pub(crate) async fn next<S: Subscription>(subscription: &mut S) -> BusEvent {
    soon("an event comes", subscription.next()).await.expect("the bus lives")
}

pub(crate) async fn next_frame<S: Subscription>(subscription: &mut S) -> BusFrame {
    match next(subscription).await {
        BusEvent::Frame(frame) => frame,
        BusEvent::Interrupted => panic!("interrupted"),
    }
}

async fn a_frame_arrives_whole<B: Bus>(bus: B) {
    let mut subscription = watching(&bus, &["a"]).await;
    bus.publish(frame("a", 1)).await;
    assert_eq!(next_frame(&mut subscription).await, frame("a", 1));
}

async fn every_subscriber_gets_it_once<B: Bus>(bus: B) {
    let (mut one, mut two) = (watching(&bus, &["a", "a"]).await, watching(&bus, &["a"]).await);
    bus.publish(frame("a", 1)).await;
    for subscription in [&mut one, &mut two] {
        assert_eq!(next_frame(subscription).await.first_seq, 1);
        assert!(is_pending(subscription.next()).await);
    }
}

async fn only_watched_rooms_and_global_arrive<B: Bus>(bus: B) {
    let mut subscription = watching(&bus, &["a"]).await;
    for room in ["b", "a", GLOBAL, "b"] {
        bus.publish(frame(room, 1)).await;
    }
    assert_eq!(next_frame(&mut subscription).await.room_id.as_str(), "a");
    assert_eq!(next_frame(&mut subscription).await.room_id.as_str(), GLOBAL);
    assert!(is_pending(subscription.next()).await);
}

async fn an_unwatched_room_is_silent_at_once<B: Bus>(bus: B) {
    let mut subscription = watching(&bus, &["a", "b"]).await;
    bus.publish(frame("a", 1)).await;
    subscription.unwatch(&[RoomId::from("a")]).await;
    bus.publish(frame("a", 2)).await;
    bus.publish(frame("b", 3)).await;
    assert_eq!(next_frame(&mut subscription).await.first_seq, 3);
}

async fn frames_keep_their_order_in_undisturbed_operation<B: Bus>(bus: B) {
    let mut subscription = watching(&bus, &["a"]).await;
    for seq in 0..100 {
        bus.publish(frame("a", seq)).await;
    }
    for seq in 0..100 {
        assert_eq!(next_frame(&mut subscription).await.first_seq, seq);
    }
}

async fn publishing_to_nobody_is_no_failure<B: Bus>(bus: B) {
    bus.publish(frame("a", 1)).await;
    let mut late = watching(&bus, &["a"]).await;
    bus.publish(frame("a", 2)).await;
    // In a cluster the first may still be on its way when the subscription stands.
    while next_frame(&mut late).await.first_seq != 2 {}
}

async fn a_subscriber_that_left_disturbs_nobody<B: Bus>(bus: B) {
    let gone = watching(&bus, &["a"]).await;
    let mut stays = watching(&bus, &["a"]).await;
    drop(gone);
    bus.publish(frame("a", 1)).await;
    assert_eq!(next_frame(&mut stays).await.first_seq, 1);
}

async fn a_dropped_next_loses_nothing<B: Bus>(bus: B) {
    let mut subscription = watching(&bus, &["a"]).await;
    for seq in 0..20 {
        assert!(is_dropped_at_once(&mut subscription).await);
        bus.publish(frame("a", seq)).await;
        assert_eq!(next_frame(&mut subscription).await.first_seq, seq);
    }
}

async fn is_dropped_at_once<S: Subscription>(subscription: &mut S) -> bool {
    let next = subscription.next();
    tokio::pin!(next);
    futures::poll!(next.as_mut()).is_pending()
}

#[tokio::test]
async fn memory_a_full_queue_interrupts_once_after_the_last_frame_before_the_gap() {
    let bus = MemoryBus::with_bound(BusFaults::default(), 3);
    let mut slow = watching(&bus, &["a"]).await;
    let mut quick = watching(&bus, &["a"]).await;
    for seq in 1..=5 {
        bus.publish(frame("a", seq)).await;
        assert_eq!(next_frame(&mut quick).await.first_seq, seq, "nobody else is concerned");
    }
    for seq in 1..=3 {
        assert_eq!(next_frame(&mut slow).await.first_seq, seq);
    }
    bus.publish(frame("a", 6)).await;
    assert!(matches!(next(&mut slow).await, BusEvent::Interrupted));
    assert_eq!(next_frame(&mut slow).await.first_seq, 6);
    assert!(is_pending(slow.next()).await);
    assert_eq!((MemoryBus::counters(&bus).overflowed, MemoryBus::counters(&bus).published), (2, 6));
}

#[tokio::test]
async fn memory_a_bus_that_is_gone_ends_its_subscriptions() {
    let bus = MemoryBus::new();
    let mut subscription = watching(&bus, &["a"]).await;
    bus.publish(frame("a", 1)).await;
    let waiting = tokio::spawn(async move {
        assert_eq!(next_frame(&mut subscription).await.first_seq, 1);
        subscription.next().await.is_none()
    });
    drop(bus);
    assert!(soon("the subscription ends", waiting).await.expect("no panic"));
}

#[tokio::test]
async fn memory_faults_lose_silently_and_on_demand() {
    let bus = MemoryBus::with_faults(BusFaults { drop_all: true, ..BusFaults::default() });
    let mut subscription = watching(&bus, &["a"]).await;
    bus.publish(frame("a", 1)).await;
    assert!(is_pending(subscription.next()).await, "a loss by fault is not told");
    assert_eq!(MemoryBus::counters(&bus).lost, 1);
    bus.set_faults(BusFaults::default());
    bus.drop_next(2);
    for seq in 2..=4 {
        bus.publish(frame("a", seq)).await;
    }
    assert_eq!(next_frame(&mut subscription).await.first_seq, 4);
    assert_eq!(MemoryBus::counters(&bus).lost, 2);
}

#[tokio::test(start_paused = true)]
async fn memory_delayed_frames_arrive_all_and_change_places() {
    let delay_max = Duration::from_millis(100);
    let bus = MemoryBus::with_faults(BusFaults { delay_max, ..BusFaults::default() });
    let mut subscription = watching(&bus, &["a"]).await;
    for seq in 0..50 {
        bus.publish(frame("a", seq)).await;
    }
    let mut seen = Vec::new();
    for _ in 0..50 {
        seen.push(next_frame(&mut subscription).await.first_seq);
    }
    assert!(!seen.is_sorted(), "some changed places");
    seen.sort_unstable();
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn none_takes_everything_and_delivers_nothing() {
    let bus = open_bus("none:").expect("opens");
    let mut subscription = watching(&bus, &["a"]).await;
    bus.publish(frame("a", 1)).await;
    assert!(is_pending(subscription.next()).await);
    subscription.unwatch(&[RoomId::from("a")]).await;
}
