//! The log on a real Kafka: the fixture of the common cases, and what only a group of
//! consumers on a server can do. `CORECAST_TEST_KAFKA` has the address; each test has topics
//! and a group of its own there. Who must kill a broker starts one of his own.

mod broker;
mod group;
mod outage;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast_backends::log::kafka::KafkaLog;
use corecast_backends::log::kafka::consumer::KafkaConsumer;
use corecast_backends::log::{AnyConsumer, AnyProducer, LogConsumer, LogEvent, Record, Settings};
use corecast_proto::ids::RoomId;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};

use crate::log::{Fixture, number};

/// Where the address is.
const VARIABLE: &str = "CORECAST_TEST_KAFKA";

/// A log with topics and a group of its own.
pub(crate) struct Kafka {
    place: String,
    settings: Settings,
    log: KafkaLog,
}

/// A log on the given cluster. `None`, and a line that says so, where there is none.
pub(crate) fn given() -> Option<Kafka> {
    let Ok(url) = std::env::var(VARIABLE) else {
        println!("not run: {VARIABLE} is not set");
        return None;
    };
    Some(Kafka::new(url.strip_prefix("kafka:").expect("a kafka URL")))
}

impl Kafka {
    /// On the cluster at `//host:port`.
    fn new(place: &str) -> Self {
        let name = format!("test-{}", uuid::Uuid::new_v4());
        let settings = Settings { topic: name.clone(), group: name, partitions: 4, ..Settings::default() };
        Self::with(place, settings)
    }

    fn with(place: &str, settings: Settings) -> Self {
        let log = KafkaLog::parse(place, settings.clone()).expect("a place");
        Self { place: place.to_owned(), settings, log }
    }

    /// Another process with the same topics and group.
    fn again(&self) -> Self {
        Self::with(&self.place, self.settings.clone())
    }

    fn brokers(&self) -> &str {
        self.place.trim_start_matches('/')
    }

    fn plain_client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers())
            .set("group.id", &self.settings.group)
            .set("enable.auto.commit", "false");
        config
    }

    /// Everything in a topic, read past all groups, in order within each partition.
    fn everything_in(&self, topic: &str) -> Vec<OwnedMessage> {
        let mut config = self.plain_client();
        let reader: BaseConsumer = config.set("enable.partition.eof", "true").create().expect("a consumer");
        let metadata = reader.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        let partitions = metadata.topics()[0].partitions().len();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions as i32 {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        reader.assign(&list).expect("assigns");
        // A set: a partition whose reading is begun again, after an error of its broker, tells
        // its end a second time.
        let (mut messages, mut ended) = (Vec::new(), BTreeSet::new());
        while ended.len() < partitions {
            match reader.poll(PATIENCE).expect("an end or a record") {
                Ok(message) => messages.push(message.detach()),
                Err(rdkafka::error::KafkaError::PartitionEOF(partition)) => {
                    ended.insert(partition);
                }
                Err(error) => println!("reading {topic}: {error}"),
            }
        }
        messages
    }

    /// Numbers in the topic, in order within each partition.
    fn numbers(&self) -> Vec<u32> {
        let text = |message: OwnedMessage| {
            String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned()
        };
        let messages = self.everything_in(&self.settings.topic).into_iter();
        messages.map(|message| text(message).parse().expect("a number")).collect()
    }

    /// What the group has committed, by partition; -1: nothing.
    fn committed(&self) -> Vec<i64> {
        let reader: BaseConsumer = self.plain_client().create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&self.settings.topic, 0, self.settings.partitions as i32 - 1);
        let committed = reader.committed_offsets(list, PATIENCE).expect("answers");
        let raw = |offset| if let Offset::Offset(offset) = offset { offset } else { -1 };
        committed.elements().iter().map(|element| raw(element.offset())).collect()
    }
}

impl Fixture for Kafka {
    type Producer = AnyProducer;
    type Consumer = AnyConsumer;

    fn producer(&self) -> AnyProducer {
        AnyProducer::Kafka(self.log.clone())
    }

    async fn consumer(&self) -> AnyConsumer {
        AnyConsumer::Kafka(self.log.consumer())
    }

    async fn dead_letters(&self) -> Vec<(Bytes, String)> {
        let letters = self.everything_in(&self.settings.dead_letters()).into_iter();
        letters
            .map(|letter| {
                let value = Bytes::copy_from_slice(letter.payload().expect("a value"));
                let headers = letter.headers().expect("headers");
                let reason = headers.iter().find(|header| header.key == "reason").expect("a reason");
                (value, String::from_utf8_lossy(reason.value.unwrap_or_default()).into_owned())
            })
            .collect()
    }
}

/// A consumer that works as job does: what it was given it is done with, in order.
struct Member {
    consumer: KafkaConsumer,
    seen: Vec<u32>,
    revoked: Vec<i32>,
}

impl Member {
    fn new(log: &Kafka) -> Self {
        Self { consumer: log.log.consumer(), seen: Vec::new(), revoked: Vec::new() }
    }

    /// Reads once, or finds nothing in a while; answers the records.
    async fn step(&mut self) -> Vec<Record> {
        let next = self.consumer.next(20);
        match tokio::time::timeout(Duration::from_millis(200), next).await {
            Ok(Ok(LogEvent::Records(records))) => {
                self.seen.extend(records.iter().map(number));
                records
            }
            Ok(Ok(LogEvent::Revoked(partitions))) => {
                self.revoked.extend(partitions);
                Vec::new()
            }
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => Vec::new(),
        }
    }

    async fn step_and_done(&mut self) {
        for record in self.step().await {
            self.consumer.done(record.token).await.expect("answers");
        }
    }
}

/// Longest wait for something that happens once a group or a broker has settled.
const PATIENCE: Duration = Duration::from_secs(60);

/// The end of patience with one claim.
struct Until(&'static str, Instant);

impl Until {
    fn new(claim: &'static str) -> Self {
        Self(claim, Instant::now() + PATIENCE)
    }

    /// Is it still not so?
    fn not(&self, came_true: bool) -> bool {
        assert!(came_true || Instant::now() < self.1, "never came true: {}", self.0);
        !came_true
    }
}

/// Drives the members until the condition holds.
async fn drive(
    claim: &'static str,
    members: &mut [&mut Member],
    mut until: impl FnMut(&[&mut Member]) -> bool,
) {
    let end = Until::new(claim);
    while end.not(until(members)) {
        for member in members.iter_mut() {
            member.step_and_done().await;
        }
    }
}

/// Rooms enough that every partition has some.
fn room(number: u32) -> RoomId {
    RoomId::from(format!("room-{}", number % 32))
}
