//! The hot set: caches and routes. What ends is not waited for: memory's time is paused, and
//! Redis is told that time has passed.

use std::time::Duration;

use bytes::Bytes;
use corecast_backends::hotset::memory::{MemoryHotSet, MemoryHotSetConfig};
use corecast_backends::hotset::*;
use corecast_backends::store::{Message, SessionHash};
use corecast_backends::url::open_hotset;
use corecast_proto::ids::{MessageId, Position, RoomId};

/// Makes a test of each case on each hot set, of the timed ones with a clock. A new one is one
/// more module here.
macro_rules! on_every_hot_set {
    (cases: $($case:ident),*; timed: $($timed:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $case() {
                super::$case(super::open_hotset("memory:").expect("opens")).await;
            })*
            $(#[tokio::test(start_paused = true)]
            async fn $timed() {
                super::$timed(super::open_hotset("memory:").expect("opens"), super::Paused).await;
            })*
        }
        on_every_hot_set!(redis "CORECAST_TEST_REDIS": $($case),*; $($timed),*);
        on_every_hot_set!(redis_cluster "CORECAST_TEST_REDIS_CLUSTER": $($case),*; $($timed),*);
    };
    ($module:ident $variable:literal: $($case:ident),*; $($timed:ident),*) => {
        #[cfg(feature = "redis")]
        mod $module {
            use crate::redis::Place;

            $(#[tokio::test]
            async fn $case() {
                let Some(place) = Place::of_tests($variable) else { return };
                super::$case(super::open_hotset(&place.url).expect("opens")).await;
            })*
            $(#[tokio::test]
            async fn $timed() {
                let Some(place) = Place::of_tests($variable) else { return };
                super::$timed(super::open_hotset(&place.url).expect("opens"), place).await;
            })*
        }
    };
}

on_every_hot_set!(
    cases: a_session_that_was_never_filled_is_absent,
    many_sessions_are_answered_in_their_order,
    a_fill_never_replaces_an_entry,
    only_a_rebuild_creates_a_list,
    an_append_at_the_top_extends_the_list,
    an_append_after_a_hole_deletes_the_list,
    a_repeated_append_is_ignored,
    another_epoch_is_another_list,
    a_page_that_is_not_all_there_is_none,
    a_list_is_trimmed_from_the_oldest,
    one_caller_rebuilds_at_a_time,
    routes_of_a_user_are_kept_per_gateway,
    a_route_is_removed_by_its_incarnation_only,
    an_offline_list_keeps_the_newest_and_is_taken_oldest_first,
    an_offline_list_is_taken_once;
    timed: a_filled_session_ends_with_its_time_and_not_much_before,
    a_revoked_session_stays_a_tombstone_for_a_minute,
    a_rebuild_ends_with_its_time,
    an_unknown_room_is_remembered_for_two_seconds_at_most,
);

/// Lets time pass for what a hot set holds.
pub(crate) trait Clock {
    async fn advance(&self, time: Duration);
}

/// tokio's, paused.
struct Paused;

