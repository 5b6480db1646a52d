//! Redis that dies, forgets, moves and falls silent. Claim: answers come quickly, as errors if
//! need be; nothing is wrong afterwards; nothing of ours has to be started again. Each test
//! has a Redis of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast_backends::bus::*;
use corecast_backends::hotset::*;
use corecast_backends::store::{Message, SessionHash};
use corecast_backends::url::{open_bus, open_hotset};
use corecast_proto::ids::{GLOBAL, MessageId, Position, RoomId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::bus::{connected, frame, next, next_frame, watching};
use crate::redis::{Engine, Place, ask, connection};
use crate::support::{eventually, soon};

const HASH: SessionHash = [7; 32];
const HOUR: Duration = Duration::from_secs(3600);

fn session() -> CachedSession {
    CachedSession { user_id: "u".into(), username: "Ann".into(), email: "a@x".into(), expires_ms: 5 }
}

fn messages(seqs: impl IntoIterator<Item = u64>) -> Vec<Message> {
    let message = |seq| Message {
        id: MessageId { ms: 1000, seq },
        user_id: "u".to_owned(),
        username: "Ann".to_owned(),
        content: seq.to_string(),
    };
    seqs.into_iter().map(message).collect()
}

async fn rebuild(hot_set: &AnyHotSet, room: &str, last: u64) {
    let head = Position { epoch: 1, seq: last };
    hot_set.rebuild_history(&room.into(), head, &messages(1..=last)).await.expect("answers");
}

async fn page(hot_set: &AnyHotSet, room: &str) -> Option<u64> {
    let page = hot_set.history(&room.into(), 1, u64::MAX, 2).await.expect("answers");
    page.map(|(top, _)| top)
}

/// Calls until one of each kind answers.
async fn answers(hot_set: &AnyHotSet) {
    eventually("the hot set answers", async || hot_set.session(&[0; 32]).await.is_ok()).await;
}

#[tokio::test]
async fn a_killed_redis_costs_little_time_and_is_used_again_when_it_is_back() {
    let Some(engine) = Engine::start() else { return };
    let hot_set = open_hotset(&engine.url()).expect("opens");
    rebuild(&hot_set, "r", 3).await;
    hot_set.fill_session(&HASH, session(), HOUR).await.expect("answers");
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Live(session()));

    engine.kill(1);
    let begin = Instant::now();
    let mut failed = 0;
    for _ in 0..200 {
        failed += u32::from(hot_set.session(&HASH).await.is_err());
        failed += u32::from(hot_set.append_history(&"r".into(), 1, &messages([4])).await.is_err());
    }
    let took = begin.elapsed();
    assert_eq!(failed, 400);
    assert!(took < Duration::from_secs(3), "400 calls on a dead server took {took:?}");
    assert_eq!(hot_set.counters().errors, 400);

    engine.restart(1);
    answers(&hot_set).await;
    // The append of 4 was lost: the list ends at 3, and 5 finds the hole.
    assert_eq!(page(&hot_set, "r").await, Some(3));
    hot_set.append_history(&"r".into(), 1, &messages([5])).await.expect("answers");
    assert_eq!(page(&hot_set, "r").await, None);
    // What the server had before it started again may be older than the truth.
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Absent);
    hot_set.fill_session(&HASH, session(), HOUR).await.expect("answers");
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Live(session()));
}

#[tokio::test]
async fn a_session_revoked_while_redis_is_away_stays_revoked() {
    let Some(engine) = Engine::start() else { return };
    let hot_set = open_hotset(&engine.url()).expect("opens");
    let other_node = open_hotset(&engine.url()).expect("opens");
    hot_set.fill_session(&HASH, session(), HOUR).await.expect("answers");
    engine.kill(1);
    assert!(hot_set.revoke_session(&HASH).await.is_err());
    assert_eq!(hot_set.session(&HASH).await.expect("known here"), SessionEntry::Tombstone);
    assert_eq!(hot_set.counters().revocations_held, 1);
    engine.restart(1);
    answers(&other_node).await;
    let tombstone = async || other_node.session(&HASH).await.ok() == Some(SessionEntry::Tombstone);
    eventually("the other node sees the tombstone", tombstone).await;
    eventually("nothing is held any more", async || hot_set.counters().revocations_held == 0).await;
}

