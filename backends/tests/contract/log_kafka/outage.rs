//! Brokers that die and come back, under a producer and a consumer that go on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use corecast_backends::log::{LogConsumer, LogProducer};

use super::broker::Brokers;
use super::{Kafka, Member, drive, room};

/// Appends records at a steady pace until told to stop; answers how many, each durable.
async fn keep_appending(log: &Kafka, count: u32, pace: Duration) -> u32 {
    let mut answers = tokio::task::JoinSet::new();
    for n in 0..count {
        let answer = log.log.enqueue(&room(n), Bytes::from(n.to_string()));
        answers.spawn(answer);
        tokio::time::sleep(pace).await;
    }
    let mut durable = 0;
    while let Some(answer) = answers.join_next().await {
        answer.expect("no panic").expect("an outage fails no record");
        durable += 1;
    }
    durable
}

/// How often each number is in the topic, and whether a room's numbers stand in order where
/// they stand first.
fn judge(log: &Kafka, count: u32) -> u32 {
    let numbers = log.numbers();
    let mut times: BTreeMap<u32, u32> = BTreeMap::new();
    let mut last: BTreeMap<u32, u32> = BTreeMap::new();
    for n in numbers {
        if *times.entry(n).and_modify(|times| *times += 1).or_insert(1) == 1 {
            let before = last.insert(n % 32, n);
            assert!(before.is_none_or(|before| before < n), "{n} after {before:?} in one room");
        }
    }
    assert_eq!(times.len(), count as usize, "all of them are there");
    let extra = times.values().map(|times| times - 1).max().unwrap_or(0);
    println!("{count} records, {} extra copies", times.values().map(|times| times - 1).sum::<u32>());
    extra
}

/// Setup: the only broker is killed under load and comes back after ten seconds. Claim: no
/// record fails, none is lost, each is there at most once more, rooms keep their order, and a
/// consumer goes on by itself. Why: it is what the relay stands on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_only_broker_fails_loses_and_reorders_nothing() {
    let Some(brokers) = Brokers::start(1) else { return };
    let log = Kafka::new(&brokers.place());
    let mut member = Member::new(&log);
    let count = 1_500;
    let outage = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::task::block_in_place(|| brokers.kill(1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        tokio::task::block_in_place(|| brokers.restart(1));
    };
    let reading = async {
        drive("every record was seen", &mut [&mut member], |members| {
            members[0].seen.iter().collect::<std::collections::BTreeSet<_>>().len() == count as usize
        })
        .await;
    };
    let (durable, (), ()) =
        tokio::join!(keep_appending(&log, count, Duration::from_millis(10)), outage, reading);
    assert_eq!(durable, count);
    assert!(judge(&log, count) <= 1, "at most one extra copy of each");
    member.consumer.close().await;
}

/// Setup: one of three brokers is killed. Claim: appending goes on within the time in which
/// the cluster notices, and nothing is lost, though acknowledged records had two copies only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_brokers_may_die() {
    let Some(brokers) = Brokers::start(3) else { return };
    let log = Kafka::new(&brokers.place());
    let count = 1_000;
    let killed = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        tokio::task::block_in_place(|| brokers.kill(2));
    };
    let started = Instant::now();
    let appending = keep_appending(&log, count, Duration::from_millis(5));
    let (durable, ()) = tokio::join!(appending, killed);
    assert_eq!(durable, count);
    println!("all durable after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(judge(&log, count) <= 1, "at most one extra copy of each");
}

/// Claim: with the cluster away from the start, everything waits, and goes on when it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_away_at_the_start_is_waited_for() {
    let Some(brokers) = Brokers::start(1) else { return };
    brokers.kill(1);
    let log = Kafka::new(&brokers.place());
    let mut member = Member::new(&log);
    let appending = keep_appending(&log, 100, Duration::ZERO);
    let waiting = async {
        for _ in 0..10 {
            member.step_and_done().await;
        }
        assert!(member.seen.is_empty());
        tokio::task::block_in_place(|| brokers.restart(1));
        drive("every record was seen", &mut [&mut member], |members| members[0].seen.len() >= 100).await;
    };
    let (durable, ()) = tokio::join!(appending, waiting);
    assert_eq!(durable, 100);
    assert!(judge(&log, 100) <= 1);
}