impl Clock for Paused {
    async fn advance(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

const HASH: SessionHash = [7; 32];

fn session(user_id: &str) -> CachedSession {
    CachedSession {
        user_id: user_id.to_owned(),
        username: "Ann".to_owned(),
        email: "ann@x".to_owned(),
        expires_ms: 5,
    }
}

fn room() -> RoomId {
    RoomId::from("a")
}

fn messages(seqs: impl IntoIterator<Item = u64>) -> Vec<Message> {
    let message = |seq| Message {
        id: MessageId { ms: 1000, seq },
        user_id: "u".to_owned(),
        username: "Ann \0 \"".to_owned(),
        content: format!("content {seq} \r\n\0 👩‍👩‍👧‍👦"),
    };
    seqs.into_iter().map(message).collect()
}

async fn rebuild<H: HotSet>(hot_set: &H, epoch: u64, seqs: std::ops::RangeInclusive<u64>) {
    let head = Position { epoch, seq: *seqs.end() };
    hot_set.rebuild_history(&room(), head, &messages(seqs)).await.expect("answers");
}

async fn append<H: HotSet>(hot_set: &H, epoch: u64, seqs: impl IntoIterator<Item = u64>) {
    hot_set.append_history(&room(), epoch, &messages(seqs)).await.expect("answers");
}

async fn page<H: HotSet>(hot_set: &H, epoch: u64, before: u64, count: u32) -> Option<(u64, Vec<Message>)> {
    hot_set.history(&room(), epoch, before, count).await.expect("answers")
}

async fn a_session_that_was_never_filled_is_absent<H: HotSet>(hot_set: H) {
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Absent);
}

async fn many_sessions_are_answered_in_their_order<H: HotSet>(hot_set: H) {
    let hashes: Vec<SessionHash> = (0..200).map(|n| [n; 32]).collect();
    for n in (0..200).step_by(3) {
        hot_set
            .fill_session(&[n; 32], session(&n.to_string()), Duration::from_secs(100))
            .await
            .expect("answers");
    }
    for n in (0..200).step_by(4) {
        hot_set.revoke_session(&[n; 32]).await.expect("answers");
    }
    let answers = hot_set.sessions(&hashes).await;
    assert_eq!(answers.len(), hashes.len());
    for (n, answer) in answers.into_iter().enumerate() {
        let expected = match n {
            _ if n % 4 == 0 => SessionEntry::Tombstone,
            _ if n % 3 == 0 => SessionEntry::Live(session(&n.to_string())),
            _ => SessionEntry::Absent,
        };
        assert_eq!(answer.expect("answers"), expected, "session {n}");
    }
    assert!(hot_set.sessions(&[]).await.is_empty());
}

async fn a_filled_session_ends_with_its_time_and_not_much_before<H: HotSet>(hot_set: H, clock: impl Clock) {
    let ttl = Duration::from_secs(100);
    for n in 0..20 {
        hot_set.fill_session(&[n; 32], session("u"), ttl).await.expect("answers");
    }
    clock.advance(Duration::from_secs(70)).await;
    for n in 0..20 {
        let live = SessionEntry::Live(session("u"));
        assert_eq!(hot_set.session(&[n; 32]).await.expect("answers"), live);
    }
    clock.advance(Duration::from_secs(30)).await;
    for n in 0..20 {
        assert_eq!(hot_set.session(&[n; 32]).await.expect("answers"), SessionEntry::Absent);
    }
}

async fn a_fill_never_replaces_an_entry<H: HotSet>(hot_set: H) {
    let ttl = Duration::from_secs(100);
    hot_set.fill_session(&HASH, session("first"), ttl).await.expect("answers");
    hot_set.fill_session(&HASH, session("second"), ttl).await.expect("answers");
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Live(session("first")));
}

async fn a_revoked_session_stays_a_tombstone_for_a_minute<H: HotSet>(hot_set: H, clock: impl Clock) {
    let ttl = Duration::from_secs(1000);
    hot_set.fill_session(&HASH, session("u"), ttl).await.expect("answers");
    hot_set.revoke_session(&HASH).await.expect("answers");
    hot_set.fill_session(&HASH, session("u"), ttl).await.expect("answers");
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Tombstone);
    clock.advance(Duration::from_secs(50)).await;
    hot_set.fill_session(&HASH, session("u"), ttl).await.expect("answers");
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Tombstone);
    clock.advance(Duration::from_secs(10)).await;
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Absent);
}

async fn only_a_rebuild_creates_a_list<H: HotSet>(hot_set: H) {
    append(&hot_set, 1, 1..=3).await;
    assert_eq!(page(&hot_set, 1, u64::MAX, 3).await, None);
    rebuild(&hot_set, 1, 1..=3).await;
    assert_eq!(page(&hot_set, 1, u64::MAX, 3).await, Some((3, messages(1..=3))));
}

async fn an_append_at_the_top_extends_the_list<H: HotSet>(hot_set: H) {
    rebuild(&hot_set, 1, 1..=3).await;
    append(&hot_set, 1, 4..=5).await;
    assert_eq!(page(&hot_set, 1, u64::MAX, 30).await, Some((5, messages(1..=5))));
    hot_set.rebuild_history(&room(), Position { epoch: 2, seq: 0 }, &[]).await.expect("answers");
    append(&hot_set, 2, 1..=1).await;
    assert_eq!(page(&hot_set, 2, u64::MAX, 30).await, Some((1, messages(1..=1))));
}