#[tokio::test]
async fn a_tombstone_that_redis_forgot_brings_no_session_back() {
    let Some(engine) = Engine::start() else { return };
    let hot_set = open_hotset(&engine.url()).expect("opens");
    hot_set.fill_session(&HASH, session(), HOUR).await.expect("answers");
    let mut own = connection(&format!("127.0.0.1:{}", engine.ports[0])).await;
    let keys: Vec<String> = ask(&mut own, &["KEYS", "*session*"]).await;
    let live: String = ask(&mut own, &["GET", &keys[0]]).await;
    hot_set.revoke_session(&HASH).await.expect("answers");
    // As a server does that starts from a snapshot of before.
    let _: () = ask(&mut own, &["SET", &keys[0], &live]).await;
    engine.kill(1);
    engine.restart(1);
    answers(&hot_set).await;
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Absent);
}

#[tokio::test]
async fn a_full_redis_that_takes_no_writes_still_forgets_a_revoked_session() {
    let Some(engine) = Engine::start() else { return };
    let hot_set = open_hotset(&engine.url()).expect("opens");
    hot_set.fill_session(&HASH, session(), HOUR).await.expect("answers");
    let mut own = connection(&format!("127.0.0.1:{}", engine.ports[0])).await;
    let _: () = ask(&mut own, &["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(hot_set.fill_session(&[8; 32], session(), HOUR).await.is_err(), "it is full");
    hot_set.revoke_session(&HASH).await.expect("answers");
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Absent);
    assert_eq!(hot_set.counters().revocations_held, 0);
}

#[tokio::test]
async fn an_emptied_redis_holds_nothing_and_nothing_wrong() {
    let Some(engine) = Engine::start() else { return };
    let hot_set = open_hotset(&engine.url()).expect("opens");
    rebuild(&hot_set, "r", 3).await;
    hot_set.fill_session(&HASH, session(), HOUR).await.expect("answers");
    let mut own = connection(&format!("127.0.0.1:{}", engine.ports[0])).await;
    let _: () = ask(&mut own, &["FLUSHALL"]).await;
    let _: () = ask(&mut own, &["SCRIPT", "FLUSH"]).await;
    assert_eq!(hot_set.session(&HASH).await.expect("answers"), SessionEntry::Absent);
    hot_set.append_history(&"r".into(), 1, &messages([4])).await.expect("answers");
    assert_eq!(page(&hot_set, "r").await, None, "only a rebuild makes a list");
    rebuild(&hot_set, "r", 4).await;
    assert_eq!(page(&hot_set, "r").await, Some(4));
}

#[tokio::test]
async fn a_redis_that_comes_late_is_used_when_it_is_there() {
    let Some(engine) = Engine::start() else { return };
    engine.kill(1);
    let hot_set = open_hotset(&engine.url()).expect("opens");
    let bus = open_bus(&engine.url()).expect("opens");
    assert!(hot_set.session(&HASH).await.is_err());
    let mut subscription = watching(&bus, &["a"]).await;
    bus.publish(frame("a", 1)).await;
    engine.restart(1);
    answers(&hot_set).await;
    assert!(matches!(next(&mut subscription).await, BusEvent::Interrupted));
    arrives(&bus, &mut subscription).await;
}

/// Publishes until a frame comes through.
async fn arrives(bus: &AnyBus, subscription: &mut AnySubscription) {
    let arrived = async || {
        bus.publish(frame("a", 77)).await;
        let event = tokio::time::timeout(Duration::from_millis(100), subscription.next()).await;
        matches!(event, Ok(Some(BusEvent::Frame(frame))) if frame.first_seq == 77)
    };
    eventually("a frame arrives", arrived).await;
}

#[tokio::test]
async fn a_bus_whose_redis_was_killed_interrupts_once_and_goes_on() {
    let Some(engine) = Engine::start() else { return };
    let bus = connected(&engine.url()).await;
    let mut subscription = watching(&bus, &["a"]).await;
    bus.publish(frame("a", 1)).await;
    assert_eq!(next_frame(&mut subscription).await.first_seq, 1);
    engine.kill(1);
    let begin = Instant::now();
    for seq in 0..100_000 {
        bus.publish(frame("a", seq)).await;
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "publishing waits for nobody");
    eventually("they are dropped", async || bus.counters().dropped > 0).await;
    // While the link is down rooms come and go without waiting for it.
    soon("watch returns", subscription.watch(&["b".into()])).await;
    soon("unwatch returns", subscription.unwatch(&["b".into()])).await;
    soon("watch returns", subscription.watch(&["c".into()])).await;
    engine.restart(1);
    assert!(matches!(next(&mut subscription).await, BusEvent::Interrupted));
    arrives(&bus, &mut subscription).await;
    for room in ["b", "c"] {
        bus.publish(frame(room, 5)).await;
    }
    let mut seen = next_frame(&mut subscription).await;
    while seen.first_seq == 77 {
        seen = next_frame(&mut subscription).await;
    }
    assert_eq!((seen.room_id.as_str(), seen.first_seq), ("c", 5), "no second interruption, no room b");
}

#[tokio::test]
async fn a_link_that_falls_silent_is_found_in_a_few_seconds() {
    let Some(engine) = Engine::start() else { return };
    let proxy = Proxy::start(engine.ports[0]).await;
    let bus = connected(&engine.url()).await;
    let through = open_bus(&format!("redis://127.0.0.1:{}", proxy.port)).expect("opens");
    let mut subscription = watching(&through, &["a"]).await;
    bus.publish(frame("a", 1)).await;
    assert_eq!(next_frame(&mut subscription).await.first_seq, 1);

    proxy.silence();
    let begin = Instant::now();
    bus.publish(frame("a", 2)).await;
    assert!(matches!(next(&mut subscription).await, BusEvent::Interrupted), "frame 2 is lost");
    let found = begin.elapsed();
    assert!(found < Duration::from_secs(8), "found after {found:?}");
    bus.publish(frame("a", 3)).await;
    assert_eq!(next_frame(&mut subscription).await.first_seq, 3);
}

#[tokio::test]
async fn a_silent_redis_costs_one_time_out_not_one_per_call() {
    let Some(engine) = Engine::start() else { return };
    let proxy = Proxy::start(engine.ports[0]).await;
    let url = format!("redis://127.0.0.1:{}?timeout_ms=300", proxy.port);
    let hot_set = open_hotset(&url).expect("opens");
    answers(&hot_set).await;
    proxy.refuse();
    proxy.silence();
    let begin = Instant::now();
    for _ in 0..100 {
        assert!(hot_set.session(&HASH).await.is_err());
    }
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "100 calls one after the other took {took:?}");
    proxy.accept();
    answers(&hot_set).await;
}

