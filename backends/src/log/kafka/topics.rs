//! Makes the topics where they are missing.
//!
//! Every node does it when it starts, so they race: who comes second finds that the topic
//! exists and is content. A topic that is there is taken as it is; one with fewer partitions
//! than asked for works and is told of.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::log_line;
use super::producer::GUARANTEE;
use super::{RECORD_BYTES, client_config, off_thread};
use crate::log::{Inspection, Settings};

/// One try may take this long.
const DEADLINE: Duration = Duration::from_secs(5);
/// The pause after a failed try, and between a check and the next one that is asked for.
const PAUSE: Duration = Duration::from_millis(500);
/// Copies of a record, where there are as many brokers.
const REPLICAS_MAX: usize = 3;
/// Fewest partitions that work is shared well over.
const PARTITIONS_MIN: usize = 4;

/// Follows whether the topics are there. Cheap to clone; the last one ends the task behind.
#[derive(Clone)]
pub(super) struct Topics {
    shared: Arc<Shared>,
}

struct Shared {
    brokers: String,
    /// With the partitions to make.
    wanted: Vec<(String, u32)>,
    ready: watch::Sender<bool>,
    asked: Arc<Notify>,
    /// Present once somebody needed them.
    task: OnceLock<DropGuard>,
}

impl Topics {
    /// Nothing is looked at before somebody needs it.
    pub(super) fn new(brokers: String, settings: &Settings) -> Self {
        let partitions = settings.partitions;
        let wanted = vec![(settings.topic.clone(), partitions), (settings.dead_letters(), partitions)];
        let (ready, asked, task) = (watch::Sender::new(false), Arc::default(), OnceLock::new());
        Self { shared: Arc::new(Shared { brokers, wanted, ready, asked, task }) }
    }

    /// Looks for them, and makes them, in the background. Needs a runtime.
    pub(super) fn start(&self) {
        let Shared { brokers, wanted, ready, asked, task } = &*self.shared;
        task.get_or_init(|| {
            asked.notify_one();
            let stop = CancellationToken::new();
            let keep = keep(brokers.clone(), wanted.clone(), ready.clone(), asked.clone());
            let token = stop.clone();
            tokio::spawn(async move { token.run_until_cancelled(keep).await });
            stop.drop_guard()
        });
    }

    /// Waits until they are there.
    pub(super) async fn ready(&self) {
        self.start();
        // The sender lives as long as `self`.
        let _ = self.shared.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Somebody met a topic that is not there: look again.
    pub(super) fn check(&self) {
        self.shared.asked.notify_one();
    }
}

async fn keep(brokers: String, wanted: Vec<(String, u32)>, told: watch::Sender<bool>, asked: Arc<Notify>) {
    let mut failed = false;
    loop {
        asked.notified().await;
        while let Err(reason) = attempt(&brokers, &wanted).await {
            if !std::mem::replace(&mut failed, true) {
                tracing::warn!(reason, "kafka topics cannot be looked at yet");
            }
            tokio::time::sleep(PAUSE).await;
        }
        if std::mem::take(&mut failed) {
            tracing::info!("kafka topics are there");
        }
        told.send_replace(true);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(brokers: &str, wanted: &[(String, u32)]) -> Result<(), String> {
    let (brokers, wanted) = (brokers.to_owned(), wanted.to_vec());
    on_thread(move || ensure(&brokers, &wanted)).await
}

/// Looks at a topic once.
pub(super) async fn inspect(brokers: &str, topic: &str) -> Result<Inspection, String> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    on_thread(move || look(&brokers, &topic)).await
}

/// One try, on a thread: the library blocks.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (answer, answered) = oneshot::channel();
    off_thread(move || drop(answer.send(work())));
    answered.await.unwrap_or_else(|_| Err("no thread to look from".to_owned()))
}

fn look(brokers: &str, topic: &str) -> Result<Inspection, String> {
    let text = |error: KafkaError| error.to_string();
    let admin = AdminClient::from_config_and_context(&client_config(brokers), Quiet).map_err(text)?;
    let metadata = admin.inner().fetch_metadata(Some(topic), DEADLINE).map_err(text)?;
    let found = metadata.topics().first().ok_or("no answer about the topic")?;
    let copies = found.partitions().iter().map(|partition| partition.replicas().len()).min();
    let options = AdminOptions::new().request_timeout(Some(DEADLINE));
    let resource = ResourceSpecifier::Topic(topic);
    let described = admin.describe_configs([&resource], &options);
    // An answer that does not come or says nothing of it leaves the rest as it is.
    let described = futures::executor::block_on(described).unwrap_or_default();
    let config = described.into_iter().next().and_then(Result::ok);
    let value = config.as_ref().and_then(|config| config.get("min.insync.replicas")?.value.as_deref());
    Ok(Inspection {
        brokers: metadata.brokers().len(),
        partitions: found.partitions().len(),
        copies: copies.unwrap_or(0),
        in_sync_least: value.and_then(|value| value.parse().ok()),
        producer: GUARANTEE,
    })
}

fn ensure(brokers: &str, wanted: &[(String, u32)]) -> Result<(), String> {
    let text = |error: KafkaError| error.to_string();
    let admin = AdminClient::from_config_and_context(&client_config(brokers), Quiet).map_err(text)?;
    let mut replicas = 0;
    let mut missing = Vec::new();
    for (topic, partitions) in wanted {
        let metadata = admin.inner().fetch_metadata(Some(topic), DEADLINE).map_err(text)?;
        replicas = metadata.brokers().len().clamp(1, REPLICAS_MAX);
        let found = metadata.topics().first().ok_or("no answer about the topic")?;
        match found.error() {
            None if found.partitions().len() < PARTITIONS_MIN => {
                let partitions = found.partitions().len();
                tracing::warn!(topic, partitions, "kafka topic has fewer than {PARTITIONS_MIN} partitions");
            }
            None => {}
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => {
                missing.push((topic, *partitions))
            }
            Some(error) => return Err(format!("{topic}: {}", RDKafkaErrorCode::from(error))),
        }
    }
    let largest = RECORD_BYTES.to_string();
    let in_sync = if replicas > 1 { "2" } else { "1" };
    let new = missing.iter().map(|(topic, partitions)| {
        NewTopic::new(topic, *partitions as i32, TopicReplication::Fixed(replicas as i32))
            .set("min.insync.replicas", in_sync)
            .set("max.message.bytes", &largest)
    });
    let new: Vec<_> = new.collect();
    if new.is_empty() {
        return Ok(());
    }
    let options = AdminOptions::new().request_timeout(Some(DEADLINE)).operation_timeout(Some(DEADLINE));
    let results = futures::executor::block_on(admin.create_topics(&new, &options)).map_err(text)?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(topic, replicas, in_sync, "kafka topic made"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => return Err(format!("{topic}: {error}")),
        }
    }
    Ok(())
}

/// An admin client that keeps to itself; what matters is in the answers.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
    }
}
