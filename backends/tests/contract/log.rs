//! The log: append, read, done, dead letters. A "restart" is a new consumer.

use bytes::Bytes;
use corecast_backends::log::embedded::{OWNER, PARTITION};
use corecast_backends::log::*;
use corecast_backends::store::Store as _;
use corecast_backends::url::{Backends, Urls};
use corecast_proto::ids::RoomId;

use crate::support::{eventually, is_pending, soon};

/// A log, its consumers, one after another.
pub(crate) trait Fixture {
    type Producer: LogProducer;
    type Consumer: LogConsumer;
    fn producer(&self) -> Self::Producer;
    async fn consumer(&self) -> Self::Consumer;
    async fn dead_letters(&self) -> Vec<(Bytes, String)>;
}

struct Embedded {
    backends: Backends,
    _folder: tempfile::TempDir,
}

impl Embedded {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let backends = Backends::open(&Urls::default(), folder.path()).await.expect("opens");
        Self { backends, _folder: folder }
    }
}

impl Fixture for Embedded {
    type Producer = AnyProducer;
    type Consumer = AnyConsumer;

    fn producer(&self) -> AnyProducer {
        self.backends.producer.clone()
    }

    async fn consumer(&self) -> AnyConsumer {
        self.backends.consumer().await.expect("opens")
    }

    async fn dead_letters(&self) -> Vec<(Bytes, String)> {
        let letters = self.backends.store.dead_letters(100).await.expect("reads");
        letters.into_iter().map(|letter| (letter.value, letter.reason)).collect()
    }
}

/// Makes a test of each case on each log. A new one is one more module here.
macro_rules! on_every_log {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Embedded::new().await).await;
            })*
        }

        #[cfg(feature = "kafka")]
        mod kafka {
            $(#[tokio::test]
            async fn $case() {
                if let Some(log) = crate::log_kafka::given() {
                    super::$case(log).await;
                }
            })*
        }
    };
}

on_every_log!(
    records_come_back_as_they_were_appended,
    records_of_a_key_keep_their_order,
    enqueued_records_of_a_key_keep_their_order,
    what_is_not_done_is_seen_again_after_a_restart,
    what_is_done_is_not_seen_again,
    done_twice_or_below_changes_nothing,
    an_answer_holds_at_most_max_records_and_none_twice,
    next_waits_for_a_record,
    next_of_none_answers_no_record_and_loses_none,
    a_dropped_next_loses_nothing,
    a_dead_letter_is_kept_with_its_reason,
);

pub(crate) async fn append<P: LogProducer>(producer: &P, values: impl IntoIterator<Item = u32>) {
    for value in values {
        let key = RoomId::from("a");
        producer.append(&key, Bytes::from(value.to_string())).await.expect("appends");
    }
}

async fn next<C: LogConsumer>(consumer: &mut C, max: usize) -> Vec<Record> {
    match soon("a record comes", consumer.next(max)).await.expect("reads") {
        LogEvent::Records(records) => records,
        LogEvent::Revoked(partitions) => panic!("revoked: {partitions:?}"),
    }
}

/// Reads until `count` records came; each of them as a number.
async fn read<C: LogConsumer>(consumer: &mut C, count: usize) -> (Vec<u32>, Vec<Token>) {
    let mut records = Vec::new();
    while records.len() < count {
        records.extend(next(consumer, 100).await);
    }
    (records.iter().map(number).collect(), records.iter().map(|record| record.token).collect())
}

pub(crate) fn number(record: &Record) -> u32 {
    String::from_utf8_lossy(&record.value).parse().expect("a number")
}

async fn records_come_back_as_they_were_appended<F: Fixture>(log: F) {
    let value = Bytes::from_static(b"\x00\xff any bytes");
    log.producer().append(&RoomId::from("room \0 é"), value.clone()).await.expect("appends");
    let records = next(&mut log.consumer().await, 10).await;
    assert_eq!((records[0].key.as_str(), &records[0].value), ("room \0 é", &value));
}

async fn records_of_a_key_keep_their_order<F: Fixture>(log: F) {
    append(&log.producer(), 0..250).await;
    let (values, tokens) = read(&mut log.consumer().await, 250).await;
    assert_eq!(values, (0..250).collect::<Vec<_>>());
    assert!(tokens.is_sorted_by(|one, next| one < next), "offsets grow");
}

async fn enqueued_records_of_a_key_keep_their_order<F: Fixture>(log: F) {
    let producer = log.producer();
    let key = RoomId::from("a");
    let enqueued = (0..500_u32).map(|n| producer.enqueue(&key, Bytes::from(n.to_string())));
    let answers = soon("all are durable", futures::future::join_all(enqueued)).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let (values, _) = read(&mut log.consumer().await, 500).await;
    assert_eq!(values, (0..500).collect::<Vec<_>>());
}

