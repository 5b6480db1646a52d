//! What the engines hold, read by their own clients: the rows of MariaDB, the streams of Redis.

use std::collections::HashMap;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;

/// A message as an engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Number in its room.
    pub seq: u64,
    /// `<ms>-<seq>` as the client sees it.
    pub id: String,
    /// Timestamp, ms since 1970 UTC: what the id begins with.
    pub ms: i64,
    /// What was said.
    pub content: String,
}

/// A database of its own.
pub struct Database {
    url: String,
}

/// The hot set.
pub struct HotSet {
    link: Link,
    prefix: String,
}

enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Database {
    /// By the URL of the store, without parameters.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    /// Every message of a room, by number.
    pub async fn messages(&self, room: &str) -> Vec<Row> {
        let mut conn = self.conn().await;
        let sql = "SELECT seq, id, content FROM messages WHERE room_id = ? ORDER BY seq";
        let rows: Vec<(u64, String, String)> = conn.exec(sql, (room,)).await.expect("reads");
        conn.disconnect().await.expect("disconnects");
        let row = |(seq, id, content): (u64, String, String)| {
            let ms = id.split_once('-').and_then(|(ms, _)| ms.parse().ok()).expect("<ms>-<seq>");
            Row { seq, id, ms, content }
        };
        rows.into_iter().map(row).collect()
    }

    /// Epoch and newest number of a room.
    pub async fn head(&self, room: &str) -> (u64, u64) {
        let mut conn = self.conn().await;
        let sql = "SELECT epoch, last_seq FROM rooms WHERE id = ?";
        let head = conn.exec_first(sql, (room,)).await.expect("reads");
        conn.disconnect().await.expect("disconnects");
        head.unwrap_or_else(|| panic!("no room {room}"))
    }

    /// Its clock now, ms since 1970 UTC.
    pub async fn now_ms(&self) -> i64 {
        let mut conn = self.conn().await;
        let sql = "SELECT CAST(UNIX_TIMESTAMP(SYSDATE(3)) * 1000 AS SIGNED)";
        let now = conn.query_first(sql).await.expect("reads");
        conn.disconnect().await.expect("disconnects");
        now.expect("a row")
    }

    async fn conn(&self) -> Conn {
        Conn::new(Opts::from_url(&self.url).expect("a URL")).await.expect("MariaDB answers")
    }
}

impl HotSet {
    /// By the URL of the hot set: `redis://…?prefix=…` or `redis-cluster://…?prefix=…`.
    pub async fn at(url: &str) -> Self {
        let (place, query) = url.split_once('?').expect("a prefix");
        let prefix = query.strip_prefix("prefix=").expect("a prefix").to_owned();
        let link = match place.strip_prefix("redis-cluster://") {
            Some(nodes) => {
                let nodes = nodes.split(',').map(|node| format!("redis://{node}"));
                let client = ClusterClient::new(nodes).expect("a URL");
                Link::Cluster(client.get_async_connection().await.expect("the cluster answers"))
            }
            None => {
                let client = redis::Client::open(place).expect("a URL");
                Link::One(client.get_multiplexed_async_connection().await.expect("Redis answers"))
            }
        };
        Self { link, prefix }
    }

    /// The recent history of a room in one epoch, oldest first; empty where there is none.
    pub async fn history(&mut self, room: &str, epoch: u64) -> Vec<Row> {
        let key = format!("{}{{r:{room}}}:history:{epoch}", self.prefix);
        match &mut self.link {
            Link::One(link) => entries(link, &key).await,
            Link::Cluster(link) => entries(link, &key).await,
        }
    }
}

async fn entries(link: &mut impl ConnectionLike, key: &str) -> Vec<Row> {
    let mut command = redis::cmd("XRANGE");
    command.arg(key).arg("-").arg("+");
    let entries: Vec<(String, HashMap<String, String>)> = command.query_async(link).await.expect("a stream");
    let row = |(id, fields): (String, HashMap<String, String>)| {
        let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok()).expect("<seq>-0");
        let ms = fields["ms"].parse().expect("a number");
        Row { seq, id: format!("{ms}-{seq}"), ms, content: fields["text"].clone() }
    };
    entries.into_iter().map(row).collect()
}
