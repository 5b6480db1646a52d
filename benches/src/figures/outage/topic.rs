//! The topic as Kafka has it: its first answer after an outage, and how often each record
//! lies there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use corecast_proto::job::PushMsg;
use prost::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::clock::now_ns;

/// A topic of a cluster.
#[derive(Clone)]
pub(super) struct Topic {
    brokers: String,
}

/// By partition, the offset behind its last record.
pub(super) type Ends = Vec<(i32, i64)>;
/// Records by (room, epoch, first number), with how many messages each holds and how often
/// it lies there.
pub(super) type Records = HashMap<(String, i64, i64), (u64, u64)>;

/// How often records lie on the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Repeats {
    pub(super) once: u64,
    pub(super) twice: u64,
    pub(super) more: u64,
    /// The most.
    pub(super) most: u64,
}

impl Topic {
    /// The topic of the default configuration on these brokers, `host:port,host:port`.
    pub(super) fn of(brokers: String) -> Self {
        Self { brokers }
    }

    fn client(&self) -> Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            // Needed to be assigned anything; nothing is committed.
            .set("group.id", "corecast-bench")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "100")
            .set("log_level", "0");
        config.create().context("a Kafka client")
    }

    /// Asks for metadata until it is answered; when that was, or `None` after `patience`.
    /// Blocks.
    ///
    /// # Errors
    /// There can be no client.
    pub(super) fn first_answer(&self, patience: Duration) -> Result<Option<u64>> {
        let (client, begin) = (self.client()?, Instant::now());
        while begin.elapsed() < patience {
            if client.fetch_metadata(Some(NAME), ANSWER).is_ok() {
                return Ok(Some(now_ns()));
            }
        }
        Ok(None)
    }

    /// Where each partition ends now. Blocks.
    ///
    /// # Errors
    /// Kafka does not tell.
    pub(super) fn ends(&self) -> Result<Ends> {
        self.ends_by(&self.client()?)
    }

    fn ends_by(&self, client: &BaseConsumer) -> Result<Ends> {
        let metadata = client.fetch_metadata(Some(NAME), PATIENCE).context("metadata")?;
        let topic = metadata.topics().first().context("no answer about the topic")?;
        let mut ends = Ends::new();
        for partition in topic.partitions() {
            let (_, end) = client.fetch_watermarks(NAME, partition.id(), PATIENCE).context("watermarks")?;
            ends.push((partition.id(), end));
        }
        if ends.is_empty() {
            bail!("topic {NAME} has no partitions");
        }
        Ok(ends)
    }

    /// Reads everything behind `from`; records without numbers are passed over. Blocks.
    ///
    /// # Errors
    /// Kafka does not hand it out in time, or a record is none of ours.
    pub(super) fn read(&self, from: &Ends) -> Result<Records> {
        let client = self.client()?;
        let mut open: HashMap<i32, i64> = HashMap::new();
        let mut places = TopicPartitionList::new();
        let begins: HashMap<i32, i64> = from.iter().copied().collect();
        for (partition, end) in self.ends_by(&client)? {
            let begin = begins.get(&partition).copied().unwrap_or(0);
            if begin < end {
                places.add_partition_offset(NAME, partition, Offset::Offset(begin))?;
                open.insert(partition, end);
            }
        }
        client.assign(&places)?;
        let (mut records, mut heard) = (Records::new(), Instant::now());
        while !open.is_empty() {
            let Some(message) = client.poll(ANSWER) else {
                if heard.elapsed() > PATIENCE {
                    bail!("{} partitions were not read to their end", open.len());
                }
                continue;
            };
            heard = Instant::now();
            // The client reconnects by itself; what it cannot mend shows as silence.
            let Ok(message) = message else { continue };
            take(&mut records, message.payload().unwrap_or_default())?;
            if open.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                open.remove(&message.partition());
            }
        }
        Ok(records)
    }
}

fn take(records: &mut Records, value: &[u8]) -> Result<()> {
    let record = PushMsg::decode(value).context("a record on the log")?;
    if record.epoch > 0 {
        let messages = u64::try_from(record.count).context("a record with less than no message")?;
        records.entry((record.room, record.epoch, record.first_seq)).or_insert((messages, 0)).1 += 1;
    }
    Ok(())
}

/// How often they lie there.
pub(super) fn repeats(records: &Records) -> Repeats {
    let mut repeats = Repeats::default();
    for (_, times) in records.values() {
        match times {
            0 | 1 => repeats.once += 1,
            2 => repeats.twice += 1,
            _ => repeats.more += 1,
        }
        repeats.most = repeats.most.max(*times);
    }
    repeats
}

/// Messages of these rooms on the log, repeats not counted.
pub(super) fn messages(records: &Records, rooms: &[String]) -> u64 {
    let ours = records.iter().filter(|((room, _, _), _)| rooms.contains(room));
    ours.map(|(_, (messages, _))| messages).sum()
}

/// The default of `log.topic`.
const NAME: &str = "my-topic";
/// One question; answered sooner, it ends sooner.
const ANSWER: Duration = Duration::from_secs(1);
/// A cluster that runs answers in this time.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn value(room: &str, epoch: i64, first_seq: i64, count: i32) -> Vec<u8> {
        PushMsg { room: room.into(), epoch, first_seq, count, ..PushMsg::default() }.encode_to_vec()
    }

    #[test]
    fn records_are_counted_by_room_epoch_and_first_number() {
        let mut records = Records::new();
        for record in [
            value("a", 1, 1, 2),
            value("a", 1, 1, 2),
            value("a", 2, 1, 2),
            value("b", 1, 1, 1),
            value("a", 1, 3, 1),
            value("a", 1, 3, 1),
            value("a", 1, 3, 1),
            value("", 0, 0, 0),
        ] {
            take(&mut records, &record).expect("a record");
        }
        assert_eq!(repeats(&records), Repeats { once: 2, twice: 1, more: 1, most: 3 });
        assert_eq!(messages(&records, &["a".to_owned()]), 2 + 2 + 1);
        assert!(take(&mut records, &[0xff]).is_err());
    }
}
