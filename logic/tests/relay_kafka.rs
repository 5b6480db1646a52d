//! Setup: a relay between a real store and a Kafka broker of this test's own, which is killed
//! and comes back (`CORECAST_TEST_KAFKA` says that such tests are wanted). Claim: what is
//! committed meanwhile waits in the outbox, reaches the log soon after its return, in order
//! within each room, and is there at most once more. Why: an acknowledged message must not
//! depend on Kafka, and an outage must not flood the log with copies.
#![allow(clippy::unwrap_used, reason = "a test panics where it meets the unexpected")]

mod support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use corecast_backends::log::Settings;
use corecast_backends::log::kafka::KafkaLog;
use corecast_backends::store::{AnyStore, OutboxRecord, Store};
use corecast_logic::Metrics;
use corecast_logic::relay::Relay;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use support::{open, until};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const OWNER: &str = "node-a";
const TOPIC: &str = "rows";
const PARTITIONS: i32 = 4;
const ROOMS: u32 = 50;

/// One broker. It ends with the test.
struct Broker {
    folder: TempDir,
    port: u16,
}

impl Broker {
    fn start() -> Option<Self> {
        if std::env::var("CORECAST_TEST_KAFKA").is_err() {
            println!("not run: CORECAST_TEST_KAFKA is not set");
            return None;
        }
        // The controller takes the port 101 above.
        let port =
            std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
                .find(|port| *port < 65_000 && TcpListener::bind(("127.0.0.1", port + 101)).is_ok())?;
        let broker = Self { folder: TempDir::new().unwrap(), port };
        broker.script("start", &[&port.to_string()]);
        Some(broker)
    }

    fn script(&self, verb: &str, rest: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/middleware/kafka");
        let status = Command::new(script).arg(verb).arg(self.folder.path()).args(rest).status().unwrap();
        assert!(status.success(), "kafka {verb}");
    }

    /// Numbers in the topic, in order within each partition.
    fn numbers(&self) -> Vec<u32> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", format!("127.0.0.1:{}", self.port)).set("group.id", "reader");
        config.set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let reader: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
        }
        reader.assign(&list).unwrap();
        let (mut numbers, mut ends) = (Vec::new(), 0);
        while ends < PARTITIONS {
            match reader.poll(Duration::from_secs(30)).expect("an end or a record") {
                Ok(message) => {
                    let text = std::str::from_utf8(message.payload().unwrap()).unwrap();
                    numbers.push(text.parse().unwrap());
                }
                Err(KafkaError::PartitionEOF(_)) => ends += 1,
                Err(error) => println!("{error}"),
            }
        }
        numbers
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.script("kill", &[]);
    }
}

async fn commit(store: &AnyStore, numbers: std::ops::Range<u32>) {
    let appended = numbers.map(|n| {
        let record = OutboxRecord {
            room_id: format!("room-{}", n % ROOMS).into(),
            owner: OWNER.into(),
            value: n.to_string().into(),
        };
        store.append_outbox(record)
    });
    for id in futures::future::join_all(appended).await {
        id.unwrap();
    }
}

async fn is_empty(store: &AnyStore) -> bool {
    store.outbox(OWNER, 0, 1).await.unwrap().is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_in_an_outage_reaches_kafka_soon_after_it_at_most_twice() {
    let Some(broker) = Broker::start() else { return };
    let folder = TempDir::new().unwrap();
    let backends = open(folder.path()).await;
    let store = backends.store.clone();
    let settings = Settings { topic: TOPIC.into(), partitions: PARTITIONS as u32, ..Settings::default() };
    let log = KafkaLog::parse(&format!("//127.0.0.1:{}", broker.port), settings).unwrap();
    let (stop, metrics) = (CancellationToken::new(), Metrics::new());
    let relay = Relay::new(store.clone(), log, OWNER.into(), metrics.clone());
    let relay = tokio::spawn(relay.run(stop.clone()));
    commit(&store, 0..500).await;
    until("the log takes rows", async || is_empty(&store).await).await;

    // Some are on their way at that moment.
    commit(&store, 500..1_000).await;
    tokio::task::block_in_place(|| broker.script("kill", &[]));
    for first in (1_000..10_000).step_by(500) {
        commit(&store, first..first + 500).await;
    }
    until("the backlog shows", async || {
        let text = metrics.text();
        let rows =
            text.lines().find_map(|line| line.strip_prefix("corecast_logic_relay_backlog_rows ")).unwrap();
        rows.parse::<u32>().unwrap() >= 9_000
    })
    .await;

    tokio::task::block_in_place(|| broker.script("restart", &[]));
    let back = Instant::now();
    until("the backlog is gone", async || is_empty(&store).await).await;
    println!("9,000 rows and more in {:?}", back.elapsed());
    stop.cancel();
    relay.await.unwrap();

    let (mut times, mut last) = (BTreeMap::<u32, u32>::new(), BTreeMap::new());
    for n in broker.numbers() {
        if *times.entry(n).and_modify(|times| *times += 1).or_insert(1) == 1 {
            let before = last.insert(n % ROOMS, n);
            // Rows of one batch were committed side by side: order holds between batches.
            assert!(before.is_none_or(|before| before / 500 <= n / 500), "{n} after {before:?} in a room");
        }
    }
    assert_eq!(times.len(), 10_000, "none is lost");
    println!("{} extra copies", times.values().map(|times| times - 1).sum::<u32>());
    assert!(times.values().all(|times| *times <= 2), "none is there three times");
}
