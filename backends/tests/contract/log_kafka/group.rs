//! Several consumers of one group, other producers, and records that nobody can read.

use std::collections::BTreeSet;

use bytes::Bytes;
use corecast_backends::log::{LogConsumer, LogError, LogEvent, LogProducer, Settings, Token};
use corecast_proto::ids::RoomId;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::{Kafka, Member, PATIENCE, Until, drive, given, room};
use crate::support::{eventually, soon};

fn set(range: std::ops::Range<u32>) -> BTreeSet<u32> {
    range.collect()
}

fn seen(members: &[&mut Member]) -> BTreeSet<u32> {
    members.iter().flat_map(|member| member.seen.iter().copied()).collect()
}

async fn append(log: &Kafka, numbers: std::ops::Range<u32>) {
    let enqueued = numbers.map(|n| log.log.enqueue(&room(n), Bytes::from(n.to_string())));
    for answer in futures::future::join_all(enqueued).await {
        answer.expect("durable");
    }
}

/// Setup: one member reads a stream; a second one joins in its middle. Claim: it gets part of
/// the partitions, every record is seen by somebody, and what one had done before the
/// hand-over the other does not see. Why: a rebalance happens at each deploy.
#[tokio::test]
async fn a_member_that_joins_in_the_middle_of_a_stream_loses_no_record() {
    let Some(log) = given() else { return };
    append(&log, 0..500).await;
    let mut first = Member::new(&log);
    drive("half of it is done", &mut [&mut first], |members| members[0].seen.len() >= 250).await;
    let other = log.again();
    let mut second = Member::new(&other);
    let mut next = 500;
    let joined = Until::new("the second one gets a partition");
    while joined.not(!second.seen.is_empty()) {
        append(&log, next..next + 50).await;
        next += 50;
        first.step_and_done().await;
        second.step_and_done().await;
    }
    drive("everything was seen", &mut [&mut first, &mut second], |members| seen(members) == set(0..next))
        .await;
    assert!(!first.revoked.is_empty(), "partitions went over");
    let all = first.seen.len() + second.seen.len();
    println!("{next} records, {} seen twice", all - next as usize);
    first.consumer.close().await;
    second.consumer.close().await;
    assert_eq!(committed(&log), i64::from(next), "all of it is committed, and not more");
}

/// Claim: a partition is committed as far as it is done and not a record further, whatever
/// was handed out or is acked late; the next owner begins right there.
#[tokio::test]
async fn a_revoked_partition_is_committed_as_far_as_it_is_done() {
    let Some(log) = given() else { return };
    append(&log, 0..400).await;
    let mut first = Member::new(&log);
    let read = Until::new("all of it is read");
    while read.not(first.seen.len() >= 400) {
        for record in first.step().await {
            if record.token.offset < 5 {
                first.consumer.done(record.token).await.expect("answers");
            }
        }
    }
    let other = log.again();
    let mut second = Member::new(&other);
    let handed = Until::new("partitions go over");
    while handed.not(!first.revoked.is_empty() && !second.seen.is_empty()) {
        second.step().await;
        first.step().await;
    }
    // A late ack of what was in flight when the partition went away.
    for &partition in &first.revoked {
        first.consumer.done(Token { partition, offset: 50 }).await.expect("answers");
    }
    first.consumer.close().await;
    second.consumer.close().await;
    let committed = log.committed();
    assert!(committed.iter().all(|offset| *offset == 5), "{committed:?}");
}

/// Set for a process that plays the part of a job that gets killed: the topic.
const VICTIM: &str = "CORECAST_TEST_KAFKA_VICTIM";

/// Claim: a process that is killed is replaced within ten seconds, and the one that takes
/// over begins at its last commit: nothing that was done and committed is seen again, and
/// nothing else is lost.
#[tokio::test]
async fn a_member_that_is_killed_is_replaced_from_its_last_commit() {
    let Some(log) = given() else { return };
    append(&log, 0..300).await;
    let mut victim = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "log_kafka::group::part_of_the_member_that_is_killed", "--nocapture"])
        .env(VICTIM, &log.settings.topic)
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    eventually("it committed something", async || committed(&log) > 0).await;
    victim.kill().expect("kills");
    victim.wait().expect("ends");
    let (before, killed) = (committed(&log), std::time::Instant::now());
    let mut heir = Member::new(&log);
    drive("the rest was seen", &mut [&mut heir], |members| members[0].seen.len() as i64 >= 300 - before)
        .await;
    println!("{before} committed, taken over after {:?}", killed.elapsed());
    assert!(killed.elapsed().as_secs() < 10);
    assert_eq!(heir.seen.len() as i64, 300 - before, "what is committed is not seen again");
    heir.consumer.close().await;
    assert_eq!(committed(&log), 300);
}

fn committed(log: &Kafka) -> i64 {
    log.committed().into_iter().map(|offset| offset.max(0)).sum()
}

/// No test of its own: it reads, is done with a part of what it read, and waits for its end.
#[tokio::test]
async fn part_of_the_member_that_is_killed() {
    let (Ok(topic), Some(other)) = (std::env::var(VICTIM), given()) else { return };
    let settings = Settings { topic: topic.clone(), group: topic, ..other.settings.clone() };
    let mut member = Member::new(&Kafka::with(&other.place, settings));
    loop {
        for record in member.step().await {
            if record.token.offset < 20 {
                member.consumer.done(record.token).await.expect("answers");
            }
        }
    }
}

