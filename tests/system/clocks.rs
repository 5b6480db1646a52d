//! Setup: two logic nodes as processes of their own on one MariaDB and one Redis (or a Redis
//! Cluster); the database sessions of one of them are 300 ms back. Both are told to store
//! messages of the same rooms, in turn and at the same time, while pages are read. Claim:
//! DESIGN §3.2, §4: ids and timestamps never run backwards, numbers have no hole, and what the
//! hot set has of a room has none either and is what MariaDB has. Why it matters: clocks of
//! machines do differ, and a cache that skips a message is a loss nobody notices.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::apart::Apart;
use crate::support::engines::{Database, HotSet, Row};
use crate::support::http::{get, post};
use crate::support::{Account, Browser, Corecast, GENERAL, Seen, eventually, in_time};

/// Sent with every transaction that writes: `SET timestamp` stops the session's clock.
const BEHIND: &str = "?begin=SET%20timestamp%20=%20UNIX_TIMESTAMP(SYSDATE(3))%20-%200.3";
const BEHIND_MS: i64 = 300;
/// Messages by both nodes in turn.
const TURNS: usize = 120;
/// Senders at each node, and what each sends, round the rooms.
const SENDERS: usize = 4;
const SENDS: usize = 60;
/// Rooms of the race, the default one among them.
const ROOMS: usize = 3;
/// A page as large as there is.
const PAGE: usize = 200;

struct Stage {
    /// The node whose clock is right, then the one behind.
    nodes: [Corecast; 2],
    gateway: Corecast,
    ann: Account,
    database: Database,
    hotset: HotSet,
    apart: Apart,
}

impl Stage {
    async fn on(redis: &str) -> Option<Self> {
        let apart = Apart::ready_on(redis).await?;
        let url = apart.setting("store.url").to_owned();
        let behind = apart.node("logic-2").set("store.url", format!("{url}{BEHIND}"));
        let (right, behind) = futures::join!(apart.start("logic-1"), behind.start());
        let gateway = apart.start("gateway-1").await;
        let ann = apart.account(&gateway, &right, "ann").await;
        let hotset = HotSet::at(apart.setting("hotset.url")).await;
        let (nodes, database) = ([right, behind], Database::at(&url));
        Some(Self { nodes, gateway, ann, database, hotset, apart })
    }

    /// A default room, made by the node that is behind.
    async fn room(&self, name: &str) -> String {
        let body = json!({"roomName": name, "creatorId": self.ann.id, "creatorUsername": "ann"});
        let created = post(self.nodes[1].logic(), "/logic/room/create", &body).await.json();
        created["payload"]["roomId"].as_str().filter(|id| !id.is_empty()).expect("a room").to_owned()
    }