#[tokio::test]
async fn a_dead_master_costs_its_own_slots_only() {
    let Some(engine) = Engine::start_cluster() else { return };
    let place = Place::at(&engine.url());
    let hot_set = open_hotset(&place.url).expect("opens");
    let rooms: Vec<String> = (0..60).map(|n| format!("room {n}")).collect();
    for room in &rooms {
        rebuild(&hot_set, room, 2).await;
    }
    let bus = connected(&place.url).await;
    let mut subscription = watching(&bus, &["a"]).await;
    engine.kill(2);
    let mut living = 0;
    let begin = Instant::now();
    for _ in 0..5 {
        living = 0;
        for room in &rooms {
            living += u32::from(hot_set.history(&RoomId::from(room.as_str()), 1, u64::MAX, 2).await.is_ok());
        }
    }
    let took = begin.elapsed();
    assert!((20..60).contains(&living), "{living} of 60 rooms are on the two that live");
    assert!(took < Duration::from_secs(10), "300 calls took {took:?}");
    arrives(&bus, &mut subscription).await;

    engine.restart(2);
    for room in &rooms {
        let answers = async || hot_set.history(&RoomId::from(room.as_str()), 1, u64::MAX, 2).await.is_ok();
        eventually("every slot answers again", answers).await;
    }
}

