//! Which partitions a consumer owns and how far each is done.
//!
//! The callbacks of a rebalance run inside a poll of the consumer, so they must not wait. A
//! partition that is taken away is committed as far as it is done, asynchronously but ahead
//! of the answer to the group, and is ours no more from that moment: what is in flight is
//! abandoned, its later `done` is ignored, and the next owner begins at the commit.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;

use super::client::{Reachable, log_line};
use crate::log::{Lag, Token};

/// The context of one consumer.
pub(super) struct Assignment {
    topic: String,
    pub(super) reachable: Reachable,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owned: BTreeMap<i32, Progress>,
    /// Taken away and not told yet.
    revoked: Vec<i32>,
    /// The group answered: we are a member, even one without partitions.
    joined: bool,
    paused: bool,
    commit_failed: bool,
    heads: BTreeMap<i32, Head>,
}

/// Offsets of what comes next, as Kafka counts: one above the last that is done.
#[derive(Default)]
struct Progress {
    done: Option<i64>,
    committed: Option<i64>,
}

/// What the cluster says of a partition.
#[derive(Clone, Copy, Deserialize)]
struct Head {
    hi_offset: i64,
    lo_offset: i64,
    committed_offset: i64,
}

impl Assignment {
    pub(super) fn new(topic: String) -> Self {
        Self { topic, reachable: Reachable::new("consumer"), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under the lock")
    }

    /// Remembers it, unless the partition is no longer ours or was lost in between.
    pub(super) fn done(&self, token: Token) {
        let mut state = self.state();
        if state.revoked.contains(&token.partition) {
            return;
        }
        if let Some(progress) = state.owned.get_mut(&token.partition) {
            progress.done = progress.done.max(Some(token.offset + 1));
        }
    }

    /// Partitions that were taken away, each told once.
    pub(super) fn take_revoked(&self) -> Option<Vec<i32>> {
        let mut state = self.state();
        match state.revoked.is_empty() {
            true => None,
            false => Some(std::mem::take(&mut state.revoked)),
        }
    }

    pub(super) fn has_revoked(&self) -> bool {
        !self.state().revoked.is_empty()
    }

    /// A member of the group, and the cluster is there.
    pub(super) fn is_up(&self) -> bool {
        self.state().joined && self.reachable.is_up()
    }

    /// Everything is lost with a consumer that failed; answers what was not told yet.
    pub(super) fn lose_all(&self) -> Vec<i32> {
        let mut state = self.state();
        let mut lost = std::mem::take(&mut state.revoked);
        lost.extend(std::mem::take(&mut state.owned).into_keys());
        lost
    }

    /// Hands what is done to the cluster, without waiting for its answer.
    pub(super) fn commit<C: Consumer<Self>>(&self, consumer: &C) {
        let offsets = self.uncommitted(|_| true);
        if offsets.count() > 0
            && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
        {
            self.commit_ended(Err(error), &offsets);
        }
    }

    /// Stops or starts the fetching of everything that is ours and will be.
    pub(super) fn pause<C: Consumer<Self>>(&self, consumer: &C, paused: bool) {
        let mut list = TopicPartitionList::new();
        {
            let mut state = self.state();
            if std::mem::replace(&mut state.paused, paused) == paused {
                return;
            }
            for partition in state.owned.keys() {
                list.add_partition(&self.topic, *partition);
            }
        }
        let changed = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
        if let Err(error) = changed {
            tracing::warn!(%error, paused, "kafka consumer does not follow");
        }
    }

    /// Records that are not done yet, by partition that is ours.
    pub(super) fn lag(&self) -> Vec<Lag> {
        let state = self.state();
        let lag = |(&partition, progress): (&i32, &Progress)| {
            let head = state.heads.get(&partition)?;
            let next = progress.done.max(Some(head.committed_offset)).max(Some(head.lo_offset))?;
            let records = u64::try_from(head.hi_offset.saturating_sub(next)).unwrap_or(0);
            Some(Lag { partition, records })
        };
        state.owned.iter().filter_map(lag).collect()
    }

    fn uncommitted(&self, of: impl Fn(i32) -> bool) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (&partition, progress) in &self.state().owned {
            if let (true, true, Some(next)) = (of(partition), progress.is_dirty(), progress.done) {
                list.add_partition_offset(&self.topic, partition, Offset::Offset(next))
                    .expect("an offset that Kafka gave");
            }
        }
        list
    }

    fn commit_ended(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let mut state = self.state();
        let failed = match &result {
            Ok(()) => offsets.elements().iter().find_map(|element| element.error().err()),
            Err(error) => Some(error.clone()),
        };
        if let Some(error) = failed {
            if !std::mem::replace(&mut state.commit_failed, true) {
                tracing::warn!(%error, "kafka did not take a commit, trying again");
            }
            return;
        }
        self.reachable.up();
        if std::mem::take(&mut state.commit_failed) {
            tracing::info!("kafka takes commits again");
        }
        for element in offsets.elements() {
            if let (Offset::Offset(next), Some(progress)) =
                (element.offset(), state.owned.get_mut(&element.partition()))
            {
                progress.committed = progress.committed.max(Some(next));
            }
        }
    }
}

impl Progress {
    fn is_dirty(&self) -> bool {
        self.done > self.committed
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        let lost: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        // After a lost session another one may own them already: its commits stand.
        if !consumer.assignment_lost() {
            let offsets = self.uncommitted(|partition| lost.contains(&partition));
            if offsets.count() > 0
                && let Err(error) = consumer.commit(&offsets, CommitMode::Async)
            {
                tracing::debug!(%error, "kafka did not take a commit before a revocation");
            }
        }
        let mut state = self.state();
        tracing::info!(partitions = ?lost, "kafka partitions taken away");
        for partition in lost {
            if state.owned.remove(&partition).is_some() {
                state.revoked.push(partition);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(list) = rebalance else { return };
        self.reachable.up();
        let mut state = self.state();
        state.joined = true;
        let given: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        for partition in &given {
            state.owned.insert(*partition, Progress::default());
        }
        if !given.is_empty() {
            tracing::info!(partitions = ?given, "kafka partitions given");
        }
        if state.paused && !given.is_empty() {
            drop(state);
            if let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "kafka consumer does not pause");
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        self.commit_ended(result, offsets);
    }
}

/// The few fields of librdkafka's statistics that tell the lag.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: BTreeMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: BTreeMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    nodeid: i32,
    state: String,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: BTreeMap<i32, Head>,
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.reachable.error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(mut statistics) => {
                // Those with a negative id are names of the configuration, not brokers.
                if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
                    self.reachable.up();
                }
                let ours = statistics.topics.remove(&self.topic);
                self.state().heads = ours.map(|topic| topic.partitions).unwrap_or_default();
            }
            Err(error) => tracing::debug!(%error, "kafka statistics cannot be read"),
        }
    }
}