    async fn say(&self, node: usize, room: &str, content: &str) {
        let body = json!({"roomId": room, "userId": self.ann.id, "username": "ann",
            "messages": [{"content": content, "clientMessageId": content}]});
        let answer = post(self.nodes[node].logic(), "/logic/send", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// A page by one of the nodes; `anchor` may be empty. Answers whether there is more, too.
    async fn page(&self, node: usize, room: &str, anchor: &str, count: usize) -> (Vec<Row>, bool) {
        let body = json!({"roomId": room, "userId": self.ann.id, "username": "ann",
            "firstMessageId": anchor, "count": count});
        let answer = post(self.nodes[node].logic(), "/logic/room_history", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = &answer.json()["payload"];
        let messages = page["messages"].as_array().expect("messages");
        (messages.iter().map(row).collect(), page["hasMoreMessages"].as_bool().expect("a boolean"))
    }

    /// The whole room, page by page by one of the nodes.
    async fn paged(&self, node: usize, room: &str, count: usize) -> Vec<Row> {
        let (mut all, mut anchor) = (Vec::new(), String::new());
        loop {
            let (page, more) = self.page(node, room, &anchor, count).await;
            anchor = page.first().map_or(String::new(), |first| first.id.clone());
            all.splice(0..0, page);
            if !more {
                return all;
            }
        }
    }

    /// Pages that a node took from the hot set.
    async fn cached_pages(&self, node: usize) -> f64 {
        let text = get(self.nodes[node].logic(), "/metrics").await.expect("it answers").text;
        let series = "corecast_logic_history_pages_total{source=\"cache\"} ";
        text.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).expect("the series")
    }
}

fn row(message: &Value) -> Row {
    let text = |field: &str| message[field].as_str().expect(field).to_owned();
    Row {
        seq: message["seq"].as_u64().expect("seq"),
        id: text("id"),
        ms: message["timestamp"].as_i64().expect("timestamp"),
        content: text("content"),
    }
}

/// Fails where numbers skip, timestamps run backwards or an id is not of its number.
#[track_caller]
fn assert_unbroken(rows: &[Row], what: &str) {
    for row in rows {
        assert_eq!(row.id, format!("{}-{}", row.ms, row.seq), "{what}");
    }
    for pair in rows.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        assert_eq!(after.seq, before.seq + 1, "{what}: a hole above {}", before.id);
        assert!(after.ms >= before.ms, "{what}: {} runs backwards to {}", before.id, after.id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logic_nodes_whose_clocks_differ_write_one_line_and_one_cached_history() {
    one_line_and_one_history("REDIS").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_logic_nodes_whose_clocks_differ_write_one_line_on_a_redis_cluster() {
    one_line_and_one_history("REDIS_CLUSTER").await;
}

async fn one_line_and_one_history(redis: &str) {
    let Some(mut stage) = Stage::on(redis).await else { return };
    // Alone its clock is what it is: the test does test something.
    let alone = stage.room("alone").await;
    stage.say(1, &alone, "alone").await;
    let stored = stage.database.messages(&alone).await;
    assert!(stored[0].ms + BEHIND_MS <= stage.database.now_ms().await, "{stored:?} is not behind");

    let mut rooms = vec![GENERAL.to_owned()];
    for number in 1..ROOMS {
        rooms.push(stage.room(&format!("room number {number}")).await);
    }
    let knock = Browser::knock(stage.gateway.http(), &stage.ann.sid).v1();
    let mut watcher = knock.open().await;
    watcher.hello().await;

    for turn in 0..TURNS {
        stage.say(turn % 2, GENERAL, &format!("turn {turn}")).await;
        if turn % 20 == 0 {
            // Only a reader builds the list that sends add to.
            stage.page(turn / 20 % 2, GENERAL, "", 30).await;
        }
    }
    let hotset = &mut stage.hotset;
    let epoch = stage.database.head(GENERAL).await.0;
    assert_unbroken(&hotset.history(GENERAL, epoch).await, "the cached list after turns");
    race(&mut stage, &rooms).await;

    let raced = 2 * SENDERS * SENDS;
    let mut seen: Vec<Vec<Row>> = vec![Vec::new(); rooms.len()];
    while seen.iter().map(Vec::len).sum::<usize>() < TURNS + raced {
        let arrived = watcher.next().await;
        let Seen::Text(text) = &arrived else { panic!("{arrived:?}") };
        let frame: Value = serde_json::from_str(text).expect("frames are JSON");
        let room = rooms.iter().position(|room| frame["payload"]["roomId"] == room.as_str());
        if let (Some(room), true) = (room, frame["type"] == "serverMessages") {
            seen[room].extend(frame["payload"]["messages"].as_array().expect("messages").iter().map(row));
        }
    }
    for (room, seen) in rooms.iter().zip(&seen) {
        everything_agrees(&mut stage, room, seen).await;
    }
}

/// Senders at both nodes at once, and readers who look at pages and at the list itself.
async fn race(stage: &mut Stage, rooms: &[String]) {
    let mut hotset = HotSet::at(stage.apart.setting("hotset.url")).await;
    let stage = &*stage;
    let ended = AtomicBool::new(false);
    let send = async |node: usize, sender: usize| {
        for send in 0..SENDS {
            let room = &rooms[(sender + send) % rooms.len()];
            stage.say(node, room, &format!("node {node}, sender {sender}, {send}")).await;
        }
    };
    let senders = (0..2 * SENDERS).map(|sender| send(sender % 2, sender));
    let sending = async {
        in_time("everything is stored", futures::future::join_all(senders)).await;
        ended.store(true, Ordering::Relaxed);
    };
    let reading = async {
        let (mut round, mut lists) = (0, 0);
        while !ended.load(Ordering::Relaxed) {
            let (node, room) = (round % 2, &rooms[round / 2 % rooms.len()]);
            let (page, _) = stage.page(node, room, "", PAGE).await;
            assert_unbroken(&page, "a page in the race");
            let (epoch, head) = stage.database.head(room).await;
            let list = hotset.history(room, epoch).await;
            assert_unbroken(&list, "the cached list in the race");
            lists += usize::from(head > 0 && !list.is_empty());
            round += 1;
        }
        assert!(lists > 0, "none of {round} looks found a list");
    };
    futures::join!(sending, reading);
}

/// MariaDB, both nodes, the hot set and who watched: the same messages, in one line.
async fn everything_agrees(stage: &mut Stage, room: &str, seen: &[Row]) {
    let stored = stage.database.messages(room).await;
    let (epoch, head) = stage.database.head(room).await;
    assert_unbroken(&stored, "MariaDB");
    assert_eq!((stored.first().map(|row| row.seq), stored.len() as u64), (Some(1), head));
    assert_eq!(seen, stored, "what was delivered live");
    let newest = &stored[stored.len().saturating_sub(PAGE)..];
    for node in [0, 1] {
        assert_eq!(stage.page(node, room, "", PAGE).await.0, newest, "the newest page of node {node}");
        assert_eq!(stage.paged(node, room, 30).await, stored, "paged by node {node}");
    }
    let hotset = &mut stage.hotset;
    let mut list = Vec::new();
    // An append may still be on its way: it follows the answer to its send.
    let start = std::time::Instant::now();
    while list.last() != stored.last() {
        assert!(start.elapsed() < crate::support::DEADLINE, "the list of {room} ends at {:?}", list.last());
        list = hotset.history(room, epoch).await;
    }
    assert!(list.len() >= newest.len(), "{} of {} messages are cached", list.len(), stored.len());
    assert_eq!(list, stored[stored.len() - list.len()..], "the cached list of {room}");
    for node in [0, 1] {
        let before = stage.cached_pages(node).await;
        let what = format!("node {node} answers from the hot set");
        eventually(&what, || async {
            assert_eq!(stage.page(node, room, "", 50).await.0, stored[stored.len() - 50..]);
            stage.cached_pages(node).await > before
        })
        .await;
    }
}