#[tokio::test]
async fn a_slot_that_moves_is_followed() {
    let Some(engine) = Engine::start_cluster() else { return };
    let place = Place::at(&engine.url());
    let hot_set = open_hotset(&place.url).expect("opens");
    rebuild(&hot_set, "r", 3).await;
    let mut nodes = Vec::new();
    for port in &engine.ports {
        nodes.push(connection(&format!("127.0.0.1:{port}")).await);
    }
    let slot: u16 = ask(&mut nodes[0], &["CLUSTER", "KEYSLOT", "{r:r}"]).await;
    let slot = slot.to_string();
    let mut ids = Vec::new();
    let mut from = None;
    for (n, node) in nodes.iter_mut().enumerate() {
        ids.push(ask::<String>(node, &["CLUSTER", "MYID"]).await);
        let found: Vec<String> = ask(node, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"]).await;
        if !found.is_empty() {
            from = Some((n, found));
        }
    }
    let (from, keys) = from.expect("somebody has the key");
    let to = (from + 1) % 3;
    let _: () = ask(&mut nodes[to], &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[from]]).await;
    let _: () = ask(&mut nodes[from], &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[to]]).await;
    let port = engine.ports[to].to_string();
    for key in &keys {
        let _: String = ask(&mut nodes[from], &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
    }
    // The old owner says ASK.
    assert_eq!(page(&hot_set, "r").await, Some(3));
    hot_set.append_history(&"r".into(), 1, &messages([4])).await.expect("answers");
    for node in [to, from] {
        let _: () = ask(&mut nodes[node], &["CLUSTER", "SETSLOT", &slot, "NODE", &ids[to]]).await;
    }
    // Now it says MOVED.
    hot_set.append_history(&"r".into(), 1, &messages([5])).await.expect("answers");
    assert_eq!(page(&hot_set, "r").await, Some(5));
}

#[tokio::test]
async fn a_slow_subscriber_is_interrupted_and_holds_no_more_than_its_bound() {
    let Some(place) = Place::of_tests("CORECAST_TEST_REDIS") else { return };
    let bus = connected(&place.url).await;
    let mut slow = watching(&bus, &["a"]).await;
    let mut quick = watching(&bus, &["a"]).await;
    let count = 80;
    for seq in 1..=count {
        let mut large = frame("a", seq);
        large.frame = Bytes::from(vec![b'x'; 1 << 20]);
        bus.publish(large).await;
        assert_eq!(next_frame(&mut quick).await.first_seq, seq, "nobody else is concerned");
    }
    let overflowed = async || bus.counters().overflowed > 0;
    eventually("the slow one's queue is full", overflowed).await;
    let mut seen = 0;
    while let BusEvent::Frame(frame) = next(&mut slow).await {
        seen += 1;
        assert_eq!(frame.first_seq, seen, "what was before the gap is whole");
    }
    assert!((32..=64).contains(&seen), "{seen} MiB were held");
}

/// From publishing to receiving, one frame at a time and under load. A bound far above what is
/// seen, low enough that a timer or a delayed acknowledgement (40 ms) on the way is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fast_path_has_no_timer_on_it() {
    let Some(place) = Place::of_tests("CORECAST_TEST_REDIS") else { return };
    let bus = connected(&place.url).await;
    let mut subscription = watching(&bus, &["a"]).await;
    let mut alone = Vec::new();
    for seq in 1..=1000 {
        let begin = Instant::now();
        bus.publish(frame("a", seq)).await;
        assert_eq!(next_frame(&mut subscription).await.first_seq, seq);
        alone.push(begin.elapsed());
    }
    alone.sort_unstable();
    let (half, most) = (alone[500], alone[990]);
    println!("publish to receive, alone: p50 {half:?}, p99 {most:?}, max {:?}", alone[999]);

    // 2,000 frames a second for two seconds, each with its moment.
    let begin = Instant::now();
    let sent = Arc::new(AtomicU64::new(0));
    let publisher = tokio::spawn({
        let (bus, sent) = (bus.clone(), Arc::clone(&sent));
        async move {
            for seq in 0..4000u64 {
                let due = Duration::from_micros(seq * 500);
                tokio::time::sleep(due.saturating_sub(begin.elapsed())).await;
                let now = begin.elapsed().as_micros() as u64;
                bus.publish(BusFrame { epoch: now, ..frame("a", seq) }).await;
                sent.store(seq + 1, Ordering::Relaxed);
            }
        }
    });
    let mut loaded = Vec::new();
    for seq in 0..4000 {
        let frame = next_frame(&mut subscription).await;
        assert_eq!(frame.first_seq, seq);
        loaded.push(begin.elapsed().saturating_sub(Duration::from_micros(frame.epoch)));
    }
    publisher.await.expect("ends");
    loaded.sort_unstable();
    println!("at 2,000/s: p50 {:?}, p99 {:?}, max {:?}", loaded[2000], loaded[3960], loaded[3999]);
    assert_eq!(bus.counters().dropped, 0);
    assert!(half < Duration::from_millis(20), "a lone frame took {half:?}");
}