async fn what_is_not_done_is_seen_again_after_a_restart<F: Fixture>(log: F) {
    append(&log.producer(), 0..5).await;
    let mut consumer = log.consumer().await;
    let (_, tokens) = read(&mut consumer, 5).await;
    consumer.done(tokens[1]).await.expect("answers");
    drop(consumer);
    let (values, _) = read(&mut log.consumer().await, 3).await;
    assert!(values.ends_with(&[2, 3, 4]), "{values:?}");
}

async fn what_is_done_is_not_seen_again<F: Fixture>(log: F) {
    append(&log.producer(), 0..5).await;
    let mut consumer = log.consumer().await;
    let (_, tokens) = read(&mut consumer, 5).await;
    consumer.done(tokens[1]).await.expect("answers");
    consumer.done(tokens[3]).await.expect("answers");
    append(&log.producer(), 5..6).await;
    assert_eq!(read(&mut consumer, 1).await.0, [5], "the same consumer goes on");
    drop(consumer);
    // It may be recorded up to a second later.
    eventually("a restart sees the undone ones only", async || {
        read(&mut log.consumer().await, 2).await.0 == [4, 5]
    })
    .await;
}

async fn done_twice_or_below_changes_nothing<F: Fixture>(log: F) {
    append(&log.producer(), 0..4).await;
    let mut consumer = log.consumer().await;
    let (_, tokens) = read(&mut consumer, 4).await;
    for token in [tokens[2], tokens[2], tokens[0]] {
        consumer.done(token).await.expect("answers");
    }
    drop(consumer);
    eventually("only the last one is left", async || read(&mut log.consumer().await, 1).await.0 == [3]).await;
}

async fn an_answer_holds_at_most_max_records_and_none_twice<F: Fixture>(log: F) {
    append(&log.producer(), 0..10).await;
    let mut consumer = log.consumer().await;
    let mut values = Vec::new();
    while values.len() < 10 {
        let records = next(&mut consumer, 3).await;
        assert!((1..=3).contains(&records.len()));
        values.extend(records.iter().map(|record| String::from_utf8_lossy(&record.value).into_owned()));
    }
    assert_eq!(values, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn next_waits_for_a_record<F: Fixture>(log: F) {
    let mut consumer = log.consumer().await;
    assert!(is_pending(consumer.next(10)).await);
    let producer = log.producer();
    let ((values, _), ()) = tokio::join!(read(&mut consumer, 1), append(&producer, 7..8));
    assert_eq!(values, [7]);
}

async fn next_of_none_answers_no_record_and_loses_none<F: Fixture>(log: F) {
    let (producer, mut consumer) = (log.producer(), log.consumer().await);
    append(&producer, 0..5).await;
    assert_eq!(read(&mut consumer, 1).await.0[0], 0);
    append(&producer, 5..20).await;
    for _ in 0..20 {
        assert!(is_pending(consumer.next(0)).await);
    }
    let mut values = Vec::new();
    while values.last() != Some(&19) {
        values.extend(read(&mut consumer, 1).await.0);
    }
    assert!(values.is_sorted_by(|one, next| one + 1 == *next), "{values:?}");
}

async fn a_dropped_next_loses_nothing<F: Fixture>(log: F) {
    let mut consumer = log.consumer().await;
    let producer = log.producer();
    let mut values = Vec::new();
    for n in 0..30 {
        append(&producer, n..n + 1).await;
        // Given up after one poll, wherever that leads it to.
        let answer = {
            let next = consumer.next(10);
            tokio::pin!(next);
            futures::poll!(next.as_mut())
        };
        if let std::task::Poll::Ready(answer) = answer {
            let LogEvent::Records(records) = answer.expect("reads") else { panic!("revoked") };
            values.extend(records.iter().map(number));
        }
    }
    while values.len() < 30 {
        values.extend(read(&mut consumer, 1).await.0);
    }
    assert_eq!(values, (0..30).collect::<Vec<u32>>());
}

async fn a_dead_letter_is_kept_with_its_reason<F: Fixture>(log: F) {
    append(&log.producer(), 0..1).await;
    let mut consumer = log.consumer().await;
    let record = next(&mut consumer, 1).await.remove(0);
    consumer.dead_letter(&record, "no one can read it").await.expect("kept");
    assert_eq!(log.dead_letters().await, [(record.value, "no one can read it".to_owned())]);
}

#[tokio::test]
async fn embedded_commits_of_the_store_are_records_already() {
    let log = Embedded::new().await;
    assert!(log.producer().is_outbox());
    assert_eq!(log.producer().outbox_owner("any-logic-id"), OWNER);
    let store = &log.backends.store;
    crate::store::seeded(store, &["a"]).await;
    let mut frame = crate::store::frame("a", "u", &[("k", "x")]);
    frame.owner = log.producer().outbox_owner("any-logic-id").to_owned();
    let outcomes = store.commit(vec![frame]).await.expect("commits");
    let row = &crate::store::rows_of(&outcomes[0])[0];
    let record = next(&mut log.consumer().await, 10).await.remove(0);
    assert_eq!((record.token.partition, record.token.offset), (PARTITION, row.id as i64));
    assert_eq!((&record.key, &record.value), (&row.room_id, &row.value));
}