async fn an_append_after_a_hole_deletes_the_list<H: HotSet>(hot_set: H) {
    rebuild(&hot_set, 1, 1..=3).await;
    append(&hot_set, 1, 5..=5).await;
    assert_eq!(page(&hot_set, 1, u64::MAX, 1).await, None);
    append(&hot_set, 1, 4..=4).await;
    assert_eq!(page(&hot_set, 1, u64::MAX, 1).await, None);
}

async fn a_repeated_append_is_ignored<H: HotSet>(hot_set: H) {
    rebuild(&hot_set, 1, 1..=5).await;
    append(&hot_set, 1, 4..=5).await;
    append(&hot_set, 1, []).await;
    assert_eq!(page(&hot_set, 1, u64::MAX, 30).await, Some((5, messages(1..=5))));
}

async fn another_epoch_is_another_list<H: HotSet>(hot_set: H) {
    rebuild(&hot_set, 1, 1..=3).await;
    assert_eq!(page(&hot_set, 2, u64::MAX, 1).await, None);
    append(&hot_set, 2, 4..=4).await;
    assert_eq!(page(&hot_set, 2, u64::MAX, 1).await, None);
    assert_eq!(page(&hot_set, 1, u64::MAX, 1).await, Some((3, messages(3..=3))));
}

async fn a_page_that_is_not_all_there_is_none<H: HotSet>(hot_set: H) {
    rebuild(&hot_set, 1, 11..=20).await;
    assert_eq!(page(&hot_set, 1, u64::MAX, 10).await, Some((20, messages(11..=20))));
    assert_eq!(page(&hot_set, 1, u64::MAX, 11).await, None);
    assert_eq!(page(&hot_set, 1, 13, 2).await, Some((20, messages(11..=12))));
    assert_eq!(page(&hot_set, 1, 13, 3).await, None);
    rebuild(&hot_set, 1, 1..=4).await;
    assert_eq!(page(&hot_set, 1, 3, 30).await, Some((4, messages(1..=2))), "number 1 ends every page");
}

async fn a_list_is_trimmed_from_the_oldest<H: HotSet>(hot_set: H) {
    rebuild(&hot_set, 1, 1..=200).await;
    for first in (201..=2001).step_by(200) {
        append(&hot_set, 1, first..first + 200).await;
    }
    let newest = page(&hot_set, 1, u64::MAX, 200).await.expect("a page is kept");
    assert_eq!((newest.0, newest.1.len(), newest.1[199].id.seq), (2200, 200, 2200));
    assert_eq!(page(&hot_set, 1, 200, 10).await, None, "the oldest are gone");
}

async fn one_caller_rebuilds_at_a_time<H: HotSet>(hot_set: H) {
    let ttl = Duration::from_secs(10);
    assert!(hot_set.begin_rebuild(&room(), ttl).await.expect("answers"));
    assert!(!hot_set.begin_rebuild(&room(), ttl).await.expect("answers"));
    assert!(hot_set.begin_rebuild(&RoomId::from("another"), ttl).await.expect("answers"));
    rebuild(&hot_set, 1, 1..=3).await;
    assert!(hot_set.begin_rebuild(&room(), ttl).await.expect("answers"), "the first one has ended");
}

async fn a_rebuild_ends_with_its_time<H: HotSet>(hot_set: H, clock: impl Clock) {
    let ttl = Duration::from_secs(10);
    assert!(hot_set.begin_rebuild(&room(), ttl).await.expect("answers"));
    clock.advance(Duration::from_secs(5)).await;
    assert!(!hot_set.begin_rebuild(&room(), ttl).await.expect("answers"));
    clock.advance(Duration::from_secs(5)).await;
    assert!(hot_set.begin_rebuild(&room(), ttl).await.expect("answers"));
}

async fn an_unknown_room_is_remembered_for_two_seconds_at_most<H: HotSet>(hot_set: H, clock: impl Clock) {
    assert!(!hot_set.is_unknown_room("a").await.expect("answers"));
    hot_set.mark_unknown_room("a").await.expect("answers");
    assert!(hot_set.is_unknown_room("a").await.expect("answers"));
    assert!(!hot_set.is_unknown_room("b").await.expect("answers"));
    clock.advance(Duration::from_secs(2)).await;
    assert!(!hot_set.is_unknown_room("a").await.expect("answers"));
}