#[tokio::test]
async fn many_rooms_come_and_go_and_the_last_word_counts() {
    let Some(place) = Place::of_tests("CORECAST_TEST_REDIS") else { return };
    let bus = connected(&place.url).await;
    let mut subscription = watching(&bus, &[]).await;
    let rooms: Vec<RoomId> = (0..5000).map(|n| RoomId::from(n.to_string())).collect();
    soon("all are watched", subscription.watch(&rooms)).await;
    for _ in 0..20 {
        subscription.unwatch(&rooms[..2500]).await;
        soon("some are watched again", subscription.watch(&rooms[..2000])).await;
    }
    for room in &rooms {
        bus.publish(frame(room.as_str(), 1)).await;
    }
    bus.publish(frame(GLOBAL, 9)).await;
    let mut seen = 0;
    loop {
        let frame = next_frame(&mut subscription).await;
        if frame.room_id.is_global() {
            break;
        }
        let n: usize = frame.room_id.as_str().parse().expect("a number");
        assert!(!(2000..2500).contains(&n), "room {n} is not watched");
        seen += 1;
    }
    assert_eq!(seen, 4500);
    let mut own =
        connection(place.url.split_once("://").expect("a URL").1.split('?').next().expect("a host")).await;
    let pattern = place.url.split_once("prefix=").expect("a prefix").1.split('&').next().expect("a prefix");
    let standing = async || {
        let channels: Vec<String> = ask(&mut own, &["PUBSUB", "CHANNELS", &format!("{pattern}bus:*")]).await;
        channels.len() == 4501
    };
    eventually("the server holds what is watched, no more", standing).await;
}

/// A TCP proxy that can fall silent: connections stay open and pass nothing.
struct Proxy {
    port: u16,
    /// Connections of an earlier number pass nothing any more.
    current: Arc<AtomicU64>,
    /// New ones pass nothing either.
    refuses: Arc<std::sync::atomic::AtomicBool>,
}

impl Proxy {
    async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let proxy = Self { port, current: Arc::default(), refuses: Arc::default() };
        let (current, refuses) = (Arc::clone(&proxy.current), Arc::clone(&proxy.refuses));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let number = match refuses.load(Ordering::SeqCst) {
                    true => u64::MAX,
                    false => current.load(Ordering::SeqCst),
                };
                let (client_in, client_out) = client.into_split();
                let (server_in, server_out) = server.into_split();
                tokio::spawn(pass(client_in, server_out, number, Arc::clone(&current)));
                tokio::spawn(pass(server_in, client_out, number, Arc::clone(&current)));
            }
        });
        proxy
    }

    fn silence(&self) {
        self.current.fetch_add(1, Ordering::SeqCst);
    }

    fn refuse(&self) {
        self.refuses.store(true, Ordering::SeqCst);
    }

    fn accept(&self) {
        self.refuses.store(false, Ordering::SeqCst);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: u64,
    current: Arc<AtomicU64>,
) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if current.load(Ordering::SeqCst) != number {
            std::future::pending::<()>().await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
