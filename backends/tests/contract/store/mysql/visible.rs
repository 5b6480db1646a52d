//! What a read answers is on the disk. A server shows a transaction to others before its log
//! is written, so a reader may see what a crash a moment later takes back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use corecast_backends::store::mysql::{MysqlStore, inspect};
use corecast_backends::store::*;
use corecast_proto::ids::MessageId;
use tokio_util::sync::CancellationToken;

use super::Database;
use super::server::Server;
use crate::store::{OWNER, all_messages, frame, seeded, send};
use crate::support::eventually;

/// Rooms, a sender and a reader each: commits overlap, and log writes wait for one another.
const ROOMS: usize = 12;
/// Crashes. On the slow disk nearly each of them takes something back.
const CRASHES: usize = 3;

/// What readers were told.
#[derive(Default)]
struct Seen {
    messages: HashMap<(usize, u64), MessageId>,
    rows: HashMap<u64, OutboxRow>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_read_answered_is_still_there_after_a_crash() {
    let Some(mut server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let store = database.store();
    let names: Vec<String> = (0..ROOMS).map(|room| format!("room-{room}")).collect();
    seeded(&store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    server.slow_down();
    server.kill().await;
    server.restart().await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let stop = CancellationToken::new();
    let mut tasks = Vec::new();
    for room in 0..ROOMS {
        tasks.push(tokio::spawn(write(store.clone(), room, stop.clone())));
        tasks.push(tokio::spawn(read(store.clone(), room, Arc::clone(&seen), stop.clone())));
    }
    tasks.push(tokio::spawn(relay(store.clone(), Arc::clone(&seen), stop.clone())));
    for _ in 0..CRASHES {
        let before = seen.lock().expect("no reader panicked").messages.len();
        eventually("messages are read", async || {
            seen.lock().expect("no reader panicked").messages.len() > before + 200
        })
        .await;
        server.kill().await;
        server.restart().await;
    }
    stop.cancel();
    for task in tasks {
        task.await.expect("no panic");
    }
    let seen = std::mem::take(&mut *seen.lock().expect("no reader panicked"));
    let mut gone = Vec::new();
    let mut stored = Vec::new();
    for name in &names {
        stored.push(all_messages(&store, name).await);
    }
    for ((room, seq), id) in &seen.messages {
        if stored[*room].get(*seq as usize - 1).map(|message| message.id) != Some(*id) {
            gone.push(format!("{} showed {id}", names[*room]));
        }
    }
    let mut rows: HashMap<u64, OutboxRow> = HashMap::new();
    loop {
        let after = rows.keys().max().copied().unwrap_or(0);
        let page = store.outbox(OWNER, after, 1_000).await.expect("reads");
        if page.is_empty() {
            break;
        }
        rows.extend(page.into_iter().map(|row| (row.id, row)));
    }
    gone.extend(
        seen.rows
            .iter()
            .filter(|(id, row)| rows.get(id) != Some(row))
            .map(|(id, row)| format!("the outbox showed row {id} of {}", row.room_id)),
    );
    assert_eq!(gone, Vec::<String>::new());
    store.close().await;
}

/// Message after message, each tried until it is stored.
async fn write(store: MysqlStore, room: usize, stop: CancellationToken) {
    let room_id = format!("room-{room}");
    for n in 0.. {
        let key = n.to_string();
        while !stop.is_cancelled() && store.commit(vec![frame(&room_id, "u", &[(&key, &key)])]).await.is_err()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// The newest message, again and again.
async fn read(store: MysqlStore, room: usize, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    let room_id = format!("room-{room}");
    while !stop.is_cancelled() {
        let Ok(Some(page)) = store.messages_before(&room_id, u64::MAX, 1).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut seen = seen.lock().expect("no reader panicked");
        for message in page.messages {
            // The first one that was told; another for the same number is as wrong.
            seen.messages.entry((room, message.id.seq)).or_insert(message.id);
        }
    }
}

/// Reads the outbox as a relay does.
async fn relay(store: MysqlStore, seen: Arc<Mutex<Seen>>, stop: CancellationToken) {
    let mut after = 0;
    while !stop.is_cancelled() {
        let Ok(rows) = store.outbox(OWNER, after, 1_000).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let mut seen = seen.lock().expect("no reader panicked");
        for row in rows {
            after = row.id;
            seen.rows.entry(row.id).or_insert(row);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_the_same_time_share_a_barrier_and_accounts_need_none() {
    let Some(server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let store = database.store();
    seeded(&store, &["a"]).await;
    let waits = !inspect(&database.url).await.expect("answers").durability.shows_durable();
    let before = store.counters().barriers;
    let reads = (0..200).map(|_| store.messages_before("a", u64::MAX, 1));
    for page in futures::future::join_all(reads).await {
        assert!(page.expect("reads").is_some());
    }
    let barriers = store.counters().barriers - before;
    assert_eq!(barriers > 0, waits, "{barriers}");
    assert!(barriers <= 100, "{barriers} for 200 reads");
    let before = store.counters().barriers;
    assert_eq!(store.user("nobody").await.expect("reads"), None);
    assert_eq!(store.sessions(&[[0; 32]], 0).await.expect("reads"), [None]);
    assert_eq!(store.counters().barriers, before);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_writes_reads_need_hardly_a_barrier_of_their_own() {
    let Some(server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let store = database.store();
    seeded(&store, &["room-0", "room-1"]).await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..2).map(|room| tokio::spawn(write(store.clone(), room, stop.clone()))).collect();
    let wrote = async || store.heads(&["room-0".into()], false).await.expect("reads")[0].position.seq > 0;
    eventually("they write", wrote).await;
    let before = store.counters().barriers;
    for _ in 0..200 {
        store.messages_before("room-1", u64::MAX, 1).await.expect("reads");
    }
    let barriers = store.counters().barriers - before;
    assert!(barriers <= 40, "{barriers} for 200 reads, one after the other");
    stop.cancel();
    futures::future::join_all(writers).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_acknowledged_behind_a_barrier() {
    let Some(server) = Server::start() else { return };
    let database = Database::on(server.url.clone()).await;
    let (store, other) = (database.store(), database.store());
    seeded(&store, &["a"]).await;
    let first = send(&store, frame("a", "u", &[("1", "x")])).await;
    let waits = !inspect(&database.url).await.expect("answers").durability.shows_durable();
    // Another node wrote it: that its commit has ended is nothing this one knows.
    let repeat = send(&other, frame("a", "u", &[("1", "x")])).await;
    assert_eq!((repeat[0].id, repeat[0].repeated), (first[0].id, true));
    assert_eq!(other.counters().barriers > 0, waits);
    let before = other.counters().barriers;
    send(&other, frame("a", "u", &[("2", "x")])).await;
    assert_eq!(other.counters().barriers, before, "its own commit is one");
    store.close().await;
    other.close().await;
}