/// Claim: what is poison is in the dead letters, with where it came from, before its offset
/// can be committed; asked again after a call that was given up, it is written once.
#[tokio::test]
async fn a_dead_letter_that_was_given_up_is_written_once() {
    let Some(log) = given() else { return };
    log.log.append(&RoomId::from("a"), Bytes::from_static(b"7")).await.expect("appends");
    let mut member = Member::new(&log);
    let (mut record, read) = (None, Until::new("the record is read"));
    while read.not(record.is_some()) {
        record = member.step().await.pop();
    }
    let record = record.expect("it is read");
    assert!(futures::poll!(std::pin::pin!(member.consumer.dead_letter(&record, "poison"))).is_pending());
    member.consumer.dead_letter(&record, "poison").await.expect("durable");
    let letters = log.everything_in(&log.settings.dead_letters());
    assert_eq!(letters.len(), 1);
    use rdkafka::message::{Headers, Message};
    let headers = letters[0].headers().expect("headers");
    let origin = headers.iter().find(|header| header.key == "origin").expect("an origin");
    let Some(origin) = origin.value else { panic!("an empty origin") };
    assert!(String::from_utf8_lossy(origin).starts_with(&log.settings.topic), "names its topic");
    assert!(log.committed().iter().all(|offset| *offset <= 0), "nothing is committed yet");
}

/// Claim: what another producer wrote is read: lz4, no key, a key that is no text, no value,
/// its own partitioner.
#[tokio::test]
async fn records_of_other_producers_are_read() {
    let Some(log) = given() else { return };
    append(&log, 0..1).await;
    let mut config = log.plain_client();
    let other: FutureProducer =
        config.set("compression.type", "lz4").set("partitioner", "consistent").create().expect("a producer");
    let topic = &log.settings.topic;
    let send = async |record: FutureRecord<'_, [u8], [u8]>| {
        other.send(record, PATIENCE).await.expect("durable");
    };
    send(FutureRecord::to(topic).payload(&b"no key"[..])).await;
    send(FutureRecord::to(topic).key(&b"\xff\xfe"[..]).payload(&b"odd key"[..])).await;
    send(FutureRecord::to(topic).key(&b"a"[..]).partition(3)).await;
    let mut consumer = log.log.consumer();
    let mut values = BTreeSet::new();
    while values.len() < 4 {
        match soon("all four are read", consumer.next(10)).await {
            Ok(LogEvent::Records(records)) => values.extend(records.into_iter().map(|record| record.value)),
            other => panic!("{other:?}"),
        }
    }
    let expected: BTreeSet<Bytes> = [&b"0"[..], b"no key", b"odd key", b""].map(Bytes::from_static).into();
    assert_eq!(values, expected);
}

/// Claim: the same room lies in the same partition as with the Java client's partitioner.
#[tokio::test]
async fn a_room_lies_where_murmur2_puts_it() {
    let Some(log) = given() else { return };
    append(&log, 0..32).await;
    use rdkafka::message::Message;
    for message in log.everything_in(&log.settings.topic) {
        let partition = (murmur2(message.key().expect("a key")) & 0x7fff_ffff) % 4;
        assert_eq!(message.partition(), partition as i32);
    }
}

/// As the Java client computes it.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut blocks = data.chunks_exact(4);
    for block in &mut blocks {
        let mut k = u32::from_le_bytes([block[0], block[1], block[2], block[3]]).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = blocks.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Claim: a record that the log can never take is refused, and its neighbours are not.
#[tokio::test]
async fn a_record_that_is_too_large_is_refused_alone() {
    let Some(log) = given() else { return };
    let key = RoomId::from("a");
    let large = Bytes::from(vec![0; 5 << 20]);
    let (one, two, three) = tokio::join!(
        log.log.enqueue(&key, Bytes::from_static(b"1")),
        log.log.enqueue(&key, large),
        log.log.enqueue(&key, Bytes::from_static(b"3")),
    );
    assert!(one.is_ok() && three.is_ok(), "{one:?} {three:?}");
    assert!(matches!(two, Err(LogError::Refused(_))), "{two:?}");
    assert_eq!(log.numbers(), [1, 3]);
}

/// Claim: who races for the topic finds it, with the partitions that were asked for and with
/// the dead letters beside it; the lag tells what waits.
#[tokio::test]
async fn topics_are_made_by_whoever_comes_first_and_the_lag_is_told() {
    let Some(log) = given() else { return };
    let others = [log.again(), log.again(), log.again()];
    for (n, other) in (0..).zip(&others) {
        append(other, n..n + 1).await;
    }
    assert_eq!(log.numbers().into_iter().collect::<BTreeSet<_>>(), set(0..3));
    assert!(log.everything_in(&log.settings.dead_letters()).is_empty());
    append(&log, 3..40).await;
    let mut member = Member::new(&log);
    assert!(!member.consumer.is_up());
    let read = Until::new("all of it is read");
    while read.not(member.seen.len() >= 40) {
        member.step().await;
    }
    assert!(member.consumer.is_up());
    eventually("all partitions tell their lag", async || {
        member.step().await;
        member.consumer.lag().iter().map(|lag| lag.records).sum::<u64>() == 40
    })
    .await;
}