fn route(gateway: &str, incarnation: u64) -> GatewayRoute {
    GatewayRoute { gateway_id: gateway.to_owned(), incarnation }
}

async fn routes<H: HotSet>(hot_set: &H) -> Vec<(String, u64)> {
    let routes = hot_set.routes("u").await.expect("answers");
    let mut routes: Vec<_> = routes.into_iter().map(|r| (r.gateway_id, r.incarnation)).collect();
    routes.sort_unstable();
    routes
}

async fn routes_of_a_user_are_kept_per_gateway<H: HotSet>(hot_set: H) {
    assert_eq!(routes(&hot_set).await, []);
    hot_set.set_route("u", &route("g1", 5)).await.expect("answers");
    hot_set.set_route("u", &route("g2", 6)).await.expect("answers");
    hot_set.set_route("u", &route("g1", 5)).await.expect("answers");
    hot_set.set_route("another", &route("g3", 7)).await.expect("answers");
    assert_eq!(routes(&hot_set).await, [("g1".to_owned(), 5), ("g2".to_owned(), 6)]);
    hot_set.set_route("u", &route("g1", 9)).await.expect("answers");
    assert_eq!(routes(&hot_set).await, [("g1".to_owned(), 9), ("g2".to_owned(), 6)]);
}

async fn a_route_is_removed_by_its_incarnation_only<H: HotSet>(hot_set: H) {
    hot_set.set_route("u", &route("g1", 9)).await.expect("answers");
    hot_set.drop_route("u", &route("g1", 5)).await.expect("answers");
    hot_set.drop_route("u", &route("g2", 9)).await.expect("answers");
    assert_eq!(routes(&hot_set).await, [("g1".to_owned(), 9)]);
    hot_set.drop_route("u", &route("g1", 9)).await.expect("answers");
    assert_eq!(routes(&hot_set).await, []);
}

async fn an_offline_list_keeps_the_newest_and_is_taken_oldest_first<H: HotSet>(hot_set: H) {
    for n in 1..=5 {
        hot_set.push_offline("u", Bytes::from(n.to_string()), 3).await.expect("answers");
    }
    hot_set.push_offline("another", Bytes::from_static(b"\0\xff"), 3).await.expect("answers");
    assert_eq!(hot_set.take_offline("u").await.expect("answers"), ["3", "4", "5"]);
    assert_eq!(hot_set.take_offline("another").await.expect("answers"), [&b"\0\xff"[..]]);
}

async fn an_offline_list_is_taken_once<H: HotSet>(hot_set: H) {
    hot_set.push_offline("u", Bytes::from_static(b"x"), 3).await.expect("answers");
    assert_eq!(hot_set.take_offline("u").await.expect("answers").len(), 1);
    assert_eq!(hot_set.take_offline("u").await.expect("answers").len(), 0);
    hot_set.push_offline("u", Bytes::from_static(b"x"), 0).await.expect("answers");
    assert_eq!(hot_set.take_offline("u").await.expect("answers").len(), 0, "none may stay");
}

#[tokio::test]
async fn memory_stays_within_its_bounds_and_counts_what_went() {
    let config = MemoryHotSetConfig { entries_max: 100, bytes_max: 1 << 20, ..Default::default() };
    let hot_set = MemoryHotSet::new(config);
    for n in 0..300 {
        hot_set.set_route(&n.to_string(), &route("g", 1)).await.expect("answers");
    }
    let counters = MemoryHotSet::counters(&hot_set);
    assert_eq!((counters.entries, counters.evicted), (100, 200));
    hot_set.clear();
    assert_eq!(MemoryHotSet::counters(&hot_set).entries, 0);
}

#[tokio::test(start_paused = true)]
async fn memory_spreads_the_end_of_entries_filled_together() {
    let hot_set = MemoryHotSet::default();
    for n in 0..100 {
        hot_set.fill_session(&[n; 32], session("u"), Duration::from_secs(100)).await.expect("answers");
    }
    tokio::time::advance(Duration::from_secs(90)).await;
    let mut live = 0;
    for n in 0..100 {
        live += u32::from(hot_set.session(&[n; 32]).await.expect("answers") != SessionEntry::Absent);
    }
    assert!((10..=90).contains(&live), "{live} of 100 end after nine tenths of the time");
}
